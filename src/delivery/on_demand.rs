//! On-demand images: a recipe in, a picture out.
//!
//! ```text
//! recipe + Accept ─▶ key ─▶ memory ─▶ disk ─▶ render once, however many ask ─▶ disk and memory
//! ```
//!
//! The source is the base image when the result is small enough not to show it, else the
//! original. An asset that is still being looked at is waited for briefly, so that a script
//! that asks right after its upload gets its picture.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;

use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::Full;
use crate::assets::place;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::access;
use crate::delivery::cache::Key;
use crate::delivery::watermark;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::ObjectPath;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::Recipe;
use crate::media::imaging::SourceFormat;
use crate::media::imaging::negotiate;
use crate::stills::Order;
use crate::stills::Sources;

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

/// An image, and whether everybody may see it.
pub struct Shown {
    pub image: Arc<Image>,
    pub public: bool,
}

/// Which picture somebody wants.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub id: AssetId,
    /// A named conversion to start from, instead of the original.
    pub from: Option<&'a str>,
    pub recipe: &'a Recipe,
    /// The header of that name.
    pub accept: Option<&'a str>,
}

impl Delivery {
    /// The picture that the recipe makes of an asset, in the best format the caller takes.
    pub async fn image(&self, ground: Ground, wanted: Wanted<'_>) -> Result<Shown> {
        let full = match wanted.from {
            None => self.when_ready(wanted.id).await?,
            Some(name) => self.when_made(wanted.id, name).await?,
        };
        let public = match wanted.from {
            None => self.admit_image(ground, &full.asset, wanted.recipe)?,
            Some(name) => {
                let public = named(&full, name)?.public;
                access::admit_content(ground, public)?;
                self.admit_image(ground, &full.asset, wanted.recipe)? && public
            }
        };
        let task = self.task(&full, wanted)?;
        if let Some(image) = self.cache.in_memory(&task.key) {
            return Ok(Shown { image, public });
        }
        let this = self.clone();
        let made = self
            .rendering
            .run(task.key.clone(), move || async move { this.find_or_render(&full, task).await.map_err(Arc::new) });
        let image = made.await?.map_err(|shared| Error::again(&shared))?;
        Ok(Shown { image, public })
    }

    async fn find_or_render(&self, full: &Full, task: Task) -> Result<Arc<Image>> {
        let Task { key, from, order, mark } = task;
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
        let source = match &from {
            Some(name) => {
                let extension = &named(full, name)?.extension;
                place::conversion(key.id, key.revision, name, extension)?
            }
            None => source(full, &order.recipe)?,
        };
        let (storage, name) = (self.storage.clone(), source.as_str().to_owned());
        let sources = self.cpu.run(move || Sources::open(&storage, &source, mark.as_ref())).await?;
        let picture = self.stills.render_together(&name, sources, order).await?;
        let made = image(picture.bytes);
        self.cache.remember(key.clone(), Arc::clone(&made));
        let (cache, written) = (Arc::clone(&self.cache), Arc::clone(&made));
        self.cpu.spawn(move || cache.write(&key, &written.bytes));
        Ok(made)
    }

    /// What has to be done, and under which key the result is kept.
    fn task(&self, full: &Full, wanted: Wanted<'_>) -> Result<Task> {
        let asset = &full.asset;
        if wanted.from.is_none() && !asset.has_picture() {
            return Err(Code::NoImage.because("No image can be made from this content."));
        }
        let settings = self.settings.now();
        let has_alpha = asset.facts.contains_key("has_alpha");
        let kind = if asset.content_type == "image/png" { SourceFormat::Png } else { SourceFormat::Jpeg };
        let animated = asset.facts.contains_key("animated");
        let format = negotiate::choose(wanted.accept, kind, has_alpha, animated, wanted.recipe.format());
        let recipe = wanted.recipe.clone().with_format(format);
        let (recipe, mark) = watermark::settle(recipe, settings.watermark.as_ref())?;
        let focus = recipe.minds_focus().then(|| focus(asset).or(settings.images.focus)).flatten();
        let mut name = recipe.canonical();
        if let Some(from) = wanted.from {
            // A conversion may be made again, in another shape.
            let _ = write!(name, "&from={from}.{}", named(full, from)?.created_at.0);
        }
        if let Some((x, y)) = focus {
            let _ = write!(name, "&focus={x:.3},{y:.3}");
        }
        let key = Key { id: asset.id, revision: asset.revision, recipe: name, format };
        let from = wanted.from.map(str::to_owned);
        Ok(Task { key, from, order: Order { recipe, format, ceiling: None, focus }, mark })
    }
}

/// One picture to be made: its name, what of, and how.
struct Task {
    key: Key,
    /// A named conversion to start from, instead of the original.
    from: Option<String>,
    order: Order,
    mark: Option<ObjectPath>,
}

/// A conversion of the present revision.
pub(super) fn named<'a>(full: &'a Full, name: &str) -> Result<&'a Conversion> {
    full.conversion(name)
        .ok_or_else(|| Code::ContentNotFound.because(format!("Asset {} has no conversion `{name}`.", full.asset.id)))
}

/// The point that people marked as what the picture is about: `focal_point` in its data, as
/// `{"x": 0.5, "y": 0.3}` in shares of the upright picture, from its top left.
fn focus(asset: &Asset) -> Option<(f32, f32)> {
    let point = asset.data.get("focal_point")?;
    let share = |name: &str| point.get(name)?.as_f64().filter(|n| (0.0..=1.0).contains(n)).map(|n| n as f32);
    Some((share("x")?, share("y")?))
}

fn etag(asset: &Asset, key: &Key) -> String {
    format!("\"{}-{}\"", asset.sha256.get(..16).unwrap_or_default(), key.digest())
}

fn source(full: &Full, recipe: &Recipe) -> Result<ObjectPath> {
    let asset = &full.asset;
    match full.conversion("smart_imaging") {
        Some(base) if !keeps_moving(asset, recipe) && fits(base, recipe) => {
            place::conversion(asset.id, asset.revision, &base.key, &base.extension)
        }
        _ => place::original(asset.id, asset.revision),
    }
}

/// The base image stands still.
fn keeps_moving(asset: &Asset, recipe: &Recipe) -> bool {
    asset.facts.contains_key("animated") && recipe.format() == Some(OutputFormat::Webp)
}

fn fits(base: &Conversion, recipe: &Recipe) -> bool {
    let (Some(width), Some(height)) = (base.width, base.height) else { return false };
    !recipe.needs_original()
        && recipe.max_output().is_some_and(|(w, h)| {
            let scale = (f64::from(w) / f64::from(width)).min(f64::from(h) / f64::from(height));
            scale <= BASE_SHARE
        })
}
