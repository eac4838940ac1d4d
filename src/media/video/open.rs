//! Opening a stranger's film or recording: what is in it, and its frames and samples.
//!
//! In: the path of a file. Out: [`Facts`] about it ([`look`]), or decoded pads in a pipeline
//! ([`decode`]), each handed over once.
//!
//! Invariant: the named file is the only thing that is read. It comes through `filesrc`, and
//! `decodebin` may pick only from [`OPENERS`] and [`DECODERS`]: there is no element among them
//! that follows an address, so a playlist under a film's name is refused without a request. Streams
//! that nobody wants are not decoded at all, and tags (places, names, a rotation that would be
//! applied twice) end at the decoded pads.
//!
//! Facts come from decoding the first frame with one thread, not from reading headers: a header that
//! lies is found out here. `GstDiscoverer` would do the same over `uridecodebin`, which opens addresses.
//!
//! What is wrong with a file is told in a sentence for its owner, who knows no demuxers.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_pbutils as pbutils;
use gstreamer_video as gst_video;
use gstreamer_video::VideoOrientationMethod;

use super::VideoError;
use super::allowed::CONTAINERS;
use super::allowed::DECODERS;
use super::allowed::ENCRYPTED;
use super::allowed::MOST_ELEMENTS;
use super::allowed::MOST_PIXELS;
use super::allowed::MOST_SIDE;
use super::allowed::OPENERS;
use super::elements;
use super::elements::element;
use super::elements::internal;
use super::elements::invalid;
use super::elements::seconds;
use super::plugins;

/// A file that brings nothing for so long will never bring anything.
const PATIENCE: Duration = Duration::from_mins(1);

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

/// What a decoded pad carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Picture,
    Sound,
}

/// What was met inside a file while it was opened. Tells a stranger's fault from ours.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    noted: Arc<Mutex<Noted>>,
    /// Buffers that came out of the wanted pads.
    moves: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Noted {
    container: Option<String>,
    /// Streams that nothing here decodes: is it a picture, and its name for people.
    unknown: Vec<(bool, String)>,
    encrypted: bool,
    oversized: Option<(i32, i32)>,
    /// Streams that are coded as single pictures.
    images: Vec<String>,
    openers: Vec<glib::WeakRef<gst::Element>>,
}

/// Sees whether a pipeline moves, and hears what it says. Stops it when dropped.
#[derive(Debug)]
pub struct Watch {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    notes: Notes,
    seen: u64,
    since: Instant,
    patience: Duration,
    ended: bool,
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

impl Notes {
    /// What an error of the pipeline means for the file's owner.
    pub fn judge(&self, error: &gst::message::Error) -> VideoError {
        if let Some(fault) = self.fault() {
            return fault;
        }
        let cause = error.error();
        if cause.kind::<gst::CoreError>() == Some(gst::CoreError::MissingPlugin) {
            return self.nothing_decoded();
        }
        match cause.kind::<gst::StreamError>() {
            Some(gst::StreamError::TypeNotFound | gst::StreamError::WrongType) => nothing_known(),
            Some(gst::StreamError::Decrypt | gst::StreamError::DecryptNokey) => encrypted(),
            Some(gst::StreamError::CodecNotFound) => self.nothing_decoded(),
            Some(gst::StreamError::Demux) => self.damaged(),
            Some(gst::StreamError::Decode | gst::StreamError::Format | gst::StreamError::Failed) => {
                invalid("The file is damaged: it cannot be read to its end.")
            }
            _ => VideoError::Internal(said(error)),
        }
    }

    /// Streams that were left out because nothing here decodes them.
    pub fn warnings(&self) -> Vec<String> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sentences: Vec<String> =
            noted.unknown.iter().map(|(picture, name)| unknown_codec(*picture, name)).collect();
        sentences.dedup();
        sentences
    }

    /// Why the file as a whole is not opened.
    fn fault(&self) -> Option<VideoError> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refused) = noted.container.as_deref().and_then(refused) {
            return Some(refused);
        }
        if noted.encrypted {
            return Some(encrypted());
        }
        let (width, height) = noted.oversized?;
        Some(invalid(&format!("The film is too large to be read here: {width} x {height} pixels.")))
    }

    fn nothing_decoded(&self) -> VideoError {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        match noted.unknown.iter().max_by_key(|(picture, _)| *picture) {
            Some((picture, name)) => unreadable(unknown_codec(*picture, name)),
            None => invalid("The file holds nothing that can be shown or played."),
        }
    }

    fn damaged(&self) -> VideoError {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        match noted.container.as_deref() {
            Some("video/quicktime" | "audio/x-m4a" | "application/x-3gp") => {
                invalid("The file is damaged or cut off: its index is missing or broken.")
            }
            _ => invalid("The file is damaged: nothing in it can be read."),
        }
    }

    /// A demuxer stopped reading and has brought out nothing. `decodebin` of GStreamer 1.22 loses the
    /// error of one that stumbles at once.
    fn gave_up(&self) -> bool {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.openers.iter().filter_map(glib::WeakRef::upgrade).any(|element| {
            let idle = element.sink_pads().iter().any(|pad| pad.task_state() == gst::TaskState::Paused);
            idle && element.src_pads().is_empty()
        })
    }

    fn container(&self) -> Option<String> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).container.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Noted)) {
        change(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Watch {
    /// Stops `pipeline` when dropped.
    pub fn new(pipeline: &gst::Pipeline, notes: Notes) -> Result<Watch, VideoError> {
        let bus = pipeline.bus().ok_or_else(|| internal("a pipeline has no bus"))?;
        Ok(Watch {
            pipeline: pipeline.clone(),
            bus,
            notes,
            seen: 0,
            since: Instant::now(),
            patience: PATIENCE,
            ended: false,
        })
    }

    /// Hears what the pipeline has said so far, without waiting. `true` once it ended.
    pub fn check(&mut self) -> Result<bool, VideoError> {
        while let Some(message) = self.bus.pop() {
            self.hear(&message)?;
        }
        self.stalled()?;
        Ok(self.ended)
    }

    /// Waits up to a second for the pipeline to say something. `true` once it ended.
    pub fn wait(&mut self) -> Result<bool, VideoError> {
        if let Some(message) = self.bus.timed_pop(gst::ClockTime::SECOND) {
            self.hear(&message)?;
        }
        self.check()
    }

    /// Pauses the pipeline and waits until every sink has its first buffer.
    pub fn preroll(&mut self) -> Result<(), VideoError> {
        if self.pipeline.set_state(gst::State::Paused).is_err() {
            self.check()?;
            return Err(internal("a pipeline did not pause and did not say why"));
        }
        self.settle(&mut || {})
    }

    /// Starts the pipeline.
    pub fn play(&mut self) -> Result<(), VideoError> {
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            self.check()?;
            return Err(internal("a pipeline did not start and did not say why"));
        }
        Ok(())
    }

    /// Waits until a change of state or a seek has come through; calls `alive` while it waits.
    pub fn settle(&mut self, alive: &mut dyn FnMut()) -> Result<(), VideoError> {
        let mut idle = 0;
        loop {
            let (change, _, _) = self.pipeline.state(gst::ClockTime::from_mseconds(200));
            self.check()?;
            alive();
            match change {
                Ok(gst::StateChangeSuccess::Async) => {
                    idle = if self.notes.gave_up() { idle + 1 } else { 0 };
                    // Once may be a moment too early for an error that is on its way.
                    if idle > 1 {
                        return Err(self.notes.fault().unwrap_or_else(|| self.notes.damaged()));
                    }
                }
                Ok(_) => return Ok(()),
                Err(_) => {
                    // The error may still be on its way.
                    self.wait()?;
                    return Err(internal("a pipeline failed and did not say why"));
                }
            }
        }
    }

    fn hear(&mut self, message: &gst::Message) -> Result<(), VideoError> {
        match message.view() {
            gst::MessageView::Error(error) => Err(self.notes.judge(error)),
            gst::MessageView::Eos(_) => {
                self.ended = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn stalled(&mut self) -> Result<(), VideoError> {
        let moves = self.notes.moves.load(Ordering::Relaxed);
        if moves != self.seen {
            self.seen = moves;
            self.since = Instant::now();
        } else if self.since.elapsed() > self.patience {
            return Err(invalid("The file is damaged: reading it does not come to an end."));
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Nothing is left to do about a pipeline that cannot even stop.
        let _stopped = self.pipeline.set_state(gst::State::Null);
    }
}

/// What is in a file: its first frame and first samples are decoded for it.
pub fn look(source: &Path) -> Result<Facts, VideoError> {
    check_file(source)?;
    let pipeline = gst::Pipeline::new();
    let found: Arc<Mutex<Vec<gst::Pad>>> = Arc::default();
    let found_too = Arc::clone(&found);
    let weak = pipeline.downgrade();
    let notes = open(&pipeline, source, None, 1, move |pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        if sink_away(&pipeline, pad, kind(pad).is_some()).is_ok() {
            found_too.lock().unwrap_or_else(PoisonError::into_inner).push(pad.clone());
        }
    })?;
    let mut watch = Watch::new(&pipeline, notes.clone())?;
    watch.preroll()?;

    let pads = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let duration = pipeline.query_duration::<gst::ClockTime>().map(seconds);
    let mut pictures = Vec::new();
    let mut sounds = Vec::new();
    for pad in &pads {
        match kind(pad) {
            Some(Kind::Picture) => pictures.extend(picture(pad, &notes)),
            Some(Kind::Sound) => sounds.extend(sound(pad)),
            None => {}
        }
    }
    let picture = pictures.into_iter().find(|(_, cover)| !cover || sounds.is_empty()).map(|(picture, _)| picture);
    let several = sounds.len();
    let chosen = (0..several).max_by_key(|&at| (sounds.get(at).map(|(_, rank)| *rank), several - at));
    let sound = chosen.map(|at| sounds.swap_remove(at).0);
    if picture.is_none() && sound.is_none() {
        return Err(notes.fault().unwrap_or_else(|| notes.nothing_decoded()));
    }
    Ok(Facts {
        container: notes.container().unwrap_or_default(),
        duration_seconds: duration,
        picture,
        sound,
        sounds: several,
        warnings: notes.warnings(),
    })
}

/// Puts the file into a pipeline, decoding with `threads` threads (0: as many as there are cores).
///
/// `take` is called from a streaming thread, once for each wanted stream, and links the pad to
/// elements that are in the pipeline already or that it adds and brings to the pipeline's state. No
/// tags come out of the pads. Hand the notes to a [`Watch`].
pub fn decode(
    pipeline: &gst::Pipeline,
    source: &Path,
    wanted: &Wanted,
    threads: u32,
    take: impl Fn(Kind, &gst::Pad) -> Result<(), VideoError> + Send + Sync + 'static,
) -> Result<Notes, VideoError> {
    check_file(source)?;
    let weak = pipeline.downgrade();
    let decided = wanted.clone();
    let taken = Mutex::new(Vec::new());
    let moves: Arc<AtomicU64> = Arc::default();
    let moves_too = Arc::clone(&moves);
    let notes = open(pipeline, source, Some(wanted.clone()), threads, move |pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let kind = kind(pad).filter(|kind| {
            let stream = match kind {
                Kind::Picture => &decided.picture,
                Kind::Sound => &decided.sound,
            };
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let first = !taken.contains(kind);
            let ours = first && stream.is_some() && pad.stream_id().as_deref() == stream.as_deref();
            if ours {
                taken.push(*kind);
            }
            ours
        });
        let done = match kind {
            Some(kind) => {
                drop_tags(pad);
                count(pad, &moves_too);
                take(kind, pad)
            }
            None => sink_away(&pipeline, pad, false),
        };
        if let Err(error) = done {
            let message = gst::message::Error::builder(gst::CoreError::Pad, &format!("{error:?}")).src(pad).build();
            // Without a bus nobody listens.
            let _posted = pipeline.post_message(message);
        }
    })?;
    Ok(Notes { moves, ..notes })
}

/// `filesrc ! decodebin`, with everything that is not listed above kept out.
fn open(
    pipeline: &gst::Pipeline,
    source: &Path,
    wanted: Option<Wanted>,
    threads: u32,
    take: impl Fn(&gst::Pad) + Send + Sync + 'static,
) -> Result<Notes, VideoError> {
    let notes = Notes::default();
    let location = source.to_str().ok_or_else(|| internal("the source's path is not UTF-8"))?;
    let filesrc = element("filesrc")?;
    filesrc.set_property("location", location);
    let decodebin = element("decodebin")?;
    decodebin.set_property("force-sw-decoders", true);
    if let Some(bin) = decodebin.downcast_ref::<gst::Bin>() {
        let met = notes.clone();
        bin.connect_deep_element_added(move |_, _, element| {
            set_threads(element, threads);
            if listed(element, OPENERS) {
                met.change(|noted| noted.openers.push(element.downgrade()));
            }
            if listed(element, &["avidemux"]) {
                element.connect_pad_added(|_, pad| forget_times(pad));
            }
        });
    }

    let met = notes.clone();
    decodebin.connect("autoplug-continue", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        if let Some((pad, caps)) = pad.zip(caps) {
            met.change(|noted| noted.meet(&pad, &caps));
        }
        Some(true.to_value())
    });

    let answers = answers(&decodebin)?;
    let met = notes.clone();
    let elements = AtomicU32::new(0);
    let wanted = Arc::new(wanted);
    let wanted_too = Arc::clone(&wanted);
    decodebin.connect("autoplug-select", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let factory = values.get(3).and_then(|value| value.get::<gst::ElementFactory>().ok());
        let may = pad.zip(factory).is_some_and(|(pad, factory)| {
            let name = factory.name();
            (OPENERS.contains(&name.as_str()) || DECODERS.contains(&name.as_str()))
                && met.fault().is_none()
                && leads_to(wanted.as_ref().as_ref(), &pad)
                && elements.fetch_add(1, Ordering::Relaxed) < MOST_ELEMENTS
        });
        answers.to_value_by_nick(if may { "try" } else { "skip" })
    });

    let met = notes.clone();
    decodebin.connect("unknown-type", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        if let Some((pad, caps)) = pad.zip(caps)
            && leads_to(wanted_too.as_ref().as_ref(), &pad)
        {
            met.change(|noted| noted.miss(&caps));
        }
        None
    });
    decodebin.connect_pad_added(move |_, pad| take(pad));

    pipeline.add_many([&filesrc, &decodebin]).map_err(|error| internal(&error))?;
    filesrc.link(&decodebin).map_err(|error| internal(&error))?;
    Ok(notes)
}

impl Noted {
    /// Caps that `decodebin` is about to look for an element for; the first are the file's own.
    fn meet(&mut self, pad: &gst::Pad, caps: &gst::Caps) {
        let Some(structure) = caps.structure(0) else { return };
        let name = structure.name().as_str();
        if self.container.is_none() {
            self.container = Some(name.to_owned());
        }
        if ENCRYPTED.contains(&name) {
            self.encrypted = true;
        }
        if let (Ok(width), Ok(height)) = (structure.get::<i32>("width"), structure.get::<i32>("height"))
            && (width > MOST_SIDE || height > MOST_SIDE || i64::from(width) * i64::from(height) > MOST_PIXELS)
        {
            self.oversized = Some((width, height));
        }
        if name.starts_with("image/")
            && let Some(stream) = pad.stream_id()
        {
            self.images.push(stream.to_string());
        }
    }

    /// Caps that nothing on the lists takes.
    fn miss(&mut self, caps: &gst::Caps) {
        let name = caps.structure(0).map_or("", |structure| structure.name().as_str());
        let picture = name.starts_with("video/") || name.starts_with("image/");
        // Subtitles and time codes are nobody's loss here.
        if picture || name.starts_with("audio/") {
            self.unknown.push((picture, pbutils::pb_utils_get_codec_description(caps).to_string()));
        }
    }
}

/// What may be answered to `autoplug-select`: a type that only `decodebin` knows.
fn answers(decodebin: &gst::Element) -> Result<glib::EnumClass, VideoError> {
    glib::subclass::SignalId::lookup("autoplug-select", decodebin.type_())
        .and_then(|signal| glib::EnumClass::with_type(signal.query().return_type().type_()))
        .filter(|class| class.value_by_nick("try").is_some() && class.value_by_nick("skip").is_some())
        .ok_or_else(|| internal("decodebin lets nobody choose its elements"))
}

fn listed(element: &gst::Element, names: &[&str]) -> bool {
    element.factory().is_some_and(|factory| names.contains(&factory.name().as_str()))
}

fn set_threads(element: &gst::Element, threads: u32) {
    if !listed(element, DECODERS) {
        return;
    }
    if element.has_property_with_type("max-threads", i32::static_type()) {
        element.set_property("max-threads", threads as i32);
    } else if element.has_property_with_type("threads", u32::static_type()) && threads > 0 {
        element.set_property("threads", threads);
    }
}

/// The pad is a wanted stream, or one that a wanted stream comes out of: the names of streams grow
/// from left to right.
fn leads_to(wanted: Option<&Wanted>, pad: &gst::Pad) -> bool {
    let Some((wanted, stream)) = wanted.zip(pad.stream_id()) else { return true };
    [&wanted.picture, &wanted.sound].into_iter().flatten().any(|one| one.starts_with(stream.as_str()))
}

fn kind(pad: &gst::Pad) -> Option<Kind> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    match caps.structure(0)?.name().as_str() {
        "video/x-raw" => Some(Kind::Picture),
        "audio/x-raw" => Some(Kind::Sound),
        _ => None,
    }
}

/// A picture's facts, and whether it is a recording's cover.
fn picture(pad: &gst::Pad, notes: &Notes) -> Option<(Picture, bool)> {
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
    let image = notes.noted.lock().unwrap_or_else(PoisonError::into_inner).images.contains(&stream);
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
fn sound(pad: &gst::Pad) -> Option<(Sound, u8)> {
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

/// AVI knows when a frame is decoded, not when it is shown. `avidemux` says the one for the other at key
/// frames, so that with reordered frames two would be shown at the same time, and one of them be lost. Without
/// it the decoder counts on from the first frame; after a gap it is told again.
fn forget_times(pad: &gst::Pad) {
    let expected = Mutex::new(None);
    // Where every frame stands for itself none is reordered, and all times are right.
    let depends = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let picture = pad.current_caps().is_some_and(|caps| caps.iter().any(|kind| kind.name().starts_with("video/")));
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
            && picture
        {
            depends.fetch_or(buffer.flags().contains(gst::BufferFlags::DELTA_UNIT), Ordering::Relaxed);
            let goes_on = depends.load(Ordering::Relaxed) && !buffer.flags().contains(gst::BufferFlags::DISCONT);
            let mut expected = expected.lock().unwrap_or_else(PoisonError::into_inner);
            let gap = expected.is_some_and(|expected: gst::ClockTime| {
                buffer.dts().is_some_and(|dts| dts > expected + buffer.duration().unwrap_or_default() / 2)
            });
            if goes_on && !gap {
                buffer.make_mut().set_pts(gst::ClockTime::NONE);
            }
            // A gap is told at the next key frame, which is the first that has a time.
            if !gap || buffer.pts().is_some() {
                *expected = buffer.dts().zip(buffer.duration()).map(|(dts, lasts)| dts + lasts);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

fn count(pad: &gst::Pad, moves: &Arc<AtomicU64>) {
    let moves = Arc::clone(moves);
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
        moves.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
}

fn drop_tags(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if info.event().is_some_and(|event| event.type_() == gst::EventType::Tag) {
            // `Drop` would free the event twice in GStreamer 1.22.0.
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

fn sink_away(pipeline: &gst::Pipeline, pad: &gst::Pad, preroll: bool) -> Result<(), VideoError> {
    let sink = element("fakesink")?;
    sink.set_property("sync", false);
    sink.set_property("async", preroll);
    sink.set_property("enable-last-sample", false);
    pipeline.add(&sink).map_err(|error| internal(&error))?;
    sink.sync_state_with_parent().map_err(|error| internal(&error))?;
    let inlet = elements::pad(&sink, "sink")?;
    pad.link(&inlet).map_err(|error| internal(&error))?;
    Ok(())
}

fn check_file(source: &Path) -> Result<(), VideoError> {
    let about = source.metadata().map_err(|error| internal(&format!("the source cannot be read: {error}")))?;
    if !about.is_file() {
        return Err(internal("the source is not a file"));
    }
    if about.len() == 0 {
        return Err(invalid("The file is empty."));
    }
    Ok(())
}

const NOTHING_KNOWN: &str = "This is no film and no recording of a kind that can be read here.";

/// What is wrong with a file of this kind, if it is none that is opened here.
fn refused(container: &str) -> Option<VideoError> {
    if CONTAINERS.contains(&container) {
        return None;
    }
    let sentence = match container {
        "application/x-hls"
        | "application/dash+xml"
        | "application/vnd.ms-sstr+xml"
        | "application/sdp"
        | "text/uri-list"
        | "audio/x-mpegurl"
        | "application/smil" => "This is a playlist: it names films, but it holds none.",
        kind if kind.starts_with("image/") => "This is a picture, neither a film nor a recording.",
        kind if kind.starts_with("text/") || kind.starts_with("application/x-subtitle") => {
            "This is a text, neither a film nor a recording."
        }
        kind if ENCRYPTED.contains(&kind) => return Some(encrypted()),
        _ => NOTHING_KNOWN,
    };
    Some(invalid(sentence))
}

fn unknown_codec(picture: bool, name: &str) -> String {
    if picture {
        format!("The film's pictures are in a format that cannot be read here: {name}.")
    } else {
        format!("The sound is in a format that cannot be read here: {name}.")
    }
}

fn encrypted() -> VideoError {
    invalid("The file is encrypted, so it cannot be shown.")
}

fn nothing_known() -> VideoError {
    unreadable(NOTHING_KNOWN.to_owned())
}

/// The file is to blame for a format that nothing here reads only if everything is here.
fn unreadable(sentence: String) -> VideoError {
    match plugins::missing_together(&sentence) {
        Some(missing) => VideoError::Missing(missing),
        None => VideoError::Invalid(sentence),
    }
}

fn said(error: &gst::message::Error) -> String {
    let from = error.src().map(|source| source.path_string().to_string()).unwrap_or_default();
    format!("{from}: {} ({})", error.error(), error.debug().unwrap_or_default())
}

/// Films and recordings for tests, made by GStreamer itself.
#[cfg(test)]
pub(super) mod samples {
    use std::path::Path;

    use gstreamer as gst;
    use gstreamer::prelude::*;

    /// Runs a pipeline to its end.
    pub fn make(description: &str) {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(description).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let message = pipeline
            .bus()
            .unwrap()
            .timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Eos, gst::MessageType::Error]);
        pipeline.set_state(gst::State::Null).unwrap();
        let message = message.unwrap();
        assert!(matches!(message.view(), gst::MessageView::Eos(_)), "{message:?}");
    }

    /// A film of 160 x 96 and 10 frames a second.
    pub fn film(path: &Path, frames: u32, pattern: &str, encoding: &str) {
        make(&format!(
            "videotestsrc num-buffers={frames} {pattern} ! video/x-raw,format=I420,width=160,height=96,framerate=10/1 \
             ! {encoding} ! filesink location={}",
            path.display()
        ));
    }

    /// H.264 in MP4, a key frame every so many frames.
    pub fn h264(key_frames: u32) -> String {
        format!("x264enc speed-preset=ultrafast tune=zerolatency key-int-max={key_frames} threads=1 ! mp4mux")
    }

    /// Writes a matrix that asks players to turn the film.
    pub fn turn(path: &Path, matrix: [i16; 4]) {
        let mut bytes = std::fs::read(path).unwrap();
        let header = bytes.windows(4).position(|four| four == b"tkhd").unwrap() + 4;
        let place = header + if bytes[header] == 0 { 40 } else { 52 };
        let [a, b, c, d] = matrix.map(|value| i32::from(value) << 16);
        for (at, value) in [a, b, 0, c, d, 0, 0, 0, 1 << 30].into_iter().enumerate() {
            bytes[place + at * 4..place + at * 4 + 4].copy_from_slice(&value.to_be_bytes());
        }
        std::fs::write(path, bytes).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn sentence(result: Result<Facts, VideoError>) -> String {
        match result {
            Err(VideoError::Invalid(sentence)) => sentence,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_film_tells_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mkv");
        samples::make(&format!(
            "matroskamux name=mux ! filesink location={} videotestsrc num-buffers=10 \
             ! video/x-raw,format=I420,width=160,height=96,framerate=10/1,pixel-aspect-ratio=2/1 ! jpegenc ! mux. \
             audiotestsrc num-buffers=10 ! audio/x-raw,rate=32000,channels=1 ! mux.",
            source.display()
        ));
        let facts = look(&source).unwrap();
        let picture = facts.picture.clone().unwrap();
        assert_eq!((picture.width, picture.height, picture.pixel_aspect), (160, 96, (2, 1)));
        assert_eq!((picture.fps, picture.interlaced, picture.depth), (Some((10, 1)), false, 8));
        assert_eq!(picture.upright(), (320, 96));
        let sound = facts.sound.clone().unwrap();
        assert_eq!((sound.channels, sound.rate, facts.sounds), (1, 32_000, 1));
        assert!((facts.duration_seconds.unwrap() - 1.0).abs() < 0.05, "{facts:?}");
        assert_eq!(look(&source).unwrap(), facts);
    }

    #[test]
    fn a_turned_film_says_so() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        samples::film(&source, 2, "", &samples::h264(2));
        for (matrix, orientation, upright) in [
            ([0, 1, -1, 0], VideoOrientationMethod::_90r, (96, 160)),
            ([-1, 0, 0, -1], VideoOrientationMethod::_180, (160, 96)),
            ([0, -1, 1, 0], VideoOrientationMethod::_90l, (96, 160)),
            ([-1, 0, 0, 1], VideoOrientationMethod::Horiz, (160, 96)),
            ([1, 0, 0, -1], VideoOrientationMethod::Vert, (160, 96)),
            ([0, 1, 1, 0], VideoOrientationMethod::UlLr, (96, 160)),
        ] {
            samples::turn(&source, matrix);
            let picture = look(&source).unwrap().picture.unwrap();
            assert_eq!((picture.orientation, picture.upright()), (orientation, upright));
        }
    }

    #[test]
    fn a_playlist_under_a_films_name_makes_no_request() {
        gst::init().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}/film.mp4", listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        for text in [
            format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{address}\n#EXT-X-ENDLIST\n"),
            format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{address}\n"),
            format!(
                "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\">\
                 <BaseURL>{address}</BaseURL></MPD>"
            ),
            format!("{address}\r\n"),
            format!("[playlist]\nFile1={address}\nNumberOfEntries=1\n"),
            format!("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{address}\n"),
        ] {
            std::fs::write(&source, &text).unwrap();
            let told = sentence(look(&source));
            assert!(told.ends_with('.'), "{told}");
            assert!(listener.accept().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_film_is_told_plainly() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        std::fs::write(&source, "").unwrap();
        assert_eq!(sentence(look(&source)), "The file is empty.");
        std::fs::write(&source, "A letter.\n").unwrap();
        assert!(sentence(look(&source)).starts_with("This is no film"));
        samples::film(&source, 1, "", "jpegenc");
        assert!(sentence(look(&source)).starts_with("This is a picture"));
        samples::film(&source, 20, "pattern=snow", &samples::h264(10));
        let bytes = std::fs::read(&source).unwrap();
        std::fs::write(&source, &bytes[..bytes.len() / 2]).unwrap();
        // The second and third time, the demuxer stumbles before anybody listens to it.
        for _ in 0..3 {
            let started = Instant::now();
            assert!(sentence(look(&source)).contains("cut off"));
            assert!(started.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn a_cover_is_no_film() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("recording.mov");
        samples::make(&format!(
            "qtmux name=mux ! filesink location={} videotestsrc num-buffers=1 ! jpegenc ! mux. \
             audiotestsrc num-buffers=50 ! avenc_aac ! mux.",
            source.display()
        ));
        let facts = look(&source).unwrap();
        assert!(facts.sound.is_some() && facts.picture.is_none(), "{facts:?}");
    }

    #[test]
    fn only_what_is_wanted_is_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mkv");
        samples::make(&format!(
            "matroskamux name=mux ! filesink location={} videotestsrc num-buffers=10 ! jpegenc ! mux. \
             audiotestsrc num-buffers=10 ! mux.",
            source.display()
        ));
        let facts = look(&source).unwrap();
        let pipeline = gst::Pipeline::new();
        let kinds: Arc<Mutex<Vec<Kind>>> = Arc::default();
        let seen = Arc::clone(&kinds);
        let weak = pipeline.downgrade();
        let wanted = Wanted { picture: None, ..facts.wanted() };
        let notes = decode(&pipeline, &source, &wanted, 1, move |kind, pad| {
            seen.lock().unwrap().push(kind);
            sink_away(&weak.upgrade().unwrap(), pad, true)
        })
        .unwrap();
        let mut watch = Watch::new(&pipeline, notes).unwrap();
        watch.play().unwrap();
        while !watch.wait().unwrap() {}
        assert_eq!(*kinds.lock().unwrap(), [Kind::Sound]);
    }
}
