//! Rendered images: a little in memory, more on disk, nothing that can't be made again.
//!
//! A key is (asset, revision, canonical recipe with its format): one picture has one entry,
//! and a replaced original has another. On disk an entry is one file,
//!
//! ```text
//! odi/{ab}/{id}/{revision}/{digest}.{ext}  =  the image, then the first 16 bytes of its SHA-256
//! ```
//!
//! where `digest` is the first 16 bytes, in hex, of SHA-256 over recipe and `ENGINE`. The
//! file is not flushed when written; a power cut may leave half of it, and then the trailer
//! does not fit, the file is removed and the image is made again.
//!
//! Both layers are bounded; the least recently used entry of the disk goes first, and its
//! file with it. The index of the disk is in memory and is read back from the tree at start.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ring::digest;

use crate::assets::AssetId;
use crate::assets::place;
use crate::delivery::Config;
use crate::delivery::Image;
use crate::error::Result;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::Storage;
use crate::media::imaging::OutputFormat;
use crate::support::id;

/// Raised whenever the same recipe gives other bytes, so that old files are not served.
const ENGINE: &str = "2";

const TRAILER_BYTES: usize = 16;

/// Names one rendered image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub id: AssetId,
    pub revision: u32,
    /// The canonical recipe, its format included.
    pub recipe: String,
    pub format: OutputFormat,
}

impl Key {
    /// Names the picture on disk and, with the original's digest, in its entity tag.
    pub fn digest(&self) -> String {
        id::hex(short_sha256(&[ENGINE.as_bytes(), self.recipe.as_bytes()]).as_ref())
    }

    fn place(&self) -> Result<ObjectPath> {
        place::on_demand(self.id, self.revision, &self.digest(), self.format.extension())
    }
}

/// The two layers.
pub struct Cache {
    storage: Storage,
    memory: moka::sync::Cache<Key, Arc<Image>>,
    /// Path on disk and its size in KiB.
    disk: moka::sync::Cache<String, u32>,
}

impl Cache {
    pub fn new(config: &Config, storage: Storage) -> Cache {
        let memory = moka::sync::Cache::builder()
            .max_capacity(config.cache_memory_bytes)
            .weigher(|key: &Key, image: &Arc<Image>| (image.bytes.len() + key.recipe.len() + 256) as u32)
            .build();
        let root = storage.root().to_path_buf();
        let disk = moka::sync::Cache::builder()
            .max_capacity(config.cache_disk_bytes / 1024)
            .weigher(|_: &String, kib: &u32| *kib)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .eviction_listener(move |path, _, cause| {
                if cause.was_evicted() {
                    let _ = std::fs::remove_file(root.join(&**path));
                }
            })
            .build();
        Cache { storage, memory, disk }
    }

    pub fn in_memory(&self, key: &Key) -> Option<Arc<Image>> {
        self.memory.get(key)
    }

    pub fn remember(&self, key: Key, image: Arc<Image>) {
        self.memory.insert(key, image);
    }

    /// Reads an image from disk; blocking.
    pub fn on_disk(&self, key: &Key) -> Option<Bytes> {
        let place = key.place().ok()?;
        // Asking the index marks the entry as used.
        self.disk.get(place.as_str())?;
        let mut bytes = Vec::new();
        let read = self.storage.open_file(&place).and_then(|mut file| Ok(file.read_to_end(&mut bytes)?));
        let whole = read.is_ok()
            && bytes
                .split_last_chunk::<TRAILER_BYTES>()
                .is_some_and(|(image, trailer)| *trailer == short_sha256(&[image]));
        if !whole {
            let _ = std::fs::remove_file(self.storage.root().join(place.as_str()));
            self.disk.invalidate(place.as_str());
            return None;
        }
        bytes.truncate(bytes.len() - TRAILER_BYTES);
        Some(bytes.into())
    }

    /// Writes an image to disk; blocking. Failing only means that it will be made again.
    pub fn write(&self, key: &Key, image: &[u8]) {
        let written = key.place().and_then(|place| {
            self.storage.put_disposable(&place, &[image, &short_sha256(&[image])])?;
            Ok(place)
        });
        match written {
            Ok(place) => self.disk.insert(place.as_str().to_owned(), kib(image.len() as u64)),
            Err(e) => tracing::warn!(asset.id = %key.id, error = %e, "a rendered image could not be cached"),
        }
    }

    /// Reads the index back from the tree, oldest first, so that the budget holds from the start.
    pub fn recover(&self) -> Result<()> {
        let mut found = Vec::new();
        let root = self.storage.root();
        walk(&root.join(place::ON_DEMAND), &mut |path, meta| {
            if let Some(path) = path.strip_prefix(root).ok().and_then(Path::to_str) {
                found.push((meta.mtime(), path.to_owned(), kib(meta.size())));
            }
        })?;
        found.sort();
        for (_, path, kib) in found {
            self.disk.insert(path, kib);
        }
        self.disk.run_pending_tasks();
        Ok(())
    }
}

fn walk(dir: &Path, each: &mut impl FnMut(&Path, &std::fs::Metadata)) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            walk(&entry.path(), each)?;
        } else if meta.is_file() {
            each(&entry.path(), &meta);
        }
    }
    Ok(())
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

fn short_sha256(parts: &[&[u8]]) -> [u8; TRAILER_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut short = [0; TRAILER_BYTES];
    for (to, from) in short.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::storage;

    fn cache(dir: &Path, disk_bytes: u64) -> Cache {
        let config = storage::Config { free_floor_bytes: 0, ..storage::Config::default() };
        let storage = Storage::open(dir, &config, &[place::ON_DEMAND], &[]).unwrap();
        let config = Config {
            cache_disk_bytes: disk_bytes,
            cache_memory_bytes: 1 << 20,
            open_files: 4,
            signed_only: false,
            presets_only: false,
            presets: Vec::new(),
        };
        Cache::new(&config, storage)
    }

    fn key(recipe: &str) -> Key {
        let id = "99d819953914402babbdeb68337ea6a3".parse().unwrap();
        Key { id, revision: 1, recipe: recipe.into(), format: OutputFormat::Jpeg }
    }

    #[test]
    fn the_disk_layer_survives_a_restart_and_notices_torn_files() {
        let dir = tempfile::tempdir().unwrap();
        cache(dir.path(), 1 << 20).write(&key("a"), b"picture");
        let again = cache(dir.path(), 1 << 20);
        assert_eq!(again.on_disk(&key("a")), None, "not before the index was read");
        again.recover().unwrap();
        assert_eq!(again.on_disk(&key("a")).unwrap(), "picture");
        assert_eq!(again.on_disk(&key("b")), None);

        let path = dir.path().join(key("a").place().unwrap().as_str());
        std::fs::write(&path, b"pict").unwrap();
        assert_eq!(again.on_disk(&key("a")), None);
        assert!(!path.exists());
    }

    #[test]
    fn the_disk_layer_keeps_its_budget() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), 64 * 1024);
        for n in 0..40 {
            cache.write(&key(&format!("r{n}")), &[n; 4000]);
            cache.disk.run_pending_tasks();
        }
        let mut bytes = 0;
        walk(&dir.path().join("odi"), &mut |_, meta| bytes += meta.size()).unwrap();
        assert!(bytes <= 64 * 1024, "{bytes}");
        assert!(cache.on_disk(&key("r39")).is_some(), "the newest is kept");
        assert!(cache.on_disk(&key("r0")).is_none(), "the oldest went");
    }
}
