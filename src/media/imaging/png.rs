//! PNG in and out.
//!
//! In: the bytes of a file, or pixels. Out: pixels (8 bits, palettes widened to RGB),
//! or the bytes of a file at the fast compression level, 72 pixels per inch, no metadata.
//!
//! Invariant: sizes are checked before a buffer is made; a file whose tail is missing gives
//! the rows it has, black or transparent below.

use std::io::Cursor;
use std::io::ErrorKind;

use ::png::BitDepth;
use ::png::ColorType;
use ::png::Compression;
use ::png::DecodeOptions;
use ::png::Decoder;
use ::png::DecodingError;
use ::png::Encoder;
use ::png::PixelDimensions;
use ::png::Transformations;
use ::png::Unit;

use super::Limits;
use super::canvas::Canvas;
use super::error::ImageError;
use super::planes::Plane;
use super::planes::Planes;

/// What the chunks say.
#[derive(Default)]
pub struct Header<'a> {
    pub width: u32,
    pub height: u32,
    pub has_alpha: bool,
    pub animated: bool,
    pub exif: Option<&'a [u8]>,
    pub xmp: Option<&'a [u8]>,
    /// Uncompressed text chunks: keyword and text.
    pub texts: Vec<(String, String)>,
    /// Whether the closing chunk is there.
    pub complete: bool,
}

/// Walks the chunks without inflating anything.
pub fn header<'a>(source: &'a [u8], limits: &Limits) -> Option<Header<'a>> {
    const MOST_TEXTS: usize = 64;
    let mut found = Header::default();
    let mut rest = source.get(8..)?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((kind, after)) = after.split_first_chunk::<4>() else { break };
        let length = u32::from_be_bytes(*length) as usize;
        let Some(data) = after.get(..length) else { break };
        match kind {
            b"IHDR" => {
                let &[w3, w2, w1, w0, h3, h2, h1, h0, _, color, ..] = data else { return None };
                found.width = u32::from_be_bytes([w3, w2, w1, w0]);
                found.height = u32::from_be_bytes([h3, h2, h1, h0]);
                found.has_alpha = color & 4 != 0;
            }
            b"tRNS" => found.has_alpha = true,
            b"acTL" => found.animated = data.first_chunk().is_some_and(|n| u32::from_be_bytes(*n) > 1),
            b"eXIf" if length <= limits.max_exif_bytes => found.exif = Some(data),
            b"tEXt" if length <= limits.max_text_bytes && found.texts.len() < MOST_TEXTS => {
                if let Some(end) = data.iter().position(|&b| b == 0) {
                    let latin1 = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect::<String>();
                    found.texts.push((latin1(data.get(..end)?), latin1(data.get(end + 1..)?)));
                }
            }
            // iTXt: keyword, compressed?, method, language, translated keyword, text.
            b"iTXt" if length <= limits.max_text_bytes => {
                found.xmp = found.xmp.or(data.strip_prefix(b"XML:com.adobe.xmp\0\0\0\0\0".as_slice()));
            }
            b"IEND" => {
                found.complete = true;
                break;
            }
            _ => {}
        }
        // Four bytes of checksum follow.
        rest = after.get(length + 4..).unwrap_or_default();
    }
    (found.width > 0 && found.height > 0).then_some(found)
}

/// Decodes; also gives the embedded ICC profile.
pub fn decode(source: &[u8], limits: &Limits) -> Result<(Canvas, Option<Vec<u8>>), ImageError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(source), options);
    decoder.set_limits(::png::Limits { bytes: limits.max_decoded_bytes as usize });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(ImageError::damaged)?;
    let (width, height) = (reader.info().width, reader.info().height);
    limits.check(width, height)?;
    let icc = reader.info().icc_profile.as_deref().filter(|icc| icc.len() <= limits.max_icc_bytes).map(<[u8]>::to_vec);
    let size = reader.output_buffer_size().filter(|size| *size as u64 <= limits.max_decoded_bytes);
    let mut pixels = vec![0; size.ok_or(ImageError::TooLarge { width, height })?];
    match reader.next_frame(&mut pixels) {
        Ok(_) => {}
        Err(DecodingError::IoError(error))
            if error.kind() == ErrorKind::UnexpectedEof && pixels.iter().any(|&b| b != 0) => {}
        Err(error) => return Err(ImageError::damaged(error)),
    }
    let canvas = match reader.output_color_type().0 {
        ColorType::Rgb => Canvas::rgb(width, height, pixels),
        ColorType::Rgba => Canvas::rgba(width, height, pixels),
        ColorType::GrayscaleAlpha => {
            Canvas::rgba(width, height, pixels.as_chunks::<2>().0.iter().flat_map(|&[g, a]| [g, g, g, a]).collect())
        }
        ColorType::Grayscale => Canvas::planar(Planes { luma: Plane { width, height, samples: pixels }, chroma: None }),
        ColorType::Indexed => return Err(ImageError::Damaged("PNG: the palette is missing".to_owned())),
    };
    Ok((canvas, icc))
}

/// Writes the canvas as PNG; a single plane as grey.
pub fn encode(canvas: &Canvas, dpi: u16) -> Result<Vec<u8>, ImageError> {
    const INCHES_PER_METRE: f64 = 1.0 / 0.0254;
    let per_metre = (f64::from(dpi) * INCHES_PER_METRE).round() as u32;
    let (width, height) = canvas.size();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    let (color, samples) = match canvas.planes() {
        Some(grey) => (ColorType::Grayscale, grey.luma.samples.as_slice()),
        None if canvas.has_alpha() => (ColorType::Rgba, canvas.pixels()),
        None => (ColorType::Rgb, canvas.pixels()),
    };
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    encoder.set_pixel_dims(Some(PixelDimensions { xppu: per_metre, yppu: per_metre, unit: Unit::Meter }));
    let mut writer = encoder.write_header().map_err(ImageError::not_rendered)?;
    writer.write_image_data(samples).map_err(ImageError::not_rendered)?;
    writer.finish().map_err(ImageError::not_rendered)?;
    Ok(bytes)
}
