//! Bearer tokens: JSON Web Tokens (RFC 7519) of exactly one kind.
//!
//! The box only ever reads tokens that it issued itself, so the header is a constant that is
//! compared, not parsed: there is no algorithm to confuse. HS256, 24 hours, no refresh.
//! `epoch` ties a token to its user's row; raising the epoch revokes all tokens so far.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::seal::MasterKey;
use crate::error::Result;
use crate::support::clock::Instant;
use crate::support::id;

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// How far two clocks may differ, in seconds.
const LEEWAY: i64 = 30;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    pub sub: i64,
    pub epoch: i64,
    iat: i64,
    exp: i64,
    jti: String,
}

pub fn issue(master: &MasterKey, user: i64, epoch: i64, now: Instant, life: Duration) -> Result<String> {
    let iat = now.unix_seconds();
    let exp = now.plus(life).unix_seconds();
    let claims = Claims { sub: user, epoch, iat, exp, jti: id::hex(&id::random::<8>()?) };
    let body = serde_json::to_vec(&claims).unwrap_or_default();
    let signed = format!("{HEADER}.{}", BASE64.encode(body));
    let signature = hmac::sign(&master.token, signed.as_bytes());
    Ok(format!("{signed}.{}", BASE64.encode(signature)))
}

/// The claims of a token of ours that is valid now.
pub fn verify(master: &MasterKey, text: &str, now: Instant) -> Option<Claims> {
    let (signed, signature) = text.rsplit_once('.')?;
    let body = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
    hmac::verify(&master.token, signed.as_bytes(), &BASE64.decode(signature).ok()?).ok()?;
    let claims: Claims = serde_json::from_slice(&BASE64.decode(body).ok()?).ok()?;
    let now = now.unix_seconds();
    (claims.exp > now - LEEWAY && claims.iat <= now + LEEWAY).then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Instant = Instant(1_700_000_000_000);

    fn key() -> MasterKey {
        MasterKey::derive(&[3; 32]).unwrap()
    }

    #[test]
    fn the_header_says_what_it_stands_for() {
        assert_eq!(BASE64.decode(HEADER).unwrap(), br#"{"alg":"HS256","typ":"JWT"}"#);
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let token = issue(&key(), 42, 0, NOON, Duration::from_hours(24)).unwrap();
        assert_eq!(verify(&key(), &token, NOON).unwrap().sub, 42);
        assert!(verify(&key(), &token, NOON.plus(Duration::from_hours(23))).is_some());
        assert!(verify(&key(), &token, NOON.plus(Duration::from_hours(25))).is_none());
        assert!(verify(&key(), &token, NOON.minus(Duration::from_hours(1))).is_none());
    }

    #[test]
    fn every_altered_character_is_noticed() {
        let token = issue(&key(), 42, 0, NOON, Duration::from_hours(24)).unwrap();
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let bent = String::from_utf8(bytes).unwrap();
            // The last digit of an unpadded group may carry unused bits; a changed text must still fail.
            assert!(verify(&key(), &bent, NOON).is_none(), "position {at}");
        }
    }

    /// Signed as ours are, so that only what is inside is judged.
    fn signed(header: &str, body: &str) -> String {
        let text = format!("{}.{}", BASE64.encode(header), BASE64.encode(body));
        let signature = hmac::sign(&key().token, text.as_bytes());
        format!("{text}.{}", BASE64.encode(signature))
    }

    #[test]
    fn only_one_kind_of_token_is_read() {
        const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
        let body = format!(r#"{{"sub":1,"epoch":0,"iat":{0},"exp":{0},"jti":"x"}}"#, NOON.unix_seconds());
        assert!(verify(&key(), &signed(HS256, &body), NOON).is_some(), "the same in every way");
        for header in [
            r#"{"alg":"none","typ":"JWT"}"#,
            r#"{"alg":"HS512","typ":"JWT"}"#,
            r#"{"alg":"RS256","typ":"JWT"}"#,
            r#"{"typ":"JWT","alg":"HS256"}"#,
            r#"{"alg":"HS256","typ":"JWT","kid":"../../dev/null"}"#,
            "{}",
            "",
        ] {
            assert!(verify(&key(), &signed(header, &body), NOON).is_none(), "{header}");
        }
        for body in [
            "",
            "[]",
            "null",
            "1",
            r#"["sub",1]"#,
            &format!("[{body}]"),
            &body.replace(r#""exp""#, r#""nbf""#),
            &body.replace(r#""sub":1"#, r#""sub":"1""#),
            &body.replace(r#""sub":1"#, r#""sub":1.5"#),
            &body.replace(r#""sub":1"#, r#""sub":[1]"#),
            &body.replace(r#""sub":1,"#, ""),
            &body.replace(r#""jti":"x""#, r#""jti":null"#),
            &body.replace(r#","jti":"x""#, ""),
            &body.replace(r#""exp":"#, r#""exp":1e400,"x":"#),
            &body.replace(r#""exp":"#, r#""exp":-"#),
            &body.replace(r#"{"sub":1"#, r#"{"sub":1,"sub":2"#),
        ] {
            assert!(verify(&key(), &signed(HS256, body), NOON).is_none(), "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_a_token(text in "\\PC{0,200}", start in 0..3_usize) {
            let head = ["", HEADER, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."][start];
            let whole = head.to_owned() + &text;
            proptest::prop_assert!(verify(&key(), &whole, NOON).is_none());
        }
    }

    #[test]
    fn foreign_tokens_are_refused() {
        let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(r#"{"sub":1}"#));
        for text in ["", ".", "..", "a.b.c", &none, HEADER] {
            assert!(verify(&key(), text, NOON).is_none(), "{text}");
        }
        let other = MasterKey::derive(&[4; 32]).unwrap();
        assert!(verify(&key(), &issue(&other, 1, 0, NOON, Duration::from_hours(1)).unwrap(), NOON).is_none());
    }
}
