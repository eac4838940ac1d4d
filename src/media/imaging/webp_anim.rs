//! Moving WebP in and out, through libwebp.
//!
//! In: the bytes of a file, or canvases with the time each is shown. Out: whole frames, or the
//! bytes of a file.
//!
//! Invariant: every canvas handed to a writer has the writer's size; frames are encoded as they
//! come, so no more than the previous one is held beside what is already compressed.
//!
//! libwebp's encoder stores of each frame only what differs from the one before, and joins
//! equal frames, so a file may have fewer frames than were put in, over the same time.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr;

use libwebp_sys as sys;

use super::animation::Frame;
use super::canvas::Canvas;
use super::error::ImageError;
use super::webp;

/// A file being read.
pub struct Reader<'a> {
    decoder: *mut sys::WebPAnimDecoder,
    frame_bytes: usize,
    /// When the frame before ended.
    until_ms: c_int,
    /// libwebp keeps reading from the source.
    source: PhantomData<&'a [u8]>,
}

impl<'a> Reader<'a> {
    /// Reads the container; `None` if it is torn or no animation.
    #[expect(unsafe_code, reason = "calls libwebp")]
    pub fn open(source: &'a [u8]) -> Option<Self> {
        let mut options =
            sys::WebPAnimDecoderOptions { color_mode: sys::WEBP_CSP_MODE::MODE_RGBA, use_threads: 0, padding: [0; 7] };
        let mut info = sys::WebPAnimInfo::default();
        let data = sys::WebPData { bytes: source.as_ptr(), size: source.len() };
        // SAFETY: the structures are ours; libwebp copies `data`, and the source outlives the
        // decoder by its lifetime.
        let (decoder, known) = unsafe {
            if sys::WebPAnimDecoderOptionsInit(&raw mut options) == 0 {
                return None;
            }
            options.use_threads = 0;
            options.color_mode = sys::WEBP_CSP_MODE::MODE_RGBA;
            let decoder = sys::WebPAnimDecoderNew(&raw const data, &raw const options);
            if decoder.is_null() {
                return None;
            }
            (decoder, sys::WebPAnimDecoderGetInfo(decoder, &raw mut info))
        };
        let frame_bytes = info.canvas_width as usize * info.canvas_height as usize * 4;
        let reader = Self { decoder, frame_bytes, until_ms: 0, source: PhantomData };
        (known != 0 && frame_bytes > 0).then_some(reader)
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Frame, ImageError>;

    #[expect(unsafe_code, reason = "calls libwebp")]
    fn next(&mut self) -> Option<Self::Item> {
        let (mut pixels, mut until_ms) = (ptr::null_mut(), 0);
        // SAFETY: the decoder is open; on success `pixels` is its own canvas of the size it
        // stated, valid until the next call.
        let pixels = unsafe {
            if sys::WebPAnimDecoderHasMoreFrames(self.decoder) == 0 {
                return None;
            }
            if sys::WebPAnimDecoderGetNext(self.decoder, &raw mut pixels, &raw mut until_ms) == 0 || pixels.is_null() {
                return Some(Err(ImageError::Damaged("WebP: a frame cannot be read".to_owned())));
            }
            std::slice::from_raw_parts(pixels, self.frame_bytes).to_vec()
        };
        let asked_ms = until_ms.saturating_sub(std::mem::replace(&mut self.until_ms, until_ms));
        Some(Ok(Frame { pixels, asked_ms: u32::try_from(asked_ms).unwrap_or(0) }))
    }
}

impl Drop for Reader<'_> {
    #[expect(unsafe_code, reason = "calls libwebp")]
    fn drop(&mut self) {
        // SAFETY: opened in `open` and deleted only here.
        unsafe { sys::WebPAnimDecoderDelete(self.decoder) }
    }
}

/// A file being written.
pub struct Writer {
    encoder: *mut sys::WebPAnimEncoder,
    size: (u32, u32),
    config: sys::WebPConfig,
    /// When the next frame begins.
    at_ms: c_int,
}

impl Writer {
    /// Of frames of this size, played so often (0 is for ever), lossy at quality 1 to 100.
    #[expect(unsafe_code, reason = "calls libwebp")]
    pub fn new((width, height): (u32, u32), plays: u32, quality: u8) -> Result<Self, ImageError> {
        let config = webp::config(quality)?;
        let mut options = sys::WebPAnimEncoderOptions {
            anim_params: sys::WebPMuxAnimParams { bgcolor: 0, loop_count: 0 },
            minimize_size: 0,
            kmin: 0,
            kmax: 0,
            allow_mixed: 0,
            verbose: 0,
            padding: [0; 4],
        };
        // SAFETY: the options are ours, and libwebp copies them.
        let encoder = unsafe {
            if sys::WebPAnimEncoderOptionsInitInternal(&raw mut options, sys::WEBP_MUX_ABI_VERSION as c_int) == 0 {
                return Err(failed());
            }
            options.anim_params.bgcolor = 0;
            // The file has 16 bits for it.
            options.anim_params.loop_count = plays.min(0xFFFF) as c_int;
            sys::WebPAnimEncoderNewInternal(
                width as c_int,
                height as c_int,
                &raw const options,
                sys::WEBP_MUX_ABI_VERSION as c_int,
            )
        };
        if encoder.is_null() {
            return Err(failed());
        }
        Ok(Self { encoder, size: (width, height), config, at_ms: 0 })
    }

    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Adds a frame that is shown for so long.
    #[expect(unsafe_code, reason = "calls libwebp")]
    pub fn add(&mut self, canvas: &Canvas, shown_ms: u32) -> Result<(), ImageError> {
        if canvas.size() != self.size {
            return Err(ImageError::NotRendered("the frames came out in different sizes".to_owned()));
        }
        let mut picture = webp::picture(canvas)?;
        // SAFETY: the encoder is open; it copies what it needs of the picture, which is freed
        // exactly once.
        let added = unsafe {
            let added = sys::WebPAnimEncoderAdd(self.encoder, &raw mut picture, self.at_ms, &raw const self.config);
            sys::WebPPictureFree(&raw mut picture);
            added
        };
        // libwebp's longest frame is just under three hours.
        self.at_ms = self.at_ms.saturating_add(shown_ms.min(0x00FF_FFFE) as c_int);
        if added == 0 { Err(failed()) } else { Ok(()) }
    }

    /// Closes the file.
    #[expect(unsafe_code, reason = "calls libwebp")]
    pub fn finish(self) -> Result<Vec<u8>, ImageError> {
        let mut data = sys::WebPData::default();
        // SAFETY: a null picture ends the last frame; on success libwebp left `size` bytes at
        // `bytes`, which are freed exactly once.
        unsafe {
            let ended = sys::WebPAnimEncoderAdd(self.encoder, ptr::null_mut(), self.at_ms, ptr::null()) != 0
                && sys::WebPAnimEncoderAssemble(self.encoder, &raw mut data) != 0
                && !data.bytes.is_null();
            let bytes = ended.then(|| std::slice::from_raw_parts(data.bytes, data.size).to_vec());
            sys::WebPDataClear(&mut data);
            bytes.ok_or_else(failed)
        }
    }
}

impl Drop for Writer {
    #[expect(unsafe_code, reason = "calls libwebp")]
    fn drop(&mut self) {
        // SAFETY: opened in `new` and deleted only here.
        unsafe { sys::WebPAnimEncoderDelete(self.encoder) }
    }
}

fn failed() -> ImageError {
    ImageError::NotRendered("WebP: the animation cannot be written".to_owned())
}
