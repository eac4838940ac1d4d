//! Pictures: what they are, and other shapes of them.
//!
//! In: the bytes of a file (the caller maps it), a recipe, limits. Out: facts about the
//! picture, or a rendered one. Pure and blocking: no files, no threads, no clock.
//!
//! Invariant: the header is read and held against the limits before anything is decoded, so
//! memory is bounded by `Limits` whatever the file claims; a result carries no metadata of
//! its source, in particular no place and no name.
//!
//! `probe` and `render` run in the sandboxed worker, for they call decoders written in C.
//! `Recipe`, `negotiate` and the plain types run in the server too and call none.
//!
//! Every type that crosses between the two is plain serde data.

mod avif;
mod canvas;
mod color;
pub mod container;
mod decode;
mod encode;
mod error;
mod format;
mod jpeg;
mod markers;
mod metadata;
pub mod negotiate;
mod orientation;
mod other;
pub mod params;
mod png;
mod recipe;
mod riff;
#[cfg(test)]
mod tests;
mod webp;
mod words;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

pub use error::ImageError;
pub use format::OutputFormat;
pub use format::SourceFormat;
pub use recipe::BadParam;
pub use recipe::Recipe;

use decode::Source;

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

/// What is known about a picture without decoding it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub format: SourceFormat,
    /// Upright.
    pub width: u32,
    pub height: u32,
    pub has_alpha: bool,
    pub animated: bool,
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
        animated: source.animated,
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

/// Makes the base image from which on-demand images are cut: upright, sRGB, fitting a square
/// of `side` pixels; with transparency as WebP, else as JPEG, of a quality that survives a
/// second compression.
pub fn base(source: &[u8], side: u32, limits: &Limits) -> Result<Rendered, ImageError> {
    let source = Source::open(source, limits)?;
    let (width, height) = source.size();
    let mut plan = Recipe::default().plan(width, height);
    plan.ceiling = (side, side);
    let format = if source.has_alpha { OutputFormat::Webp } else { OutputFormat::Jpeg };
    let mut canvas = source.decode(plan.shrink(), limits)?.heading_for(&plan);
    canvas.fit()?;
    let bytes = encode::encode(&mut canvas, format, BASE_QUALITY)?;
    let (width, height) = canvas.size();
    Ok(Rendered { bytes, format, width, height })
}

/// Makes a picture. `cancelled` is asked between steps. Without a format in the recipe, the
/// result is a PNG for a PNG or a transparent source, else a JPEG.
pub fn render(
    source: &[u8],
    recipe: &Recipe,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Rendered, ImageError> {
    let go_on = || if cancelled() { Err(ImageError::Cancelled) } else { Ok(()) };
    go_on()?;
    let source = Source::open(source, limits)?;
    let (width, height) = source.size();
    let plan = recipe.plan(width, height);
    let format = negotiate::choose(None, source.format, source.has_alpha, plan.format);
    let shrink = if plan.full_size { 1.0 } else { plan.shrink() };
    let mut canvas = source.decode(shrink, limits)?.heading_for(&plan);
    for step in recipe.steps() {
        go_on()?;
        step.apply(&mut canvas)?;
    }
    go_on()?;
    let bytes = encode::encode(&mut canvas, format, plan.quality)?;
    let (width, height) = canvas.size();
    Ok(Rendered { bytes, format, width, height })
}
