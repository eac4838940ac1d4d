//! When a film's streams begin, and what their buffers' times are.
//!
//! In: decoded pads, each with times and segments of its own. Out: pads whose buffers count from the
//! film's beginning, or from that of a [`Stretch`].
//!
//! Invariant: all streams of a film count from the same moment, which is decided once ([`Start`]); a
//! stream that was promised and does not come is waited for no longer than [`RENDEZVOUS`].

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_audio as gst_audio;

/// Sound that begins so little before the picture, in nanoseconds, is cut rather than shown a still to.
const TOGETHER: u64 = 60_000_000;

/// How long one stream waits for another to say when it begins.
const RENDEZVOUS: Duration = Duration::from_secs(3);

/// When the first of a film's streams begins.
#[derive(Debug)]
pub(super) struct Start {
    state: Mutex<Beginnings>,
    known: Condvar,
}

#[derive(Debug)]
struct Beginnings {
    /// Streams that have not come yet.
    missing: usize,
    earliest: Option<u64>,
    picture: Option<u64>,
    /// Decided; in nanoseconds of the source.
    origin: Option<u64>,
}

/// Holds streams back until a source was sought.
#[derive(Debug, Default)]
pub(super) struct Gate {
    held: Mutex<Held>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    streams: Vec<(gst::Pad, gst::PadProbeId)>,
    /// All streams of the source are known.
    complete: bool,
}

/// The stretch of a source that is wanted, in nanoseconds from its first picture or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub start: u64,
    pub end: u64,
}

impl Start {
    pub(super) fn new(streams: usize, sought: bool) -> Self {
        // After a seek, streams begin where it went.
        let state = Beginnings { missing: streams, earliest: None, picture: None, origin: sought.then_some(0) };
        Self { state: Mutex::new(state), known: Condvar::new() }
    }

    /// A stream begins there, or not at all.
    pub(super) fn come(&self, begins: Option<u64>, picture: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.missing = state.missing.saturating_sub(1);
        state.earliest = [state.earliest, begins].into_iter().flatten().min();
        if picture {
            state.picture = begins;
        }
        if (state.missing == 0 || state.picture == Some(0)) && state.origin.is_none() {
            state.decide();
        }
        self.known.notify_all();
    }

    /// Nobody waits any more.
    pub(super) fn give_up(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.decide();
        self.known.notify_all();
    }

    /// What counts as the beginning, when all have come or one has been waited for long enough.
    fn origin(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = self
            .known
            .wait_timeout_while(state, RENDEZVOUS, |state| state.origin.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let origin = state.decide();
        self.known.notify_all();
        origin
    }
}

impl Beginnings {
    fn decide(&mut self) -> u64 {
        let earliest = self.earliest.unwrap_or(0);
        let picture = self.picture.filter(|picture| picture.saturating_sub(earliest) <= TOGETHER);
        *self.origin.get_or_insert(picture.unwrap_or(earliest))
    }
}

impl Gate {
    pub(super) fn hold(self: &Arc<Self>, pad: &gst::Pad) {
        let gate = Arc::clone(self);
        let id = pad.add_probe(gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER, move |_, _| {
            gate.came.notify_all();
            gst::PadProbeReturn::Ok
        });
        self.lock().streams.extend(id.map(|id| (pad.clone(), id)));
    }

    pub(super) fn complete(&self) {
        self.lock().complete = true;
        self.came.notify_all();
    }

    /// Lets nobody wait any more; the pads that did, and what held them.
    pub(super) fn open(&self) -> Vec<(gst::Pad, gst::PadProbeId)> {
        std::mem::take(&mut self.lock().streams)
    }

    /// So many streams wait, or all there are do. Waits a little for it.
    pub(super) fn ready(&self, streams: usize) -> bool {
        let blocked = |held: &Held| {
            let all = held.streams.len() >= streams || held.complete;
            all && !held.streams.is_empty() && held.streams.iter().all(|(pad, _)| pad.is_blocking())
        };
        let held = self.lock();
        let wait = Duration::from_millis(200);
        let (held, _) =
            self.came.wait_timeout_while(held, wait, |held| !blocked(held)).unwrap_or_else(PoisonError::into_inner);
        blocked(&held)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a stream's buffers times that count from the film's beginning, and ends it after a stretch.
///
/// All streams have the same plain segment from here on. Gaps, flushes and tags end here.
pub(super) fn keep_time(inlet: &gst::Pad, start: &Arc<Start>, picture: bool, stretch: Option<Stretch>) {
    let stream = Mutex::new(Stream {
        start: Arc::clone(start),
        picture,
        longest: stretch.map(|stretch| stretch.end.saturating_sub(stretch.start)),
        segment: None,
        audio: None,
        origin: None,
        next: 0,
    });
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
    inlet.add_probe(kinds, move |_, info| {
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut info.data {
            Some(gst::PadProbeData::Event(event)) => stream.event(event),
            Some(gst::PadProbeData::Buffer(buffer)) => stream.buffer(buffer),
            _ => gst::PadProbeReturn::Ok,
        }
    });
}

/// A stream on its way in.
struct Stream {
    start: Arc<Start>,
    picture: bool,
    /// In nanoseconds; what comes later is left out.
    longest: Option<u64>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    audio: Option<gst_audio::AudioInfo>,
    origin: Option<u64>,
    /// Where the next buffer begins if it does not say so itself.
    next: u64,
}

impl Stream {
    fn event(&mut self, event: &mut gst::Event) -> gst::PadProbeReturn {
        match event.view() {
            gst::EventView::Segment(segment) => {
                let first = self.segment.is_none();
                self.segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
                if !first {
                    return gst::PadProbeReturn::Handled;
                }
                let plain = gst::FormattedSegment::<gst::ClockTime>::new();
                *event = gst::event::Segment::new(&plain);
                gst::PadProbeReturn::Ok
            }
            gst::EventView::Caps(caps) => {
                if !self.picture {
                    self.audio = gst_audio::AudioInfo::from_caps(caps.caps()).ok();
                }
                gst::PadProbeReturn::Ok
            }
            gst::EventView::Eos(_) => {
                if self.origin.is_none() {
                    self.start.come(None, self.picture);
                }
                gst::PadProbeReturn::Ok
            }
            gst::EventView::FlushStop(_) => {
                // The pad has forgotten its segment.
                self.segment = None;
                gst::PadProbeReturn::Handled
            }
            gst::EventView::Gap(_) | gst::EventView::Tag(_) | gst::EventView::FlushStart(_) => {
                gst::PadProbeReturn::Handled
            }
            _ => gst::PadProbeReturn::Ok,
        }
    }

    fn buffer(&mut self, buffer: &mut gst::Buffer) -> gst::PadProbeReturn {
        if let (Some(segment), Some(audio), Some(_)) = (self.segment.as_ref(), self.audio.as_ref(), buffer.pts()) {
            match gst_audio::audio_buffer_clip(buffer.clone(), segment.upcast_ref(), audio.rate(), audio.bpf()) {
                Some(clipped) => *buffer = clipped,
                None => return gst::PadProbeReturn::Handled,
            }
        }
        let begins = self.begins(buffer);
        // Sound may begin a little before the beginning, and a stream that was not waited for.
        if begins < 0 {
            let Some(cut) = without_start(buffer, self.audio.as_ref(), begins.unsigned_abs()) else {
                return gst::PadProbeReturn::Handled;
            };
            *buffer = cut;
        }
        let begins = begins.max(0) as u64;
        if self.longest.is_some_and(|longest| begins >= longest) {
            return gst::PadProbeReturn::Handled;
        }
        self.next = begins + buffer.duration().map_or(0, gst::ClockTime::nseconds);
        let buffer = buffer.make_mut();
        buffer.set_pts(gst::ClockTime::from_nseconds(begins));
        buffer.set_dts(gst::ClockTime::NONE);
        gst::PadProbeReturn::Ok
    }

    /// Where a buffer begins, in nanoseconds from the film's beginning. The first of a stream waits until that is known.
    fn begins(&mut self, buffer: &gst::Buffer) -> i64 {
        let said = buffer.pts().and_then(|pts| running(self.segment.as_ref(), pts));
        match (said, self.origin) {
            (Some(said), Some(origin)) => said as i64 - origin as i64,
            (None, Some(_)) => self.next as i64,
            (said, None) => {
                let said = said.unwrap_or(0);
                self.start.come(Some(said), self.picture);
                said as i64 - *self.origin.insert(self.start.origin()) as i64
            }
        }
    }
}

/// Sound from a moment on, counted in nanoseconds from the buffer's beginning. `None` where nothing is left.
fn without_start(buffer: &gst::Buffer, audio: Option<&gst_audio::AudioInfo>, before: u64) -> Option<gst::Buffer> {
    let audio = audio?;
    let samples = usize::try_from(u128::from(before) * u128::from(audio.rate()) / 1_000_000_000).ok()?;
    let all = buffer.size() / usize::try_from(audio.bpf()).ok().filter(|bytes| *bytes > 0)?;
    if samples >= all {
        return None;
    }
    Some(gst_audio::audio_buffer_truncate(buffer.clone(), audio.bpf(), samples, None))
}

/// When a buffer is due, from the beginning of the pipeline.
fn running(segment: Option<&gst::FormattedSegment<gst::ClockTime>>, pts: gst::ClockTime) -> Option<u64> {
    match segment {
        // A decoder's first frame may begin before the segment; it is due when that begins.
        Some(segment) => segment
            .to_running_time(pts)
            .or_else(|| segment.start().filter(|start| pts < *start).and_then(|start| segment.to_running_time(start)))
            .map(gst::ClockTime::nseconds),
        None => Some(pts.nseconds()),
    }
}
