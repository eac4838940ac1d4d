//! Pictures: what they are, and other shapes of them.
//!
//! In: the bytes of a file (the caller maps it), a recipe, limits. Out: facts about the
//! picture, or a rendered one. Pure and blocking: no files, no threads, no clock.
//!
//! Invariant: the header is read and held against the limits before anything is decoded, so
//! memory is bounded by `Limits` whatever the file claims; a result carries no metadata of
//! its source, in particular no place and no name, unless the recipe asks for it.
//!
//! `probe` and `render` run in the sandboxed worker, for they call decoders written in C.
//! `Recipe`, `negotiate` and the plain types run in the server too and call none.
//!
//! Every type that crosses between the two is plain serde data.

mod animation;
mod auto;
mod avif;
mod canvas;
mod color;
pub mod container;
mod decode;
pub mod deepzoom;
mod encode;
mod error;
mod format;
mod framing;
mod gif;
mod heic;
mod impression;
mod jpeg;
mod jxl;
mod kept;
mod markers;
mod metadata;
pub mod negotiate;
mod orientation;
mod other;
pub mod params;
mod pdf;
mod planar;
pub mod planes;
mod png;
mod psd;
mod raw;
mod recipe;
pub mod reduced;
mod riff;
mod svg;
#[cfg(test)]
mod tests;
mod tiff;
mod webp;
mod webp_anim;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

pub use error::ImageError;
pub use format::OutputFormat;
pub use format::SourceFormat;
pub use framing::Spot;
pub use impression::DominantColor;
pub use impression::Impression;
pub use recipe::BadParam;
pub use recipe::Recipe;

use canvas::Canvas;
use decode::Source;
use encode::Finish;
use kept::Kept;
use params::Plan;

/// High enough that the artefacts of a base image vanish in the reduction that follows.
const BASE_QUALITY: u8 = 92;

/// What a source may ask for at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub max_pixels: u64,
    pub max_side: u32,
    /// Of any single pixel buffer, and of a codec's own working memory.
    pub max_decoded_bytes: u64,
    /// An animation of more frames, or of more pixels in all its frames together, stands still.
    pub max_frames: u32,
    pub max_animation_pixels: u64,
    pub max_exif_bytes: usize,
    pub max_icc_bytes: usize,
    /// Of an embedded text: XMP, IPTC, PNG text.
    pub max_text_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pixels: 100_000_000,
            max_side: 32_768,
            max_decoded_bytes: 640 << 20,
            max_frames: 100,
            max_animation_pixels: 64_000_000,
            max_exif_bytes: 1 << 20,
            max_icc_bytes: 4 << 20,
            max_text_bytes: 1 << 20,
        }
    }
}

impl Limits {
    fn check(&self, width: u32, height: u32) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::Damaged("the picture has no pixels".to_owned()));
        }
        if width > self.max_side || height > self.max_side || u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ImageError::TooLarge { width, height });
        }
        Ok(())
    }
}

/// One picture to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub recipe: Recipe,
    pub format: OutputFormat,
    /// The result fits in this many pixels, instead of the general maximum.
    pub ceiling: Option<(u32, u32)>,
    /// What the picture is about, in shares of the upright original, from its top left.
    pub focus: Option<(f32, f32)>,
}

impl Order {
    pub fn new(recipe: Recipe, format: OutputFormat) -> Order {
        Order { recipe, format, ceiling: None, focus: None }
    }
}

impl Order {
    fn plan(&self, (width, height): (u32, u32)) -> Plan {
        let plan = self.recipe.plan(width, height, self.ceiling.unwrap_or(Plan::CEILING));
        Plan { format: Some(self.format), ..plan }
    }
}

/// What is known about a picture without decoding it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub format: SourceFormat,
    /// Upright.
    pub width: u32,
    pub height: u32,
    pub has_alpha: bool,
    pub animated: bool,
    /// Of an animation.
    #[serde(default)]
    pub frames: Option<u32>,
    /// Of an animation, as browsers show it.
    #[serde(default)]
    pub duration_seconds: Option<f64>,
    /// Of a document with more than one.
    #[serde(default)]
    pub pages: Option<u32>,
    pub make: Option<String>,
    pub model: Option<String>,
    /// In ExifTool's words, as in "Rotate 90 CW".
    pub orientation: Option<String>,
    /// In ExifTool's words, as in "sRGB" or "Uncalibrated".
    pub color_space: Option<String>,
    /// Local time of the camera, as YYYY-MM-DDTHH:MM:SS.
    pub captured_at: Option<String>,
    pub gps: Option<Gps>,
    /// Further tags by ExifTool's names.
    pub exif: BTreeMap<String, String>,
    /// What is wrong although the picture can be decoded.
    pub warning: Option<String>,
}

/// Where a picture was taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gps {
    /// Degrees, north positive.
    pub latitude: f64,
    /// Degrees, east positive.
    pub longitude: f64,
    /// Metres above sea level.
    pub altitude: Option<f64>,
}

/// A picture that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    pub bytes: Vec<u8>,
    pub format: OutputFormat,
    pub width: u32,
    pub height: u32,
}

/// Reads the facts from the header. A picture whose tail is missing gets a warning; one whose
/// header cannot be read is an error.
pub fn probe(source: &[u8], limits: &Limits) -> Result<Facts, ImageError> {
    let source = Source::open(source, limits)?;
    let (width, height) = source.size();
    let mut facts = Facts {
        format: source.format,
        width,
        height,
        has_alpha: source.has_alpha,
        animated: source.motion.moves(),
        frames: source.motion.is_timed().then_some(source.motion.frames),
        duration_seconds: source.motion.is_timed().then_some(source.motion.duration_ms as f64 / 1000.0),
        pages: (source.pages > 1).then_some(source.pages),
        make: None,
        model: None,
        orientation: None,
        color_space: None,
        captured_at: None,
        gps: None,
        exif: BTreeMap::new(),
        warning: (!source.complete).then(|| "the file ends before the picture does".to_owned()),
    };
    metadata::describe(&source, &mut facts);
    Ok(facts)
}

/// What is prepared of a picture once, for all who will ask for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// Only of a picture that is larger.
    pub picture: Option<Rendered>,
    pub impression: Impression,
}

/// Looks at a picture, and makes the base image from which on-demand images are cut, if it is
/// larger than that: upright, sRGB, fitting a square of `side` pixels; with transparency as
/// WebP, else as JPEG, of a quality that survives a second compression.
pub fn base(source: &[u8], side: u32, limits: &Limits) -> Result<Base, ImageError> {
    let source = Source::open(source, limits)?;
    let (width, height) = source.size();
    let larger = width.max(height) > side;
    let ceiling = if larger { side } else { impression::SIDE };
    let plan = Recipe::default().plan(width, height, (ceiling, ceiling));
    let format = if source.has_alpha { OutputFormat::Webp } else { OutputFormat::Jpeg };
    let mut canvas = source.decode(&plan, limits, &|| false)?;
    canvas.fit()?;
    let impression = impression::of(&canvas)?;
    if !larger {
        return Ok(Base { picture: None, impression });
    }
    let bytes = encode::encode(&mut canvas, format, &Finish::plain(BASE_QUALITY))?;
    let (width, height) = canvas.size();
    Ok(Base { picture: Some(Rendered { bytes, format, width, height }), impression })
}

/// Finds the faces in packed RGB of this width and height. Who knows how to is not for this
/// room to know; it is asked only by a recipe that minds.
pub type FindFaces = fn(&[u8], u32, u32) -> Vec<Spot>;

/// For those who know no faces.
pub fn nobody(_rgb: &[u8], _width: u32, _height: u32) -> Vec<Spot> {
    Vec::new()
}

/// What is known about where to look in a picture.
#[derive(Clone, Copy)]
struct Guide {
    /// The point that matters, named by people, in shares of the upright original's sides. It
    /// overrules everything that is found.
    focus: Option<(f32, f32)>,
    faces: FindFaces,
}

impl Default for Guide {
    /// Nobody knows anything.
    fn default() -> Self {
        Self { focus: None, faces: nobody }
    }
}

/// Makes a picture; a moving one stays so when the result is a WebP. `cancelled` is asked
/// between steps. Without a format in the recipe, the result is a PNG for a PNG or a
/// transparent source, else a JPEG.
pub fn render(
    source: &[u8],
    recipe: &Recipe,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Rendered, ImageError> {
    let opened = Source::open_page(source, recipe.page(), limits)?;
    let format = negotiate::choose(None, opened.format, opened.has_alpha, opened.motion.moves(), recipe.format());
    let order = Order::new(recipe.clone(), format);
    let mut made = render_opened(opened, None, &[order], nobody, limits, cancelled, Ok);
    made.pop().unwrap_or(Err(ImageError::Cancelled))
}

/// Makes several pictures of one source, each page of which is decoded once. Each goes to
/// `keep` as soon as it is made, in any order; `mark` is the file that a watermark step lays
/// over them, `faces` finds faces for those who crop. The results are in the order of the orders.
pub fn render_all<T>(
    source: &[u8],
    mark: Option<&[u8]>,
    orders: &[Order],
    faces: FindFaces,
    limits: &Limits,
    mut keep: impl FnMut(Rendered) -> Result<T, ImageError>,
) -> Vec<Result<T, ImageError>> {
    let mark = match mark.map(|mark| whole(mark, limits)).transpose() {
        Ok(mark) => mark.map(Arc::new),
        Err(e) => return orders.iter().map(|_| Err(ImageError::clone(&e))).collect(),
    };
    let mut results = Vec::with_capacity(orders.len());
    for same_page in orders.chunk_by(|a, b| a.recipe.page() == b.recipe.page()) {
        let page = same_page.first().map_or(1, |order| order.recipe.page());
        match Source::open_page(source, page, limits) {
            // The server kills a worker whose answers nobody wants; there is nobody else to ask.
            Ok(opened) => {
                results.extend(render_opened(opened, mark.clone(), same_page, faces, limits, &|| false, &mut keep));
            }
            Err(e) => results.extend(same_page.iter().map(|_| Err(ImageError::clone(&e)))),
        }
    }
    results
}

fn render_opened<T>(
    source: Source<'_>,
    mark: Option<Arc<Canvas>>,
    orders: &[Order],
    faces: FindFaces,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
    mut keep: impl FnMut(Rendered) -> Result<T, ImageError>,
) -> Vec<Result<T, ImageError>> {
    let plans: Vec<Plan> = orders.iter().map(|order| order.plan(source.size())).collect();
    let moving = |(order, plan): (&Order, &Plan)| match order.format {
        OutputFormat::Webp => {
            animation::render(&source, order, plan, mark.as_ref(), faces, limits, cancelled).transpose()
        }
        _ => None,
    };
    // What moves is decoded frame by frame; the rest shares one decoding.
    let mut results: Vec<Option<Result<T, ImageError>>> =
        orders.iter().zip(&plans).map(|pair| moving(pair).map(|made| made.and_then(&mut keep))).collect();
    let finishes: Vec<Finish> = plans
        .iter()
        .map(|plan| Finish { quality: plan.quality, dpi: plan.dpi, kept: Kept::from(&source.metadata, plan.keep) })
        .collect();
    let mut still = results.iter().filter(|result| result.is_none()).count();
    let mut canvas = None;
    if still > 0 {
        let covering = Plan::covering(&plans, source.size());
        canvas = Some(source.decode(&covering, limits, cancelled).map(|canvas| canvas.marked(mark)));
    }
    let waiting = results.iter_mut().zip(orders.iter().zip(&plans).zip(finishes)).filter(|(r, _)| r.is_none());
    for (result, ((order, plan), finish)) in waiting {
        still -= 1;
        // The last one may have the decoded picture itself.
        let mine = if still == 0 { canvas.take() } else { canvas.clone() };
        let made = mine
            .unwrap_or(Err(ImageError::Cancelled))
            .and_then(|mine| make(mine, order, plan, finish, faces, limits, cancelled));
        *result = Some(made.and_then(&mut keep));
    }
    results.into_iter().flatten().collect()
}

/// Decodes a picture as large as it is.
fn whole(source: &[u8], limits: &Limits) -> Result<Canvas, ImageError> {
    let source = Source::open(source, limits)?;
    let plan = Plan { full_size: true, ..Recipe::default().plan(1, 1, Plan::CEILING) };
    source.decode(&plan, limits, &|| false)
}

fn make(
    canvas: Canvas,
    order: &Order,
    plan: &Plan,
    finish: Finish,
    faces: FindFaces,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Rendered, ImageError> {
    let go_on = || if cancelled() { Err(ImageError::Cancelled) } else { Ok(()) };
    let mut canvas = canvas.heading_for(plan).guided_by(Guide { focus: order.focus, faces });
    for step in order.recipe.steps() {
        go_on()?;
        step.apply(&mut canvas)?;
    }
    go_on()?;
    let bytes = match plan.score {
        Some(score) => auto::encode(&mut canvas, order.format, f64::from(score), finish, limits, cancelled)?,
        None => encode::encode(&mut canvas, order.format, &finish)?,
    };
    let (width, height) = canvas.size();
    Ok(Rendered { bytes, format: order.format, width, height })
}
