//! What is made of films, and how: the section `videos`.
//!
//! Nothing is made by itself unless an administrator says so. A ladder of renditions costs
//! minutes of processor time and about as much disk as the film again, and a venue that wants
//! renditions mostly wants one or two of them; a poster, which costs little and which every
//! wall of pictures needs, is made in any case and is not listed here. What is made is private
//! until the section says otherwise, as the film itself is.
//!
//! Keys, lines and watermarks are fixed by the contract; the section says for each key whether
//! it is made, who may see it and how the film meets its box.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::assets::HLS;
use crate::assets::STORYBOARD;
use crate::error::Code;
use crate::error::Result;
use crate::media::video::Clip;
use crate::media::video::Fit;
use crate::media::video::Frames;
use crate::media::video::Hls;
use crate::media::video::Rendition;
use crate::media::video::Shape;

/// The content key of the short piece that shows what a film is like.
pub const CLIP_PREVIEW: &str = "clip_preview";

/// Renditions, ascending: their key, lines, and whether the venue's mark is laid over.
pub const RENDITIONS: [(&str, u32, bool); 8] = [
    ("360p-video", 360, false),
    ("360p-wm-video", 360, true),
    ("480p-video", 480, false),
    ("480p-wm-video", 480, true),
    ("720p-video", 720, false),
    ("720p-wm-video", 720, true),
    ("1080p-video", 1080, false),
    ("1080p-wm-video", 1080, true),
];

/// Lines of the rungs of a stream, ascending.
const LADDER: [u32; 4] = [360, 480, 720, 1080];

/// Sides of a storyboard's frames, in pixels.
const FRAME_PIXELS: std::ops::RangeInclusive<u32> = 16..=2048;

/// One sheet holds all of them.
const MOST_FRAMES: u32 = 500;

const LEAST_INTERVAL_SECONDS: f64 = 0.5;
const LONGEST_PREVIEW_SECONDS: f64 = 600.0;
const LATEST_START_SECONDS: f64 = 86_400.0;

/// The film's own shape inside its box, never enlarged.
const PLAIN: Shape = Shape { fit: Fit::Preserve, padding: [0, 0, 0], upscale: false };

/// What is made of films.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Videos {
    /// By key; all of [`RENDITIONS`] are there.
    pub renditions: BTreeMap<String, Transcode>,
    pub hls: Transcode,
    pub hls_watermark: bool,
    pub storyboard: Storyboard,
    pub preview: Preview,
    /// The box of an on-demand image of a film when no size is asked for: width and height in
    /// pixels; zeros leave it to the general limit.
    pub poster_box: (u32, u32),
    /// Kept for the vendor's programs; nothing depends on it.
    pub test_mode: bool,
}

/// Whether and how one rendition is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcode {
    /// Made by itself after an upload.
    pub enabled: bool,
    /// Everybody may read it.
    pub public: bool,
    pub shape: Shape,
}

/// Frames from all along a film.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Storyboard {
    pub enabled: bool,
    pub public: bool,
    pub frames: Frames,
    /// The box of a frame, in pixels.
    pub width: u32,
    pub height: u32,
    pub shape: Shape,
}

/// A short piece of a film.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    pub enabled: bool,
    pub public: bool,
    pub clip: Clip,
    /// One of [`RENDITIONS`]: lines and watermark are as there.
    pub preset: String,
    pub shape: Shape,
}

impl Default for Transcode {
    fn default() -> Transcode {
        Transcode { enabled: false, public: false, shape: PLAIN }
    }
}

impl Default for Videos {
    fn default() -> Videos {
        Videos {
            renditions: RENDITIONS.iter().map(|(key, ..)| ((*key).to_owned(), Transcode::default())).collect(),
            hls: Transcode::default(),
            hls_watermark: false,
            storyboard: Storyboard {
                enabled: false,
                public: false,
                frames: Frames::Number(10),
                width: 320,
                height: 180,
                shape: PLAIN,
            },
            preview: Preview {
                enabled: false,
                public: false,
                clip: Clip { start_seconds: 0.0, length_seconds: 5.0 },
                preset: "480p-video".to_owned(),
                shape: PLAIN,
            },
            poster_box: (0, 0),
            test_mode: false,
        }
    }
}

impl Videos {
    /// Every key that the section speaks of.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.renditions.keys().map(String::as_str).chain([HLS, STORYBOARD, CLIP_PREVIEW])
    }

    /// Whether this key is made of every film that comes in.
    pub fn makes(&self, key: &str) -> bool {
        match key {
            HLS => self.hls.enabled,
            STORYBOARD => self.storyboard.enabled,
            CLIP_PREVIEW => self.preview.enabled,
            _ => self.renditions.get(key).is_some_and(|transcode| transcode.enabled),
        }
    }

    /// Whether everybody may see what this key makes.
    pub fn shows(&self, key: &str) -> bool {
        match key {
            HLS => self.hls.public,
            STORYBOARD => self.storyboard.public,
            CLIP_PREVIEW => self.preview.public,
            _ => self.renditions.get(key).is_some_and(|transcode| transcode.public),
        }
    }

    /// Whether the venue's mark is laid over what this key makes.
    pub fn marks(&self, key: &str) -> bool {
        match key {
            HLS => self.hls_watermark,
            CLIP_PREVIEW => self.clip().watermark,
            _ => self.rendition(key).is_some_and(|rendition| rendition.watermark),
        }
    }

    /// The order for a rendition; `None` when the key is none.
    pub fn rendition(&self, key: &str) -> Option<Rendition> {
        let &(name, lines, watermark) = RENDITIONS.iter().find(|(name, ..)| *name == key)?;
        let shape = self.renditions.get(key).copied().unwrap_or_default().shape;
        Some(Rendition { name: name.to_owned(), lines, shape, watermark })
    }

    /// The order for a stream.
    pub fn stream(&self) -> Hls {
        Hls { ladder: LADDER.to_vec(), shape: self.hls.shape, watermark: self.hls_watermark }
    }

    /// The order for a preview; which stretch it is of, `preview.clip` says.
    pub fn clip(&self) -> Rendition {
        let known = RENDITIONS.iter().find(|(name, ..)| *name == self.preview.preset);
        let (lines, watermark) = known.map_or((480, false), |(_, lines, watermark)| (*lines, *watermark));
        Rendition { name: CLIP_PREVIEW.to_owned(), lines, shape: self.preview.shape, watermark }
    }

    /// Itself, if it makes sense.
    pub(super) fn checked(self) -> Result<Videos> {
        let wrong = |what: String| Err(Code::InvalidRequest.because(what));
        let known = |key: &str| RENDITIONS.iter().any(|(name, ..)| *name == key);
        if let Some(key) = self.renditions.keys().find(|key| !known(key)) {
            return wrong(format!("transcodes: `{key}` is not a key that is known"));
        }
        if let Some((key, ..)) = RENDITIONS.iter().find(|(key, ..)| !self.renditions.contains_key(*key)) {
            return Err(Code::MissingParameter.because(format!("transcodes: {key} is missing")));
        }
        let Storyboard { frames, width, height, .. } = self.storyboard;
        if !FRAME_PIXELS.contains(&width) || !FRAME_PIXELS.contains(&height) {
            return wrong("storyboard: width and height have to be 16 to 2048".to_owned());
        }
        match frames {
            Frames::Number(number) if !(1..=MOST_FRAMES).contains(&number) => {
                return wrong(format!("storyboard: mode_value has to be 1 to {MOST_FRAMES} frames"));
            }
            Frames::Every(seconds) if !(LEAST_INTERVAL_SECONDS..=LATEST_START_SECONDS).contains(&seconds) => {
                return wrong("storyboard: mode_value has to be 0.5 seconds to a day".to_owned());
            }
            _ => {}
        }
        let Clip { start_seconds, length_seconds } = self.preview.clip;
        if !(0.0..LATEST_START_SECONDS).contains(&start_seconds) {
            return wrong("preview: video_preview_start has to be within a day".to_owned());
        }
        if !(length_seconds > 0.0 && length_seconds <= LONGEST_PREVIEW_SECONDS) {
            return wrong(format!(
                "preview: video_preview_length has to be above 0 and at most {LONGEST_PREVIEW_SECONDS} seconds"
            ));
        }
        if !known(&self.preview.preset) {
            let keys: Vec<&str> = RENDITIONS.iter().map(|(key, ..)| *key).collect();
            return wrong(format!("preview: video_preview_preset has to be one of {}", keys.join(", ")));
        }
        let (width, height) = self.poster_box;
        if (width == 0) != (height == 0) || width.max(height) > super::model::MOST_PIXELS {
            return wrong("video_default: width and height are both 0, or both up to 8192".to_owned());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_or_shown_unasked() {
        let videos = Videos::default().checked().unwrap();
        assert_eq!(videos, Videos::default());
        for key in RENDITIONS.map(|(key, ..)| key).into_iter().chain([HLS, STORYBOARD, CLIP_PREVIEW]) {
            assert!(!videos.makes(key) && !videos.shows(key), "{key}");
        }
    }

    #[test]
    fn keys_answer_for_themselves() {
        let mut videos = Videos::default();
        videos.renditions.insert("720p-wm-video".into(), Transcode { enabled: true, ..Transcode::default() });
        videos.hls = Transcode { enabled: true, public: true, ..Transcode::default() };
        assert!(videos.makes("720p-wm-video") && !videos.shows("720p-wm-video"));
        assert!(!videos.makes("720p-video") && !videos.makes("nonsense"));
        assert!(videos.makes(HLS) && videos.shows(HLS));
        let rendition = videos.rendition("720p-wm-video").unwrap();
        assert_eq!((rendition.lines, rendition.watermark, &*rendition.name), (720, true, "720p-wm-video"));
        assert_eq!(videos.rendition(HLS), None);
        videos.preview.preset = "360p-wm-video".into();
        let clip = videos.clip();
        assert_eq!((clip.lines, clip.watermark, &*clip.name), (360, true, CLIP_PREVIEW));
        assert!(videos.marks(CLIP_PREVIEW) && videos.marks("720p-wm-video"));
        assert!(!videos.marks("720p-video") && !videos.marks(HLS) && !videos.marks(STORYBOARD));
        assert!(Videos { hls_watermark: true, ..Videos::default() }.marks(HLS));
    }

    #[test]
    fn a_section_that_was_stored_before_a_field_existed_is_read() {
        let read: Videos = serde_json::from_str("{\"hls_watermark\": true}").unwrap();
        assert_eq!(read, Videos { hls_watermark: true, ..Videos::default() });
    }

    #[test]
    fn only_what_makes_sense_is_kept() {
        type Edit = fn(&mut Videos);
        let wrong: [Edit; 10] = [
            |v| _ = v.renditions.insert("4k-video".into(), Transcode::default()),
            |v| v.storyboard.width = 0,
            |v| v.storyboard.frames = Frames::Number(0),
            |v| v.storyboard.frames = Frames::Number(100_000),
            |v| v.storyboard.frames = Frames::Every(f64::NAN),
            |v| v.preview.clip.start_seconds = -1.0,
            |v| v.preview.clip.length_seconds = 0.0,
            |v| v.preview.clip.length_seconds = f64::INFINITY,
            |v| v.preview.preset = "hls-video".into(),
            |v| v.poster_box = (640, 0),
        ];
        for (n, edit) in wrong.iter().enumerate() {
            let mut videos = Videos::default();
            edit(&mut videos);
            assert_eq!(videos.checked().unwrap_err().code, Code::InvalidRequest, "{n}");
        }
        let mut few = Videos::default();
        few.renditions.remove("480p-wm-video");
        let error = few.checked().unwrap_err();
        assert!(error.code == Code::MissingParameter && error.public().contains("480p-wm-video"), "{error}");
    }
}
