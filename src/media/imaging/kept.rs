//! What may leave with a picture: the metadata that somebody asked to keep.
//!
//! In: a wish and the source's blocks. Out: an EXIF block written afresh and an XMP packet, and
//! a file with these in it.
//!
//! Invariant: without a wish there is nothing, in particular no place. A fresh block never
//! carries what described the source's pixels and is no longer true: its orientation, colour
//! space, size, layout and thumbnail, and the maker's notes, whose inner offsets no longer fit.
//!
//! Metadata never makes a picture fail: what cannot be read or is too long for the format is
//! left out. AVIF is no container that can be written into from outside; its encoder takes the
//! blocks itself.

use std::io::Cursor;

use exif::Context;
use exif::Exif;
use exif::Field;
use exif::In;
use exif::Tag;
use exif::Value;
use exif::experimental::Writer;

use super::decode::Blocks;
use super::format::OutputFormat;
use super::metadata;
use super::words;

/// What somebody asked to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    #[default]
    Nothing,
    /// Who made the picture and who owns it.
    Copyright,
    All,
}

/// The blocks to put into a file.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Without the prefix that JPEG puts before it.
    pub exif: Option<Vec<u8>>,
    pub xmp: Option<Vec<u8>>,
}

/// Tags of the picture's first directory that speak of its origin and not of its pixels.
const ORIGIN: &[Tag] =
    &[Tag::ImageDescription, Tag::Make, Tag::Model, Tag::Software, Tag::DateTime, Tag::Artist, Tag::Copyright];

/// Tags of the camera's directory that are no longer true.
const OUTDATED: &[Tag] = &[
    Tag::MakerNote,
    Tag::PixelXDimension,
    Tag::PixelYDimension,
    Tag::ColorSpace,
    Tag::ComponentsConfiguration,
    Tag::CompressedBitsPerPixel,
];

/// No sound field is longer, and all of them must fit a JPEG's segment.
const LONGEST_FIELD_BYTES: usize = 8 << 10;

const JPEG_XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

impl Kept {
    /// Chooses from a source's blocks.
    pub fn from(blocks: &Blocks<'_>, keep: Keep) -> Self {
        match keep {
            Keep::Nothing => Self::default(),
            Keep::Copyright => Self { exif: copyright(blocks), xmp: None },
            Keep::All => Self {
                exif: blocks.exif.as_deref().and_then(metadata::read).and_then(|exif| origin(&exif)),
                xmp: blocks.xmp.as_deref().map(upright),
            },
        }
    }

    /// Puts the blocks into a file just encoded, of this size in pixels.
    pub fn embed(&self, file: Vec<u8>, format: OutputFormat, size: (u32, u32)) -> Vec<u8> {
        if self.exif.is_none() && self.xmp.is_none() {
            return file;
        }
        let with = match format {
            OutputFormat::Jpeg => self.in_jpeg(&file),
            OutputFormat::Png => self.in_png(&file),
            OutputFormat::Webp => self.in_webp(&file, size),
            OutputFormat::Avif => None,
        };
        with.unwrap_or(file)
    }

    /// Segments after the JFIF header.
    fn in_jpeg(&self, file: &[u8]) -> Option<Vec<u8>> {
        // The start marker, then the header's marker and its length, which counts itself.
        let header = 4 + usize::from(u16::from_be_bytes(*file.get(4..)?.first_chunk()?));
        let (header, rest) = file.split_at_checked(header)?;
        let mut made = header.to_vec();
        let blocks = [(b"Exif\0\0".as_slice(), &self.exif), (JPEG_XMP, &self.xmp)];
        for (prefix, block) in blocks {
            if let Some(block) = block
                && let Ok(length) = u16::try_from(2 + prefix.len() + block.len())
            {
                made.extend([0xFF, 0xE1]);
                made.extend(length.to_be_bytes());
                made.extend(prefix);
                made.extend(block);
            }
        }
        made.extend(rest);
        Some(made)
    }

    /// Chunks after the header.
    fn in_png(&self, file: &[u8]) -> Option<Vec<u8>> {
        const SIGNATURE_AND_HEADER: usize = 33;
        let (header, rest) = file.split_at_checked(SIGNATURE_AND_HEADER)?;
        let mut made = header.to_vec();
        let mut chunk = |kind: &[u8; 4], prefix: &[u8], data: &[u8]| {
            let body = [kind.as_slice(), prefix, data].concat();
            made.extend((body.len() as u32 - 4).to_be_bytes());
            made.extend(&body);
            made.extend(crc32(&body).to_be_bytes());
        };
        if let Some(exif) = &self.exif {
            chunk(b"eXIf", b"", exif);
        }
        if let Some(xmp) = &self.xmp {
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0", xmp);
        }
        made.extend(rest);
        Some(made)
    }

    /// Chunks at the end, announced in the extended header, which a plain file does not have yet.
    fn in_webp(&self, file: &[u8], (width, height): (u32, u32)) -> Option<Vec<u8>> {
        const EXIF: u8 = 8;
        const XMP: u8 = 4;
        let mut chunks = file.get(12..)?.to_vec();
        if !chunks.starts_with(b"VP8X") {
            let side = |side: u32| (side.max(1) - 1).to_le_bytes().into_iter().take(3);
            let header = b"VP8X\x0a\0\0\0\0\0\0\0".iter().copied().chain(side(width)).chain(side(height));
            chunks.splice(0..0, header);
        }
        for (kind, flag, block) in [(b"EXIF", EXIF, &self.exif), (b"XMP ", XMP, &self.xmp)] {
            if let Some(block) = block {
                *chunks.get_mut(8)? |= flag;
                chunks.extend(kind);
                chunks.extend((block.len() as u32).to_le_bytes());
                chunks.extend(block);
                chunks.extend(std::iter::repeat_n(0, block.len() % 2));
            }
        }
        let mut made = b"RIFF".to_vec();
        made.extend((chunks.len() as u32 + 4).to_le_bytes());
        made.extend(b"WEBP");
        made.append(&mut chunks);
        Some(made)
    }
}

/// A block with the names of author and owner, from wherever the source has them.
fn copyright(blocks: &Blocks<'_>) -> Option<Vec<u8>> {
    let exif = blocks.exif.as_deref().and_then(metadata::read);
    let mut texts = blocks.photoshop.map(words::iptc).unwrap_or_default();
    texts.extend(blocks.xmp.as_deref().map(words::xmp).unwrap_or_default());
    let fields: Vec<Field> = [(Tag::Artist, "Creator", "Author"), (Tag::Copyright, "Copyright", "Copyright")]
        .into_iter()
        .filter_map(|(tag, name, keyword)| {
            let text = exif
                .as_ref()
                .and_then(|exif| metadata::text(exif, tag))
                .or_else(|| texts.iter().find(|(n, _)| *n == name).map(|(_, text)| metadata::tidy(text)))
                .or_else(|| blocks.texts.iter().find(|(n, _)| n == keyword).map(|(_, text)| metadata::tidy(text)))?;
            let value = Value::Ascii(vec![text.into_bytes()]);
            Some(Field { tag, ifd_num: In::PRIMARY, value })
        })
        .collect();
    written(fields.iter())
}

/// A block with all that is still true.
fn origin(exif: &Exif) -> Option<Vec<u8>> {
    let mut fields: Vec<&Field> = Vec::new();
    for field in exif.fields().filter(|field| field.ifd_num == In::PRIMARY) {
        let wanted = match field.tag.context() {
            Context::Tiff => ORIGIN.contains(&field.tag),
            Context::Exif => !OUTDATED.contains(&field.tag),
            Context::Gps => true,
            _ => false,
        };
        // A damaged block may repeat a tag, which a sound one may not.
        if wanted
            && length_bytes(&field.value).is_some_and(|n| n <= LONGEST_FIELD_BYTES)
            && fields.iter().all(|known| known.tag != field.tag)
        {
            fields.push(field);
        }
    }
    if fields.is_empty() {
        return None;
    }
    let upright = Field { tag: Tag::Orientation, ifd_num: In::PRIMARY, value: Value::Short(vec![1]) };
    written(fields.into_iter().chain([&upright]))
}

fn written<'a>(fields: impl Iterator<Item = &'a Field>) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    fields.for_each(|field| writer.push_field(field));
    let mut block = Cursor::new(Vec::new());
    writer.write(&mut block, true).ok()?;
    Some(block.into_inner())
}

/// How long a value is; `None` for kinds that cannot be written.
fn length_bytes(value: &Value) -> Option<usize> {
    match value {
        Value::Byte(v) | Value::Undefined(v, _) => Some(v.len()),
        Value::SByte(v) => Some(v.len()),
        Value::Ascii(lines) => Some(lines.iter().map(|line| line.len() + 1).sum()),
        Value::Short(v) => Some(v.len() * 2),
        Value::SShort(v) => Some(v.len() * 2),
        Value::Long(v) => Some(v.len() * 4),
        Value::SLong(v) => Some(v.len() * 4),
        Value::Float(v) => Some(v.len() * 4),
        Value::Rational(v) => Some(v.len() * 8),
        Value::SRational(v) => Some(v.len() * 8),
        Value::Double(v) => Some(v.len() * 8),
        Value::Unknown(..) => None,
    }
}

/// An XMP packet that no longer says how to turn the picture.
fn upright(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    for start in [b"tiff:Orientation=\"".as_slice(), b"tiff:Orientation='", b"<tiff:Orientation>"] {
        let at = packet.windows(start.len()).position(|window| window == start);
        if let Some(digit) = at.and_then(|at| packet.get_mut(at + start.len())).filter(|digit| digit.is_ascii_digit()) {
            *digit = b'1';
        }
    }
    packet
}

/// The checksum of PNG.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b"IEND"), 0xAE42_6082);
    }

    #[test]
    fn xmp_turns_nothing() {
        for (before, after) in [
            (&b"<x tiff:Orientation=\"6\" a='8'/>"[..], &b"<x tiff:Orientation=\"1\" a='8'/>"[..]),
            (b"<tiff:Orientation>8</tiff:Orientation>", b"<tiff:Orientation>1</tiff:Orientation>"),
            (b"<tiff:Orientation>", b"<tiff:Orientation>"),
        ] {
            assert_eq!(upright(before), after);
        }
    }
}
