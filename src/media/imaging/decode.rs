//! From the bytes of a file to a canvas, within limits.
//!
//! In: a source and a plan of what will become of it. Out: first what the header says, then, on
//! demand, pixels or planes.
//!
//! Invariant: nothing is decoded before the header's size has passed the limits.
//!
//! Only the first frame of an animation is decoded here; `animation` goes through all.

use std::borrow::Cow;

use image::ImageDecoder as _;

use super::Limits;
use super::animation::Motion;
use super::avif;
use super::canvas::Canvas;
use super::color::Profile;
use super::container;
use super::error::ImageError;
use super::format::SourceFormat;
use super::gif;
use super::heic::Heic;
use super::jpeg;
use super::jxl;
use super::markers;
use super::markers::Markers;
use super::metadata;
use super::orientation::Orientation;
use super::other;
use super::params::Plan;
use super::pdf;
use super::png;
use super::psd;
use super::raw;
use super::riff;
use super::svg;
use super::tiff;
use super::webp;

/// Decoding leaves at least this many pixels for every pixel of the result, along a side: below
/// it the mean of a block, or the reduced transform of libjpeg, costs visible sharpness. Just
/// under one and a half, so that 6000 pixels may be halved on the way to 2048.
pub const RESIDUAL: f64 = 1.45;

/// Nothing is said about the camera of larger TIFF files.
const LARGEST_TIFF_FOR_EXIF_BYTES: usize = 64 << 20;

/// A picture whose header has been read and found within limits.
pub struct Source<'a> {
    pub(super) bytes: &'a [u8],
    pub format: SourceFormat,
    /// As stored, before orientation.
    pub width: u32,
    pub height: u32,
    pub orientation: Orientation,
    pub has_alpha: bool,
    pub motion: Motion,
    pub pages: u32,
    pub complete: bool,
    pub metadata: Blocks<'a>,
    inner: Inner<'a>,
}

/// The metadata blocks of a file, unparsed.
#[derive(Default)]
pub struct Blocks<'a> {
    pub exif: Option<Cow<'a, [u8]>>,
    pub xmp: Option<Cow<'a, [u8]>>,
    pub photoshop: Option<&'a [u8]>,
    pub texts: Vec<(String, String)>,
}

enum Inner<'a> {
    Jpeg(Markers<'a>),
    Png,
    Webp(webp::Header, Option<Vec<u8>>),
    Avif(Box<avif::Decoder<'a>>),
    Heic(Box<Heic<'a>>),
    Jxl(jxl::Decoder<'a>),
    Psd,
    Tiff(Box<tiff::Header<'a>>),
    Svg(Box<svg::Drawing>),
    Pdf(Box<pdf::Document>),
    Other,
}

impl<'a> Source<'a> {
    /// Reads the header.
    pub fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        Self::open_page(bytes, 1, limits)
    }

    /// Reads the header of a page, counted from 1.
    pub fn open_page(bytes: &'a [u8], page: u32, limits: &Limits) -> Result<Self, ImageError> {
        let page = page.max(1);
        let format = SourceFormat::sniff(bytes).ok_or(ImageError::NotAnImage)?;
        if page > 1 && !format.has_pages() {
            return Err(ImageError::NoPage(page));
        }
        let mut source = match format {
            SourceFormat::Jpeg => Self::open_jpeg(bytes, limits)?,
            SourceFormat::Png => Self::open_png(bytes, limits)?,
            SourceFormat::Webp => Self::open_webp(bytes, limits)?,
            SourceFormat::Avif => Self::open_avif(bytes, limits)?,
            SourceFormat::Tiff => Self::open_tiff(bytes, page, limits)?,
            SourceFormat::Gif | SourceFormat::Bmp | SourceFormat::Ico => Self::open_other(bytes, format, limits)?,
            SourceFormat::Jxl => Self::open_jxl(bytes, limits)?,
            SourceFormat::Psd => Self::open_psd(bytes, limits)?,
            SourceFormat::Svg => Self::open_svg(bytes, limits)?,
            SourceFormat::Pdf => Self::open_pdf(bytes, page, limits)?,
            SourceFormat::Raw => Self::open_raw(bytes, limits)?,
            SourceFormat::Heic => Self::open_heic(bytes, limits)?,
        };
        limits.check(source.width, source.height)?;
        if format.turns_by_exif() {
            source.orientation = metadata::orientation(source.metadata.exif.as_deref());
        }
        Ok(source)
    }

    /// Width and height, upright.
    pub fn size(&self) -> (u32, u32) {
        self.orientation.upright(self.width, self.height)
    }

    /// What the stored numbers mean, where it is known before they are decoded.
    pub fn profile(&self, limits: &Limits) -> Profile {
        match &self.inner {
            Inner::Png => png::profile(self.bytes, limits),
            Inner::Webp(_, icc) => Profile::from_icc(icc.clone()),
            _ => Profile::Srgb,
        }
    }

    /// Decodes: as small as the plan allows, in planes where it allows that.
    pub fn decode(self, plan: &Plan, limits: &Limits, cancelled: &dyn Fn() -> bool) -> Result<Canvas, ImageError> {
        let (canvas, profile) = match self.inner {
            Inner::Jpeg(markers) => {
                let canvas = jpeg::decode(self.bytes, &markers, plan, limits, cancelled)?;
                // CMYK went through its profile already.
                let icc = if markers.components == 4 { None } else { markers.icc };
                (canvas, Profile::from_icc(icc))
            }
            Inner::Png => png::decode(self.bytes, limits)?,
            Inner::Webp(header, icc) => (webp::decode(self.bytes, &header, limits)?, Profile::from_icc(icc)),
            Inner::Avif(decoder) => {
                let profile = match &decoder.header.icc {
                    Some(icc) => Profile::Icc(icc.clone()),
                    None => Profile::CodePoints(decoder.header.primaries, decoder.header.transfer),
                };
                (decoder.pixels()?, profile)
            }
            Inner::Heic(heic) => heic.decode(plan.denominator(RESIDUAL), limits)?,
            Inner::Jxl(decoder) => decoder.pixels(limits)?,
            Inner::Psd => psd::decode(self.bytes, limits)?,
            Inner::Tiff(header) => tiff::decode(self.bytes, &header, limits)?,
            Inner::Svg(drawing) => (drawing.pixels(plan.decode_shrink(), limits)?, Profile::Srgb),
            Inner::Pdf(document) => (document.pixels(plan.decode_shrink(), limits)?, Profile::Srgb),
            Inner::Other => {
                let mut decoder = other::open(self.bytes, self.format)?;
                let icc = decoder.icc_profile().ok().flatten().filter(|icc| icc.len() <= limits.max_icc_bytes);
                (other::read(decoder, limits)?, Profile::from_icc(icc))
            }
        };
        Ok(canvas.decoded_from((self.width, self.height), self.orientation, profile).heading_for(plan))
    }

    fn new(bytes: &'a [u8], format: SourceFormat, (width, height): (u32, u32), inner: Inner<'a>) -> Self {
        Self {
            bytes,
            format,
            width,
            height,
            orientation: Orientation::UPRIGHT,
            has_alpha: false,
            motion: Motion::default(),
            pages: 1,
            complete: true,
            metadata: Blocks::default(),
            inner,
        }
    }

    fn open_jpeg(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let markers =
            markers::read(bytes, limits).ok_or(ImageError::Damaged("JPEG: the header cannot be read".to_owned()))?;
        let metadata = Blocks {
            exif: markers.exif.map(Cow::Borrowed),
            xmp: markers.xmp.map(Cow::Borrowed),
            photoshop: markers.photoshop,
            texts: Vec::new(),
        };
        let (size, complete) = ((markers.width, markers.height), markers.complete);
        Ok(Self { complete, metadata, ..Self::new(bytes, SourceFormat::Jpeg, size, Inner::Jpeg(markers)) })
    }

    fn open_jxl(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let mut decoder = jxl::Decoder::open(bytes, limits)?;
        let metadata = Blocks { exif: decoder.exif.take(), xmp: decoder.xmp.take(), ..Blocks::default() };
        let (size, complete) = (decoder.size(), decoder.complete);
        let has_alpha = decoder.has_alpha();
        // The frames behind the first are not counted: they are not shown.
        let motion = Motion { frames: if decoder.is_animated() { 2 } else { 1 }, ..Motion::default() };
        let source = Self::new(bytes, SourceFormat::Jxl, size, Inner::Jxl(decoder));
        Ok(Self { has_alpha, motion, complete, metadata, ..source })
    }

    fn open_psd(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let header = psd::header(bytes, limits)?;
        let metadata = Blocks {
            exif: header.exif.map(Cow::Borrowed),
            xmp: header.xmp.map(Cow::Borrowed),
            photoshop: Some(header.resources),
            texts: Vec::new(),
        };
        let source = Self::new(bytes, SourceFormat::Psd, (header.width, header.height), Inner::Psd);
        Ok(Self { has_alpha: header.has_alpha, complete: header.complete, metadata, ..source })
    }

    fn open_pdf(bytes: &'a [u8], page: u32, limits: &Limits) -> Result<Self, ImageError> {
        let document = pdf::Document::open(bytes, page, limits)?;
        let size = (document.width, document.height);
        Ok(Self::new(bytes, SourceFormat::Pdf, size, Inner::Pdf(Box::new(document))))
    }

    fn open_svg(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let drawing = svg::Drawing::open(bytes, limits)?;
        let size = (drawing.width, drawing.height);
        Ok(Self { has_alpha: true, ..Self::new(bytes, SourceFormat::Svg, size, Inner::Svg(Box::new(drawing))) })
    }

    fn open_raw(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let preview = raw::preview(bytes, limits)?;
        let mut source = Self { format: SourceFormat::Raw, ..Self::open_jpeg(preview.jpeg, limits)? };
        // What the raw file says counts: the previews of many makers say nothing, or less.
        source.metadata.exif = preview.exif.map(Cow::Owned).or(source.metadata.exif);
        source.metadata.xmp = preview.xmp.map(Cow::Borrowed).or(source.metadata.xmp);
        Ok(source)
    }

    fn open_png(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let header =
            png::header(bytes, limits).ok_or(ImageError::Damaged("PNG: the header cannot be read".to_owned()))?;
        Ok(Self {
            has_alpha: header.has_alpha,
            motion: header.motion,
            complete: header.complete,
            metadata: Blocks {
                exif: header.exif.map(Cow::Borrowed),
                xmp: header.xmp.map(Cow::Borrowed),
                photoshop: None,
                texts: header.texts,
            },
            ..Self::new(bytes, SourceFormat::Png, (header.width, header.height), Inner::Png)
        })
    }

    fn open_webp(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let header = webp::header(bytes)?;
        let chunks = riff::read(bytes, limits);
        let size = (header.width, header.height);
        Ok(Self {
            has_alpha: header.has_alpha,
            motion: chunks.motion,
            complete: chunks.complete,
            metadata: Blocks {
                exif: chunks.exif.map(Cow::Owned),
                xmp: chunks.xmp.map(Cow::Owned),
                ..Blocks::default()
            },
            ..Self::new(bytes, SourceFormat::Webp, size, Inner::Webp(header, chunks.icc))
        })
    }

    fn open_avif(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let mut decoder = avif::Decoder::open(bytes, limits)?;
        let header = &mut decoder.header;
        let metadata = Blocks {
            exif: header.exif.take().map(Cow::Owned),
            xmp: header.xmp.take().map(Cow::Owned),
            ..Blocks::default()
        };
        let size = (header.width, header.height);
        let orientation = Orientation::from_heif(header.quarter_turns, header.mirror);
        let has_alpha = header.has_alpha;
        let motion = Motion { frames: header.frames, ..Motion::default() };
        let source = Self::new(bytes, SourceFormat::Avif, size, Inner::Avif(Box::new(decoder)));
        Ok(Self { orientation, has_alpha, motion, complete: container::is_whole(bytes), metadata, ..source })
    }

    fn open_heic(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let heic = Heic::open(bytes, limits)?;
        let metadata = Blocks { exif: heic.exif(limits), xmp: heic.xmp(limits), ..Blocks::default() };
        let (size, orientation) = (heic.size(), heic.orientation);
        let has_alpha = heic.has_alpha();
        // The pictures behind the first are not counted: they are not shown.
        let motion = Motion { frames: if heic.animated { 2 } else { 1 }, ..Motion::default() };
        let source = Self::new(bytes, SourceFormat::Heic, size, Inner::Heic(Box::new(heic)));
        Ok(Self { orientation, has_alpha, motion, complete: container::is_whole(bytes), metadata, ..source })
    }

    fn open_tiff(bytes: &'a [u8], page: u32, limits: &Limits) -> Result<Self, ImageError> {
        let header = tiff::header(bytes, page - 1)?;
        if page > header.pages {
            return Err(ImageError::NoPage(page));
        }
        let text = |block: &&[u8]| block.len() <= limits.max_text_bytes;
        let metadata = Blocks {
            // The file is its own EXIF block, which the reader must copy.
            exif: (bytes.len() <= LARGEST_TIFF_FOR_EXIF_BYTES).then_some(Cow::Borrowed(bytes)),
            xmp: header.xmp.filter(text).map(Cow::Borrowed),
            photoshop: header.photoshop.filter(text),
            texts: Vec::new(),
        };
        let (orientation, has_alpha, pages) = (header.orientation, header.has_alpha, header.pages);
        let size = (header.width, header.height);
        let source = Self::new(bytes, SourceFormat::Tiff, size, Inner::Tiff(Box::new(header)));
        Ok(Self { orientation, has_alpha, pages, metadata, ..source })
    }

    fn open_other(bytes: &'a [u8], format: SourceFormat, limits: &Limits) -> Result<Self, ImageError> {
        let mut decoder = other::open(bytes, format)?;
        let mut has_alpha = decoder.color_type().has_alpha();
        let exif = decoder.exif_metadata().ok().flatten().filter(|exif| exif.len() <= limits.max_exif_bytes);
        let exif = exif.map(Cow::Owned);
        let (mut motion, mut complete) = (Motion::default(), true);
        if format == SourceFormat::Gif {
            let header = gif::header(bytes);
            (has_alpha, motion, complete) = (header.transparent, header.motion, header.complete);
        }
        let metadata = Blocks { exif, ..Blocks::default() };
        Ok(Self {
            has_alpha,
            motion,
            complete,
            metadata,
            ..Self::new(bytes, format, decoder.dimensions(), Inner::Other)
        })
    }
}
