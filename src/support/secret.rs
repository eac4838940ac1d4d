//! A secret text that cannot slip out by accident.
//!
//! A [`Secret`] is read from the configuration or made by us, and leaves only through
//! [`Secret::expose`], a word that is easy to find in a review. Printing it, logging it and
//! serialising it all give the same mask, whatever its length; its memory is wiped on drop.
//!
//! Invariant: comparing two secrets takes a time that depends on their lengths alone.
//!
//! It does not know where secrets come from (`config::layers`) nor how they are kept at
//! rest. Serialising is one way: a mask read back would be a wrong secret, not an error.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What is shown in place of a secret.
pub const MASK: &str = "********";

/// A text that is masked everywhere and wiped on drop.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    /// The text itself. Keep it out of logs, messages and long-lived strings.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares with what somebody presented, without telling by time how much of it was right.
    pub fn matches(&self, given: impl AsRef<[u8]>) -> bool {
        self.0.as_bytes().ct_eq(given.as_ref()).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.matches(other.expose())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_printing_shows_it() {
        #[derive(Debug, Serialize)]
        struct Room {
            key: Secret,
            maybe: Option<Secret>,
        }
        let room = Room { key: Secret::new("hunter2"), maybe: Some(Secret::new("hunter2")) };
        let shown = format!("{room:?} {room:#?} {} {:>40}", room.key, room.key);
        let json = serde_json::to_string(&room).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(json, r#"{"key":"********","maybe":"********"}"#);
    }

    #[test]
    fn the_mask_does_not_tell_the_length() {
        assert_eq!(Secret::new("a").to_string(), Secret::new("a".repeat(99)).to_string());
    }

    #[test]
    fn it_is_read_as_a_plain_string() {
        let read: Secret = serde_json::from_str(r#""s3cr\u00e9t""#).unwrap();
        assert_eq!(read.expose(), "s3crét");
        assert!(serde_json::from_str::<Secret>("17").is_err());
    }

    #[test]
    fn it_equals_only_the_same_text() {
        let secret = Secret::new("abc");
        for (given, same) in [("abc", true), ("abd", false), ("ab", false), ("abcd", false), ("", false)] {
            assert_eq!(secret.matches(given), same, "{given}");
            assert_eq!(secret == Secret::new(given), same, "{given}");
        }
        assert!(Secret::default().is_empty() && !secret.is_empty());
    }
}
