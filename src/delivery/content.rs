//! A stored content as it is: an open descriptor, or an object in a bucket, and what to say about it.
//!
//! Descriptors are kept open for those who come back for the next range. A content never
//! changes under its key (the revision is part of it, and when a conversion was made), nor does
//! the file at its place, so an open one stays right. What is said of an original may change until
//! it was looked at, so one is kept open only after that.

use std::sync::Arc;
use std::time::Duration;

use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::ORIGINAL;
use crate::assets::Status;
use crate::assets::place;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::access;
use crate::delivery::on_demand::named;
use crate::error::Code;
use crate::error::Result;
use crate::homes::Source;
use crate::infra::storage::ObjectPath;
use crate::support::clock::Instant;
use crate::support::mime;

/// Names an open content.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) id: AssetId,
    pub(super) revision: u32,
    /// Its key; with a path below it, one of the files that a conversion has.
    pub(super) content: String,
    /// When a conversion was made: it may be made again under the same key.
    pub(super) made_at: Option<Instant>,
}

/// A content, opened.
pub struct Content {
    pub source: Source,
    pub size_bytes: u64,
    pub content_type: String,
    pub etag: String,
    /// What to call it when it is saved.
    pub name: String,
    pub public: bool,
    pub modified_at: Instant,
}

impl Delivery {
    /// Opens a named conversion. One that an upload of a moment ago will still bring is waited for.
    pub async fn conversion(&self, ground: Ground, id: AssetId, key: &str) -> Result<Arc<Content>> {
        named(&*self.when_made(id, key).await?, key)?;
        self.content(ground, id, key).await
    }

    /// Opens a content for whoever may see it.
    pub async fn content(&self, ground: Ground, id: AssetId, key: &str) -> Result<Arc<Content>> {
        let full = self.assets.recall(id).await?;
        let asset = &full.asset;
        let conversion = full.conversion(key);
        let public = if key == ORIGINAL { asset.public } else { conversion.is_some_and(|c| c.public) };
        access::admit_content(ground, public)?;
        let missing = || Code::ContentNotFound.because(format!("asset {id} has no content `{key}`"));
        if key != ORIGINAL && conversion.is_none() {
            return Err(missing());
        }
        let made_at = conversion.map(|c| c.created_at);
        let known = Key { id, revision: asset.revision, content: key.to_owned(), made_at };
        let told = |source, size_bytes| match conversion {
            None => Content {
                source,
                size_bytes,
                content_type: asset.content_type.clone(),
                etag: format!("\"{}\"", asset.sha256.get(..32).unwrap_or_default()),
                name: asset.name.clone(),
                public,
                modified_at: asset.uploaded_at,
            },
            Some(c) => Content {
                source,
                size_bytes,
                content_type: c.content_type.clone(),
                etag: etag(asset, c, size_bytes),
                name: format!("{}-{key}.{}", stem(asset), c.extension),
                public,
                modified_at: c.created_at,
            },
        };
        let Some(conversion) = conversion else { return self.original(known, asset, told).await };
        self.opened(known, public, || place::conversion(id, conversion), told).await
    }

    /// A file that is open already, or is opened now; `told` says what it is.
    pub(super) async fn opened(
        &self,
        key: Key,
        public: bool,
        place: impl FnOnce() -> Result<ObjectPath>,
        told: impl FnOnce(Source, u64) -> Content,
    ) -> Result<Arc<Content>> {
        if let Some(open) = self.open.get(&key).filter(|open| open.public == public) {
            return Ok(open);
        }
        let (storage, place) = (self.storage.clone(), place()?);
        let (file, size_bytes) = self
            .cpu
            .run(move || {
                let file = storage.open_file(&place)?;
                let size = file.metadata()?.len();
                Ok((Arc::new(file), size))
            })
            .await?;
        let open = Arc::new(told(Source::Here(file), size_bytes));
        self.open.insert(key, Arc::clone(&open));
        Ok(open)
    }

    /// An original, wherever it is. Only a file is held open: a bucket may be left at any time.
    async fn original(
        &self,
        key: Key,
        asset: &Asset,
        told: impl FnOnce(Source, u64) -> Content,
    ) -> Result<Arc<Content>> {
        // What is being fetched has its name before the record has it, and may still lose it.
        if asset.sha256.is_empty() {
            return Err(Code::ContentNotFound.because(format!("The file of asset {} has not arrived.", asset.id)));
        }
        if let Some(open) = self.open.get(&key).filter(|open| open.public == asset.public) {
            return Ok(open);
        }
        let (source, size_bytes) = self.homes.open(key.id, key.revision).await?;
        let is_settled = matches!(asset.status, Status::Ok | Status::Error | Status::Archived);
        let stays = is_settled && matches!(source, Source::Here(_));
        let open = Arc::new(told(source, size_bytes));
        if stays {
            self.open.insert(key, Arc::clone(&open));
        }
        Ok(open)
    }

    /// The bucket that originals go to; `None` when they stay here.
    pub fn bucket(&self) -> Option<&str> {
        self.homes.goal()
    }

    /// An address in its bucket for an original that is there, for a while; `None` for one that is here.
    pub async fn bucket_link(&self, asset: &Asset, life: Duration, disposition: &str) -> Result<Option<String>> {
        let (content_type, _) = mime::served(&asset.content_type);
        self.homes.link(asset.id, asset.revision, life, disposition, content_type).await
    }
}

/// Of a conversion's file: another original, another making or another length is another tag.
pub(super) fn etag(asset: &Asset, made: &Conversion, size_bytes: u64) -> String {
    format!("\"{}-{}-{size_bytes}\"", asset.sha256.get(..16).unwrap_or_default(), made.created_at.0)
}

/// What its owner calls it, without the extension.
pub(super) fn stem(asset: &Asset) -> &str {
    asset.name.rsplit_once('.').map_or(&*asset.name, |(stem, _)| stem)
}
