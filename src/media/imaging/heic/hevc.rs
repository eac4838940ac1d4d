//! Still pictures of HEVC, through the system's libde265.
//!
//! In: the decoder's configuration from the container, and the units of one picture. Out: its
//! planes. The C side is `hevc.c`.
//!
//! Invariant: the decoder sees parameter sets that were read here before and agree on one size
//! within limits, and slices of pictures that stand alone; everything else in the stream (side
//! information, layers, pictures made of other pictures) is left out. What comes out has the
//! size and depth that the parameter sets told.
//!
//! A stream that is broken in the middle still gives a picture, gray where nothing was read.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use super::bytes::Bytes;
use super::sps::Sps;
use crate::media::imaging::Limits;
use crate::media::imaging::error::ImageError;

/// A still needs one of each of the three kinds.
const MAX_PARAMETER_SETS: usize = 8;
/// Blocks are at most this wide, so a picture is coded at most this much larger than it is.
const LARGEST_BLOCK: u32 = 64;

const VIDEO_PARAMETERS: u8 = 32;
const SEQUENCE_PARAMETERS: u8 = 33;
const PICTURE_PARAMETERS: u8 = 34;

#[repr(C)]
#[derive(Clone, Copy)]
struct RawPicture {
    plane: [*const u8; 3],
    stride: [i32; 3],
    width: [i32; 3],
    height: [i32; 3],
    bits: [i32; 3],
    chroma: i32,
    full_range: i32,
    primaries: i32,
    transfer: i32,
    matrix: i32,
}

#[expect(unsafe_code, reason = "declares hevc.c")]
// SAFETY: these are the signatures that hevc.c defines.
unsafe extern "C" {
    fn hv_open(width: c_int, height: c_int, bits: c_int, draft: c_int, out: *mut *mut c_void) -> c_int;
    fn hv_push(handle: *mut c_void, unit: *const u8, len: c_int) -> c_int;
    fn hv_decode(handle: *mut c_void, out: *mut RawPicture) -> c_int;
    fn hv_close(handle: *mut c_void);
    fn hv_message(error: c_int) -> *const c_char;
}

/// A decoder's configuration, the `hvcC` of the container.
pub struct Config<'a> {
    len_size: u8,
    parameter_sets: Vec<&'a [u8]>,
    pub sps: Sps,
}

impl<'a> Config<'a> {
    /// Reads it for a picture that is said to have this size.
    pub fn read(body: Bytes<'a>, size: (u32, u32), limits: &Limits) -> Result<Self, ImageError> {
        let (len_size, parameter_sets) = parameter_sets(body)
            .ok_or_else(|| ImageError::Damaged("HEIC: the decoder configuration cannot be read".to_owned()))?;
        let sequences = parameter_sets.iter().filter(|unit| kind(unit) == Some(SEQUENCE_PARAMETERS));
        let mut read = sequences.map(|unit| Sps::read(unit));
        let sps = read.next().flatten().filter(|sps| read.all(|other| other == Some(*sps)));
        let sps = sps.ok_or_else(|| ImageError::Unsupported("HEIC of an unusual kind of HEVC".to_owned()))?;
        let (wide, high) = sps.coded;
        limits.check(wide, high)?;
        if sps.working_bytes() > limits.max_decoded_bytes {
            return Err(ImageError::TooLarge { width: wide, height: high });
        }
        let fits = |said: u32, shown: u32, coded: u32| said <= shown && coded < said.saturating_add(2 * LARGEST_BLOCK);
        if !fits(size.0, sps.shown.0, wide) || !fits(size.1, sps.shown.1, high) {
            return Err(ImageError::Damaged("HEIC: the sizes in the file contradict each other".to_owned()));
        }
        Ok(Self { len_size, parameter_sets, sps })
    }

    /// The units of an item's first picture, which stands alone.
    pub(super) fn slices<'b>(&self, data: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        const STANDS_ALONE: std::ops::RangeInclusive<u8> = 16..=21;
        let mut rest = Bytes(data);
        let len_size = self.len_size;
        let units = std::iter::from_fn(move || {
            let len = rest.number(len_size)?;
            // Of a unit that was cut off, what is there.
            rest.take(usize::try_from(len).ok()?.min(rest.0.len()))
        });
        let slices = units.filter(|unit| kind(unit).is_some_and(|kind| STANDS_ALONE.contains(&kind)));
        let mut seen = 0;
        slices.take_while(move |unit| {
            // The first slice of a picture says so in its first bit.
            seen += u32::from(unit.get(2).is_some_and(|byte| byte & 0x80 != 0));
            seen < 2
        })
    }
}

/// Where the numbers of a picture stand among colours, as code points of ITU-T H.273.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    pub primaries: u8,
    pub transfer: u8,
    pub matrix: u8,
    pub full_range: bool,
}

/// A decoded picture.
pub struct Picture {
    #[expect(dead_code, reason = "holds the planes that `raw` points to")]
    decoder: Decoder,
    raw: RawPicture,
    pub sps: Sps,
}

/// One component of a picture.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    bytes: &'a [u8],
    stride: usize,
    row_bytes: usize,
    pub width: usize,
    pub height: usize,
}

impl Picture {
    /// Decodes an item. `draft` leaves out the smoothing of block edges, which does not matter
    /// to the rest of the picture and is lost when it is shrunk.
    #[expect(unsafe_code, reason = "calls libde265")]
    pub fn decode(config: &Config<'_>, data: &[u8], draft: bool) -> Result<Self, ImageError> {
        let decoder = Decoder::open(&config.sps, draft)?;
        for unit in config.parameter_sets.iter().copied().chain(config.slices(data)) {
            decoder.push(unit)?;
        }
        let mut raw = RawPicture {
            plane: [ptr::null(); 3],
            stride: [0; 3],
            width: [0; 3],
            height: [0; 3],
            bits: [0; 3],
            chroma: 0,
            full_range: 0,
            primaries: 0,
            transfer: 0,
            matrix: 0,
        };
        // SAFETY: the decoder is open, and the structure is laid out as the C side's.
        check(unsafe { hv_decode(decoder.0, &raw mut raw) })?;
        let picture = Self { decoder, raw, sps: config.sps };
        if !picture.is_as_told() {
            return Err(ImageError::Damaged("HEIC: the stream contradicts its own header".to_owned()));
        }
        Ok(picture)
    }

    /// What the stream says of its colours.
    pub fn signal(&self) -> Signal {
        let code = |code: i32| u8::try_from(code).unwrap_or(2);
        Signal {
            primaries: code(self.raw.primaries),
            transfer: code(self.raw.transfer),
            matrix: code(self.raw.matrix),
            full_range: self.raw.full_range != 0,
        }
    }

    /// The light of the picture.
    pub fn luma(&self) -> Option<Plane<'_>> {
        self.plane(self.raw.plane[0], self.raw.stride[0], self.raw.width[0], self.raw.height[0])
    }

    /// Its colours, if it has any.
    pub fn chroma(&self) -> Option<(Plane<'_>, Plane<'_>)> {
        let [_, blue, red] = self.raw.plane;
        let ([_, width, _], [_, height, _]) = (self.raw.width, self.raw.height);
        let [_, blue_stride, red_stride] = self.raw.stride;
        Some((self.plane(blue, blue_stride, width, height)?, self.plane(red, red_stride, width, height)?))
    }

    #[expect(unsafe_code, reason = "reads libde265's picture")]
    fn plane(&self, start: *const u8, stride: i32, width: i32, height: i32) -> Option<Plane<'_>> {
        let (stride, width, height) =
            (usize::try_from(stride).ok()?, usize::try_from(width).ok()?, usize::try_from(height).ok()?);
        let row_bytes = width * if self.sps.bits > 8 { 2 } else { 1 };
        if start.is_null() || height == 0 || row_bytes == 0 || row_bytes > stride {
            return None;
        }
        // SAFETY: hevc.c allocated whole rows of `stride` bytes, of which the picture's window
        // begins at `start`; they live as long as the decoder, which `self` owns.
        let bytes = unsafe { std::slice::from_raw_parts(start, (height - 1) * stride + row_bytes) };
        Some(Plane { bytes, stride, row_bytes, width, height })
    }

    fn is_as_told(&self) -> bool {
        let (raw, sps) = (&self.raw, &self.sps);
        let wide = if matches!(sps.chroma, 1 | 2) { 2 } else { 1 };
        let high = if sps.chroma == 1 { 2 } else { 1 };
        let planes = if sps.chroma == 0 { 1 } else { 3 };
        let size = |plane: usize| match plane {
            0 => sps.shown,
            _ => (sps.shown.0.div_ceil(wide), sps.shown.1.div_ceil(high)),
        };
        let fields = raw.width.iter().zip(&raw.height).zip(&raw.bits).take(planes).enumerate();
        let fit = fields.map(|(plane, ((&width, &height), &bits))| {
            let is = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
            is == size(plane) && bits == i32::from(sps.bits)
        });
        raw.chroma == i32::from(sps.chroma) && fit.into_iter().all(|fits| fits)
    }
}

impl<'a> Plane<'a> {
    /// The bytes of a row; of two for each sample above 8 bits.
    pub fn row(&self, y: usize) -> &'a [u8] {
        let start = y.min(self.height - 1) * self.stride;
        self.bytes.get(start..start + self.row_bytes).unwrap_or(&[])
    }

    pub fn is_wide(&self) -> bool {
        self.row_bytes > self.width
    }
}

struct Decoder(*mut c_void);

impl Decoder {
    #[expect(unsafe_code, reason = "calls libde265")]
    fn open(sps: &Sps, draft: bool) -> Result<Self, ImageError> {
        let mut handle = ptr::null_mut();
        let (width, height) = (sps.coded.0 as c_int, sps.coded.1 as c_int);
        // SAFETY: plain numbers in, a handle out.
        check(unsafe { hv_open(width, height, c_int::from(sps.bits), c_int::from(draft), &raw mut handle) })?;
        Ok(Self(handle))
    }

    #[expect(unsafe_code, reason = "calls libde265")]
    fn push(&self, unit: &[u8]) -> Result<(), ImageError> {
        let len = c_int::try_from(unit.len()).map_err(ImageError::damaged)?;
        // SAFETY: the decoder is open and copies `len` bytes of the unit.
        check(unsafe { hv_push(self.0, unit.as_ptr(), len) })
    }
}

impl Drop for Decoder {
    #[expect(unsafe_code, reason = "calls libde265")]
    fn drop(&mut self) {
        // SAFETY: opened by `hv_open` and closed only here.
        unsafe { hv_close(self.0) }
    }
}

/// The size of length fields, and the parameter sets.
fn parameter_sets(mut body: Bytes<'_>) -> Option<(u8, Vec<&[u8]>)> {
    let fixed = body.take(22)?;
    let len_size = (fixed.last()? & 3) + 1;
    let mut sets = Vec::new();
    for _ in 0..body.u8()? {
        body.u8()?;
        for _ in 0..body.u16()? {
            let len = usize::from(body.u16()?);
            let unit = body.take(len)?;
            if matches!(kind(unit), Some(VIDEO_PARAMETERS | SEQUENCE_PARAMETERS | PICTURE_PARAMETERS)) {
                sets.push(unit);
            }
            if sets.len() > MAX_PARAMETER_SETS {
                return None;
            }
        }
    }
    Some((len_size, sets))
}

/// The kind of a unit of the base layer.
fn kind(unit: &[u8]) -> Option<u8> {
    let [first, second, _, ..] = *unit else { return None };
    let layer = (first & 1) << 5 | second >> 3;
    (first & 0x80 == 0 && layer == 0).then_some(first >> 1 & 0x3F)
}

#[expect(unsafe_code, reason = "calls libde265")]
fn check(error: c_int) -> Result<(), ImageError> {
    if error == 0 {
        return Ok(());
    }
    // SAFETY: libde265 answers any number with a static string.
    let text = unsafe { CStr::from_ptr(hv_message(error)) };
    Err(ImageError::Damaged(format!("HEIC: {}", text.to_string_lossy())))
}
