//! What a video or audio container says about itself.
//!
//! In: the bytes of an MP4, MOV, MKV or WebM (the caller maps the file). Out: size, duration,
//! and when, where and with what it was taken.
//!
//! Invariant: only the container's tables are read, no frame is decoded; what cannot be read
//! is `None`, never an error, for a player may still make sense of it.
//!
//! This lives beside the pictures because it is the same kind of work, pure and header-only;
//! the pipeline of `media::video` measures again, and more precisely, when it decodes.

use std::io::Cursor;

use nom_exif::MediaKind;
use nom_exif::MediaParser;
use nom_exif::MediaSource;
use nom_exif::TrackInfo;
use nom_exif::TrackInfoTag;
use serde::Deserialize;
use serde::Serialize;

use super::Gps;
use super::metadata;

/// What a container says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoFacts {
    /// 0 for sound alone.
    pub width: u32,
    pub height: u32,
    pub duration_seconds: f64,
    /// As YYYY-MM-DDTHH:MM:SS, in the time zone that the file states.
    pub captured_at: Option<String>,
    pub make: Option<String>,
    pub model: Option<String>,
    pub gps: Option<Gps>,
}

/// Reads the tables of a container; `None` if this is none.
pub fn probe_video(source: &[u8]) -> Option<VideoFacts> {
    let media = MediaSource::seekable(Cursor::new(source)).ok()?;
    if media.kind() != MediaKind::Track {
        return None;
    }
    let info = MediaParser::new().parse_track(media).ok()?;
    let number = |tag: TrackInfoTag| info.get(tag).and_then(nom_exif::EntryValue::as_u32);
    let duration_ms = info.get(TrackInfoTag::DurationMs).and_then(nom_exif::EntryValue::as_u64).unwrap_or(0);
    let (width, height) = shown_size(source)
        .or_else(|| Some((number(TrackInfoTag::Width)?, number(TrackInfoTag::Height)?)))
        .unwrap_or_default();
    Some(VideoFacts {
        width,
        height,
        duration_seconds: duration_ms as f64 / 1000.0,
        captured_at: captured_at(&info),
        make: text(&info, TrackInfoTag::Make),
        model: text(&info, TrackInfoTag::Model),
        gps: info.gps_info().and_then(|gps| {
            Some(Gps {
                latitude: gps.latitude_decimal()?,
                longitude: gps.longitude_decimal()?,
                altitude: gps.altitude_meters(),
            })
        }),
    })
}

/// Whether the boxes of an ISO container end exactly where the file does, or before it.
pub(super) fn is_whole(source: &[u8]) -> bool {
    let mut rest = boxes(source);
    let covered = rest.by_ref().last().map_or(0, |(_, body)| body.as_ptr_range().end.addr() - source.as_ptr().addr());
    covered == source.len()
}

/// The size of an MP4's or MOV's video track as it is shown: phones store upright pictures
/// lying down and say so in the track's matrix, which the metadata crate does not read.
fn shown_size(source: &[u8]) -> Option<(u32, u32)> {
    let moov = boxes(source).find(|(kind, _)| *kind == b"moov")?.1;
    let track =
        boxes(moov).filter(|(kind, _)| *kind == b"trak").map(|(_, track)| track).find(|track| is_video(track))?;
    let header = boxes(track).find(|(kind, _)| *kind == b"tkhd")?.1;
    // ISO/IEC 14496-12 §8.3.2: version 1 has three 64-bit fields where version 0 has 32-bit ones.
    let matrix = header.get(if *header.first()? == 1 { 52 } else { 40 }..)?;
    let field = |at: usize| matrix.get(at * 4..)?.first_chunk().map(|b| u32::from_be_bytes(*b));
    let (across, width, height) = (field(0)?, field(9)? >> 16, field(10)? >> 16);
    Some(if across == 0 { (height, width) } else { (width, height) })
}

fn is_video(track: &[u8]) -> bool {
    let media = boxes(track).find(|(kind, _)| *kind == b"mdia").map(|(_, media)| media);
    let handler = media.and_then(|media| boxes(media).find(|(kind, _)| *kind == b"hdlr"));
    handler.is_some_and(|(_, handler)| handler.get(8..12) == Some(b"vide"))
}

/// The boxes that lie side by side in these bytes; stops at the first that does not fit.
pub(super) fn boxes(mut rest: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (size, after) = rest.split_first_chunk::<4>()?;
        let (kind, mut body) = after.split_first_chunk::<4>()?;
        let body_size = match u32::from_be_bytes(*size) {
            0 => body.len(),
            1 => {
                let (size, after) = body.split_first_chunk::<8>()?;
                body = after;
                usize::try_from(u64::from_be_bytes(*size)).ok()?.checked_sub(16)?
            }
            size => (size as usize).checked_sub(8)?,
        };
        let (body, after) = body.split_at_checked(body_size)?;
        rest = after;
        Some((kind, body))
    })
}

fn text(info: &TrackInfo, tag: TrackInfoTag) -> Option<String> {
    info.get(tag).and_then(|value| value.as_str()).map(metadata::tidy).filter(|text| !text.is_empty())
}

fn captured_at(info: &TrackInfo) -> Option<String> {
    let time = info.get(TrackInfoTag::CreateDate)?.as_datetime()?.into_naive();
    let text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
    // An unset clock is 1904 in MP4 and 1970 in much else.
    (!text.starts_with("1904-") && !text.starts_with("1970-01-01")).then_some(text)
}
