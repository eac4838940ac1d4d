//! Where bytes are kept: one root, behind OpenDAL, with a durable commit of our own; and buckets.
//!
//! Whatever arrives arrives on the local disk. What lies in a bucket ([`bucket`]) was brought
//! there from here, and comes back here when somebody has to work with it; who decides that and
//! writes it down is not this module.
//!
//! Reading by descriptor, listing and deleting are ordinary. Committing is not: OpenDAL's
//! file-system writer renames without flushing a folder, so a power cut can lose a file that
//! was acknowledged. Originals therefore go through [`Storage::commit`]:
//!
//! ```text
//! staging/NAME written ─▶ fdatasync ─▶ link to its final name (never replaces) ─▶ fsync of the folder
//!     ─▶ [the caller commits the row] ─▶ staging/NAME unlinked
//! ```
//!
//! A link, not a rename, because the name left in staging is then the record of an unfinished
//! commit: after a crash the start looks only at staging, not at the whole tree, and knows
//! for each name there whether a row was committed. Nothing else has to be written for it.
//!
//! Invariant: a flush that failed is never tried again on the same descriptor (Linux drops
//! the dirty pages and would report success); the file is discarded and the storage counts as
//! degraded until the process is restarted.
//!
//! This module knows no asset: callers spell the paths.

pub mod bucket;
#[cfg(test)]
pub mod double;
pub mod path;
pub mod post_policy;
pub mod sigv4;
pub mod staging;
mod transport;
mod workspace;

use std::fs::File;
use std::io::ErrorKind;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use opendal::Operator;
use rusqlite::types::FromSql;
use rusqlite::types::FromSqlError;
use rusqlite::types::FromSqlResult;
use rusqlite::types::ToSql;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef;
use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;
use serde::Deserialize;
use serde::Serialize;

pub use bucket::Bucket;
pub use path::ObjectPath;
pub use workspace::Workspace;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::support::id;
use crate::support::secret::Secret;

/// A kind of home for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// A folder on a local disk.
    Fs,
    /// A bucket on Amazon S3, or on any server that speaks as it does.
    S3,
    /// A bucket on Cloudflare R2.
    R2,
}

impl Backend {
    const WORDS: [(Backend, &'static str); 3] = [(Backend::Fs, "fs"), (Backend::S3, "s3"), (Backend::R2, "r2")];

    pub fn word(self) -> &'static str {
        Backend::WORDS.iter().find(|(backend, _)| *backend == self).map_or("fs", |(_, word)| word)
    }

    pub fn from_word(word: &str) -> Option<Backend> {
        Backend::WORDS.iter().find(|(_, known)| *known == word).map(|(backend, _)| *backend)
    }
}

impl ToSql for Backend {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.word().into())
    }
}

impl FromSql for Backend {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Backend::from_word(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

/// How this process stores.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where originals are kept: `fs`, `s3` or `r2`.
    pub backend: String,
    /// Of the bucket's server; empty for Amazon's.
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    /// What tells the bucket from others, on record too; empty: as the bucket is called.
    pub name: String,
    pub access_key: Secret,
    pub secret_key: Secret,
    /// How much disk copies of what lies in a bucket may take; the oldest go first.
    pub local_copies_bytes: u64,
    /// Uploads to the bucket at once.
    pub uploads_at_once: usize,
    /// With `s3`: forms that send files straight to storage lead into the bucket, while it answers.
    pub direct_to_bucket: bool,
    /// Uploads are refused while less than this is free.
    pub free_floor_bytes: u64,
    /// A second bucket, while what lies there moves to the first one or comes from it.
    pub other: OtherConfig,
}

/// A bucket beside the one that is in use.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherConfig {
    /// `s3` or `r2`; empty: there is none.
    pub backend: String,
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    /// As above.
    pub name: String,
    pub access_key: Secret,
    pub secret_key: Secret,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            backend: "fs".to_owned(),
            endpoint: String::new(),
            region: String::new(),
            bucket: String::new(),
            name: String::new(),
            access_key: Secret::default(),
            secret_key: Secret::default(),
            local_copies_bytes: 10 << 30,
            uploads_at_once: 2,
            direct_to_bucket: true,
            free_floor_bytes: 2 << 30,
            other: OtherConfig::default(),
        }
    }
}

impl Config {
    /// Where originals are to be kept.
    pub fn backend(&self) -> Result<Backend> {
        Backend::from_word(&self.backend).ok_or_else(|| {
            Code::InvalidRequest
                .because(format!("storage.backend: `{}` is not known; use `fs`, `s3` or `r2`", self.backend))
        })
    }

    /// The buckets that are known with their names, the one in use in front. With `fs`, a bucket may be
    /// described all the same: what still lies there is found, and may be moved there and back.
    ///
    /// No two have the same name, and none is described twice under two names: it would be emptied when it
    /// is moved to itself.
    pub fn buckets(&self) -> Result<Vec<(String, Bucket)>> {
        let mut known: Vec<(String, bucket::Address)> = Vec::new();
        let backend = match self.backend()? {
            Backend::Fs if self.endpoint.contains(".r2.cloudflarestorage.com") => Backend::R2,
            Backend::Fs => Backend::S3,
            bucket => bucket,
        };
        if self.backend != "fs" || !self.bucket.is_empty() {
            let address = bucket::Address {
                backend,
                endpoint: self.endpoint.clone(),
                region: self.region.clone(),
                bucket: self.bucket.clone(),
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone(),
            };
            known.push((named("storage.name", &self.name, &address)?, address));
        }
        if !self.other.backend.is_empty() {
            let other = self.other.clone();
            let backend = Backend::from_word(&other.backend).filter(|backend| *backend != Backend::Fs);
            let backend = backend.ok_or_else(|| {
                Code::InvalidRequest.because(format!("storage.other.backend: `{}` is not s3 or r2", other.backend))
            })?;
            let address = bucket::Address {
                backend,
                endpoint: other.endpoint,
                region: other.region,
                bucket: other.bucket,
                access_key: other.access_key,
                secret_key: other.secret_key,
            };
            known.push((named("storage.other.name", &other.name, &address)?, address));
        }
        if let [(first, at), (second, other)] = &*known {
            let place = |at: &bucket::Address| {
                let endpoint = at.endpoint.trim_end_matches('/').to_ascii_lowercase();
                let region = if endpoint.is_empty() { at.region.clone() } else { String::new() };
                (endpoint, region, at.bucket.clone())
            };
            if place(at) == place(other) {
                return Err(Code::InvalidRequest
                    .because("storage.other describes the same bucket as storage: remove one of the two"));
            }
            if first == second {
                return Err(Code::InvalidRequest.because(format!(
                    "both buckets are called `{first}`, and originals on record could be in either: give the new one a name of \
                     its own, such as `{first}-2`, with storage.name or storage.other.name; the one that holds originals \
                     keeps the name that it has"
                )));
            }
        }
        known.into_iter().map(|(name, address)| Ok((name, Bucket::open(&address)?))).collect()
    }
}

/// What a bucket is called on record.
fn named(setting: &str, name: &str, at: &bucket::Address) -> Result<String> {
    if Backend::from_word(name).is_some() {
        return Err(Code::InvalidRequest.because(format!("{setting}: `{name}` is a kind of storage, and no name")));
    }
    Ok(if name.is_empty() { at.bucket.clone() } else { name.to_owned() })
}

/// The store; cheap to clone.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    dir: OwnedFd,
    operator: Operator,
    free_floor_bytes: u64,
    reserved_bytes: AtomicU64,
    degraded: AtomicBool,
}

/// Bytes set aside for an upload under way; given back when dropped.
pub struct Reservation {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Reservation {
    /// That many bytes go to the disk now, where the file system counts them. What was not announced
    /// is set aside as it comes, or refused.
    pub fn spend(&mut self, bytes: u64) -> Result<()> {
        if let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) {
            let mut more = Storage { inner: Arc::clone(&self.inner) }.reserve(more)?;
            self.bytes += std::mem::take(&mut more.bytes);
        }
        self.bytes -= bytes;
        self.inner.reserved_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// From now on it is for so many bytes. When there is no room for more, it stays as it was.
    pub fn resize(&mut self, bytes: u64) -> Result<()> {
        let storage = Storage { inner: Arc::clone(&self.inner) };
        storage.usable()?;
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => _ = std::mem::take(&mut storage.reserve(more)?.bytes),
            None => _ = self.inner.reserved_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.reserved_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Storage {
    /// Opens the root, making the named folders and, for `sharded`, their 256 shards.
    pub fn open(root: &Path, config: &Config, folders: &[&str], sharded: &[&str]) -> Result<Storage> {
        config.backend()?;
        std::fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let dir =
            rustix::fs::open(&root, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
        let text =
            root.to_str().ok_or_else(|| Code::InvalidRequest.because("the data directory's name has to be UTF-8"))?;
        let operator = Operator::new(opendal::services::Fs::default().root(text))?;
        let inner = Inner {
            root,
            dir,
            operator,
            free_floor_bytes: config.free_floor_bytes,
            reserved_bytes: AtomicU64::new(0),
            degraded: AtomicBool::new(false),
        };
        let storage = Storage { inner: Arc::new(inner) };
        for folder in folders.iter().chain(sharded).chain(&[staging::FOLDER, staging::QUARANTINE]) {
            storage.make_folder(folder)?;
        }
        for folder in sharded {
            for shard in 0..=255u8 {
                storage.make_folder(&format!("{folder}/{shard:02x}"))?;
            }
            storage.sync_folder(folder)?;
        }
        storage.sync_folder("")?;
        Ok(storage)
    }

    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// A flush has failed since the start; what is on the disk can't be trusted until a restart.
    pub fn is_degraded(&self) -> bool {
        self.inner.degraded.load(Ordering::Relaxed)
    }

    /// What the file system has free, less what uploads under way have been promised.
    pub fn free_bytes(&self) -> Result<u64> {
        Ok(self.bytes_on_disk()?.saturating_sub(self.inner.reserved_bytes.load(Ordering::Relaxed)))
    }

    /// What uploads under way have been promised and have not written yet.
    #[cfg(test)]
    pub fn set_aside_bytes(&self) -> u64 {
        self.inner.reserved_bytes.load(Ordering::Relaxed)
    }

    /// Whether uploads are taken at all.
    pub fn has_room(&self) -> bool {
        self.free_bytes().is_ok_and(|free| free > self.inner.free_floor_bytes)
    }

    /// After a flush that failed, nothing that the disk says is to be believed.
    pub fn usable(&self) -> Result<()> {
        if self.is_degraded() {
            return Err(Code::StorageUnavailable.because("the disk failed to flush"));
        }
        Ok(())
    }

    /// Sets room aside for an upload, or refuses it before a byte is read.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation> {
        self.usable()?;
        let on_disk = self.bytes_on_disk()?;
        let enough = |reserved: u64| {
            let left = on_disk.saturating_sub(reserved);
            (left >= bytes.saturating_add(self.inner.free_floor_bytes)).then(|| reserved + bytes)
        };
        // In one step, so that two who ask at once are not both promised the last of it.
        match self.inner.reserved_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough) {
            Ok(_) => Ok(Reservation { inner: Arc::clone(&self.inner), bytes }),
            Err(reserved) => Err(Code::DiskFull
                .because(format!("{bytes} bytes asked for, {on_disk} free, {reserved} of them set aside for others"))),
        }
    }

    fn bytes_on_disk(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.inner.dir).map_err(io)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Opens an object for reading by descriptor.
    pub fn open_file(&self, place: &ObjectPath) -> Result<File> {
        match self.open_at(place.as_str(), OFlags::RDONLY) {
            Ok(file) => Ok(file),
            Err(Errno::NOENT) => Err(Code::ContentNotFound.because(format!("nothing is stored at {place:?}"))),
            Err(e) => Err(io(e)),
        }
    }

    /// Whether something lies there.
    pub fn holds(&self, place: &ObjectPath) -> bool {
        rustix::fs::statat(&self.inner.dir, place.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Gives a staged file its final name, durably. The name in staging stays until
    /// [`Storage::unstage`]. Fails with [`Code::AssetIdExists`] if the place is taken.
    pub fn commit(&self, staged: &str, place: &ObjectPath) -> Result<()> {
        let (folder, name) = place.split();
        let from = self.folder(staging::FOLDER)?;
        let to = self.folder(folder)?;
        self.link(&from, staged, &to, name)
    }

    /// A name that cannot be flushed is taken back: nothing would look for it after a restart.
    fn link(&self, from: &OwnedFd, staged: &str, to: &OwnedFd, name: &str) -> Result<()> {
        match rustix::fs::linkat(from, staged, to, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Code::AssetIdExists.because("this asset id is taken")),
            Err(e) => return Err(io(e)),
        }
        self.flushed(rustix::fs::fsync(to)).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(to, name, AtFlags::empty());
        })
    }

    /// The same for a place whose folder may have to be made first.
    pub fn commit_deep(&self, staged: &str, place: &ObjectPath) -> Result<()> {
        self.make_folder(place.split().0)?;
        self.commit(staged, place)?;
        self.settle(place).inspect_err(|_| self.uncommit(place))
    }

    /// Undoes [`Storage::commit`] when the row was not committed after it.
    pub fn uncommit(&self, place: &ObjectPath) {
        let (folder, name) = place.split();
        if let Ok(to) = self.folder(folder) {
            let _ = rustix::fs::unlinkat(&to, name, AtFlags::empty());
        }
    }

    /// Writes a derived object durably, replacing what was there: running a job again is harmless.
    pub fn put(&self, place: &ObjectPath, bytes: &[u8]) -> Result<()> {
        self.replace(place, |file| {
            file.write_all(bytes)?;
            self.flushed(rustix::fs::fdatasync(file))
        })?;
        self.settle(place)
    }

    /// Writes an object that may be lost and made again: no flush.
    pub fn put_disposable(&self, place: &ObjectPath, parts: &[&[u8]]) -> Result<()> {
        self.replace(place, |file| parts.iter().try_for_each(|part| file.write_all(part)).map_err(Error::from))
    }

    /// Removes an object; it need not exist.
    pub async fn delete(&self, place: &ObjectPath) -> Result<()> {
        gone(self.inner.operator.delete(place.as_str()).await).map(|_| ())
    }

    /// Removes a folder with all that is in it; it need not exist.
    pub async fn delete_folder(&self, folder: &ObjectPath) -> Result<()> {
        let path = format!("{}/", folder.as_str());
        // Somebody else may be removing the same at the same time.
        while !gone(self.inner.operator.delete_with(&path).recursive(true).await)? {
            if !self.inner.root.join(folder.as_str()).exists() {
                break;
            }
        }
        Ok(())
    }

    /// The names of what lies in a folder; none when there is no such folder.
    pub fn names(&self, folder: &ObjectPath) -> Result<Vec<String>> {
        match staging::names_in(&self.path_of(folder)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            names => Ok(names?),
        }
    }

    fn replace(&self, place: &ObjectPath, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
        let temporary = format!("{}{}", staging::TEMPORARY, id::hex(&id::random::<8>()?));
        let mut file = self.stage(&temporary)?;
        let moved = write(&mut file).and_then(|()| {
            let (folder, name) = place.split();
            self.make_folder(folder)?;
            let (from, to) = (self.folder(staging::FOLDER)?, self.folder(folder)?);
            rustix::fs::renameat(&from, &*temporary, &to, name).map_err(io)
        });
        if moved.is_err() {
            self.unstage(&temporary);
        }
        moved
    }

    fn make_folder(&self, folder: &str) -> Result<()> {
        let mode = Mode::RWXU;
        match rustix::fs::mkdirat(&self.inner.dir, folder, mode) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(Errno::NOENT) => {
                let mut at = 0;
                while let Some(next) = folder.get(at..).and_then(|rest| rest.find('/')) {
                    at += next;
                    match rustix::fs::mkdirat(&self.inner.dir, folder.get(..at).unwrap_or(folder), mode) {
                        Ok(()) | Err(Errno::EXIST) => at += 1,
                        Err(e) => return Err(io(e)),
                    }
                }
                match rustix::fs::mkdirat(&self.inner.dir, folder, mode) {
                    Ok(()) | Err(Errno::EXIST) => Ok(()),
                    Err(e) => Err(io(e)),
                }
            }
            Err(e) => Err(io(e)),
        }
    }

    fn sync_folder(&self, folder: &str) -> Result<()> {
        let dir = if folder.is_empty() { self.folder(".")? } else { self.folder(folder)? };
        self.flushed(rustix::fs::fsync(&dir))
    }

    fn folder(&self, folder: &str) -> Result<OwnedFd> {
        self.open_at(folder, OFlags::DIRECTORY | OFlags::RDONLY).map(OwnedFd::from).map_err(io)
    }

    /// Opens below the root; a symbolic link on the way is refused, not followed.
    fn open_at(&self, path: &str, flags: OFlags) -> Result<File, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
        rustix::fs::openat2(&self.inner.dir, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode, resolve)
            .map(File::from)
    }

    fn flushed(&self, outcome: Result<(), Errno>) -> Result<()> {
        outcome.map_err(|e| {
            self.inner.degraded.store(true, Ordering::Relaxed);
            tracing::error!(error = %e, "the disk failed to flush; uploads are refused until the box is restarted");
            io(e)
        })
    }
}

/// Whether all of it was removed just now; what was not there is no failure.
fn gone(removed: Result<(), opendal::Error>) -> Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == opendal::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn io(errno: Errno) -> Error {
    Error::from(std::io::Error::from(errno))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn storage() -> (tempfile::TempDir, Storage) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { free_floor_bytes: 0, ..Config::default() };
        let storage = Storage::open(dir.path(), &config, &["odi"], &["originals"]).unwrap();
        (dir, storage)
    }

    fn place(path: &str) -> ObjectPath {
        ObjectPath::new(path).unwrap()
    }

    #[test]
    fn a_commit_never_replaces() {
        let (_dir, storage) = storage();
        for (name, text) in [("a.1", "first"), ("b.1", "second")] {
            storage.stage(name).unwrap().write_all(text.as_bytes()).unwrap();
        }
        storage.commit("a.1", &place("originals/ab/a.1")).unwrap();
        let error = storage.commit("b.1", &place("originals/ab/a.1")).unwrap_err();
        assert_eq!(error.code, Code::AssetIdExists);
        storage.unstage("a.1");
        let mut text = String::new();
        storage.open_file(&place("originals/ab/a.1")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "first");
    }

    #[test]
    fn a_name_that_cannot_be_flushed_is_taken_back() {
        let (dir, storage) = storage();
        storage.stage("a.1").unwrap().write_all(b"first").unwrap();
        let from = storage.folder(staging::FOLDER).unwrap();
        // A descriptor that names can be made by, and that cannot be flushed.
        let to = OwnedFd::from(storage.open_at("originals/ab", OFlags::DIRECTORY | OFlags::PATH).unwrap());
        storage.link(&from, "a.1", &to, "a.1").unwrap_err();
        assert!(storage.is_degraded() && !dir.path().join("originals/ab/a.1").exists());
        assert!(dir.path().join("staging/a.1").exists(), "its owner takes it away");
    }

    #[test]
    fn put_replaces_and_leaves_nothing_in_staging() {
        let (_dir, storage) = storage();
        let at = place("conversions/ab/x/1/base.jpg");
        storage.put(&at, b"one").unwrap();
        storage.put(&at, b"two").unwrap();
        let mut text = String::new();
        storage.open_file(&at).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "two");
        assert!(storage.staged().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_lost_bytes_is_not_filled_with_zeros() {
        let (dir, storage) = storage();
        storage.stage("a").unwrap().write_all(b"12345").unwrap();
        assert_eq!(storage.resume_staged("a", 6).unwrap_err().code, Code::Internal);
        storage.resume_staged("a", 5).unwrap();
        storage.resume_staged("a", 3).unwrap().write_all(b"x").unwrap();
        assert_eq!(std::fs::read(dir.path().join("staging/a")).unwrap(), b"123x");
    }

    #[test]
    fn quarantine_takes_no_name_away_and_no_other_s_place() {
        let (dir, storage) = storage();
        storage.stage("a.1").unwrap().write_all(b"first").unwrap();
        storage.commit("a.1", &place("originals/ab/a.1")).unwrap();
        for _ in 0..2 {
            storage.quarantine("a.1").unwrap();
        }
        assert!(storage.is_linked("a.1") && storage.holds(&place("originals/ab/a.1")));
        storage.unstage("a.1");
        storage.stage("a.1").unwrap().write_all(b"second").unwrap();
        storage.quarantine("a.1").unwrap();
        let names = std::fs::read_dir(dir.path().join("quarantine")).unwrap();
        let mut texts: Vec<_> = names.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
        texts.sort();
        assert_eq!(texts, [b"first".to_vec(), b"second".to_vec()]);
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let (dir, storage) = storage();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("originals/ab/l.1")).unwrap();
        assert!(storage.open_file(&place("originals/ab/l.1")).is_err());
        std::os::unix::fs::symlink("/etc", dir.path().join("originals/link")).unwrap();
        assert!(storage.open_file(&place("originals/link/passwd")).is_err());
    }

    #[test]
    fn room_is_reserved_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { free_floor_bytes: 1, ..Config::default() };
        let storage = Storage::open(dir.path(), &config, &[], &[]).unwrap();
        let held = storage.reserve(1 << 20).unwrap();
        assert_eq!(storage.inner.reserved_bytes.load(Ordering::Relaxed), 1 << 20);
        drop(held);
        assert_eq!(storage.inner.reserved_bytes.load(Ordering::Relaxed), 0);
        let mut held = storage.reserve(100).unwrap();
        held.spend(70).unwrap();
        assert_eq!(
            storage.inner.reserved_bytes.load(Ordering::Relaxed),
            30,
            "what is on the disk is not counted twice"
        );
        held.spend(50).unwrap();
        assert_eq!(storage.inner.reserved_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(held.spend(u64::MAX / 2).unwrap_err().code, Code::DiskFull, "nor is more taken than is there");
        drop(held);
        let mut held = storage.reserve(100).unwrap();
        for bytes in [70, 70, 0, 130] {
            held.resize(bytes).unwrap();
            assert_eq!(storage.inner.reserved_bytes.load(Ordering::Relaxed), bytes);
        }
        assert_eq!(held.resize(u64::MAX / 2).unwrap_err().code, Code::DiskFull);
        assert_eq!(storage.inner.reserved_bytes.load(Ordering::Relaxed), 130, "it is as it was");
        drop(held);
        let quarter = storage.free_bytes().unwrap() / 4;
        let all = [0; 5].map(|_| storage.reserve(quarter));
        assert!(all.iter().filter(|one| one.is_ok()).count() < 5, "five quarters were promised");
        drop(all);
        assert_eq!(storage.inner.reserved_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(storage.reserve(u64::MAX / 2).err().unwrap().code, Code::DiskFull);
    }

    #[test]
    fn what_is_set_aside_is_gone_from_its_place() {
        let (dir, storage) = storage();
        let file = place("conversions/ab/x/1/base.jpg");
        storage.put(&file, b"one").unwrap();
        storage.put(&place("conversions/ab/x/1/hls-video/a/b.m4s"), b"two").unwrap();
        for there in ["conversions/ab/x/1/base.jpg", "conversions/ab/x/1/hls-video"] {
            let name = storage.set_aside(&place(there)).unwrap().unwrap();
            assert!(!dir.path().join(there).exists());
            storage.unstage(&name);
            assert_eq!(storage.set_aside(&place(there)).unwrap(), None);
        }
        assert!(storage.staged().unwrap().is_empty());
        assert_eq!(storage.set_aside(&place("conversions/cd/y/1/base.jpg")).unwrap(), None);
    }

    #[test]
    fn a_deep_commit_makes_its_folders_and_a_staged_name_is_taken_once() {
        let (_dir, storage) = storage();
        storage.stage("x.1.web.00").unwrap().write_all(b"one").unwrap();
        assert_eq!(storage.stage("x.1.web.00").unwrap_err().code, Code::Conflict);
        storage.commit_deep("x.1.web.00", &place("conversions/ab/x/1/web.00")).unwrap();
        assert!(storage.is_linked("x.1.web.00"));
        let mut text = String::new();
        storage.open_staged("x.1.web.00").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found_and_deleting_it_is_fine() {
        let (_dir, storage) = storage();
        assert_eq!(storage.open_file(&place("originals/ab/n.1")).unwrap_err().code, Code::ContentNotFound);
        storage.delete(&place("originals/ab/n.1")).await.unwrap();
        storage.put(&place("odi/ab/x/1/d.jpg"), b"x").unwrap();
        storage.delete_folder(&place("odi/ab/x")).await.unwrap();
        assert!(storage.open_file(&place("odi/ab/x/1/d.jpg")).is_err());
        for n in 0..50 {
            storage.put(&place(&format!("odi/ab/x/{n}/d.jpg")), b"x").unwrap();
        }
        let two = std::array::from_fn::<_, 4, _>(|_| {
            let storage = storage.clone();
            tokio::spawn(async move { storage.delete_folder(&place("odi/ab/x")).await })
        });
        for each in two {
            each.await.unwrap().unwrap();
        }
        storage.delete_folder(&place("odi/ab/x")).await.unwrap();
    }
}
