//! JPEG XL in, through jxl-oxide.
//!
//! In: the bytes of a file, bare or in its container. Out: what the header says, then the pixels of
//! the first frame, 8 bits, upright, in sRGB or with the profile they came with.
//!
//! Invariant: the size is held against the limits before anything of a frame is read, and the
//! decoder's buffers are counted against `max_decoded_bytes`.
//!
//! The container is taken apart here: of its boxes only the picture and the metadata are wanted,
//! and compressed metadata, which the decoder would inflate without bounds, is inflated with some.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Read as _;

use ::jxl_oxide::AllocTracker;
use ::jxl_oxide::EnumColourEncoding;
use ::jxl_oxide::InitializeResult;
use ::jxl_oxide::JxlImage;
use ::jxl_oxide::RenderingIntent;
use brotli_decompressor::Decompressor;

use super::Limits;
use super::canvas;
use super::canvas::Canvas;
use super::color;
use super::color::Profile;
use super::container;
use super::error::ImageError;

/// Read before the header must be complete, a colour profile included.
const LONGEST_HEADER_BYTES: usize = 8 << 20;

/// A picture whose header has been read, and the data of its first frame taken in.
pub struct Decoder<'a> {
    image: Box<JxlImage>,
    pub exif: Option<Cow<'a, [u8]>>,
    pub xmp: Option<Cow<'a, [u8]>>,
    /// Whether the first frame is all there.
    pub complete: bool,
}

/// The boxes of a file that matter.
#[derive(Default)]
struct Parts<'a> {
    codestream: VecDeque<&'a [u8]>,
    exif: Option<Cow<'a, [u8]>>,
    xmp: Option<Cow<'a, [u8]>>,
}

impl<'a> Decoder<'a> {
    /// Reads the header.
    pub fn open(source: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let parts = Parts::of(source, limits);
        let mut waiting = JxlImage::builder()
            .alloc_tracker(AllocTracker::with_limit(limits.max_decoded_bytes as usize))
            .build_uninit();
        let mut pieces = Pieces { rest: parts.codestream, next_bytes: 4096 };
        // What a piece was too short to tell, together with the next.
        let mut held = Vec::new();
        let mut taken = 0;
        let mut image = loop {
            let piece = pieces.next().filter(|_| taken < LONGEST_HEADER_BYTES);
            let piece = piece.ok_or_else(|| ImageError::Damaged("JPEG XL: the header cannot be read".to_owned()))?;
            taken += piece.len();
            held.extend_from_slice(piece);
            let used = waiting.feed_bytes(&held).map_err(damaged)?;
            held.drain(..used);
            match waiting.try_init().map_err(damaged)? {
                InitializeResult::NeedMoreData(more) => waiting = more,
                InitializeResult::Initialized(image) => break Box::new(image),
            }
        };
        limits.check(image.width(), image.height())?;
        // The frames behind the first are not wanted.
        while image.num_loaded_keyframes() == 0 {
            let Some(piece) = pieces.next() else { break };
            held.extend_from_slice(piece);
            let Ok(used) = image.feed_bytes(&held) else { break };
            held.drain(..used);
        }
        let complete = image.num_loaded_keyframes() > 0;
        Ok(Self { image, exif: parts.exif, xmp: parts.xmp, complete })
    }

    /// Width and height, upright.
    pub fn size(&self) -> (u32, u32) {
        (self.image.width(), self.image.height())
    }

    pub fn has_alpha(&self) -> bool {
        self.image.pixel_format().has_alpha()
    }

    pub fn is_animated(&self) -> bool {
        self.image.image_header().metadata.animation.is_some()
    }

    /// Decodes the first frame.
    pub fn pixels(mut self, limits: &Limits) -> Result<(Canvas, Profile), ImageError> {
        let (width, height) = self.size();
        let metadata = &self.image.image_header().metadata;
        let unmultiply = metadata.ec_info.iter().any(|channel| channel.alpha_associated() == Some(true));
        let original = self.image.original_icc().filter(|_| !metadata.xyb_encoded).map(<[u8]>::to_vec);
        let is_gray = metadata.grayscale();
        if original.is_none() {
            let intent = RenderingIntent::Relative;
            let srgb = if is_gray { EnumColourEncoding::gray_srgb(intent) } else { EnumColourEncoding::srgb(intent) };
            self.image.request_color_encoding(srgb);
        }
        let format = self.image.pixel_format();
        let render = if self.complete { self.image.render_frame(0) } else { self.image.render_loading_frame() };
        let render = render.map_err(damaged)?;
        let mut stream = render.stream();
        let channels = stream.channels() as usize;
        let samples = u64::from(width) * u64::from(height) * channels as u64;
        if (stream.width(), stream.height()) != (width, height) || channels != format.channels() {
            return Err(ImageError::Damaged("JPEG XL: the frame does not fit the picture".to_owned()));
        }
        if samples > limits.max_decoded_bytes {
            return Err(ImageError::TooLarge { width, height });
        }
        let mut pixels = vec![0_u8; samples as usize];
        stream.write_to_buffer(&mut pixels);
        drop(stream);
        drop(render);
        let icc = original.filter(|icc| icc.len() <= limits.max_icc_bytes);
        let profile = Profile::from_icc(icc.clone());
        Ok(match channels {
            1 => (Canvas::rgb(width, height, pixels.iter().flat_map(|&g| [g; 3]).collect()), profile),
            2 => {
                let wide = pixels.as_chunks::<2>().0.iter().flat_map(|&[g, a]| [g, g, g, a]).collect();
                (Self::rgba(width, height, wide, unmultiply), profile)
            }
            3 => (Canvas::rgb(width, height, pixels), profile),
            4 if format.has_alpha() => (Self::rgba(width, height, pixels, unmultiply), profile),
            4 => {
                // As with Adobe, no ink is the largest number.
                for ink in &mut pixels {
                    *ink = 255 - *ink;
                }
                (Canvas::rgb(width, height, color::cmyk_to_rgb(&pixels, icc.as_deref())), Profile::Srgb)
            }
            _ => return Err(ImageError::Unsupported("JPEG XL with transparent CMYK".to_owned())),
        })
    }

    fn rgba(width: u32, height: u32, mut pixels: Vec<u8>, unmultiply: bool) -> Canvas {
        if unmultiply {
            canvas::unpremultiply(&mut pixels);
        }
        Canvas::rgba(width, height, pixels)
    }
}

impl<'a> Parts<'a> {
    fn of(source: &'a [u8], limits: &Limits) -> Self {
        let mut parts = Self::default();
        if source.starts_with(b"\xff\x0a") {
            parts.codestream.push_back(source);
            return parts;
        }
        let mut end = 0;
        for (kind, body) in container::boxes(source) {
            end = body.as_ptr_range().end.addr() - source.as_ptr().addr();
            parts.take(*kind, body, limits);
        }
        // What a missing tail leaves of the last box is still part of the picture.
        if let Some(&[_, _, _, _, k0, k1, k2, k3, ref body @ ..]) = source.get(end..) {
            parts.take([k0, k1, k2, k3], body, limits);
        }
        parts
    }

    fn take(&mut self, kind: [u8; 4], body: &'a [u8], limits: &Limits) {
        match &kind {
            b"jxlc" => self.codestream.push_back(body),
            // A running number stands before the data.
            b"jxlp" => self.codestream.extend(body.get(4..)),
            b"Exif" | b"xml " => self.keep(kind, Cow::Borrowed(body), limits),
            // The kind of the box, then the box, compressed.
            b"brob" => {
                let Some((kind @ (b"Exif" | b"xml "), packed)) = body.split_first_chunk() else { return };
                let most = limits.max_exif_bytes.max(limits.max_text_bytes) as u64;
                let mut inflated = Vec::new();
                if Decompressor::new(packed, 4096).take(most + 1).read_to_end(&mut inflated).is_ok() {
                    self.keep(*kind, Cow::Owned(inflated), limits);
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, kind: [u8; 4], block: Cow<'a, [u8]>, limits: &Limits) {
        if kind == *b"Exif" && block.len() <= limits.max_exif_bytes {
            self.exif = without_offset(block);
        } else if kind == *b"xml " && block.len() <= limits.max_text_bytes {
            self.xmp = Some(block);
        }
    }
}

/// Without the four bytes that say how far behind them the block begins; that is at once.
fn without_offset(block: Cow<'_, [u8]>) -> Option<Cow<'_, [u8]>> {
    match block {
        Cow::Borrowed(block) => block.strip_prefix(&[0; 4]).map(Cow::Borrowed),
        Cow::Owned(block) => block.strip_prefix(&[0; 4]).map(|block| Cow::Owned(block.to_vec())),
    }
}

/// The codestream in growing pieces: headers are short, and are read anew with every piece.
struct Pieces<'a> {
    rest: VecDeque<&'a [u8]>,
    next_bytes: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.rest.front().is_some_and(|piece| piece.is_empty()) {
            self.rest.pop_front();
        }
        let first = self.rest.front_mut()?;
        let (piece, after) = first.split_at(self.next_bytes.min(first.len()));
        *first = after;
        self.next_bytes = self.next_bytes.saturating_mul(4).min(4 << 20);
        Some(piece)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn damaged(error: Box<dyn std::error::Error + Send + Sync>) -> ImageError {
    ImageError::Damaged(format!("JPEG XL: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::Rng;
    use proptest::test_runner::RngAlgorithm;
    use proptest::test_runner::TestRng;

    use super::super::OutputFormat;
    use super::super::Recipe;
    use super::super::SourceFormat;
    use super::super::probe;
    use super::super::render;
    use super::*;

    /// All of one picture, 64 x 48: slopes, and a red corner at the top left.
    const ALL: [(&str, &[u8]); 6] = [
        ("rgb", include_bytes!("../../../tests/media/jxl/rgb.jxl")),
        ("rgb16", include_bytes!("../../../tests/media/jxl/rgb16.jxl")),
        ("gray", include_bytes!("../../../tests/media/jxl/gray.jxl")),
        ("alpha", include_bytes!("../../../tests/media/jxl/alpha.jxl")),
        ("anim", include_bytes!("../../../tests/media/jxl/anim.jxl")),
        ("turned", include_bytes!("../../../tests/media/jxl/turned.jxl")),
    ];

    fn rendered(source: &[u8]) -> image::RgbaImage {
        let recipe = Recipe::default().with_format(OutputFormat::Png);
        let made = render(source, &recipe, &Limits::default(), &|| false).unwrap();
        image::load_from_memory(&made.bytes).unwrap().into_rgba8()
    }

    #[test]
    fn every_kind_is_seen_as_it_is() {
        for (name, source) in ALL {
            let facts = probe(source, &Limits::default()).unwrap();
            assert_eq!((facts.format, facts.warning), (SourceFormat::Jxl, None), "{name}");
            assert_eq!(facts.animated, name == "anim");
            let picture = rendered(source);
            let size = if name == "turned" { (48, 64) } else { (64, 48) };
            assert_eq!(((facts.width, facts.height), picture.dimensions()), (size, size), "{name}");
            let corner = if name == "turned" { picture.get_pixel(44, 4) } else { picture.get_pixel(4, 4) };
            let expected: [u8; 3] = if name == "gray" { [80; 3] } else { [220, 20, 20] };
            assert!(corner.0.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 16), "{name}: {corner:?}");
            let far = picture.get_pixel(size.0 - 4, size.1 - 4);
            assert_eq!(far.0[3], if name == "alpha" { 0 } else { 255 }, "{name}");
        }
    }

    #[test]
    fn compressed_metadata_are_read() {
        let facts = probe(ALL[5].1, &Limits::default()).unwrap();
        assert_eq!(facts.make.as_deref(), Some("Canon"));
        assert_eq!(facts.captured_at.as_deref(), Some("2024-05-17T18:03:09"));
        let short = Limits { max_exif_bytes: 8, max_text_bytes: 8, ..Limits::default() };
        assert_eq!(probe(ALL[5].1, &short).unwrap().make, None);
    }

    #[test]
    fn limits_hold() {
        for (name, source) in ALL {
            let short = Limits { max_side: 50, ..Limits::default() };
            assert!(matches!(probe(source, &short), Err(ImageError::TooLarge { .. })), "{name}");
            let poor = Limits { max_decoded_bytes: 4000, ..Limits::default() };
            assert!(render(source, &Recipe::default(), &poor, &|| false).is_err(), "{name}");
        }
    }

    #[test]
    fn a_missing_tail_is_a_warning_or_an_error() {
        for (name, source) in ALL.into_iter().filter(|(name, _)| *name != "anim") {
            let cut = &source[..source.len() - 20];
            assert!(probe(cut, &Limits::default()).is_ok_and(|facts| facts.warning.is_some()), "{name}");
        }
    }

    #[test]
    fn broken_files_never_panic() {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let limits = Limits { max_pixels: 100_000, max_decoded_bytes: 16 << 20, ..Limits::default() };
        for (_, source) in ALL {
            for part in 0..32 {
                let _ = render(&source[..source.len() * part / 32], &Recipe::default(), &limits, &|| false);
            }
            for _ in 0..300 {
                let mut broken = source.to_vec();
                for _ in 0..=rng.next_u32() % 4 {
                    let reach = if rng.next_u32().is_multiple_of(2) { broken.len() } else { broken.len().min(60) };
                    let at = rng.next_u32() as usize % reach;
                    broken[at] = rng.next_u32() as u8;
                }
                let _ = render(&broken, &Recipe::default(), &limits, &|| false);
            }
        }
    }
}
