//! Encoders of H.264: which may be here, and whether one works.
//!
//! In: a factory's name. Out: nothing, when it has turned a few frames into H.264, or what went
//! wrong. [`CANDIDATES`] are in the order in which they are preferred.
//!
//! Invariant: an encoder counts only after a real trial. Drivers announce what the hardware or a
//! container's permissions then refuse, and ranks say nothing about it.
//!
//! A trial belongs in a process of its own, since loading a driver is enough to fall over it:
//! the survey looks which candidates could be here, and whoever asked for it has them tried one
//! by one (`survey.rs`).

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::Missing;
use super::Survey;
use super::VideoError;
use super::plugins;

/// An encoder that may be here.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub factory: &'static str,
    /// The file `libgst{plugin}.so`.
    pub plugin: &'static str,
    package: &'static str,
    /// One of these must exist; none for software.
    nodes: &'static [&'static str],
}

const NVIDIA: &[&str] = &["/dev/nvidiactl"];
const RENDER: &[&str] = &["/dev/dri"];
const BOARD: &[&str] = &["/dev/video0", "/dev/video10", "/dev/video11", "/dev/video12"];

/// Best first.
pub const CANDIDATES: &[Candidate] = &[
    candidate("nvautogpuh264enc", "nvcodec", "gstreamer1.0-plugins-bad", NVIDIA),
    candidate("nvcudah264enc", "nvcodec", "gstreamer1.0-plugins-bad", NVIDIA),
    candidate("nvh264enc", "nvcodec", "gstreamer1.0-plugins-bad", NVIDIA),
    candidate("vah264enc", "va", "gstreamer1.0-plugins-bad", RENDER),
    candidate("vah264lpenc", "va", "gstreamer1.0-plugins-bad", RENDER),
    candidate("qsvh264enc", "qsv", "gstreamer1.0-plugins-bad", RENDER),
    candidate("vaapih264enc", "vaapi", "gstreamer1.0-vaapi", RENDER),
    candidate("v4l2h264enc", "video4linux2", "gstreamer1.0-plugins-good", BOARD),
    candidate("x264enc", "x264", "gstreamer1.0-plugins-ugly", &[]),
    candidate("openh264enc", "openh264", "gstreamer1.0-plugins-bad", &[]),
];

const fn candidate(
    factory: &'static str,
    plugin: &'static str,
    package: &'static str,
    nodes: &'static [&'static str],
) -> Candidate {
    Candidate { factory, plugin, package, nodes }
}

/// A trial: so many frames of so many pixels, in so much time. That is plenty; a machine that is
/// starting everything at once may stand still for a part of it.
const FRAMES: u64 = 20;
const WIDTH: u32 = 640;
const HEIGHT: u32 = 368;
const FRAMES_PER_SECOND: u64 = 25;
const PATIENCE: Duration = Duration::from_secs(10);

pub fn candidate_named(factory: &str) -> Option<&'static Candidate> {
    CANDIDATES.iter().find(|candidate| candidate.factory == factory)
}

/// What this machine has, without having tried an encoder.
pub fn look() -> Survey {
    let could_be_here = |candidate: &&Candidate| {
        let has_node = candidate.nodes.iter().any(|node| Path::new(node).exists());
        candidate.nodes.is_empty() || has_node || plugins::is_known(candidate.factory)
    };
    Survey {
        version: gst::version_string().to_string(),
        candidates: CANDIDATES.iter().filter(could_be_here).map(|c| c.factory.to_owned()).collect(),
        missing: plugins::missing(),
        ..Survey::default()
    }
}

/// Has `factory` encode a few frames. [`VideoError::Missing`] when there is none,
/// [`VideoError::Encoder`] when it does not do what it should, [`VideoError::Late`] when it did
/// nothing wrong until time was up.
pub fn attempt(factory: &str) -> Result<(), VideoError> {
    let encoder = gst::ElementFactory::make(factory).build().map_err(|_| VideoError::Missing(absent(factory)))?;
    let trial = Trial::build(&encoder).map_err(|e| VideoError::Internal(e.to_string()))?;
    let outcome = trial.run();
    if outcome.is_ok() {
        let _ = trial.pipeline.set_state(gst::State::Null);
    } else {
        // A driver that hangs would keep whoever stops it; the process ends with the trial.
        std::mem::forget(trial);
    }
    outcome
}

/// What is missing where there is no such encoder.
pub fn absent(factory: &str) -> Missing {
    let package = candidate_named(factory).map_or("", |candidate| candidate.package);
    let without = match factory {
        "x264enc" => "H.264 films can't be made without x264enc, unless with another encoder and at a lower quality.",
        _ => "This encoder cannot be used.",
    };
    plugins::missing_one(factory, package, without)
}

struct Trial {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    sink: gst_app::AppSink,
}

impl Trial {
    fn build(encoder: &gst::Element) -> Result<Trial, gst::glib::BoolError> {
        let frames = gst::Fraction::new(FRAMES_PER_SECOND as i32, 1);
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, WIDTH, HEIGHT).fps(frames).build()?;
        let source = gst_app::AppSrc::builder().caps(&info.to_caps()?).format(gst::Format::Time).build();
        let convert = gst::ElementFactory::make("videoconvert").build()?;
        let parser = gst::ElementFactory::make("h264parse").build()?;
        let caps = gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au").build();
        let sink = gst_app::AppSink::builder().caps(&caps).sync(false).build();
        let pipeline = gst::Pipeline::new();
        let chain = [source.upcast_ref(), &convert, encoder, &parser, sink.upcast_ref()];
        pipeline.add_many(chain)?;
        gst::Element::link_many(chain)?;
        Ok(Trial { pipeline, source, sink })
    }

    fn run(&self) -> Result<(), VideoError> {
        let late = Instant::now() + PATIENCE;
        self.pipeline.set_state(gst::State::Playing).map_err(|_| self.complaint("it does not start"))?;
        for number in 0..FRAMES {
            let frame = frame(number).map_err(|e| VideoError::Internal(e.to_string()))?;
            self.source.push_buffer(frame).map_err(|_| self.complaint("it takes no frames"))?;
        }
        self.source.end_of_stream().map_err(|_| self.complaint("it takes no end"))?;
        let (mut came, mut keys) = (0, 0);
        loop {
            let left = late.saturating_duration_since(Instant::now());
            // An error wakes nobody who waits for a sample: look in between.
            let pause = left.min(Duration::from_millis(100));
            match self.sink.try_pull_sample(gst::ClockTime::from_nseconds(pause.as_nanos() as u64)) {
                Some(sample) => {
                    came += 1;
                    let delta = sample.buffer().is_some_and(|b| b.flags().contains(gst::BufferFlags::DELTA_UNIT));
                    keys += u64::from(!delta);
                }
                None if self.sink.is_eos() => break,
                None => {
                    if let Some(error) = self.error() {
                        return Err(VideoError::Encoder(error));
                    } else if left.is_zero() {
                        let why = format!("{came} of {FRAMES} frames came in {} s", PATIENCE.as_secs());
                        return Err(VideoError::Late(why));
                    }
                }
            }
        }
        match (came, keys) {
            _ if came != FRAMES => Err(self.complaint(&format!("{came} of {FRAMES} frames came out"))),
            (_, 0) => Err(VideoError::Encoder("no key frame came out".to_owned())),
            _ => Ok(()),
        }
    }

    /// What the pipeline says is wrong, or else `otherwise`.
    fn complaint(&self, otherwise: &str) -> VideoError {
        VideoError::Encoder(self.error().unwrap_or_else(|| otherwise.to_owned()))
    }

    fn error(&self) -> Option<String> {
        let message = self.pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        }
    }
}

/// A frame of NV12: slanted lines that wander, so that there is something to encode.
fn frame(number: u64) -> Result<gst::Buffer, gst::glib::BoolError> {
    let (width, height) = (u64::from(WIDTH), u64::from(HEIGHT));
    let luma = (0..width * height).map(|at| (at % width + at / width * 2 + number * 4) as u8);
    let chroma = (0..width * height / 2).map(|at| 96 + (at / width / 4 + number) as u8 % 64);
    let mut buffer = gst::Buffer::from_slice(luma.chain(chroma).collect::<Vec<u8>>());
    let filled = buffer.get_mut().ok_or_else(|| gst::glib::bool_error!("a fresh buffer is shared"))?;
    let duration = gst::ClockTime::SECOND / FRAMES_PER_SECOND;
    filled.set_pts(duration * number);
    filled.set_duration(duration);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::super::Errand;
    use super::*;

    #[test]
    fn software_works_and_what_is_not_there_is_named() {
        for factory in ["x264enc", "openh264enc"] {
            plugins::prepare(&Errand::Encoder(factory.to_owned())).unwrap();
            assert_eq!(attempt(factory), Ok(()), "{factory}");
        }
        for (factory, package) in [("vaapih264enc", "gstreamer1.0-vaapi"), ("nosuchenc", "")] {
            assert!(matches!(attempt(factory), Err(VideoError::Missing(missing)) if missing.package == package));
        }
    }

    #[test]
    fn what_gives_no_films_fails() {
        plugins::prepare(&Errand::Encoder("x264enc".to_owned())).unwrap();
        assert!(matches!(attempt("queue"), Err(VideoError::Encoder(_) | VideoError::Internal(_))));
    }

    #[test]
    fn software_is_always_a_candidate() {
        plugins::prepare(&Errand::Survey).unwrap();
        let survey = look();
        assert!(survey.candidates.ends_with(&["x264enc".to_owned(), "openh264enc".to_owned()]), "{survey:?}");
        assert!(survey.encoders.is_empty());
    }
}
