//! Films and recordings: transcoding, HLS, stills out of films, waveforms.
//!
//! In: an [`Errand`], which names a source file and a folder of its own to work in. Out: files in
//! that folder, [`Report`]s on the way, and at the end an [`Outcome`] or what was wrong.
//!
//! Everything here runs in a video worker: a process for each errand, which may be killed at any
//! moment. Nothing is tidied up here; whoever gave the folder takes it away.
//!
//! Invariant: a file that an outcome names is complete and closed. Sources are opened by their
//! paths alone and nothing that stands in them is followed.
//!
//! GStreamer is used by this module alone, so that only the video worker's program needs it.

mod allowed;
mod cmaf;
mod elements;
mod encoders;
mod frames;
mod h264;
mod hls;
mod ladder;
mod length;
mod open;
mod pipeline;
mod plugins;
mod poster;
mod recording;
mod run;
mod shape;
mod sound;
mod storyboard;
mod survey;
mod transcode;

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

pub use self::plugins::prepare;
pub use self::run::run;
pub use self::survey::SOFTWARE;
pub use self::survey::is_software;
pub use self::survey::survey;

/// What GStreamer must find in the worker's environment: that it loads what it is told and looks
/// for nothing itself, and that it makes no machine code as it goes, which the sandbox forbids.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("GST_REGISTRY_DISABLE", "yes"),
    ("GST_REGISTRY_FORK", "no"),
    ("GST_PLUGIN_SYSTEM_PATH_1_0", ""),
    ("GST_PLUGIN_PATH_1_0", ""),
    ("GST_DEBUG", "0"),
    ("ORC_CODE", "backup"),
];

/// What a video worker is asked; one for each process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Errand {
    /// What is there on this machine? No encoder is tried.
    Survey,
    /// Does this encoder work?
    Encoder(String),
    /// Make renditions of a film, in one decoding.
    Transcode(Transcode),
    /// Find a good frame and keep it as a picture.
    Poster(Poster),
    /// Keep frames from all along a film.
    Storyboard(Storyboard),
    /// Draw what a recording sounds like, and make a copy that every browser plays.
    Recording(Recording),
}

impl Errand {
    /// What it reads: its source, and a mark.
    pub fn reads(&self) -> Vec<&Path> {
        match self {
            Errand::Survey | Errand::Encoder(_) => vec![],
            Errand::Transcode(order) => {
                let mark = order.mark.iter().map(|mark| mark.file.as_path());
                std::iter::once(order.source.as_path()).chain(mark).collect()
            }
            Errand::Poster(order) => vec![&order.source],
            Errand::Storyboard(order) => vec![&order.source],
            Errand::Recording(order) => vec![&order.source],
        }
    }

    /// Where it writes.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Errand::Survey | Errand::Encoder(_) => None,
            Errand::Transcode(order) => Some(&order.folder),
            Errand::Poster(order) => Some(&order.folder),
            Errand::Storyboard(order) => Some(&order.folder),
            Errand::Recording(order) => Some(&order.folder),
        }
    }

    /// Whether it needs graphics hardware, with which its cell is wider.
    pub fn needs_devices(&self) -> bool {
        match self {
            Errand::Encoder(factory) => !survey::is_software(factory),
            Errand::Transcode(order) => !survey::is_software(&order.encoder),
            _ => false,
        }
    }
}

/// Renditions to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transcode {
    pub source: PathBuf,
    /// Where everything is written: `{name}.mp4`, `hls/…`.
    pub folder: PathBuf,
    /// In ascending order of lines.
    pub renditions: Vec<Rendition>,
    pub hls: Option<Hls>,
    /// Only this stretch of the film.
    pub clip: Option<Clip>,
    /// Laid over the renditions that ask for it.
    pub mark: Option<Mark>,
    /// Factory of the H.264 encoder, such as `x264enc`; one that the survey found.
    pub encoder: String,
}

/// One MP4: H.264 and AAC, its index in front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendition {
    /// Names the file; a processing key such as `720p-video`.
    pub name: String,
    /// Fits a box of 16:9 with so many lines, turned for upright films.
    pub lines: u32,
    pub shape: Shape,
    pub watermark: bool,
}

/// HTTP Live Streaming: a ladder of renditions of aligned segments, and their playlists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hls {
    /// Lines of its rungs, ascending. A rung that an MP4 has, too, is encoded once.
    pub ladder: Vec<u32>,
    pub shape: Shape,
    pub watermark: bool,
}

/// How a picture meets its box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub fit: Fit,
    /// Around a padded picture: red, green, blue.
    pub padding: [u8; 3],
    /// Small films are enlarged to fill the box.
    pub upscale: bool,
}

/// The vendor's words for it: `preserve`, `pad`, `scale`, `crop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The film's own shape, inside the box.
    #[default]
    Preserve,
    /// The whole film in a full box, with bars.
    Pad,
    /// Stretched to the box.
    Scale,
    /// The middle of the film fills the box.
    Crop,
}

/// A stretch of a film.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clip {
    pub start_seconds: f64,
    pub length_seconds: f64,
}

/// An image to lay over every frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// A PNG.
    pub file: PathBuf,
    pub place: Place,
    /// The largest share of the picture's width and height, above 0 and up to 1.
    pub scale: f64,
}

/// Where a mark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    Center,
    TopLeft,
    TopRight,
    BottomLeft,
    BottomRight,
}

/// A good frame of a film: never black, upright, in BT.709, not larger than `side`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Poster {
    pub source: PathBuf,
    /// `poster.jpg` is written here.
    pub folder: PathBuf,
    /// The longest side.
    pub side: u32,
}

/// Frames from all along a film, alone and on one sheet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Storyboard {
    pub source: PathBuf,
    /// `storyboard_000001.jpg`…, `sprite.jpg` and `storyboard.vtt` are written here.
    pub folder: PathBuf,
    pub frames: Frames,
    /// The box of a frame, in pixels.
    pub width: u32,
    pub height: u32,
    pub shape: Shape,
}

/// How many frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frames {
    /// So many, evenly spread.
    Number(u32),
    /// One every so many seconds.
    Every(f64),
}

/// What can be seen and heard of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    pub source: PathBuf,
    /// `waveform.png` and `preview.m4a` are written here.
    pub folder: PathBuf,
    /// Of the waveform, in pixels.
    pub width: u32,
    pub height: u32,
}

/// A line from the worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// How far the errand is, in percent. Also a sign of life: comes at least every 5 s.
    Progress(f32),
    /// The last line of an errand that went well.
    Done(Outcome),
    /// The last line of one that did not.
    Failed(VideoError),
}

/// What an errand brought.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    Survey(Survey),
    /// The encoder works.
    Encoder,
    Transcoded(Transcoded),
    Poster(Still),
    Storyboard(Vec<Still>),
    Recording(Recorded),
}

/// Renditions that were made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transcoded {
    pub renditions: Vec<Made>,
    /// Renditions that would have equalled another: their names, and the other's.
    pub skipped: Vec<(String, String)>,
    pub hls: Option<MadeHls>,
    pub duration_seconds: f64,
    /// Plain sentences about the source, such as that its end is missing.
    pub warnings: Vec<String>,
}

/// A rendition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    /// As in the order; the file is `{name}.mp4`.
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub duration_seconds: f64,
    pub size_bytes: u64,
}

/// A stream: `hls/playlist.m3u8` and what it leads to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MadeHls {
    /// Of the largest variant.
    pub width: u32,
    pub height: u32,
    pub duration_seconds: f64,
    /// Of all files.
    pub size_bytes: u64,
    /// Below `hls/`, the master playlist last: in this order they may be published.
    pub files: Vec<String>,
}

/// A picture that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Still {
    /// In the folder.
    pub file: String,
    pub width: u32,
    pub height: u32,
    /// Which moment it shows.
    pub at_seconds: f64,
}

/// What was made of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    pub waveform: Still,
    pub duration_seconds: f64,
    pub preview_bytes: u64,
    pub warnings: Vec<String>,
}

/// What this machine can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// GStreamer's version.
    pub version: String,
    /// H.264 encoders that may be here and are still to be tried, best first.
    #[serde(default)]
    pub candidates: Vec<String>,
    /// H.264 encoders that gave a film when tried, best first.
    pub encoders: Vec<String>,
    /// Those that are here and failed, with what they said.
    pub failing: Vec<(String, String)>,
    /// What is missing, for whom, and which package brings it.
    pub missing: Vec<Missing>,
}

/// Something that a package would bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Elements, such as `x264enc`.
    pub element: String,
    /// Debian's, such as `gstreamer1.0-plugins-ugly`.
    pub package: String,
    /// What cannot be done without it, as a sentence.
    pub without: String,
}

/// What is wrong with a film, or with this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoError {
    /// The file cannot be read as a film; a sentence for its owner.
    Invalid(String),
    /// The encoder gave up; another may do.
    Encoder(String),
    /// An element is not installed.
    Missing(Missing),
    /// It was not done in time; when the machine is less busy it may be.
    Late(String),
    /// Anything else, for the operator.
    Internal(String),
}

impl fmt::Display for VideoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VideoError::Invalid(why) | VideoError::Late(why) | VideoError::Internal(why) => f.write_str(why),
            VideoError::Encoder(why) => write!(f, "the encoder failed: {why}"),
            VideoError::Missing(missing) => f.write_str(&missing.line()),
        }
    }
}

impl std::error::Error for VideoError {}
