//! Whose fault it is: what was met inside a file, and whether its pipeline moves.
//!
//! In: what `decodebin` meets on its way, what a pipeline says on its bus. Out: an error that tells a
//! stranger's fault from ours, in a sentence for the file's owner, who knows no demuxers.
//!
//! Invariant: nobody waits for ever: a pipeline in which nothing moves for [`PATIENCE`] has failed.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_pbutils as pbutils;

use super::super::VideoError;
use super::super::allowed::CONTAINERS;
use super::super::allowed::ENCRYPTED;
use super::super::allowed::MOST_PIXELS;
use super::super::allowed::MOST_SIDE;
use super::super::elements::internal;
use super::super::elements::invalid;
use super::super::plugins;

/// A file that brings nothing for so long will never bring anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// What was met inside a file while it was opened. Tells a stranger's fault from ours.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    noted: Arc<Mutex<Noted>>,
    /// Buffers that came out of the wanted pads.
    moves: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
pub(super) struct Noted {
    container: Option<String>,
    /// Streams that nothing here decodes: is it a picture, and its name for people.
    unknown: Vec<(bool, String)>,
    encrypted: bool,
    oversized: Option<(i32, i32)>,
    /// Streams that are coded as single pictures.
    images: Vec<String>,
    pub(super) openers: Vec<glib::WeakRef<gst::Element>>,
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

impl Notes {
    /// As these, where buffers that come out of the wanted pads are counted so.
    pub(super) fn counting(self, moves: Arc<AtomicU64>) -> Notes {
        Notes { moves, ..self }
    }

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
    pub(super) fn fault(&self) -> Option<VideoError> {
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

    pub(super) fn nothing_decoded(&self) -> VideoError {
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

    pub(super) fn container(&self) -> Option<String> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).container.clone()
    }

    /// The stream is coded as single pictures.
    pub(super) fn is_image(&self, stream: &str) -> bool {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).images.iter().any(|image| image == stream)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Noted)) {
        change(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Noted {
    /// Caps that `decodebin` is about to look for an element for; the first are the file's own.
    pub(super) fn meet(&mut self, pad: &gst::Pad, caps: &gst::Caps) {
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
    pub(super) fn miss(&mut self, caps: &gst::Caps) {
        let name = caps.structure(0).map_or("", |structure| structure.name().as_str());
        let picture = name.starts_with("video/") || name.starts_with("image/");
        // Subtitles and time codes are nobody's loss here.
        if picture || name.starts_with("audio/") {
            self.unknown.push((picture, pbutils::pb_utils_get_codec_description(caps).to_string()));
        }
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
