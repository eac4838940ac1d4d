//! Sound that begins and ends with the picture.
//!
//! In: samples (interleaved floats, any gaps and overlaps between buffers), and a [`Lead`], which
//! says how far the pictures are. Out: samples without a gap, from zero to the end of the last
//! picture, with silence where the source has none.
//!
//! Invariant: sound never runs ahead of the pictures. Nobody knows where the pictures end until
//! they do, and what has been encoded cannot be taken back; and when a source's sound ends early,
//! silence goes on, so that muxers do not hoard pictures that wait for their sound.
//!
//! Stands in the place of `audiorate`, which knows neither.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

/// Samples in a second. The rest of the pipeline makes them so.
pub const RATE: u32 = 48_000;
pub const CHANNELS: u32 = 2;

/// Of one moment, all channels.
const FRAME_BYTES: usize = 4 * CHANNELS as usize;

/// Clocks of sources jitter; a smaller step than this is not one, in samples.
const JITTER: u64 = RATE as u64 / 25;

/// Silence comes in pieces of so many samples.
const PIECE: u64 = 4096;

/// How far the pictures are, shared by those who see them and those who wait for them.
#[derive(Debug, Default)]
pub struct Lead {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The end of the last picture, in nanoseconds.
    position: u64,
    ended: bool,
    abandoned: bool,
}

/// What one who waits may do.
enum Leave {
    /// Go on to there, in samples.
    Until(u64),
    /// Go on to there; nothing follows.
    End(u64),
    Abandoned,
}

impl Lead {
    /// Pictures reach to there, in nanoseconds.
    pub fn reach(&self, position: u64) {
        let mut state = self.lock();
        state.position = state.position.max(position);
        self.moved.notify_all();
    }

    /// There are no more pictures.
    pub fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_all();
    }

    /// Nobody needs to wait any more; the pipeline goes down.
    pub fn abandon(&self) {
        self.lock().abandoned = true;
        self.moved.notify_all();
    }

    pub fn position(&self) -> u64 {
        self.lock().position
    }

    /// Waits until pictures reach beyond `sample`, or are at their end.
    fn beyond(&self, sample: u64) -> Leave {
        let mut state = self.lock();
        loop {
            let reached = samples(state.position);
            if state.abandoned {
                return Leave::Abandoned;
            }
            if state.ended {
                return Leave::End(reached);
            }
            if reached > sample {
                return Leave::Until(reached);
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An element with one pad on either side that keeps sound with the pictures.
pub fn element(lead: Arc<Lead>) -> gst::Element {
    let steady: inner::Steady = glib::Object::new();
    steady.follow(lead);
    steady.upcast()
}

/// So many nanoseconds, in samples.
fn samples(nanoseconds: u64) -> u64 {
    ((u128::from(nanoseconds) * u128::from(RATE) + 500_000_000) / 1_000_000_000) as u64
}

/// So many samples, in nanoseconds.
fn time(samples: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds((u128::from(samples) * 1_000_000_000 / u128::from(RATE)) as u64)
}

mod inner {
    use std::sync::Arc;
    use std::sync::LazyLock;
    use std::sync::Mutex;
    use std::sync::MutexGuard;
    use std::sync::OnceLock;
    use std::sync::PoisonError;

    use gstreamer as gst;
    use gstreamer::glib;
    use gstreamer::prelude::*;
    use gstreamer::subclass::prelude::*;

    use super::CHANNELS;
    use super::FRAME_BYTES;
    use super::JITTER;
    use super::Lead;
    use super::Leave;
    use super::PIECE;
    use super::RATE;
    use super::samples;
    use super::time;

    glib::wrapper! {
        pub struct Steady(ObjectSubclass<SteadyInner>) @extends gst::Element, gst::Object;
    }

    pub struct SteadyInner {
        inlet: gst::Pad,
        outlet: gst::Pad,
        lead: OnceLock<Arc<Lead>>,
        progress: Mutex<Progress>,
    }

    #[derive(Default)]
    struct Progress {
        /// Samples that went out.
        sent: u64,
        started: bool,
        ended: bool,
    }

    impl Steady {
        pub fn follow(&self, lead: Arc<Lead>) {
            // Only the function above makes these, and calls this once.
            let _first = self.imp().lead.set(lead);
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for SteadyInner {
        const NAME: &'static str = "CloakroomSteady";
        type Type = Steady;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> Self {
            let template = |name: &str| class.pad_template(name);
            let mut inlet = gst::Pad::builder(gst::PadDirection::Sink);
            let mut outlet = gst::Pad::builder(gst::PadDirection::Src);
            if let Some(template) = template("sink") {
                inlet = gst::Pad::builder_from_template(&template);
            }
            if let Some(template) = template("src") {
                outlet = gst::Pad::builder_from_template(&template);
            }
            let inlet = inlet
                .name("sink")
                .chain_function(|_, parent, buffer| {
                    Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |steady| steady.take(&buffer))
                })
                .event_function(|pad, parent, event| {
                    Self::catch_panic_pad_function(parent, || false, |steady| steady.hear(pad, event))
                })
                .flags(gst::PadFlags::PROXY_CAPS)
                .build();
            let outlet = outlet.name("src").flags(gst::PadFlags::PROXY_CAPS).build();
            Self { inlet, outlet, lead: OnceLock::new(), progress: Mutex::default() }
        }
    }

    impl ObjectImpl for SteadyInner {
        fn constructed(&self) {
            self.parent_constructed();
            for pad in [&self.inlet, &self.outlet] {
                // A new element has no pads of these names.
                let _added = self.obj().add_pad(pad);
            }
        }
    }

    impl GstObjectImpl for SteadyInner {}

    impl ElementImpl for SteadyInner {
        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let caps = gst::Caps::builder("audio/x-raw")
                    .field("format", "F32LE")
                    .field("layout", "interleaved")
                    .field("rate", RATE as i32)
                    .field("channels", CHANNELS as i32)
                    .build();
                [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                    .into_iter()
                    .filter_map(|(name, direction)| {
                        gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                    })
                    .collect()
            });
            &TEMPLATES
        }
    }

    impl SteadyInner {
        fn take(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            let mut progress = self.lock();
            let length = (buffer.size() / FRAME_BYTES) as u64;
            let begins = buffer.pts().map_or(progress.sent, |pts| samples(pts.nseconds()));
            let ahead = begins.saturating_sub(progress.sent);
            let behind = progress.sent.saturating_sub(begins);
            let jitter = if progress.started { JITTER } else { 0 };
            progress.started = true;
            if ahead > jitter {
                self.hush(&mut progress, begins)?;
            }
            let skipped = if behind > jitter { behind } else { 0 };
            if skipped >= length {
                return Ok(gst::FlowSuccess::Ok);
            }
            self.pass(&mut progress, buffer, skipped, length)
        }

        fn hear(&self, pad: &gst::Pad, event: gst::Event) -> bool {
            if event.type_() == gst::EventType::Gap {
                return true;
            }
            if event.type_() == gst::EventType::Eos {
                let mut progress = self.lock();
                // Silence to the end of the pictures; when that fails, everything has ended anyway.
                let _filled = self.hush(&mut progress, u64::MAX);
                return self.finish(&mut progress);
            }
            gst::Pad::event_default(pad, Some(&*self.obj()), event)
        }

        /// Sends silence up to `until`, or to the end of the pictures.
        fn hush(&self, progress: &mut Progress, until: u64) -> Result<(), gst::FlowError> {
            while progress.sent < until {
                let (most, last) = self.leave(progress.sent)?;
                let length = most.min(until).saturating_sub(progress.sent).min(PIECE);
                if length > 0 {
                    let silence = vec![0; length as usize * FRAME_BYTES];
                    self.send(progress, gst::Buffer::from_slice(silence), length)?;
                } else if last {
                    self.finish(progress);
                    return Err(gst::FlowError::Eos);
                }
            }
            Ok(())
        }

        /// Sends a part of a buffer, as far as there are pictures.
        fn pass(
            &self,
            progress: &mut Progress,
            buffer: &gst::Buffer,
            from: u64,
            to: u64,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let mut from = from;
            while from < to {
                let (most, last) = self.leave(progress.sent)?;
                let left = to - from;
                // A piece that begins beside a picture goes on whole, unless there will be no more.
                let length = if last { left.min(most.saturating_sub(progress.sent)) } else { left };
                if length == 0 {
                    self.finish(progress);
                    return Err(gst::FlowError::Eos);
                }
                let bytes = from as usize * FRAME_BYTES..(from + length) as usize * FRAME_BYTES;
                let part =
                    buffer.copy_region(gst::BufferCopyFlags::MEMORY, bytes).map_err(|_| gst::FlowError::Error)?;
                self.send(progress, part, length)?;
                from += length;
            }
            Ok(gst::FlowSuccess::Ok)
        }

        fn send(&self, progress: &mut Progress, buffer: gst::Buffer, length: u64) -> Result<(), gst::FlowError> {
            let mut buffer = buffer;
            let writable = buffer.make_mut();
            writable.set_pts(time(progress.sent));
            writable.set_duration(time(progress.sent + length) - time(progress.sent));
            if progress.sent == 0 && self.outlet.sticky_event::<gst::event::Segment>(0).is_none() {
                // There was no sound at all to bring one.
                let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                self.outlet.push_event(gst::event::Segment::new(&segment));
            }
            progress.sent += length;
            self.outlet.push(buffer).map(|_| ())
        }

        /// Waits until a sample may go: how far, and whether that is the end.
        fn leave(&self, sample: u64) -> Result<(u64, bool), gst::FlowError> {
            let lead = self.lead.get().ok_or(gst::FlowError::Error)?;
            match lead.beyond(sample) {
                Leave::Until(most) => Ok((most, false)),
                Leave::End(most) => Ok((most, true)),
                Leave::Abandoned => Err(gst::FlowError::Flushing),
            }
        }

        fn finish(&self, progress: &mut Progress) -> bool {
            if progress.ended {
                return true;
            }
            progress.ended = true;
            self.outlet.push_event(gst::event::Eos::new())
        }

        fn lock(&self) -> MutexGuard<'_, Progress> {
            self.progress.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(test)]
mod tests {
    use gstreamer_app as gst_app;

    use super::*;

    /// What comes out for buffers of (first sample, length), when pictures end at `end`.
    fn passed(buffers: &[(u64, u64)], end: u64) -> Vec<f32> {
        gst::init().unwrap();
        let pipeline = gst::Pipeline::new();
        let caps = gst::Caps::builder("audio/x-raw")
            .field("format", "F32LE")
            .field("layout", "interleaved")
            .field("rate", RATE as i32)
            .field("channels", CHANNELS as i32)
            .build();
        let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).build();
        let sink = gst_app::AppSink::builder().sync(false).build();
        let lead = Arc::new(Lead::default());
        lead.reach(time(end).nseconds());
        lead.end();
        let steady = element(lead);
        pipeline.add_many([source.upcast_ref(), &steady, sink.upcast_ref()]).unwrap();
        gst::Element::link_many([source.upcast_ref(), &steady, sink.upcast_ref()]).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        for (begins, length) in buffers {
            let loud: Vec<u8> = (0..length * u64::from(CHANNELS)).flat_map(|_| 1f32.to_le_bytes()).collect();
            let mut buffer = gst::Buffer::from_mut_slice(loud);
            buffer.get_mut().unwrap().set_pts(time(*begins));
            let _flow = source.push_buffer(buffer);
        }
        let _flow = source.end_of_stream();
        let mut heard = Vec::new();
        while let Ok(sample) = sink.pull_sample() {
            let buffer = sample.buffer().unwrap();
            assert_eq!(samples(buffer.pts().unwrap().nseconds()), heard.len() as u64 / 2, "no gap");
            let map = buffer.map_readable().unwrap();
            heard.extend(map.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())));
        }
        pipeline.set_state(gst::State::Null).unwrap();
        heard.chunks_exact(2).map(|both| both[0]).collect()
    }

    #[test]
    fn sound_lasts_as_long_as_the_picture() {
        type Row<'a> = (&'a [(u64, u64)], u64, u64);
        let table: &[Row<'_>] = &[
            (&[(0, 48_000)], 48_000, 48_000),
            (&[(0, 48_000)], 24_000, 24_000),
            (&[(0, 24_000)], 48_000, 24_000),
            (&[(12_000, 12_000)], 48_000, 12_000),
            (&[(0, 12_000), (24_000, 12_000)], 48_000, 24_000),
            (&[(0, 12_000), (6_000, 12_000)], 48_000, 18_000),
            (&[(0, 12_000), (12_100, 12_000)], 48_000, 24_000),
            (&[(0, 12_000), (60_000, 12_000)], 48_000, 12_000),
            (&[], 9_000, 0),
        ];
        for (buffers, end, loud) in table {
            let heard = passed(buffers, *end);
            assert_eq!(heard.len() as u64, *end, "{buffers:?} until {end}");
            assert_eq!(heard.iter().filter(|sample| **sample > 0.5).count() as u64, *loud, "{buffers:?} until {end}");
        }
    }
}
