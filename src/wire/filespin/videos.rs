//! The section `video` of the settings as FileSpin's API spells it.
//!
//! Shape: <https://developers.filespin.io/reference/update-video>. Colours are `RRGGBB` and
//! instants `HH:MM:SS.mmm`; both are read and written here and nowhere else.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde::Serializer;

use crate::assets::HLS;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::media::video::Clip;
use crate::media::video::Fit;
use crate::media::video::Frames;
use crate::media::video::Shape;
use crate::settings::Videos;
use crate::settings::videos::Preview;
use crate::settings::videos::RENDITIONS;
use crate::settings::videos::Storyboard;
use crate::settings::videos::Transcode;

/// What is made of films.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VideoSettings {
    /// Kept, and nothing depends on it.
    video_transcode_test_mode: bool,
    thumbnails: Thumbnails,
    preview: PreviewData,
    /// By processing key, all nine: `360p-video` to `1080p-video`, `360p-wm-video` to `1080p-wm-video`, and `hls-video`.
    transcodes: BTreeMap<String, TranscodeData>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Thumbnails {
    video_default: Size,
    storyboard: StoryboardData,
}

/// The box of an on-demand image of a film when no size is asked for; ours: zeros leave it to
/// the general limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Size {
    /// Pixels.
    width: u32,
    height: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct StoryboardData {
    /// Made by itself after an upload.
    enabled: bool,
    /// `number` of frames, evenly spread; ours: `interval`, one every so many seconds.
    mode: String,
    #[serde(serialize_with = "plainly")]
    mode_value: f64,
    /// The box of a frame, in pixels.
    width: u32,
    height: u32,
    /// Everybody may read it.
    public: bool,
    #[serde(flatten)]
    shape: ShapeData,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the vendor's names")]
struct PreviewData {
    /// Made by itself after an upload.
    video_preview_enabled: bool,
    /// Everybody may read it.
    video_preview_public: bool,
    /// `HH:MM:SS.mmm` into the film.
    video_preview_start: String,
    /// Seconds.
    #[serde(serialize_with = "plainly")]
    video_preview_length: f64,
    /// A key of `transcodes`, not `hls-video`: its size and watermark.
    video_preview_preset: String,
    /// `pad`, `preserve`, `scale` or `crop`
    video_preview_aspect: String,
    /// `RRGGBB`
    video_preview_padding: String,
    video_preview_upscale: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct TranscodeData {
    /// Made by itself after an upload.
    enabled: bool,
    /// Everybody may read it.
    public: bool,
    #[serde(flatten)]
    shape: ShapeData,
    /// Of `hls-video`. The others have it in their name, and are refused when this says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watermark: Option<bool>,
}

/// How a film meets its box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct ShapeData {
    /// `pad`: the whole film with bars; `preserve`: its own shape inside the box; `scale`:
    /// stretched; `crop`: its middle fills the box.
    aspect: String,
    /// Of the bars: `RRGGBB`.
    padding: String,
    /// Small films are enlarged.
    upscale: bool,
}

impl From<&Videos> for VideoSettings {
    fn from(videos: &Videos) -> VideoSettings {
        let transcode = |transcode: &Transcode, watermark| TranscodeData {
            enabled: transcode.enabled,
            public: transcode.public,
            shape: ShapeData::from(transcode.shape),
            watermark,
        };
        let renditions = videos.renditions.iter().map(|(key, made)| (key.clone(), transcode(made, None)));
        let stream = (HLS.to_owned(), transcode(&videos.hls, Some(videos.hls_watermark)));
        let (width, height) = videos.poster_box;
        let Preview { enabled, public, clip, preset, shape } = &videos.preview;
        let ShapeData { aspect, padding, upscale } = ShapeData::from(*shape);
        VideoSettings {
            video_transcode_test_mode: videos.test_mode,
            thumbnails: Thumbnails {
                video_default: Size { width, height },
                storyboard: StoryboardData::from(&videos.storyboard),
            },
            preview: PreviewData {
                video_preview_enabled: *enabled,
                video_preview_public: *public,
                video_preview_start: written(clip.start_seconds),
                video_preview_length: clip.length_seconds,
                video_preview_preset: preset.clone(),
                video_preview_aspect: aspect,
                video_preview_padding: padding,
                video_preview_upscale: upscale,
            },
            transcodes: renditions.chain([stream]).collect(),
        }
    }
}

impl From<&Storyboard> for StoryboardData {
    fn from(storyboard: &Storyboard) -> StoryboardData {
        let (mode, mode_value) = match storyboard.frames {
            Frames::Number(number) => ("number", f64::from(number)),
            Frames::Every(seconds) => ("interval", seconds),
        };
        StoryboardData {
            enabled: storyboard.enabled,
            mode: mode.to_owned(),
            mode_value,
            width: storyboard.width,
            height: storyboard.height,
            public: storyboard.public,
            shape: ShapeData::from(storyboard.shape),
        }
    }
}

impl VideoSettings {
    /// The same, as the settings keep it.
    pub fn into_domain(mut self) -> Result<Videos> {
        let stream = self.transcodes.remove(HLS);
        let stream = stream.ok_or_else(|| Code::MissingParameter.because(format!("transcodes: {HLS} is missing")))?;
        let hls_watermark = stream.watermark.unwrap_or(false);
        let hls = stream.into_domain(HLS)?;
        let mut renditions = BTreeMap::new();
        for (key, data) in self.transcodes {
            bears_its_name(&key, data.watermark)?;
            let made = data.into_domain(&key)?;
            renditions.insert(key, made);
        }
        let preview = self.preview;
        let shape = ShapeData {
            aspect: preview.video_preview_aspect,
            padding: preview.video_preview_padding,
            upscale: preview.video_preview_upscale,
        };
        let start_seconds = read(&preview.video_preview_start).ok_or_else(|| {
            let sent = &preview.video_preview_start;
            wrong(format!("preview: video_preview_start is HH:MM:SS.mmm, not `{sent}`"))
        })?;
        Ok(Videos {
            renditions,
            hls,
            hls_watermark,
            storyboard: self.thumbnails.storyboard.into_domain()?,
            preview: Preview {
                enabled: preview.video_preview_enabled,
                public: preview.video_preview_public,
                clip: Clip { start_seconds, length_seconds: preview.video_preview_length },
                preset: preview.video_preview_preset,
                shape: shape.into_domain("preview")?,
            },
            poster_box: (self.thumbnails.video_default.width, self.thumbnails.video_default.height),
            test_mode: self.video_transcode_test_mode,
        })
    }
}

impl TranscodeData {
    fn into_domain(self, key: &str) -> Result<Transcode> {
        Ok(Transcode { enabled: self.enabled, public: self.public, shape: self.shape.into_domain(key)? })
    }
}

impl StoryboardData {
    fn into_domain(self) -> Result<Storyboard> {
        let whole = self.mode_value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&self.mode_value);
        let frames = match &*self.mode {
            "number" if whole => Frames::Number(self.mode_value as u32),
            "number" => return Err(wrong("storyboard: mode_value has to be a whole number of frames".to_owned())),
            "interval" => Frames::Every(self.mode_value),
            other => return Err(wrong(format!("storyboard: mode is `number` or `interval`, not `{other}`"))),
        };
        Ok(Storyboard {
            enabled: self.enabled,
            public: self.public,
            frames,
            width: self.width,
            height: self.height,
            shape: self.shape.into_domain("storyboard")?,
        })
    }
}

/// The vendor's words, and ours.
const FITS: [(&str, Fit); 4] =
    [("pad", Fit::Pad), ("preserve", Fit::Preserve), ("scale", Fit::Scale), ("crop", Fit::Crop)];

impl From<Shape> for ShapeData {
    fn from(shape: Shape) -> ShapeData {
        let aspect = FITS.iter().find(|(_, fit)| *fit == shape.fit).map_or("preserve", |(word, _)| word);
        let [red, green, blue] = shape.padding;
        ShapeData {
            aspect: aspect.to_owned(),
            padding: format!("{red:02x}{green:02x}{blue:02x}"),
            upscale: shape.upscale,
        }
    }
}

impl ShapeData {
    /// `of` is named when it cannot be understood.
    fn into_domain(self, of: &str) -> Result<Shape> {
        let ShapeData { aspect, padding, upscale } = self;
        let fit = FITS.iter().find(|(word, _)| *word == aspect).map(|(_, fit)| *fit);
        let fit = fit.ok_or_else(|| wrong(format!("{of}: aspect is pad, preserve, scale or crop, not `{aspect}`")))?;
        let padding = colour(&padding).ok_or_else(|| wrong(format!("{of}: padding is RRGGBB, not `{padding}`")))?;
        Ok(Shape { fit, padding, upscale })
    }
}

/// Whether a rendition has the venue's mark is said by its key. What says otherwise is not dropped in silence.
fn bears_its_name(key: &str, watermark: Option<bool>) -> Result<()> {
    let Some(&(_, lines, marked)) = RENDITIONS.iter().find(|(name, ..)| *name == key) else { return Ok(()) };
    if watermark.is_none_or(|wanted| wanted == marked) {
        return Ok(());
    }
    let other =
        RENDITIONS.iter().find(|(_, same, other)| *same == lines && *other != marked).map_or("", |(key, ..)| *key);
    Err(wrong(format!("{key}: watermark is of hls-video alone; ask for {other} instead")))
}

fn colour(text: &str) -> Option<[u8; 3]> {
    let plain = text.len() == 6 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let [_, red, green, blue] = u32::from_str_radix(text, 16).ok().filter(|_| plain)?.to_be_bytes();
    Some([red, green, blue])
}

/// `HH:MM:SS`, with or without a fraction of a second.
fn read(text: &str) -> Option<f64> {
    let mut parts = text.split(':');
    let mut whole = || parts.next()?.parse::<u32>().ok();
    let (hours, minutes) = (whole()?, whole().filter(|minutes| *minutes < 60)?);
    let seconds = parts.next().filter(|text| text.bytes().all(|b| b.is_ascii_digit() || b == b'.'))?;
    let seconds = seconds.parse::<f64>().ok().filter(|seconds| *seconds < 60.0)?;
    parts.next().is_none().then(|| f64::from(hours) * 3600.0 + f64::from(minutes) * 60.0 + seconds)
}

fn written(seconds: f64) -> String {
    let ms = (seconds * 1000.0).round() as u64;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
}

/// Whole numbers without a fraction, as programs that read an integer expect them.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
fn plainly<S: Serializer>(number: &f64, out: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        out.serialize_i64(*number as i64)
    } else {
        out.serialize_f64(*number)
    }
}

fn wrong(what: String) -> Error {
    Code::InvalidRequest.because(what)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn sent() -> Value {
        let transcode = |public: bool| {
            json!({"enabled": true, "public": public, "aspect": "pad", "padding": "0a0b0c",
                                              "upscale": true})
        };
        let mut transcodes: BTreeMap<&str, Value> =
            RENDITIONS.iter().map(|(key, _, watermark)| (*key, transcode(*watermark))).collect();
        let mut hls = transcode(true);
        hls["watermark"] = json!(true);
        transcodes.insert("hls-video", hls);
        json!({
            "video_transcode_test_mode": true,
            "thumbnails": {
                "video_default": {"height": 480, "width": 640},
                "storyboard": {"enabled": true, "mode": "number", "mode_value": 5, "width": 480, "height": 360,
                               "public": true, "aspect": "crop", "padding": "000000", "upscale": true},
            },
            "preview": {
                "video_preview_public": true, "video_preview_start": "00:00:03.001", "video_preview_length": 5,
                "video_preview_preset": "480p-wm-video", "video_preview_enabled": true, "video_preview_aspect": "pad",
                "video_preview_padding": "ffffff", "video_preview_upscale": true,
            },
            "transcodes": transcodes,
        })
    }

    fn understood(sent: Value) -> Result<Videos> {
        serde_json::from_value::<VideoSettings>(sent).unwrap().into_domain()
    }

    #[test]
    fn there_and_back() {
        let videos = understood(sent()).unwrap();
        assert_eq!(videos.renditions["720p-video"].shape.padding, [10, 11, 12]);
        assert!(videos.hls_watermark && videos.makes("clip_preview") && videos.shows("storyboard"));
        assert!((videos.preview.clip.start_seconds - 3.001).abs() < 1e-9);
        assert_eq!(serde_json::to_value(VideoSettings::from(&videos)).unwrap(), sent());
        let ours = Videos::default();
        let back: VideoSettings =
            serde_json::from_value(serde_json::to_value(VideoSettings::from(&ours)).unwrap()).unwrap();
        assert_eq!(back.into_domain().unwrap(), ours);
    }

    #[test]
    fn a_storyboard_is_ours_by_interval() {
        let mut body = sent();
        body["thumbnails"]["storyboard"]["mode"] = json!("interval");
        body["thumbnails"]["storyboard"]["mode_value"] = json!(2.5);
        let videos = understood(body.clone()).unwrap();
        assert_eq!(videos.storyboard.frames, Frames::Every(2.5));
        assert_eq!(serde_json::to_value(VideoSettings::from(&videos)).unwrap(), body);
    }

    #[test]
    fn a_mark_is_ordered_by_the_key_and_of_a_stream_by_its_flag() {
        let with = |key: &str, watermark: bool| {
            let mut body = sent();
            body["transcodes"][key]["watermark"] = json!(watermark);
            understood(body)
        };
        for (key, wrong, other) in [("720p-video", true, "720p-wm-video"), ("360p-wm-video", false, "360p-video")] {
            let error = with(key, wrong).unwrap_err();
            assert!(error.code == Code::InvalidRequest && error.public().contains(other), "{error}");
            assert_eq!(with(key, !wrong).unwrap(), understood(sent()).unwrap(), "{key} is as it says");
        }
        assert!(!with("hls-video", false).unwrap().hls_watermark);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (pointer, value, word) in [
            ("/transcodes/720p-video/aspect", json!("squeeze"), "squeeze"),
            ("/transcodes/hls-video/padding", json!("#00000"), "hls-video"),
            ("/thumbnails/storyboard/mode", json!("often"), "often"),
            ("/thumbnails/storyboard/mode_value", json!(2.5), "whole"),
            ("/preview/video_preview_start", json!("3 s"), "HH:MM:SS"),
            ("/preview/video_preview_padding", json!("+00000"), "preview"),
        ] {
            let mut body = sent();
            *body.pointer_mut(pointer).unwrap() = value;
            let error = understood(body).unwrap_err();
            assert!(error.code == Code::InvalidRequest && error.public().contains(word), "{pointer}: {error}");
        }
    }

    #[test]
    fn instants() {
        for (text, seconds) in [("00:00:00.000", 0.0), ("01:02:03.450", 3723.45), ("10:00:59.999", 36059.999)] {
            assert_eq!(read(text), Some(seconds), "{text}");
            assert_eq!(written(seconds), text);
        }
        assert_eq!(read("00:00:07"), Some(7.0));
        for bad in ["", "7", "00:07", "00:60:00", "00:00:60", "00:00:-1", "00:00:1e1", "0:0:0:0", "00:00:inf", "a:b:c"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
