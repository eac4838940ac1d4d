//! JPEG in and out, through libjpeg-turbo.
//!
//! In: the bytes of a file and a plan of what will become of it, or planes or pixels. Out:
//! planes as the file has them where that is possible, else RGB pixels; or the bytes of a file
//! (4:2:0 or grey, one scan, no metadata).
//!
//! Decoding shrinks by 2, 4 or 8 inside the transform, which is where most of the speed on
//! large photographs comes from. Other fractions exist, but lose sharpness. A decoder that does
//! nothing but shrink (`reduced`) is asked first.
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
use super::decode::RESIDUAL;
use super::error::ImageError;
use super::markers::Markers;
use super::params::Plan;
use super::planes::Plane;
use super::planes::Planes;
use super::reduced;

/// A hostile file may hold thousands of scans, each of which costs a pass over the picture.
const MAX_SCANS: c_int = 100;

/// What the reduced decoder leaves: it drops what the result cannot show instead of averaging,
/// which costs no sharpness worth having in a photograph shrunk four or eight times. At half
/// the size it shows: a stored base image, sharp to the pixel, scored 76 instead of 82.
const RESIDUAL_REDUCED: f64 = 1.0;

/// Decodes, shrunk as far as the plan allows. CMYK comes out as RGB.
pub fn decode(
    source: &[u8],
    markers: &Markers<'_>,
    plan: &Plan,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Canvas, ImageError> {
    // Who looks at every pixel of the source is better served by libjpeg's own conversion.
    if plan.full_size {
        return decode_whole(source, markers, limits);
    }
    let denominator_reduced = match plan.denominator(RESIDUAL_REDUCED) {
        2 => plan.denominator(RESIDUAL),
        quarter_or_less => quarter_or_less,
    };
    if denominator_reduced > 1
        && let Some(planes) = reduced::decode(source, denominator_reduced, limits, cancelled)?
    {
        return Ok(Canvas::planar(planes));
    }
    through_libjpeg(source, markers, plan.denominator(RESIDUAL), true, limits)
}

/// Decodes every pixel, to RGB.
pub fn decode_whole(source: &[u8], markers: &Markers<'_>, limits: &Limits) -> Result<Canvas, ImageError> {
    through_libjpeg(source, markers, 1, false, limits)
}

#[expect(unsafe_code, reason = "calls libjpeg-turbo")]
fn through_libjpeg(
    source: &[u8],
    markers: &Markers<'_>,
    denominator: u32,
    in_planes: bool,
    limits: &Limits,
) -> Result<Canvas, ImageError> {
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
    if in_planes && let Some(planes) = turbo.planes(source, wide, high) {
        return Ok(Canvas::planar(planes?));
    }
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

/// Writes an opaque canvas as JPEG, quality 1 to 100; a single plane as grey.
#[expect(unsafe_code, reason = "calls libjpeg-turbo")]
pub fn encode(canvas: &Canvas, quality: u8, dpi: u16) -> Result<Vec<u8>, ImageError> {
    let turbo = Turbo::new(raw::TJINIT_TJINIT_COMPRESS)?;
    let planes = canvas.planes();
    let subsampling = match planes {
        Some(Planes { chroma: None, .. }) => raw::TJSAMP_TJSAMP_GRAY,
        _ => raw::TJSAMP_TJSAMP_420,
    };
    for (parameter, value) in [
        (raw::TJPARAM_TJPARAM_QUALITY, c_int::from(quality)),
        (raw::TJPARAM_TJPARAM_SUBSAMP, subsampling as c_int),
        (raw::TJPARAM_TJPARAM_XDENSITY, c_int::from(dpi)),
        (raw::TJPARAM_TJPARAM_YDENSITY, c_int::from(dpi)),
        (raw::TJPARAM_TJPARAM_DENSITYUNITS, 1),
    ] {
        turbo.set(parameter, value)?;
    }
    let (width, height) = canvas.size();
    let (mut bytes, mut len) = (ptr::null_mut(), 0);
    let result = if let Some(Planes { luma, chroma }) = planes {
        // Colour samples cover two by two, so libjpeg reads brightness to the next even size.
        let (right, below) = if chroma.is_some() { (width % 2, height % 2) } else { (0, 0) };
        let padded = (right + below > 0).then(|| luma.padded(0, right as usize, 0, below as usize));
        let luma = padded.as_ref().unwrap_or(luma);
        let [cb, cr] = chroma.as_ref().map_or([ptr::null(); 2], |chroma| chroma.each_ref().map(|c| c.samples.as_ptr()));
        // SAFETY: libjpeg reads luma up to the next even size and chroma of half that, which
        // is what a canvas promises of its planes, rows unpadded (no strides); it allocates the
        // output and leaves its address in `bytes`.
        unsafe {
            raw::tj3CompressFromYUVPlanes8(
                turbo.0,
                [luma.samples.as_ptr(), cb, cr].as_ptr(),
                width as c_int,
                ptr::null(),
                height as c_int,
                &raw mut bytes,
                &raw mut len,
            )
        }
    } else {
        let layout = if canvas.has_alpha() { raw::TJPF_TJPF_RGBX } else { raw::TJPF_TJPF_RGB };
        // SAFETY: the canvas holds width * height pixels of the named layout, rows unpadded
        // (pitch 0); libjpeg allocates the output and leaves its address in `bytes`.
        unsafe {
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
        }
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

    /// Decodes the opened picture into planes of this (shrunk) size, if it has any.
    fn planes(&self, source: &[u8], width: u32, height: u32) -> Option<Result<Planes, ImageError>> {
        let subsampling = self.get(raw::TJPARAM_TJPARAM_SUBSAMP);
        let is_colour = match self.get(raw::TJPARAM_TJPARAM_COLORSPACE) as raw::TJCS {
            raw::TJCS_TJCS_YCbCr => true,
            raw::TJCS_TJCS_GRAY => false,
            _ => return None,
        };
        // The last two pitches, 4:1:1 and its like, no camera of today writes.
        let [pitch_x, pitch_y] = match subsampling as raw::TJSAMP {
            raw::TJSAMP_TJSAMP_GRAY if !is_colour => [1, 1],
            raw::TJSAMP_TJSAMP_444 if is_colour => [1, 1],
            raw::TJSAMP_TJSAMP_422 if is_colour => [2, 1],
            raw::TJSAMP_TJSAMP_440 if is_colour => [1, 2],
            raw::TJSAMP_TJSAMP_420 if is_colour => [2, 2],
            _ => return None,
        };
        if self.get(raw::TJPARAM_TJPARAM_LOSSLESS) != 0 {
            return None;
        }
        let plane = |width: u32, height: u32, value: u8| Plane {
            width,
            height,
            samples: vec![value; width as usize * height as usize],
        };
        let (wide, high) = (width.next_multiple_of(pitch_x), height.next_multiple_of(pitch_y));
        let mut luma = plane(wide, high, 0);
        let mut chroma = is_colour.then(|| [0; 2].map(|_| plane(wide / pitch_x, high / pitch_y, 128)));
        let [cb, cr] = chroma
            .as_mut()
            .map_or([ptr::null_mut(); 2], |chroma| chroma.each_mut().map(|plane| plane.samples.as_mut_ptr()));
        // SAFETY: libjpeg reads the header again from the same immutable bytes, so it arrives at the
        // same size and subsampling. Planes were made as it documents them: luma rounded up to whole
        // chroma samples, rows unpadded (no strides).
        let result = unsafe {
            raw::tj3DecompressToYUVPlanes8(
                self.0,
                source.as_ptr(),
                source.len() as raw::size_t,
                [luma.samples.as_mut_ptr(), cb, cr].as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        if result != 0 && (self.is_fatal() || luma.samples.iter().all(|&sample| sample == 0)) {
            return Some(Err(ImageError::Damaged(self.message())));
        }
        luma.cut(0, 0, width, height);
        Some(Ok(Planes { luma, chroma }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_what_the_pixels_are_made_of() {
        let (wide, high) = (101, 67);
        let pixels: Vec<u8> = (0..wide * high).flat_map(|i| [(i % wide * 2) as u8, (i / wide * 3) as u8, 99]).collect();
        for subsampling in
            [turbojpeg::Subsamp::Sub2x2, turbojpeg::Subsamp::Sub2x1, turbojpeg::Subsamp::None, turbojpeg::Subsamp::Gray]
        {
            let mut compressor = turbojpeg::Compressor::new().unwrap();
            compressor.set_quality(95).unwrap();
            compressor.set_subsamp(subsampling).unwrap();
            let image = turbojpeg::Image {
                pixels: pixels.as_slice(),
                width: wide,
                pitch: wide * 3,
                height: high,
                format: turbojpeg::PixelFormat::RGB,
            };
            let source = compressor.compress_to_vec(image).unwrap();
            let markers = super::super::markers::read(&source, &Limits::default()).unwrap();
            for denominator in [1, 2, 4, 8] {
                let through = |in_planes| {
                    let made = through_libjpeg(&source, &markers, denominator, in_planes, &Limits::default());
                    let mut canvas = made.unwrap();
                    canvas.unpack().unwrap();
                    canvas
                };
                let (planes, pixels) = (through(true), through(false));
                assert_eq!(planes.size(), pixels.size());
                let total: u64 =
                    planes.pixels().iter().zip(pixels.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
                let mean = total as f64 / pixels.pixels().len() as f64;
                // libjpeg smoothes colour a little differently when it shrinks.
                assert!(mean < 1.0 + 0.3 * f64::from(denominator), "{subsampling:?} 1/{denominator}: {mean}");
            }
        }
    }
}
