//! Forms that send a file straight to storage, as S3 has them: signed by us, filled in by strangers.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html>. In: what may
//! be sent. Out: the fields of a form that says so; and of a form that came, whether it does. The
//! policy, a JSON text in Base64, is signed; every other field has to be as the policy wants it.
//!
//! Invariant: a form is accepted only if its policy is byte for byte one that was signed here, is
//! not over, and covers every field of the form. Signatures are compared in constant time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::sigv4;
use crate::infra::storage::sigv4::Signer;
use crate::support::clock::Instant;
use crate::support::secret::Secret;

/// Fields that the policy need not name: it would have to name itself.
const EXEMPT: [&str; 2] = ["policy", "x-amz-signature"];

/// Fields of any value that a form for this box may have besides: browsers and libraries add them by themselves. A
/// form for S3 must have every field that its policy names.
pub const FREE: &[&str] = &["content-type", "success_action_status"];

/// What may be sent.
pub struct Terms<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub sizes: RangeInclusive<u64>,
    pub expires_at: Instant,
    /// Fields that may have any value.
    pub free: &'static [&'static str],
}

/// What a form that was accepted may send.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed {
    pub key: String,
    pub sizes: RangeInclusive<u64>,
}

#[derive(Serialize, Deserialize)]
struct Policy {
    expiration: String,
    conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Condition {
    Sizes(String, u64, u64),
    Text(String, String, String),
    Equal(Map<String, Value>),
}

/// The fields of a form on these terms.
pub fn form(signer: &Signer, terms: &Terms<'_>, now: Instant) -> Result<Vec<(&'static str, String)>> {
    let stamp = sigv4::stamp(now);
    let day = stamp.get(..8).unwrap_or_default();
    let mut fields = vec![
        ("key", terms.key.to_owned()),
        ("x-amz-algorithm", sigv4::ALGORITHM.to_owned()),
        ("x-amz-credential", signer.credential(day)),
        ("x-amz-date", stamp.clone()),
    ];
    let equal = |name: &str, value: &str| Condition::Equal(Map::from_iter([(name.to_owned(), Value::from(value))]));
    let any = |name: &&str| Condition::Text("starts-with".into(), format!("${name}"), String::new());
    let size = Condition::Sizes("content-length-range".into(), *terms.sizes.start(), *terms.sizes.end());
    let policy = Policy {
        expiration: terms.expires_at.iso(),
        conditions: [equal("bucket", terms.bucket), size]
            .into_iter()
            .chain(fields.iter().map(|(name, value)| equal(name, value)))
            .chain(terms.free.iter().map(any))
            .collect(),
    };
    let text = serde_json::to_string(&policy).map_err(|e| Code::Internal.from("writing a policy", e))?;
    let policy = STANDARD.encode(text);
    let signature = signer.sign(day, &policy);
    fields.extend([("policy", policy), ("x-amz-signature", signature)]);
    Ok(fields)
}

/// What a form may send; its fields have names in small letters.
pub fn check(signer: &Signer, bucket: &str, fields: &BTreeMap<String, String>, now: Instant) -> Result<Allowed> {
    let field = |name: &str| {
        fields.get(name).map(String::as_str).ok_or_else(|| {
            Code::InvalidRequest.because(format!("The form has no field `{name}`; send all fields, and the file last."))
        })
    };
    let (policy, signature) = (field("policy")?, field("x-amz-signature")?);
    let (algorithm, credential, stamp) = (field("x-amz-algorithm")?, field("x-amz-credential")?, field("x-amz-date")?);
    let key = field("key")?;
    let day = stamp.get(..8).unwrap_or_default();
    if algorithm != sigv4::ALGORITHM || credential != signer.credential(day) {
        return Err(refused("its credential or algorithm is not of this box"));
    }
    if !Secret::new(signer.sign(day, policy)).matches(signature) {
        return Err(refused("the signature does not fit the policy"));
    }
    let text = STANDARD.decode(policy).map_err(|_| refused("the policy is not Base64"))?;
    let policy: Policy = serde_json::from_slice(&text).map_err(|_| refused("the policy is not understood"))?;
    if Instant::parse(&policy.expiration).is_none_or(|expires_at| expires_at <= now) {
        return Err(refused("the policy is over"));
    }
    let mut covered: Vec<&str> = EXEMPT.to_vec();
    let mut sizes = None;
    for condition in &policy.conditions {
        let (name, wanted, whole) = match condition {
            Condition::Sizes(kind, least, most) if kind == "content-length-range" => {
                sizes = Some(*least..=*most);
                continue;
            }
            Condition::Text(kind, name, wanted) if kind == "eq" || kind == "starts-with" => {
                (name.trim_start_matches('$'), &**wanted, kind == "eq")
            }
            Condition::Equal(pair) => match pair.iter().next() {
                Some((name, Value::String(wanted))) if pair.len() == 1 => (&**name, &**wanted, true),
                _ => return Err(refused("the policy is not understood")),
            },
            _ => return Err(refused("the policy is not understood")),
        };
        let given = if name == "bucket" { Some(bucket) } else { fields.get(name).map(String::as_str) };
        let fits = match given {
            Some(given) if whole => given == wanted,
            Some(given) => given.starts_with(wanted),
            None => !whole && wanted.is_empty(),
        };
        if !fits {
            return Err(refused(&format!("the field `{name}` is not as the policy wants it")));
        }
        covered.push(name);
    }
    if let Some(more) = fields.keys().find(|name| !covered.contains(&&***name) && !name.starts_with("x-ignore-")) {
        return Err(refused(&format!("the field `{}` is not in the policy", more.escape_debug())));
    }
    let sizes = sizes.ok_or_else(|| refused("the policy bounds no size"))?;
    Ok(Allowed { key: key.to_owned(), sizes })
}

fn refused(why: &str) -> Error {
    Code::PolicyRefused.because(format!("The form cannot be accepted: {why}."))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Instant = Instant(1_700_000_000_000);

    fn signer(secret: &str) -> Signer {
        Signer { access_key: "BOX".into(), secret: Secret::new(secret), region: "box".into() }
    }

    fn fields() -> BTreeMap<String, String> {
        let expires_at = NOW.plus(Duration::from_hours(24));
        let terms = Terms { bucket: "b", key: "originals/x/a b.jpg", sizes: 1..=1000, expires_at, free: FREE };
        let form = form(&signer("s"), &terms, NOW).unwrap();
        form.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn with(name: &str, value: &str) -> BTreeMap<String, String> {
        let mut fields = fields();
        fields.insert(name.to_owned(), value.to_owned());
        fields
    }

    #[test]
    fn a_form_that_comes_back_as_it_was_is_accepted_while_it_lasts() {
        let check = |fields: &_, at| check(&signer("s"), "b", fields, at);
        let allowed = Allowed { key: "originals/x/a b.jpg".into(), sizes: 1..=1000 };
        for fields in [
            fields(),
            with("content-type", "image/png"),
            with("success_action_status", "201"),
            with("x-ignore-me", "1"),
        ] {
            assert_eq!(check(&fields, NOW).unwrap(), allowed);
        }
        assert!(check(&fields(), NOW.plus(Duration::from_secs(24 * 3600 - 1))).is_ok());
        assert_eq!(check(&fields(), NOW.plus(Duration::from_hours(24))).unwrap_err().code, Code::PolicyRefused);
    }

    #[test]
    fn every_byte_counts() {
        for (name, value) in fields() {
            for at in 0..value.len() {
                let mut bent = value.clone().into_bytes();
                bent[at] ^= 1;
                let bent = with(&name, &String::from_utf8(bent).unwrap());
                assert!(check(&signer("s"), "b", &bent, NOW).is_err(), "{name} at {at}");
            }
            let mut short = fields();
            short.remove(&name);
            assert!(check(&signer("s"), "b", &short, NOW).is_err(), "without {name}");
            assert!(check(&signer("s"), "b", &with(&name, ""), NOW).is_err(), "an empty {name}");
        }
        for other in
            [with("acl", "public-read"), with("success_action_redirect", "https://example.org"), with("key2", "x")]
        {
            assert_eq!(check(&signer("s"), "b", &other, NOW).unwrap_err().code, Code::PolicyRefused);
        }
        assert!(check(&signer("t"), "b", &fields(), NOW).is_err(), "another box");
        assert!(check(&signer("s"), "c", &fields(), NOW).is_err(), "another bucket");
    }
}
