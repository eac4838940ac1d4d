//! Makes a film's renditions: plans them, runs the pipeline, says how it went.
//!
//! In: an order. Out: MP4s and a stream in its folder, and what they are.
//!
//! Invariant: a film that can be read in part is made in part, with a warning; one of which less
//! than a second can be read is refused, as is one that stands still.
//!
//! An encoder's failure is told apart from a source's, for another encoder may do: the whole order
//! is then given again, as renditions of two encoders would not be cut at the same places.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::Clip;
use super::Made;
use super::Report;
use super::Transcode;
use super::Transcoded;
use super::VideoError;
use super::elements::internal;
use super::elements::invalid;
use super::h264;
use super::hls;
use super::ladder;
use super::length;
use super::open;
use super::pipeline::BEFORE;
use super::pipeline::Reel;
use super::pipeline::Stretch;
use super::pipeline::Work;

/// Between reports on the way.
const REPORT: Duration = Duration::from_secs(2);

/// When nothing moves for so long, nothing will.
const PATIENCE: Duration = Duration::from_mins(1);

/// Less than this, in nanoseconds, is not worth keeping of a damaged film.
const WORTHWHILE: u64 = 1_000_000_000;

/// Frames are repeated until the next one is due: two that lie a year apart would be a year of work.
const MOST_SECONDS: f64 = 86_400.0;

/// A film that ends so much before its time, in seconds, has lost its end.
const TOO_EARLY: f64 = 2.0;

/// Makes what was ordered. `tell` hears how far it is.
pub fn transcode(order: &Transcode, tell: &mut dyn FnMut(Report)) -> Result<Transcoded, VideoError> {
    tell(Report::Progress(0.0));
    let facts = open::look(&order.source)?;
    let film = facts.picture.as_ref().ok_or_else(|| invalid("The file has sound, but no pictures."))?;
    let plan = ladder::plan(film.upright(), &order.renditions, order.hls.as_ref());
    if plan.encodes.is_empty() {
        return Err(internal("an order asks for nothing"));
    }
    if order.clip.is_none() && facts.duration_seconds.is_some_and(|seconds| seconds > MOST_SECONDS) {
        return Err(invalid("The film claims to be longer than a day, the most that is transcoded."));
    }
    let rate = ladder::rate(film.fps);
    let stretch = order.clip.map(|clip| stretch(clip, facts.duration_seconds));
    let work = Work { order, facts: &facts, film, plan: &plan, rate, stretch };
    let reel = Reel::build(&work)?;
    let expected = match stretch {
        Some(stretch) => Some((stretch.end - stretch.start) as f64 / 1e9),
        None => facts.duration_seconds,
    };
    let mut warnings = facts.warnings.clone();
    let run = Run { reel: &reel, order, expected, warnings: &mut warnings, damaged: false };
    run.through(stretch, tell)?;

    let nanoseconds = reel.lead.position();
    reel.stop();
    let seconds = nanoseconds as f64 / 1e9;
    let short = expected.is_some_and(|expected| seconds < expected - TOO_EARLY);
    if warnings.len() == facts.warnings.len() {
        if short {
            warnings.push(format!("The film ends after {seconds:.1} s, before its time: the file may be cut off."));
        } else if length::is_cut_off(&order.source) {
            warnings.push("The film is not complete: its file is cut off.".to_owned());
        }
    }
    let transcoded = finish(&work, &reel, nanoseconds, warnings)?;
    tell(Report::Progress(100.0));
    Ok(transcoded)
}

/// One run of a pipeline.
struct Run<'a> {
    reel: &'a Reel,
    order: &'a Transcode,
    /// How long the result will be, in seconds.
    expected: Option<f64>,
    warnings: &'a mut Vec<String>,
    /// The source failed; what there was of it is being finished.
    damaged: bool,
}

impl Run<'_> {
    /// Runs to the end.
    fn through(mut self, stretch: Option<Stretch>, tell: &mut dyn FnMut(Report)) -> Result<(), VideoError> {
        let bus = self.reel.pipeline.bus().ok_or_else(|| internal("a pipeline has no bus"))?;
        let first = if stretch.is_some() { gst::State::Paused } else { gst::State::Playing };
        self.state(&bus, first)?;
        let mut unsought = stretch;
        let (mut moves, mut moved) = (0, Instant::now());
        let mut told = Instant::now();
        loop {
            if let Some(stretch) = unsought.filter(|_| self.reel.ready_to_seek()) {
                unsought = None;
                if !self.reel.seek(stretch) {
                    return Err(invalid("The film cannot be cut: nothing in it can be found by its time."));
                }
                self.state(&bus, gst::State::Playing)?;
            }
            let wait = if unsought.is_some() { 10 } else { 500 };
            if let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(wait))
                && self.hear(&message)?
            {
                return Ok(());
            }
            let seen = self.reel.moves.load(Ordering::Relaxed);
            if seen != moves {
                (moves, moved) = (seen, Instant::now());
            } else if moved.elapsed() > PATIENCE {
                return Err(self.stalled());
            }
            if told.elapsed() > REPORT {
                told = Instant::now();
                tell(Report::Progress(self.progress()));
            }
        }
    }

    /// Hears a message; `true` after the last.
    fn hear(&mut self, message: &gst::Message) -> Result<bool, VideoError> {
        match message.view() {
            gst::MessageView::Eos(_) => {
                if self.reel.lead.position() == 0 {
                    return Err(invalid("Not one picture of the film can be read."));
                }
                Ok(true)
            }
            gst::MessageView::Error(error) => self.bear(error).map(|()| false),
            _ => Ok(false),
        }
    }

    /// Goes on after an error if anything is worth it.
    fn bear(&mut self, error: &gst::message::Error) -> Result<(), VideoError> {
        let mut tracks = self.reel.tracks.iter().chain(std::iter::once(&self.reel.heard)).flatten();
        if let Some(fault) = tracks.find_map(|track| track.fault()) {
            return Err(VideoError::Internal(fault));
        }
        let Some(source) = error.src() else { return Err(self.reel.notes.judge(error)) };
        let said = || format!("{}: {} ({})", source.path_string(), error.error(), error.debug().unwrap_or_default());
        if self.reel.reads(source) {
            if of_sound(source) {
                self.warn("The sound is damaged: it ends before the film does.");
                self.reel.end_sound();
                return Ok(());
            }
            if self.damaged {
                return Ok(());
            }
            if self.reel.lead.position() < WORTHWHILE {
                return Err(self.reel.notes.judge(error));
            }
            self.damaged = true;
            self.warn("The film is damaged: it could not be read to its end.");
            self.reel.end();
            return Ok(());
        }
        if source.name().starts_with(h264::NAME) || source.name().starts_with(BEFORE) {
            return Err(VideoError::Encoder(said()));
        }
        Err(VideoError::Internal(said()))
    }

    fn warn(&mut self, sentence: &str) {
        if !self.warnings.iter().any(|warning| warning == sentence) {
            self.warnings.push(sentence.to_owned());
        }
    }

    /// Changes the pipeline's state; what an element has against it stands on the bus.
    fn state(&mut self, bus: &gst::Bus, state: gst::State) -> Result<(), VideoError> {
        if self.reel.pipeline.set_state(state).is_ok() {
            return Ok(());
        }
        while let Some(message) = bus.pop() {
            self.hear(&message)?;
        }
        Err(internal("the pipeline did not start and did not say why"))
    }

    fn stalled(&self) -> VideoError {
        let fed = self.reel.lead.position() > 0;
        if fed && self.order.encoder != h264::SOFTWARE {
            return VideoError::Encoder("it stands still".to_owned());
        }
        invalid("The film cannot be read: it stalled, and nothing moved for a minute.")
    }

    /// In percent; the last one is left for what comes after the last frame.
    fn progress(&self) -> f32 {
        let seconds = self.reel.lead.position() as f64 / 1e9;
        let share = self.expected.filter(|expected| *expected > 0.0).map_or(0.0, |expected| seconds / expected);
        (share * 100.0).clamp(0.0, 99.0) as f32
    }
}

/// The element decodes sound.
fn of_sound(element: &gst::Object) -> bool {
    let class = element.downcast_ref::<gst::Element>().and_then(gst::Element::factory);
    class.and_then(|factory| factory.metadata("klass").map(|class| class.contains("Decoder/Audio"))).unwrap_or(false)
}

/// The stretch of a film that a clip means: one that begins too late is the film's end.
fn stretch(clip: Clip, duration: Option<f64>) -> Stretch {
    let length = clip.length_seconds.clamp(0.04, 86_400.0);
    let latest = duration.map_or(f64::INFINITY, |duration| (duration - length).max(0.0));
    let start = clip.start_seconds.max(0.0).min(latest);
    let end = duration.map_or(start + length, |duration| duration.min(start + length).max(start + 0.04));
    Stretch { start: (start * 1e9) as u64, end: (end * 1e9) as u64 }
}

/// What was made, from the files themselves.
fn finish(work: &Work<'_>, reel: &Reel, nanoseconds: u64, warnings: Vec<String>) -> Result<Transcoded, VideoError> {
    let duration_seconds = nanoseconds as f64 / 1e9;
    let mut renditions = Vec::new();
    for (name, encode) in
        work.plan.encodes.iter().flat_map(|encode| encode.films.iter().map(move |name| (name, encode)))
    {
        let path = reel.files.get(name).ok_or_else(|| internal("a rendition has no file"))?;
        let about = fs::metadata(path).map_err(|error| VideoError::Internal(format!("{}: {error}", path.display())))?;
        if about.len() == 0 {
            return Err(VideoError::Internal(format!("{} is empty", path.display())));
        }
        // The muxer's own notes; it takes them away itself when all is well.
        let _gone = fs::remove_file(path.with_extension("part"));
        renditions.push(Made {
            name: name.clone(),
            width: encode.picture.width,
            height: encode.picture.height,
            duration_seconds,
            size_bytes: about.len(),
        });
    }
    let variants: Vec<_> = work
        .plan
        .encodes
        .iter()
        .zip(&reel.tracks)
        .filter_map(|(encode, track)| {
            let (lines, track) = encode.variant.zip(track.as_deref())?;
            Some(hls::Variant { lines, width: encode.picture.width, height: encode.picture.height, track })
        })
        .collect();
    let hls = if variants.is_empty() {
        None
    } else {
        Some(hls::finish(&work.order.folder, &variants, reel.heard.as_deref(), work.rate, nanoseconds)?)
    };
    Ok(Transcoded { renditions, skipped: work.plan.skipped.clone(), hls, duration_seconds, warnings })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::path::PathBuf;

    use super::super::Fit;
    use super::super::Hls;
    use super::super::Rendition;
    use super::super::Shape;
    use super::*;
    use crate::media::video::open::samples;

    /// A folder that goes away.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cloakroom-transcode-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const PICTURE: &str = "video/x-raw,format=I420,width=192,height=108,framerate=25/1";

    /// Runs a pipeline that makes a source.
    fn source(folder: &Folder, name: &str, elements: &str) -> PathBuf {
        let path = folder.0.join(name);
        let sink = format!("filesink location={}", path.display());
        samples::make(&elements.replace("FILE", &sink).replace("PICTURE", PICTURE));
        path
    }

    fn film(folder: &Folder, frames: u32) -> PathBuf {
        let sound = frames * 8 / 5;
        let text = format!(
            "videotestsrc num-buffers={frames} ! PICTURE ! x264enc speed-preset=ultrafast key-int-max=10 ! mp4mux name=m ! FILE \
             audiotestsrc num-buffers={sound} samplesperbuffer=1200 ! audio/x-raw,rate=48000,channels=1 ! avenc_aac ! m."
        );
        source(folder, "film.mp4", &text)
    }

    fn order(source: PathBuf, folder: &Folder, lines: &[u32], stream: bool) -> Transcode {
        let shape = Shape { fit: Fit::Preserve, padding: [0; 3], upscale: false };
        let rendition =
            |lines: &u32| Rendition { name: format!("{lines}p-video"), lines: *lines, shape, watermark: false };
        let made = folder.0.join("made");
        fs::create_dir_all(&made).unwrap();
        Transcode {
            source,
            folder: made,
            renditions: lines.iter().map(rendition).collect(),
            hls: stream.then(|| Hls { ladder: lines.to_vec(), shape, watermark: false }),
            clip: None,
            mark: None,
            encoder: h264::SOFTWARE.to_owned(),
        }
    }

    fn looked(path: &Path) -> open::Facts {
        open::look(path).unwrap()
    }

    fn lines_of(path: PathBuf) -> Vec<String> {
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_film_becomes_a_ladder_and_a_stream() {
        let folder = Folder::new("ladder");
        let source = film(&folder, 200);
        let order = order(source, &folder, &[54, 108, 216], true);
        let mut told = Vec::new();
        let made = transcode(&order, &mut |report| told.push(format!("{report:?}"))).unwrap();
        let sizes: Vec<_> = made.renditions.iter().map(|one| (one.name.as_str(), one.width, one.height)).collect();
        assert_eq!(sizes, [("54p-video", 96, 54), ("108p-video", 192, 108)]);
        assert_eq!(made.skipped, [("216p-video".to_owned(), "108p-video".to_owned())]);
        assert_eq!(made.warnings, Vec::<String>::new());
        assert!((made.duration_seconds - 8.0).abs() < 0.001, "{}", made.duration_seconds);
        assert_eq!(told.last().unwrap(), "Progress(100.0)");

        for one in &made.renditions {
            let path = order.folder.join(format!("{}.mp4", one.name));
            assert_eq!(fs::metadata(&path).unwrap().len(), one.size_bytes);
            let bytes = fs::read(&path).unwrap();
            let at = |name: &[u8]| bytes.windows(4).position(|four| four == name).unwrap();
            assert!(at(b"moov") < at(b"mdat"), "the index stands in front");
            let facts = looked(&path);
            let picture = facts.picture.unwrap();
            assert_eq!((picture.width, picture.height, picture.fps), (one.width, one.height, Some((25, 1))));
            assert_eq!(facts.sound.unwrap().channels, 2);
            assert!((facts.duration_seconds.unwrap() - 8.0).abs() < 0.03);
        }
        assert!(!order.folder.join("108p-video.part").exists());

        let hls = made.hls.unwrap();
        assert_eq!(hls.files.last().unwrap(), "playlist.m3u8");
        for file in &hls.files {
            assert!(order.folder.join("hls").join(file).exists(), "{file}");
        }
        let list = lines_of(order.folder.join("hls/108p/playlist.m3u8"));
        let lengths: Vec<_> = list.iter().filter(|line| line.starts_with("#EXTINF")).collect();
        assert_eq!(lengths, ["#EXTINF:6.000000,", "#EXTINF:2.000000,"]);
        assert_eq!(list, lines_of(order.folder.join("hls/54p/playlist.m3u8")), "variants are aligned");
        let master = lines_of(order.folder.join("hls/playlist.m3u8"));
        assert_eq!(master.iter().filter(|line| line.contains("RESOLUTION=192x108,FRAME-RATE=25.000")).count(), 1);
        assert!(master.iter().any(|line| line.contains("mp4a.40.2")));
    }

    #[test]
    fn a_stretch_is_cut_out() {
        let folder = Folder::new("clip");
        let source = film(&folder, 100);
        let table = [(1.0, 1.0, 1.0), (3.5, 2.0, 2.0), (9.0, 1.0, 1.0), (0.0, 9.0, 4.0)];
        for (start_seconds, length_seconds, wanted) in table {
            let mut order = order(source.clone(), &folder, &[108], false);
            order.clip = Some(Clip { start_seconds, length_seconds });
            let made = transcode(&order, &mut |_| {}).unwrap();
            assert!((made.duration_seconds - wanted).abs() < 0.05, "{start_seconds} {length_seconds}: {made:?}");
            let facts = looked(&order.folder.join("108p-video.mp4"));
            assert!((facts.duration_seconds.unwrap() - wanted).abs() < 0.06, "{facts:?}");
        }
    }

    #[test]
    fn what_is_no_film_is_refused() {
        let folder = Folder::new("refused");
        let sound = source(&folder, "tone.wav", "audiotestsrc num-buffers=20 ! wavenc ! FILE");
        let text = folder.0.join("text.mp4");
        fs::write(&text, "no film at all, only words and words".repeat(20)).unwrap();
        for path in [sound, text] {
            let failed = transcode(&order(path, &folder, &[108], false), &mut |_| {}).unwrap_err();
            assert!(matches!(failed, VideoError::Invalid(_)), "{failed:?}");
        }
    }

    #[test]
    fn a_film_without_its_end_is_made_with_a_warning() {
        let folder = Folder::new("cut");
        let whole = source(
            &folder,
            "whole.mkv",
            "videotestsrc num-buffers=200 pattern=snow ! PICTURE ! x264enc speed-preset=ultrafast key-int-max=10 ! matroskamux ! FILE",
        );
        let bytes = fs::read(&whole).unwrap();
        let cut = folder.0.join("cut.mkv");
        fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
        let made = transcode(&order(cut, &folder, &[108], false), &mut |_| {}).unwrap();
        assert_eq!(made.warnings.len(), 1, "{:?}", made.warnings);
        assert!((3.0..5.0).contains(&made.duration_seconds), "{}", made.duration_seconds);
    }

    #[test]
    fn an_encoder_that_fails_is_named_as_the_reason() {
        let folder = Folder::new("encoder");
        let source = film(&folder, 50);
        let mut with = order(source.clone(), &folder, &[108], false);
        with.encoder = "openh264enc".to_owned();
        assert_eq!(transcode(&with, &mut |_| {}).unwrap().renditions.len(), 1, "another encoder does as well");
        with.encoder = "identity".to_owned();
        let failed = transcode(&with, &mut |_| {}).unwrap_err();
        assert!(matches!(failed, VideoError::Encoder(_)), "{failed:?}");
    }
}
