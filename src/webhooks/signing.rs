//! Standard Webhooks: the three headers by which a receiver knows that a callback is ours.
//!
//! <https://www.standardwebhooks.com>. What is signed is `id.timestamp.body`, with HMAC-SHA-256
//! under every secret that is in force, so that a receiver may learn of a new one in its own time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::error::Code;
use crate::error::Result;
use crate::support::clock::Instant;
use crate::support::id;

/// What every secret begins with.
const PREFIX: &str = "whsec_";

/// A new secret, as receivers write it down.
pub fn new_secret() -> Result<String> {
    Ok(format!("{PREFIX}{}", STANDARD.encode(id::random::<32>()?)))
}

/// The header `webhook-signature`.
pub fn signature(secrets: &[String], id: &str, at: Instant, body: &str) -> Result<String> {
    let text = format!("{id}.{}.{body}", at.unix_seconds());
    let sign = |secret: &String| {
        let bytes = STANDARD
            .decode(secret.trim_start_matches(PREFIX))
            .map_err(|e| Code::Internal.from("a signing secret is not Base64", e))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Ok(format!("v1,{}", STANDARD.encode(hmac::sign(&key, text.as_bytes()))))
    };
    Ok(secrets.iter().map(sign).collect::<Result<Vec<_>>>()?.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_known_example() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
        let at = Instant(1_614_265_330_000);
        let body = r#"{"test": 2432232314}"#;
        let known = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        assert_eq!(signature(std::slice::from_ref(&secret), id, at, body).unwrap(), known);
        let two = signature(&[new_secret().unwrap(), secret], id, at, body).unwrap();
        assert!(two.starts_with("v1,") && two.ends_with(&format!(" {known}")), "{two}");
        assert_ne!(new_secret().unwrap(), new_secret().unwrap());
    }
}
