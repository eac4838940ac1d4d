//! Camera raw files: the picture the camera itself made, which they carry as a JPEG.
//!
//! In: the bytes of a raw file (CR2, CR3, NEF, ARW, DNG, ORF, RW2, RAF, PEF and others that are
//! TIFF inside). Out: the slice of its largest JPEG, and a small EXIF block made of what the raw
//! file says around it.
//!
//! Invariant: reading costs no more than the tables' caps, whatever offsets and counts claim; no
//! table is read twice, so there are no loops. What comes out is a JPEG with 8 bits, a transform
//! and a size within limits, so sensor data that is compressed as lossless JPEG is never it.
//!
//! Sensor data itself is not developed: that is a matter of taste and of minutes, and cameras
//! have long stored a full-size picture beside it.

use super::Limits;
use super::container;
use super::error::ImageError;
use super::markers;

const MOST_DIRECTORIES: usize = 48;
const MOST_ENTRIES: usize = 512;
const MOST_CANDIDATES: usize = 32;
/// Of one EXIF value; longer ones (the maker's notes, the thumbnail) are left behind.
const LONGEST_VALUE_BYTES: usize = 4096;
/// Of all of them together; entries may point at the same bytes over and over.
const MOST_EXIF_BYTES: usize = 64 << 10;

const COMPRESSION: u16 = 0x0103;
const PHOTOMETRIC: u16 = 0x0106;
const MAKE: u16 = 0x010F;
const STRIP_OFFSETS: u16 = 0x0111;
const STRIP_LENGTHS: u16 = 0x0117;
const SUB_DIRECTORIES: u16 = 0x014A;
const JPEG_OFFSET: u16 = 0x0201;
const JPEG_LENGTH: u16 = 0x0202;
const XMP: u16 = 0x02BC;
const EXIF_DIRECTORY: u16 = 0x8769;
const GPS_DIRECTORY: u16 = 0x8825;
const MAKER_NOTE: u16 = 0x927C;
const DNG_VERSION: u16 = 0xC612;
/// Panasonic keeps a whole JPEG in an entry of its first directory.
const PANASONIC_JPEG: u16 = 0x002E;

/// What a raw file has for us.
pub struct Preview<'a> {
    pub jpeg: &'a [u8],
    /// A TIFF block of its own; none where the JPEG brings one.
    pub exif: Option<Vec<u8>>,
    pub xmp: Option<&'a [u8]>,
}

/// Whether these bytes, which may begin like a TIFF or an ISO container, are a raw file.
pub fn is_raw(source: &[u8]) -> bool {
    if source.starts_with(b"FUJIFILMCCD-RAW ") || source.get(4..12) == Some(b"ftypcrx ") {
        return true;
    }
    let Some(tiff) = Tiff::open(source) else { return false };
    if !tiff.is_plain || source.get(8..11) == Some(b"CR\x02") {
        return true;
    }
    let directories = tiff.directories();
    let Some(first) = directories.first() else { return false };
    let is_sensor = |directory: &Directory| {
        // Colour filter array, linear raw; then the compressions of Nikon, Sony, Samsung, Pentax.
        matches!(tiff.number(directory, PHOTOMETRIC), Some(32803 | 34892))
            || matches!(tiff.number(directory, COMPRESSION), Some(34713 | 32767 | 32769 | 32770 | 32772 | 65535))
    };
    first.find(DNG_VERSION).is_some() || (first.find(MAKE).is_some() && directories.iter().any(is_sensor))
}

/// Finds the largest picture that is a plain JPEG.
pub fn preview<'a>(source: &'a [u8], limits: &Limits) -> Result<Preview<'a>, ImageError> {
    if source.starts_with(b"FUJIFILMCCD-RAW ") {
        let number = |at: usize| source.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b) as usize);
        let jpeg = number(84).zip(number(88)).and_then(|(at, length)| piece(source, at, length));
        let jpeg = largest(jpeg.into_iter().collect(), limits)?;
        return Ok(Preview { jpeg, exif: None, xmp: None });
    }
    if source.get(4..8) == Some(b"ftyp") {
        return canon_movie(source, limits);
    }
    let tiff = Tiff::open(source).ok_or_else(|| ImageError::Damaged("raw: the header cannot be read".to_owned()))?;
    let directories = tiff.directories();
    let mut candidates = Vec::new();
    for directory in &directories {
        tiff.candidates(directory, &mut candidates);
    }
    let first = directories.first();
    let inner = |tag: u16| tiff.directory(tiff.number(first?, tag)? as usize);
    let (exif, gps) = (inner(EXIF_DIRECTORY), inner(GPS_DIRECTORY));
    if let Some(exif) = &exif {
        tiff.olympus(exif, &mut candidates);
    }
    let xmp = first.and_then(|first| tiff.value(first.find(XMP)?)).filter(|xmp| xmp.len() <= limits.max_text_bytes);
    let block =
        gather(&tiff, first.map(|d| (&tiff, d)), exif.as_ref().map(|d| (&tiff, d)), gps.as_ref().map(|d| (&tiff, d)));
    Ok(Preview { jpeg: largest(candidates, limits)?, exif: Some(block), xmp })
}

/// CR3: an ISO container whose EXIF lies in four little TIFF files.
fn canon_movie<'a>(source: &'a [u8], limits: &Limits) -> Result<Preview<'a>, ImageError> {
    const CANON: &[u8] = b"\x85\xc0\xb6\x87\x82\x0f\x11\xe0\x81\x11\xf4\xce\x46\x2b\x6a\x48";
    const PREVIEW: &[u8] = b"\xea\xf4\x2b\x5e\x1c\x98\x4b\x88\xb9\xfb\xb7\xdc\x40\x6e\x4d\x16";
    let boxes = |bytes: &'a [u8], wanted: &'static [u8; 4]| {
        container::boxes(bytes).take(MOST_ENTRIES).filter(move |(kind, _)| *kind == wanted).map(|(_, body)| body)
    };
    let mut candidates = Vec::new();
    for body in boxes(source, b"uuid").filter_map(|body| body.strip_prefix(PREVIEW)) {
        // Eight bytes whose meaning is not known stand before the boxes.
        candidates.extend(body.get(8..).and_then(|inner| boxes(inner, b"PRVW").next()).and_then(after_header));
    }
    let movie = boxes(source, b"moov").next().unwrap_or_default();
    for track in boxes(movie, b"trak").take(MOST_CANDIDATES) {
        candidates.extend(first_sample(source, track));
    }
    let canon = boxes(movie, b"uuid").find_map(|body| body.strip_prefix(CANON)).unwrap_or_default();
    candidates.extend(boxes(canon, b"THMB").next().and_then(after_header));
    let tables = [b"CMT1", b"CMT2", b"CMT4"].map(|kind| boxes(canon, kind).next().and_then(Tiff::open));
    let firsts =
        tables.each_ref().map(|table| table.as_ref().and_then(|table| Some((table, table.directory(table.first)?))));
    let [main, exif, gps] = firsts.each_ref().map(|found| found.as_ref().map(|(tiff, directory)| (*tiff, directory)));
    // The tables are of one byte order; one that is not would be read wrongly, so it is left out.
    let like_main =
        |found: &(&Tiff<'_>, &Directory)| main.is_some_and(|(tiff, _)| tiff.big_endian == found.0.big_endian);
    let block = main.map(|(tiff, _)| gather(tiff, main, exif.filter(like_main), gps.filter(like_main)));
    Ok(Preview { jpeg: largest(candidates, limits)?, exif: block, xmp: None })
}

/// A JPEG behind a short header of fixed fields.
fn after_header(body: &[u8]) -> Option<&[u8]> {
    const LONGEST_HEADER_BYTES: usize = 32;
    let head = body.get(..LONGEST_HEADER_BYTES)?;
    body.get(head.windows(3).position(|bytes| bytes == b"\xff\xd8\xff")?..)
}

/// The first sample of a track, which is a whole picture.
fn first_sample<'a>(source: &'a [u8], track: &[u8]) -> Option<&'a [u8]> {
    let mut table = track;
    for kind in [b"mdia", b"minf", b"stbl"] {
        table = container::boxes(table).find(|(found, _)| *found == kind)?.1;
    }
    let field = |kind: &[u8; 4]| container::boxes(table).find(|(found, _)| *found == kind).map(|(_, body)| body);
    let long = |body: &[u8], at: usize| body.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b) as usize);
    let sizes = field(b"stsz")?;
    let length = long(sizes, 4).filter(|n| *n > 0).or_else(|| long(sizes, 12))?;
    let at = match field(b"co64") {
        Some(offsets) => usize::try_from(u64::from_be_bytes(*offsets.get(8..)?.first_chunk()?)).ok()?,
        None => long(field(b"stco")?, 8)?,
    };
    piece(source, at, length)
}

/// The bytes from here on, fewer if the file ends before; nothing if no JPEG begins here.
fn piece(source: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    let rest = source.get(at..)?;
    rest.get(..length.min(rest.len())).filter(|bytes| bytes.starts_with(b"\xff\xd8\xff"))
}

fn largest<'a>(mut candidates: Vec<&'a [u8]>, limits: &Limits) -> Result<&'a [u8], ImageError> {
    candidates.truncate(MOST_CANDIDATES);
    let mut too_large = None;
    let mut best: Option<(u64, &[u8])> = None;
    for jpeg in candidates {
        let Some(found) = markers::read(jpeg, limits).filter(|found| found.is_plain) else { continue };
        let pixels = u64::from(found.width) * u64::from(found.height);
        match limits.check(found.width, found.height) {
            Ok(()) if best.is_none_or(|(most, _)| pixels > most) => best = Some((pixels, jpeg)),
            Ok(()) => {}
            Err(error) => too_large = Some(error),
        }
    }
    let none = || ImageError::Unsupported("raw file without a preview".to_owned());
    best.map(|(_, jpeg)| jpeg).ok_or_else(|| too_large.unwrap_or_else(none))
}

/// One entry of a directory; its value is looked up when it is wanted.
#[derive(Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    /// Where the value lies: within the entry if it is short, else where the entry points to.
    at: usize,
}

impl Entry {
    fn size(self) -> Option<usize> {
        let unit: usize = match self.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 => 8,
            _ => return None,
        };
        self.count.checked_mul(unit)
    }
}

#[derive(Default)]
struct Directory {
    entries: Vec<Entry>,
    next: usize,
}

impl Directory {
    fn find(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.tag == tag).copied()
    }
}

/// The tables of a TIFF, or of a file built like one.
struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    first: usize,
    /// Whether the header is that of TIFF itself, not a maker's variant of it.
    is_plain: bool,
}

impl<'a> Tiff<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let (big_endian, is_plain) = match bytes.get(..4)? {
            b"II*\0" => (false, true),
            b"MM\0*" => (true, true),
            // Olympus, Panasonic.
            b"IIRO" | b"IIRS" | b"IIU\0" => (false, false),
            b"MMOR" => (true, false),
            _ => return None,
        };
        let mut tiff = Self { bytes, big_endian, first: 0, is_plain };
        tiff.first = tiff.long(4)? as usize;
        Some(tiff)
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// The chain of directories and all beneath them, each once.
    fn directories(&self) -> Vec<Directory> {
        let mut seen = Vec::new();
        let mut waiting = vec![self.first];
        let mut found = Vec::new();
        while let Some(at) = waiting.pop() {
            if seen.contains(&at) || found.len() >= MOST_DIRECTORIES {
                continue;
            }
            seen.push(at);
            let Some(directory) = self.directory(at) else { continue };
            // The chain is followed before what lies beneath, so the first comes out first.
            if let Some(beneath) = directory.find(SUB_DIRECTORIES) {
                waiting.extend(self.numbers(beneath).map(|at| at as usize));
            }
            if directory.next != 0 {
                waiting.push(directory.next);
            }
            found.push(directory);
        }
        found
    }

    fn directory(&self, at: usize) -> Option<Directory> {
        self.directory_from(at, 0)
    }

    /// A directory whose pointers count from `base`.
    fn directory_from(&self, at: usize, base: usize) -> Option<Directory> {
        let count = usize::from(self.short(at)?);
        let mut directory = Directory::default();
        for n in 0..count.min(MOST_ENTRIES) {
            let entry_at = at + 2 + n * 12;
            let (Some(tag), Some(kind), Some(count)) =
                (self.short(entry_at), self.short(entry_at + 2), self.long(entry_at + 4))
            else {
                break;
            };
            let mut entry = Entry { tag, kind, count: count as usize, at: entry_at + 8 };
            if entry.size().is_some_and(|size| size > 4) {
                entry.at = base.saturating_add(self.long(entry_at + 8)? as usize);
            }
            directory.entries.push(entry);
        }
        directory.next = self.long(at + 2 + count * 12).unwrap_or(0) as usize;
        Some(directory)
    }

    fn value(&self, entry: Entry) -> Option<&'a [u8]> {
        self.bytes.get(entry.at..entry.at.checked_add(entry.size()?)?)
    }

    /// Whole numbers of an entry, a bounded number of them.
    fn numbers(&self, entry: Entry) -> impl Iterator<Item = u32> {
        (0..entry.count.min(MOST_DIRECTORIES)).map_while(move |n| match entry.kind {
            3 => self.short(entry.at.checked_add(n * 2)?).map(u32::from),
            4 | 13 => self.long(entry.at.checked_add(n * 4)?),
            _ => None,
        })
    }

    fn number(&self, directory: &Directory, tag: u16) -> Option<u32> {
        self.numbers(directory.find(tag)?).next()
    }

    /// Adds the pictures of a directory that begin like a JPEG.
    fn candidates(&self, directory: &Directory, found: &mut Vec<&'a [u8]>) {
        let pair = |at: u16, length: u16| {
            Some((self.number(directory, at)? as usize, self.number(directory, length)? as usize))
        };
        if let Some((at, length)) = pair(JPEG_OFFSET, JPEG_LENGTH) {
            found.extend(piece(self.bytes, at, length));
        }
        let is_one_strip = directory.find(STRIP_OFFSETS).is_some_and(|entry| entry.count == 1);
        if let Some((at, length)) = pair(STRIP_OFFSETS, STRIP_LENGTHS).filter(|_| is_one_strip) {
            found.extend(piece(self.bytes, at, length));
        }
        if let Some(entry) = directory.find(PANASONIC_JPEG).filter(|_| !self.is_plain) {
            found.extend(piece(self.bytes, entry.at, entry.size().unwrap_or(0)));
        }
    }

    /// Adds the preview that Olympus hides in its notes.
    fn olympus(&self, exif: &Directory, found: &mut Vec<&'a [u8]>) {
        const CAMERA_SETTINGS: u16 = 0x2020;
        const PREVIEW_OFFSET: u16 = 0x0101;
        const PREVIEW_LENGTH: u16 = 0x0102;
        let mut read = || {
            let notes = exif.find(MAKER_NOTE)?;
            let header = match self.value(notes)? {
                notes if notes.starts_with(b"OLYMPUS\0") => 12,
                notes if notes.starts_with(b"OM SYSTEM\0") => 16,
                _ => return None,
            };
            let base = notes.at;
            let settings = self.directory_from(base + header, base)?.find(CAMERA_SETTINGS)?;
            let settings = match settings.kind {
                13 => base.checked_add(self.long(settings.at)? as usize)?,
                _ => settings.at,
            };
            let settings = self.directory_from(settings, base)?;
            let at = base.checked_add(self.number(&settings, PREVIEW_OFFSET)? as usize)?;
            found.extend(piece(self.bytes, at, self.number(&settings, PREVIEW_LENGTH)? as usize));
            Some(())
        };
        read();
    }
}

/// Makes one small TIFF block of these directories, without what points into the raw file.
fn gather(
    like: &Tiff<'_>,
    main: Option<(&Tiff<'_>, &Directory)>,
    exif: Option<(&Tiff<'_>, &Directory)>,
    gps: Option<(&Tiff<'_>, &Directory)>,
) -> Vec<u8> {
    const LONG: u16 = 4;
    let short = |n: u16| if like.big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let long = |n: usize| if like.big_endian { (n as u32).to_be_bytes() } else { (n as u32).to_le_bytes() };
    let mut block = if like.big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
    block.extend([0; 4]);
    let mut pointers: Vec<(u16, usize)> = Vec::new();
    for (tag, found) in [(Some(EXIF_DIRECTORY), exif), (Some(GPS_DIRECTORY), gps), (None, main)] {
        let mut entries: Vec<(u16, u16, usize, [u8; 4])> = Vec::new();
        for entry in found.iter().flat_map(|(_, directory)| &directory.entries) {
            let Some(value) = found.and_then(|(tiff, _)| tiff.value(*entry)) else { continue };
            let points = matches!(entry.tag, EXIF_DIRECTORY | GPS_DIRECTORY | SUB_DIRECTORIES | MAKER_NOTE)
                || matches!(entry.tag, STRIP_OFFSETS | STRIP_LENGTHS | JPEG_OFFSET | JPEG_LENGTH | XMP);
            if points || value.len() > LONGEST_VALUE_BYTES || block.len() + value.len() > MOST_EXIF_BYTES {
                continue;
            }
            let mut field = [0; 4];
            if let Some(place) = field.get_mut(..value.len()) {
                place.copy_from_slice(value);
            } else {
                field = long(block.len());
                block.extend(value);
                block.resize(block.len().next_multiple_of(2), 0);
            }
            entries.push((entry.tag, entry.kind, entry.count, field));
        }
        if tag.is_none() {
            entries.extend(pointers.iter().map(|&(tag, at)| (tag, LONG, 1, long(at))));
        }
        entries.sort_by_key(|(tag, ..)| *tag);
        let at = block.len();
        match tag {
            Some(tag) if !entries.is_empty() => pointers.push((tag, at)),
            Some(_) => continue,
            None => {
                if let Some(first) = block.get_mut(4..8) {
                    first.copy_from_slice(&long(at));
                }
            }
        }
        block.extend(short(entries.len() as u16));
        for (tag, kind, count, field) in entries {
            block.extend([short(tag), short(kind)].concat());
            block.extend([long(count), field].concat());
        }
        block.extend([0; 4]);
    }
    block
}

#[cfg(test)]
mod tests;
