//! What a film or a recording is: the facts that its first frame and samples tell.
//!
//! In: a pad that decoded its first buffer. Out: plain types.
//!
//! Invariant: facts are of what was decoded, not of what a header says.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::VideoOrientationMethod;

use super::super::allowed::MOST_SIDE;
use super::watch::Notes;

/// What is in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// As typefinding names it, such as `video/quicktime`.
    pub container: String,
    /// `None` where the file does not say and cannot be asked.
    pub duration_seconds: Option<f64>,
    /// The film's pictures; the cover of a recording is none.
    pub picture: Option<Picture>,
    /// The sound that is meant to be heard first.
    pub sound: Option<Sound>,
    /// How many sounds there are in all.
    pub sounds: usize,
    /// Plain sentences about what is left out.
    pub warnings: Vec<String>,
}

/// A stream of pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The stream's name within this file, the same each time it is opened from the same path.
    pub stream: String,
    /// For people, such as `H.264 / AVC`.
    pub codec: String,
    /// As coded: before pixels are squared and before the picture is turned.
    pub width: u32,
    pub height: u32,
    /// Width and height of a pixel, as a ratio.
    pub pixel_aspect: (u32, u32),
    /// Frames in so many seconds; `None` where it varies or is not known.
    pub fps: Option<(u32, u32)>,
    /// Some frames may be woven of two fields.
    pub interlaced: bool,
    /// What `videoflip video-direction=` takes to turn it upright.
    pub orientation: VideoOrientationMethod,
    pub transfer: Transfer,
    /// Bits of a sample.
    pub depth: u32,
    /// GStreamer's, such as `bt709` or `2:3:5:1`.
    pub colorimetry: String,
}

/// How light became numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// BT.709 and its like.
    Standard,
    /// SMPTE ST 2084, as in HDR10.
    Pq,
    /// ARIB STD-B67.
    Hlg,
}

/// A stream of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sound {
    /// As [`Picture::stream`].
    pub stream: String,
    pub codec: String,
    pub channels: u32,
    pub rate: u32,
    /// ISO 639, where the file says it.
    pub language: Option<String>,
}

/// Which streams to decode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// [`Picture::stream`].
    pub picture: Option<String>,
    /// [`Sound::stream`].
    pub sound: Option<String>,
}

impl Facts {
    /// Everything worth decoding.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            picture: self.picture.as_ref().map(|picture| picture.stream.clone()),
            sound: self.sound.as_ref().map(|sound| sound.stream.clone()),
        }
    }
}

impl Picture {
    /// Width and height as seen: pixels squared (lines stay, columns give way), then turned.
    pub fn upright(&self) -> (u32, u32) {
        let (numerator, denominator) = self.pixel_aspect;
        let squared = f64::from(self.width) * f64::from(numerator) / f64::from(denominator.max(1));
        let width = (squared.round() as u32).clamp(1, MOST_SIDE as u32);
        if self.turned() { (self.height, width) } else { (width, self.height) }
    }

    /// Turning it upright swaps its sides.
    pub fn turned(&self) -> bool {
        matches!(
            self.orientation,
            VideoOrientationMethod::_90r
                | VideoOrientationMethod::_90l
                | VideoOrientationMethod::UlLr
                | VideoOrientationMethod::UrLl
        )
    }
}

/// A picture's facts, and whether it is a recording's cover.
pub(super) fn picture(pad: &gst::Pad, notes: &Notes) -> Option<(Picture, bool)> {
    let caps = pad.current_caps()?;
    let info = gst_video::VideoInfo::from_caps(&caps).ok()?;
    let stream = pad.stream_id()?.to_string();
    let tags = tags(pad);
    let positive = |value: i32| u32::try_from(value).ok().filter(|&value| value > 0);
    let fps = positive(info.fps().numer()).zip(positive(info.fps().denom()));
    let transfer = match info.colorimetry().transfer() {
        gst_video::VideoTransferFunction::Smpte2084 => Transfer::Pq,
        gst_video::VideoTransferFunction::AribStdB67 => Transfer::Hlg,
        _ => Transfer::Standard,
    };
    let image = notes.is_image(&stream);
    let facts = Picture {
        stream,
        codec: tags
            .iter()
            .find_map(|tags| Some(tags.get::<gst::tags::VideoCodec>()?.get().to_owned()))
            .unwrap_or_default(),
        width: info.width(),
        height: info.height(),
        pixel_aspect: positive(info.par().numer()).zip(positive(info.par().denom())).unwrap_or((1, 1)),
        fps,
        interlaced: info.interlace_mode() != gst_video::VideoInterlaceMode::Progressive,
        orientation: tags
            .iter()
            .find_map(|tags| VideoOrientationMethod::from_tag(tags))
            .unwrap_or(VideoOrientationMethod::Identity),
        transfer,
        depth: info.comp_depth(0),
        colorimetry: info.colorimetry().to_string(),
    };
    // A film of still pictures has a rate; a cover is one sample and has none.
    Some((facts, image && fps.is_none()))
}

/// A sound's facts, and how much its file wants it heard.
pub(super) fn sound(pad: &gst::Pad) -> Option<(Sound, u8)> {
    let caps = pad.current_caps()?;
    let structure = caps.structure(0)?;
    let tags = tags(pad);
    let flags = pad.sticky_event::<gst::event::StreamStart>(0).map(|start| start.stream_flags());
    let rank = match flags {
        Some(flags) if flags.contains(gst::StreamFlags::SELECT) => 2,
        Some(flags) if flags.contains(gst::StreamFlags::UNSELECT) => 0,
        _ => 1,
    };
    let facts = Sound {
        stream: pad.stream_id()?.to_string(),
        codec: tags
            .iter()
            .find_map(|tags| Some(tags.get::<gst::tags::AudioCodec>()?.get().to_owned()))
            .unwrap_or_default(),
        channels: structure.get::<i32>("channels").ok().and_then(|channels| channels.try_into().ok())?,
        rate: structure.get::<i32>("rate").ok().and_then(|rate| rate.try_into().ok())?,
        language: tags
            .iter()
            .find_map(|tags| Some(tags.get::<gst::tags::LanguageCode>()?.get().to_owned()))
            .filter(|language| language != "und"),
    };
    Some((facts, rank))
}

/// The stream's own tags first, then the file's.
fn tags(pad: &gst::Pad) -> Vec<gst::TagList> {
    let mut lists: Vec<gst::TagList> =
        (0..).map_while(|at| pad.sticky_event::<gst::event::Tag>(at)).map(|event| event.tag_owned()).collect();
    lists.sort_by_key(|tags| tags.scope() == gst::TagScope::Global);
    lists
}
