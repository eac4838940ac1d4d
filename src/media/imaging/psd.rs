//! Photoshop files (PSD and PSB): the flattened picture that stands at their end.
//!
//! In: the bytes of a file. Out: what the header says, then pixels with 8 bits per channel.
//!
//! Invariant: sizes are checked before a buffer is made, every row is unpacked into a row's worth
//! of bytes and no more; a file whose tail is missing gives the rows it has.
//!
//! Layers are not composed: Photoshop does that when it saves, unless told otherwise, and says
//! so if it did not.
#![expect(clippy::indexing_slicing, reason = "pixel arithmetic on rows and planes of checked sizes")]

use super::Limits;
use super::canvas::Canvas;
use super::color;
use super::color::Profile;
use super::error::ImageError;

const ICC: u16 = 1039;
const VERSION_INFO: u16 = 1057;
const EXIF: u16 = 1058;
const XMP: u16 = 1060;

const MOST_RESOURCES: usize = 4096;

/// What the numbers of a channel stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Bitmap,
    Gray,
    Indexed,
    Rgb,
    Cmyk,
    Lab,
}

/// What stands before the pixels.
#[derive(Debug)]
pub struct Header<'a> {
    pub width: u32,
    pub height: u32,
    pub has_alpha: bool,
    pub exif: Option<&'a [u8]>,
    pub xmp: Option<&'a [u8]>,
    /// All image resources, the format that JPEG files carry in their Photoshop segment.
    pub resources: &'a [u8],
    /// Whether the pixels are all there, as far as lengths tell.
    pub complete: bool,
    icc: Option<&'a [u8]>,
    mode: Mode,
    depth: u16,
    is_large: bool,
    /// 256 reds, greens and blues.
    palette: &'a [u8],
    /// From the number of the compression on.
    data: &'a [u8],
}

/// Reads everything but the pixels.
pub fn header<'a>(source: &'a [u8], limits: &Limits) -> Result<Header<'a>, ImageError> {
    let read = || {
        let &[b'8', b'B', b'P', b'S', 0, version @ (1 | 2), _, _, _, _, _, _, n1, n0, ref sizes @ ..] = source else {
            return None;
        };
        let (height, sizes) = sizes.split_first_chunk()?;
        let (width, sizes) = sizes.split_first_chunk()?;
        let (depth, sizes) = sizes.split_first_chunk()?;
        let (mode, rest) = sizes.split_first_chunk()?;
        let (palette, rest) = section(rest, false)?;
        let (resources, rest) = section(rest, false)?;
        let (layers, data) = section(rest, version == 2)?;
        Some((
            version == 2,
            u16::from_be_bytes([n1, n0]),
            (u32::from_be_bytes(*width), u32::from_be_bytes(*height)),
            u16::from_be_bytes(*depth),
            u16::from_be_bytes(*mode),
            (palette, resources, layers, data),
        ))
    };
    let (is_large, channels, (width, height), depth, mode, (palette, resources, layers, data)) =
        read().ok_or_else(|| ImageError::Damaged("Photoshop: the header cannot be read".to_owned()))?;
    let (mode, colors) = match mode {
        0 => (Mode::Bitmap, 1),
        // A duotone is kept as the gray it is printed from.
        1 | 8 => (Mode::Gray, 1),
        2 => (Mode::Indexed, 1),
        3 => (Mode::Rgb, 3),
        4 => (Mode::Cmyk, 4),
        9 => (Mode::Lab, 3),
        _ => return Err(ImageError::Unsupported("Photoshop with many spot colours".to_owned())),
    };
    if !matches!(
        (mode, depth),
        (Mode::Bitmap, 1) | (Mode::Gray | Mode::Rgb | Mode::Cmyk | Mode::Lab, 8 | 16) | (Mode::Indexed, 8)
    ) {
        return Err(ImageError::Unsupported(format!("Photoshop with {depth} bits per channel")));
    }
    if channels < colors || (mode == Mode::Indexed && palette.len() < 768) {
        return Err(ImageError::Damaged("Photoshop: colours are missing".to_owned()));
    }
    let found = |wanted: u16| find(resources, wanted);
    // Byte 4 says whether the flattened picture is real or a blank that stands in for it.
    if found(VERSION_INFO).is_some_and(|info| info.get(4) == Some(&0)) {
        return Err(ImageError::Unsupported("Photoshop file saved without its flattened picture".to_owned()));
    }
    // The first spare channel is transparency if the number of layers says so, else a selection.
    let has_alpha = mode == Mode::Rgb && channels > 3 && is_see_through(layers, is_large);
    Ok(Header {
        width,
        height,
        has_alpha,
        exif: found(EXIF).filter(|exif| exif.len() <= limits.max_exif_bytes),
        xmp: found(XMP).filter(|xmp| xmp.len() <= limits.max_text_bytes),
        resources,
        complete: Rows::new(data, depth, width, height, channels, is_large).is_ok_and(|rows| rows.complete),
        icc: found(ICC).filter(|icc| icc.len() <= limits.max_icc_bytes),
        mode,
        depth,
        is_large,
        palette,
        data,
    })
}

/// Decodes the flattened picture.
pub fn decode(source: &[u8], limits: &Limits) -> Result<(Canvas, Profile), ImageError> {
    let header = header(source, limits)?;
    let (width, height) = (header.width, header.height);
    limits.check(width, height)?;
    let planes = match (header.mode, header.has_alpha) {
        (Mode::Cmyk, _) | (_, true) => 4,
        (Mode::Rgb | Mode::Lab, _) => 3,
        _ => 1,
    };
    let pixels = width as usize * height as usize;
    // Gray is widened at the end.
    if pixels as u64 * planes.max(3) as u64 > limits.max_decoded_bytes {
        return Err(ImageError::TooLarge { width, height });
    }
    let channels = source.get(12..14).map_or(0, |n| u16::from_be_bytes([n[0], n[1]]));
    let rows = Rows::new(header.data, header.depth, width, height, channels, header.is_large)?;
    let mut samples = vec![0_u8; pixels * planes];
    let mut row = vec![0_u8; rows.bytes];
    let mut any = false;
    for (number, line) in rows.enumerate().take(planes * height as usize) {
        let (plane, y) = (number / height as usize, number % height as usize);
        let Some(line) = line else { break };
        line.unpack(&mut row);
        any = true;
        let target =
            samples[y * width as usize * planes..][..width as usize * planes].iter_mut().skip(plane).step_by(planes);
        match header.depth {
            16 => target.zip(row.iter().step_by(2)).for_each(|(to, from)| *to = *from),
            1 => target.enumerate().for_each(|(x, to)| *to = if row[x / 8] >> (7 - x % 8) & 1 == 1 { 0 } else { 255 }),
            _ => target.zip(&row).for_each(|(to, from)| *to = *from),
        }
    }
    if !any {
        return Err(ImageError::Damaged("Photoshop: the pixels are missing".to_owned()));
    }
    let profile = Profile::from_icc(header.icc.map(<[u8]>::to_vec));
    Ok(match header.mode {
        Mode::Bitmap | Mode::Gray => {
            (Canvas::rgb(width, height, samples.iter().flat_map(|&g| [g; 3]).collect()), profile)
        }
        Mode::Indexed => {
            let color = |i: &u8| [0, 256, 512].map(|plane| header.palette[plane + usize::from(*i)]);
            (Canvas::rgb(width, height, samples.iter().flat_map(color).collect()), profile)
        }
        Mode::Rgb if header.has_alpha => {
            unmix_white(&mut samples);
            (Canvas::rgba(width, height, samples), profile)
        }
        Mode::Rgb => (Canvas::rgb(width, height, samples), profile),
        Mode::Cmyk => {
            for ink in &mut samples {
                *ink = 255 - *ink;
            }
            (Canvas::rgb(width, height, color::cmyk_to_rgb(&samples, header.icc)), Profile::Srgb)
        }
        Mode::Lab => {
            for pixel in samples.as_chunks_mut::<3>().0 {
                *pixel = lab_to_srgb(*pixel);
            }
            (Canvas::rgb(width, height, samples), Profile::Srgb)
        }
    })
}

/// A length and that many bytes; fewer if the file ends before.
fn section(bytes: &[u8], is_long: bool) -> Option<(&[u8], &[u8])> {
    let (length, rest) = if is_long {
        let (length, rest) = bytes.split_first_chunk()?;
        (u64::from_be_bytes(*length), rest)
    } else {
        let (length, rest) = bytes.split_first_chunk()?;
        (u64::from(u32::from_be_bytes(*length)), rest)
    };
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// An image resource by its number.
fn find(mut resources: &[u8], wanted: u16) -> Option<&[u8]> {
    for _ in 0..MOST_RESOURCES {
        // Photoshop and its plug-ins sign with different words.
        let (_, after) = resources.split_first_chunk::<4>()?;
        let (id, after) = after.split_first_chunk::<2>()?;
        // The name: a length and that many bytes, padded to an even total.
        let name = (usize::from(*after.first()?) + 2) & !1;
        let (data, after) = section(after.get(name..)?, false)?;
        if u16::from_be_bytes(*id) == wanted {
            return Some(data);
        }
        resources = after.get(data.len() % 2..)?;
    }
    None
}

/// Whether the number of layers is negative.
fn is_see_through(layers: &[u8], is_large: bool) -> bool {
    section(layers, is_large).and_then(|(info, _)| info.first().copied()).is_some_and(|high| high >= 0x80)
}

/// The packed rows of all planes, one after the other.
struct Rows<'a> {
    lengths: Option<&'a [u8]>,
    length_size: usize,
    data: &'a [u8],
    /// Of a row, unpacked.
    bytes: usize,
    complete: bool,
}

impl<'a> Rows<'a> {
    fn new(
        data: &'a [u8],
        depth: u16,
        width: u32,
        height: u32,
        channels: u16,
        is_large: bool,
    ) -> Result<Self, ImageError> {
        let missing = || ImageError::Damaged("Photoshop: the pixels are missing".to_owned());
        let (compression, data) = data.split_first_chunk().ok_or_else(missing)?;
        let bytes = (width as usize * usize::from(depth)).div_ceil(8);
        let count = height as usize * usize::from(channels);
        match u16::from_be_bytes(*compression) {
            0 => Ok(Self {
                lengths: None,
                length_size: 0,
                data,
                bytes,
                complete: data.len() >= bytes.saturating_mul(count),
            }),
            1 => {
                let length_size = if is_large { 4 } else { 2 };
                let (lengths, data) = data.split_at_checked(count * length_size).ok_or_else(missing)?;
                let sum: u64 = lengths.chunks_exact(length_size).map(|n| number(n) as u64).sum();
                Ok(Self { lengths: Some(lengths), length_size, data, bytes, complete: data.len() as u64 >= sum })
            }
            _ => Err(ImageError::Unsupported("Photoshop file whose flattened picture is zipped".to_owned())),
        }
    }
}

/// A row as it is stored.
enum Row<'a> {
    Plain(&'a [u8]),
    Packed(&'a [u8]),
}

impl<'a> Iterator for Rows<'a> {
    /// Nothing where the file has ended.
    type Item = Option<Row<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = match &mut self.lengths {
            None => self.bytes,
            Some(lengths) => {
                let (length, rest) = lengths.split_at_checked(self.length_size)?;
                *lengths = rest;
                number(length)
            }
        };
        let Some((row, rest)) = self.data.split_at_checked(length) else { return Some(None) };
        self.data = rest;
        Some(Some(if self.lengths.is_some() { Row::Packed(row) } else { Row::Plain(row) }))
    }
}

impl Row<'_> {
    /// Fills the row; what the file does not say stays black.
    fn unpack(&self, row: &mut [u8]) {
        let mut packed = match self {
            Row::Plain(bytes) => return row.copy_from_slice(bytes),
            Row::Packed(bytes) => *bytes,
        };
        row.fill(0);
        let mut at = 0;
        while let Some((&code, rest)) = packed.split_first() {
            packed = rest;
            let left = row.len() - at;
            match code {
                0..=127 => {
                    let count = (usize::from(code) + 1).min(packed.len());
                    row[at..][..count.min(left)].copy_from_slice(&packed[..count.min(left)]);
                    packed = &packed[count..];
                    at += count.min(left);
                }
                128 => {}
                129.. => {
                    let Some((&value, rest)) = packed.split_first() else { return };
                    packed = rest;
                    let count = (257 - usize::from(code)).min(left);
                    row[at..][..count].fill(value);
                    at += count;
                }
            }
        }
    }
}

/// A big-endian number of two or four bytes.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b))
}

/// Photoshop lays a see-through picture on white when it flattens it; this takes the white away.
fn unmix_white(pixels: &mut [u8]) {
    for pixel in pixels.as_chunks_mut::<4>().0 {
        let alpha = u32::from(pixel[3]);
        if alpha == 0 || alpha == 255 {
            continue;
        }
        for channel in &mut pixel[..3] {
            let colour = (u32::from(*channel) * 255).saturating_sub((255 - alpha) * 255);
            *channel = ((colour + alpha / 2) / alpha).min(255) as u8;
        }
    }
}

/// CIE L*a*b* (D50) to sRGB.
fn lab_to_srgb([l, a, b]: [u8; 3]) -> [u8; 3] {
    const WHITE: [f32; 3] = [0.964_22, 1.0, 0.825_21];
    // XYZ of D50 to linear sRGB, Bradford-adapted.
    const TO_RGB: [[f32; 3]; 3] =
        [[3.133_856, -1.616_867, -0.490_615], [-0.978_768, 1.916_142, 0.033_454], [0.071_945, -0.228_991, 1.405_243]];
    let y = (f32::from(l) / 255.0 * 100.0 + 16.0) / 116.0;
    let roots = [y + (f32::from(a) - 128.0) / 500.0, y, y - (f32::from(b) - 128.0) / 200.0];
    let mut xyz = [0.0; 3];
    for ((to, root), white) in xyz.iter_mut().zip(roots).zip(WHITE) {
        let cube = root * root * root;
        *to = white * if cube > 0.008_856 { cube } else { (root - 16.0 / 116.0) / 7.787 };
    }
    TO_RGB.map(|row| {
        let linear: f32 = row.iter().zip(xyz).map(|(weight, value)| weight * value).sum();
        let curved = if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
        (curved * 255.0).round().clamp(0.0, 255.0) as u8
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::Rng;
    use proptest::test_runner::RngAlgorithm;
    use proptest::test_runner::TestRng;

    use super::super::Facts;
    use super::super::OutputFormat;
    use super::super::Recipe;
    use super::super::SourceFormat;
    use super::super::probe;
    use super::super::render;
    use super::*;

    struct File<'a> {
        version: u16,
        mode: u16,
        depth: u16,
        /// Planes of 4 x 2 samples, as stored.
        planes: &'a [&'a [u8]],
        palette: &'a [u8],
        resources: &'a [(u16, &'a [u8])],
        see_through: bool,
        packed: bool,
    }

    const PLAIN: File<'_> = File {
        version: 1,
        mode: 3,
        depth: 8,
        planes: &[&[200; 8], &[100; 8], &[50; 8]],
        palette: &[],
        resources: &[],
        see_through: false,
        packed: true,
    };

    impl File<'_> {
        fn write(&self) -> Vec<u8> {
            let long = |n: usize| (n as u32).to_be_bytes();
            let wide = |n: usize| if self.version == 2 { (n as u64).to_be_bytes().to_vec() } else { long(n).to_vec() };
            let mut file = b"8BPS".to_vec();
            file.extend(self.version.to_be_bytes());
            file.extend([0; 6]);
            file.extend((self.planes.len() as u16).to_be_bytes());
            file.extend([long(2), long(4)].concat());
            file.extend([self.depth.to_be_bytes(), self.mode.to_be_bytes()].concat());
            file.extend(long(self.palette.len()));
            file.extend(self.palette);
            let mut resources = Vec::new();
            for (id, data) in self.resources {
                resources.extend(b"8BIM");
                resources.extend(id.to_be_bytes());
                resources.extend(b"\x03abc");
                resources.extend(long(data.len()));
                resources.extend(*data);
                resources.resize(resources.len().next_multiple_of(2), 0);
            }
            file.extend(long(resources.len()));
            file.extend(resources);
            let layers = if self.see_through { [&wide(2)[..], &[0xFF, 0xFF]].concat() } else { Vec::new() };
            file.extend(wide(layers.len()));
            file.extend(layers);
            file.extend(u16::from(self.packed).to_be_bytes());
            let row = (4 * usize::from(self.depth)).div_ceil(8);
            if self.packed {
                // One row as a run where it is one, the other as it is.
                let pack = |row: &[u8]| match row {
                    [first, rest @ ..] if rest.iter().all(|b| b == first) => vec![(257 - row.len()) as u8, *first],
                    _ => [&[128, row.len() as u8 - 1], row].concat(),
                };
                let rows: Vec<Vec<u8>> = self.planes.iter().flat_map(|plane| plane.chunks(row)).map(pack).collect();
                for row in &rows {
                    file.extend(if self.version == 2 { long(row.len()).to_vec() } else { vec![0, row.len() as u8] });
                }
                file.extend(rows.concat());
            } else {
                file.extend(self.planes.concat());
            }
            file
        }
    }

    fn seen(source: &[u8]) -> (Facts, image::RgbaImage) {
        let facts = probe(source, &Limits::default()).unwrap();
        let recipe = Recipe::default().with_format(OutputFormat::Png);
        let made = render(source, &recipe, &Limits::default(), &|| false).unwrap();
        (facts, image::load_from_memory(&made.bytes).unwrap().into_rgba8())
    }

    fn all() -> Vec<(&'static str, Vec<u8>, [u8; 4])> {
        let slope: &[u8] = &[0, 0, 1, 1, 2, 2, 3, 200];
        let palette: Vec<u8> = [[10; 256], [20; 256], [30; 256]].concat();
        let wide: Vec<u8> = [0x80, 0x12].repeat(8);
        // White under half cover, as Photoshop flattens black.
        let under: &[&[u8]] = &[&[127; 8], &[127; 8], &[127; 8], &[128; 8]];
        let selection: &[&[u8]] = &[&[200; 8], &[100; 8], &[50; 8], &[0; 8]];
        vec![
            ("rgb", PLAIN.write(), [200, 100, 50, 255]),
            ("unpacked", File { packed: false, ..PLAIN }.write(), [200, 100, 50, 255]),
            ("large", File { version: 2, ..PLAIN }.write(), [200, 100, 50, 255]),
            ("selection", File { planes: selection, ..PLAIN }.write(), [200, 100, 50, 255]),
            ("see-through", File { planes: under, see_through: true, version: 2, ..PLAIN }.write(), [0, 0, 0, 128]),
            ("gray", File { mode: 1, planes: &[slope], ..PLAIN }.write(), [200, 200, 200, 255]),
            ("16 bits", File { depth: 16, planes: &[&wide, &wide, &wide], ..PLAIN }.write(), [128, 128, 128, 255]),
            ("bitmap", File { mode: 0, depth: 1, planes: &[&[0xE0, 0xE0]], ..PLAIN }.write(), [255; 4]),
            ("indexed", File { mode: 2, planes: &[slope], palette: &palette, ..PLAIN }.write(), [10, 20, 30, 255]),
            (
                "cmyk",
                File { mode: 4, planes: &[&[0; 8], &[255; 8], &[255; 8], &[255; 8]], ..PLAIN }.write(),
                [0, 255, 255, 255],
            ),
            ("lab", File { mode: 9, planes: &[&[138; 8], &[209; 8], &[198; 8]], ..PLAIN }.write(), [255, 0, 0, 255]),
        ]
    }

    #[test]
    fn every_mode_is_seen_as_it_is() {
        for (name, source, color) in all() {
            let (facts, picture) = seen(&source);
            assert_eq!((facts.format, facts.warning), (SourceFormat::Psd, None), "{name}");
            assert_eq!(((facts.width, facts.height), picture.dimensions()), ((4, 2), (4, 2)), "{name}");
            assert_eq!(facts.has_alpha, name == "see-through");
            let last = picture.get_pixel(3, 1).0;
            assert!(last.iter().zip(color).all(|(a, b)| a.abs_diff(b) <= 3), "{name}: {last:?}");
        }
    }

    #[test]
    fn resources_speak() {
        let p3 = moxcms::ColorProfile::new_display_p3().encode().unwrap();
        let iptc = b"\x1c\x02\x05\x00\x07Opening";
        let green: &[&[u8]] = &[&[60; 8], &[200; 8], &[60; 8]];
        let file =
            File { planes: green, resources: &[(1028, iptc), (ICC, &p3), (VERSION_INFO, &[0, 0, 0, 1, 1])], ..PLAIN };
        let (facts, picture) = seen(&file.write());
        assert_eq!(facts.exif.get("Title").map(String::as_str), Some("Opening"));
        assert!(picture.get_pixel(0, 0)[0] < 40 && picture.get_pixel(0, 0)[1] > 200);

        let blank = File { resources: &[(VERSION_INFO, &[0, 0, 0, 1, 0])], ..PLAIN }.write();
        assert!(matches!(probe(&blank, &Limits::default()), Err(ImageError::Unsupported(_))));
    }

    #[test]
    fn limits_hold() {
        for (name, source, _) in all() {
            let short = Limits { max_side: 3, ..Limits::default() };
            assert!(matches!(probe(&source, &short), Err(ImageError::TooLarge { .. })), "{name}");
            let mut bomb = source.clone();
            bomb[14..22].fill(0x7F);
            assert!(probe(&bomb, &Limits::default()).is_err(), "{name}");
            let cut = probe(&source[..source.len() - 1], &Limits::default()).unwrap();
            assert!(cut.warning.is_some(), "{name}");
        }
    }

    #[test]
    fn broken_files_never_panic() {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let limits = Limits { max_pixels: 1_000_000, max_decoded_bytes: 16 << 20, ..Limits::default() };
        for (_, source, _) in all() {
            for cut in 0..source.len() {
                let _ = render(&source[..cut], &Recipe::default(), &limits, &|| false);
            }
            for _ in 0..2000 {
                let mut broken = source.clone();
                for _ in 0..=rng.next_u32() % 4 {
                    let at = rng.next_u32() as usize % broken.len();
                    broken[at] = if rng.next_u32().is_multiple_of(2) { 0 } else { rng.next_u32() as u8 };
                }
                let _ = render(&broken, &Recipe::default(), &limits, &|| false);
            }
        }
    }
}
