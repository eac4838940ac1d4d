//! AVIF in and out, through the system's libavif.
//!
//! In: the bytes of a file, or pixels or planes. Out: pixels, or the bytes of a file. The C side is
//! `avif.c`, a handful of functions that hide libavif's version-dependent structures.
//!
//! Invariant: limits reach libavif before it reads a byte; a buffer is only filled when the
//! stream agrees with the size that its container declared.
//!
//! AV1 is dear to encode: 24 megapixels to 800 x 533 take 265 ms of processor time where a JPEG
//! takes 57, decoding and resizing included. sharp takes 1405 ms.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;

use super::Limits;
use super::canvas::Canvas;
use super::error::ImageError;
use super::kept::Kept;
use super::planes::Planes;

/// What AV1's quality scale needs to look like a JPEG of the same number: pairs of JPEG and AVIF
/// quality, straight lines between. Taken one to one, 90 would cost more bytes than the JPEG.
const LIKE_JPEG: &[(u8, u8)] = &[(1, 10), (50, 48), (60, 51), (70, 56), (80, 64), (90, 76), (100, 100)];

/// libaom's effort, 0 to 10. Beside sharp's default (effort 4, 4:4:4) at an equal SSIMULACRA2 score,
/// 6 takes 0.15 to 0.22 of the time for about the same bytes (-14 to +7 % on clean photographs, up to
/// +18 % on noisy ones). 8 takes half of that time or less, but 5 to 75 % more bytes; 7 costs the
/// bytes of 8. No option of libaom 3.6 (quantiser matrices, deltaq, sharpness, block size) gained
/// anything worth having.
const SPEED: c_int = 6;

#[repr(C)]
struct RawInfo {
    width: u32,
    height: u32,
    frames: u32,
    has_alpha: u8,
    quarter_turns: u8,
    mirror: u8,
    primaries: u8,
    transfer: u8,
    icc: *const u8,
    icc_len: usize,
    exif: *const u8,
    exif_len: usize,
    xmp: *const u8,
    xmp_len: usize,
}

#[expect(unsafe_code, reason = "declares avif.c")]
// SAFETY: these are the signatures that avif.c defines.
unsafe extern "C" {
    fn av_open(
        data: *const u8,
        len: usize,
        max_pixels: u32,
        max_side: u32,
        out: *mut *mut c_void,
        info: *mut RawInfo,
    ) -> c_int;
    fn av_pixels(handle: *mut c_void, rgba: *mut u8, width: u32, height: u32) -> c_int;
    fn av_close(handle: *mut c_void);
    fn av_encode(
        pixels: *const u8,
        planes: *const *const u8,
        width: u32,
        height: u32,
        channels: u32,
        quality: c_int,
        speed: c_int,
        exif: *const u8,
        exif_len: usize,
        xmp: *const u8,
        xmp_len: usize,
        out: *mut *mut u8,
        out_len: *mut usize,
    ) -> c_int;
    fn av_free(bytes: *mut u8);
    fn av_message(result: c_int) -> *const c_char;
}

/// What the container says.
pub struct Header {
    pub width: u32,
    pub height: u32,
    pub frames: u32,
    pub has_alpha: bool,
    pub quarter_turns: u8,
    pub mirror: Option<u8>,
    pub primaries: u8,
    pub transfer: u8,
    pub icc: Option<Vec<u8>>,
    pub exif: Option<Vec<u8>>,
    pub xmp: Option<Vec<u8>>,
}

/// An opened file whose container has been read.
pub struct Decoder<'a> {
    handle: *mut c_void,
    pub header: Header,
    /// libavif keeps reading from the source.
    source: PhantomData<&'a [u8]>,
}

impl<'a> Decoder<'a> {
    /// Reads the container.
    #[expect(unsafe_code, reason = "calls libavif")]
    pub fn open(source: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let max_pixels = u32::try_from(limits.max_pixels).unwrap_or(u32::MAX);
        let mut handle = ptr::null_mut();
        let mut raw = RawInfo {
            width: 0,
            height: 0,
            frames: 0,
            has_alpha: 0,
            quarter_turns: 0,
            mirror: 255,
            primaries: 0,
            transfer: 0,
            icc: ptr::null(),
            icc_len: 0,
            exif: ptr::null(),
            exif_len: 0,
            xmp: ptr::null(),
            xmp_len: 0,
        };
        // SAFETY: the source outlives the decoder by its lifetime; both out pointers are ours.
        let result = unsafe {
            av_open(source.as_ptr(), source.len(), max_pixels, limits.max_side, &raw mut handle, &raw mut raw)
        };
        if result != 0 || handle.is_null() {
            return Err(ImageError::Damaged(message(result)));
        }
        let copy = |data: *const u8, len: usize, most: usize| {
            if data.is_null() || len == 0 || len > most {
                return None;
            }
            // SAFETY: libavif owns `len` bytes at `data` until `av_close`.
            Some(unsafe { std::slice::from_raw_parts(data, len) }.to_vec())
        };
        let header = Header {
            width: raw.width,
            height: raw.height,
            frames: raw.frames,
            has_alpha: raw.has_alpha != 0,
            quarter_turns: raw.quarter_turns,
            mirror: (raw.mirror != 255).then_some(raw.mirror),
            primaries: raw.primaries,
            transfer: raw.transfer,
            icc: copy(raw.icc, raw.icc_len, limits.max_icc_bytes),
            exif: copy(raw.exif, raw.exif_len, limits.max_exif_bytes),
            xmp: copy(raw.xmp, raw.xmp_len, limits.max_text_bytes),
        };
        Ok(Self { handle, header, source: PhantomData })
    }

    /// Decodes the first picture.
    #[expect(unsafe_code, reason = "calls libavif")]
    pub fn pixels(self) -> Result<Canvas, ImageError> {
        let (width, height) = (self.header.width, self.header.height);
        let mut rgba = vec![0; width as usize * height as usize * 4];
        // SAFETY: the handle is open, and the buffer holds width * height RGBA pixels.
        let result = unsafe { av_pixels(self.handle, rgba.as_mut_ptr(), width, height) };
        if result != 0 {
            return Err(ImageError::Damaged(message(result)));
        }
        if self.header.has_alpha {
            return Ok(Canvas::rgba(width, height, rgba));
        }
        let rgb = rgba.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
        Ok(Canvas::rgb(width, height, rgb))
    }
}

impl Drop for Decoder<'_> {
    #[expect(unsafe_code, reason = "calls libavif")]
    fn drop(&mut self) {
        // SAFETY: opened by `av_open` and closed only here.
        unsafe { av_close(self.handle) }
    }
}

/// Writes the canvas as AVIF, quality 1 to 100, with what is kept of its metadata.
#[expect(unsafe_code, reason = "calls libavif")]
pub fn encode(canvas: &Canvas, quality: u8, kept: &Kept) -> Result<Vec<u8>, ImageError> {
    let (width, height) = canvas.size();
    let (mut bytes, mut len) = (ptr::null_mut(), 0);
    let (exif, xmp) = (kept.exif.as_deref().unwrap_or_default(), kept.xmp.as_deref().unwrap_or_default());
    let (pixels, planes, channels) = match canvas.planes() {
        Some(Planes { luma, chroma }) => {
            let [cb, cr] =
                chroma.as_ref().map_or([ptr::null(); 2], |chroma| chroma.each_ref().map(|c| c.samples.as_ptr()));
            (ptr::null(), [luma.samples.as_ptr(), cb, cr], if chroma.is_some() { 3 } else { 1 })
        }
        None => (canvas.pixels().as_ptr(), [ptr::null(); 3], if canvas.has_alpha() { 4 } else { 3 }),
    };
    // SAFETY: either the canvas holds width * height * channels bytes of pixels, or planes of
    // 4:2:0 or, with one channel, of luma alone; the
    // blocks are whole slices; both out pointers are ours.
    let result = unsafe {
        av_encode(
            pixels,
            planes.as_ptr(),
            width,
            height,
            channels,
            scale(quality),
            SPEED,
            exif.as_ptr(),
            exif.len(),
            xmp.as_ptr(),
            xmp.len(),
            &raw mut bytes,
            &raw mut len,
        )
    };
    if result != 0 || bytes.is_null() {
        return Err(ImageError::NotRendered(message(result)));
    }
    // SAFETY: on success `av_encode` left `len` bytes at `bytes`, which we free exactly once.
    let encoded = unsafe { std::slice::from_raw_parts(bytes, len) }.to_vec();
    // SAFETY: see above; nothing refers to the bytes any more.
    unsafe { av_free(bytes) };
    Ok(encoded)
}

fn scale(quality: u8) -> c_int {
    let upper = LIKE_JPEG.iter().find(|(jpeg, _)| *jpeg >= quality).unwrap_or(&(100, 100));
    let lower = LIKE_JPEG.iter().rev().find(|(jpeg, _)| *jpeg < quality).unwrap_or(upper);
    let (from, to) = (c_int::from(lower.1), c_int::from(upper.1));
    let part = c_int::from(quality.saturating_sub(lower.0));
    from + (to - from) * part / c_int::from(upper.0 - lower.0).max(1)
}

#[expect(unsafe_code, reason = "calls libavif")]
fn message(result: c_int) -> String {
    // SAFETY: libavif answers any number with a static string.
    let text = unsafe { CStr::from_ptr(av_message(result)) };
    format!("AVIF: {}", text.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_means_the_same_as_in_a_jpeg() {
        for (jpeg, avif) in [(0, 10), (1, 10), (50, 48), (75, 60), (90, 76), (95, 88), (100, 100)] {
            assert_eq!(scale(jpeg), avif, "{jpeg}");
        }
        assert!((1..=100).map(scale).is_sorted());
    }
}
