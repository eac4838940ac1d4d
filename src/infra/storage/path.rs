//! Object paths: relative, plain, unable to leave the root.

use std::fmt;

use crate::error::Code;
use crate::error::Result;

/// A validated path of an object, with `/` between its parts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Accepts parts of ASCII letters, digits, `-`, `_` and `.`; no part may start with a dot.
    pub fn new(path: impl Into<String>) -> Result<ObjectPath> {
        let path = path.into();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let whole =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.len() <= 200 && part.bytes().all(plain);
        if path.len() <= 1024 && path.split('/').all(whole) {
            Ok(ObjectPath(path))
        } else {
            Err(Code::InvalidRequest.because("this name cannot be stored"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder and the name in it.
    pub fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "../a",
            "a/../b",
            "a/..",
            ".hidden",
            "a\\b",
            "a b",
            "a\0",
            "é",
            "a/b/",
            "C:x",
        ] {
            assert!(ObjectPath::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ObjectPath::new("originals/ab/x.1").unwrap().split(), ("originals/ab", "x.1"));
    }

    proptest! {
        #[test]
        fn no_accepted_path_leaves_the_root(path in "\\PC{0,40}") {
            if let Ok(path) = ObjectPath::new(path) {
                let joined = std::path::Path::new("/root").join(path.as_str());
                prop_assert!(joined.starts_with("/root") && joined.components().count() > 2);
                prop_assert!(joined.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
            }
        }
    }
}
