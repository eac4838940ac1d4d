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
//! Invariant: signatures are compared in constant time, and a link that is wrong in any way
//! is refused even where none was needed: whoever signs wants to learn that it does not work.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use ring::hmac;
use subtle::ConstantTimeEq;

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

    /// Whether one of these keys signed it, and it has not expired.
    pub fn verify(&self, api_keys: &[String], now: Instant) -> Result<()> {
        let wrong = || Code::Forbidden.because("The signature does not fit this link.");
        let mut fits = subtle::Choice::from(0);
        for key in api_keys {
            for text in &self.texts {
                fits |= mac(key, text).as_ref().ct_eq(&self.signature);
            }
        }
        if !bool::from(fits) {
            return Err(wrong());
        }
        if now.unix_seconds() > self.expiry_seconds {
            return Err(Code::Forbidden.because("This link has expired."));
        }
        Ok(())
    }
}

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
