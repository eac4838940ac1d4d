//! From a canvas to the bytes of a file.
//!
//! In: a finished canvas (sRGB, upright), a format, and how to finish it: quality, density, what
//! metadata may leave with it. Out: the bytes of a file.
//!
//! Invariant: what a format cannot hold is resolved here, never lost: transparency in a JPEG
//! lies on white, and planes become pixels where a format knows no planes.

use super::avif;
use super::canvas::Canvas;
use super::error::ImageError;
use super::format::OutputFormat;
use super::jpeg;
use super::kept::Kept;
use super::params::dpi;
use super::png;
use super::webp;

const WHITE: [u8; 3] = [255; 3];

/// What a file is to be like, whatever its format.
#[derive(Clone, Debug)]
pub struct Finish {
    /// 1 to 100.
    pub quality: u8,
    /// Pixels per inch.
    pub dpi: u16,
    /// The metadata that leaves with it.
    pub kept: Kept,
}

impl Finish {
    /// Of this quality, without anything special.
    pub fn plain(quality: u8) -> Self {
        Self { quality, dpi: dpi::DEFAULT, kept: Kept::default() }
    }
}

/// Encodes the canvas.
pub fn encode(canvas: &mut Canvas, format: OutputFormat, finish: &Finish) -> Result<Vec<u8>, ImageError> {
    if !format.has_alpha() {
        canvas.flatten(WHITE);
    }
    match format {
        OutputFormat::Png if !canvas.is_grey() => canvas.unpack()?,
        _ => canvas.halve_chroma()?,
    }
    let Finish { quality, dpi, kept } = finish;
    let file = match format {
        OutputFormat::Jpeg => jpeg::encode(canvas, *quality, *dpi),
        OutputFormat::Png => png::encode(canvas, *dpi),
        OutputFormat::Webp => webp::encode(canvas, *quality),
        OutputFormat::Avif => avif::encode(canvas, *quality, kept),
    }?;
    Ok(kept.embed(file, format, canvas.size()))
}
