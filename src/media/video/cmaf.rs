//! Bringing the pictures of a stream to where they belong, whoever reads it.
//!
//! In: the header and the segments of one video track, as `cmafmux` writes them. Out: the same
//! files, in place, with pictures that are reordered said another way.
//!
//! A picture is decoded before it is shown. `cmafmux` lets both begin at zero and gives pictures
//! that are shown early a negative offset (ISO/IEC 14496-12, `trun` of version 1). ffmpeg and
//! GStreamer then take all pictures to be that much later and show them after their sound. So
//! every offset is made as much larger as the most negative one needs, and an edit list in the
//! header (`elst`) says to begin there, which browsers, ffmpeg and GStreamer all heed.
//!
//! Invariant: only numbers in `trun` change in a segment, so that its length and all places in it
//! stay; a file that is not understood is not touched, and said to be.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;

/// More than a head with the samples of a minute.
const MOST_HEAD_BYTES: u64 = 1 << 20;

const COMPOSITION_OFFSETS: u32 = 0x800;

/// Rewrites a track; without reordering there is nothing to do.
pub fn begin_at_zero(header: &Path, segments: &[PathBuf]) -> io::Result<()> {
    let mut heads = Vec::new();
    let mut earliest = 0;
    for path in segments {
        let head = head(path)?;
        let places = offsets(&head)?;
        earliest = places.iter().map(|&(_, offset)| offset).min().unwrap_or(0).min(earliest);
        heads.push((path, head, places));
    }
    if earliest == 0 {
        return Ok(());
    }
    for (path, mut head, places) in heads {
        for (at, offset) in places {
            let later = offset.checked_sub(earliest).ok_or_else(odd)?;
            head.get_mut(at..at + 4).ok_or_else(odd)?.copy_from_slice(&later.to_be_bytes());
        }
        OpenOptions::new().write(true).open(path)?.write_all_at(&head, 0)?;
    }
    fs::write(header, edited(&fs::read(header)?, earliest.unsigned_abs())?)
}

/// Everything of a segment that stands before its samples.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(MOST_HEAD_BYTES).read_to_end(&mut start)?;
    let end = boxes(&start, 0, start.len()).into_iter().find(|b| &b.kind == b"moof").ok_or_else(odd)?.end;
    if end > start.len() {
        return Err(odd());
    }
    start.truncate(end);
    Ok(start)
}

/// Where the offsets of pictures stand, and what they are.
fn offsets(head: &[u8]) -> io::Result<Vec<(usize, i32)>> {
    let mut found = Vec::new();
    for run in within(head, &[b"moof", b"traf", b"trun"]) {
        let word = |at: usize| {
            let bytes = head.get(at..at + 4).filter(|_| at + 4 <= run.end).ok_or_else(odd)?;
            Ok::<_, io::Error>(u32::from_be_bytes(bytes.try_into().map_err(|_| odd())?))
        };
        let flags = word(run.body)?;
        let samples = word(run.body + 4)?;
        if flags & COMPOSITION_OFFSETS == 0 {
            continue;
        }
        let first = run.body + 8 + 4 * (flags & 0x5).count_ones() as usize;
        let each = 4 * (flags & 0xf00).count_ones() as usize;
        let before = 4 * (flags & 0x700).count_ones() as usize;
        for sample in 0..samples as usize {
            let at = first + sample * each + before;
            found.push((at, word(at)?.cast_signed()));
        }
    }
    Ok(found)
}

/// A header whose only track begins `ticks` after its first picture would.
fn edited(header: &[u8], ticks: u32) -> io::Result<Vec<u8>> {
    let movie = within(header, &[b"moov"]).into_iter().next().ok_or_else(odd)?;
    let track = within(header, &[b"moov", b"trak"]).into_iter().next().ok_or_else(odd)?;
    let media = within(header, &[b"moov", b"trak", b"mdia"]).into_iter().next().ok_or_else(odd)?;
    let mut list = Vec::new();
    // One edit, as long as there is something (0), from that instant, at its own speed.
    for word in [36, u32::from_be_bytes(*b"edts"), 28, u32::from_be_bytes(*b"elst"), 0, 1, 0, ticks, 0x0001_0000] {
        list.extend_from_slice(&word.to_be_bytes());
    }
    let mut out = Vec::with_capacity(header.len() + list.len());
    out.extend_from_slice(header.get(..media.start).ok_or_else(odd)?);
    out.extend_from_slice(&list);
    out.extend_from_slice(header.get(media.start..).ok_or_else(odd)?);
    for outer in [movie, track] {
        let size = u32::try_from(outer.end - outer.start + list.len()).map_err(|_| odd())?;
        out.get_mut(outer.start..outer.start + 4).ok_or_else(odd)?.copy_from_slice(&size.to_be_bytes());
    }
    Ok(out)
}

#[derive(Clone, Copy)]
struct Place {
    kind: [u8; 4],
    start: usize,
    body: usize,
    end: usize,
}

/// All boxes at the end of this path.
fn within(bytes: &[u8], path: &[&[u8; 4]]) -> Vec<Place> {
    let mut found = vec![Place { kind: *b"file", start: 0, body: 0, end: bytes.len() }];
    for kind in path {
        let inner = found.iter().flat_map(|outer| boxes(bytes, outer.body, outer.end));
        found = inner.filter(|b| b.kind == **kind).collect();
    }
    found
}

/// The boxes between two places; what has no proper size ends the list.
fn boxes(bytes: &[u8], mut at: usize, end: usize) -> Vec<Place> {
    let mut found = Vec::new();
    while let Some([a, b, c, d, kind @ ..]) = bytes.get(at..at + 8).and_then(|head| <[u8; 8]>::try_from(head).ok()) {
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        if size < 8 || at + 8 > end {
            break;
        }
        found.push(Place { kind, start: at, body: at + 8, end: at + size });
        at += size;
    }
    found
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a segment is not laid out as segments are here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut out = (body.len() as u32 + 8).to_be_bytes().to_vec();
        out.extend_from_slice(&kind);
        out.extend_from_slice(body);
        out
    }

    /// Size and offset of each sample.
    fn segment(samples: &[(u32, i32)]) -> Vec<u8> {
        let mut run = 0x0100_0a01_u32.to_be_bytes().to_vec();
        run.extend_from_slice(&(samples.len() as u32).to_be_bytes());
        run.extend_from_slice(&100u32.to_be_bytes());
        for (size, offset) in samples {
            run.extend_from_slice(&size.to_be_bytes());
            run.extend_from_slice(&offset.to_be_bytes());
        }
        let track = [boxed(*b"tfhd", &[0; 8]), boxed(*b"trun", &run)].concat();
        let fragment = [boxed(*b"mfhd", &[0; 8]), boxed(*b"traf", &track)].concat();
        [boxed(*b"styp", b"msdh"), boxed(*b"moof", &fragment), boxed(*b"mdat", &[7; 50])].concat()
    }

    fn header() -> Vec<u8> {
        let track = [boxed(*b"tkhd", &[1; 20]), boxed(*b"mdia", &[2; 30])].concat();
        [boxed(*b"ftyp", b"cmf2"), boxed(*b"moov", &[boxed(*b"mvhd", &[3; 9]), boxed(*b"trak", &track)].concat())]
            .concat()
    }

    #[test]
    fn offsets_become_positive_and_an_edit_takes_them_back() {
        let folder = tempfile::tempdir().unwrap();
        let init = folder.path().join("init.mp4");
        let paths = [folder.path().join("1"), folder.path().join("2")];
        fs::write(&init, header()).unwrap();
        fs::write(&paths[0], segment(&[(9, 0), (8, 300), (7, 0), (6, -100)])).unwrap();
        fs::write(&paths[1], segment(&[(9, 0), (8, -200)])).unwrap();
        begin_at_zero(&init, &paths).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), segment(&[(9, 200), (8, 500), (7, 200), (6, 100)]));
        assert_eq!(fs::read(&paths[1]).unwrap(), segment(&[(9, 200), (8, 0)]));
        let edited = fs::read(&init).unwrap();
        let lists = within(&edited, &[b"moov", b"trak", b"edts", b"elst"]);
        assert_eq!(
            &edited[lists[0].body..lists[0].end],
            [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 200, 0, 1, 0, 0]
        );
        assert_eq!(within(&edited, &[b"moov", b"trak", b"mdia"])[0].end, edited.len());
        // A second time there is nothing left to do.
        begin_at_zero(&init, &paths).unwrap();
        assert_eq!(fs::read(&init).unwrap(), edited);
    }

    #[test]
    fn what_is_not_understood_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let init = folder.path().join("init.mp4");
        let path = folder.path().join("1");
        fs::write(&init, header()).unwrap();
        let whole = segment(&[(9, 0), (8, -100)]);
        for cut in [0, 7, 12, 60, whole.len() - 70] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(begin_at_zero(&init, std::slice::from_ref(&path)).is_err(), "{cut}");
            assert_eq!(fs::read(&init).unwrap(), header());
        }
    }
}
