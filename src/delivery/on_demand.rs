//! On-demand images: a recipe in, a picture out.
//!
//! ```text
//! recipe + Accept ─▶ key ─▶ memory ─▶ disk ─▶ render once, however many ask ─▶ disk and memory
//! ```
//!
//! The source is the base image when the result is small enough not to show it, else the
//! original; of films and recordings it is the picture that stands for them. An asset that is still being looked at is waited for briefly, so that a script
//! that asks right after its upload gets its picture.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;

use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::Full;
use crate::assets::POSTER;
use crate::assets::STORYBOARD;
use crate::assets::WAVEFORM;
use crate::assets::place;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::cache::Key;
use crate::delivery::transcodes;
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
    /// Equal tags mean the same picture. Made again, of the base image instead of the original,
    /// it may have other bytes; so there are no ranges of it.
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
    pub of: Of<'a>,
    pub recipe: &'a Recipe,
    /// The header of that name.
    pub accept: Option<&'a str>,
}

/// What a picture is to be of.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    /// The asset itself; a film or a recording has a picture that stands for it.
    Asset,
    /// A named conversion of it.
    Conversion(&'a str),
    /// A picture of its storyboard, by the name of its file.
    Frame(&'a str),
}

impl Delivery {
    /// The picture that the recipe makes of an asset, in the best format the caller takes.
    pub async fn image(&self, ground: Ground, wanted: Wanted<'_>) -> Result<Shown> {
        let (full, within) = match wanted.of {
            Of::Asset => (self.when_ready(wanted.id).await?, None),
            Of::Conversion(name) => (self.when_made(wanted.id, name).await?, Some(name)),
            Of::Frame(_) => (self.assets.recall(wanted.id).await?, Some(STORYBOARD)),
        };
        let public = match within {
            None => self.admit_image(ground, &full.asset, wanted.recipe)?,
            Some(name) => {
                let public = named(&full, name)?.public;
                self.admit_cut(ground, &full.asset, wanted.recipe, public)?
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
            Some(stored) => stored.clone(),
            None => source(full, &order.recipe)?,
        };
        let storage = self.storage.clone();
        let open = move || Sources::open(&storage, &source, mark.as_ref());
        let sources = self.homes.with(full.asset.id, full.asset.revision, open).await?;
        let picture = self.stills.render_together(sources, order).await?;
        let made = image(picture.bytes);
        self.cache.remember(key.clone(), Arc::clone(&made));
        let (cache, written) = (Arc::clone(&self.cache), Arc::clone(&made));
        self.cpu.spawn(move || cache.write(&key, &written.bytes));
        Ok(made)
    }

    /// What has to be done, and under which key the result is kept.
    fn task(&self, full: &Full, wanted: Wanted<'_>) -> Result<Task> {
        let asset = &full.asset;
        let stored = stored(full, wanted.of)?;
        let settings = self.settings.now();
        let has_alpha = asset.facts.contains_key("has_alpha");
        let kind = match stored {
            Some((still, None)) if still.handed.is_some() || !asset.has_picture() => &still.content_type,
            _ => &asset.content_type,
        };
        let kind = if kind == "image/png" { SourceFormat::Png } else { SourceFormat::Jpeg };
        let animated = asset.facts.contains_key("animated");
        let format = negotiate::choose(wanted.accept, kind, has_alpha, animated, wanted.recipe.format());
        let recipe = wanted.recipe.clone().with_format(format);
        let (recipe, mark) = watermark::settle(recipe, settings.watermark.as_ref())?;
        let focus = recipe.minds_focus().then(|| focus(asset).or(settings.images.focus)).flatten();
        let mut name = recipe.canonical();
        // A conversion may be made again, in another shape.
        match stored {
            Some((from, None)) => _ = write!(name, "&from={}.{}", from.key, from.created_at.0),
            Some((from, Some(file))) => _ = write!(name, "&from={}/{file}.{}", from.key, from.created_at.0),
            None => {}
        }
        let ceiling = match (wanted.of, settings.videos.poster_box) {
            (Of::Asset, (width, height)) if stored.is_some() && width > 0 && recipe.max_output().is_none() => {
                let _ = write!(name, "&box={width}x{height}");
                Some((width, height))
            }
            _ => None,
        };
        if let Some((x, y)) = focus {
            let _ = write!(name, "&focus={x:.3},{y:.3}");
        }
        let key = Key { id: asset.id, revision: asset.revision, recipe: name, format };
        let from = stored.map(|(from, file)| match file {
            Some(file) => place::part(asset.id, from, file),
            None => place::conversion(asset.id, from),
        });
        Ok(Task { key, from: from.transpose()?, order: Order { recipe, format, ceiling, focus }, mark })
    }
}

/// One picture to be made: its name, what of, and how.
struct Task {
    key: Key,
    /// What to start from, instead of the original.
    from: Option<ObjectPath>,
    order: Order,
    mark: Option<ObjectPath>,
}

/// The conversion that a picture is cut from, and which file of it; `None` when that is the
/// asset's own picture.
fn stored<'a>(full: &'a Full, of: Of<'a>) -> Result<Option<(&'a Conversion, Option<&'a str>)>> {
    match of {
        Of::Conversion(name) => Ok(Some((named(full, name)?, None))),
        Of::Frame(file) if transcodes::is_frame(file) => Ok(Some((named(full, STORYBOARD)?, Some(file)))),
        Of::Frame(_) => Err(Code::ContentNotFound.because("A storyboard has no picture of this name.")),
        Of::Asset if full.asset.has_picture() => Ok(None),
        Of::Asset => match still(full) {
            Some(still) => Ok(Some((still, None))),
            None => Err(no_still(&full.asset)),
        },
    }
}

/// The picture that stands for a film or a recording.
pub(super) fn still(full: &Full) -> Option<&Conversion> {
    full.conversion(POSTER).or_else(|| full.conversion(WAVEFORM))
}

fn no_still(asset: &Asset) -> Error {
    let Some(key) = asset.still_by() else {
        return Code::NoImage.because("No image can be made from this content.");
    };
    let what = if asset.is_film() { "film" } else { "recording" };
    match asset.errors.get(key) {
        Some(why) => Code::NoImage.because(format!("There is no picture of this {what}. {why}")),
        None => Code::NoImage.because(format!("There is no picture of this {what} yet; it is made after the upload.")),
    }
}

/// A conversion of the present revision, or why there is none.
pub(super) fn named<'a>(full: &'a Full, name: &str) -> Result<&'a Conversion> {
    full.conversion(name).ok_or_else(|| {
        let missing = format!("Asset {} has no conversion `{name}`.", full.asset.id);
        Code::ContentNotFound.because(match full.asset.errors.get(name) {
            Some(why) => format!("{missing} {why}"),
            None => missing,
        })
    })
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
        Some(base) if !keeps_moving(asset, recipe) && fits(base, recipe) => place::conversion(asset.id, base),
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
