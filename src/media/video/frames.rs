//! Single frames out of a film, and JPEGs of them.
//!
//! In: a film and its facts, a box, a moment. Out: frames in the box, upright, as JFIF wants them
//! (I420, BT.601 weights, full range), and the bytes of JPEGs.
//!
//! Invariant: whoever looks at a [`Frame`] or at its JPEG sees the same colours as the film shows in
//! BT.709; each frame says which moment of the film it shows.
//!
//! There are two ways to frames: [`Film::at`] jumps, [`Film::next`] takes them as they come, and then
//! only those that a choice made beforehand lets pass are shaped at all.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::VideoFrameExt;

use super::Fit;
use super::Shape;
use super::VideoError;
use super::elements::caps_filter;
use super::elements::element;
use super::elements::internal;
use super::elements::invalid;
use super::elements::join;
use super::elements::seconds;
use super::open;
use super::open::Facts;
use super::open::Kind;
use super::open::Picture;
use super::open::Wanted;
use super::open::Watch;
use super::shape;
use super::shape::Turn;
use super::shape::Work;

/// As JFIF has it.
const JFIF: &str = "1:4:7:1";

const JPEG_QUALITY: i32 = 95;

/// A film that gives frames.
pub struct Film {
    pipeline: gst::Pipeline,
    watch: Watch,
    sink: gst_app::AppSink,
    choice: Choice,
}

/// A frame, shaped.
#[derive(Clone, Debug)]
pub struct Frame {
    sample: gst::Sample,
    /// Of the film's own time.
    pub at_seconds: f64,
    /// Until when it is shown; as `at_seconds` where the film does not say.
    pub end_seconds: f64,
}

/// Makes JPEGs, one after the other.
pub struct Jpegs {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    sink: gst_app::AppSink,
}

/// Which frames pass: those that are shown at one of these moments, in ascending order.
#[derive(Clone, Default)]
struct Choice(Arc<Mutex<Chosen>>);

#[derive(Default)]
struct Chosen {
    /// All pass.
    moments: Option<Vec<f64>>,
    next: usize,
    /// How far decoding is.
    reached_seconds: f64,
}

/// The size that a film takes in a box; even, at least 2 x 2.
pub fn fitted(film: (u32, u32), width: u32, height: u32, shape: Shape) -> (u32, u32) {
    let (own_width, own_height) = (f64::from(film.0.max(1)), f64::from(film.1.max(1)));
    let even = |side: f64, most: u32| (((side / 2.0).round() as u32) * 2).clamp(2, (most & !1).max(2));
    match shape.fit {
        Fit::Preserve => {
            let scale = (f64::from(width) / own_width).min(f64::from(height) / own_height);
            let scale = if shape.upscale { scale } else { scale.min(1.0) };
            (even(own_width * scale, width), even(own_height * scale, height))
        }
        Fit::Pad => (even(f64::from(width), width), even(f64::from(height), height)),
        Fit::Scale | Fit::Crop => {
            let side = |own: f64, most: u32| if shape.upscale { f64::from(most) } else { own.min(f64::from(most)) };
            (even(side(own_width, width), width), even(side(own_height, height), height))
        }
    }
}

/// Three planes without gaps, as [`Jpegs::planes`] takes them: GStreamer fills rows to four bytes.
pub fn packed(width: u32, height: u32, planes: [&[u8]; 3]) -> Result<Vec<u8>, VideoError> {
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height)
        .build()
        .map_err(|error| internal(&error))?;
    let mut bytes = vec![0; info.size()];
    for (at, plane) in planes.into_iter().enumerate() {
        let row_bytes = if at == 0 { width } else { width / 2 } as usize;
        let stride = info.stride().get(at).copied().unwrap_or_default() as usize;
        let place = bytes.get_mut(info.offset().get(at).copied().unwrap_or_default()..).unwrap_or_default();
        for (to, from) in place.chunks_mut(stride.max(1)).zip(plane.chunks(row_bytes.max(1))) {
            if let Some(to) = to.get_mut(..from.len()) {
                to.copy_from_slice(from);
            }
        }
    }
    Ok(bytes)
}

impl Film {
    /// Opens a film whose frames come out at `width` x `height`, both even.
    pub fn open(
        source: &Path,
        facts: &Facts,
        width: u32,
        height: u32,
        shape: Shape,
        threads: u32,
    ) -> Result<Film, VideoError> {
        let picture = facts.picture.as_ref().ok_or_else(|| invalid("The file has sound, but no pictures."))?;
        let pipeline = gst::Pipeline::new();
        let mut chain = Vec::new();
        if picture.interlaced {
            chain.push(element("videoconvert")?);
            let deinterlace = element("deinterlace")?;
            deinterlace.set_property_from_str("fields", "top");
            chain.push(deinterlace);
        }
        chain.extend(shaping(picture, width, height, shape)?);
        chain.push(element("videoconvert")?);
        chain.push(caps_filter(
            &gst::Caps::builder("video/x-raw")
                .field("format", "I420")
                .field("width", width as i32)
                .field("height", height as i32)
                .field("colorimetry", JFIF)
                .field("chroma-site", "jpeg")
                .build(),
        )?);
        let sink = app_sink();
        chain.push(sink.clone().upcast());
        join(&pipeline, &chain)?;
        let inlet = chain
            .first()
            .and_then(|first| first.static_pad("sink"))
            .ok_or_else(|| internal("an element has no pads"))?;

        let choice = Choice::default();
        let choosing = choice.clone();
        inlet.add_probe(gst::PadProbeType::BUFFER, move |pad, info| match info.buffer() {
            // `Drop` would free the buffer twice in GStreamer 1.22.0.
            Some(buffer) if !choosing.passes(pad, buffer) => gst::PadProbeReturn::Handled,
            _ => gst::PadProbeReturn::Ok,
        });
        let wanted = Wanted { sound: None, ..facts.wanted() };
        let notes = open::decode(&pipeline, source, &wanted, threads, move |kind, pad| {
            if kind == Kind::Picture {
                pad.link(&inlet).map_err(|error| internal(&error))?;
            }
            Ok(())
        })?;
        let watch = Watch::new(&pipeline, notes)?;
        Ok(Film { pipeline, watch, sink, choice })
    }

    /// Pauses at the first frame. Needed before [`Film::at`].
    pub fn pause(&mut self) -> Result<(), VideoError> {
        self.watch.preroll()
    }

    /// The frame at a moment, or at the last key frame before it, which costs less. `None` if there is
    /// none, or if the film cannot be searched.
    pub fn at(
        &mut self,
        moment_seconds: f64,
        exactly: bool,
        alive: &mut dyn FnMut(),
    ) -> Result<Option<Frame>, VideoError> {
        let flags = if exactly {
            gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE
        } else {
            gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE
        };
        let moment = gst::ClockTime::from_nseconds((moment_seconds.max(0.0) * 1e9) as u64);
        if self.pipeline.seek_simple(flags, moment).is_err() {
            return Ok(None);
        }
        self.watch.settle(alive)?;
        // The seek has come through: the frame is here, or the film has ended before it.
        let sample = self.sink.try_pull_preroll(gst::ClockTime::ZERO);
        Ok(sample.map(Frame::new))
    }

    /// The first frame, once paused.
    pub fn first(&mut self) -> Option<Frame> {
        self.sink.try_pull_preroll(gst::ClockTime::ZERO).map(Frame::new)
    }

    /// From now on, only the frames that are shown at these moments come. To be said before the film
    /// is played, and played once.
    pub fn choose(&mut self, moments: Vec<f64>) {
        self.choice.0.lock().unwrap_or_else(PoisonError::into_inner).moments = Some(moments);
    }

    /// Starts decoding from the first frame.
    pub fn play(&mut self) -> Result<(), VideoError> {
        self.watch.play()
    }

    /// The next frame; `None` at the end. Calls `alive` with the moment that decoding has reached.
    pub fn next(&mut self, alive: &mut dyn FnMut(f64)) -> Result<Option<Frame>, VideoError> {
        loop {
            let sample = self.sink.try_pull_sample(gst::ClockTime::from_mseconds(300));
            alive(self.choice.0.lock().unwrap_or_else(PoisonError::into_inner).reached_seconds);
            if let Some(sample) = sample {
                return Ok(Some(Frame::new(sample)));
            }
            self.watch.check()?;
            if self.sink.is_eos() {
                return Ok(None);
            }
        }
    }

    /// The moment up to which the film was decoded.
    pub fn reached_seconds(&self) -> f64 {
        self.choice.0.lock().unwrap_or_else(PoisonError::into_inner).reached_seconds
    }
}

impl Frame {
    fn new(sample: gst::Sample) -> Frame {
        let mut at_seconds = 0.0;
        let mut end_seconds = 0.0;
        let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::ClockTime>());
        if let Some((segment, buffer)) = segment.zip(sample.buffer()) {
            (at_seconds, end_seconds) = shown(segment, buffer);
        }
        Frame { sample, at_seconds, end_seconds }
    }

    /// It is shown at this moment, or is the first one after it.
    pub fn shows(&self, moment_seconds: f64) -> bool {
        is_shown(self.at_seconds, self.end_seconds, moment_seconds)
    }

    /// Calls `read` with its three planes: rows of bytes, and the bytes from row to row.
    pub fn planes<T>(&self, read: impl FnOnce([(&[u8], usize); 3]) -> T) -> Result<T, VideoError> {
        let caps = self.sample.caps().ok_or_else(|| internal("a frame has no caps"))?;
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|error| internal(&error))?;
        let buffer = self.sample.buffer().ok_or_else(|| internal("a frame has no buffer"))?;
        let frame =
            gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).map_err(|error| internal(&error))?;
        let plane = |at: u32| {
            let bytes = frame.plane_data(at).map_err(|error| internal(&error))?;
            let stride = frame.plane_stride().get(at as usize).copied().unwrap_or_default();
            Ok::<_, VideoError>((bytes, usize::try_from(stride).unwrap_or_default()))
        };
        Ok(read([plane(0)?, plane(1)?, plane(2)?]))
    }
}

impl Jpegs {
    /// For pictures of one size.
    pub fn new(width: u32, height: u32) -> Result<Jpegs, VideoError> {
        let caps = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height)
            .build()
            .and_then(|info| info.to_caps())
            .map_err(|error| internal(&error))?;
        let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).build();
        let encoder = element("jpegenc")?;
        encoder.set_property("quality", JPEG_QUALITY);
        let sink = app_sink();
        let pipeline = gst::Pipeline::new();
        join(&pipeline, &[source.clone().upcast(), encoder, sink.clone().upcast()])?;
        pipeline.set_state(gst::State::Playing).map_err(|error| internal(&error))?;
        Ok(Jpegs { pipeline, source, sink })
    }

    pub fn frame(&mut self, frame: &Frame) -> Result<Vec<u8>, VideoError> {
        let buffer = frame.sample.buffer_owned().ok_or_else(|| internal("a frame has no buffer"))?;
        self.encode(buffer)
    }

    /// Of three planes that [`packed`] put into one.
    pub fn planes(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, VideoError> {
        self.encode(gst::Buffer::from_mut_slice(bytes))
    }

    fn encode(&mut self, mut buffer: gst::Buffer) -> Result<Vec<u8>, VideoError> {
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::ZERO);
            buffer.set_dts(gst::ClockTime::NONE);
        }
        self.source.push_buffer(buffer).map_err(|error| internal(&format!("the JPEG encoder: {error}")))?;
        let sample = self
            .sink
            .try_pull_sample(gst::ClockTime::from_seconds(30))
            .ok_or_else(|| internal("the JPEG encoder gave nothing"))?;
        let map = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
        map.map(|map| map.to_vec()).ok_or_else(|| internal("a JPEG cannot be read"))
    }
}

impl Drop for Jpegs {
    fn drop(&mut self) {
        // Nothing is left to do about a pipeline that cannot even stop.
        let _stopped = self.pipeline.set_state(gst::State::Null);
    }
}

impl Choice {
    fn passes(&self, pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
        let mut chosen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = pad.sticky_event::<gst::event::Segment>(0);
        let segment = segment.as_ref().and_then(|event| event.segment().downcast_ref::<gst::ClockTime>());
        let Some(segment) = segment else { return true };
        let (start, end) = shown(segment, buffer);
        chosen.reached_seconds = chosen.reached_seconds.max(end);
        let Some(moments) = &chosen.moments else { return true };
        let rest = moments.get(chosen.next..).unwrap_or_default();
        let passed = rest.iter().take_while(|&&moment| is_shown(start, end, moment)).count();
        chosen.next += passed;
        passed > 0
    }
}

/// A frame stands for the moments before it that none was shown at, too.
fn is_shown(start: f64, end: f64, moment: f64) -> bool {
    moment <= start || moment < end
}

/// From when to when a film shows a buffer.
fn shown(segment: &gst::FormattedSegment<gst::ClockTime>, buffer: &gst::BufferRef) -> (f64, f64) {
    let start = buffer.pts().and_then(|pts| segment.to_stream_time(pts)).map_or(0.0, seconds);
    (start, start + buffer.duration().map_or(0.0, seconds))
}

/// Elements that turn decoded frames upright and bring them into their size in BT.709.
fn shaping(picture: &Picture, width: u32, height: u32, shape: Shape) -> Result<[gst::Element; 2], VideoError> {
    let turn = Turn::from(picture.orientation);
    let work = Work { width, height, fit: shape.fit, padding: shape.padding, upscale: shape.upscale, turn, mark: None };
    // Takes the few kinds of pixels that the shaping does not, and lets the others by.
    Ok([element("videoconvert")?, shape::element(work)?])
}

fn app_sink() -> gst_app::AppSink {
    gst_app::AppSink::builder().sync(false).max_buffers(2).enable_last_sample(false).build()
}
