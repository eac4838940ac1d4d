//! The kinds of picture that come in, and the kinds that go out.
//!
//! In: the bytes of a file, of which the first mostly tell, or a word from a URL. Out: a kind.
//!
//! Invariant: a file is judged by its bytes alone. Names and declared types lie.
//!
//! No decoding happens here and no codec is linked, so the server may use these types.

use serde::Deserialize;
use serde::Serialize;

use super::heic;
use super::heic::Coding;
use super::pdf;
use super::raw;
use super::svg;

/// A kind of picture that is recognised on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    Jpeg,
    Png,
    Gif,
    Webp,
    Avif,
    Tiff,
    Bmp,
    Ico,
    Heic,
    /// Of a camera: what is shown is the picture that the camera put into the file.
    Raw,
    Jxl,
    /// And PSB.
    Psd,
    /// Plain or gzipped.
    Svg,
    Pdf,
}

impl SourceFormat {
    /// Recognises a picture by its first bytes.
    pub fn sniff(source: &[u8]) -> Option<Self> {
        let starts = |magic: &[u8]| source.starts_with(magic);
        if starts(b"\xff\xd8\xff") {
            return Some(Self::Jpeg);
        }
        if starts(b"\x89PNG\r\n\x1a\n") {
            return Some(Self::Png);
        }
        if starts(b"GIF87a") || starts(b"GIF89a") {
            return Some(Self::Gif);
        }
        if starts(b"RIFF") && source.get(8..12) == Some(b"WEBP") {
            return Some(Self::Webp);
        }
        if raw::is_raw(source) {
            return Some(Self::Raw);
        }
        if starts(b"II*\0") || starts(b"MM\0*") || starts(b"II+\0") || starts(b"MM\0+") {
            return Some(Self::Tiff);
        }
        if starts(b"\xff\x0a") || starts(b"\0\0\0\x0cJXL \r\n\x87\n") {
            return Some(Self::Jxl);
        }
        if starts(b"8BPS\0\x01") || starts(b"8BPS\0\x02") {
            return Some(Self::Psd);
        }
        if source.get(4..8) == Some(b"ftyp") {
            return Self::sniff_brands(source);
        }
        // Two letters prove little: a BMP's declared header size must be a known one too.
        if starts(b"BM") && matches!(source.get(14..18), Some(&[12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])) {
            return Some(Self::Bmp);
        }
        let images = source
            .get(4..6)
            .map(|n| u16::from_le_bytes([n.first().copied().unwrap_or(0), n.get(1).copied().unwrap_or(0)]));
        if starts(b"\0\0\x01\0") && images.is_some_and(|n| (1..=64).contains(&n)) {
            return Some(Self::Ico);
        }
        if pdf::is_pdf(source) {
            return Some(Self::Pdf);
        }
        if svg::is_svg(source) {
            return Some(Self::Svg);
        }
        None
    }

    /// The media type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
            Self::Avif => "image/avif",
            Self::Tiff => "image/tiff",
            Self::Bmp => "image/bmp",
            Self::Ico => "image/x-icon",
            Self::Heic => "image/heic",
            Self::Raw => "image/x-dcraw",
            Self::Jxl => "image/jxl",
            Self::Psd => "image/vnd.adobe.photoshop",
            Self::Svg => "image/svg+xml",
            Self::Pdf => "application/pdf",
        }
    }

    /// Whether the EXIF orientation counts. Where it does not, a format has its own (a TIFF for each page), or its
    /// programs turn the pixels and forget to say so.
    pub(super) fn turns_by_exif(self) -> bool {
        !matches!(self, Self::Avif | Self::Heic | Self::Jxl | Self::Psd | Self::Tiff)
    }

    /// Whether there may be more than one page.
    pub(super) fn has_pages(self) -> bool {
        matches!(self, Self::Pdf | Self::Tiff)
    }

    fn sniff_brands(source: &[u8]) -> Option<Self> {
        let size = source.get(..4).map(|b| b.iter().fold(0_usize, |n, &b| n << 8 | usize::from(b)))?;
        let brands = source.get(8..size.clamp(12, 256).min(source.len()))?;
        let mut found = None;
        let mut is_heif = false;
        for brand in brands.chunks_exact(4) {
            match brand {
                b"avif" | b"avis" => return Some(Self::Avif),
                b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"hevm" | b"hevs" => {
                    found = Some(Self::Heic);
                }
                // These say that there are pictures, and nothing of their coding.
                b"mif1" | b"mif2" | b"msf1" | b"miaf" => is_heif = true,
                _ => {}
            }
        }
        found.or_else(|| {
            is_heif.then(|| if heic::coding(source) == Some(Coding::Av1) { Self::Avif } else { Self::Heic })
        })
    }
}

/// A kind of picture that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    Jpeg,
    Png,
    Webp,
    Avif,
}

impl OutputFormat {
    pub const ALL: [Self; 4] = [Self::Jpeg, Self::Png, Self::Webp, Self::Avif];

    /// The media type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Avif => "image/avif",
        }
    }

    /// The usual file extension, which is also the word in a URL.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Avif => "avif",
        }
    }

    /// Whether the format can hold transparency.
    pub fn has_alpha(self) -> bool {
        self != Self::Jpeg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_by_the_first_bytes() {
        let cases: [(&[u8], Option<SourceFormat>); 17] = [
            (b"\xff\xd8\xff\xe0", Some(SourceFormat::Jpeg)),
            (b"\x89PNG\r\n\x1a\n....", Some(SourceFormat::Png)),
            (b"GIF89a", Some(SourceFormat::Gif)),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some(SourceFormat::Webp)),
            (b"II*\0\x08\0\0\0", Some(SourceFormat::Tiff)),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", Some(SourceFormat::Avif)),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Some(SourceFormat::Heic)),
            (b"\0\0\0\x18ftypisom\0\0\0\0mp42isom", None),
            (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", Some(SourceFormat::Raw)),
            (b"FUJIFILMCCD-RAW 0201", Some(SourceFormat::Raw)),
            (b"\xff\x0a\x00", Some(SourceFormat::Jxl)),
            (b"8BPS\0\x02", Some(SourceFormat::Psd)),
            (b"%PDF-1.7", Some(SourceFormat::Pdf)),
            (b"<?xml version='1.0'?><svg>", Some(SourceFormat::Svg)),
            (b"<?xml version='1.0'?><html><svg>", None),
            (b"BM but a letter to somebody", None),
            (b"", None),
        ];
        for (bytes, kind) in cases {
            assert_eq!(SourceFormat::sniff(bytes), kind, "{bytes:?}");
        }
    }
}
