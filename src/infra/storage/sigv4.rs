//! AWS Signature Version 4: the signing of requests, and of forms in `post_policy`.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html>.
//! In: who signs, and what. Out: the headers that a store of S3's kind asks for. Bodies are not
//! signed, because what is asked here has none.

use ring::digest;
use ring::hmac;
use url::Position;
use url::Url;

use crate::support::clock::Instant;
use crate::support::id::hex;
use crate::support::secret::Secret;

/// The one way of signing.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The digest of an empty body.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who signs, for where.
#[derive(Clone, Debug)]
pub struct Signer {
    /// What the secret is known by.
    pub access_key: String,
    pub secret: Secret,
    pub region: String,
}

impl Signer {
    /// `KEY/20260101/region/s3/aws4_request`
    pub fn credential(&self, day: &str) -> String {
        format!("{}/{}", self.access_key, self.scope(day))
    }

    /// A signature under this day's key, in hex.
    pub fn sign(&self, day: &str, text: &str) -> String {
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{}", self.secret.expose()).as_bytes());
        for part in [day, &self.region, "s3", "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        hex(hmac::sign(&key, text.as_bytes()).as_ref())
    }

    /// The headers of a signed GET. The path of the URL is as [`encoded`] makes it, and there is no query.
    pub fn headers(&self, url: &Url, more: &[(&'static str, String)], now: Instant) -> Vec<(&'static str, String)> {
        let stamp = stamp(now);
        let day = stamp.get(..8).unwrap_or_default();
        let host = url[Position::BeforeHost..Position::AfterPort].to_owned();
        let own = [("x-amz-content-sha256", NOTHING.to_owned()), ("x-amz-date", stamp.clone())];
        let mut signed: Vec<_> = own.iter().chain(more).cloned().chain([("host", host)]).collect();
        signed.sort();
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: Vec<_> = signed.iter().map(|(name, value)| format!("{name}:{}", value.trim())).collect();
        let request = format!("GET\n{}\n\n{}\n\n{names}\n{NOTHING}", url.path(), lines.join("\n"));
        let digest = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
        let signature = self.sign(day, &format!("{ALGORITHM}\n{stamp}\n{}\n{digest}", self.scope(day)));
        let authorization =
            format!("{ALGORITHM} Credential={}, SignedHeaders={names}, Signature={signature}", self.credential(day));
        own.into_iter().chain(more.iter().cloned()).chain([("authorization", authorization)]).collect()
    }

    fn scope(&self, day: &str) -> String {
        format!("{day}/{}/s3/aws4_request", self.region)
    }
}

/// `20260101T120000Z`
pub fn stamp(at: Instant) -> String {
    at.iso().chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// The key of an object as it stands in a path: everything but plain characters and `/` is escaped.
pub fn encoded(key: &str) -> String {
    use std::fmt::Write;
    key.bytes().fold(String::with_capacity(key.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            text.push(byte as char);
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of a GET in the vendor's documentation.
    #[test]
    fn the_known_example() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            region: "us-east-1".into(),
        };
        let url = Url::parse("https://examplebucket.s3.amazonaws.com/test.txt").unwrap();
        let at = Instant::parse("2013-05-24T00:00:00Z").unwrap();
        let headers = signer.headers(&url, &[("range", "bytes=0-9".into())], at);
        let authorization = &headers.iter().find(|(name, _)| *name == "authorization").unwrap().1;
        assert_eq!(
            authorization,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn keys_are_escaped_as_the_signature_wants_it() {
        assert_eq!(encoded("a b/ü+c~.jpg"), "a%20b/%C3%BC%2Bc~.jpg");
        let url = Url::parse(&format!("https://example.org/{}", encoded("a b/[ü]+c%20"))).unwrap();
        assert_eq!(url.path(), "/a%20b/%5B%C3%BC%5D%2Bc%2520", "and the URL leaves it alone");
    }
}
