//! HTTP Live Streaming: segments as they come out of muxers, and the playlists that name them.
//!
//! In: fragments of CMAF, one stream to a [`Track`], each a whole segment. Out: below `hls/`, for
//! each track a folder with `init.mp4`, `000001.m4s`… and `playlist.m3u8`, and over them
//! `playlist.m3u8`, which names the variants and the sound they share.
//!
//! Invariant: what a playlist says was measured: lengths are the sums of the samples', the
//! bandwidth is the peak of the segments that were written (RFC 8216, 4.3.4.2), the codecs are
//! those in the headers. The master playlist is written last.
//!
//! The playlists are written here and not by `hlscmafsink`, which knows one stream at a time and
//! rounds.

use std::fmt::Write as _;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use gstreamer as gst;

use super::MadeHls;
use super::VideoError;
use super::cmaf;
use super::ladder::Rate;

/// Length of a segment that is aimed at; groups of pictures add up to it.
pub const SEGMENT_SECONDS: u64 = 6;

/// A stream that becomes segments.
#[derive(Debug)]
pub struct Track {
    folder: PathBuf,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    init_bytes: u64,
    segments: Vec<Segment>,
    /// As RFC 6381 has it.
    codec: Option<String>,
    fault: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    nanoseconds: u64,
    bytes: u64,
}

/// A rung of the ladder.
#[derive(Debug)]
pub struct Variant<'a> {
    pub lines: u32,
    pub width: u32,
    pub height: u32,
    pub track: &'a Track,
}

/// What flows, in bit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    peak: u64,
    mean: u64,
}

impl Track {
    /// Makes the folder. `name` stands below `hls/`.
    pub fn new(folder: &Path, name: &str) -> Result<Self, VideoError> {
        let folder = folder.join("hls").join(name);
        fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, &error))?;
        Ok(Self { folder, written: Mutex::default() })
    }

    /// Writes what a muxer gave: a header, a fragment, or both.
    pub fn take(&self, sample: &gst::Sample) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut written = self.lock();
        let taken = match (sample.buffer_list(), sample.buffer()) {
            (Some(list), _) => self.write(&mut written, list.iter()),
            (None, Some(buffer)) => self.write(&mut written, std::iter::once(buffer)),
            (None, None) => Ok(()),
        };
        taken.map(|()| gst::FlowSuccess::Ok).map_err(|error| {
            written.fault = Some(format!("{}: {error}", self.folder.display()));
            gst::FlowError::Error
        })
    }

    /// Notes the codec from what a muxer is given.
    pub fn know(&self, caps: &gst::CapsRef) {
        if let Some(codec) = codec(caps) {
            self.lock().codec = Some(codec);
        }
    }

    /// Has its pictures begin when its sound does, whoever reads them. Everything is written.
    fn settle(&self) -> Result<(), VideoError> {
        let mut written = self.lock();
        let header = self.folder.join("init.mp4");
        let segments: Vec<_> = (0..written.segments.len()).map(|at| self.folder.join(file_name(at))).collect();
        cmaf::begin_at_zero(&header, &segments).map_err(|error| unwritable(&self.folder, &error))?;
        written.init_bytes = fs::metadata(&header).map_err(|error| unwritable(&header, &error))?.len();
        Ok(())
    }

    /// Why nothing could be written.
    pub fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    fn write<'a>(&self, written: &mut Written, buffers: impl Iterator<Item = &'a gst::BufferRef>) -> io::Result<()> {
        let mut segment: Option<(File, Segment)> = None;
        for buffer in buffers {
            let map = buffer.map_readable().map_err(|error| io::Error::other(error.to_string()))?;
            if buffer.flags().contains(gst::BufferFlags::HEADER | gst::BufferFlags::DISCONT) {
                fs::write(self.folder.join("init.mp4"), &map)?;
                written.init_bytes = map.len() as u64;
                continue;
            }
            if segment.is_none() {
                // The first buffer of a fragment lasts as long as all of it.
                let nanoseconds = buffer.duration().map_or(0, gst::ClockTime::nseconds);
                let file = File::create(self.folder.join(file_name(written.segments.len())))?;
                segment = Some((file, Segment { nanoseconds, bytes: 0 }));
            }
            let Some((file, counted)) = &mut segment else { continue };
            file.write_all(&map)?;
            counted.bytes += map.len() as u64;
        }
        written.segments.extend(segment.map(|(_, counted)| counted));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all playlists. Variants ascend.
pub fn finish(
    folder: &Path,
    variants: &[Variant<'_>],
    sound: Option<&Track>,
    rate: Rate,
    nanoseconds: u64,
) -> Result<MadeHls, VideoError> {
    let folder = folder.join("hls");
    let mut made = MadeHls {
        width: variants.last().map_or(0, |variant| variant.width),
        height: variants.last().map_or(0, |variant| variant.height),
        duration_seconds: nanoseconds as f64 / 1e9,
        size_bytes: 0,
        files: Vec::new(),
    };
    for variant in variants {
        variant.track.settle()?;
    }
    let named = variants.iter().map(|variant| (rung(variant.lines), variant.track));
    let tracks: Vec<_> = named.chain(sound.map(|track| ("audio".to_owned(), track))).collect();
    let mut lists = Vec::new();
    for (name, track) in &tracks {
        let written = track.lock();
        if written.init_bytes == 0 || written.segments.is_empty() {
            return Err(VideoError::Internal(format!("nothing was written for hls/{name}")));
        }
        made.files.push(format!("{name}/init.mp4"));
        made.files.extend((0..written.segments.len()).map(|at| format!("{name}/{}", file_name(at))));
        made.size_bytes += written.init_bytes + written.segments.iter().map(|segment| segment.bytes).sum::<u64>();
        lists.push((format!("{name}/playlist.m3u8"), media(&written.segments)));
    }
    lists.push(("playlist.m3u8".to_owned(), master(variants, sound, rate)?));
    for (name, text) in lists {
        let path = folder.join(&name);
        fs::write(&path, &text).map_err(|error| unwritable(&path, &error))?;
        made.size_bytes += text.len() as u64;
        made.files.push(name);
    }
    Ok(made)
}

/// The folder of a variant.
pub fn rung(lines: u32) -> String {
    format!("{lines}p")
}

/// One track's playlist.
fn media(segments: &[Segment]) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "#EXT-X-TARGETDURATION:{}", target(segments));
    text.push_str("#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    text.push_str("#EXT-X-MAP:URI=\"init.mp4\"\n");
    let mut end = 0;
    for (at, segment) in segments.iter().enumerate() {
        // Rounded where it ends, so that the rounding does not add up.
        let begins = (end + 500) / 1000;
        end += segment.nanoseconds;
        let micros = (end + 500) / 1000 - begins;
        let _ = writeln!(text, "#EXTINF:{}.{:06},\n{}", micros / 1_000_000, micros % 1_000_000, file_name(at));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// The playlist over all.
fn master(variants: &[Variant<'_>], sound: Option<&Track>, rate: Rate) -> Result<String, VideoError> {
    let known = |track: &Track| {
        let written = track.lock();
        let codec = written.codec.clone();
        codec
            .zip(flow(&written.segments))
            .ok_or_else(|| VideoError::Internal(format!("{} has no known codec", track.folder.display())))
    };
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let heard = sound.map(known).transpose()?;
    if heard.is_some() {
        let _ = writeln!(
            text,
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"Audio\",DEFAULT=YES,AUTOSELECT=YES,\
             CHANNELS=\"{}\",URI=\"audio/playlist.m3u8\"",
            super::sound::CHANNELS
        );
    }
    for variant in variants {
        let (mut codecs, mut flow) = known(variant.track)?;
        if let Some((codec, with)) = &heard {
            let _ = write!(codecs, ",{codec}");
            flow = Flow { peak: flow.peak + with.peak, mean: flow.mean + with.mean };
        }
        let _ = write!(
            text,
            "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{codecs}\",RESOLUTION={}x{},\
             FRAME-RATE={:.3},VIDEO-RANGE=SDR,CLOSED-CAPTIONS=NONE",
            flow.peak,
            flow.mean,
            variant.width,
            variant.height,
            rate.per_second()
        );
        if heard.is_some() {
            text.push_str(",AUDIO=\"audio\"");
        }
        let _ = writeln!(text, "\n{}/playlist.m3u8", rung(variant.lines));
    }
    Ok(text)
}

/// No segment is longer than that, when both are rounded to seconds.
fn target(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| (segment.nanoseconds + 500_000_000) / 1_000_000_000).max().unwrap_or(0).max(1)
}

/// The peak over segments in a row that last between half and one and a half times the target, and
/// the mean over all.
fn flow(segments: &[Segment]) -> Option<Flow> {
    let target = target(segments) * 1_000_000_000;
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let nanoseconds: u64 = segments.iter().map(|segment| segment.nanoseconds).sum();
    let mean = per_second(bytes, nanoseconds)?;
    let mut peak = 0;
    for first in 0..segments.len() {
        let (mut bytes, mut nanoseconds) = (0, 0);
        for segment in segments.iter().skip(first) {
            bytes += segment.bytes;
            nanoseconds += segment.nanoseconds;
            if nanoseconds * 2 > target * 3 {
                break;
            }
            if nanoseconds * 2 >= target {
                peak = peak.max(per_second(bytes, nanoseconds)?);
            }
        }
    }
    // A film that is shorter than half a segment has no such row.
    Some(Flow { peak: peak.max(mean), mean })
}

/// In bit/s, rounded up.
fn per_second(bytes: u64, nanoseconds: u64) -> Option<u64> {
    let bits = u128::from(bytes) * 8 * 1_000_000_000;
    (nanoseconds > 0).then(|| bits.div_ceil(u128::from(nanoseconds)) as u64)
}

/// What RFC 6381 calls a stream of these caps.
fn codec(caps: &gst::CapsRef) -> Option<String> {
    let structure = caps.structure(0)?;
    let header = structure.get::<gst::Buffer>("codec_data").ok()?;
    let map = header.map_readable().ok()?;
    match structure.name().as_str() {
        "video/x-h264" => {
            let [_, profile, limits, level, ..] = map.as_slice() else { return None };
            Some(format!("avc1.{profile:02X}{limits:02X}{level:02X}"))
        }
        "audio/mpeg" => map.first().map(|first| format!("mp4a.40.{}", first >> 3)),
        _ => None,
    }
}

fn file_name(at: usize) -> String {
    format!("{:06}.m4s", at + 1)
}

fn unwritable(path: &Path, error: &io::Error) -> VideoError {
    VideoError::Internal(format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(list: &[(u64, u64)]) -> Vec<Segment> {
        list.iter().map(|(millis, bytes)| Segment { nanoseconds: millis * 1_000_000, bytes: *bytes }).collect()
    }

    #[test]
    fn the_peak_is_that_of_rows_near_the_target() {
        type Row<'a> = (&'a [(u64, u64)], u64, u64);
        let table: &[Row<'_>] = &[
            (&[(6000, 600_000), (6000, 900_000)], 1_200_000, 1_000_000),
            // Too short to count alone.
            (&[(6000, 600_000), (40, 50_000)], 860_928, 860_928),
            (&[(6000, 600_000), (3000, 600_000)], 1_600_000, 1_066_667),
            (&[(200, 10_000)], 400_000, 400_000),
        ];
        for (list, peak, mean) in table {
            assert_eq!(flow(&segments(list)), Some(Flow { peak: *peak, mean: *mean }), "{list:?}");
        }
        assert_eq!(flow(&[]), None);
    }

    #[test]
    fn a_playlist_is_what_the_segments_are() {
        let list = [
            Segment { nanoseconds: 6_006_000_000, bytes: 1 },
            Segment { nanoseconds: 33_366_666, bytes: 1 },
            Segment { nanoseconds: 33_366_666, bytes: 1 },
        ];
        let text = media(&list);
        let wanted = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n#EXT-X-MEDIA-SEQUENCE:1\n\
            #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"init.mp4\"\n\
            #EXTINF:6.006000,\n000001.m4s\n#EXTINF:0.033367,\n000002.m4s\n#EXTINF:0.033366,\n000003.m4s\n\
            #EXT-X-ENDLIST\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn codecs_are_read_from_headers() {
        gst::init().unwrap();
        let avc = gst::Caps::builder("video/x-h264")
            .field("codec_data", gst::Buffer::from_slice([1u8, 0x64, 0, 0x28, 0xff]))
            .build();
        assert_eq!(codec(&avc).as_deref(), Some("avc1.640028"));
        let aac = gst::Caps::builder("audio/mpeg").field("codec_data", gst::Buffer::from_slice([0x11u8, 0x90])).build();
        assert_eq!(codec(&aac).as_deref(), Some("mp4a.40.2"));
    }
}
