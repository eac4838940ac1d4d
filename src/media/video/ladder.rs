//! The sums of a ladder: how large each rendition is, which are one and the same, how they are
//! encoded.
//!
//! In: how large a film is when it is shown, its rate of frames, and an order. Out: a [`Plan`]:
//! encodes, each with the MP4s and the variant of a stream that are made of it, and what is left
//! out because it would equal a lower rendition. Pure; nothing of GStreamer is known here.
//!
//! Invariant: sides are even, and a film is never enlarged unless the order says so: a box that is
//! too large for a film shrinks, with its shape kept, until the film need not grow.
//!
//! Does not know encoders (h264.rs) nor how a picture comes into its box (shape/).

use super::Fit;
use super::Hls;
use super::Rendition;
use super::Shape;

/// What is to be encoded, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Ascending in size, as the order was.
    pub encodes: Vec<Encode>,
    /// Renditions that would equal a lower one: their names, and the other's.
    pub skipped: Vec<(String, String)>,
}

/// One encoding, which may end in several files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encode {
    pub picture: Picture,
    /// Names of MP4s.
    pub films: Vec<String>,
    /// Lines that name a variant of the stream.
    pub variant: Option<u32>,
}

/// What every frame of an encoding looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub fit: Fit,
    /// Black where nothing is padded, so that equal pictures are equal.
    pub padding: [u8; 3],
    pub watermark: bool,
}

/// How an encoding is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most that flows over a while, in kbit/s.
    pub kbit: u32,
    pub profile: Profile,
}

/// Of H.264.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Main,
    High,
}

/// Frames in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub frames: u32,
    pub seconds: u32,
}

/// Rates that films are made in; what is not among them becomes the next that is.
const RATES: [Rate; 18] = [
    Rate::new(5, 1),
    Rate::new(15, 2),
    Rate::new(8, 1),
    Rate::new(10, 1),
    Rate::new(12, 1),
    Rate::new(25, 2),
    Rate::new(15_000, 1001),
    Rate::new(15, 1),
    Rate::new(18, 1),
    Rate::new(24_000, 1001),
    Rate::new(24, 1),
    Rate::new(25, 1),
    Rate::new(30_000, 1001),
    Rate::new(30, 1),
    Rate::new(48, 1),
    Rate::new(50, 1),
    Rate::new(60_000, 1001),
    Rate::new(60, 1),
];

/// Lines and what may flow for them, in kbit/s.
const FLOWS: [(u32, u32); 6] = [(360, 800), (480, 1400), (720, 2800), (1080, 5000), (1440, 9000), (2160, 16_000)];

/// What to encode of a film that is shown in `size`.
pub fn plan(size: (u32, u32), renditions: &[Rendition], hls: Option<&Hls>) -> Plan {
    let mut plan = Plan { encodes: Vec::new(), skipped: Vec::new() };
    for rendition in renditions {
        let picture = picture(size, rendition.lines, rendition.shape, rendition.watermark);
        let encode = plan.encode(picture);
        match encode.films.first() {
            Some(lower) => {
                let lower = lower.clone();
                plan.skipped.push((rendition.name.clone(), lower));
            }
            None => encode.films.push(rendition.name.clone()),
        }
    }
    if let Some(hls) = hls {
        for lines in &hls.ladder {
            let picture = picture(size, *lines, hls.shape, hls.watermark);
            let encode = plan.encode(picture);
            encode.variant = encode.variant.or(Some(*lines));
        }
    }
    plan.encodes.sort_by_key(|encode| u64::from(encode.picture.width) * u64::from(encode.picture.height));
    plan
}

/// What a film of `size` looks like in a box of so many lines.
pub fn picture(size: (u32, u32), lines: u32, shape: Shape, watermark: bool) -> Picture {
    let film = (f64::from(size.0.max(1)), f64::from(size.1.max(1)));
    let (long, short) = (f64::from(lines) * 16.0 / 9.0, f64::from(lines));
    let frame = if film.1 > film.0 { (short, long) } else { (long, short) };
    let (across, down) = (frame.0 / film.0, frame.1 / film.1);
    let most = if shape.upscale { f64::INFINITY } else { 1.0 };
    let (width, height) = match shape.fit {
        Fit::Preserve => {
            let by = across.min(down).min(most);
            (film.0 * by, film.1 * by)
        }
        // The film touches its box on two sides at least; it is there that it must not grow.
        Fit::Pad | Fit::Scale => shrunk(frame, across.min(down), most),
        Fit::Crop => shrunk(frame, across.max(down), most),
    };
    let (width, height) = (even(width), even(height));
    // Bars of less than two pixels, or a cut of so much, come from rounding alone.
    let natural = (film.1 * f64::from(width) / film.0 - f64::from(height)).abs() < 2.0 && shape.fit != Fit::Preserve;
    let fit = if natural { Fit::Preserve } else { shape.fit };
    let padding = if fit == Fit::Pad { shape.padding } else { [0; 3] };
    Picture { width, height, fit, padding, watermark }
}

/// The rate a film is made in, for the one it claims to have.
pub fn rate(claimed: Option<(u32, u32)>) -> Rate {
    const USUAL: Rate = Rate::new(30, 1);
    let Some((frames, seconds)) = claimed else { return USUAL };
    if frames == 0 || seconds == 0 {
        return USUAL;
    }
    let claimed = f64::from(frames) / f64::from(seconds);
    if claimed > 1000.0 {
        // A clock's rate rather than a film's.
        return USUAL;
    }
    let wanted = if claimed > 60.5 { halved(claimed) } else { claimed };
    let near = RATES
        .iter()
        .filter(|rate| (rate.per_second() / wanted - 1.0).abs() < 0.01)
        .min_by(|one, other| (one.per_second() - wanted).abs().total_cmp(&(other.per_second() - wanted).abs()));
    let above = || RATES.iter().find(|rate| rate.per_second() >= wanted);
    near.or_else(above).copied().unwrap_or(Rate::new(60, 1))
}

impl Plan {
    /// The encode of a picture, an earlier one if there is one.
    fn encode(&mut self, picture: Picture) -> &mut Encode {
        let at = self.encodes.iter().position(|encode| encode.picture == picture).unwrap_or(self.encodes.len());
        if at == self.encodes.len() {
            self.encodes.push(Encode { picture, films: Vec::new(), variant: None });
        }
        // Just found, or just put there.
        #[expect(clippy::indexing_slicing, reason = "in range by the lines above")]
        &mut self.encodes[at]
    }
}

impl Picture {
    /// How it is encoded.
    pub fn bounds(&self) -> Bounds {
        // Lines of a film of 16:9 with as many pixels; a little more is due to rounding.
        let lines = (f64::from(self.width) * f64::from(self.height) * 9.0 / 16.0).sqrt() / 1.02;
        let kbit = FLOWS.iter().find(|(most, _)| lines <= f64::from(*most)).map_or(24_000, |(_, kbit)| *kbit);
        let profile = if lines <= 480.0 { Profile::Main } else { Profile::High };
        Bounds { kbit, profile }
    }

    /// The lowest level of H.264 that allows for it, for encoders that do not find out themselves.
    pub fn level(&self, rate: Rate) -> &'static str {
        const LEVELS: [(f64, f64, &str); 7] = [
            (1620.0, 40_500.0, "3"),
            (3600.0, 108_000.0, "3.1"),
            (5120.0, 216_000.0, "3.2"),
            (8192.0, 245_760.0, "4"),
            (8704.0, 522_240.0, "4.2"),
            (22_080.0, 589_824.0, "5"),
            (36_864.0, 983_040.0, "5.1"),
        ];
        let blocks = f64::from(self.width.div_ceil(16)) * f64::from(self.height.div_ceil(16));
        let flow = blocks * rate.per_second();
        let enough = LEVELS.iter().find(|(most, fastest, _)| blocks <= *most && flow <= *fastest);
        enough.map_or("5.2", |(_, _, name)| name)
    }
}

impl Profile {
    /// As caps have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::High => "high",
        }
    }
}

impl Rate {
    pub const fn new(frames: u32, seconds: u32) -> Self {
        Self { frames, seconds }
    }

    pub fn per_second(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds)
    }

    /// Frames from one key to the next: two seconds of them.
    pub fn group(self) -> u32 {
        ((self.per_second() * 2.0).round() as u32).max(1)
    }

    /// So many frames, in nanoseconds.
    pub fn lasting(self, frames: u32) -> u64 {
        u64::from(frames) * u64::from(self.seconds) * 1_000_000_000 / u64::from(self.frames)
    }
}

/// A box with its shape, made smaller until a film that grows by `by` to meet it grows no more than `most`.
fn shrunk(frame: (f64, f64), by: f64, most: f64) -> (f64, f64) {
    let less = (most / by).min(1.0);
    (frame.0 * less, frame.1 * less)
}

/// The nearest even number. Muxers take no side below sixteen: only a film that is smaller still grows to it.
fn even(side: f64) -> u32 {
    // A half goes down, for a film of an odd size does not grow.
    ((side / 2.0 - 0.5).ceil() as u32).max(8) * 2
}

/// A high rate divided until it is usual.
fn halved(claimed: f64) -> f64 {
    let part = |divisor: f64| claimed / divisor;
    let usual =
        |wanted: f64| RATES.iter().any(|rate| (rate.per_second() / wanted - 1.0).abs() < 0.0005 && wanted > 45.0);
    (2..=20).map(|divisor| part(f64::from(divisor))).find(|wanted| usual(*wanted)).unwrap_or(60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(fit: Fit) -> Shape {
        Shape { fit, padding: [1, 2, 3], upscale: false }
    }

    fn order(lines: u32, fit: Fit) -> Rendition {
        Rendition { name: format!("{lines}p"), lines, shape: shape(fit), watermark: false }
    }

    fn stream(ladder: &[u32]) -> Hls {
        Hls { ladder: ladder.to_vec(), shape: shape(Fit::Preserve), watermark: false }
    }

    #[test]
    fn sizes_meet_their_boxes() {
        use Fit::Crop;
        use Fit::Pad;
        use Fit::Preserve;
        use Fit::Scale;
        type Row = ((u32, u32), u32, Fit, bool, (u32, u32));
        let table: &[Row] = &[
            ((1920, 1080), 360, Preserve, false, (640, 360)),
            ((1920, 1080), 480, Preserve, false, (854, 480)),
            ((1920, 1080), 720, Preserve, false, (1280, 720)),
            ((1920, 1080), 1080, Preserve, false, (1920, 1080)),
            ((1080, 1920), 720, Preserve, false, (720, 1280)),
            ((1080, 1920), 1080, Preserve, false, (1080, 1920)),
            ((1280, 720), 1080, Preserve, false, (1280, 720)),
            ((1280, 720), 1080, Preserve, true, (1920, 1080)),
            ((1920, 800), 720, Preserve, false, (1280, 534)),
            ((1440, 1080), 720, Preserve, false, (960, 720)),
            ((1080, 1080), 720, Preserve, false, (720, 720)),
            ((853, 481), 720, Preserve, false, (852, 480)),
            ((64, 48), 360, Preserve, false, (64, 48)),
            ((1, 1), 360, Preserve, false, (16, 16)),
            ((1440, 1080), 720, Pad, false, (1280, 720)),
            ((640, 480), 1080, Pad, false, (854, 480)),
            ((640, 480), 1080, Pad, true, (1920, 1080)),
            ((1920, 800), 1080, Pad, false, (1920, 1080)),
            ((480, 640), 1080, Pad, false, (480, 854)),
            ((640, 480), 1080, Scale, false, (854, 480)),
            ((1920, 800), 720, Scale, false, (1280, 720)),
            ((1440, 1080), 720, Crop, false, (1280, 720)),
            ((640, 480), 1080, Crop, false, (640, 360)),
            ((640, 480), 720, Crop, true, (1280, 720)),
        ];
        for (film, lines, fit, upscale, wanted) in table {
            let shape = Shape { fit: *fit, padding: [0; 3], upscale: *upscale };
            let made = picture(*film, *lines, shape, false);
            assert_eq!((made.width, made.height), *wanted, "{film:?} in {lines} lines, {fit:?}");
        }
    }

    #[test]
    fn what_needs_no_bars_is_as_if_it_were_preserved() {
        let table = [
            ((1920, 1080), Fit::Pad, Fit::Preserve, [0; 3]),
            ((1440, 1080), Fit::Pad, Fit::Pad, [1, 2, 3]),
            ((1920, 1080), Fit::Crop, Fit::Preserve, [0; 3]),
            ((1440, 1080), Fit::Crop, Fit::Crop, [0; 3]),
            ((1440, 1080), Fit::Scale, Fit::Scale, [0; 3]),
            ((3413, 1920), Fit::Scale, Fit::Preserve, [0; 3]),
        ];
        for (film, asked, wanted, padding) in table {
            let made = picture(film, 720, shape(asked), false);
            assert_eq!((made.fit, made.padding), (wanted, padding), "{film:?} {asked:?}");
        }
    }

    #[test]
    fn a_rendition_that_equals_a_lower_one_is_left_out() {
        let orders: Vec<_> = [360, 480, 720, 1080].into_iter().map(|lines| order(lines, Fit::Preserve)).collect();
        type Row<'a> = ((u32, u32), &'a [&'a str], &'a [(&'a str, &'a str)]);
        let table: &[Row<'_>] = &[
            ((1920, 1080), &["360p", "480p", "720p", "1080p"], &[]),
            ((1280, 720), &["360p", "480p", "720p"], &[("1080p", "720p")]),
            ((64, 48), &["360p"], &[("480p", "360p"), ("720p", "360p"), ("1080p", "360p")]),
        ];
        for (film, made, skipped) in table {
            let plan = plan(*film, &orders, None);
            let names: Vec<_> = plan.encodes.iter().flat_map(|encode| &encode.films).collect();
            assert_eq!(&names, made, "{film:?}");
            let left: Vec<_> = plan.skipped.iter().map(|(name, other)| (name.as_str(), other.as_str())).collect();
            assert_eq!(&left, skipped, "{film:?}");
        }
        let alone = plan((1280, 720), &[order(1080, Fit::Preserve)], None);
        assert_eq!(alone.encodes.len(), 1, "a lone order is made at what the film has");
        assert_eq!(alone.encodes[0].picture.height, 720);
    }

    #[test]
    fn watermarks_and_fits_keep_renditions_apart() {
        let mut marked = order(720, Fit::Preserve);
        marked.name = "720p-wm".to_owned();
        marked.watermark = true;
        let orders = [order(720, Fit::Preserve), marked, order(1080, Fit::Crop)];
        let plan = plan((960, 720), &orders, None);
        assert_eq!(plan.encodes.len(), 3);
        assert_eq!(plan.skipped, []);
    }

    #[test]
    fn a_stream_shares_encodes_with_films() {
        let orders = [order(720, Fit::Preserve)];
        let both = plan((1920, 1080), &orders, Some(&stream(&[360, 480, 720, 1080])));
        let shared: Vec<_> = both.encodes.iter().map(|encode| (encode.films.len(), encode.variant)).collect();
        assert_eq!(shared, [(0, Some(360)), (0, Some(480)), (1, Some(720)), (0, Some(1080))]);
        let small = plan((320, 240), &orders, Some(&stream(&[360, 480, 720, 1080])));
        let shared: Vec<_> = small.encodes.iter().map(|encode| (encode.films.len(), encode.variant)).collect();
        assert_eq!(shared, [(1, Some(360))], "a film of less than 360 lines has one variant");
    }

    #[test]
    fn rates_are_usual_ones() {
        type Row = (Option<(u32, u32)>, (u32, u32));
        let table: &[Row] = &[
            (None, (30, 1)),
            (Some((0, 1)), (30, 1)),
            (Some((25, 1)), (25, 1)),
            (Some((24_000, 1001)), (24_000, 1001)),
            (Some((23_976, 1000)), (24_000, 1001)),
            (Some((2997, 100)), (30_000, 1001)),
            (Some((2983, 100)), (30_000, 1001)),
            (Some((30, 1)), (30, 1)),
            (Some((10, 1)), (10, 1)),
            (Some((1, 1)), (5, 1)),
            (Some((27, 1)), (30_000, 1001)),
            (Some((60, 1)), (60, 1)),
            (Some((60_000, 1001)), (60_000, 1001)),
            (Some((100, 1)), (50, 1)),
            (Some((120, 1)), (60, 1)),
            (Some((120_000, 1001)), (60_000, 1001)),
            (Some((240, 1)), (60, 1)),
            (Some((144, 1)), (48, 1)),
            (Some((90, 1)), (60, 1)),
            (Some((90_000, 1)), (30, 1)),
        ];
        for (claimed, (frames, seconds)) in table {
            assert_eq!(rate(*claimed), Rate::new(*frames, *seconds), "{claimed:?}");
        }
        assert_eq!(Rate::new(24_000, 1001).group(), 48);
        assert_eq!(Rate::new(25, 1).lasting(50), 2_000_000_000);
    }

    #[test]
    fn bounds_follow_the_size() {
        let table = [
            ((640, 360), 800, Profile::Main, "3"),
            ((854, 480), 1400, Profile::Main, "3"),
            ((1280, 720), 2800, Profile::High, "3.1"),
            ((720, 1280), 2800, Profile::High, "3.1"),
            ((1920, 800), 5000, Profile::High, "4"),
            ((1920, 1080), 5000, Profile::High, "4"),
            ((3840, 2160), 16_000, Profile::High, "5.1"),
            ((64, 48), 800, Profile::Main, "3"),
        ];
        for ((width, height), kbit, profile, level) in table {
            let picture = Picture { width, height, fit: Fit::Preserve, padding: [0; 3], watermark: false };
            assert_eq!(picture.bounds(), Bounds { kbit, profile }, "{width}x{height}");
            assert_eq!(picture.level(Rate::new(25, 1)), level, "{width}x{height}");
        }
        let hd = Picture { width: 1920, height: 1080, fit: Fit::Preserve, padding: [0; 3], watermark: false };
        assert_eq!(hd.level(Rate::new(60, 1)), "4.2");
    }
}
