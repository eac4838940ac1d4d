//! Whether a file is as long as its own header says.
//!
//! In: the path of a recording or a film. Out: yes or no, from the first few kilobytes.
//!
//! Asked of what GStreamer's demuxers do not tell: of WAV, AVI and MP3 they believe the file's size
//! instead of the header's count, and play what there is as if it were all. For other kinds the
//! time that was played is compared with the time that was promised, which needs nothing from here.
//! A header that cannot be read is no sign of anything: the answer is then no.

use std::fs::File;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;

/// Some encoders of MP3 count a little more than they write.
const MP3_SLACK: f64 = 0.02;

/// Whether the header counts more bytes than there are.
pub fn is_cut_off(source: &Path) -> bool {
    counts_more(source).unwrap_or_default()
}

fn counts_more(source: &Path) -> Option<bool> {
    let mut file = File::open(source).ok()?;
    let size = file.metadata().ok()?.len();
    let mut head = [0; 4096];
    let read = fill(&mut file, &mut head)?;
    if read.starts_with(b"RIFF") {
        return match read.get(8..12)? {
            b"WAVE" => data_of_wav(read, size),
            // The first of one or several; the header of a film from 2 GB on counts its first part alone.
            b"AVI " => Some(more(8, length(read, 4)?, size)),
            _ => None,
        };
    }
    if read.starts_with(b"ID3") {
        // Seven bits to a byte.
        let tag = read.get(6..10)?.iter().fold(0_u64, |size, &byte| size << 7 | u64::from(byte & 0x7f));
        file.seek(SeekFrom::Start(tag + 10)).ok()?;
        return mp3(fill(&mut file, &mut head)?, tag + 10, size);
    }
    mp3(read, 0, size)
}

/// WAV: the samples' own chunk, as what follows it is not worth a warning.
fn data_of_wav(head: &[u8], size: u64) -> Option<bool> {
    let mut at = 12;
    loop {
        let chunk = head.get(at..at + 8)?;
        let length = length(chunk, 4)?;
        if chunk.starts_with(b"data") {
            return Some(more(at as u64 + 8, length, size));
        }
        at += 8 + length.next_multiple_of(2) as usize;
    }
}

/// MP3: the count that LAME and others put into the first frame.
fn mp3(head: &[u8], start: u64, size: u64) -> Option<bool> {
    let at = head.windows(4).position(|four| four == b"Xing" || four == b"Info")?;
    let word = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk::<4>()?));
    let flags = word(at + 4)?;
    let bytes = if flags & 2 == 0 { return None } else { word(at + 8 + if flags & 1 == 0 { 0 } else { 4 })? };
    Some((start + u64::from(bytes)) as f64 * (1.0 - MP3_SLACK) > size as f64)
}

fn length(riff: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*riff.get(at..)?.first_chunk::<4>()?))
}

/// Recorders that do not know their length write nothing, or as much as they can; and the byte that
/// makes a length even may be missing at the end.
fn more(start: u64, length: u32, size: u64) -> bool {
    length > 0 && length < 0xffff_0000 && start + u64::from(length) > size + 1
}

fn fill<'a>(file: &mut File, head: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).ok()? {
            0 => break,
            some => filled += some,
        }
    }
    head.get(..filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(bytes: &[u8]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        is_cut_off(&path)
    }

    fn riff(kind: &[u8], said: u32, rest: &[u8]) -> Vec<u8> {
        [b"RIFF", &said.to_le_bytes()[..], kind, rest].concat()
    }

    #[test]
    fn a_film_is_as_long_as_its_header_says() {
        let rest = [7; 1000];
        for (said, cut) in [(1004, false), (1005, false), (1006, true), (0, false), (u32::MAX, false)] {
            assert_eq!(judged(&riff(b"AVI ", said, &rest)), cut, "{said}");
        }
    }

    #[test]
    fn a_recording_lacks_samples_or_only_what_follows_them() {
        let data = |said: u32| [b"fmt \x02\0\0\0\0\0data", &said.to_le_bytes()[..], &[0; 100]].concat();
        for (said, cut) in [(101, false), (102, true), (90, false), (0, false)] {
            assert_eq!(judged(&riff(b"WAVE", 9999, &data(said))), cut, "{said}");
        }
    }

    #[test]
    fn a_count_of_an_mp3_may_be_a_little_high() {
        let file = |bytes: u32| [b"\xff\xfb\x90\0Info\0\0\0\x02", &bytes.to_be_bytes()[..], &[0; 984]].concat();
        assert_eq!([1000, 1015, 1100].map(|bytes| judged(&file(bytes))), [false, false, true]);
        let tagged = [b"ID3\x04\0\0\0\0\0\x05-----", &file(1000)[..]].concat();
        assert!(!judged(&tagged));
        assert!(judged(&tagged[..900]));
    }

    #[test]
    fn what_cannot_be_read_is_no_sign() {
        for bytes in [&b""[..], b"RIFF", b"RIFF\xff\0\0\0", b"ID3", b"RIFF\xff\0\0\0WAVEdata"] {
            assert!(!judged(bytes), "{bytes:?}");
        }
        assert!(!is_cut_off(Path::new("/nowhere")));
    }
}
