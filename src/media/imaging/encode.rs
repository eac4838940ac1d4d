//! From a canvas to the bytes of a file.
//!
//! In: a finished canvas (sRGB, upright), a format, a quality. Out: bytes without any metadata.
//!
//! Invariant: what a format cannot hold is resolved here, never lost: transparency in a JPEG
//! lies on white.

use super::avif;
use super::canvas::Canvas;
use super::error::ImageError;
use super::format::OutputFormat;
use super::jpeg;
use super::png;
use super::webp;

const WHITE: [u8; 3] = [255; 3];

/// Encodes the canvas.
pub fn encode(canvas: &mut Canvas, format: OutputFormat, quality: u8) -> Result<Vec<u8>, ImageError> {
    if !format.has_alpha() {
        canvas.flatten(WHITE);
    }
    match format {
        OutputFormat::Jpeg => jpeg::encode(canvas, quality),
        OutputFormat::Png => png::encode(canvas),
        OutputFormat::Webp => webp::encode(canvas, quality),
        OutputFormat::Avif => avif::encode(canvas, quality),
    }
}
