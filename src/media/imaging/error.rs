//! What can be wrong with a picture.
//!
//! In: nothing. Out: one small enum that every function of this room returns. It is plain
//! data that serialises, because it is born in the worker process and read in the server.
//!
//! Invariant: the texts name the picture's fault in plain words and hold no path and no
//! address, so the server may show them to the caller as they are.
//!
//! It does not know HTTP codes: the server maps a variant to its own catalogue.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// Why a picture could not be read or made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageError {
    /// The bytes are no picture of any kind this room knows.
    NotAnImage,
    /// A picture of a known kind that cannot be decoded here; the text says which.
    Unsupported(String),
    /// The header asks for more pixels than the limits allow.
    TooLarge { width: u32, height: u32 },
    /// There is no such page, counted from 1.
    NoPage(u32),
    /// A known kind, but the content is broken.
    Damaged(String),
    /// The recipe cannot be carried out, or the result could not be written.
    NotRendered(String),
    /// The caller lost interest.
    Cancelled,
}

impl ImageError {
    pub(super) fn damaged(what: impl fmt::Display) -> Self {
        Self::Damaged(what.to_string())
    }

    pub(super) fn not_rendered(what: impl fmt::Display) -> Self {
        Self::NotRendered(what.to_string())
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnImage => f.write_str("this is not a picture of a known kind"),
            Self::Unsupported(what) => write!(f, "pictures of this kind cannot be decoded: {what}"),
            Self::TooLarge { width, height } => write!(f, "the picture is too large: {width} x {height} pixels"),
            Self::NoPage(page) => write!(f, "there is no page {page}"),
            Self::Damaged(what) => write!(f, "the picture is damaged: {what}"),
            Self::NotRendered(what) => write!(f, "the picture could not be made: {what}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for ImageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crosses_the_process_boundary() {
        for error in [
            ImageError::NotAnImage,
            ImageError::Unsupported("HEIC".into()),
            ImageError::TooLarge { width: 60_000, height: 60_000 },
            ImageError::NoPage(7),
            ImageError::Damaged("no pixels".into()),
            ImageError::NotRendered("out of memory".into()),
            ImageError::Cancelled,
        ] {
            let text = serde_json::to_string(&error).unwrap();
            assert_eq!(serde_json::from_str::<ImageError>(&text).unwrap(), error);
        }
    }
}
