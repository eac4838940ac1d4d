//! A stored content as it is: an open descriptor and what to say about it.
//!
//! Descriptors are kept open for those who come back for the next range. A content never
//! changes under its key (the revision is part of it, and when a conversion was made), so an
//! open one stays right.

use std::fs::File;
use std::sync::Arc;

use crate::assets::AssetId;
use crate::assets::place;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::access;
use crate::delivery::on_demand::named;
use crate::error::Code;
use crate::error::Result;
use crate::support::clock::Instant;

/// The word for the bytes as received.
pub const ORIGINAL: &str = "original";

/// Names an open content.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    id: AssetId,
    revision: u32,
    content: String,
    /// When a conversion was made: it may be made again under the same key.
    made_at: Option<Instant>,
}

/// A content, opened.
pub struct Content {
    pub file: Arc<File>,
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
        if let Some(open) = self.open.get(&known).filter(|open| open.public == public) {
            return Ok(open);
        }
        let place = match conversion {
            None => place::original(id, asset.revision)?,
            Some(c) => place::conversion(id, asset.revision, key, &c.extension)?,
        };
        let storage = self.storage.clone();
        let (file, size_bytes) = self
            .cpu
            .run(move || {
                let file = storage.open_file(&place)?;
                let size = file.metadata()?.len();
                Ok((Arc::new(file), size))
            })
            .await?;
        let (content_type, name) = match conversion {
            None => (asset.content_type.clone(), asset.name.clone()),
            Some(c) => {
                let stem = asset.name.rsplit_once('.').map_or(&*asset.name, |(stem, _)| stem);
                (c.content_type.clone(), format!("{stem}-{key}.{}", c.extension))
            }
        };
        let etag = match conversion {
            None => format!("\"{}\"", asset.sha256.get(..32).unwrap_or_default()),
            Some(c) => {
                format!("\"{}-{}-{}\"", asset.sha256.get(..16).unwrap_or_default(), c.created_at.0, c.size_bytes)
            }
        };
        let open = Content { file, size_bytes, content_type, etag, name, public, modified_at: asset.uploaded_at };
        let open = Arc::new(open);
        self.open.insert(known, Arc::clone(&open));
        Ok(open)
    }
}
