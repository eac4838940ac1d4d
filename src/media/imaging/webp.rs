//! WebP in and out, through libwebp.
//!
//! In: the bytes of a file, or pixels or planes. Out: pixels, or the bytes of a lossy file with alpha
//! where the canvas has it.
//!
//! Invariant: the size is known from the header before a buffer is made, and libwebp writes
//! into that buffer alone.
//!
//! An animation's first frame comes from the pure-Rust decoder: libwebp's plain decoder refuses
//! animations, and its animation decoder (`webp_anim`) refuses a file whose tail is missing.

use std::ffi::c_int;
use std::io::Cursor;
use std::ptr;

use libwebp_sys as sys;

use super::Limits;
use super::canvas::Canvas;
use super::error::ImageError;
use super::other;
use super::planes::Planes;

/// libwebp's effort, 0 to 6. End to end 2 takes 0.67 of the time of sharp, which has the usual 4,
/// on 24 megapixels and 0.55 on small ones, for 3 to 6 % more bytes at the same quality. The score
/// is up to 2 points lower, too, on clean photographs; 3 would mend that, but takes 0.9.
const METHOD: c_int = 2;

/// What the header says.
#[derive(Debug)]
pub struct Header {
    pub width: u32,
    pub height: u32,
    pub has_alpha: bool,
    pub animated: bool,
}

/// Reads the header alone.
#[expect(unsafe_code, reason = "calls libwebp")]
pub fn header(source: &[u8]) -> Result<Header, ImageError> {
    let mut features =
        sys::WebPBitstreamFeatures { width: 0, height: 0, has_alpha: 0, has_animation: 0, format: 0, pad: [0; 5] };
    // SAFETY: reads within the slice and writes to our own structure.
    let status = unsafe { sys::WebPGetFeatures(source.as_ptr(), source.len(), &raw mut features) };
    if status != sys::VP8StatusCode::VP8_STATUS_OK {
        return Err(ImageError::Damaged("WebP: the header cannot be read".to_owned()));
    }
    Ok(Header {
        width: u32::try_from(features.width).unwrap_or(0),
        height: u32::try_from(features.height).unwrap_or(0),
        has_alpha: features.has_alpha != 0,
        animated: features.has_animation != 0,
    })
}

/// Decodes the picture, or the first frame of an animation. A file whose tail is missing
/// gives as many rows as there are.
#[expect(unsafe_code, reason = "calls libwebp")]
pub fn decode(source: &[u8], header: &Header, limits: &Limits) -> Result<Canvas, ImageError> {
    if header.animated {
        let decoder = image::codecs::webp::WebPDecoder::new(Cursor::new(source)).map_err(ImageError::damaged)?;
        return other::read(decoder, limits);
    }
    let channels = if header.has_alpha { 4 } else { 3 };
    let stride = header.width as usize * channels;
    let mut pixels = vec![0_u8; stride * header.height as usize];
    let mode = if header.has_alpha { sys::WEBP_CSP_MODE::MODE_RGBA } else { sys::WEBP_CSP_MODE::MODE_RGB };
    // SAFETY: the decoder writes at most `pixels.len()` bytes, in rows of `stride`, and is
    // deleted before the buffer goes.
    let rows = unsafe {
        let decoder = sys::WebPINewRGB(mode, pixels.as_mut_ptr(), pixels.len(), stride as c_int);
        if decoder.is_null() {
            return Err(ImageError::NotRendered("WebP: out of memory".to_owned()));
        }
        let status = sys::WebPIUpdate(decoder, source.as_ptr(), source.len());
        let mut last_row = 0;
        sys::WebPIDecGetRGB(decoder, &raw mut last_row, ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        sys::WebPIDelete(decoder);
        match status {
            sys::VP8StatusCode::VP8_STATUS_OK => header.height as c_int,
            sys::VP8StatusCode::VP8_STATUS_SUSPENDED => last_row,
            _ => 0,
        }
    };
    if rows <= 0 {
        return Err(ImageError::Damaged("WebP: the pixels cannot be read".to_owned()));
    }
    let canvas = if header.has_alpha { Canvas::rgba } else { Canvas::rgb };
    Ok(canvas(header.width, header.height, pixels))
}

/// Writes the canvas as lossy WebP, quality 1 to 100.
#[expect(unsafe_code, reason = "calls libwebp")]
pub fn encode(canvas: &Canvas, quality: u8) -> Result<Vec<u8>, ImageError> {
    let config = config(quality)?;
    let mut writer = sys::WebPMemoryWriter { mem: ptr::null_mut(), size: 0, max_size: 0, pad: [0] };
    let mut planes = canvas.planes().map(limited);
    let mut picture = match &mut planes {
        Some(planes) => picture_of_planes(canvas.size(), planes)?,
        None => picture(canvas)?,
    };
    // SAFETY: the planes outlive the picture, which frees only what it allocated; the writer
    // outlives the call that uses it; picture and writer are freed exactly once, whatever happened.
    unsafe {
        sys::WebPMemoryWriterInit(&raw mut writer);
        picture.writer = Some(sys::WebPMemoryWrite);
        picture.custom_ptr = (&raw mut writer).cast();
        let written = sys::WebPEncode(&raw const config, &raw mut picture) != 0;
        let encoded =
            (written && !writer.mem.is_null()).then(|| std::slice::from_raw_parts(writer.mem, writer.size).to_vec());
        sys::WebPPictureFree(&raw mut picture);
        sys::WebPMemoryWriterClear(&raw mut writer);
        encoded.ok_or_else(failed)
    }
}

/// Y, U and V as WebP wants them: 4:2:0 of limited range (BT.601).
fn limited(planes: &Planes) -> [Vec<u8>; 3] {
    let squeeze = |samples: &[u8], range: i32, from: i32, to: i32| -> Vec<u8> {
        // 257/65536 is 1/255, near enough for eight bits.
        let scaled = |n: u8| (i32::from(n) - from) * range * 257 + (to << 16) + (1 << 15);
        samples.iter().map(|&n| (scaled(n) >> 16) as u8).collect()
    };
    let luma = squeeze(&planes.luma.samples, 219, 0, 16);
    let grey = || vec![128; (planes.luma.width.div_ceil(2) * planes.luma.height.div_ceil(2)) as usize];
    match &planes.chroma {
        Some([cb, cr]) => [luma, squeeze(&cb.samples, 224, 128, 128), squeeze(&cr.samples, 224, 128, 128)],
        None => [luma, grey(), grey()],
    }
}

/// How to encode, at quality 1 to 100.
pub(super) fn config(quality: u8) -> Result<sys::WebPConfig, ImageError> {
    let mut config = sys::WebPConfig::new().map_err(|()| failed())?;
    config.quality = f32::from(quality);
    config.method = METHOD;
    Ok(config)
}

/// Planes for libwebp, which must not outlive them.
fn picture_of_planes(
    (width, height): (u32, u32),
    [y, u, v]: &mut [Vec<u8>; 3],
) -> Result<sys::WebPPicture, ImageError> {
    let mut picture = sys::WebPPicture::new().map_err(|()| failed())?;
    picture.width = width as c_int;
    picture.height = height as c_int;
    (picture.y, picture.u, picture.v) = (y.as_mut_ptr(), u.as_mut_ptr(), v.as_mut_ptr());
    picture.y_stride = width as c_int;
    picture.uv_stride = width.div_ceil(2) as c_int;
    Ok(picture)
}

/// A canvas of pixels for libwebp; whoever gets it frees it.
#[expect(unsafe_code, reason = "calls libwebp")]
pub(super) fn picture(canvas: &Canvas) -> Result<sys::WebPPicture, ImageError> {
    let mut picture = sys::WebPPicture::new().map_err(|()| failed())?;
    let (width, height) = canvas.size();
    picture.width = width as c_int;
    picture.height = height as c_int;
    let pixels = canvas.pixels().as_ptr();
    // SAFETY: the canvas holds height rows of the stride given; on failure nothing is left to free
    // but what `WebPPictureFree` frees.
    unsafe {
        let imported = if canvas.has_alpha() {
            sys::WebPPictureImportRGBA(&raw mut picture, pixels, width as c_int * 4)
        } else {
            sys::WebPPictureImportRGB(&raw mut picture, pixels, width as c_int * 3)
        };
        if imported == 0 {
            sys::WebPPictureFree(&raw mut picture);
            return Err(failed());
        }
    }
    Ok(picture)
}

fn failed() -> ImageError {
    ImageError::NotRendered("WebP: the picture cannot be written".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::planes::Plane;
    use super::*;

    #[test]
    fn the_range_is_limited_evenly() {
        let plane = |samples: &[u8]| Plane { width: samples.len() as u32, height: 1, samples: samples.to_vec() };
        let planes = Planes { luma: plane(&[0, 255, 128, 1]), chroma: Some([plane(&[0, 128]), plane(&[255, 127])]) };
        assert_eq!(limited(&planes), [vec![16, 235, 126, 17], vec![16, 128], vec![240, 127]]);
        assert_eq!(limited(&Planes { chroma: None, ..planes })[1..], [vec![128; 2], vec![128; 2]]);
    }
}
