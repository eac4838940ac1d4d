//! What a source says of the content that it sends, compared with what came.
//!
//! In: the headers of an answer that brings the whole file. Out: the name of the first header that
//! speaks of another content. MD5 and SHA-256 are compared, which are computed anyway. What cannot be read as
//! one of them says nothing: other algorithms, checksums of parts (`…-3`), values in a spelling of their own.
//!
//! An ETag is an MD5 in S3's buckets alone, and there only of what was sent in one part and is not
//! encrypted under a key of the customer's.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;

use crate::support::checksum::Checksums;
use crate::support::id;

/// Lists of `algorithm=digest`; the first two write the digest between colons (RFC 9530, RFC 3230).
const LISTS: [&str; 4] = ["repr-digest", "content-digest", "digest", "x-goog-hash"];

#[derive(Debug, PartialEq, Eq)]
enum Digest {
    Md5([u8; 16]),
    Sha256([u8; 32]),
}

/// What headers say: their names, and a digest.
#[derive(Debug, Default)]
pub(super) struct Digests(Vec<(&'static str, Digest)>);

impl Digests {
    /// `is_bucket`: the answer is that of an S3 bucket.
    pub(super) fn said(headers: &HeaderMap, is_bucket: bool) -> Digests {
        let texts = |name: &'static str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let is_packed = texts("x-goog-stored-content-encoding").any(|kind| kind != "identity");
        let mut said = Digests::default();
        for name in LISTS.into_iter().filter(|name| !(is_packed && *name == "x-goog-hash")) {
            for (algorithm, digest) in
                texts(name).flat_map(|text| text.split(',')).filter_map(|one| one.split_once('='))
            {
                said.add(name, algorithm.trim(), digest.trim().trim_matches(':'));
            }
        }
        texts("content-md5").for_each(|text| said.add("content-md5", "md5", text.trim()));
        texts("x-amz-checksum-sha256").for_each(|text| said.add("x-amz-checksum-sha256", "sha-256", text.trim()));
        let is_encrypted = texts("x-amz-server-side-encryption").any(|how| how != "AES256")
            || headers.contains_key("x-amz-server-side-encryption-customer-algorithm");
        if is_bucket && !is_encrypted {
            let tags = texts("etag").filter_map(|tag| id::parse_hex16(tag.strip_prefix('"')?.strip_suffix('"')?));
            said.0.extend(tags.map(|md5| ("etag", Digest::Md5(md5))));
        }
        said
    }

    fn add(&mut self, header: &'static str, algorithm: &str, base64: &str) {
        let Ok(bytes) = BASE64_STANDARD.decode(base64) else { return };
        let digest = match &*algorithm.to_ascii_lowercase() {
            "md5" => bytes.try_into().ok().map(Digest::Md5),
            "sha-256" => bytes.try_into().ok().map(Digest::Sha256),
            _ => None,
        };
        self.0.extend(digest.map(|digest| (header, digest)));
    }

    /// The header that what came contradicts.
    pub(super) fn contradicted_by(&self, came: &Checksums) -> Option<&'static str> {
        let differs = |digest: &Digest| match digest {
            Digest::Md5(md5) => *md5 != came.md5,
            Digest::Sha256(sha256) => *sha256 != came.sha256,
        };
        self.0.iter().find(|(_, digest)| differs(digest)).map(|(header, _)| *header)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    /// Of `hello`.
    const MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";
    const SHA256: &str = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
    const TAG: &str = "\"5d41402abc4b2a76b9719d911017c592\"";
    const OTHER_TAG: &str = "\"00000000000000000000000000000000\"";
    const OTHER_MD5: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
    const OTHER_SHA256: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn contradicted(headers: &[(&'static str, String)], is_bucket: bool) -> Option<&'static str> {
        use ring::digest;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, b"hello").as_ref());
        let came = Checksums { md5: crate::support::checksum::md5(b"hello"), sha256, size_bytes: 5 };
        let pairs = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Digests::said(&pairs.collect(), is_bucket).contradicted_by(&came)
    }

    #[test]
    fn what_headers_say_is_compared() {
        for (name, right, wrong) in [
            ("content-md5", MD5.to_owned(), OTHER_MD5.to_owned()),
            ("x-amz-checksum-sha256", SHA256.to_owned(), OTHER_SHA256.to_owned()),
            (
                "repr-digest",
                format!("sha-512=:AAAA:, sha-256=:{SHA256}:"),
                format!("md5=:{MD5}:,sha-256=:{OTHER_SHA256}:"),
            ),
            ("content-digest", format!("sha-256=:{SHA256}:"), format!("sha-256=:{OTHER_SHA256}:")),
            ("digest", format!("SHA-256={SHA256},MD5={MD5}"), format!("SHA-256={SHA256},MD5={OTHER_MD5}")),
            ("x-goog-hash", format!("crc32c=n03x6A==,md5={MD5}"), format!("crc32c=n03x6A==,md5={OTHER_MD5}")),
        ] {
            assert_eq!(contradicted(&[(name, right)], false), None, "{name}");
            assert_eq!(contradicted(&[(name, wrong)], false), Some(name));
        }
        assert_eq!(contradicted(&[("etag", TAG.to_owned())], true), None);
        assert_eq!(contradicted(&[("etag", OTHER_TAG.to_owned())], true), Some("etag"));
    }

    #[test]
    fn what_says_nothing_of_the_content_is_not_heard() {
        let one = |name, value: &str| vec![(name, value.to_owned())];
        for said in [
            one("content-md5", "5d41402abc4b2a76b9719d911017c592"),
            one("x-amz-checksum-sha256", &format!("{OTHER_SHA256}-3")),
            one("repr-digest", "sha-256"),
            one("etag", "\"00000000000000000000000000000000-3\""),
            one("etag", &format!("W/{OTHER_TAG}")),
            [one("etag", OTHER_TAG), one("x-amz-server-side-encryption", "aws:kms")].concat(),
            [one("x-goog-hash", &format!("md5={OTHER_MD5}")), one("x-goog-stored-content-encoding", "gzip")].concat(),
        ] {
            assert_eq!(contradicted(&said, true), None, "{said:?}");
        }
        assert_eq!(contradicted(&one("etag", OTHER_TAG), false), None, "a tag means what its server likes");
    }
}
