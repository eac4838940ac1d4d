//! A recording: a picture of what it sounds like, and a copy that every browser plays.
//!
//! In: a file with sound, the size of the picture. Out: `waveform.png`, and `preview.m4a` in AAC-LC,
//! 128 kbit/s, stereo, its index in front.
//!
//! Invariant: the recording is decoded once and both come out of that; memory does not grow with its
//! length. Whatever it is, the waveform has exactly the size that was asked for.
//!
//! How long a recording is shows at its end, so a column of the picture cannot be known on the way.
//! [`Outline`] keeps a few times as many spans as there are columns and joins them in pairs when they
//! run out; columns are made of spans in the end. Each shows the loudest sample on either side, and
//! within it the root of the mean square, which is what an ear takes for loudness.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Mutex;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::Recorded;
use super::Recording;
use super::Report;
use super::Still;
use super::VideoError;
use super::elements::caps_filter;
use super::elements::element;
use super::elements::internal;
use super::elements::invalid;
use super::elements::join;
use super::elements::pad;
use super::length;
use super::open;
use super::open::Facts;
use super::open::Kind;
use super::open::Sound;
use super::open::Wanted;
use super::open::Watch;
use super::poster::Pulse;

const BITS_A_SECOND: i32 = 128_000;

/// The two tones: for peaks, and for what an ear hears. Legible on white and on black.
const PEAK: [u8; 3] = [0x8f, 0xa8, 0xcb];
const LOUDNESS: [u8; 3] = [0x4a, 0x6c, 0xa3];

/// A quiet recording is drawn larger, but noise must not look like music.
const MOST_GAIN: f32 = 4.0;

/// A file that ends so much earlier than it says was cut off: seconds, and a share of its length.
const MISSING_SECONDS: f64 = 2.0;
const MISSING_SHARE: f64 = 0.02;

const MOST_SIDE: u32 = 8192;

/// Draws a recording, and copies it.
pub fn recording(order: &Recording, tell: &mut dyn FnMut(Report)) -> Result<Recorded, VideoError> {
    let facts = open::look(&order.source)?;
    let sound = facts.sound.as_ref().ok_or_else(|| invalid("There is no sound in this file."))?;
    if facts.duration_seconds == Some(0.0) {
        return Err(nothing());
    }
    let (width, height) = (order.width.clamp(1, MOST_SIDE), order.height.clamp(1, MOST_SIDE));
    let mut pulse = Pulse::new(tell);
    let mut outline = Outline::new(width);
    let duration_seconds = play(order, &facts, sound, &mut outline, &mut pulse)?;

    let file = "waveform.png".to_owned();
    draw(&order.folder.join(&file), width, height, &outline.columns(width))?;
    let preview_bytes = std::fs::metadata(order.folder.join("preview.m4a"))
        .map_err(|error| internal(&format!("the preview cannot be read: {error}")))?
        .len();
    let mut warnings = facts.warnings.clone();
    if let Some(said) = facts.duration_seconds
        && said - duration_seconds > MISSING_SECONDS.min(said / 4.0).max(said * MISSING_SHARE)
        && says_how_long(&facts.container)
    {
        warnings.push(format!(
            "The recording ends after {} of {}: its file is cut off or damaged.",
            clock(duration_seconds),
            clock(said)
        ));
    }
    if warnings.is_empty() && length::is_cut_off(&order.source) {
        warnings.push("The recording is not complete: its file is cut off.".to_owned());
    }
    let waveform = Still { file, width, height, at_seconds: 0.0 };
    Ok(Recorded { waveform, duration_seconds, preview_bytes, warnings })
}

/// Decodes the recording into the preview and the outline, and says how long it was.
fn play(
    order: &Recording,
    facts: &Facts,
    sound: &Sound,
    outline: &mut Outline,
    pulse: &mut Pulse<'_>,
) -> Result<f64, VideoError> {
    let pipeline = gst::Pipeline::new();
    let tee = element("tee")?;
    pipeline.add(&tee).map_err(|error| internal(&error))?;

    // Any number of channels is listened to as it is.
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .max_buffers(16)
        .enable_last_sample(false)
        .caps(&gst::Caps::builder("audio/x-raw").field("format", "F32LE").field("layout", "interleaved").build())
        .build();
    branch(&pipeline, &tee, &[element("audioconvert")?, sink.clone().upcast()])?;

    // Rates of the CD's family stay in it.
    let rate = if sound.rate > 0 && sound.rate.is_multiple_of(11_025) { 44_100 } else { 48_000 };
    let stereo = caps_filter(
        &gst::Caps::builder("audio/x-raw")
            .field("rate", rate)
            .field("channels", 2)
            .field("channel-mask", gst::Bitmask::new(3))
            .build(),
    )?;
    let encoder = element("avenc_aac")?;
    encoder.set_property("bitrate", BITS_A_SECOND);
    let muxer = element("mp4mux")?;
    muxer.set_property("faststart", true);
    muxer.set_property("faststart-file", path_text(&order.folder.join(".preview.part"))?);
    let file = element("filesink")?;
    file.set_property("location", path_text(&order.folder.join("preview.m4a"))?);
    file.set_property("async", false);
    let chain =
        [element("audioconvert")?, element("audioresample")?, stereo, encoder, element("aacparse")?, muxer, file];
    branch(&pipeline, &tee, &chain)?;

    let inlet = pad(&tee, "sink")?;
    let wanted = Wanted { picture: None, ..facts.wanted() };
    let inlet = Mutex::new(inlet);
    let notes = open::decode(&pipeline, &order.source, &wanted, 1, move |kind, pad| {
        if kind == Kind::Sound
            && let Ok(inlet) = inlet.lock()
        {
            pad.link(&*inlet).map_err(|error| internal(&error))?;
        }
        Ok(())
    })?;
    let mut watch = Watch::new(&pipeline, notes)?;
    watch.play()?;

    let mut seconds = 0.0;
    loop {
        let sample = sink.try_pull_sample(gst::ClockTime::from_mseconds(200));
        pulse.say(facts.duration_seconds.map_or(0.0, |whole| (95.0 * seconds / whole.max(0.001)) as f32));
        if let Some(sample) = sample {
            let (channels, rate) = layout(&sample).unwrap_or((1, 48_000));
            let map = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
            let samples = map.as_ref().map(|map| map.as_chunks::<4>().0).unwrap_or_default();
            seconds += outline.hear(samples, channels) as f64 / f64::from(rate.max(1));
            continue;
        }
        // After the last sample, a sink no longer waits for another; the encoder is still at it.
        let listened = sink.is_eos();
        match if listened { watch.wait() } else { watch.check() } {
            // The muxer has nothing to put an index to.
            Err(VideoError::Internal(_)) if listened && seconds == 0.0 => return Err(nothing()),
            Err(error) => return Err(error),
            Ok(true) => break,
            Ok(false) => {}
        }
    }
    if seconds == 0.0 { Err(nothing()) } else { Ok(seconds) }
}

/// Links elements one after another behind the tee, a queue in front.
fn branch(pipeline: &gst::Pipeline, tee: &gst::Element, chain: &[gst::Element]) -> Result<(), VideoError> {
    let queue = element("queue")?;
    let mut all = vec![queue];
    all.extend_from_slice(chain);
    join(pipeline, &all)?;
    let first = all.first().ok_or_else(|| internal("a branch has no elements"))?;
    tee.link(first).map_err(|error| internal(&error))
}

fn layout(sample: &gst::Sample) -> Option<(usize, u32)> {
    let structure = sample.caps()?.structure(0)?;
    let channels = structure.get::<i32>("channels").ok()?;
    let rate = structure.get::<i32>("rate").ok()?;
    Some((usize::try_from(channels).ok()?.max(1), u32::try_from(rate).ok()?))
}

/// A stretch of sound.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Span {
    lowest: f32,
    highest: f32,
    squares: f64,
    samples: u64,
}

/// The outline of a recording of any length, in a fixed number of spans.
struct Outline {
    spans: Vec<Span>,
    most: usize,
    /// Moments in a span; a moment has one sample for each channel.
    moments: u64,
    open: Span,
    opened: u64,
}

/// A column of the picture: peaks below and above, and loudness; all from -1 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Column {
    lowest: f32,
    highest: f32,
    loudness: f32,
}

impl Span {
    fn add(&mut self, value: f32) {
        // What no speaker plays: neither numbers that are none, nor more than everything.
        let value = if value.is_finite() { value.clamp(-1.0, 1.0) } else { 0.0 };
        self.lowest = self.lowest.min(value);
        self.highest = self.highest.max(value);
        self.squares += f64::from(value) * f64::from(value);
        self.samples += 1;
    }

    fn join(self, other: Span) -> Span {
        Span {
            lowest: self.lowest.min(other.lowest),
            highest: self.highest.max(other.highest),
            squares: self.squares + other.squares,
            samples: self.samples + other.samples,
        }
    }

    fn column(self) -> Column {
        let loudness = (self.squares / self.samples.max(1) as f64).sqrt() as f32;
        Column { lowest: self.lowest, highest: self.highest, loudness }
    }
}

impl Outline {
    /// For a picture of so many columns.
    fn new(width: u32) -> Outline {
        let most = width as usize * 8;
        Outline { spans: Vec::with_capacity(most), most, moments: 1, open: Span::default(), opened: 0 }
    }

    /// Takes samples of all channels in turn, and says how many moments they were.
    fn hear(&mut self, samples: &[[u8; 4]], channels: usize) -> u64 {
        let mut heard = 0;
        for moment in samples.chunks_exact(channels) {
            for sample in moment {
                self.open.add(f32::from_le_bytes(*sample));
            }
            self.opened += 1;
            heard += 1;
            if self.opened >= self.moments {
                self.close();
            }
        }
        heard
    }

    fn close(&mut self) {
        self.spans.push(std::mem::take(&mut self.open));
        self.opened = 0;
        if self.spans.len() >= self.most {
            self.spans =
                self.spans.chunks(2).map(|pair| pair.iter().copied().reduce(Span::join).unwrap_or_default()).collect();
            self.moments *= 2;
        }
    }

    /// One column for each pixel across. A column of a very short recording repeats its neighbour.
    fn columns(&self, width: u32) -> Vec<Column> {
        let mut spans = self.spans.clone();
        if self.opened > 0 {
            spans.push(self.open);
        }
        let width = width as usize;
        (0..width)
            .map(|column| {
                let start = column * spans.len() / width;
                let end = ((column + 1) * spans.len() / width).max(start + 1);
                let covered = spans.get(start..end.min(spans.len())).unwrap_or_default();
                covered.iter().copied().reduce(Span::join).unwrap_or_default().column()
            })
            .collect()
    }
}

/// Writes the waveform: a palette of nothing, peaks and loudness, two bits to a pixel.
fn draw(path: &Path, width: u32, height: u32, columns: &[Column]) -> Result<(), VideoError> {
    let failed = |error: String| internal(&format!("the waveform cannot be written: {error}"));
    let file = File::create(path).map_err(|error| failed(error.to_string()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette([[0; 3], PEAK, LOUDNESS].concat());
    encoder.set_trns(vec![0, 255, 255]);
    let mut writer = encoder.write_header().map_err(|error| failed(error.to_string()))?;
    writer.write_image_data(&pixels(height, columns)).map_err(|error| failed(error.to_string()))?;
    writer.finish().map_err(|error| failed(error.to_string()))
}

fn pixels(height: u32, columns: &[Column]) -> Vec<u8> {
    let loudest = columns.iter().fold(0.0_f32, |most, column| most.max(column.highest).max(-column.lowest));
    let gain = (1.0 / loudest.max(1e-6)).clamp(1.0, MOST_GAIN);
    let half = height as f32 / 2.0;
    let rows: Vec<[(f32, f32); 2]> = columns
        .iter()
        .map(|column| {
            // Silence is a line, not nothing.
            let span = |low: f32, high: f32| {
                ((half - high * gain * half).min(half - 0.5), (half - low * gain * half).max(half + 0.5))
            };
            // The ear hears no more than there is on either side.
            let loudness = (column.loudness.min(column.highest), (-column.loudness).max(column.lowest));
            [span(column.lowest, column.highest), span(loudness.1, loudness.0)]
        })
        .collect();
    let mut bytes = Vec::new();
    for row in 0..height {
        let middle = row as f32 + 0.5;
        for four in rows.chunks(4) {
            let mut byte = 0_u8;
            for (at, [peak, loudness]) in four.iter().enumerate() {
                let within = |span: &(f32, f32)| span.0 <= middle && middle <= span.1;
                let tone = if within(loudness) { 2 } else { u8::from(within(peak)) };
                byte |= tone << (6 - 2 * at);
            }
            bytes.push(byte);
        }
    }
    bytes
}

/// Files of these kinds write their length down; of others it is guessed from the first bytes.
fn says_how_long(container: &str) -> bool {
    !matches!(container, "audio/mpeg" | "application/x-id3" | "application/x-apetag" | "audio/x-ac3" | "audio/x-dts")
}

fn nothing() -> VideoError {
    invalid("There is no sound in this recording: it is empty.")
}

fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if whole < 60 { format!("{seconds:.1} s") } else { format!("{}:{:02} min", whole / 60, whole % 60) }
}

fn path_text(path: &Path) -> Result<&str, VideoError> {
    path.to_str().ok_or_else(|| internal("a path is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::video::open::samples;

    fn order(source: &Path, folder: &Path) -> Recording {
        Recording { source: source.to_owned(), folder: folder.to_owned(), width: 90, height: 40 }
    }

    fn spans(samples: impl Iterator<Item = f32>, width: u32) -> Outline {
        let mut outline = Outline::new(width);
        let bytes: Vec<[u8; 4]> = samples.map(f32::to_le_bytes).collect();
        outline.hear(&bytes, 1);
        outline
    }

    #[test]
    fn an_outline_of_any_length_has_a_column_for_each_pixel() {
        for length in [1_usize, 3, 89, 90, 91, 719, 720, 721, 100_000] {
            let outline = spans((0..length).map(|_| 0.5), 90);
            assert!(outline.spans.len() <= outline.most);
            let columns = outline.columns(90);
            assert_eq!(columns.len(), 90);
            assert!(columns.iter().all(|column| (column.highest - 0.5).abs() < 1e-6), "{length}");
            assert!(columns.iter().all(|column| (column.loudness - 0.5).abs() < 1e-6), "{length}");
        }
    }

    #[test]
    fn a_peak_stays_where_it_was() {
        let outline = spans((0..100_000).map(|at| if at == 75_000 { -0.9 } else { 0.1 }), 100);
        let columns = outline.columns(100);
        let peak = columns.iter().position(|column| column.lowest < -0.8).unwrap();
        assert!((74..=76).contains(&peak), "{peak}");
        assert_eq!(columns.iter().filter(|column| column.lowest < -0.8).count(), 1);
    }

    #[test]
    fn samples_that_are_no_numbers_are_silence() {
        let outline = spans([f32::NAN, f32::INFINITY, 7.0].into_iter(), 1);
        let column = outline.columns(1)[0];
        assert_eq!((column.lowest, column.highest), (0.0, 1.0));
    }

    #[test]
    fn a_recording_is_drawn_and_copied() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("tone.wav");
        samples::make(&format!(
            "audiotestsrc num-buffers=40 samplesperbuffer=1024 freq=300 ! audio/x-raw,rate=22050,channels=1 \
                 ! wavenc ! filesink location={}",
            source.display()
        ));
        let mut reports = 0;
        let made = recording(&order(&source, folder.path()), &mut |_| reports += 1).unwrap();
        assert!((made.duration_seconds - 40.0 * 1024.0 / 22050.0).abs() < 0.01, "{made:?}");
        assert_eq!(made.warnings, Vec::<String>::new());
        let preview = std::fs::read(folder.path().join("preview.m4a")).unwrap();
        assert_eq!(preview.len() as u64, made.preview_bytes);
        let find = |name: &[u8]| preview.windows(4).position(|four| four == name);
        assert!(find(b"moov").unwrap() < find(b"mdat").unwrap());
        let copy = open::look(&folder.path().join("preview.m4a")).unwrap();
        let sound = copy.sound.unwrap();
        assert_eq!((sound.channels, sound.rate), (2, 44_100));

        let file = std::io::BufReader::new(File::open(folder.path().join("waveform.png")).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (90, 40));
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        let tone = |x: usize, y: usize| bytes[y * 23 + x / 4] >> (6 - 2 * (x % 4)) & 3;
        // The loudness of a sine is 0.7 of its peaks, and its peaks are 0.8.
        assert_eq!((tone(45, 20), tone(45, 1), tone(45, 39)), (2, 1, 1));
        assert!(!folder.path().join(".preview.part").exists());
    }

    #[test]
    fn a_recording_that_was_cut_off_says_so() {
        let folder = tempfile::tempdir().unwrap();
        for (name, muxer) in [("cut.wav", "wavenc"), ("cut.m4a", "avenc_aac ! mp4mux faststart=true")] {
            let source = folder.path().join(name);
            samples::make(&format!(
                "audiotestsrc num-buffers=200 wave=white-noise ! audio/x-raw,rate=44100,channels=1 ! audioconvert \
                 ! {muxer} ! filesink location={}",
                source.display()
            ));
            let bytes = std::fs::read(&source).unwrap();
            std::fs::write(&source, &bytes[..bytes.len() * 6 / 10]).unwrap();
            let made = recording(&order(&source, folder.path()), &mut |_| {}).unwrap();
            assert_eq!(made.warnings.len(), 1, "{name}: {made:?}");
            assert!(made.duration_seconds > 1.0, "{name}: {made:?}");
        }
    }

    #[test]
    fn silence_is_a_line_and_no_sound_an_error() {
        let silent = pixels(40, &[Column::default(); 4]);
        assert_eq!(silent.iter().filter(|&&byte| byte != 0).count(), 2);

        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.avi");
        samples::film(&source, 2, "pattern=smpte", "jpegenc ! avimux");
        let error = recording(&order(&source, folder.path()), &mut |_| {}).unwrap_err();
        assert!(matches!(error, VideoError::Invalid(_)), "{error:?}");
    }
}
