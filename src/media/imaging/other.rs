//! The formats that need no fast path: GIF, BMP, ICO.
//!
//! In: a decoder of the `image` crate. Out: a canvas with 8 bits per channel, first frame only.
//!
//! Invariant: the decoder gets its limits before it allocates.

use std::io::Cursor;

use image::DynamicImage;
use image::ImageDecoder;
use image::ImageFormat;
use image::ImageReader;

use super::Limits;
use super::canvas::Canvas;
use super::error::ImageError;
use super::format::SourceFormat;

/// Opens the header.
pub fn open(source: &[u8], format: SourceFormat) -> Result<impl ImageDecoder, ImageError> {
    let format = match format {
        SourceFormat::Gif => ImageFormat::Gif,
        SourceFormat::Bmp => ImageFormat::Bmp,
        SourceFormat::Ico => ImageFormat::Ico,
        other => return Err(ImageError::Unsupported(other.mime().to_owned())),
    };
    ImageReader::with_format(Cursor::new(source), format).into_decoder().map_err(ImageError::damaged)
}

/// Decodes.
pub fn read(mut decoder: impl ImageDecoder, limits: &Limits) -> Result<Canvas, ImageError> {
    let mut caps = image::Limits::default();
    caps.max_image_width = Some(limits.max_side);
    caps.max_image_height = Some(limits.max_side);
    caps.max_alloc = Some(limits.max_decoded_bytes);
    let (width, height) = decoder.dimensions();
    limits.check(width, height)?;
    if decoder.total_bytes() > limits.max_decoded_bytes {
        return Err(ImageError::TooLarge { width, height });
    }
    decoder.set_limits(caps).map_err(ImageError::damaged)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(ImageError::damaged)?;
    let (width, height) = (picture.width(), picture.height());
    Ok(if picture.color().has_alpha() {
        Canvas::rgba(width, height, picture.into_rgba8().into_raw())
    } else {
        Canvas::rgb(width, height, picture.into_rgb8().into_raw())
    })
}
