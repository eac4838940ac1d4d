//! All originals of a collection as one archive, made while it is sent.
//!
//! An archive says the CRC-32 of a file before its bytes. It is computed once for each
//! original, when the collection is put together or, at the latest, when it is first asked for,
//! and kept. With it the archive's layout is known (`support::zip`): its length, a tag that
//! means these bytes and no others, and any range of it, so a download that broke off goes on
//! where it was.
//!
//! Invariant: the files are opened before the first byte is sent; nothing that happens to the
//! assets meanwhile changes what arrives.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use ring::digest;

use crate::accounts::Caller;
use crate::assets::Asset;
use crate::assets::Status;
use crate::collections::Collections;
use crate::collections::Filled;
use crate::collections::store;
use crate::error::Code;
use crate::error::Result;
use crate::homes::Source;
use crate::support::clock::Instant;
use crate::support::id;
use crate::support::zip;
use crate::support::zip::Entry;
use crate::support::zip::Layout;

/// How much of a file is read at once.
const READ_BYTES: usize = 1 << 20;

/// An archive that is ready to be sent.
pub struct Archive {
    pub layout: Layout,
    /// In the order of the layout.
    pub files: Vec<Source>,
    pub etag: String,
    pub modified_at: Instant,
}

impl Collections {
    /// The archive of a collection that the caller sees.
    pub async fn download(&self, caller: &Caller, id: i64) -> Result<Archive> {
        let Filled { collection, assets } = self.find(caller, id).await?;
        let kept: Vec<Asset> = assets.into_iter().map(|full| full.asset).filter(is_kept).collect();
        if kept.is_empty() {
            return Err(Code::EmptyCollection.because("The collection holds no asset that could be downloaded."));
        }
        let names = zip::names(kept.iter().map(|asset| &*asset.name));
        let (mut entries, mut files) = (Vec::new(), Vec::new());
        for (asset, name) in kept.iter().zip(names) {
            let (file, size_bytes, crc32) = self.summed(asset).await?;
            entries.push(Entry { name, size_bytes, crc32, modified_at: asset.uploaded_at });
            files.push(file);
        }
        let layout = Layout::new(&entries);
        let mut sum = digest::Context::new(&digest::SHA256);
        for bytes in layout.frame() {
            sum.update(bytes);
        }
        for asset in &kept {
            sum.update(asset.sha256.as_bytes());
        }
        let etag = format!("\"{}\"", id::hex(sum.finish().as_ref().get(..16).unwrap_or_default()));
        Ok(Archive { layout, files, etag, modified_at: collection.changed_at })
    }

    /// Computes what the archive will need before somebody waits for it.
    pub(super) fn prepare(&self, filled: &Filled) {
        let (this, assets) = (self.clone(), filled.assets.clone());
        self.db.handle().spawn(async move {
            for full in assets.iter().filter(|full| is_kept(&full.asset)) {
                if let Err(error) = this.summed(&full.asset).await {
                    tracing::debug!(asset.id = %full.asset.id, %error, "the checksum for archives could not be computed");
                }
            }
        });
    }

    /// An original, open, with its size and its CRC-32.
    async fn summed(&self, asset: &Asset) -> Result<(Source, u64, u32)> {
        let (id, revision) = (asset.id, asset.revision);
        let known = self.db.read(move |c| store::crc32(c, id, revision)).await?;
        let (source, size_bytes) = self.homes.open(id, revision).await?;
        let crc32 = match (known, &source) {
            (Some((crc32, of_bytes)), _) if of_bytes == size_bytes => crc32,
            (_, Source::Here(file)) => {
                let file = Arc::clone(file);
                self.cpu.run(move || sum(&file)).await?
            }
            (_, Source::Away(away)) => {
                let (mut hasher, mut incoming) = (crc32fast::Hasher::new(), away.read(0..size_bytes));
                while let Some(bytes) = incoming.next().await? {
                    hasher.update(&bytes);
                }
                hasher.finalize()
            }
        };
        if known.is_none() {
            self.db.write_relaxed(move |tx| store::set_crc32(tx, id, revision, crc32, size_bytes)).await?;
        }
        Ok((source, size_bytes, crc32))
    }
}

/// Whether its bytes are here: what waits to be fetched has none.
fn is_kept(asset: &Asset) -> bool {
    asset.status != Status::Queued
}

fn sum(mut file: &File) -> Result<u32> {
    let (mut hasher, mut buffer) = (crc32fast::Hasher::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(read) => hasher.update(buffer.get(..read).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}
