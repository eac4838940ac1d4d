//! Encoders of H.264, and how each is told what we want.
//!
//! In: a factory's name, what the picture looks like and how it is bounded. Out: the elements from
//! raw frames to H.264 that is ready for a muxer.
//!
//! Invariant: a key frame stands at each multiple of a group and nowhere else, so that all
//! renditions of a film may be cut at the same places.
//!
//! `x264enc` gets constant quality under a ceiling. What graphics hardware has instead comes as
//! close as it can: it varies its rate under the same ceiling. Properties that an element of some
//! version lacks are left alone, for what is not there cannot be wished for.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;

use super::VideoError;
use super::elements::caps_filter;
use super::elements::element;
use super::elements::missing;
use super::ladder::Picture;
use super::ladder::Rate;

/// The software that is always meant, and needs no trial.
pub const SOFTWARE: &str = "x264enc";

/// Names of encoders begin with it, so that their complaints are known.
pub const NAME: &str = "encoder";

/// The same quality that ffmpeg's command line has if it is not told otherwise.
const QUALITY: u32 = 23;

/// What to encode.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub picture: Picture,
    pub rate: Rate,
    /// This encoder is one of several, which keep the cores busy between them.
    pub among_others: bool,
    /// Tells encoders apart.
    pub number: usize,
}

/// The elements, in the order in which they are to be linked.
pub fn chain(factory: &str, job: &Job) -> Result<Vec<gst::Element>, VideoError> {
    let encoder = gst::ElementFactory::make(factory)
        .name(format!("{NAME}-{}", job.number))
        .build()
        .map_err(|_| missing(factory))?;
    if !gives_h264(&encoder) {
        return Err(VideoError::Encoder(format!("{factory} is no encoder of H.264")));
    }
    for (name, value) in settings(factory, job) {
        set(&encoder, name, &value)?;
    }
    let mut chain = Vec::new();
    if factory != SOFTWARE {
        if !takes_planes(&encoder) {
            // Shaping gives either.
            chain.push(caps_filter(&gst::Caps::builder("video/x-raw").field("format", "NV12").build())?);
        }
        ask_for_keys(&encoder, job.rate)?;
    }
    chain.push(encoder);

    let mut profile = gst::Caps::builder("video/x-h264").field("profile", job.picture.bounds().profile.name());
    if factory.starts_with("v4l2") {
        // These take the level from there and default to one that is too low.
        profile = profile.field("level", job.picture.level(job.rate));
    }
    let packed = gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au").build();
    chain.extend([caps_filter(&profile.build())?, element("h264parse")?, caps_filter(&packed)?]);
    Ok(chain)
}

/// What to tell an encoder; numbers are written as `gst-launch` takes them.
fn settings(factory: &str, job: &Job) -> Vec<(&'static str, String)> {
    let group = job.rate.group().to_string();
    let most = job.picture.bounds().kbit;
    // On average; quality under a ceiling, which they cannot do, would come out near it.
    let mean = most * 3 / 5;
    let text = str::to_owned;
    match factory {
        SOFTWARE => vec![
            ("speed-preset", text("veryfast")),
            ("pass", text("qual")),
            ("quantizer", QUALITY.to_string()),
            ("bitrate", most.to_string()),
            ("vbv-buf-capacity", text("2000")),
            ("key-int-max", group.clone()),
            ("threads", text(if job.among_others { "1" } else { "0" })),
            ("aud", text("false")),
            ("option-string", format!("scenecut=0:min-keyint={group}:open-gop=0:force-cfr=1")),
        ],
        "openh264enc" => vec![
            ("rate-control", text("bitrate")),
            ("bitrate", (mean * 1000).to_string()),
            ("max-bitrate", (most * 1000).to_string()),
            ("gop-size", group),
            ("scene-change-detection", text("false")),
            ("background-detection", text("false")),
            ("multi-thread", text(if job.among_others { "1" } else { "0" })),
        ],
        name if name.starts_with("nv") => vec![
            ("preset", text("hq")),
            ("rc-mode", text("vbr")),
            ("rate-control", text("vbr")),
            ("const-quality", QUALITY.to_string()),
            ("bitrate", mean.to_string()),
            ("max-bitrate", most.to_string()),
            ("vbv-buffer-size", (most * 2).to_string()),
            ("gop-size", group),
            ("i-adapt", text("false")),
            ("aud", text("false")),
        ],
        name if name.starts_with("vaapi") => vec![
            ("rate-control", text("vbr")),
            ("bitrate", mean.to_string()),
            ("cpb-length", text("2000")),
            ("keyframe-period", group),
            ("max-bframes", text("0")),
            ("aud", text("false")),
        ],
        name if name.starts_with("va") => vec![
            ("rate-control", text("vbr")),
            // Here the rate is the most, and the share of it is what is aimed at.
            ("bitrate", most.to_string()),
            ("target-percentage", text("60")),
            ("cpb-size", (most * 2).to_string()),
            ("key-int-max", group),
            ("b-frames", text("0")),
            ("aud", text("false")),
        ],
        name if name.starts_with("qsv") => vec![
            ("rate-control", text("vbr")),
            ("bitrate", mean.to_string()),
            ("max-bitrate", most.to_string()),
            ("gop-size", group),
            ("idr-interval", text("0")),
            ("b-frames", text("0")),
        ],
        name if name.starts_with("v4l2") => vec![(
            "extra-controls",
            format!(
                "controls,video_bitrate={},video_gop_size={group},h264_i_frame_period={group},repeat_sequence_header=1",
                mean * 1000
            ),
        )],
        _ => vec![("bitrate", mean.to_string()), ("key-int-max", group.clone()), ("gop-size", group)],
    }
}

/// Sets a property if this version of the element has it and knows the value.
fn set(element: &gst::Element, name: &str, value: &str) -> Result<(), VideoError> {
    let Some(property) = element.find_property(name) else { return Ok(()) };
    let Ok(value) = glib::Value::deserialize_with_pspec(value, &property) else {
        let factory = element.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
        if factory == SOFTWARE {
            return Err(VideoError::Internal(format!("{factory} does not take {value} for {name}")));
        }
        return Ok(());
    };
    element.set_property_from_value(name, &value);
    Ok(())
}

fn gives_h264(encoder: &gst::Element) -> bool {
    let coded = gst::Caps::new_empty_simple("video/x-h264");
    let is = |template: &gst::PadTemplate| template.caps().can_intersect(&coded) && !template.caps().is_any();
    encoder.pad_template_list().iter().any(|template| template.direction() == gst::PadDirection::Src && is(template))
}

/// The encoder takes frames as they come out of shaping.
fn takes_planes(encoder: &gst::Element) -> bool {
    let planes = gst::Caps::builder("video/x-raw").field("format", "I420").build();
    encoder.static_pad("sink").is_some_and(|pad| pad.pad_template_caps().can_intersect(&planes))
}

/// Asks for a key frame at each multiple of a group: hardware counts in its own way.
fn ask_for_keys(encoder: &gst::Element, rate: Rate) -> Result<(), VideoError> {
    let pad = encoder.static_pad("sink").ok_or_else(|| VideoError::Encoder("it has no way in".to_owned()))?;
    let group = u64::from(rate.group());
    let frames = AtomicU64::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let number = frames.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(group)
            && let Some(peer) = pad.peer()
        {
            let mut event = gst_video::DownstreamForceKeyUnitEvent::builder().all_headers(true);
            if let Some(time) = info.buffer().and_then(|buffer| buffer.pts()) {
                event = event.running_time(time);
            }
            // An encoder that does not listen still has its own count.
            let _heard = peer.push_event(event.build());
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Fit;
    use super::*;

    fn job() -> Job {
        let picture = Picture { width: 320, height: 180, fit: Fit::Preserve, padding: [0; 3], watermark: false };
        Job { picture, rate: Rate::new(25, 1), among_others: true, number: 1 }
    }

    #[test]
    fn every_setting_of_the_encoders_here_exists() {
        gst::init().unwrap();
        for factory in [SOFTWARE, "openh264enc"] {
            let element = gst::ElementFactory::make(factory).build().unwrap();
            for (name, value) in settings(factory, &job()) {
                let property = element.find_property(name).unwrap_or_else(|| panic!("{factory} {name}"));
                assert!(glib::Value::deserialize_with_pspec(&value, &property).is_ok(), "{factory} {name}={value}");
            }
        }
    }

    #[test]
    fn an_encoder_that_is_not_there_is_named() {
        gst::init().unwrap();
        let VideoError::Missing(missing) = chain("nosuchh264enc", &job()).unwrap_err() else { panic!() };
        assert_eq!(missing.element, "nosuchh264enc");
    }
}
