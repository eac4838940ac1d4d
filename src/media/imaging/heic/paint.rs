//! From the planes of a decoded tile to pixels of the canvas, shrunk on the way.
//!
//! In: a picture, which part of it is wanted, and by how much it is shrunk. Out: RGB in its
//! place on the canvas, or the transparency of what is there.
//!
//! Invariant: a shrunk pixel is the mean of the samples under it, each plane by itself; chroma
//! that is stored smaller is not enlarged first. At full size it is interpolated.
//!
//! Sums stay whole numbers until they are multiplied with the matrix, so 10 bits lose nothing.
#![expect(clippy::indexing_slicing, reason = "pixel arithmetic; every index is derived from the planes' own size")]

use super::hevc::Picture;
use super::hevc::Plane;
use super::hevc::Signal;
use super::sps::Sps;

/// A part of a tile and its place on the canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// In the tile, in its own pixels; the corner is a multiple of the shrinking.
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
    /// On the canvas, in canvas pixels.
    pub to: (u32, u32),
}

/// Packed pixels with rows of this width.
pub struct Target<'a> {
    pub pixels: &'a mut [u8],
    pub width: u32,
    pub channels: usize,
}

/// Paints colours.
pub fn colors(picture: &Picture, signal: Signal, part: Part, shrink: u32, target: &mut Target<'_>) {
    let Some(luma) = picture.luma() else { return };
    let chroma = picture.chroma();
    let shrink = shrink as usize;
    let step = |halved: bool| match (halved, shrink) {
        (true, 1) => Step::Between,
        (true, _) => Step::Sum(shrink / 2),
        (false, _) => Step::Sum(shrink),
    };
    let across = step(matches!(picture.sps.chroma, 1 | 2));
    let down = step(picture.sps.chroma == 1);
    let matrix = Matrix::new(signal, &picture.sps, (shrink * shrink) as f32, across.weight() * down.weight());
    let left = part.left as usize / shrink;
    let columns = (part.width as usize).div_ceil(shrink);
    let top = part.top as usize / shrink;
    let mut lines = [Line::default(), Line::default(), Line::default()];
    for row in 0..(part.height as usize).div_ceil(shrink) {
        lines[0].read(&luma, Step::Sum(shrink), Step::Sum(shrink), top + row, left + columns);
        if let Some((blue, red)) = &chroma {
            lines[1].read(blue, across, down, top + row, left + columns);
            lines[2].read(red, across, down, top + row, left + columns);
        } else {
            lines[1].values.resize(left + columns, 0);
            lines[2].values.resize(left + columns, 0);
        }
        let [y, b, r] = lines.each_ref().map(|line| &line.values[left..left + columns]);
        let channels = target.channels;
        let pixels = target.row(part.to.0, part.to.1 + row as u32, columns);
        match channels {
            3 => matrix.convert::<3>(y, b, r, pixels),
            _ => matrix.convert::<4>(y, b, r, pixels),
        }
    }
}

/// Paints transparency, of which the luma of an auxiliary picture tells. Not shrunk.
pub fn alpha(picture: &Picture, part: Part, target: &mut Target<'_>) {
    let Some(luma) = picture.luma() else { return };
    let (left, columns) = (part.left as usize, part.width as usize);
    let most = (1_i32 << picture.sps.bits) - 1;
    let mut line = Line::default();
    for row in 0..part.height {
        line.read(&luma, Step::Sum(1), Step::Sum(1), (part.top + row) as usize, left + columns);
        let pixels = target.row(part.to.0, part.to.1 + row, columns);
        for (pixel, value) in pixels.as_chunks_mut::<4>().0.iter_mut().zip(&line.values[left..]) {
            pixel[3] = ((value.clamp(&0, &most) * 255 + most / 2) / most) as u8;
        }
    }
}

impl Target<'_> {
    fn row(&mut self, x: u32, y: u32, columns: usize) -> &mut [u8] {
        let start = (y as usize * self.width as usize + x as usize) * self.channels;
        &mut self.pixels[start..start + columns * self.channels]
    }
}

/// How samples of a plane become one value, along one axis.
#[derive(Clone, Copy)]
enum Step {
    /// So many are added up.
    Sum(usize),
    /// There are half as many as values: three parts of the nearer, one of the next.
    Between,
}

impl Step {
    fn weight(self) -> f32 {
        match self {
            Self::Sum(count) => count as f32,
            Self::Between => 4.0,
        }
    }
}

/// A row of values, and what they are made of.
#[derive(Default)]
struct Line {
    gathered: Vec<i32>,
    values: Vec<i32>,
}

impl Line {
    /// Makes row `y` of values, `columns` of them. Beyond its edge a plane goes on as it ends.
    fn read(&mut self, plane: &Plane<'_>, across: Step, down: Step, y: usize, columns: usize) {
        self.gathered.clear();
        // One more at the front than there are samples, for the value left of the first.
        self.gathered.resize(plane.width + 1, 0);
        match down {
            Step::Sum(count) => (y * count..(y + 1) * count).for_each(|row| self.add(plane, row, 1)),
            Step::Between => {
                let next = if y.is_multiple_of(2) { (y / 2).saturating_sub(1) } else { y / 2 + 1 };
                self.add(plane, y / 2, 3);
                self.add(plane, next, 1);
            }
        }
        let last = self.gathered[plane.width];
        self.gathered[0] = self.gathered[1];
        self.values.clear();
        match across {
            Step::Sum(count) => {
                self.gathered.resize((columns * count).max(plane.width) + 1, last);
                let samples = &self.gathered[1..];
                match count {
                    1 => self.values.extend(&samples[..columns]),
                    2 => self.values.extend(samples.as_chunks::<2>().0[..columns].iter().map(|[a, b]| a + b)),
                    4 => {
                        self.values
                            .extend(samples.as_chunks::<4>().0[..columns].iter().map(|[a, b, c, d]| a + b + c + d));
                    }
                    _ => self.values.extend(samples.chunks(count).take(columns).map(|s| s.iter().sum::<i32>())),
                }
            }
            Step::Between => {
                self.gathered.resize(columns.div_ceil(2).max(plane.width) + 2, last);
                self.values.extend(
                    self.gathered
                        .array_windows::<3>()
                        .flat_map(|&[before, here, after]| [3 * here + before, 3 * here + after]),
                );
                self.values.resize(columns.max(self.values.len()), 4 * last);
            }
        }
    }

    fn add(&mut self, plane: &Plane<'_>, row: usize, weight: i32) {
        let (row, sums) = (plane.row(row), &mut self.gathered[1..]);
        if plane.is_wide() {
            for (sum, sample) in sums.iter_mut().zip(row.as_chunks::<2>().0) {
                *sum += i32::from(u16::from_ne_bytes(*sample)) * weight;
            }
        } else {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(sample) * weight;
            }
        }
    }
}

/// What turns sums of samples into RGB of 0 to 255: a row for each of red, green and blue, with
/// factors for luma, blue and red difference, and what is added.
struct Matrix([[f32; 4]; 3]);

impl Matrix {
    fn new(signal: Signal, sps: &Sps, luma_weight: f32, chroma_weight: f32) -> Self {
        const IDENTITY: u8 = 0;
        const YCGCO: u8 = 8;

        let unit = f32::from(1_u16 << (sps.bits - 8));
        let top = unit * 256.0 - 1.0;
        let (black, luma_range, chroma_range) =
            if signal.full_range { (0.0, top, top) } else { (16.0 * unit, 219.0 * unit, 224.0 * unit) };
        let has_chroma = sps.chroma != 0;
        // Rows of factors for values of 0 to 1, and -0.5 to 0.5.
        let rows = match signal.matrix {
            _ if !has_chroma => [[1.0, 0.0, 0.0]; 3],
            IDENTITY if sps.chroma == 3 => [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
            YCGCO => [[1.0, -1.0, 1.0], [1.0, 1.0, 0.0], [1.0, -1.0, -1.0]],
            _ => {
                let (red, blue) = weights(signal);
                let green = 1.0 - red - blue;
                let (from_red, from_blue) = (2.0 * (1.0 - red), 2.0 * (1.0 - blue));
                [[1.0, 0.0, from_red], [1.0, -from_blue * blue / green, -from_red * red / green], [1.0, from_blue, 0.0]]
            }
        };
        let is_identity = signal.matrix == IDENTITY && sps.chroma == 3;
        let (middle, chroma_range) = if is_identity { (black, luma_range) } else { (128.0 * unit, chroma_range) };
        Self(rows.map(|[luma, blue, red]| {
            let (luma, blue, red) =
                (255.0 * luma / luma_range, 255.0 * blue / chroma_range, 255.0 * red / chroma_range);
            let rounded = 0.5 - luma * black - (blue + red) * middle;
            [luma / luma_weight, blue / chroma_weight, red / chroma_weight, rounded]
        }))
    }

    fn convert<const CHANNELS: usize>(&self, y: &[i32], b: &[i32], r: &[i32], pixels: &mut [u8]) {
        let values = y.iter().zip(b).zip(r);
        for (pixel, ((&y, &b), &r)) in pixels.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(values) {
            let (y, b, r) = (y as f32, b as f32, r as f32);
            for (to, row) in pixel.iter_mut().zip(&self.0) {
                *to = (y * row[0] + b * row[1] + r * row[2] + row[3]) as u8;
            }
        }
    }
}

/// How much red and blue weigh in the luma.
fn weights(signal: Signal) -> (f32, f32) {
    const BY_PRIMARIES: [u8; 2] = [12, 13];
    match (signal.matrix, signal.primaries) {
        (1, _) => (0.2126, 0.0722),
        (4, _) => (0.3, 0.11),
        (7, _) => (0.212, 0.087),
        (9 | 10, _) => (0.2627, 0.0593),
        (by, 1) if BY_PRIMARIES.contains(&by) => (0.2126, 0.0722),
        (by, 9) if BY_PRIMARIES.contains(&by) => (0.2627, 0.0593),
        // Display P3.
        (by, 11 | 12) if BY_PRIMARIES.contains(&by) => (0.229, 0.0793),
        _ => (0.299, 0.114),
    }
}
