//! Identifiers of 128 random bits, written as 32 lower-case hex digits.
//!
//! `hex_id!` makes a typed newtype, so that an asset's id can't be passed where something
//! else's is wanted. Parsing accepts exactly the written form: an id is part of paths and
//! cache keys, and one thing must have one spelling.

use ring::rand::SecureRandom;
use ring::rand::SystemRandom;

use crate::error::Code;
use crate::error::Result;

/// Fresh random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Code::Internal.because("the system gave no random bytes"))?;
    Ok(bytes)
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The 16 bytes behind 32 lower-case hex digits.
pub fn parse_hex16(text: &str) -> Option<[u8; 16]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != 16 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Declares a newtype over 16 random bytes with its text, SQL and JSON forms.
#[macro_export]
macro_rules! hex_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            pub fn random() -> $crate::error::Result<Self> {
                Ok(Self($crate::support::id::random()?))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::support::id::hex(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                $crate::support::id::parse_hex16(text).map(Self).ok_or(())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(|()| serde::de::Error::custom("not 32 lower-case hex digits"))
            }
        }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.to_string().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                value.as_str()?.parse().map_err(|()| rusqlite::types::FromSqlError::InvalidType)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    hex_id!(
        /// For the test.
        Ticket
    );

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let ticket = Ticket::random().unwrap();
        assert_eq!(ticket.to_string().parse::<Ticket>(), Ok(ticket));
        assert_eq!(ticket.to_string().len(), 32);
    }

    #[test]
    fn only_one_spelling_is_accepted() {
        for text in [
            "",
            "abc",
            "99D819953914402BABBDEB68337EA6A3",
            "99d819953914402babbdeb68337ea6a",
            "99d81995-3914-402b-abbd-eb68337ea6a3",
            "../../../../../../../etc/passwd!!",
            "99d819953914402babbdeb68337ea6aé",
        ] {
            assert!(text.parse::<Ticket>().is_err(), "{text}");
        }
    }
}
