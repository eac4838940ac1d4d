//! One-time passwords that depend on the time (RFC 6238): six digits of HMAC-SHA-1 over the
//! number of half minutes since 1970, as every authenticator app makes them.
//!
//! A code of the half minute before or after is right, too: clocks differ and people type
//! slowly. Which step a code belongs to is told, so that its owner can refuse it twice.

use ring::hmac;
use subtle::ConstantTimeEq;

use crate::error::Result;
use crate::support::clock::Instant;
use crate::support::id;

const STEP_SECONDS: i64 = 30;
const DIGITS: u32 = 6;
/// Steps before and after the present one whose codes are taken.
const SKEW: i64 = 1;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A fresh secret of 160 bits, in base32.
pub fn secret() -> Result<String> {
    Ok(base32(&id::random::<20>()?))
}

/// What an app reads from the QR code.
pub fn uri(issuer: &str, account: &str, secret: &str) -> String {
    use percent_encoding::NON_ALPHANUMERIC;
    use percent_encoding::utf8_percent_encode;
    let plain = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!(
        "otpauth://totp/{0}:{1}?secret={secret}&issuer={0}&algorithm=SHA1&digits={DIGITS}&period={STEP_SECONDS}",
        plain(issuer),
        plain(account)
    )
}

/// The step that this code is right for, if it is one after `last`.
pub fn verify(secret: &str, code: &str, now: Instant, last: i64) -> Option<i64> {
    let key = unbase32(secret)?;
    let present = now.unix_seconds().div_euclid(STEP_SECONDS);
    // All steps are tried, so that time does not tell which one it was.
    (present - SKEW..=present + SKEW)
        .filter(|step| bool::from(digits(&key, *step, DIGITS).as_bytes().ct_eq(code.as_bytes())))
        .find(|step| *step > last)
}

/// The code of now.
#[cfg(test)]
pub(super) fn now(secret: &str, now: Instant) -> String {
    digits(&unbase32(secret).unwrap(), now.unix_seconds().div_euclid(STEP_SECONDS), DIGITS)
}

/// RFC 4226 §5.3.
fn digits(key: &[u8], step: i64, count: u32) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag.last().copied().unwrap_or(0) & 15);
    let four = tag.iter().skip(at).take(4).fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    let number = (four & 0x7fff_ffff) % 10_u32.pow(count);
    format!("{number:0width$}", width = count as usize)
}

pub(super) fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut bits, mut held) = (0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.extend(BASE32.get((bits >> held & 31) as usize).map(|c| char::from(*c)));
        }
    }
    if held > 0 {
        text.extend(BASE32.get((bits << (5 - held) & 31) as usize).map(|c| char::from(*c)));
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for c in text.bytes() {
        let five = BASE32.iter().position(|known| *known == c)?;
        bits = bits << 5 | five as u32;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 255) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, SHA-1.
    #[test]
    fn the_vectors_of_the_rfc() {
        let key = b"12345678901234567890";
        for (seconds, expected) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(digits(key, seconds / STEP_SECONDS, 8), expected, "{seconds}");
        }
        // RFC 4226, appendix D.
        let counted: Vec<String> = (0..4).map(|step| digits(key, step, 6)).collect();
        assert_eq!(counted, ["755224", "287082", "359152", "969429"]);
    }

    /// RFC 4648 §10, without the padding that apps leave out.
    #[test]
    fn base32_there_and_back() {
        for (bytes, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foobar", "MZXW6YTBOI")] {
            assert_eq!(base32(bytes.as_bytes()), text);
            assert_eq!(unbase32(text).unwrap(), bytes.as_bytes());
        }
        assert!(unbase32("MZXW1").is_none());
        assert_eq!(secret().unwrap().len(), 32);
    }

    #[test]
    fn a_code_is_good_for_its_half_minute_and_those_around_it_once() {
        let secret = base32(b"12345678901234567890");
        let at = |seconds: i64| Instant(seconds * 1000);
        let code = digits(b"12345678901234567890", 1000, DIGITS);
        for (seconds, right) in
            [(29_969, false), (29_970, true), (30_000, true), (30_059, true), (30_060, false), (60_000, false)]
        {
            assert_eq!(verify(&secret, &code, at(seconds), 0), right.then_some(1000), "{seconds}");
        }
        assert_eq!(verify(&secret, &code, at(30_000), 1000), None, "used already");
        assert_eq!(verify(&secret, &code, at(30_000), 999), Some(1000));
        for wrong in ["", "0", "abcdef", "0000000", "１２３４５６"] {
            assert_eq!(verify(&secret, wrong, at(30_000), 0), None, "{wrong}");
        }
    }

    #[test]
    fn an_app_can_read_the_uri() {
        assert_eq!(
            uri("Cloakroom", "a b@c.org", "MY"),
            "otpauth://totp/Cloakroom:a%20b%40c%2Eorg?secret=MY&issuer=Cloakroom&algorithm=SHA1&digits=6&period=30"
        );
    }
}
