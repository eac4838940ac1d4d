//! From a canvas to the bytes of a file.
//!
//! In: a finished canvas (sRGB, upright), a format, a plan (quality, density). Out: bytes without any metadata.
//!
//! Invariant: what a format cannot hold is resolved here, never lost: transparency in a JPEG
//! lies on white, and planes become pixels where a format knows no planes.

use super::avif;
use super::canvas::Canvas;
use super::error::ImageError;
use super::format::OutputFormat;
use super::jpeg;
use super::params::Plan;
use super::png;
use super::webp;

const WHITE: [u8; 3] = [255; 3];

/// Encodes the canvas.
pub fn encode(canvas: &mut Canvas, format: OutputFormat, plan: &Plan) -> Result<Vec<u8>, ImageError> {
    if !format.has_alpha() {
        canvas.flatten(WHITE);
    }
    match format {
        OutputFormat::Png if !canvas.is_grey() => canvas.unpack()?,
        _ => canvas.halve_chroma()?,
    }
    match format {
        OutputFormat::Jpeg => jpeg::encode(canvas, plan.quality, plan.dpi),
        OutputFormat::Png => png::encode(canvas, plan.dpi),
        OutputFormat::Webp => webp::encode(canvas, plan.quality),
        OutputFormat::Avif => avif::encode(canvas, plan.quality),
    }
}
