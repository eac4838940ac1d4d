//! PNG in and out.
//!
//! In: the bytes of a file, or pixels. Out: pixels (rounded to 8 bits, palettes widened to
//! RGB) and what they mean, or the bytes of a file at the fast compression level, no metadata.
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
use ::png::Info;
use ::png::PixelDimensions;
use ::png::Reader;
use ::png::ScaledFloat;
use ::png::Transformations;
use ::png::Unit;

use super::Limits;
use super::animation::Motion;
use super::animation::shown_ms;
use super::canvas::Canvas;
use super::color::Profile;
use super::error::ImageError;
use super::planes::Plane;
use super::planes::Planes;

/// What the chunks say.
#[derive(Default)]
pub struct Header<'a> {
    pub width: u32,
    pub height: u32,
    pub has_alpha: bool,
    pub motion: Motion,
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
            b"acTL" => {
                if let &[n3, n2, n1, n0, p3, p2, p1, p0] = data {
                    found.motion.frames = u32::from_be_bytes([n3, n2, n1, n0]);
                    found.motion.plays = u32::from_be_bytes([p3, p2, p1, p0]);
                }
            }
            // Sequence number, place and size; then the delay as a fraction of a second.
            b"fcTL" => {
                if let Some(&[n1, n0, d1, d0]) = data.get(20..24) {
                    let part = match u32::from(u16::from_be_bytes([d1, d0])) {
                        0 => 100,
                        part => part,
                    };
                    found.motion.duration_ms +=
                        u64::from(shown_ms(u32::from(u16::from_be_bytes([n1, n0])) * 1000 / part));
                }
            }
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

/// What the numbers mean, by the chunks before the pixels.
pub fn profile(source: &[u8], limits: &Limits) -> Profile {
    open(source, limits).map_or(Profile::Srgb, |reader| profile_of(reader.info(), limits))
}

/// Decodes.
pub fn decode(source: &[u8], limits: &Limits) -> Result<(Canvas, Profile), ImageError> {
    let mut reader = open(source, limits)?;
    let (width, height) = (reader.info().width, reader.info().height);
    limits.check(width, height)?;
    let profile = profile_of(reader.info(), limits);
    let (color, depth) = reader.output_color_type();
    let mut pixels = if depth == BitDepth::Sixteen && !reader.info().interlaced {
        narrow_rows(&mut reader, limits)?
    } else {
        let size = reader.output_buffer_size().filter(|size| *size as u64 <= limits.max_decoded_bytes);
        let mut pixels = vec![0; size.ok_or(ImageError::TooLarge { width, height })?];
        match reader.next_frame(&mut pixels) {
            Ok(_) => {}
            Err(error) if is_cut(&error) && pixels.iter().any(|&b| b != 0) => {}
            Err(error) => return Err(ImageError::damaged(error)),
        }
        pixels
    };
    if depth == BitDepth::Sixteen && reader.info().interlaced {
        pixels = narrow(&pixels).collect();
    }
    let canvas = match color {
        ColorType::Rgb => Canvas::rgb(width, height, pixels),
        ColorType::Rgba => Canvas::rgba(width, height, pixels),
        ColorType::GrayscaleAlpha => {
            Canvas::rgba(width, height, pixels.as_chunks::<2>().0.iter().flat_map(|&[g, a]| [g, g, g, a]).collect())
        }
        ColorType::Grayscale => Canvas::planar(Planes { luma: Plane { width, height, samples: pixels }, chroma: None }),
        ColorType::Indexed => return Err(ImageError::Damaged("PNG: the palette is missing".to_owned())),
    };
    Ok((canvas, profile))
}

fn open<'a>(source: &'a [u8], limits: &Limits) -> Result<Reader<Cursor<&'a [u8]>>, ImageError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(source), options);
    decoder.set_limits(::png::Limits { bytes: limits.max_decoded_bytes as usize });
    decoder.set_transformations(Transformations::EXPAND);
    decoder.read_info().map_err(ImageError::damaged)
}

/// By the precedence of the PNG specification: code points, ICC, sRGB, gamma.
fn profile_of(info: &Info<'_>, limits: &Limits) -> Profile {
    if let Some(points) = info.coding_independent_code_points {
        return Profile::CodePoints(points.color_primaries, points.transfer_function);
    }
    let icc = info.icc_profile.as_deref().filter(|icc| !icc.is_empty() && icc.len() <= limits.max_icc_bytes);
    if let Some(icc) = icc {
        return Profile::Icc(icc.to_vec());
    }
    match info.gama_chunk {
        Some(gamma) if info.srgb.is_none() => {
            let place = |(x, y): (ScaledFloat, ScaledFloat)| (x.into_value(), y.into_value());
            let chromaticities = info.chrm_chunk.map(|c| [place(c.white), place(c.red), place(c.green), place(c.blue)]);
            Profile::from_gamma(gamma.into_value(), chromaticities)
        }
        _ => Profile::Srgb,
    }
}

/// Reads 16-bit rows as 8-bit ones, so that the wide picture is never in memory as a whole.
fn narrow_rows(reader: &mut Reader<Cursor<&[u8]>>, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let (width, height) = (reader.info().width, reader.info().height);
    let samples = reader.output_color_type().0.samples();
    let size = width as usize * height as usize * samples;
    if size as u64 > limits.max_decoded_bytes {
        return Err(ImageError::TooLarge { width, height });
    }
    let mut pixels = Vec::with_capacity(size);
    loop {
        match reader.next_row() {
            Ok(Some(row)) => pixels.extend(narrow(row.data())),
            Ok(None) => break,
            Err(error) if is_cut(&error) && !pixels.is_empty() => break,
            Err(error) => return Err(ImageError::damaged(error)),
        }
    }
    pixels.resize(size, 0);
    Ok(pixels)
}

/// The nearest of 256 shades to each big-endian 16-bit one.
fn narrow(wide: &[u8]) -> impl Iterator<Item = u8> {
    wide.as_chunks::<2>().0.iter().map(|&pair| ((u32::from(u16::from_be_bytes(pair)) * 255 + 32_767) / 65_535) as u8)
}

fn is_cut(error: &DecodingError) -> bool {
    matches!(error, DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof)
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
    // With the filters it chooses: no single filter is faster by a millisecond, all give more bytes.
    encoder.set_compression(Compression::Fast);
    encoder.set_pixel_dims(Some(PixelDimensions { xppu: per_metre, yppu: per_metre, unit: Unit::Meter }));
    let mut writer = encoder.write_header().map_err(ImageError::not_rendered)?;
    writer.write_image_data(samples).map_err(ImageError::not_rendered)?;
    writer.finish().map_err(ImageError::not_rendered)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 x 4 pixels of one gray, 8 or 16 bits, with what the closure sets.
    fn gray(depth: BitDepth, sample: &[u8], set: impl FnOnce(&mut Encoder<'_, &mut Vec<u8>>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 4, 4);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(depth);
        set(&mut encoder);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&sample.repeat(16)).unwrap();
        writer.finish().unwrap();
        bytes
    }

    /// Sixteen bits, stored in seven passes, written by hand: the encoder cannot.
    fn interlaced(sample: [u8; 2]) -> Vec<u8> {
        let plain = gray(BitDepth::Sixteen, &sample, |_| {});
        // Of 4 x 4 pixels, passes 1, 4 and 5 hold one row, 6 and 7 two, and 2 and 3 none.
        let rows = [1_usize, 1, 2, 2, 2, 4, 4].into_iter();
        let passes: Vec<u8> = rows.flat_map(|pixels| [vec![0], sample.repeat(pixels)].concat()).collect();
        let checksum = |parts: &[&[u8]]| {
            let step = |mut sum: u32, byte: &u8| {
                sum ^= u32::from(*byte);
                for _ in 0..8 {
                    sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
                }
                sum
            };
            !parts.concat().iter().fold(u32::MAX, step)
        };
        let chunk = |kind: &[u8], data: &[u8]| {
            let length = (data.len() as u32).to_be_bytes();
            [&length, kind, data, &checksum(&[kind, data]).to_be_bytes()].concat()
        };
        let mut header = plain[16..29].to_vec();
        header[12] = 1;
        // A zlib stream of one stored block.
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in &passes {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        let length = passes.len() as u16;
        let stored = [
            &[0x78, 0x01, 1][..],
            &length.to_le_bytes(),
            &(!length).to_le_bytes(),
            &passes,
            &(b << 16 | a).to_be_bytes(),
        ];
        [plain[..8].to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &stored.concat()), chunk(b"IEND", b"")].concat()
    }

    fn first(source: &[u8]) -> u8 {
        let mut canvas = decode(source, &Limits::default()).unwrap().0;
        canvas.unpack().unwrap();
        canvas.pixels()[0]
    }

    #[test]
    fn sixteen_bits_are_rounded() {
        for (sample, shade) in [([0x01, 0x80], 1), ([0x01, 0x82], 2), ([0xFF, 0x7F], 255), ([0xFE, 0xFE], 254)] {
            assert_eq!(first(&gray(BitDepth::Sixteen, &sample, |_| {})), shade, "{sample:x?}");
            assert_eq!(first(&interlaced(sample)), shade, "{sample:x?}");
        }
    }

    #[test]
    fn gamma_counts_where_nothing_better_is_said() {
        let profile_of = |set: fn(&mut Encoder<'_, &mut Vec<u8>>)| {
            decode(&gray(BitDepth::Eight, &[128], set), &Limits::default()).unwrap().1
        };
        assert_eq!(profile_of(|e| e.set_source_gamma(ScaledFloat::new(1.0))), Profile::Gamma(1.0, None));
        assert_eq!(profile_of(|e| e.set_source_gamma(ScaledFloat::new(0.454_55))), Profile::Srgb);
        assert_eq!(profile_of(|e| e.set_source_gamma(ScaledFloat::new(0.0))), Profile::Srgb);
        let both: fn(&mut Encoder<'_, &mut Vec<u8>>) = |e| {
            e.set_source_gamma(ScaledFloat::new(1.0));
            e.set_source_srgb(::png::SrgbRenderingIntent::Perceptual);
        };
        assert_eq!(profile_of(both), Profile::Srgb);
    }
}
