//! Signed links: a URL that carries the right to what it names, until it expires.
//!
//! ```text
//! text       = what follows /api/v1/assets/, query included, up to &signature=
//! signature  = base64(HMAC-SHA1(key = an API key's text, text)), then percent-encoded
//! ```
//!
//! `expiry` is in seconds since 1970, `accessId` names whose key it was. The vendor's samples
//! disagree about the alphabet of base64, about padding, about percent-encoding before
//! signing, and older ones leave `/conversions` out of the text: all of them verify here.
//! Source: <https://developers.filespin.io/image-transformations/signed-url>.
//!
//! What is reached by a link may lead on to more: a playlist to its segments, cues to their
//! pictures. Whoever answers with such a text signs each address in it for the same signer
//! until the same instant ([`Cosigner`]). Every one of them is an ordinary signed link that
//! opens one file, so nothing new can be forged, nothing beside those files is opened, and a
//! key that is withdrawn closes all of them. A token for a whole folder would have needed a
//! second kind of credential with rules of its own.
//!
//! Invariant: signatures are compared in constant time, and a link that is wrong in any way
//! is refused even where none was needed: whoever signs wants to learn that it does not work.

use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::percent_decode_str;
use percent_encoding::utf8_percent_encode;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::accounts::Caller;
use crate::delivery::Delivery;
use crate::error::Code;
use crate::error::Result;
use crate::support::clock::Instant;

/// A signature as it came, and the texts that it may be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub access_id: String,
    expiry_seconds: i64,
    signature: Vec<u8>,
    texts: Vec<String>,
}

impl Signed {
    /// Reads a link: the path after `/api/v1/assets/`, and the query as it was sent. `None`
    /// when it carries no signature.
    pub fn read(path: &str, query: &str) -> Result<Option<Signed>> {
        let value = |name: &str| {
            let found = query.split('&').rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            found.map(|raw| percent_decode_str(raw).decode_utf8_lossy().into_owned())
        };
        let Some(signature) = value("signature") else { return Ok(None) };
        let missing = |name: &str| Code::Forbidden.because(format!("A signed link needs `{name}`."));
        let access_id = value("accessId").ok_or_else(|| missing("accessId"))?;
        let expiry = value("expiry").ok_or_else(|| missing("expiry"))?;
        let expiry_seconds =
            expiry.parse().map_err(|_| Code::Forbidden.because("`expiry` has to be seconds since 1970."))?;
        let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("signature=")).collect();
        let rest = rest.join("&");
        let plain = percent_decode_str(&rest).decode_utf8_lossy().into_owned();
        let mut texts = Vec::new();
        for path in [path, path.strip_suffix("/conversions").unwrap_or(path)] {
            for query in [&rest, &plain] {
                let text = format!("{path}?{query}");
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
        }
        // A plus sign that was not percent-encoded arrives as what forms make of it.
        let standard: String = signature
            .trim_end_matches('=')
            .chars()
            .map(|c| match c {
                '-' | ' ' => '+',
                '_' => '/',
                other => other,
            })
            .collect();
        let signature = base64::engine::general_purpose::STANDARD_NO_PAD.decode(standard).unwrap_or_default();
        Ok(Some(Signed { access_id, expiry_seconds, signature, texts }))
    }

    /// Whether one of these keys signed it, and it has not expired. Who did may sign what it leads to.
    pub fn verify(&self, api_keys: &[String], now: Instant) -> Result<Cosigner> {
        let mut signed_with = None;
        for key in api_keys {
            let mut fits = subtle::Choice::from(0);
            for text in &self.texts {
                fits |= mac(key, text).as_ref().ct_eq(&self.signature);
            }
            if bool::from(fits) {
                signed_with = Some(key);
            }
        }
        let key = signed_with.ok_or_else(|| Code::Forbidden.because("The signature does not fit this link."))?;
        if now.unix_seconds() > self.expiry_seconds {
            return Err(Code::Forbidden.because("This link has expired."));
        }
        Ok(Cosigner { access_id: self.access_id.clone(), expiry_seconds: self.expiry_seconds, api_key: key.clone() })
    }
}

/// Signs for whoever signed the link that was followed, until that link expires.
#[derive(Clone)]
pub struct Cosigner {
    access_id: String,
    expiry_seconds: i64,
    api_key: String,
}

impl Cosigner {
    /// The query that opens `path` (as in [`Signed::read`]); `pairs` are a part of what is asked for.
    pub fn query(&self, path: &str, pairs: &str) -> String {
        let glue = if pairs.is_empty() { "" } else { "&" };
        let query = format!("{pairs}{glue}expiry={}&accessId={}", self.expiry_seconds, self.access_id);
        let signature = URL_SAFE_NO_PAD.encode(mac(&self.api_key, &format!("{path}?{query}")));
        format!("{query}&signature={signature}")
    }
}

impl Delivery {
    /// Signs, with the caller's own right, what follows `/api/v1/assets/`: a path and its query,
    /// which may be empty. The link holds for `life`, and no longer than its signer's key.
    pub async fn sign(&self, caller: &Caller, path: &str, query: &[(&str, &str)], life: Life) -> Result<String> {
        let (access_id, api_key) = self.accounts.signing(caller.user_id()).await?;
        let expiry = match life {
            Life::For(life) => self.clock.now().plus(life).unix_seconds(),
            Life::Longest => LATEST_SECONDS,
        };
        let mut text = format!("{path}?");
        for (name, value) in query {
            let _ = write!(text, "{name}={value}&");
        }
        let _ = write!(text, "expiry={expiry}&accessId={access_id}");
        let signature = sign(&api_key, &text);
        Ok(format!("{text}&signature={}", utf8_percent_encode(&signature, NON_ALPHANUMERIC)))
    }
}

/// How long a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    For(Duration),
    /// Until 2038-01-19, the contract's end of time.
    Longest,
}

const LATEST_SECONDS: i64 = i32::MAX as i64;

/// The signature of a text, in base64.
pub fn sign(api_key: &str, text: &str) -> String {
    STANDARD.encode(mac(api_key, text))
}

fn mac(api_key: &str, text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, api_key.as_bytes()), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0c3c6d026858460abc4de1dcb4de15ac";
    const PATH: &str = "0c3c6d026858460abc4de1dcb4de15ac/conversions";
    const QUERY: &str = "resize=300,300&expiry=1452894790&accessId=IZJTAMBQGAYDAMBQGAYDAMBQGAYDANKT";
    const BEFORE: Instant = Instant(1_452_894_000_000);

    fn verified(path: &str, query: &str, key: &str, now: Instant) -> bool {
        Signed::read(path, query).unwrap().unwrap().verify(&[key.to_owned()], now).is_ok()
    }

    #[test]
    fn the_documented_algorithm() {
        let key = "678d1dbb934c4a42aa4833e893346857";
        let text = "f99255d2bf8142b29561641491e9940c/transcodes/480p-video.mp4?expiry=1452894790&accessId=IZJTAMBQGAYDAMBQGAYDAMBQGAYDANKT";
        assert_eq!(sign(key, text), "cswIZhy0QrwMgf/biGdgJSkM/BY=");
        assert_eq!(sign(KEY, &format!("{PATH}?{QUERY}")), "Kwt1tKU80DfqyJfvY5/tIkjd5s0=");
    }

    #[test]
    fn every_spelling_of_a_signature() {
        for signature in [
            "Kwt1tKU80DfqyJfvY5_tIkjd5s0=",
            "Kwt1tKU80DfqyJfvY5_tIkjd5s0%3D",
            "Kwt1tKU80DfqyJfvY5%2FtIkjd5s0%3D",
            "Kwt1tKU80DfqyJfvY5/tIkjd5s0",
        ] {
            assert!(verified(PATH, &format!("{QUERY}&signature={signature}"), KEY, BEFORE), "{signature}");
            assert!(verified(PATH, &format!("signature={signature}&{QUERY}"), KEY, BEFORE), "{signature} in front");
        }
        let encoded = QUERY.replace(',', "%2C");
        let query = format!("{encoded}&signature=Kwt1tKU80DfqyJfvY5_tIkjd5s0=");
        assert!(verified(PATH, &query, KEY, BEFORE), "signed before it was percent-encoded");
        let short = sign(KEY, &format!("{}?{QUERY}", PATH.trim_end_matches("/conversions"))).replace('+', "%2B");
        assert!(verified(PATH, &format!("{QUERY}&signature={short}"), KEY, BEFORE), "the older text");
    }

    #[test]
    fn a_cosigner_opens_what_it_is_asked_for_and_nothing_else() {
        let good = format!("{QUERY}&signature=Kwt1tKU80DfqyJfvY5_tIkjd5s0=");
        let keys = ["another-key".to_owned(), KEY.to_owned()];
        let cosigner = Signed::read(PATH, &good).unwrap().unwrap().verify(&keys, BEFORE).unwrap();
        for pairs in ["", "v=1"] {
            let query = cosigner.query("x/transcodes/a/b.m4s", pairs);
            assert!(query.starts_with(pairs) && query.contains("expiry=1452894790&accessId=IZJTAMBQ"), "{query}");
            assert!(verified("x/transcodes/a/b.m4s", &query, KEY, BEFORE));
            assert!(!verified("x/transcodes/a/c.m4s", &query, KEY, BEFORE), "another file");
            assert!(!verified("x/transcodes/a/b.m4s", &query, "another-key", BEFORE), "another key");
            assert!(!verified("x/transcodes/a/b.m4s", &query, KEY, Instant(1_452_894_791_000)), "as long as the first");
            assert!(!verified("x/transcodes/a/b.m4s", &format!("more=1&{query}"), KEY, BEFORE));
        }
    }

    #[test]
    fn what_does_not_hold() {
        let good = format!("{QUERY}&signature=Kwt1tKU80DfqyJfvY5_tIkjd5s0=");
        assert!(!verified(PATH, &good, "another-key", BEFORE));
        assert!(!verified(PATH, &good, KEY, Instant(1_452_894_791_000)), "expired");
        assert!(!verified(PATH, &good.replace("300,300", "900,900"), KEY, BEFORE));
        assert!(!verified(PATH, &good.replace("1452894790", "1952894790"), KEY, BEFORE));
        assert!(!verified(&PATH.replace("0c3c", "1c3c"), &good, KEY, BEFORE));
        assert!(!verified(PATH, &format!("{QUERY}&signature="), KEY, BEFORE), "an empty one");
        assert!(Signed::read(PATH, &good).unwrap().unwrap().verify(&[], BEFORE).is_err(), "no key");
        assert_eq!(Signed::read(PATH, QUERY).unwrap(), None);
        for bad in ["signature=x", "signature=x&accessId=y", "signature=x&accessId=y&expiry=soon"] {
            assert_eq!(Signed::read(PATH, bad).unwrap_err().code, Code::Forbidden, "{bad}");
        }
    }
}
