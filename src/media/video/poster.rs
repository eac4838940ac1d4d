//! A film's poster: one good frame.
//!
//! In: a film, the longest side. Out: `poster.jpg`.
//!
//! Invariant: a black or an even frame is only kept when the film has shown nothing better anywhere
//! it was looked at.
//!
//! A few places along the film are tried at their key frames, where a frame costs one decoding; the
//! moment itself is decoded only if its key frame lies more than a second before, as in films with one
//! key frame at a black beginning. A film that shows nothing there is tried at more places, and a short
//! one from end to end. What is good is judged as an eye does at a glance: light, contrast, edges.

use std::time::Duration;
use std::time::Instant;

use super::Fit;
use super::Poster;
use super::Report;
use super::Shape;
use super::Still;
use super::VideoError;
use super::elements::internal;
use super::elements::invalid;
use super::frames;
use super::frames::Film;
use super::frames::Frame;
use super::frames::Jpegs;
use super::open;

/// Where to look first, as shares of the film. Beginnings are black, and ends are credits.
const PLACES: [f64; 4] = [0.25, 0.4, 0.1, 0.6];

/// Where to look when nothing was there.
const MORE_PLACES: [f64; 12] = [0.5, 0.75, 0.05, 0.33, 0.9, 0.67, 0.02, 0.17, 0.83, 0.45, 0.97, 0.0];

/// A key frame farther away than this shows something else; in a short film, this share of it.
const NEAR_SECONDS: f64 = 1.0;
const NEAR_SHARE: f64 = 0.04;

/// No more than this is decoded on the way from a key frame to a moment.
const FAR_SECONDS: f64 = 20.0;

/// Films up to this length are looked at from end to end when all places were empty.
const SHORT_SECONDS: f64 = 600.0;

/// Frames of a film that is looked at from end to end.
const STEPS: usize = 300;

/// Looking from end to end takes no longer.
const LONGEST_SEARCH: Duration = Duration::from_secs(40);

/// A frame that scores as much is somebody's poster.
const GOOD: f64 = 0.35;

/// Nothing can be seen on a frame below this.
const EMPTY: f64 = 0.08;

/// Signs of life come at least as often.
const PULSE: Duration = Duration::from_secs(2);

/// Finds a good frame.
pub fn poster(order: &Poster, tell: &mut dyn FnMut(Report)) -> Result<Still, VideoError> {
    let facts = open::look(&order.source)?;
    let picture = facts.picture.as_ref().ok_or_else(|| invalid("The file has sound, but no pictures."))?;
    let shape = Shape { fit: Fit::Preserve, padding: [0; 3], upscale: false };
    let (width, height) = frames::fitted(picture.upright(), order.side, order.side, shape);
    let mut pulse = Pulse::new(tell);
    let mut best = Best::default();

    let mut film = Film::open(&order.source, &facts, width, height, shape, 0)?;
    film.pause()?;
    let first = film.first();
    if let Some(duration) = facts.duration_seconds {
        for (at, share) in PLACES.into_iter().chain(MORE_PLACES).enumerate() {
            let enough = if at < PLACES.len() { GOOD * 1.5 } else { EMPTY };
            if best.score > enough {
                continue;
            }
            pulse.say(5.0 + 60.0 * at as f32 / (PLACES.len() + MORE_PLACES.len()) as f32);
            try_at(&mut film, duration, share, &mut best, &mut || pulse.beat())?;
        }
    }
    if best.score <= EMPTY
        && let Some(first) = first
    {
        best.take(first)?;
    }
    drop(film);
    if best.score <= EMPTY && facts.duration_seconds.is_none_or(|duration| duration <= SHORT_SECONDS) {
        let mut film = Film::open(&order.source, &facts, width, height, shape, 0)?;
        search(&mut film, facts.duration_seconds.unwrap_or(SHORT_SECONDS), &mut best, &mut || pulse.beat())?;
    }

    let frame = best.frame.ok_or_else(|| invalid("Not one picture of the film can be read."))?;
    pulse.say(90.0);
    let jpeg = Jpegs::new(width, height)?.frame(&frame)?;
    let file = "poster.jpg".to_owned();
    std::fs::write(order.folder.join(&file), jpeg)
        .map_err(|error| internal(&format!("the poster cannot be written: {error}")))?;
    Ok(Still { file, width, height, at_seconds: frame.at_seconds })
}

/// Says how far an errand is, and now and then that it still lives.
pub struct Pulse<'a> {
    tell: &'a mut dyn FnMut(Report),
    percent: f32,
    last: Instant,
}

impl<'a> Pulse<'a> {
    pub fn new(tell: &'a mut dyn FnMut(Report)) -> Pulse<'a> {
        Pulse { tell, percent: 0.0, last: Instant::now() }
    }

    pub fn say(&mut self, percent: f32) {
        if percent >= self.percent + 1.0 || self.last.elapsed() >= PULSE {
            self.percent = self.percent.max(percent.min(100.0));
            self.last = Instant::now();
            (self.tell)(Report::Progress(self.percent));
        }
    }

    pub fn beat(&mut self) {
        self.say(self.percent);
    }
}

/// The best frame so far.
#[derive(Default)]
struct Best {
    frame: Option<Frame>,
    score: f64,
}

impl Best {
    fn take(&mut self, frame: Frame) -> Result<(), VideoError> {
        let score = score(&frame)?;
        if self.frame.is_none() || score > self.score {
            self.frame = Some(frame);
            self.score = score;
        }
        Ok(())
    }
}

fn try_at(
    film: &mut Film,
    duration: f64,
    share: f64,
    best: &mut Best,
    alive: &mut dyn FnMut(),
) -> Result<(), VideoError> {
    let moment = duration * share;
    let Some(key) = film.at(moment, false, alive)? else { return Ok(()) };
    let key_at = key.at_seconds;
    best.take(key)?;
    if moment - key_at > NEAR_SECONDS.min(duration * NEAR_SHARE)
        && let Some(frame) = film.at(moment.min(key_at + FAR_SECONDS), true, alive)?
    {
        best.take(frame)?;
    }
    Ok(())
}

/// Takes frames all along the film, until one is good.
fn search(film: &mut Film, duration: f64, best: &mut Best, alive: &mut dyn FnMut()) -> Result<(), VideoError> {
    let started = Instant::now();
    film.choose((0..STEPS).map(|step| duration * (step as f64 + 0.5) / STEPS as f64).collect());
    film.play()?;
    while let Some(frame) = film.next(&mut |_| alive())? {
        best.take(frame)?;
        if best.score > GOOD || started.elapsed() > LONGEST_SEARCH {
            break;
        }
    }
    Ok(())
}

/// 0 for a frame that shows nothing, 1 for one that shows much.
fn score(frame: &Frame) -> Result<f64, VideoError> {
    frame.planes(|[(luma, stride), _, _]| {
        let mut sum = 0.0;
        let mut squares = 0.0;
        let mut edges = 0.0;
        let mut count = 0.0;
        // Every second row and sample are enough, and the far bytes of a row may be filling.
        for row in luma.chunks(stride.max(1)).step_by(2) {
            for pair in row.windows(2).step_by(2) {
                let [here, next] = pair else { continue };
                let (here, next) = (f64::from(*here), f64::from(*next));
                sum += here;
                squares += here * here;
                edges += (here - next).abs();
                count += 1.0;
            }
        }
        if count == 0.0 {
            return 0.0;
        }
        let mean = sum / count;
        let deviation = (squares / count - mean * mean).max(0.0).sqrt();
        let sharpness = edges / count;
        // Nothing is gained by more contrast than a bright day has, nor by more edges than a face.
        let contrast = (deviation / 55.0).min(1.0);
        let detail = (sharpness / 6.0).min(1.0);
        let light = ((mean - 12.0) / 50.0).clamp(0.0, 1.0) * ((250.0 - mean) / 50.0).clamp(0.0, 1.0);
        contrast * (0.4 + 0.6 * light) * (0.5 + 0.5 * detail)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::media::video::open::samples;

    fn make(source: &Path, folder: &Path) -> (Still, f64) {
        let order = Poster { source: source.to_owned(), folder: folder.to_owned(), side: 120 };
        let still = poster(&order, &mut |_| {}).unwrap();
        // A JPEG is a film of one frame once it is in a container.
        let film = folder.join("poster.avi");
        samples::make(&format!(
            "filesrc location={} ! jpegdec ! imagefreeze num-buffers=1 ! video/x-raw,framerate=10/1 ! jpegenc ! avimux ! filesink location={}",
            folder.join("poster.jpg").display(),
            film.display()
        ));
        let facts = open::look(&film).unwrap();
        let shape = Shape { fit: Fit::Preserve, padding: [0; 3], upscale: false };
        let mut film = Film::open(&film, &facts, still.width, still.height, shape, 1).unwrap();
        film.pause().unwrap();
        let score = score(&film.first().unwrap()).unwrap();
        (still, score)
    }

    #[test]
    fn a_black_beginning_with_the_only_key_frame_is_passed_by() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        let part = |pattern: &str| {
            format!(
                "videotestsrc num-buffers=30 pattern={pattern} \
                 ! video/x-raw,format=I420,width=160,height=96,framerate=10/1 ! c."
            )
        };
        samples::make(&format!(
            "concat name=c ! {} ! filesink location={} {} {}",
            samples::h264(999),
            source.display(),
            part("black"),
            part("smpte")
        ));
        let (still, score) = make(&source, folder.path());
        assert!(still.at_seconds >= 3.0, "{still:?}");
        assert!(score > GOOD, "{score}");
        assert_eq!((still.width, still.height), (120, 72));
    }

    #[test]
    fn a_single_picture_late_in_a_black_film_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        let part = |pattern: &str, frames: u32| {
            format!(
                "videotestsrc num-buffers={frames} pattern={pattern} \
                 ! video/x-raw,format=I420,width=160,height=96,framerate=10/1 ! c."
            )
        };
        samples::make(&format!(
            "concat name=c ! {} ! filesink location={} {} {} {}",
            samples::h264(10),
            source.display(),
            part("black", 140),
            part("smpte", 2),
            part("black", 58),
        ));
        let (still, score) = make(&source, folder.path());
        assert!((14.0..14.2).contains(&still.at_seconds), "{still:?}");
        assert!(score > GOOD, "{score}");
    }

    #[test]
    fn films_of_one_frame_and_black_ones_have_posters() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        samples::film(&source, 1, "pattern=smpte", &samples::h264(1));
        assert!(make(&source, folder.path()).1 > GOOD);
        samples::film(&source, 5, "pattern=black", &samples::h264(5));
        assert!(make(&source, folder.path()).1 < EMPTY);
    }

    #[test]
    fn a_turned_film_fills_its_poster() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        samples::film(&source, 3, "pattern=white", &samples::h264(3));
        samples::turn(&source, [0, 1, -1, 0]);
        let order = Poster { source: source.clone(), folder: folder.path().to_owned(), side: 120 };
        let still = poster(&order, &mut |_| {}).unwrap();
        assert_eq!((still.width, still.height), (72, 120));
        let facts = open::look(&source).unwrap();
        let shape = Shape { fit: Fit::Preserve, padding: [0; 3], upscale: false };
        let mut film = Film::open(&source, &facts, 72, 120, shape, 1).unwrap();
        film.pause().unwrap();
        let darkest = film
            .first()
            .unwrap()
            .planes(|[(luma, stride), _, _]| luma.chunks(stride).flat_map(|row| row[..72].to_vec()).min())
            .unwrap();
        assert!(darkest > Some(240), "{darkest:?}");
    }
}
