//! The segments of a JPEG file, without decoding it.
//!
//! In: the bytes of a file. Out: its size, the metadata blocks it carries, and whether its
//! end is there.
//!
//! Invariant: reading is linear and allocates no more than the blocks' own caps, whatever the
//! lengths in the file claim.
//!
//! libjpeg reads the same segments again when it decodes; this walk exists because the facts
//! of a picture must be had without decoding, and the caps must hold before it.

use super::Limits;

/// What the segments say.
#[derive(Default)]
pub struct Markers<'a> {
    pub width: u32,
    pub height: u32,
    pub components: u8,
    /// 8 bits per sample, coded by a transform; neither lossless nor arithmetic.
    pub is_plain: bool,
    pub exif: Option<&'a [u8]>,
    pub xmp: Option<&'a [u8]>,
    /// The payload of the Photoshop segment, where IPTC lives.
    pub photoshop: Option<&'a [u8]>,
    pub icc: Option<Vec<u8>>,
    /// Whether an Adobe segment is there; it means that CMYK is stored inverted.
    pub adobe: bool,
    /// Whether the picture's data end where they should.
    pub complete: bool,
}

/// Reads up to the first scan, then looks for the end. `None` without a frame header.
pub fn read<'a>(source: &'a [u8], limits: &Limits) -> Option<Markers<'a>> {
    let mut found = Markers::default();
    let mut icc: Vec<(u8, &[u8])> = Vec::new();
    let mut rest = source.get(2..)?;
    loop {
        let (marker, segment, after) = next_segment(rest)?;
        match marker {
            // Frame headers: SOF0 to SOF15 without DHT, JPG and DAC.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let &[precision, h1, h0, w1, w0, components, ..] = segment else { return None };
                found.height = u32::from(u16::from_be_bytes([h1, h0]));
                found.width = u32::from(u16::from_be_bytes([w1, w0]));
                found.components = components;
                found.is_plain = precision == 8 && marker <= 0xC2;
            }
            0xE1 => {
                let exif = segment.strip_prefix(b"Exif\0\0".as_slice()).filter(|b| b.len() <= limits.max_exif_bytes);
                let xmp = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0".as_slice());
                found.exif = found.exif.or(exif);
                found.xmp = found.xmp.or(xmp);
            }
            0xE2 => {
                if let Some(&[number, _, ref data @ ..]) = segment.strip_prefix(b"ICC_PROFILE\0".as_slice()) {
                    icc.push((number, data));
                }
            }
            0xED => found.photoshop = found.photoshop.or(segment.strip_prefix(b"Photoshop 3.0\0".as_slice())),
            0xEE => found.adobe |= segment.starts_with(b"Adobe"),
            0xDA => {
                found.complete = ends_well(source, after);
                break;
            }
            0xD9 => break,
            _ => {}
        }
        rest = after;
    }
    let size: usize = icc.iter().map(|(_, data)| data.len()).sum();
    if size > 0 && size <= limits.max_icc_bytes {
        icc.sort_by_key(|(number, _)| *number);
        found.icc = Some(icc.into_iter().flat_map(|(_, data)| data.iter().copied()).collect());
    }
    (found.width > 0 && found.height > 0).then_some(found)
}

/// The next marker, its payload, and what follows.
fn next_segment(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let start = bytes.iter().position(|&b| b == 0xFF)?;
    let bytes = bytes.get(start..)?;
    let fill = bytes.iter().take_while(|&&b| b == 0xFF).count();
    let marker = *bytes.get(fill)?;
    let after = bytes.get(fill + 1..)?;
    // Markers that stand alone.
    if matches!(marker, 0x00 | 0x01 | 0xD0..=0xD9) {
        return Some((marker, &[], after));
    }
    let length = usize::from(u16::from_be_bytes([*after.first()?, *after.get(1)?]));
    let segment = after.get(2..length.max(2))?;
    Some((marker, segment, after.get(length.max(2)..)?))
}

/// Whether the end-of-image marker is where the scans end. Most files end with it; else
/// (a movie may be appended, the tail may be zeros) the scans are walked.
fn ends_well(source: &[u8], mut scan: &[u8]) -> bool {
    if source.ends_with(&[0xFF, 0xD9]) {
        return true;
    }
    loop {
        let Some(at) = scan.iter().position(|&b| b == 0xFF) else { return false };
        let Some(from) = scan.get(at..) else { return false };
        match from.get(1) {
            Some(0xD9) => return true,
            Some(0x00 | 0x01 | 0xD0..=0xD7) => scan = from.get(2..).unwrap_or_default(),
            Some(0xFF) => scan = from.get(1..).unwrap_or_default(),
            Some(_) => match next_segment(from) {
                Some((_, _, after)) => scan = after,
                None => return false,
            },
            None => return false,
        }
    }
}
