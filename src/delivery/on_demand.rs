//! On-demand images: a recipe in, a picture out.
//!
//! ```text
//! recipe + Accept ─▶ key ─▶ memory ─▶ disk ─▶ render once, however many ask ─▶ disk and memory
//! ```
//!
//! The source is the base image when the result is small enough not to show it, else the
//! original. An asset that is still being looked at is waited for briefly, so that a script
//! that asks right after its upload gets its picture.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::Full;
use crate::assets::Status;
use crate::assets::place;
use crate::delivery::Delivery;
use crate::delivery::cache::Key;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::ObjectPath;
use crate::media::imaging::Recipe;
use crate::media::imaging::SourceFormat;
use crate::media::imaging::negotiate;

/// How long a request waits for an asset that is being saved.
const PATIENCE: Duration = Duration::from_secs(5);

/// A result at most this share of the base image is cut from it: the resize still has
/// something to average, so the second compression does not show.
const BASE_SHARE: f64 = 2.0 / 3.0;

/// A rendered image, ready to be sent.
pub struct Image {
    pub bytes: Bytes,
    pub content_type: &'static str,
    pub extension: &'static str,
    /// Strong: equal tags mean equal bytes.
    pub etag: String,
}

impl Delivery {
    /// The picture that the recipe makes of an asset, in the best format the caller takes.
    pub async fn image(&self, id: AssetId, recipe: &Recipe, accept: Option<&str>) -> Result<Arc<Image>> {
        let full = self.when_ready(id).await?;
        let key = key_of(&full.asset, recipe, accept)?;
        if let Some(image) = self.cache.in_memory(&key) {
            return Ok(image);
        }
        let (this, work) = (self.clone(), key.clone());
        let made =
            self.rendering.run(key, move || async move { this.find_or_render(&full, work).await.map_err(Arc::new) });
        made.await?.map_err(|shared| Error::again(&shared))
    }

    async fn find_or_render(&self, full: &Full, key: Key) -> Result<Arc<Image>> {
        let etag = etag(&full.asset, &key);
        let image = |bytes| {
            let (content_type, extension) = (key.format.mime(), key.format.extension());
            Arc::new(Image { bytes, content_type, extension, etag: etag.clone() })
        };
        let (cache, wanted) = (Arc::clone(&self.cache), key.clone());
        if let Some(bytes) = self.cpu.run(move || Ok(cache.on_disk(&wanted))).await? {
            let found = image(bytes);
            self.cache.remember(key.clone(), Arc::clone(&found));
            return Ok(found);
        }
        let recipe = Recipe::from_canonical(&key.recipe).map_err(|e| Code::Internal.because(e.to_string()))?;
        let (storage, source) = (self.storage.clone(), source(full, &recipe)?);
        let file = self.cpu.run(move || Ok(Arc::new(storage.open_file(&source)?))).await?;
        let picture = self.stills.render(file, &recipe, key.format).await?;
        let made = image(picture.bytes);
        self.cache.remember(key.clone(), Arc::clone(&made));
        let (cache, written) = (Arc::clone(&self.cache), Arc::clone(&made));
        self.cpu.spawn(move || cache.write(&key, &written.bytes));
        Ok(made)
    }

    /// The asset once it can be shown.
    async fn when_ready(&self, id: AssetId) -> Result<Arc<Full>> {
        let changed = self.journal.changed();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let waiting = changed.notified();
            tokio::pin!(waiting);
            // Registered before the row is read, so that a change in between is not missed.
            waiting.as_mut().enable();
            let full = self.assets.recall(id).await?;
            match full.asset.status {
                Status::Ok | Status::Archived => return Ok(full),
                Status::Error => {
                    let why = full.asset.errors.get("original").cloned().unwrap_or_default();
                    return Err(Code::NoImage.because(format!("No image can be made from this content. {why}")));
                }
                Status::NotReady | Status::Queued => {
                    if tokio::time::timeout_at(deadline, waiting).await.is_err() {
                        return Err(Code::AssetNotReady.into());
                    }
                }
            }
        }
    }
}

fn key_of(asset: &Asset, recipe: &Recipe, accept: Option<&str>) -> Result<Key> {
    if !asset.is_image() {
        return Err(Code::NoImage.because("No image can be made from this content."));
    }
    let has_alpha = asset.facts.contains_key("has_alpha");
    let from = if asset.content_type == "image/png" { SourceFormat::Png } else { SourceFormat::Jpeg };
    let format = negotiate::choose(accept, from, has_alpha, recipe.format());
    let recipe = recipe.clone().with_format(format).canonical();
    Ok(Key { id: asset.id, revision: asset.revision, recipe, format })
}

fn etag(asset: &Asset, key: &Key) -> String {
    format!("\"{}-{}\"", asset.sha256.get(..16).unwrap_or_default(), key.digest())
}

fn source(full: &Full, recipe: &Recipe) -> Result<ObjectPath> {
    let asset = &full.asset;
    let base = full.conversions.iter().find(|c| c.key == "smart_imaging" && c.revision == asset.revision);
    match base {
        Some(base) if fits(base, recipe) => place::conversion(asset.id, asset.revision, &base.key, &base.extension),
        _ => place::original(asset.id, asset.revision),
    }
}

fn fits(base: &Conversion, recipe: &Recipe) -> bool {
    let (Some(width), Some(height)) = (base.width, base.height) else { return false };
    !recipe.needs_original()
        && recipe.max_output().is_some_and(|(w, h)| {
            let scale = (f64::from(w) / f64::from(width)).min(f64::from(h) / f64::from(height));
            scale <= BASE_SHARE
        })
}
