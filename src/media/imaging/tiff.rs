//! TIFF: one name for a hundred ways to store a picture.
//!
//! In: the bytes of a file and a page. Out: what the page's directory says, and its pixels with
//! 8 bits per channel.
//!
//! Invariant: directories are read within the bytes, tables within caps; pixels are decoded
//! strip by strip or tile by tile, so beside the canvas only one of them is in memory. A file
//! whose tail is missing gives the strips it has.
//!
//! The `tiff` crate undoes compression, prediction and byte order, but knows few kinds of pixel.
//! So it is told that every page is gray with any number of channels ([`Disguised`]) and hands
//! out the numbers as stored; what they mean is settled here: palettes, ink, luma and chroma,
//! Lab, inverted gray, transparency multiplied in or not, integers and floating point.
#![expect(clippy::indexing_slicing, reason = "pixel arithmetic; every index is derived from a buffer's own size")]

use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;

use ::tiff::TiffError;
use ::tiff::decoder::ChunkType;
use ::tiff::decoder::Decoder;
use ::tiff::decoder::DecodingResult;

use super::Limits;
use super::canvas::Canvas;
use super::color;
use super::color::Profile;
use super::error::ImageError;
use super::jpeg;
use super::markers;
use super::orientation::Orientation;

/// Pages beyond are not counted.
const MOST_PAGES: u32 = 10_000;

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const ORIENTATION: u16 = 274;
const CHANNELS: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const PLANAR: u16 = 284;
const COLOR_MAP: u16 = 320;
const INKS: u16 = 332;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const WHOLE_JPEG: u16 = 513;
const CHROMA_SUBSAMPLING: u16 = 530;
const XMP: u16 = 700;
const PHOTOSHOP: u16 = 34_377;
const ICC: u16 = 34_675;

const OLD_JPEG: u64 = 6;
const NEW_JPEG: u64 = 7;

/// What a page's directory says.
pub struct Header<'a> {
    pub width: u32,
    pub height: u32,
    pub has_alpha: bool,
    pub orientation: Orientation,
    pub pages: u32,
    pub xmp: Option<&'a [u8]>,
    pub photoshop: Option<&'a [u8]>,
    directory: Directory<'a>,
    kind: Kind,
    /// How the channels after the colours are meant.
    alpha: Alpha,
}

/// What the numbers of a pixel mean.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gray {
        white_is_zero: bool,
    },
    Rgb,
    Palette,
    Ink,
    YCbCr,
    /// Whether a* and b* are signed; else 128 stands for 0.
    Lab {
        signed: bool,
    },
}

impl Kind {
    fn channels(self) -> usize {
        match self {
            Self::Gray { .. } | Self::Palette => 1,
            Self::Rgb | Self::YCbCr | Self::Lab { .. } => 3,
            Self::Ink => 4,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Alpha {
    None,
    Plain,
    /// Colours are stored multiplied by it.
    Multiplied,
}

/// Reads the directory of a page, counted from 0; the last one stands for those beyond.
pub fn header(source: &[u8], page: u32) -> Result<Header<'_>, ImageError> {
    let damaged = || ImageError::Damaged("TIFF: the header cannot be read".to_owned());
    let (pages, at) = find_page(source, page).ok_or_else(damaged)?;
    let directory = Directory::read(source, at).ok_or_else(damaged)?;
    let side = |tag| directory.number(tag).and_then(|n| u32::try_from(n).ok()).ok_or_else(damaged);
    let (width, height) = (side(WIDTH)?, side(HEIGHT)?);
    let kind = kind(&directory)?;
    let channels = directory.number(CHANNELS).unwrap_or(1) as usize;
    let alpha = match directory.number(EXTRA_SAMPLES) {
        _ if channels <= kind.channels() || kind == Kind::Ink => Alpha::None,
        Some(1) => Alpha::Multiplied,
        Some(2) => Alpha::Plain,
        // Common among hasty writers.
        None if kind == Kind::Rgb && channels == 4 => Alpha::Plain,
        _ => Alpha::None,
    };
    Ok(Header {
        width,
        height,
        has_alpha: alpha != Alpha::None,
        orientation: Orientation::from_exif(directory.number(ORIENTATION).unwrap_or(1) as u32),
        pages,
        xmp: directory.bytes(XMP),
        photoshop: directory.bytes(PHOTOSHOP),
        directory,
        kind,
        alpha,
    })
}

fn kind(directory: &Directory<'_>) -> Result<Kind, ImageError> {
    let unsupported = |what: &str| Err(ImageError::Unsupported(format!("TIFF with {what}")));
    Ok(match directory.number(PHOTOMETRIC) {
        Some(0) => Kind::Gray { white_is_zero: true },
        // Transparency masks are pictures in black and white.
        Some(1 | 4) => Kind::Gray { white_is_zero: false },
        // Fax machines forget to say it.
        None if matches!(directory.number(COMPRESSION), Some(2..=4)) => Kind::Gray { white_is_zero: true },
        Some(2) => Kind::Rgb,
        Some(3) => Kind::Palette,
        Some(5) if directory.number(INKS).unwrap_or(1) == 1 && directory.number(CHANNELS) >= Some(4) => Kind::Ink,
        Some(5) => return unsupported("inks other than CMYK"),
        Some(6) => Kind::YCbCr,
        Some(8) => Kind::Lab { signed: true },
        Some(9) => Kind::Lab { signed: false },
        Some(32_803 | 34_892) => return unsupported("raw sensor data"),
        Some(32_844 | 32_845) => return unsupported("LogLuv pixels"),
        _ => return unsupported("an unknown kind of pixel"),
    })
}

/// Decodes the page.
pub fn decode(source: &[u8], header: &Header<'_>, limits: &Limits) -> Result<(Canvas, Profile), ImageError> {
    let (width, height) = (header.width, header.height);
    let directory = &header.directory;
    limits.check(width, height)?;
    let icc = directory.bytes(ICC).filter(|icc| icc.len() <= limits.max_icc_bytes).map(<[u8]>::to_vec);
    refuse_what_is_unknown(directory)?;
    if directory.number(COMPRESSION) == Some(OLD_JPEG) {
        return Ok((old_jpeg(source, header, limits)?, Profile::from_icc(icc)));
    }

    let mut caps = ::tiff::decoder::Limits::default();
    caps.decoding_buffer_size = limits.max_decoded_bytes as usize;
    caps.intermediate_buffer_size = limits.max_decoded_bytes as usize;
    caps.ifd_value_size = 16 << 20;
    let mut decoder = Decoder::new(Disguised::new(source, header)).map_err(error)?.with_limits(caps);

    let reading = Reading::new(header, icc.is_none());
    let mut canvas = vec![0; width as usize * height as usize * reading.stored];
    let (chunk_width, chunk_height) = decoder.chunk_dimensions();
    // A tile much larger than the picture is a trap: a row of it is held in memory.
    if chunk_width == 0 || chunk_height == 0 || chunk_width > limits.max_side.saturating_mul(2) {
        return Err(ImageError::Damaged("TIFF: the tiles are too large".to_owned()));
    }
    let across = width.div_ceil(chunk_width);
    let chunks = match decoder.get_chunk_type() {
        ChunkType::Strip => decoder.strip_count(),
        ChunkType::Tile => decoder.tile_count(),
    };
    let planes = if reading.planar { reading.channels } else { 1 };
    let per_plane = across * height.div_ceil(chunk_height);
    if u64::from(chunks.map_err(error)?) < u64::from(per_plane) * planes as u64 {
        return Err(ImageError::Damaged("TIFF: strips are missing".to_owned()));
    }
    for chunk in 0..per_plane {
        let (left, top) = (chunk % across * chunk_width, chunk / across * chunk_height);
        let part = (chunk_width.min(width - left) as usize, chunk_height.min(height - top) as usize);
        let mut read = || {
            if !reading.planar {
                return reading.samples(&decoder.read_chunk(chunk)?, part, reading.channels);
            }
            let mut woven = vec![0; part.0 * part.1 * reading.channels];
            // Channels that mean nothing to us are not even read.
            for plane in 0..reading.wanted {
                let samples = decoder.read_chunk(chunk + plane as u32 * per_plane)?;
                let samples = reading.samples(&samples, part, 1)?;
                for (to, from) in woven.iter_mut().skip(plane).step_by(reading.channels).zip(samples) {
                    *to = from;
                }
            }
            Ok(woven)
        };
        let samples = match read() {
            Ok(samples) => samples,
            // The file ends here, or is broken from here on.
            Err(_) if chunk > 0 => break,
            Err(e) => return Err(error(e)),
        };
        let stride = width as usize * reading.stored;
        let rows = canvas[top as usize * stride..].chunks_exact_mut(stride);
        for (to, from) in rows.zip(samples.chunks_exact(part.0 * reading.channels)) {
            let to = &mut to[left as usize * reading.stored..][..part.0 * reading.stored];
            reading.convert(from, to);
        }
    }
    Ok(match (header.kind, reading.stored) {
        (Kind::Ink, _) => (Canvas::rgb(width, height, color::cmyk_to_rgb(&canvas, icc.as_deref())), Profile::Srgb),
        // Lab says itself what it means, and a palette's profile is about its colours.
        (Kind::Lab { .. }, _) => (Canvas::rgb(width, height, canvas), Profile::Srgb),
        (_, 4) => (Canvas::rgba(width, height, canvas), Profile::from_icc(icc)),
        _ => (Canvas::rgb(width, height, canvas), Profile::from_icc(icc)),
    })
}

/// The first kind of JPEG in TIFF was never clear; most files hold a whole JPEG, though.
fn old_jpeg(source: &[u8], header: &Header<'_>, limits: &Limits) -> Result<Canvas, ImageError> {
    let inside = header.directory.number(WHOLE_JPEG).and_then(|at| source.get(usize::try_from(at).ok()?..));
    let canvas = inside.filter(|jpeg| jpeg.starts_with(&[0xFF, 0xD8])).and_then(|jpeg| {
        let markers = markers::read(jpeg, limits)?;
        let same = (markers.width, markers.height) == (header.width, header.height);
        same.then(|| jpeg::decode_whole(jpeg, &markers, limits))
    });
    canvas.unwrap_or_else(|| Err(ImageError::Unsupported("TIFF with the first, abandoned kind of JPEG".to_owned())))
}

fn refuse_what_is_unknown(directory: &Directory<'_>) -> Result<(), ImageError> {
    let compression = directory.number(COMPRESSION).unwrap_or(1);
    let chroma = directory.numbers(CHROMA_SUBSAMPLING);
    let what = match compression {
        2 | 3 => "CCITT Group 3 compression",
        4 if directory.number(FILL_ORDER) == Some(2) => "mirrored fax data",
        34_661 => "JBIG compression",
        34_676 | 34_677 => "LogLuv compression",
        34_712 => "JPEG 2000 compression",
        34_925 => "LZMA compression",
        50_000 => "Zstandard compression",
        52_546 => "JPEG XL compression",
        // Subsampled chroma stands in blocks, unless JPEG has undone it.
        n if n != NEW_JPEG
            && directory.number(PHOTOMETRIC) == Some(6)
            && n != OLD_JPEG
            && chroma.as_deref() != Some(&[1, 1]) =>
        {
            "subsampled chroma outside of JPEG"
        }
        _ => return Ok(()),
    };
    Err(ImageError::Unsupported(format!("TIFF with {what}")))
}

/// How the numbers of this page become those of the canvas.
struct Reading {
    kind: Kind,
    alpha: Alpha,
    /// Per pixel, as stored.
    channels: usize,
    /// How many of them mean something.
    wanted: usize,
    /// Per pixel of the canvas; ink stays ink until the whole page is there.
    stored: usize,
    bits: u32,
    planar: bool,
    /// Whether bits of a byte stand in reverse.
    mirrored: bool,
    palette: Vec<[u8; 3]>,
    /// The shades of light, if numbers are proportional to it.
    linear: bool,
}

impl Reading {
    fn new(header: &Header<'_>, without_profile: bool) -> Self {
        let directory = &header.directory;
        let kind = header.kind;
        let channels = (directory.number(CHANNELS).unwrap_or(1) as usize).max(1);
        let bits = directory.number(BITS).unwrap_or(1) as u32;
        let colors = kind.channels().min(channels);
        let alpha = usize::from(header.alpha != Alpha::None);
        let floating = directory.number(SAMPLE_FORMAT) == Some(3);
        Self {
            kind,
            alpha: header.alpha,
            channels,
            wanted: colors + alpha,
            stored: if kind == Kind::Ink { 4 } else { 3 + alpha },
            bits,
            planar: directory.number(PLANAR) == Some(2) && channels > 1,
            mirrored: directory.number(FILL_ORDER) == Some(2) && bits < 8,
            palette: if kind == Kind::Palette { palette(directory, bits) } else { Vec::new() },
            // By the custom of those who write colours in floating point; a profile knows better.
            linear: floating && without_profile && kind == Kind::Rgb,
        }
    }

    /// The numbers as bytes: indices as they are, everything else as 256 shades.
    fn samples(&self, chunk: &DecodingResult, part: (usize, usize), channels: usize) -> Result<Vec<u8>, TiffError> {
        fn nearest(part: f64) -> u8 {
            (part * 255.0).round().clamp(0.0, 255.0) as u8
        }
        let shade = |light: f64| nearest(if self.linear { color::srgb_from_light(light) } else { light });
        let expected = part.0 * part.1 * channels;
        let mut bytes: Vec<u8> = match chunk {
            DecodingResult::U8(v) if self.bits == 8 => v.clone(),
            DecodingResult::U8(v) => self.unpack(v, part, channels),
            DecodingResult::U16(v) => v.iter().map(|&n| ((u32::from(n) * 255 + 32_767) / 65_535) as u8).collect(),
            DecodingResult::U32(v) => v.iter().map(|&n| nearest(f64::from(n) / f64::from(u32::MAX))).collect(),
            DecodingResult::U64(v) => v.iter().map(|&n| nearest(n as f64 / u64::MAX as f64)).collect(),
            DecodingResult::F16(v) => v.iter().map(|n| shade(f64::from(n.to_f32()))).collect(),
            DecodingResult::F32(v) => v.iter().map(|&n| shade(f64::from(n))).collect(),
            DecodingResult::F64(v) => v.iter().map(|&n| shade(n)).collect(),
            // Signed numbers have their darkest shade at the bottom.
            DecodingResult::I8(v) => v.iter().map(|&n| (i16::from(n) + 128) as u8).collect(),
            DecodingResult::I16(v) => {
                v.iter().map(|&n| (((i32::from(n) + 32_768) * 255 + 32_767) / 65_535) as u8).collect()
            }
            DecodingResult::I32(v) => {
                v.iter().map(|&n| nearest((f64::from(n) - f64::from(i32::MIN)) / f64::from(u32::MAX))).collect()
            }
            DecodingResult::I64(v) => v.iter().map(|&n| nearest(n as f64 / u64::MAX as f64 + 0.5)).collect(),
        };
        // The padding of a tile, or rows that the crate left out.
        if bytes.len() < expected {
            return Err(TiffError::LimitsExceeded);
        }
        bytes.truncate(expected);
        Ok(bytes)
    }

    /// Numbers of 1, 2 or 4 bits, rows beginning with a byte.
    fn unpack(&self, packed: &[u8], part: (usize, usize), channels: usize) -> Vec<u8> {
        let bits = self.bits.clamp(1, 4) as usize;
        let row_samples = part.0 * channels;
        let most = (1_u32 << bits) - 1;
        let mut bytes = Vec::with_capacity(row_samples * part.1);
        for row in packed.chunks_exact((row_samples * bits).div_ceil(8).max(1)) {
            for at in 0..row_samples {
                let byte = row[at * bits / 8];
                let byte = if self.mirrored { byte.reverse_bits() } else { byte };
                let number = u32::from(byte) >> (8 - bits - at * bits % 8) & most;
                bytes.push(if self.kind == Kind::Palette { number as u8 } else { (number * 255 / most) as u8 });
            }
        }
        bytes
    }

    /// A row of stored numbers to a row of the canvas.
    fn convert(&self, from: &[u8], to: &mut [u8]) {
        let alpha_at = self.wanted - 1;
        for (from, to) in from.chunks_exact(self.channels).zip(to.chunks_exact_mut(self.stored)) {
            match self.kind {
                Kind::Gray { white_is_zero } => to[..3].fill(if white_is_zero { !from[0] } else { from[0] }),
                Kind::Palette => {
                    to[..3].copy_from_slice(&self.palette[usize::from(from[0]).min(self.palette.len() - 1)]);
                }
                Kind::Ink => to.copy_from_slice(&from[..4]),
                _ if from.len() < 3 => to[..3].fill(from[0]),
                Kind::Rgb => to[..3].copy_from_slice(&from[..3]),
                Kind::YCbCr => to[..3].copy_from_slice(&color::rgb_from_ycc([from[0], from[1], from[2]])),
                Kind::Lab { signed } => {
                    let axis = |n: u8| f32::from(if signed { n as i8 } else { (i16::from(n) - 128) as i8 });
                    let lab = [f32::from(from[0]) * 100.0 / 255.0, axis(from[1]), axis(from[2])];
                    to[..3].copy_from_slice(&color::rgb_from_lab(lab));
                }
            }
            if self.alpha != Alpha::None && self.stored == 4 && self.kind != Kind::Ink {
                let alpha = from[alpha_at];
                to[3] = alpha;
                if self.alpha == Alpha::Multiplied && alpha > 0 {
                    for shade in &mut to[..3] {
                        *shade = ((u32::from(*shade) * 255 + u32::from(alpha) / 2) / u32::from(alpha)).min(255) as u8;
                    }
                }
            }
        }
    }
}

/// The colours of a palette: all reds, all greens, all blues.
fn palette(directory: &Directory<'_>, bits: u32) -> Vec<[u8; 3]> {
    let numbers = directory.numbers(COLOR_MAP).unwrap_or_default();
    let count = 1_usize << bits.min(8);
    // 16 bits, though some writers fill only the upper eight, and some only the lower.
    let wide = numbers.iter().any(|&n| n > 255);
    let shade = |n: Option<&u64>| {
        let n = n.copied().unwrap_or(0).min(65_535);
        (if wide { n >> 8 } else { n }) as u8
    };
    (0..count).map(|at| [0, 1, 2].map(|channel| shade(numbers.get(channel * (numbers.len() / 3) + at)))).collect()
}

fn error(error: TiffError) -> ImageError {
    match error {
        TiffError::UnsupportedError(what) => ImageError::Unsupported(format!("TIFF: {what}")),
        TiffError::LimitsExceeded => ImageError::Damaged("TIFF: a strip is not as large as it should be".to_owned()),
        other => ImageError::Damaged(format!("TIFF: {other}")),
    }
}

/// A page's directory. Numbers in it may have two, four or eight bytes, in either order.
struct Directory<'a> {
    source: &'a [u8],
    layout: Layout,
    at: usize,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    /// Where the value is, or the place of the value.
    at: usize,
}

#[derive(Clone, Copy)]
struct Layout {
    little: bool,
    /// `BigTIFF`: places have eight bytes.
    big: bool,
}

impl Layout {
    fn of(source: &[u8]) -> Option<Self> {
        let little = source.starts_with(b"II");
        let layout = Self { little, big: false };
        Some(Self { little, big: layout.number(source, 2, 2)? == 43 })
    }

    fn number(self, source: &[u8], at: usize, bytes: usize) -> Option<u64> {
        let bytes = source.get(at..at.checked_add(bytes)?)?;
        let join = |n: u64, byte: &u8| n << 8 | u64::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) })
    }

    fn place(self, source: &[u8], at: usize) -> Option<usize> {
        usize::try_from(self.number(source, at, if self.big { 8 } else { 4 })?).ok()
    }

    /// Where the first directory's place is written.
    fn start(self) -> usize {
        if self.big { 8 } else { 4 }
    }

    /// How many entries a directory has, and where the first one is.
    fn entries(self, source: &[u8], at: usize) -> Option<(usize, usize)> {
        let width = if self.big { 8 } else { 2 };
        let count = usize::try_from(self.number(source, at, width)?).ok()?;
        (count <= 4096).then_some((count, at + width))
    }

    fn entry_bytes(self) -> usize {
        if self.big { 20 } else { 12 }
    }
}

/// How many pages there are, and where this one's directory is.
fn find_page(source: &[u8], page: u32) -> Option<(u32, usize)> {
    let layout = Layout::of(source)?;
    let mut at = layout.place(source, layout.start())?;
    let mut found = None;
    for count in 0..MOST_PAGES {
        // A damaged chain ends where it is damaged.
        let Some((entries, first)) = layout.entries(source, at).filter(|(n, _)| *n > 0) else {
            return found.map(|at| (count, at));
        };
        if count <= page {
            found = Some(at);
        }
        let next = first.checked_add(entries * layout.entry_bytes())?;
        match layout.place(source, next) {
            Some(next) if next > 0 && Some(next) != found => at = next,
            _ => return found.map(|at| (count + 1, at)),
        }
    }
    found.map(|at| (MOST_PAGES, at))
}

impl<'a> Directory<'a> {
    fn read(source: &'a [u8], at: usize) -> Option<Self> {
        let layout = Layout::of(source)?;
        let (count, first) = layout.entries(source, at)?;
        let entries = (0..count).map_while(|n| {
            let at = first + n * layout.entry_bytes();
            Some(Entry {
                tag: layout.number(source, at, 2)? as u16,
                kind: layout.number(source, at + 2, 2)? as u16,
                count: layout.number(source, at + 4, if layout.big { 8 } else { 4 })?,
                at: at + if layout.big { 12 } else { 8 },
            })
        });
        Some(Self { source, layout, at, entries: entries.collect() })
    }

    fn find(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().copied().find(|entry| entry.tag == tag)
    }

    /// The first number of a tag.
    fn number(&self, tag: u16) -> Option<u64> {
        self.numbers(tag)?.first().copied()
    }

    fn numbers(&self, tag: u16) -> Option<Vec<u64>> {
        /// A palette of 16 bits is the longest list that is of any use here.
        const MOST: usize = 3 << 16;
        let (bytes, width) = self.value(self.find(tag)?)?;
        let count = (bytes.len() / width).min(MOST);
        (0..count).map(|n| self.layout.number(bytes, n * width, width)).collect()
    }

    fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        Some(self.value(self.find(tag)?)?.0)
    }

    /// A value's bytes, and the width of one number in it.
    fn value(&self, entry: Entry) -> Option<(&'a [u8], usize)> {
        let width = match entry.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            16..=18 => 8,
            _ => return None,
        };
        let length = usize::try_from(entry.count).ok()?.checked_mul(width)?;
        let inside = if self.layout.big { 8 } else { 4 };
        let at = if length <= inside { entry.at } else { self.layout.place(self.source, entry.at)? };
        Some((self.source.get(at..at.checked_add(length)?)?, width))
    }
}

/// The file as the `tiff` crate gets to see it: it begins with the wanted page, its pixels are
/// gray, and its strips are no higher than itself (many writers say "endless").
struct Disguised<'a> {
    source: &'a [u8],
    at: u64,
    patches: Vec<(usize, Vec<u8>)>,
}

impl<'a> Disguised<'a> {
    fn new(source: &'a [u8], header: &Header<'_>) -> Self {
        const BLACK_IS_ZERO: u64 = 1;
        let directory = &header.directory;
        let layout = directory.layout;
        let spell = |number: u64, bytes: usize| {
            let spelled = number.to_le_bytes()[..bytes].to_vec();
            if layout.little { spelled } else { spelled.into_iter().rev().collect() }
        };
        let mut patches = vec![(layout.start(), spell(directory.at as u64, if layout.big { 8 } else { 4 }))];
        let mut tell = |tag: u16, number: u64| {
            if let Some(entry) = directory.find(tag) {
                patches.push((entry.at, spell(number, if entry.kind == 3 { 2 } else { 4 })));
            }
        };
        tell(PHOTOMETRIC, BLACK_IS_ZERO);
        if directory.number(ROWS_PER_STRIP).is_some_and(|rows| rows > u64::from(header.height)) {
            tell(ROWS_PER_STRIP, u64::from(header.height));
        }
        Self { source, at: 0, patches }
    }
}

impl Read for Disguised<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.source.len());
        let count = buffer.len().min(self.source.len() - from);
        buffer[..count].copy_from_slice(&self.source[from..from + count]);
        for (at, bytes) in &self.patches {
            for (n, byte) in bytes.iter().enumerate() {
                if let Some(place) = (at + n).checked_sub(from).and_then(|place| buffer[..count].get_mut(place)) {
                    *place = *byte;
                }
            }
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Disguised<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => (self.source.len() as u64).checked_add_signed(by),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: u16 = 3;
    const LONG: u16 = 4;

    /// Tag, kind, values.
    type TagValue = (u16, u16, Vec<u32>);

    /// A little-endian file; each page is a list of tags and its strips or tiles.
    fn file(pages: &[(Vec<TagValue>, Vec<Vec<u8>>)]) -> Vec<u8> {
        let mut bytes = b"II*\0\0\0\0\0".to_vec();
        let mut link = 4;
        for (tags, chunks) in pages {
            let mut tags = tags.clone();
            let mut places = Vec::new();
            for chunk in chunks {
                places.push(bytes.len() as u32);
                bytes.extend(chunk);
            }
            let tiled = tags.iter().any(|(tag, ..)| *tag == 322);
            tags.push((if tiled { 324 } else { 273 }, LONG, places));
            tags.push((if tiled { 325 } else { 279 }, LONG, chunks.iter().map(|c| c.len() as u32).collect()));
            tags.sort();
            let mut entries = Vec::new();
            for (tag, kind, values) in &tags {
                let spelled: Vec<u8> = values
                    .iter()
                    .flat_map(|v| if *kind == SHORT { v.to_le_bytes()[..2].to_vec() } else { v.to_le_bytes().to_vec() })
                    .collect();
                entries.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
                entries.extend((values.len() as u32).to_le_bytes());
                if spelled.len() <= 4 {
                    entries.extend(spelled.iter().copied().chain([0; 4]).take(4));
                } else {
                    entries.extend((bytes.len() as u32).to_le_bytes());
                    bytes.extend(spelled);
                }
            }
            let at = bytes.len() as u32;
            bytes[link..link + 4].copy_from_slice(&at.to_le_bytes());
            bytes.extend((tags.len() as u16).to_le_bytes());
            bytes.extend(entries);
            link = bytes.len();
            bytes.extend([0; 4]);
        }
        bytes
    }

    /// Tags of a picture of 4 x 2 pixels in one strip.
    fn tags(photometric: u32, bits: u32, channels: u32, more: &[TagValue]) -> Vec<TagValue> {
        let mut tags = vec![
            (WIDTH, LONG, vec![4]),
            (HEIGHT, LONG, vec![2]),
            (BITS, SHORT, vec![bits; channels as usize]),
            (COMPRESSION, SHORT, vec![1]),
            (PHOTOMETRIC, SHORT, vec![photometric]),
            (CHANNELS, SHORT, vec![channels]),
            (ROWS_PER_STRIP, LONG, vec![0xFFFF_FFFF]),
        ];
        for tag in more {
            tags.retain(|(known, ..)| *known != tag.0);
            tags.push(tag.clone());
        }
        tags
    }

    fn read(source: &[u8], page: u32) -> Result<Canvas, ImageError> {
        let limits = Limits::default();
        Ok(decode(source, &header(source, page)?, &limits)?.0)
    }

    fn first(canvas: &Canvas) -> Vec<u8> {
        canvas.pixels()[..if canvas.has_alpha() { 4 } else { 3 }].to_vec()
    }

    #[test]
    fn every_kind_of_pixel_means_the_same_colour() {
        let le16 = |shades: &[u16]| shades.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>().repeat(8);
        let le32 = |shades: &[f32]| shades.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>().repeat(8);
        let palette: Vec<u32> = [0, 200, 40, 0, 0, 100, 80, 0, 0, 50, 120, 0].map(|n| n << 8).to_vec();
        let extra = |n| (EXTRA_SAMPLES, SHORT, vec![n]);
        let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
            ("white is zero", file(&[(tags(0, 8, 1, &[]), vec![vec![55; 8]])]), vec![200; 3]),
            ("one bit", file(&[(tags(0, 1, 1, &[]), vec![vec![0x70, 0xF0]])]), vec![255; 3]),
            (
                "one bit, mirrored",
                file(&[(tags(1, 1, 1, &[(FILL_ORDER, SHORT, vec![2])]), vec![vec![0x01, 0]])]),
                vec![255; 3],
            ),
            ("four bits", file(&[(tags(1, 4, 1, &[]), vec![vec![0xC0, 0, 0xC0, 0]])]), vec![204; 3]),
            ("gray and alpha", file(&[(tags(1, 8, 2, &[extra(2)]), vec![[90, 60].repeat(8)])]), vec![90, 90, 90, 60]),
            (
                "palette",
                file(&[(tags(3, 2, 1, &[(COLOR_MAP, SHORT, palette)]), vec![vec![0x55, 0x55]])]),
                vec![200, 100, 50],
            ),
            // 0x0180 is nearer to 1 than to 2, 0x01A0 to 2: rounding, not cutting off.
            ("16 bits", file(&[(tags(2, 16, 3, &[]), vec![le16(&[0x0180, 0x01A0, 0xFFFF])])]), vec![1, 2, 255]),
            (
                "floating, proportional to light",
                file(&[(
                    tags(2, 32, 3, &[(SAMPLE_FORMAT, SHORT, vec![3; 3])]),
                    vec![le32(&[1.5, 0.214_041_14, -1.0])],
                )]),
                vec![255, 128, 0],
            ),
            (
                "not multiplied",
                file(&[(tags(2, 8, 4, &[extra(2)]), vec![[200, 100, 50, 128].repeat(8)])]),
                vec![200, 100, 50, 128],
            ),
            (
                "multiplied",
                file(&[(tags(2, 8, 4, &[extra(1)]), vec![[100, 50, 25, 128].repeat(8)])]),
                vec![199, 100, 50, 128],
            ),
            (
                "a fourth channel of no meaning",
                file(&[(tags(2, 8, 4, &[extra(0)]), vec![[9, 8, 7, 0].repeat(8)])]),
                vec![9, 8, 7],
            ),
            ("ink", file(&[(tags(5, 8, 4, &[]), vec![[255, 0, 0, 0].repeat(8)])]), vec![0, 255, 255]),
            (
                "luma and chroma",
                file(&[(tags(6, 8, 3, &[(CHROMA_SUBSAMPLING, SHORT, vec![1, 1])]), vec![[76, 85, 255].repeat(8)])]),
                vec![254, 0, 0],
            ),
            ("lab", file(&[(tags(8, 8, 3, &[]), vec![[138, 81, 70].repeat(8)])]), vec![255, 0, 0]),
            ("icc lab", file(&[(tags(9, 8, 3, &[]), vec![[138, 209, 198].repeat(8)])]), vec![255, 0, 0]),
            (
                "planes",
                file(&[(tags(2, 8, 3, &[(PLANAR, SHORT, vec![2])]), vec![vec![10; 8], vec![20; 8], vec![30; 8]])]),
                vec![10, 20, 30],
            ),
        ];
        for (name, source, expected) in cases {
            let canvas = read(&source, 0).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(canvas.size(), (4, 2), "{name}");
            let seen = first(&canvas);
            let near = seen.len() == expected.len() && seen.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 2);
            assert!(near && (!name.contains("16") || seen == expected), "{name}: {seen:?}, not {expected:?}");
        }
    }

    #[test]
    fn tiles_and_planes_are_put_in_place() {
        // 20 x 18 pixels in tiles of 16: each pixel's red is its column, green its row.
        let tile = |left: u8, top: u8, of: fn(u8, u8) -> u8| -> Vec<u8> {
            (0..16).flat_map(|y| (0..16).map(move |x| of(left + x, top + y))).collect()
        };
        let corners = [(0, 0), (16, 0), (0, 16), (16, 16)];
        let kinds: [fn(u8, u8) -> u8; 3] = [|x, _| x, |_, y| y, |_, _| 7];
        let planes: Vec<Vec<u8>> =
            kinds.iter().flat_map(|of| corners.map(|(left, top)| tile(left, top, *of))).collect();
        let sizes = [(WIDTH, LONG, vec![20]), (HEIGHT, LONG, vec![18]), (322, LONG, vec![16]), (323, LONG, vec![16])];
        let mut layout = tags(2, 8, 3, &sizes);
        layout.retain(|(tag, ..)| *tag != ROWS_PER_STRIP);
        let woven: Vec<Vec<u8>> = (0..4)
            .map(|n| (0..256).flat_map(|at| [planes[n][at], planes[n + 4][at], planes[n + 8][at]]).collect())
            .collect();
        let mut planar = layout.clone();
        planar.push((PLANAR, SHORT, vec![2]));
        for (name, source) in [("woven", file(&[(layout, woven)])), ("planes", file(&[(planar, planes)]))] {
            let canvas = read(&source, 0).unwrap();
            for (at, pixel) in canvas.pixels().as_chunks::<3>().0.iter().enumerate() {
                assert_eq!(*pixel, [(at % 20) as u8, (at / 20) as u8, 7], "{name}");
            }
        }
    }

    #[test]
    fn pages_are_found() {
        let page = |shade: u8| (tags(1, 8, 1, &[]), vec![vec![shade; 8]]);
        let source = file(&[page(10), page(20), page(30)]);
        for (asked, shade) in [(0, 10), (1, 20), (2, 30), (9, 30)] {
            assert_eq!(header(&source, asked).unwrap().pages, 3);
            assert_eq!(first(&read(&source, asked).unwrap()), [shade; 3], "{asked}");
        }
        // A chain that bites its tail ends somewhere.
        let mut ring = source.clone();
        let last = ring.len() - 4;
        let start = ring[4..8].to_vec();
        ring[last..].copy_from_slice(&start);
        assert!(header(&ring, 1).is_ok());
    }

    #[test]
    fn what_other_programs_write() {
        let canvas = read(include_bytes!("../../../tests/media/g4.tif"), 0).unwrap();
        let at = |canvas: &Canvas, x: usize, y: usize| canvas.pixels().as_chunks::<3>().0[y * 40 + x];
        assert_eq!((canvas.size(), at(&canvas, 5, 5), at(&canvas, 30, 5)), ((40, 32), [255; 3], [0; 3]));
        assert_eq!((at(&canvas, 5, 20), at(&canvas, 30, 20)), ([255; 3], [255; 3]));
        let canvas = read(include_bytes!("../../../tests/media/jpeg-ycc.tif"), 0).unwrap();
        for ((x, y), color) in
            [((5, 5), [220, 20, 20]), ((30, 5), [20, 200, 20]), ((5, 25), [20, 20, 220]), ((30, 25), [250; 3])]
        {
            let seen = at(&canvas, x, y);
            assert!(seen.iter().zip(color).all(|(a, b)| a.abs_diff(b) < 12), "{seen:?} {color:?}");
        }
    }

    #[test]
    fn refusals_name_what_is_missing() {
        for (more, what) in [
            ((COMPRESSION, SHORT, vec![3]), "Group 3"),
            ((COMPRESSION, SHORT, vec![6]), "abandoned"),
            ((PHOTOMETRIC, SHORT, vec![32_803]), "sensor"),
        ] {
            let refused = read(&file(&[(tags(1, 8, 1, &[more]), vec![vec![0; 8]])]), 0).err();
            assert!(
                matches!(&refused, Some(ImageError::Unsupported(text)) if text.contains(what)),
                "{what}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_whole_jpeg_inside_is_read() {
        let jpeg = jpeg::encode(&Canvas::rgb(4, 2, [200, 60, 30].repeat(8)), 95, 72).unwrap();
        let more = [(COMPRESSION, SHORT, vec![6]), (WHOLE_JPEG, LONG, vec![8])];
        let canvas = read(&file(&[(tags(6, 8, 3, &more), vec![jpeg])]), 0).unwrap();
        assert!(first(&canvas).iter().zip([200, 60, 30]).all(|(a, b)| a.abs_diff(b) < 12), "{:?}", first(&canvas));
    }

    #[test]
    fn broken_files_are_survived() {
        let page = (tags(2, 8, 3, &[(ROWS_PER_STRIP, LONG, vec![1])]), vec![vec![9; 12], vec![8; 12]]);
        let whole = file(&[page]);
        for at in 0..whole.len() {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut broken = whole.clone();
                broken[at] = value;
                let small = Limits { max_pixels: 1 << 20, max_decoded_bytes: 16 << 20, ..Limits::default() };
                if let Ok(header) = header(&broken, 0) {
                    let _ = decode(&broken, &header, &small);
                }
            }
            let _ = read(&whole[..at], 0);
        }
    }
}
