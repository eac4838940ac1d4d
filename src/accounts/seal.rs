//! The box's master key, and what it seals.
//!
//! From 32 random bytes in `secret/master.key` (mode 0600), three working keys are derived
//! (HMAC-SHA-256 over a label): one finds credentials, one seals them (AES-256-GCM, random
//! 96-bit nonce in front), one signs tokens.
//!
//! Whoever loses the master key loses the keys sealed with it: users log in with their
//! passwords and rotate. It is therefore part of a backup.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use ring::aead;
use ring::hmac;

use crate::error::Code;
use crate::error::Result;
use crate::support::id;
use crate::support::secret::Secret;

/// The working keys, derived.
pub struct MasterKey {
    lookup: hmac::Key,
    seal: aead::LessSafeKey,
    pub(super) token: hmac::Key,
}

impl MasterKey {
    /// Reads the key at `path`, or makes it, durably, when there is none yet.
    pub fn open_or_create(path: &Path) -> Result<MasterKey> {
        match fs::metadata(path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
                Err(Code::InvalidRequest.because(format!("{} can be read by others: chmod 600 it", path.display())))
            }
            Ok(_) => MasterKey::derive(&fs::read(path)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let dir = path.parent().unwrap_or(Path::new("."));
                fs::create_dir_all(dir)?;
                fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
                let bytes: [u8; 32] = id::random()?;
                put_once(path, &bytes)?;
                for folder in [Some(dir), dir.parent()].into_iter().flatten() {
                    fs::File::open(folder)?.sync_all()?;
                }
                // Somebody else may have been first.
                MasterKey::derive(&fs::read(path)?)
            }
            Err(e) => Err(e.into()),
        }
    }

    pub fn derive(bytes: &[u8]) -> Result<MasterKey> {
        if bytes.len() != 32 {
            return Err(Code::InvalidRequest.because("the master key has to be 32 bytes"));
        }
        let root = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derived = |label: &str| hmac::sign(&root, label.as_bytes());
        let key = |label| hmac::Key::new(hmac::HMAC_SHA256, derived(label).as_ref());
        let seal = aead::UnboundKey::new(&aead::AES_256_GCM, derived("cloakroom seal").as_ref())
            .map_err(|_| Code::Internal.because("deriving the sealing key"))?;
        Ok(MasterKey {
            lookup: key("cloakroom lookup"),
            seal: aead::LessSafeKey::new(seal),
            token: key("cloakroom token"),
        })
    }

    /// What a credential is found by.
    pub fn lookup(&self, text: &str) -> [u8; 32] {
        let mut found = [0; 32];
        found.copy_from_slice(hmac::sign(&self.lookup, text.as_bytes()).as_ref());
        found
    }

    /// A secret of the box's own for one purpose, the same after every start.
    pub fn secret_for(&self, purpose: &str) -> Secret {
        Secret::new(id::hex(hmac::sign(&self.lookup, format!("secret for {purpose}").as_bytes()).as_ref()))
    }

    pub fn seal(&self, text: &str) -> Result<Vec<u8>> {
        let nonce: [u8; 12] = id::random()?;
        let mut body = text.as_bytes().to_vec();
        self.seal
            .seal_in_place_append_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::empty(), &mut body)
            .map_err(|_| Code::Internal.because("sealing a key"))?;
        Ok([&nonce[..], &body].concat())
    }

    pub fn open(&self, sealed: &[u8]) -> Result<String> {
        let broken =
            || Code::Internal.because("a sealed key does not open: is secret/master.key the one it was sealed with?");
        let (nonce, body) = sealed.split_first_chunk::<12>().ok_or_else(broken)?;
        let mut body = body.to_vec();
        let text = self
            .seal
            .open_in_place(aead::Nonce::assume_unique_for_key(*nonce), aead::Aad::empty(), &mut body)
            .map_err(|_| broken())?;
        String::from_utf8(text.to_vec()).map_err(|_| broken())
    }
}

/// Writes a file that appears whole, or not at all. One that is there stays.
fn put_once(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}", id::hex(&id::random::<8>()?)));
    let partial = PathBuf::from(partial);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    let linked = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&partial, path));
    fs::remove_file(&partial)?;
    match linked {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_only() {
        let key = MasterKey::derive(&[7; 32]).unwrap();
        let sealed = key.seal("678d1dbb934c4a42aa4833e893346857").unwrap();
        assert_eq!(key.open(&sealed).unwrap(), "678d1dbb934c4a42aa4833e893346857");
        assert!(MasterKey::derive(&[8; 32]).unwrap().open(&sealed).is_err());
        let mut bent = sealed.clone();
        bent[20] ^= 1;
        assert!(key.open(&bent).is_err());
        assert!(key.open(&sealed[..5]).is_err());
    }

    #[test]
    fn a_key_file_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret/master.key");
        let sealed = MasterKey::open_or_create(&path).unwrap().seal("x").unwrap();
        assert_eq!(MasterKey::open_or_create(&path).unwrap().open(&sealed).unwrap(), "x");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        put_once(&path, &[1; 32]).unwrap();
        assert_eq!(MasterKey::open_or_create(&path).unwrap().open(&sealed).unwrap(), "x", "the first one stays");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(MasterKey::open_or_create(&path).is_err());
    }
}
