//! The layout of a ZIP archive whose files are stored as they are.
//!
//! In: names, sizes and CRC-32s. Out: every byte of the archive that is not a file's, and where
//! the files' bytes stand between them. So the length is known before a byte is read, and any
//! part of the archive can be made without what precedes it.
//!
//! Written after PKWARE's APPNOTE 6.3.10: ZIP64 where a size or a place needs it, names in
//! UTF-8. Invariant: the same entries make the same bytes. No I/O here.

use std::collections::HashSet;
use std::ops::Range;

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use time::OffsetDateTime;

use crate::support::clock::Instant;

/// The largest number of the old format; this one means: look into the ZIP64 field.
const FULL: u64 = 0xffff_ffff;
/// The same for a count.
const MANY: usize = 0xffff;

/// Names are UTF-8.
const UTF8: u16 = 1 << 11;
const VERSION: u16 = 20;
const VERSION_64: u16 = 45;
/// Written on Unix, where the attributes are a file's mode.
const UNIX: u16 = 3 << 8;
const MODE: u32 = 0o100_644 << 16;

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 200;

/// A file that goes into an archive.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub size_bytes: u64,
    pub crc32: u32,
    pub modified_at: Instant,
}

/// A part of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Bytes(Bytes),
    /// These bytes of the n-th file.
    File(usize, Range<u64>),
}

/// An archive, laid out.
#[derive(Clone, Debug)]
pub struct Layout {
    parts: Vec<Part>,
    pub size_bytes: u64,
}

impl Layout {
    pub fn new(entries: &[Entry]) -> Layout {
        let (mut parts, mut at, mut central) = (Vec::new(), 0, BytesMut::new());
        for (n, entry) in entries.iter().enumerate() {
            central_header(&mut central, entry, at);
            let local = local_header(entry);
            at += local.len() as u64 + entry.size_bytes;
            parts.push(Part::Bytes(local));
            if entry.size_bytes > 0 {
                parts.push(Part::File(n, 0..entry.size_bytes));
            }
        }
        let central_bytes = central.len() as u64;
        end(&mut central, entries.len(), at, central_bytes);
        let size_bytes = at + central.len() as u64;
        parts.push(Part::Bytes(central.freeze()));
        Layout { parts, size_bytes }
    }

    /// Everything that is not a file's: with the files it tells two archives apart.
    pub fn frame(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().filter_map(|part| match part {
            Part::Bytes(bytes) => Some(bytes),
            Part::File(..) => None,
        })
    }

    /// These bytes of the archive.
    pub fn slice(&self, wanted: Range<u64>) -> Vec<Part> {
        let (mut found, mut at) = (Vec::new(), 0);
        for part in &self.parts {
            let size = match part {
                Part::Bytes(bytes) => bytes.len() as u64,
                Part::File(_, bytes) => bytes.end,
            };
            let from = wanted.start.clamp(at, at + size) - at;
            let to = wanted.end.clamp(at, at + size) - at;
            if from < to {
                found.push(match part {
                    Part::Bytes(bytes) => Part::Bytes(bytes.slice(from as usize..to as usize)),
                    Part::File(n, _) => Part::File(*n, from..to),
                });
            }
            at += size;
        }
        found
    }
}

/// Names as they can stand in an archive that is unpacked anywhere: none leads out of the
/// folder, none is there twice, also where capitals are not told apart.
pub fn names<'a>(wanted: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken = HashSet::new();
    let mut unique = |name: &str| {
        let (stem, extension) = match name.rfind('.').filter(|at| *at > 0) {
            Some(at) => name.split_at(at),
            None => (name, ""),
        };
        (1..=u32::MAX)
            .map(|n| if n == 1 { name.to_owned() } else { format!("{stem} ({n}){extension}") })
            .find(|name| taken.insert(name.to_lowercase()))
            .unwrap_or_default()
    };
    wanted.into_iter().map(|name| unique(&harmless(name))).collect()
}

fn harmless(name: &str) -> String {
    let plain = |c: char| if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c };
    let mut name: String = name.chars().map(plain).collect();
    if name.len() > MAX_NAME_BYTES {
        // The end says what kind of file it is.
        let extension =
            name.rfind('.').filter(|at| name.len() - at <= 20).map_or(String::new(), |at| name.split_off(at));
        while name.len() + extension.len() > MAX_NAME_BYTES {
            name.pop();
        }
        name.push_str(&extension);
    }
    let name = name.trim_end_matches(['.', ' ']);
    if name.is_empty() { "_".to_owned() } else { name.to_owned() }
}

fn local_header(entry: &Entry) -> Bytes {
    let is_large = entry.size_bytes >= FULL;
    let mut out = BytesMut::new();
    out.put_u32_le(0x0403_4b50);
    common(&mut out, entry, is_large);
    out.put_u16_le(if is_large { 20 } else { 0 });
    out.put_slice(entry.name.as_bytes());
    if is_large {
        out.put_u16_le(1);
        out.put_u16_le(16);
        out.put_u64_le(entry.size_bytes);
        out.put_u64_le(entry.size_bytes);
    }
    out.freeze()
}

fn central_header(out: &mut BytesMut, entry: &Entry, at: u64) {
    let (is_large, is_far) = (entry.size_bytes >= FULL, at >= FULL);
    let mut extra = BytesMut::new();
    if is_large || is_far {
        extra.put_u16_le(1);
        extra.put_u16_le(if is_large { 16 } else { 0 } + if is_far { 8 } else { 0 });
        if is_large {
            extra.put_u64_le(entry.size_bytes);
            extra.put_u64_le(entry.size_bytes);
        }
        if is_far {
            extra.put_u64_le(at);
        }
    }
    out.put_u32_le(0x0201_4b50);
    out.put_u16_le(UNIX | VERSION_64);
    common(out, entry, is_large || is_far);
    out.put_u16_le(extra.len() as u16);
    // No comment, on the first volume, of no special kind.
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u32_le(MODE);
    out.put_u32_le(at.min(FULL) as u32);
    out.put_slice(entry.name.as_bytes());
    out.put_slice(&extra);
}

/// What both headers say, from the version needed to the length of the name.
fn common(out: &mut BytesMut, entry: &Entry, needs_64: bool) {
    let (date, time) = dos(entry.modified_at);
    let size = entry.size_bytes.min(FULL) as u32;
    out.put_u16_le(if needs_64 { VERSION_64 } else { VERSION });
    out.put_u16_le(UTF8);
    // Stored.
    out.put_u16_le(0);
    out.put_u16_le(time);
    out.put_u16_le(date);
    out.put_u32_le(entry.crc32);
    out.put_u32_le(size);
    out.put_u32_le(size);
    out.put_u16_le(entry.name.len() as u16);
}

fn end(out: &mut BytesMut, count: usize, at: u64, bytes: u64) {
    if at >= FULL || bytes >= FULL || count >= MANY {
        out.put_u32_le(0x0606_4b50);
        out.put_u64_le(44);
        out.put_u16_le(UNIX | VERSION_64);
        out.put_u16_le(VERSION_64);
        out.put_u32_le(0);
        out.put_u32_le(0);
        out.put_u64_le(count as u64);
        out.put_u64_le(count as u64);
        out.put_u64_le(bytes);
        out.put_u64_le(at);
        out.put_u32_le(0x0706_4b50);
        out.put_u32_le(0);
        out.put_u64_le(at + bytes);
        out.put_u32_le(1);
    }
    out.put_u32_le(0x0605_4b50);
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u16_le(count.min(MANY) as u16);
    out.put_u16_le(count.min(MANY) as u16);
    out.put_u32_le(bytes.min(FULL) as u32);
    out.put_u32_le(at.min(FULL) as u32);
    out.put_u16_le(0);
}

/// Date and time as MS-DOS has them: from 1980 to 2107, to two seconds, here in UTC.
fn dos(at: Instant) -> (u16, u16) {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(at.unix_seconds()) else { return (33, 0) };
    let Ok(year) = u16::try_from(at.year() - 1980) else { return (33, 0) };
    if year > 127 {
        return (33, 0);
    }
    let date = year << 9 | u16::from(u8::from(at.month())) << 5 | u16::from(at.day());
    let time = u16::from(at.hour()) << 11 | u16::from(at.minute()) << 5 | u16::from(at.second() / 2);
    (date, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn entry(name: &str, size_bytes: u64, crc32: u32) -> Entry {
        // 2024-05-15T15:43:02Z
        Entry { name: name.to_owned(), size_bytes, crc32, modified_at: Instant(1_715_787_782_000) }
    }

    fn bytes(layout: &Layout, wanted: Range<u64>, files: &[&[u8]]) -> Vec<u8> {
        let part = |part| match part {
            Part::Bytes(bytes) => bytes.to_vec(),
            Part::File(n, range) => files[n][range.start as usize..range.end as usize].to_vec(),
        };
        layout.slice(wanted).into_iter().flat_map(part).collect()
    }

    #[test]
    fn an_archive_of_two_files() {
        let files: [&[u8]; 3] = [b"hello", b"", b"good bye"];
        let entries: Vec<_> = ["a.txt", "empty", "Zoë.txt"]
            .iter()
            .zip(files)
            .map(|(name, body)| entry(name, body.len() as u64, crc32fast::hash(body)))
            .collect();
        let layout = Layout::new(&entries);
        let whole = bytes(&layout, 0..layout.size_bytes, &files);
        assert_eq!(whole.len() as u64, layout.size_bytes);
        assert_eq!(&whole[..4], b"PK\x03\x04");
        assert_eq!(&whole[whole.len() - 22..][..4], b"PK\x05\x06");
        // Every cut of it is the same bytes.
        for from in 0..whole.len() {
            for to in [from, from + 1, (from + 40).min(whole.len()), whole.len()] {
                assert_eq!(bytes(&layout, from as u64..to as u64, &files), whole[from..to], "{from}..{to}");
            }
        }
        let mut python = std::process::Command::new("/usr/bin/python3")
            .args(["-c", "import io, sys, zipfile\nz = zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()))\nassert z.testzip() is None\nprint([(i.filename, z.read(i), i.date_time) for i in z.infolist()])"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut python.stdin.take().unwrap(), &whole).unwrap();
        let said = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
        let date = "(2024, 5, 15, 15, 43, 2)";
        assert_eq!(
            said.trim(),
            format!("[('a.txt', b'hello', {date}), ('empty', b'', {date}), ('Zoë.txt', b'good bye', {date})]")
        );
    }

    /// The frame of an archive of 15 GiB, written over a file full of holes, as Python reads it.
    #[test]
    fn an_archive_beyond_four_gibibytes() {
        let entries =
            [entry("small", 3, 1), entry("large", 5 * GIB, 2), entry("far", 7, 3), entry("both", 10 * GIB, 4)];
        let layout = Layout::new(&entries);
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut at = 0;
        for part in layout.slice(0..layout.size_bytes) {
            at += match part {
                Part::Bytes(bytes) => {
                    std::os::unix::fs::FileExt::write_all_at(file.as_file(), &bytes, at).unwrap();
                    bytes.len() as u64
                }
                Part::File(_, range) => range.end - range.start,
            };
        }
        assert_eq!(at, layout.size_bytes);
        let code = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nfor i in z.infolist(): z.open(i).close(); print(i.filename, i.file_size, i.compress_size, i.header_offset, i.CRC)";
        let said = std::process::Command::new("/usr/bin/python3").args(["-c", code]).arg(file.path()).output().unwrap();
        let lines = String::from_utf8(said.stdout).unwrap();
        let (small, large) = (30 + 5 + 3, 30 + 5 + 20 + 5 * GIB);
        let far = small + large;
        let both = far + 30 + 3 + 7;
        assert_eq!(
            lines,
            format!(
                "small 3 3 0 1\nlarge {0} {0} {small} 2\nfar 7 7 {far} 3\nboth {1} {1} {both} 4\n",
                5 * GIB,
                10 * GIB
            ),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
    }

    #[test]
    fn names_are_unique_and_stay_in_the_folder() {
        let long = format!("{}.jpeg", "é".repeat(300));
        let made =
            names(["a.jpg", "A.jpg", "a.jpg", "../../etc/passwd", "a (2).jpg", ".x", ".x", "", "..", "a\0b\n", &long]);
        assert_eq!(
            made[..10],
            [
                "a.jpg",
                "A (2).jpg",
                "a (3).jpg",
                ".._.._etc_passwd",
                "a (2) (2).jpg",
                ".x",
                ".x (2)",
                "_",
                "_ (2)",
                "a_b_"
            ]
        );
        assert!(made[10].len() <= MAX_NAME_BYTES && made[10].ends_with("é.jpeg"));
    }

    #[test]
    fn times_outside_of_what_can_be_said() {
        assert_eq!(dos(Instant(0)), (33, 0));
        assert_eq!(dos(Instant(i64::MAX)), (33, 0));
        assert_eq!(dos(Instant(1_715_787_782_000)), (44 << 9 | 5 << 5 | 15, 15 << 11 | 43 << 5 | 1));
    }
}
