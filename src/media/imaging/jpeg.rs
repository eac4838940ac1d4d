//! JPEG in and out, through libjpeg-turbo.
//!
//! In: the bytes of a file and how far it may be shrunk, or pixels. Out: RGB pixels, or the
//! bytes of a file (4:2:0, one scan, no metadata).
//!
//! Decoding shrinks by 2, 4 or 8 inside the transform, which is where most of the speed on
//! large photographs comes from. Other fractions exist, but lose sharpness.
//!
//! Invariant: what libjpeg merely warns about (a missing tail, a bad code) still gives a
//! picture; memory and the number of scans are bounded before decoding.
//!
//! The safe wrapper reports warnings as failures and hides the difference, hence the direct
//! calls here.

use std::ffi::CStr;
use std::ffi::c_int;
use std::ptr;

use turbojpeg::raw;

use super::Limits;
use super::canvas::Canvas;
use super::color;
use super::error::ImageError;
use super::markers::Markers;

/// A hostile file may hold thousands of scans, each of which costs a pass over the picture.
const MAX_SCANS: c_int = 100;

/// Decodes, shrunk by `denominator` (1, 2, 4 or 8). CMYK comes out as RGB.
#[expect(unsafe_code, reason = "calls libjpeg-turbo")]
pub fn decode(source: &[u8], markers: &Markers<'_>, denominator: u32, limits: &Limits) -> Result<Canvas, ImageError> {
    let turbo = Turbo::new(raw::TJINIT_TJINIT_DECOMPRESS)?;
    turbo.set(raw::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS)?;
    turbo.set(raw::TJPARAM_TJPARAM_MAXMEMORY, (limits.max_decoded_bytes >> 20) as c_int)?;
    turbo.set(raw::TJPARAM_TJPARAM_SAVEMARKERS, 0)?;
    // SAFETY: the handle is open and the source is a whole slice.
    let result = unsafe { raw::tj3DecompressHeader(turbo.0, source.as_ptr(), source.len() as raw::size_t) };
    if result != 0 && turbo.is_fatal() {
        return Err(ImageError::Damaged(turbo.message()));
    }
    let (width, height) = (turbo.get(raw::TJPARAM_TJPARAM_JPEGWIDTH), turbo.get(raw::TJPARAM_TJPARAM_JPEGHEIGHT));
    let (wide, high) = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
    limits.check(wide, high)?;
    if turbo.get(raw::TJPARAM_TJPARAM_PRECISION) != 8 {
        return Err(ImageError::Unsupported("JPEG with more than 8 bits".to_owned()));
    }
    let denominator = if turbo.get(raw::TJPARAM_TJPARAM_LOSSLESS) == 0 { denominator } else { 1 };
    // SAFETY: plain call on an open handle.
    if unsafe { raw::tj3SetScalingFactor(turbo.0, raw::tjscalingfactor { num: 1, denom: denominator as c_int }) } != 0 {
        return Err(ImageError::Damaged(turbo.message()));
    }
    let (wide, high) = (wide.div_ceil(denominator), high.div_ceil(denominator));
    let space = turbo.get(raw::TJPARAM_TJPARAM_COLORSPACE);
    let is_cmyk = space == raw::TJCS_TJCS_CMYK as c_int || space == raw::TJCS_TJCS_YCCK as c_int;
    let (channels, layout) = if is_cmyk { (4, raw::TJPF_TJPF_CMYK) } else { (3, raw::TJPF_TJPF_RGB) };
    let mut pixels = vec![0_u8; wide as usize * high as usize * channels];
    // SAFETY: libjpeg reads the header again from the same immutable bytes, so it arrives at the
    // same size, and the buffer was made for that size and pixel layout.
    let result = unsafe {
        raw::tj3Decompress8(
            turbo.0,
            source.as_ptr(),
            source.len() as raw::size_t,
            pixels.as_mut_ptr(),
            wide as c_int * channels as c_int,
            layout,
        )
    };
    // After a first warning libjpeg calls every failure a warning; untouched pixels give it away.
    if result != 0 && (turbo.is_fatal() || pixels.iter().all(|&sample| sample == 0)) {
        return Err(ImageError::Damaged(turbo.message()));
    }
    if is_cmyk {
        // Adobe stores ink inverted, and every CMYK writer of note follows Adobe.
        if markers.adobe {
            for ink in &mut pixels {
                *ink = 255 - *ink;
            }
        }
        pixels = color::cmyk_to_rgb(&pixels, markers.icc.as_deref());
    }
    Ok(Canvas::rgb(wide, high, pixels))
}

/// Writes an opaque canvas as JPEG, quality 1 to 100.
#[expect(unsafe_code, reason = "calls libjpeg-turbo")]
pub fn encode(canvas: &Canvas, quality: u8, dpi: u16) -> Result<Vec<u8>, ImageError> {
    let turbo = Turbo::new(raw::TJINIT_TJINIT_COMPRESS)?;
    for (parameter, value) in [
        (raw::TJPARAM_TJPARAM_QUALITY, c_int::from(quality)),
        (raw::TJPARAM_TJPARAM_SUBSAMP, raw::TJSAMP_TJSAMP_420 as c_int),
        (raw::TJPARAM_TJPARAM_XDENSITY, c_int::from(dpi)),
        (raw::TJPARAM_TJPARAM_YDENSITY, c_int::from(dpi)),
        (raw::TJPARAM_TJPARAM_DENSITYUNITS, 1),
    ] {
        turbo.set(parameter, value)?;
    }
    let (width, height) = canvas.size();
    let layout = if canvas.has_alpha() { raw::TJPF_TJPF_RGBX } else { raw::TJPF_TJPF_RGB };
    let (mut bytes, mut len) = (ptr::null_mut(), 0);
    // SAFETY: the canvas holds width * height pixels of the named layout, rows unpadded
    // (pitch 0); libjpeg allocates the output and leaves its address in `bytes`.
    let result = unsafe {
        raw::tj3Compress8(
            turbo.0,
            canvas.pixels().as_ptr(),
            width as c_int,
            0,
            height as c_int,
            layout,
            &raw mut bytes,
            &raw mut len,
        )
    };
    let encoded = if result == 0 && !bytes.is_null() {
        // SAFETY: on success there are `len` bytes at `bytes`.
        Ok(unsafe { std::slice::from_raw_parts(bytes, len as usize) }.to_vec())
    } else {
        Err(ImageError::NotRendered(turbo.message()))
    };
    // SAFETY: allocated by libjpeg (or null), freed exactly once.
    unsafe { raw::tj3Free(bytes.cast()) };
    encoded
}

/// An open libjpeg-turbo handle.
struct Turbo(raw::tjhandle);

#[expect(unsafe_code, reason = "calls libjpeg-turbo with the handle it owns")]
impl Turbo {
    fn new(kind: raw::TJINIT) -> Result<Self, ImageError> {
        // SAFETY: no preconditions; null means out of memory.
        let handle = unsafe { raw::tj3Init(kind as c_int) };
        if handle.is_null() { Err(ImageError::NotRendered("JPEG: out of memory".to_owned())) } else { Ok(Self(handle)) }
    }

    fn set(&self, parameter: raw::TJPARAM, value: c_int) -> Result<(), ImageError> {
        // SAFETY: the handle is open.
        match unsafe { raw::tj3Set(self.0, parameter as c_int, value) } {
            0 => Ok(()),
            _ => Err(ImageError::NotRendered(self.message())),
        }
    }

    fn get(&self, parameter: raw::TJPARAM) -> c_int {
        // SAFETY: the handle is open.
        unsafe { raw::tj3Get(self.0, parameter as c_int) }
    }

    /// Whether the last failure was more than a warning.
    fn is_fatal(&self) -> bool {
        // SAFETY: the handle is open.
        let code = unsafe { raw::tj3GetErrorCode(self.0) };
        code != raw::TJERR_TJERR_WARNING as c_int
    }

    fn message(&self) -> String {
        // SAFETY: libjpeg answers with a string that lives as long as the handle.
        let text = unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.0)) };
        format!("JPEG: {}", text.to_string_lossy())
    }
}

impl Drop for Turbo {
    #[expect(unsafe_code, reason = "closes the handle it owns")]
    fn drop(&mut self) {
        // SAFETY: opened in `new`, closed only here.
        unsafe { raw::tj3Destroy(self.0) }
    }
}
