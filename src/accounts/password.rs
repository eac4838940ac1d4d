//! Passwords: argon2id with OWASP's figures (19 MiB, 2 passes, 1 lane), as a PHC string.

use argon2::Argon2;
use argon2::PasswordHasher;
use argon2::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;

use crate::error::Code;
use crate::error::Result;

/// A hash of nothing anybody knows: verifying against it costs the usual time.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$Y2xvYWtyb29tY2xvYWs$Jb3XnDXbbxSAHKG4wL9+kmYEX7ZX8JvGTGb8P0LTFSo";

pub fn hash(password: &str) -> Result<String> {
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|e| Code::Internal.from("hashing a password", std::io::Error::other(e.to_string())))?;
    Ok(hash.to_string())
}

/// Whether the password belongs to the hash. Without a hash the work is done all the same.
pub fn verify(password: &str, hash: Option<&str>) -> bool {
    let known = hash.is_some();
    let matches = PasswordHash::new(hash.unwrap_or(NOBODY))
        .is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok());
    known && matches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let hashed = hash("correct horse").unwrap();
        assert!(verify("correct horse", Some(&hashed)));
        assert!(!verify("correct horsf", Some(&hashed)));
        assert!(!verify("correct horse", None));
        assert!(PasswordHash::new(NOBODY).is_ok(), "an unknown user must cost the same work");
    }
}
