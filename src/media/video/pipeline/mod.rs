//! The pipeline that makes a film's renditions: one decoding, one encoding for each picture.
//!
//! In: facts about a source, a plan, an order. Out: a [`Reel`]: a pipeline that is ready to run, and
//! what is needed to follow it.
//!
//! Invariant: the pictures begin at zero, come at an even rate and have even times in every branch,
//! and the sound lasts exactly as long (`sound`). All renditions of a film are cut at the same
//! places because they are made of the same frames.
//!
//! ```text
//! source ─ entry ─ queue ─ [deinterlace] ─ videorate ─ tee ─┬ queue ─ shape ─ encoder ─ tee ─┬ mp4mux
//!                                                          ├ …                              └ cmafmux
//!          entry ─ queue ─ audioconvert ─ audioresample ─ steady ─ AAC ─ tee ─ every muxer
//! ```
//!
//! Queues of raw frames are short, for frames are large. Those of encoded ones are not bounded: a
//! muxer that waits for one stream must never keep another from flowing.

mod timing;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_audio as gst_audio;

use super::Mark;
use super::Transcode;
use super::VideoError;
use super::elements::branch;
use super::elements::caps_filter;
use super::elements::element;
use super::elements::internal;
use super::elements::join;
use super::elements::pad;
use super::elements::queue;
use super::elements::queue_named;
use super::h264;
use super::hls;
use super::ladder::Encode;
use super::ladder::Picture;
use super::ladder::Plan;
use super::ladder::Rate;
use super::open;
use super::shape;
use super::shape::Overlay;
use super::shape::Turn;
use super::sound;
use super::sound::Lead;

use self::timing::Gate;
use self::timing::Start;
use self::timing::keep_time;

pub use self::timing::Stretch;

/// Names of the queues in front of encoders; what an encoder does not say itself, they do.
pub const BEFORE: &str = "before-encoder";

/// What sound is made of in every rendition, in bit/s.
const SOUND_BITS: i32 = 128_000;

/// Frames that an AAC encoder puts before the first sample, in samples.
const PRIMING: u64 = 1024;

/// A pipeline, and what there is to see of it.
#[derive(Debug)]
pub struct Reel {
    pub pipeline: gst::Pipeline,
    pub notes: open::Notes,
    /// Where pictures and sound come in.
    pub picture: gst::Pad,
    pub sound: Option<gst::Pad>,
    pub lead: Arc<Lead>,
    /// Grows whenever anything moves.
    pub moves: Arc<AtomicU64>,
    /// Of each encode in the plan.
    pub tracks: Vec<Option<Arc<hls::Track>>>,
    pub heard: Option<Arc<hls::Track>>,
    /// Of the MP4s, by name.
    pub files: BTreeMap<String, PathBuf>,
    start: Arc<Start>,
    gate: Arc<Gate>,
}

/// What the pipeline is to do, decided.
#[derive(Debug)]
pub struct Work<'a> {
    pub order: &'a Transcode,
    pub facts: &'a open::Facts,
    pub film: &'a open::Picture,
    pub plan: &'a Plan,
    pub rate: Rate,
    pub stretch: Option<Stretch>,
}

impl Reel {
    /// Builds everything behind the source, then the source.
    pub fn build(work: &Work<'_>) -> Result<Self, VideoError> {
        if gst::ElementFactory::find("cmafmux").is_none() {
            gstfmp4::plugin_register_static().map_err(|error| internal(&error))?;
        }
        let pipeline = gst::Pipeline::new();
        let moves = Arc::new(AtomicU64::new(0));
        let lead = Arc::new(Lead::default());
        let with_sound = work.facts.sound.is_some();
        let start = Arc::new(Start::new(1 + usize::from(with_sound), work.stretch.is_some()));
        let gate = Arc::new(Gate::default());

        let (picture, frames) = pictures(&pipeline, work, &lead, &moves)?;
        let heard = if with_sound { Some(sounds(&pipeline, work, &lead)?) } else { None };
        let mut files = BTreeMap::new();
        let mut tracks = Vec::new();
        for (number, encode) in work.plan.encodes.iter().enumerate() {
            let coded = encoding(&pipeline, work, encode, number, &frames)?;
            watch(&coded, &moves)?;
            for name in &encode.films {
                let path = work.order.folder.join(format!("{name}.mp4"));
                film(&pipeline, &path, &coded, heard.as_ref().map(|(_, coded)| coded), &moves)?;
                files.insert(name.clone(), path);
            }
            let track = encode
                .variant
                .map(|lines| segments(&pipeline, &work.order.folder, &hls::rung(lines), &coded, work.rate))
                .transpose()?;
            tracks.push(track);
        }
        let streamed = work.order.hls.is_some();
        let segmented = heard
            .as_ref()
            .filter(|_| streamed)
            .map(|(_, coded)| segments(&pipeline, &work.order.folder, "audio", coded, work.rate))
            .transpose()?;
        let sound = heard.map(|(inlet, _)| inlet);

        keep_time(&picture, &start, true, work.stretch);
        if let Some(sound) = &sound {
            keep_time(sound, &start, false, None);
        }
        let inlets = (picture.clone(), sound.clone());
        let held = work.stretch.is_some().then(|| Arc::clone(&gate));
        let notes = open::decode(&pipeline, &work.order.source, &work.facts.wanted(), 0, move |kind, pad| {
            let inlet = match kind {
                open::Kind::Picture => Some(&inlets.0),
                open::Kind::Sound => inlets.1.as_ref(),
            };
            let inlet = inlet.ok_or_else(|| internal("a stream came that nobody wanted"))?;
            if let Some(gate) = &held {
                gate.hold(pad);
            }
            pad.link(inlet).map(|_| ()).map_err(|error| internal(&error))
        })?;
        let reel = Self { pipeline, notes, picture, sound, lead, moves, tracks, heard: segmented, files, start, gate };
        reel.mind_the_last_stream();
        Ok(reel)
    }

    /// Whether an element belongs to the part that reads the source.
    pub fn reads(&self, element: &gst::Object) -> bool {
        self.decodebin().is_some_and(|decodebin| element == &decodebin || element.has_as_ancestor(&decodebin))
    }

    /// Ends pictures and sound as if the source did.
    pub fn end(&self) {
        self.start.give_up();
        for inlet in [Some(&self.picture), self.sound.as_ref()].into_iter().flatten() {
            // One that has ended already is left as it is.
            let _sent = inlet.send_event(gst::event::Eos::new());
        }
    }

    /// Ends the sound; pictures go on.
    pub fn end_sound(&self) {
        self.start.give_up();
        if let Some(inlet) = &self.sound {
            let _sent = inlet.send_event(gst::event::Eos::new());
        }
    }

    /// All streams of the source wait at their beginnings.
    pub fn ready_to_seek(&self) -> bool {
        self.gate.ready(1 + usize::from(self.sound.is_some()))
    }

    /// Goes to a stretch of the source and lets its streams go.
    pub fn seek(&self, stretch: Stretch) -> bool {
        let held = self.gate.open();
        let seek = || {
            gst::event::Seek::new(
                1.0,
                gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE,
                gst::SeekType::Set,
                gst::ClockTime::from_nseconds(stretch.start),
                gst::SeekType::Set,
                gst::ClockTime::from_nseconds(stretch.end),
            )
        };
        let picture = held.iter().find(|(pad, _)| pad.peer().as_ref() == Some(&self.picture));
        let sought = picture.is_some_and(|(pad, _)| pad.send_event(seek()));
        for (pad, probe) in held {
            pad.remove_probe(probe);
        }
        sought
    }

    /// Stops everything; nobody may wait for anything after this.
    pub fn stop(&self) {
        self.lead.abandon();
        self.start.give_up();
        // Nothing is left to do about a pipeline that cannot even stop.
        let _stopped = self.pipeline.set_state(gst::State::Null);
    }

    /// A stream that a file promised and did not bring must not be waited for.
    fn mind_the_last_stream(&self) {
        let Some(decodebin) = self.decodebin() else { return };
        let (picture, sound) = (self.picture.downgrade(), self.sound.as_ref().map(ObjectExt::downgrade));
        let (start, gate) = (Arc::clone(&self.start), Arc::clone(&self.gate));
        decodebin.connect("no-more-pads", false, move |_| {
            for inlet in [Some(&picture), sound.as_ref()].into_iter().flatten().filter_map(gst::glib::WeakRef::upgrade)
            {
                if !inlet.is_linked() {
                    start.come(None, false);
                    let _sent = inlet.send_event(gst::event::Eos::new());
                }
            }
            gate.complete();
            None
        });
    }

    fn decodebin(&self) -> Option<gst::Element> {
        let is = |element: &gst::Element| element.factory().is_some_and(|factory| factory.name() == "decodebin");
        self.pipeline.children().into_iter().find(is)
    }
}

impl Drop for Reel {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The part all pictures go through. Where they come in, and the tee they come out of.
fn pictures(
    pipeline: &gst::Pipeline,
    work: &Work<'_>,
    lead: &Arc<Lead>,
    moves: &Arc<AtomicU64>,
) -> Result<(gst::Pad, gst::Element), VideoError> {
    let mut chain = vec![queue(4)?];
    if work.film.interlaced {
        let deinterlace = element("deinterlace")?;
        deinterlace.set_property_from_str("mode", "auto");
        deinterlace.set_property_from_str("method", "yadif");
        deinterlace.set_property_from_str("fields", "top");
        chain.extend([element("videoconvert")?, deinterlace]);
    }
    let fraction = gst::Fraction::new(work.rate.frames as i32, work.rate.seconds as i32);
    let rated = caps_filter(&gst::Caps::builder("video/x-raw").field("framerate", fraction).build())?;
    let tee = element("tee")?;
    // Converts the few kinds of pixels that shaping does not take, and lets all others by.
    chain.extend([element("videorate")?, rated.clone(), element("videoconvert")?, tee.clone()]);
    join(pipeline, &chain)?;

    let outlet = pad(&rated, "src")?;
    let (lead, moves) = (Arc::clone(lead), Arc::clone(moves));
    let frame = work.rate.lasting(1);
    outlet.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                moves.fetch_add(1, Ordering::Relaxed);
                let lasts = buffer.duration().map_or(frame, gst::ClockTime::nseconds);
                lead.reach(buffer.pts().map_or(0, gst::ClockTime::nseconds) + lasts);
            }
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos => lead.end(),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    let first = chain.first().ok_or_else(|| internal("a chain has no elements"))?;
    Ok((pad(first, "sink")?, tee))
}

/// The sound's part. Where it comes in, and the tee that AAC comes out of.
fn sounds(pipeline: &gst::Pipeline, work: &Work<'_>, lead: &Arc<Lead>) -> Result<(gst::Pad, gst::Element), VideoError> {
    let queue = element("queue")?;
    queue.set_property("max-size-buffers", 0u32);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 2_000_000_000u64);
    let convert = element("audioconvert")?;
    let caps = gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("rate", sound::RATE as i32)
        .field("channels", sound::CHANNELS as i32)
        .field("channel-mask", gst::Bitmask::new(3))
        .build();
    let wanted = caps_filter(&caps)?;
    let encoder = element("avenc_aac")?;
    encoder.set_property("bitrate", SOUND_BITS);
    let tee = element("tee")?;
    let chain = [
        queue.clone(),
        convert.clone(),
        element("audioresample")?,
        wanted,
        sound::element(Arc::clone(lead)),
        encoder.clone(),
        element("aacparse")?,
        tee.clone(),
    ];
    join(pipeline, &chain)?;
    let inlet = pad(&queue, "sink")?;
    if work.facts.sound.as_ref().is_some_and(|sound| sound.channels > 2) {
        place_channels(&inlet, &convert);
    }
    without_priming(&pad(&encoder, "src")?);
    Ok((inlet, tee))
}

/// Channels that stand nowhere cannot be mixed down: the first two are taken.
fn place_channels(inlet: &gst::Pad, convert: &gst::Element) {
    let convert = convert.downgrade();
    inlet.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let about = gst_audio::AudioInfo::from_caps(event.caps()).ok();
        let unplaced = about.filter(|about| {
            about.positions().is_none_or(|at| at.contains(&gst_audio::AudioChannelPosition::None))
                && about.channels() > 2
        });
        if let Some((about, convert)) = unplaced.zip(convert.upgrade()) {
            let row = |kept: u32| {
                let weights = (0..about.channels()).map(|channel| if channel == kept { 1f32 } else { 0f32 });
                gst::Array::new(weights)
            };
            convert.set_property("mix-matrix", gst::Array::new([row(0), row(1)]));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Takes out the frame that AAC begins with and that holds no sample, and moves the others to where
/// they belong: nobody has to heed an edit list, and many players do not.
fn without_priming(outlet: &gst::Pad) {
    let frames = AtomicU64::new(0);
    outlet.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let number = frames.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            return gst::PadProbeReturn::Handled;
        }
        let before = gst::ClockTime::from_nseconds(PRIMING * 1_000_000_000 / u64::from(sound::RATE));
        if let Some(buffer) = info.buffer_mut() {
            let buffer = buffer.make_mut();
            buffer.set_pts(buffer.pts().map(|pts| pts.saturating_sub(before)));
            buffer.set_dts(buffer.dts().map(|dts| dts.saturating_sub(before)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// From frames to H.264. The tee that it comes out of.
fn encoding(
    pipeline: &gst::Pipeline,
    work: &Work<'_>,
    encode: &Encode,
    number: usize,
    frames: &gst::Element,
) -> Result<gst::Element, VideoError> {
    let job = h264::Job { picture: encode.picture, rate: work.rate, among_others: work.plan.encodes.len() > 1, number };
    let queue = queue_named(&format!("{BEFORE}-{number}"), 3)?;
    let tee = element("tee")?;
    let mut chain = vec![queue.clone()];
    chain.push(shaped(work, encode)?);
    chain.extend(h264::chain(&work.order.encoder, &job)?);
    chain.push(tee.clone());
    join(pipeline, &chain)?;
    branch(frames, &queue)?;
    Ok(tee)
}

/// What brings frames into the shape of an encoding.
fn shaped(work: &Work<'_>, encode: &Encode) -> Result<gst::Element, VideoError> {
    let Picture { width, height, fit, padding, watermark } = encode.picture;
    let turn = Turn::from(work.film.orientation);
    let mark = work.order.mark.as_ref().filter(|_| watermark).map(overlay).transpose()?;
    // The plan has made the box so small that nothing grows in it that should not.
    shape::element(shape::Work { width, height, fit, padding, upscale: true, turn, mark })
}

fn overlay(mark: &Mark) -> Result<Overlay, VideoError> {
    let file = File::open(&mark.file).map_err(|error| VideoError::Internal(format!("the watermark: {error}")))?;
    let picture = shape::Picture::read_png(BufReader::new(file))?;
    Ok(Overlay { picture, place: mark.place, scale: mark.scale })
}

/// From H.264 and AAC to an MP4 with its index in front.
fn film(
    pipeline: &gst::Pipeline,
    path: &Path,
    coded: &gst::Element,
    heard: Option<&gst::Element>,
    moves: &Arc<AtomicU64>,
) -> Result<(), VideoError> {
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| internal("a path is not UTF-8"));
    let muxer = element("mp4mux")?;
    muxer.set_property("faststart", true);
    muxer.set_property("faststart-file", text(&path.with_extension("part"))?);
    let sink = element("filesink")?;
    sink.set_property("location", text(path)?);
    sink.set_property("sync", false);
    sink.set_property("async", false);
    join(pipeline, &[muxer.clone(), sink])?;
    let streams = [Some((coded, "video_%u")), heard.map(|heard| (heard, "audio_%u"))];
    for (tee, name) in streams.into_iter().flatten() {
        let queue = endless(pipeline)?;
        branch(tee, &queue)?;
        let inlet = muxer.request_pad_simple(name).ok_or_else(|| internal("a muxer has no pad left"))?;
        pad(&queue, "src")?.link(&inlet).map_err(|error| internal(&error))?;
    }
    watch(&muxer, moves)
}

/// From H.264 or AAC to segments.
fn segments(
    pipeline: &gst::Pipeline,
    folder: &Path,
    name: &str,
    coded: &gst::Element,
    rate: Rate,
) -> Result<Arc<hls::Track>, VideoError> {
    let track = Arc::new(hls::Track::new(folder, name)?);
    let muxer = element("cmafmux")?;
    muxer.set_property("manual-split", true);
    let taken = Arc::clone(&track);
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .async_(false)
        .buffer_list(true)
        .enable_last_sample(false)
        .callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| taken.take(&sink.pull_sample().map_err(|_| gst::FlowError::Eos)?))
                .build(),
        )
        .build();
    let queue = endless(pipeline)?;
    join(pipeline, &[muxer.clone(), sink.upcast()])?;
    branch(coded, &queue)?;
    let outlet = pad(&queue, "src")?;
    let known = Arc::clone(&track);
    outlet.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) {
            known.know(event.caps());
        }
        gst::PadProbeReturn::Ok
    });
    cut(&outlet, rate);
    outlet.link(&pad(&muxer, "sink")?).map_err(|error| internal(&error))?;
    Ok(track)
}

/// Tells a muxer of fragments where to cut: at the key frame that is due at each multiple of a segment, and between
/// the samples next to it. Its own count ends a fragment at the last group that fits, which after rounding may be
/// the one before.
fn cut(outlet: &gst::Pad, rate: Rate) {
    let groups = (hls::SEGMENT_SECONDS as f64 * rate.per_second() / f64::from(rate.group())).round() as u32;
    let frames = groups.max(1) * rate.group();
    let number = AtomicU64::new(1);
    outlet.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer().filter(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT)) else {
            return gst::PadProbeReturn::Ok;
        };
        let segment = pad.sticky_event::<gst::event::Segment>(0);
        let segment = segment.as_ref().and_then(|event| event.segment().downcast_ref::<gst::ClockTime>());
        let due = segment.zip(buffer.pts()).and_then(|(segment, pts)| segment.to_running_time(pts));
        let middle =
            due.map_or(0, gst::ClockTime::nseconds) + buffer.duration().map_or(0, gst::ClockTime::nseconds) / 2;
        let next = number.load(Ordering::Relaxed);
        if middle >= rate.lasting(frames) * next {
            number.store(next + 1, Ordering::Relaxed);
            let split = gst::Structure::builder("FMP4MuxSplitNow").field("chunk", false).build();
            // A muxer that is gone needs no telling.
            let _heard = pad.push_event(gst::event::CustomDownstream::new(split));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Counts what comes out of an element.
fn watch(element: &gst::Element, moves: &Arc<AtomicU64>) -> Result<(), VideoError> {
    let inlet = element.static_pad("sink").or_else(|| element.static_pad("src"));
    let inlet = inlet.ok_or_else(|| internal("an element has no pads"))?;
    let moves = Arc::clone(moves);
    inlet.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
        moves.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// A queue of encoded frames, in the pipeline.
fn endless(pipeline: &gst::Pipeline) -> Result<gst::Element, VideoError> {
    let queue = queue(0)?;
    pipeline.add(&queue).map_err(|error| internal(&error))?;
    Ok(queue)
}
