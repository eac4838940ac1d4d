//! What a sender says a piece digests to, and whether it does.

use bytes::Bytes;
use ring::digest;

use crate::support::checksum::Digester;
use crate::support::checksum::Lanes;

/// The digest that a piece has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Md5([u8; 16]),
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

impl Claim {
    /// The words for what can be claimed.
    pub const WORDS: [&str; 3] = ["md5", "sha1", "sha256"];

    /// `None` when it cannot be a digest of that kind.
    pub fn of(word: &str, digest: &[u8]) -> Option<Claim> {
        match word {
            "md5" => digest.try_into().ok().map(Claim::Md5),
            "sha1" => digest.try_into().ok().map(Claim::Sha1),
            "sha256" => digest.try_into().ok().map(Claim::Sha256),
            _ => None,
        }
    }
}

/// Digests a piece as it passes.
pub(super) enum Check {
    Md5(Box<Digester>, [u8; 16]),
    Other(Box<digest::Context>, Vec<u8>),
}

impl Check {
    pub fn new(claim: Claim, lanes: &Lanes) -> Check {
        let ring = |kind, claimed: &[u8]| Check::Other(Box::new(digest::Context::new(kind)), claimed.to_vec());
        match claim {
            Claim::Md5(claimed) => Check::Md5(Box::new(Digester::new(lanes)), claimed),
            Claim::Sha1(claimed) => ring(&digest::SHA1_FOR_LEGACY_USE_ONLY, &claimed),
            Claim::Sha256(claimed) => ring(&digest::SHA256, &claimed),
        }
    }

    /// As `Digester::update`, it belongs into a blocking step.
    pub fn update(&mut self, batch: &Bytes) {
        match self {
            Check::Md5(digester, _) => digester.update(batch),
            Check::Other(context, _) => context.update(batch),
        }
    }

    pub fn holds(self) -> bool {
        match self {
            Check::Md5(digester, claimed) => digester.finish().md5 == claimed,
            Check::Other(context, claimed) => context.finish().as_ref() == claimed,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    #[test]
    fn what_is_claimed_holds_or_not() {
        let lanes = Lanes::start();
        for (word, digest) in [
            ("md5", "kAFQmDzST7DWlj99KOF/cg=="),
            ("sha1", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="),
            ("sha256", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
        ] {
            let digest = BASE64_STANDARD.decode(digest).unwrap();
            let claim = Claim::of(word, &digest).unwrap();
            assert!(Claim::of(word, &digest[1..]).is_none() && Claim::of("crc32", &digest).is_none());
            for (text, is_right) in [("abc", true), ("abd", false), ("", false)] {
                let mut check = Check::new(claim, &lanes);
                check.update(&Bytes::from_static(text.as_bytes()));
                assert_eq!(check.holds(), is_right, "{word} of {text:?}");
            }
        }
    }
}
