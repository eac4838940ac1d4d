//! All originals of a collection as one archive, made while it is sent.
//!
//! An archive says the CRC-32 of a file before its bytes (`sums.rs`). With it the archive's layout is
//! known (`support::zip`): its length, a tag that means these bytes and no others, and any range of
//! it, so a download that broke off goes on where it was.
//!
//! Invariant: the files are opened before the first byte is sent; nothing that happens to the
//! assets meanwhile changes what arrives. What lies in a bucket cannot be held open: moved, it is read on from
//! where it is then; purged, it cuts the answer off.

use ring::digest;

use crate::accounts::Caller;
use crate::assets::Asset;
use crate::assets::Status;
use crate::collections::Collections;
use crate::collections::Filled;
use crate::error::Code;
use crate::error::Result;
use crate::homes::Source;
use crate::support::clock::Instant;
use crate::support::id;
use crate::support::zip;
use crate::support::zip::Entry;
use crate::support::zip::Layout;

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
            let (file, size_bytes, crc32) = self.summed(asset.id, asset.revision).await?;
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
}

/// Whether its bytes are here: what waits to be fetched has none.
fn is_kept(asset: &Asset) -> bool {
    asset.status != Status::Queued
}
