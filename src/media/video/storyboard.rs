//! A film's storyboard: frames from all along it, alone, on sheets, and as a player's thumbnails.
//!
//! In: a film, how many frames, their box. Out: `storyboard_000001.jpg`… in the order of the film,
//! `sprite.jpg` with all of them (and `sprite_2.jpg`… where one sheet would be too large), and
//! `storyboard.vtt`, whose cues name a place on a sheet for every moment of the film.
//!
//! Invariant: there are as many frames as were asked for; where the film ends early or has fewer,
//! the last one stands in. Cues follow one another without a gap from 0 to the film's end.
//!
//! The film is cut into equal stretches, and each frame is from the middle of its stretch: a film's
//! first frame is often black. There are two ways to get at them. A jump costs the decoding of what
//! lies between the last key frame and the moment, usually a second or two of film; decoding from end
//! to end costs the whole film once. So the film is searched by jumps when the moments are
//! [`JUMP_SECONDS`] or more apart, and the key frame will do when it is near enough. If key frames turn
//! out to be farther apart than moments are, every jump would decode the same stretch again, so the
//! rest is dropped and the film is decoded from end to end.
#![expect(clippy::indexing_slicing, reason = "copying rows; every index is derived from the sheet's own size")]

use std::fmt::Write as _;
use std::path::Path;

use super::Frames;
use super::Report;
use super::Still;
use super::Storyboard;
use super::VideoError;
use super::elements::internal;
use super::elements::invalid;
use super::frames;
use super::frames::Film;
use super::frames::Frame;
use super::frames::Jpegs;
use super::open;
use super::open::Facts;
use super::poster::Pulse;

const MOST_FRAMES: u32 = 1000;

/// From here on jumps may cost less than decoding everything.
const JUMP_SECONDS: f64 = 0.9;

/// A key frame this far from the middle of its stretch, as a share of it, is still in its stretch.
const NEAR_ENOUGH: f64 = 0.5;

/// Of a sheet.
const MOST_COLUMNS: u32 = 10;
const MOST_SHEET_SIDE: u32 = 4096;

/// Black in I420 of full range.
const BLACK: [u8; 3] = [0, 128, 128];

/// Keeps frames from all along a film: first the frames in their order, then the sheets.
pub fn storyboard(order: &Storyboard, tell: &mut dyn FnMut(Report)) -> Result<Vec<Still>, VideoError> {
    let facts = open::look(&order.source)?;
    let picture = facts.picture.as_ref().ok_or_else(|| invalid("The file has sound, but no pictures."))?;
    let mut pulse = Pulse::new(tell);
    let (width, height) = frames::fitted(picture.upright(), order.width, order.height, order.shape);
    let duration = match facts.duration_seconds {
        Some(duration) => duration,
        None => measure(order, &facts, &mut pulse)?,
    };
    let plan = Plan::new(order.frames, duration);
    let mut album = Album::new(&order.folder, width, height, plan.count())?;

    let jumped = plan.step_seconds >= JUMP_SECONDS && jump(order, &facts, &plan, &mut album, &mut pulse)?;
    if !jumped {
        run_through(order, &facts, &plan, &mut album, &mut pulse)?;
    }
    album.finish(&plan)
}

/// Which moments, and how long each stands for the film.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    duration_seconds: f64,
    step_seconds: f64,
    moments: Vec<f64>,
}

impl Plan {
    fn new(frames: Frames, duration_seconds: f64) -> Plan {
        // A film of one frame may say that it lasts no time at all.
        let duration_seconds = duration_seconds.max(0.001);
        let (step_seconds, count) = match frames {
            Frames::Every(seconds) if seconds > 0.0 && duration_seconds / seconds <= f64::from(MOST_FRAMES) => {
                (seconds, (duration_seconds / seconds).ceil().max(1.0) as u32)
            }
            Frames::Every(_) => (duration_seconds / f64::from(MOST_FRAMES), MOST_FRAMES),
            Frames::Number(number) => {
                let number = number.clamp(1, MOST_FRAMES);
                (duration_seconds / f64::from(number), number)
            }
        };
        let mut plan = Plan { duration_seconds, step_seconds, moments: Vec::new() };
        plan.moments = (0..count).map(|at| f64::midpoint(plan.start(at), plan.start(at + 1))).collect();
        plan
    }

    fn count(&self) -> u32 {
        self.moments.len() as u32
    }

    /// When a stretch begins, and the one before it ends.
    fn start(&self, at: u32) -> f64 {
        (f64::from(at) * self.step_seconds).min(self.duration_seconds)
    }
}

/// Decodes a film that does not say how long it is.
fn measure(order: &Storyboard, facts: &Facts, pulse: &mut Pulse<'_>) -> Result<f64, VideoError> {
    let mut film = Film::open(&order.source, facts, 2, 2, order.shape, 0)?;
    film.choose(Vec::new());
    film.play()?;
    while film.next(&mut |_| pulse.beat())?.is_some() {}
    Ok(film.reached_seconds())
}

/// Fetches every frame by a jump. `false` if that is not the way for this film.
fn jump(
    order: &Storyboard,
    facts: &Facts,
    plan: &Plan,
    album: &mut Album<'_>,
    pulse: &mut Pulse<'_>,
) -> Result<bool, VideoError> {
    // One thread: frames that others would decode ahead are thrown away at the next jump.
    let mut film = Film::open(&order.source, facts, album.width, album.height, order.shape, 1)?;
    film.pause()?;
    for (at, &moment) in plan.moments.iter().enumerate() {
        pulse.say(95.0 * at as f32 / plan.moments.len() as f32);
        let Some(mut frame) = film.at(moment, false, &mut || pulse.beat())? else {
            // Not even the beginning: it cannot be searched. Later: it is cut off, and that was all.
            return Ok(at > 0);
        };
        let early = moment - frame.at_seconds;
        if early > plan.step_seconds {
            return Ok(false);
        }
        if early > plan.step_seconds * NEAR_ENOUGH || (at == 0 && early > 0.0) {
            match film.at(moment, true, &mut || pulse.beat())? {
                Some(exact) => frame = exact,
                None => return Ok(true),
            }
        }
        album.put(at as u32, &frame)?;
    }
    Ok(true)
}

/// Decodes the film once, from end to end.
fn run_through(
    order: &Storyboard,
    facts: &Facts,
    plan: &Plan,
    album: &mut Album<'_>,
    pulse: &mut Pulse<'_>,
) -> Result<(), VideoError> {
    let mut film = Film::open(&order.source, facts, album.width, album.height, order.shape, 0)?;
    film.choose(plan.moments.clone());
    film.play()?;
    let mut next = 0_u32;
    let whole = plan.duration_seconds;
    while let Some(frame) = film.next(&mut |reached| pulse.say((95.0 * reached / whole) as f32))? {
        // A frame that is shown for long may stand for several moments.
        while plan.moments.get(next as usize).is_some_and(|&moment| frame.shows(moment)) {
            album.put(next, &frame)?;
            next += 1;
        }
    }
    Ok(())
}

/// Writes frames and sheets.
struct Album<'a> {
    folder: &'a Path,
    width: u32,
    height: u32,
    count: u32,
    layout: Layout,
    jpegs: Jpegs,
    sheet: Option<Sheet>,
    stills: Vec<Still>,
    sheets: Vec<Still>,
    /// The last frame's JPEG.
    last: Vec<u8>,
}

/// How frames lie on sheets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    columns: u32,
    rows: u32,
}

/// A sheet in the making, in I420.
struct Sheet {
    width: u32,
    height: u32,
    planes: [Vec<u8>; 3],
}

impl Layout {
    fn new(width: u32, height: u32, count: u32) -> Layout {
        let columns = (MOST_SHEET_SIDE / width.max(1)).clamp(1, MOST_COLUMNS).min(count.max(1));
        let rows = (MOST_SHEET_SIDE / height.max(1)).max(1);
        Layout { columns, rows: rows.min(count.max(1).div_ceil(columns)) }
    }

    fn per_sheet(self) -> u32 {
        self.columns * self.rows
    }

    /// Sheet, column and row of a frame.
    fn place(self, at: u32) -> (u32, u32, u32) {
        let on_sheet = at % self.per_sheet();
        (at / self.per_sheet(), on_sheet % self.columns, on_sheet / self.columns)
    }
}

impl<'a> Album<'a> {
    fn new(folder: &'a Path, width: u32, height: u32, count: u32) -> Result<Album<'a>, VideoError> {
        Ok(Album {
            folder,
            width,
            height,
            count,
            layout: Layout::new(width, height, count),
            jpegs: Jpegs::new(width, height)?,
            sheet: None,
            stills: Vec::new(),
            sheets: Vec::new(),
            last: Vec::new(),
        })
    }

    /// Keeps the frame for a stretch. A stretch that has one already keeps it.
    fn put(&mut self, at: u32, frame: &Frame) -> Result<(), VideoError> {
        if (at as usize) < self.stills.len() {
            return Ok(());
        }
        let (_, column, row) = self.layout.place(at);
        let (width, height) = (self.width, self.height);
        let layout = self.layout;
        let sheet = self.sheet.get_or_insert_with(|| Sheet::new(width * layout.columns, height * layout.rows));
        frame.planes(|planes| sheet.lay(planes, (width, height), (column * width, row * height)))?;
        self.last = self.jpegs.frame(frame)?;
        self.keep(at, frame.at_seconds)
    }

    /// Writes the last frame's JPEG for this stretch, and the sheet when it is full.
    fn keep(&mut self, at: u32, at_seconds: f64) -> Result<(), VideoError> {
        let file = format!("storyboard_{:06}.jpg", at + 1);
        write(self.folder, &file, &self.last)?;
        self.stills.push(Still { file, width: self.width, height: self.height, at_seconds });
        if (at + 1).is_multiple_of(self.layout.per_sheet()) || at + 1 == self.count {
            self.close_sheet(at)?;
        }
        Ok(())
    }

    fn close_sheet(&mut self, at: u32) -> Result<(), VideoError> {
        let Some(mut sheet) = self.sheet.take() else { return Ok(()) };
        let (number, _, row) = self.layout.place(at);
        sheet.cut((row + 1) * self.height);
        let (width, height) = (sheet.width, sheet.height);
        let jpeg = Jpegs::new(width, height)?.planes(sheet.bytes()?)?;
        let file = sheet_name(number);
        write(self.folder, &file, &jpeg)?;
        self.sheets.push(Still { file, width, height, at_seconds: 0.0 });
        Ok(())
    }

    fn finish(mut self, plan: &Plan) -> Result<Vec<Still>, VideoError> {
        let Some(last) = self.stills.last().cloned() else {
            return Err(invalid("Not one picture of the film can be read."));
        };
        let shown = self.stills.len() as u32;
        for at in shown..self.count {
            self.repeat(shown - 1, at);
            self.keep(at, last.at_seconds)?;
        }
        write(self.folder, "storyboard.vtt", self.cues(plan).as_bytes())?;
        self.stills.append(&mut self.sheets);
        Ok(self.stills)
    }

    /// On the sheet, a frame that is missing stays black, unless it can be taken from the same sheet.
    fn repeat(&mut self, from: u32, to: u32) {
        let ((from_sheet, from_column, from_row), (to_sheet, to_column, to_row)) =
            (self.layout.place(from), self.layout.place(to));
        let (width, height) = (self.width, self.height);
        let layout = self.layout;
        let sheet = self.sheet.get_or_insert_with(|| Sheet::new(width * layout.columns, height * layout.rows));
        if from_sheet == to_sheet {
            sheet.copy((width, height), (from_column * width, from_row * height), (to_column * width, to_row * height));
        }
    }

    fn cues(&self, plan: &Plan) -> String {
        let mut text = "WEBVTT\n".to_owned();
        let (width, height) = (self.width, self.height);
        for at in 0..plan.count() {
            let (number, column, row) = self.layout.place(at);
            // Writing to a string does not fail.
            let _written = write!(
                text,
                "\n{} --> {}\n{}#xywh={},{},{width},{height}\n",
                timestamp(plan.start(at)),
                timestamp(if at + 1 == plan.count() { plan.duration_seconds } else { plan.start(at + 1) }),
                sheet_name(number),
                column * width,
                row * height,
            );
        }
        text
    }
}

impl Sheet {
    fn new(width: u32, height: u32) -> Sheet {
        let luma = (width * height) as usize;
        let planes = [vec![BLACK[0]; luma], vec![BLACK[1]; luma / 4], vec![BLACK[2]; luma / 4]];
        Sheet { width, height, planes }
    }

    fn lay(&mut self, planes: [(&[u8], usize); 3], size: (u32, u32), place: (u32, u32)) {
        for (at, (from, from_stride)) in planes.into_iter().enumerate() {
            let half = u32::from(at > 0);
            let (width, height) = ((size.0 >> half) as usize, (size.1 >> half) as usize);
            let (left, top) = ((place.0 >> half) as usize, (place.1 >> half) as usize);
            let stride = (self.width >> half) as usize;
            for (row, line) in from.chunks(from_stride.max(1)).take(height).enumerate() {
                let start = (top + row) * stride + left;
                self.planes[at][start..start + width].copy_from_slice(&line[..width]);
            }
        }
    }

    fn copy(&mut self, size: (u32, u32), from: (u32, u32), to: (u32, u32)) {
        for (at, plane) in self.planes.iter_mut().enumerate() {
            let half = u32::from(at > 0);
            let stride = (self.width >> half) as usize;
            let width = (size.0 >> half) as usize;
            for row in 0..size.1 >> half {
                let start = ((from.1 >> half) + row) as usize * stride + (from.0 >> half) as usize;
                let end = ((to.1 >> half) + row) as usize * stride + (to.0 >> half) as usize;
                plane.copy_within(start..start + width, end);
            }
        }
    }

    /// Leaves out empty rows at the bottom.
    fn cut(&mut self, height: u32) {
        self.height = self.height.min(height);
        let luma = (self.width * self.height) as usize;
        self.planes[0].truncate(luma);
        self.planes[1].truncate(luma / 4);
        self.planes[2].truncate(luma / 4);
    }

    /// The planes as GStreamer lays them out: rows of luma filled to 4 bytes, and chroma likewise.
    fn bytes(&self) -> Result<Vec<u8>, VideoError> {
        frames::packed(self.width, self.height, [&self.planes[0], &self.planes[1], &self.planes[2]])
    }
}

fn sheet_name(number: u32) -> String {
    if number == 0 { "sprite.jpg".to_owned() } else { format!("sprite_{}.jpg", number + 1) }
}

fn timestamp(seconds: f64) -> String {
    let milliseconds = (seconds * 1000.0).round() as u64;
    let (hours, minutes) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", milliseconds / 1000 % 60, milliseconds % 1000)
}

fn write(folder: &Path, file: &str, bytes: &[u8]) -> Result<(), VideoError> {
    std::fs::write(folder.join(file), bytes).map_err(|error| internal(&format!("{file} cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::video::Fit;
    use crate::media::video::Shape;
    use crate::media::video::open::samples;

    #[test]
    fn stretches_cover_the_film() {
        for (frames, duration, count, first) in [
            (Frames::Number(5), 10.0, 5, 1.0),
            (Frames::Number(0), 10.0, 1, 5.0),
            (Frames::Number(5000), 1000.0, 1000, 0.5),
            (Frames::Every(4.0), 10.0, 3, 2.0),
            (Frames::Every(10.0), 5.0, 1, 2.5),
            (Frames::Every(1.0), 2000.0, 1000, 1.0),
            (Frames::Every(0.0), 10.0, 1000, 0.005),
            (Frames::Every(f64::NAN), 10.0, 1000, 0.005),
            (Frames::Number(3), 0.0, 3, 0.001 / 6.0),
        ] {
            let plan = Plan::new(frames, duration);
            assert_eq!(plan.count(), count, "{frames:?} {duration}");
            assert!((plan.moments[0] - first).abs() < 1e-9, "{plan:?}");
            assert!(plan.moments.is_sorted(), "{plan:?}");
            assert!(plan.moments.last() < Some(&plan.duration_seconds), "{plan:?}");
        }
    }

    #[test]
    fn sheets_stay_within_their_size() {
        for (width, height, count, columns, rows) in [
            (320, 180, 5, 5, 1),
            (320, 180, 25, 10, 3),
            (640, 480, 100, 6, 8),
            (5000, 5000, 3, 1, 1),
            (64, 48, 1000, 10, 85),
        ] {
            let layout = Layout::new(width, height, count);
            assert_eq!(layout, Layout { columns, rows }, "{width} x {height}");
        }
        assert_eq!(Layout { columns: 10, rows: 2 }.place(34), (1, 4, 1));
    }

    #[test]
    fn moments_are_written_as_players_read_them() {
        assert_eq!(timestamp(0.0), "00:00:00.000");
        assert_eq!(timestamp(3725.0625), "01:02:05.063");
        assert_eq!(timestamp(59.9996), "00:01:00.000");
    }

    fn order(source: &Path, folder: &Path, frames: Frames) -> Storyboard {
        let shape = Shape { fit: Fit::Preserve, padding: [0; 3], upscale: false };
        Storyboard { source: source.to_owned(), folder: folder.to_owned(), frames, width: 80, height: 80, shape }
    }

    #[test]
    fn frames_come_in_time_order_by_either_way() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        // Key frames near enough for jumps; and a single one, so that jumps are given up.
        for key_frames in [10, 999] {
            samples::film(&source, 80, "pattern=ball", &samples::h264(key_frames));
            for (frames, count) in [(Frames::Number(4), 4), (Frames::Every(0.5), 16)] {
                let made = storyboard(&order(&source, folder.path(), frames), &mut |_| {}).unwrap();
                assert_eq!(made.len(), count + 1);
                let step = 8.0 / count as f64;
                for (at, still) in made[..count].iter().enumerate() {
                    assert_eq!(still.file, format!("storyboard_{:06}.jpg", at + 1));
                    assert_eq!((still.width, still.height), (80, 48));
                    let stretch = step * at as f64 - 0.001..step * (at + 1) as f64;
                    assert!(stretch.contains(&still.at_seconds), "{still:?} is not in {stretch:?}");
                    let jpeg = std::fs::read(folder.path().join(&still.file)).unwrap();
                    assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]));
                }
                let sheet = &made[count];
                assert_eq!(sheet.file, "sprite.jpg");
                assert_eq!((sheet.width, sheet.height), if count == 4 { (320, 48) } else { (800, 96) });
                let cues = std::fs::read_to_string(folder.path().join("storyboard.vtt")).unwrap();
                assert!(cues.starts_with("WEBVTT\n\n00:00:00.000 --> "));
                assert_eq!(cues.matches("#xywh=").count(), count);
                assert!(cues.contains(" --> 00:00:08.000\n"), "{cues}");
            }
        }
    }

    #[test]
    fn a_film_of_one_frame_and_one_cut_off_fill_their_board() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        samples::film(&source, 1, "", &samples::h264(1));
        let made = storyboard(&order(&source, folder.path(), Frames::Number(3)), &mut |_| {}).unwrap();
        assert_eq!(made.iter().map(|still| still.at_seconds).collect::<Vec<_>>(), [0.0; 4]);

        let encoding = format!("{} faststart=true", samples::h264(5));
        samples::film(&source, 40, "pattern=snow", &encoding);
        let bytes = std::fs::read(&source).unwrap();
        std::fs::write(&source, &bytes[..bytes.len() / 2]).unwrap();
        let made = storyboard(&order(&source, folder.path(), Frames::Number(6)), &mut |_| {}).unwrap();
        assert_eq!(made.len(), 7);
        assert!(made[5].at_seconds < 2.5, "{made:?}");
        assert_eq!(made[5].at_seconds.to_bits(), made[4].at_seconds.to_bits());
    }
}
