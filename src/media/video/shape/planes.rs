//! What is done to the planes of a frame.
//!
//! In: the planes of a decoded frame, of a kind that was announced. Out: planes of brightness
//! and colour, eight bits, colour at half the lines and columns, as the work asks for.
//!
//! Invariant: every sample of the result is written, and no memory is taken once the first
//! frame has been through, apart from the resizer's own tables.
//!
//! Scaling comes first: whatever follows then has fewer samples to touch. Samples of ten bits
//! lose two before they are scaled, unless their curve is one that needs them (HDR).
#![expect(clippy::indexing_slicing, reason = "arithmetic on samples; every index is derived from the planes' sizes")]

use fast_image_resize::PixelTrait;
use fast_image_resize::images::TypedCroppedImage;
use fast_image_resize::images::TypedCroppedImageMut;
use fast_image_resize::images::TypedImage;
use fast_image_resize::images::TypedImageRef;
use fast_image_resize::pixels::U8;
use fast_image_resize::pixels::U8x2;
use fast_image_resize::pixels::U16;

use super::Work;
use super::color;
use super::color::Colors;
use super::color::Remix;
use super::geometry;
use super::geometry::Area;
use super::mark::Stamp;
use super::scaling::Scaler;
use super::scaling::Stretch;
use super::tone::Tone;

/// How a frame's samples are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Columns and rows of brightness for one of colour; `None` without colours.
    pub chroma: Option<(u32, u32)>,
    /// Both colours share a plane.
    pub interleaved: bool,
    pub depth: Depth,
}

/// How a sample is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// In a byte.
    Eight,
    /// In two, the smaller first; shifted to the left by so many bits.
    Ten(u32),
}

/// What frames are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Input {
    pub width: u32,
    pub height: u32,
    /// Of a pixel: width, height.
    pub pixel_aspect: (u32, u32),
    pub format: Format,
    pub colors: Colors,
    /// Where among the brightness samples that it colours a colour sample lies, across and
    /// down: 0.25 with the first of two, 0.5 between them.
    pub site: (f64, f64),
}

/// A plane to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    /// Bytes from row to row.
    pub stride: usize,
}

/// A plane to write.
#[derive(Debug)]
pub struct PlaneMut<'a> {
    pub data: &'a mut [u8],
    /// Bytes from row to row.
    pub stride: usize,
}

/// With the first of two across, between two down: MPEG-2's way, and H.264's.
pub const SITE: (f64, f64) = (0.25, 0.5);

/// Does one work to frames of one kind.
#[derive(Debug)]
pub struct Shaper {
    input: Input,
    work: Work,
    area: Area,
    scaling: Scaling,
    /// Planes before they are turned.
    stored: [Vec<u8>; 3],
    remix: Option<Remix>,
    stamp: Option<Stamp>,
}

#[derive(Debug)]
enum Scaling {
    Shallow(Box<Shallow>),
    Deep(Box<Deep>),
}

/// In eight bits.
#[derive(Debug)]
struct Shallow {
    luma: Scaler<U8>,
    chroma: Scaler<U8>,
    pairs: Scaler<U8x2>,
    paired: Vec<U8x2>,
    /// A plane of ten bits in eight.
    narrowed: Vec<u8>,
}

/// In sixteen, with a conversion of colours at the end.
#[derive(Debug)]
struct Deep {
    luma: Scaler<U16>,
    chroma: Scaler<U16>,
    /// A copy of a plane that cannot be read in place.
    spare: Vec<U16>,
    scaled: [Vec<U16>; 3],
    tone: Tone,
}

impl Shaper {
    /// `None` if the frames or the result are without extent.
    pub fn new(input: Input, work: Work) -> Option<Self> {
        if input.width == 0 || input.height == 0 || work.width < 2 || work.height < 2 {
            return None;
        }
        let work = Work { width: work.width / 2 * 2, height: work.height / 2 * 2, ..work };
        let (area, part) = geometry::lay(input.width, input.height, input.pixel_aspect, &work);
        let (width, height) = work.turn.exchanged((area.width, area.height));

        let luma = (
            Stretch::new(input.width, part.left, part.width, width),
            Stretch::new(input.height, part.top, part.height, height),
        );
        let (columns, rows) = input.format.chroma.unwrap_or((2, 2));
        // The result's colour samples are sited as they should be once it is upright.
        let site = work.turn.exchanged(SITE);
        let reversed = work.turn.reversed();
        let site = (if reversed.0 { 1.0 - site.0 } else { site.0 }, if reversed.1 { 1.0 - site.1 } else { site.1 });
        let chroma_width = input.width.div_ceil(columns);
        let chroma = (
            chroma_stretch(chroma_width, columns, (part.left, part.width), width, (input.site.0, site.0)),
            chroma_stretch(input.height.div_ceil(rows), rows, (part.top, part.height), height, (input.site.1, site.1)),
        );

        let colors = input.colors;
        let scaling = if colors.needs_tone() {
            Scaling::Deep(Box::new(Deep {
                luma: Scaler::new(input.width, luma.0, luma.1),
                chroma: Scaler::new(chroma_width, chroma.0, chroma.1),
                spare: Vec::new(),
                scaled: Default::default(),
                tone: Tone::new(&colors),
            }))
        } else {
            Scaling::Shallow(Box::new(Shallow {
                luma: Scaler::new(input.width, luma.0, luma.1),
                chroma: Scaler::new(chroma_width, chroma.0, chroma.1),
                pairs: Scaler::new(chroma_width, chroma.0, chroma.1),
                paired: Vec::new(),
                narrowed: Vec::new(),
            }))
        };
        let remix = if colors.needs_tone() { None } else { Remix::new(&colors, input.format.depth != Depth::Eight) };
        let stamp = work.mark.as_ref().and_then(|mark| Stamp::new(mark, work.width, work.height));
        Some(Self { input, work, area, scaling, stored: Default::default(), remix, stamp })
    }

    /// Whether frames are right as they are.
    pub fn changes_nothing(&self) -> bool {
        let (input, work) = (&self.input, &self.work);
        let format = Format { chroma: Some((2, 2)), interleaved: false, depth: Depth::Eight };
        input.format == format
            && input.colors.is_target()
            && (input.site.0 - SITE.0).abs() < 0.1
            && (input.site.1 - SITE.1).abs() < 0.1
            && input.pixel_aspect.0 == input.pixel_aspect.1
            && (input.width, input.height) == (work.width, work.height)
            && self.area == Area { left: 0, top: 0, width: work.width, height: work.height }
            && work.turn == super::Turn::NONE
            && self.stamp.is_none()
    }

    /// Does the work. `source` has brightness first, then the colours, or the plane that both
    /// share. `None` if a plane is smaller than announced.
    pub fn run(&mut self, source: &[Plane; 3], target: &mut [PlaneMut; 3]) -> Option<()> {
        let turned = self.work.turn != super::Turn::NONE;
        let Area { left, top, width, height } = self.area;
        let (wide, high) = self.work.turn.exchanged((width, height));
        let half = |(a, b): (u32, u32)| (a / 2, b / 2);
        let sizes = [(wide, high), half((wide, high)), half((wide, high))];
        let corners = [(left, top), half((left, top)), half((left, top))];
        let frame = (self.work.width, self.work.height);
        let frames = [frame, half(frame), half(frame)];

        if turned {
            let mut stored = self.stored.each_mut().map(|plane| plane);
            for (plane, (wide, high)) in stored.iter_mut().zip(sizes) {
                plane.resize(wide as usize * high as usize, 0);
            }
            let mut spots = Vec::with_capacity(3);
            for (plane, (wide, high)) in stored.into_iter().zip(sizes) {
                spots.push(Spot { data: plane, stride: wide as usize, corner: (0, 0), size: (wide, high) });
            }
            let mut spots: [Spot; 3] = spots.try_into().ok()?;
            self.scaling.run(&self.input, source, &mut spots)?;
            for (((plane, stored), size), corner) in target.iter_mut().zip(&self.stored).zip(sizes).zip(corners) {
                let start = corner.1 as usize * plane.stride + corner.0 as usize;
                let size = (size.0 as usize, size.1 as usize);
                self.work.turn.apply(stored, size, plane.data.get_mut(start..)?, plane.stride);
            }
        } else {
            let mut spots = Vec::with_capacity(3);
            for ((plane, size), corner) in target.iter_mut().zip(sizes).zip(corners) {
                spots.push(Spot { data: &mut *plane.data, stride: plane.stride, corner, size });
            }
            let mut spots: [Spot; 3] = spots.try_into().ok()?;
            self.scaling.run(&self.input, source, &mut spots)?;
        }

        if let Some(remix) = &self.remix {
            remix.apply(target, self.area);
        }
        let padding = color::of_rgb(self.work.padding);
        let areas = [(width, height), half((width, height)), half((width, height))];
        for ((((plane, size), corner), frame), level) in
            target.iter_mut().zip(areas).zip(corners).zip(frames).zip(padding)
        {
            bars(plane, frame, corner, size, level);
        }
        if let Some(stamp) = &self.stamp {
            stamp.apply(target);
        }
        Some(())
    }
}

/// Where a scaled plane goes.
struct Spot<'a> {
    data: &'a mut [u8],
    stride: usize,
    corner: (u32, u32),
    size: (u32, u32),
}

impl Spot<'_> {
    fn image(&mut self) -> Option<TypedCroppedImageMut<'_, TypedImage<'_, U8>>> {
        let rows = self.data.len() / self.stride.max(1);
        let image = TypedImage::from_buffer(self.stride as u32, rows as u32, self.data).ok()?;
        TypedCroppedImageMut::new(image, self.corner.0, self.corner.1, self.size.0, self.size.1).ok()
    }

    /// Its rows, without what is around them.
    fn rows(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (left, wide) = (self.corner.0 as usize, self.size.0 as usize);
        let rows = self.data.chunks_mut(self.stride).skip(self.corner.1 as usize).take(self.size.1 as usize);
        rows.map(move |row| &mut row[left..left + wide])
    }
}

impl Scaling {
    fn run(&mut self, input: &Input, source: &[Plane; 3], targets: &mut [Spot; 3]) -> Option<()> {
        match self {
            Self::Shallow(shallow) => shallow.run(input, source, targets),
            Self::Deep(deep) => deep.run(input, source, targets),
        }
    }
}

impl Shallow {
    fn run(&mut self, input: &Input, source: &[Plane; 3], [luma, blue, red]: &mut [Spot; 3]) -> Option<()> {
        let (width, height) = (input.width, input.height);
        let plane = eight_bits(input, source[0], (width, height), &mut self.narrowed);
        self.luma.run(&view::<U8>(plane, (width, height))?, &mut luma.image()?)?;
        let Some((columns, rows)) = input.format.chroma else {
            for row in blue.rows().chain(red.rows()) {
                row.fill(128);
            }
            return Some(());
        };
        let (width, height) = (width.div_ceil(columns), height.div_ceil(rows));
        if !input.format.interleaved {
            for (plane, target) in [(source[1], blue), (source[2], red)] {
                let plane = eight_bits(input, plane, (width, height), &mut self.narrowed);
                self.chroma.run(&view::<U8>(plane, (width, height))?, &mut target.image()?)?;
            }
            return Some(());
        }
        let plane = eight_bits(input, source[1], (width * 2, height), &mut self.narrowed);
        let (wide, high) = blue.size;
        self.paired.resize(wide as usize * high as usize, U8x2::default());
        let mut paired = TypedImage::from_pixels_slice(wide, high, &mut self.paired).ok()?;
        self.pairs.run(&view::<U8x2>(plane, (width, height))?, &mut paired)?;
        let rows = self.paired.chunks_exact(wide as usize).zip(blue.rows().zip(red.rows()));
        for (pairs, (blue, red)) in rows {
            for ((pair, blue), red) in pairs.iter().zip(blue).zip(red) {
                [*blue, *red] = pair.0;
            }
        }
        Some(())
    }
}

impl Deep {
    fn run(&mut self, input: &Input, source: &[Plane; 3], targets: &mut [Spot; 3]) -> Option<()> {
        let depth = input.format.depth;
        let [luma, blue, red] = &mut self.scaled;
        let (wide, high) = targets[0].size;
        let plane = words(source[0], (input.width, input.height), depth, None, &mut self.spare)?;
        scale_words(&mut self.luma, &plane, luma, (wide, high))?;
        let (half_wide, half_high) = (wide / 2, high / 2);
        if let Some((columns, rows)) = input.format.chroma {
            let size = (input.width.div_ceil(columns), input.height.div_ceil(rows));
            for (lane, target) in [blue, red].into_iter().enumerate() {
                let (plane, lane) =
                    if input.format.interleaved { (source[1], Some(lane)) } else { (source[1 + lane], None) };
                let plane = words(plane, size, depth, lane, &mut self.spare)?;
                scale_words(&mut self.chroma, &plane, target, (half_wide, half_high))?;
            }
        } else {
            for plane in [blue, red] {
                plane.clear();
                plane.resize(half_wide as usize * half_high as usize, U16::new(512 << depth.shift()));
            }
        }

        let [luma, blue, red] = targets;
        let rows = self.scaled[0].chunks_exact(wide as usize * 2);
        let colors =
            self.scaled[1].chunks_exact(half_wide as usize).zip(self.scaled[2].chunks_exact(half_wide as usize));
        let mut luma_rows = luma.rows();
        for ((luma, (blue, red)), (out_blue, out_red)) in rows.zip(colors).zip(blue.rows().zip(red.rows())) {
            let (upper, lower) = luma.split_at(wide as usize);
            let (Some(out_upper), Some(out_lower)) = (luma_rows.next(), luma_rows.next()) else { break };
            self.tone.apply([upper, lower, blue, red], [out_upper, out_lower, out_blue, out_red], depth.shift());
        }
        Some(())
    }
}

fn scale_words(
    scaler: &mut Scaler<U16>,
    source: &TypedCroppedImage<'_, TypedImageRef<'_, U16>>,
    target: &mut Vec<U16>,
    (wide, high): (u32, u32),
) -> Option<()> {
    target.resize(wide as usize * high as usize, U16::default());
    scaler.run(source, &mut TypedImage::from_pixels_slice(wide, high, target).ok()?)
}

/// A plane of two bytes a sample as it lies, or, if it cannot be read so, a copy of it. `lane`
/// says which of two interleaved colours; bytes become samples of ten bits.
fn words<'a>(
    plane: Plane<'a>,
    (width, height): (u32, u32),
    depth: Depth,
    lane: Option<usize>,
    spare: &'a mut Vec<U16>,
) -> Option<TypedCroppedImage<'a, TypedImageRef<'a, U16>>> {
    if depth != Depth::Eight
        && lane.is_none()
        && let Some(view) = view(plane, (width, height))
    {
        return Some(view);
    }
    let (first, step) = lane.map_or((0, 1), |lane| (lane, 2));
    spare.clear();
    for row in plane.data.chunks(plane.stride).take(height as usize) {
        if depth == Depth::Eight {
            let samples = row.iter().skip(first).step_by(step).take(width as usize);
            spare.extend(samples.map(|&sample| U16::new(u16::from(sample) << 2)));
        } else {
            let samples = row.as_chunks::<2>().0.iter().skip(first).step_by(step).take(width as usize);
            spare.extend(samples.map(|&sample| U16::new(u16::from_le_bytes(sample))));
        }
    }
    TypedCroppedImage::new(TypedImageRef::new(width, height, spare).ok()?, 0, 0, width, height).ok()
}

/// A plane to be read in place. `None` if it is too small or does not lie as its samples must.
fn view<P: PixelTrait>(
    plane: Plane<'_>,
    (width, height): (u32, u32),
) -> Option<TypedCroppedImage<'_, TypedImageRef<'_, P>>> {
    if plane.stride == 0 || !plane.stride.is_multiple_of(P::size()) {
        return None;
    }
    let rows = plane.data.len() / plane.stride;
    let image = TypedImageRef::from_buffer((plane.stride / P::size()) as u32, rows as u32, plane.data).ok()?;
    TypedCroppedImage::new(image, 0, 0, width, height).ok()
}

/// A plane in eight bits, so many samples in a row. Two colours in one plane lie pair by pair.
fn eight_bits<'a>(
    input: &Input,
    plane: Plane<'a>,
    (width, height): (u32, u32),
    narrowed: &'a mut Vec<u8>,
) -> Plane<'a> {
    let Depth::Ten(shift) = input.format.depth else {
        if plane.stride.is_multiple_of(2) || !input.format.interleaved {
            return plane;
        }
        narrowed.clear();
        for row in plane.data.chunks(plane.stride).take(height as usize) {
            narrowed.extend(row.iter().take(width as usize));
        }
        return Plane { data: narrowed, stride: width as usize };
    };
    let width = width as usize;
    narrowed.resize(width * height as usize, 0);
    for (row, narrow) in plane.data.chunks(plane.stride).zip(narrowed.chunks_exact_mut(width)) {
        for (sample, narrow) in row.as_chunks::<2>().0.iter().zip(narrow) {
            *narrow = (((u16::from_le_bytes(*sample) >> shift) + 2) >> 2).min(255) as u8;
        }
    }
    Plane { data: narrowed, stride: width }
}

/// The stretch of a plane of colours that colours a stretch of brightness.
///
/// `per` samples of brightness share one of colour, which lies at `site.0` among them; in the
/// result two do, and it lies at `site.1`.
fn chroma_stretch(from: u32, per: u32, (start, length): (f64, f64), luma_to: u32, site: (f64, f64)) -> Stretch {
    let (per, to) = (f64::from(per), luma_to / 2);
    let scale = length / per / f64::from(to.max(1));
    let start = start / per + scale * (site.1 - 0.5) + 0.5 - site.0;
    Stretch::new(from, start, length / per, to.max(1))
}

/// Fills what is around a picture.
fn bars(plane: &mut PlaneMut, frame: (u32, u32), corner: (u32, u32), size: (u32, u32), level: u8) {
    if frame == size {
        return;
    }
    let (left, right) = (corner.0 as usize, (corner.0 + size.0) as usize);
    for (y, row) in (0..frame.1).zip(plane.data.chunks_mut(plane.stride)) {
        let row = &mut row[..frame.0 as usize];
        if y < corner.1 || y >= corner.1 + size.1 {
            row.fill(level);
        } else {
            row[..left].fill(level);
            row[right..].fill(level);
        }
    }
}

impl Depth {
    fn shift(self) -> u32 {
        match self {
            Self::Eight => 0,
            Self::Ten(shift) => shift,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Turn;
    use super::*;
    use crate::media::video::Fit;

    const I420: Format = Format { chroma: Some((2, 2)), interleaved: false, depth: Depth::Eight };

    fn input(width: u32, height: u32) -> Input {
        Input { width, height, pixel_aspect: (1, 1), format: I420, colors: Colors::TARGET, site: SITE }
    }

    fn work(width: u32, height: u32) -> Work {
        Work { width, height, fit: Fit::Scale, ..Work::default() }
    }

    /// Planes of the result, whose rows are a few bytes apart.
    fn run(input: Input, work: Work, source: &[Plane; 3]) -> [Vec<Vec<u8>>; 3] {
        let size = (work.width as usize, work.height as usize);
        let sizes = [size, (size.0 / 2, size.1 / 2), (size.0 / 2, size.1 / 2)];
        let mut planes = sizes.map(|(wide, high)| vec![7; (wide + 5) * high]);
        let [luma, blue, red] = &mut planes;
        let mut targets = [
            PlaneMut { data: luma, stride: sizes[0].0 + 5 },
            PlaneMut { data: blue, stride: sizes[1].0 + 5 },
            PlaneMut { data: red, stride: sizes[2].0 + 5 },
        ];
        let mut shaper = Shaper::new(input, work).unwrap();
        shaper.run(source, &mut targets).unwrap();
        let mut found = [const { Vec::new() }; 3];
        for ((found, plane), (wide, _)) in found.iter_mut().zip(&planes).zip(sizes) {
            for row in plane.chunks(wide + 5) {
                assert!(row[wide..].iter().all(|&sample| sample == 7), "what is beside a row stays");
                found.push(row[..wide].to_vec());
            }
        }
        found
    }

    /// A plane with rows further apart than they are long.
    fn plane(width: usize, height: usize, of: impl Fn(usize, usize) -> f64) -> (Vec<u8>, usize) {
        let stride = width + 3;
        let mut data = vec![255; stride * height];
        for (y, row) in data.chunks_mut(stride).enumerate() {
            for (x, sample) in row[..width].iter_mut().enumerate() {
                *sample = of(x, y).round() as u8;
            }
        }
        (data, stride)
    }

    /// Brightness and colours that rise from left to right, by the true place of each sample.
    fn slopes(input: &Input, to: f64) -> [(Vec<u8>, usize); 3] {
        let (width, height) = (input.width as usize, input.height as usize);
        let (columns, rows) = input.format.chroma.unwrap();
        let (wide, high) = (width.div_ceil(columns as usize), height.div_ceil(rows as usize));
        let (columns, site) = (f64::from(columns), input.site.0);
        let rise = move |place: f64| 20.0 + 200.0 * place / to;
        let colored = move |x: usize, _| rise((x as f64 + site) * columns);
        [plane(width, height, move |x, _| rise(x as f64 + 0.5)), plane(wide, high, colored), plane(wide, high, colored)]
    }

    fn planes(of: &[(Vec<u8>, usize); 3]) -> [Plane<'_>; 3] {
        [0, 1, 2].map(|i| Plane { data: &of[i].0, stride: of[i].1 })
    }

    #[test]
    fn colors_stay_where_they_are() {
        for (name, format, site) in [
            ("4:2:0, beside", I420, (0.25, 0.5)),
            ("4:2:0, between", I420, (0.5, 0.5)),
            ("4:2:0, corner", I420, (0.25, 0.25)),
            ("4:2:2", Format { chroma: Some((2, 1)), ..I420 }, (0.25, 0.5)),
            ("4:4:4", Format { chroma: Some((1, 1)), ..I420 }, (0.5, 0.5)),
        ] {
            for (width, wide) in [(960, 320), (961, 320), (320, 480), (320, 320)] {
                let input = Input { format, site, ..input(width, 64) };
                let source = slopes(&input, f64::from(width));
                let found = run(input, work(wide, 64), &planes(&source));
                let expected = |place: f64| 20.0 + 200.0 * place / f64::from(wide);
                let middle =
                    |row: &[u8]| row.iter().copied().enumerate().skip(8).take(row.len() - 16).collect::<Vec<_>>();
                for (x, luma) in middle(&found[0][20]) {
                    let luma = f64::from(luma);
                    assert!((luma - expected(x as f64 + 0.5)).abs() < 1.1, "{name} {width} {wide}: {x} {luma}");
                }
                for (x, blue) in middle(&found[1][20]) {
                    let blue = f64::from(blue);
                    // The slope is so steep that a shift of a third of a sample would show.
                    let wanted = expected((x as f64 + 0.25) * 2.0);
                    assert!((blue - wanted).abs() < 0.8, "{name} {width} {wide}: {x} {blue} {wanted}");
                }
            }
        }
    }

    #[test]
    fn every_turn_keeps_colors_beside_their_brightness() {
        for turn in [Turn::NONE, Turn::RIGHT, Turn::HALF, Turn::LEFT, Turn::MIRROR, Turn::FLIP, Turn::DIAGONAL] {
            // Rises to the right in the upright picture of 128 columns.
            let upright = turn.exchanged((128, 96));
            let input = input(upright.0, upright.1);
            let (columns, rows) = turn.reversed();
            let rise = |place: f64| 20.0 + 200.0 * place / 128.0;
            let place = |x: f64, y: f64| {
                let x = if columns { f64::from(upright.0) - x } else { x };
                let y = if rows { f64::from(upright.1) - y } else { y };
                if turn.transposes() { y } else { x }
            };
            let (width, height) = (upright.0 as usize, upright.1 as usize);
            let luma = plane(width, height, |x, y| rise(place(x as f64 + 0.5, y as f64 + 0.5)));
            let color = |x: usize, y: usize| rise(place((x as f64 + SITE.0) * 2.0, (y as f64 + SITE.1) * 2.0));
            let source = [luma, plane(width / 2, height / 2, color), plane(width / 2, height / 2, color)];
            let found = run(input, Work { turn, ..work(128, 96) }, &planes(&source));
            for (x, luma) in found[0][50].iter().enumerate().skip(6).take(116) {
                assert!((f64::from(*luma) - rise(x as f64 + 0.5)).abs() < 1.1, "{turn:?} {x}");
            }
            for x in 6..58 {
                let (found, wanted) = (f64::from(found[2][20][x]), rise((x as f64 + SITE.0) * 2.0));
                assert!((found - wanted).abs() < 1.1, "{turn:?} {x}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn bars_are_what_was_asked_for() {
        let input = input(64, 64);
        let source = [plane(64, 64, |_, _| 90.0), plane(32, 32, |_, _| 100.0), plane(32, 32, |_, _| 150.0)];
        let work = Work { fit: Fit::Pad, upscale: true, padding: [255, 0, 0], ..work(128, 64) };
        let found = run(input, work, &planes(&source));
        // Red in BT.709.
        for (row, expected) in
            [(&found[0][5], [63, 90, 63]), (&found[1][5], [102, 100, 102]), (&found[2][5], [240, 150, 240])]
        {
            let wide = row.len();
            let at = [wide / 8, wide / 2, wide * 7 / 8].map(|x| row[x]);
            assert_eq!(at, expected);
            assert_eq!([row[wide / 4 - 1], row[wide / 4]], [expected[0], expected[1]], "a sharp edge");
        }
    }

    #[test]
    fn same_frames_are_the_same() {
        let input = input(66, 50);
        let noise = |x: usize, y: usize| ((x * 7919 + y * 104_729) % 251) as f64;
        let source = [plane(66, 50, noise), plane(33, 25, noise), plane(33, 25, noise)];
        let found = run(input, work(66, 50), &planes(&source));
        for (found, (data, stride)) in found.iter().zip(&source) {
            for (row, source) in found.iter().zip(data.chunks(*stride)) {
                assert_eq!(row[..], source[..row.len()]);
            }
        }
        assert!(Shaper::new(input, work(66, 50)).unwrap().changes_nothing());
        assert!(!Shaper::new(input, work(64, 50)).unwrap().changes_nothing());
    }

    #[test]
    fn frames_without_colors() {
        let colors = Colors { full_range: true, ..Colors::TARGET };
        let input = Input { format: Format { chroma: None, ..I420 }, colors, ..input(64, 64) };
        for (level, expected) in [(0.0, 16), (128.0, 126), (255.0, 235)] {
            let source = [plane(64, 64, |_, _| level), plane(0, 0, |_, _| 0.0), plane(0, 0, |_, _| 0.0)];
            let found = run(input, work(32, 32), &planes(&source));
            assert_eq!([found[0][9][9], found[1][9][9], found[2][9][9]], [expected, 128, 128]);
        }
    }

    #[test]
    fn frames_smaller_than_announced_are_refused() {
        let source = [plane(64, 32, |_, _| 0.0), plane(32, 32, |_, _| 0.0), plane(32, 32, |_, _| 0.0)];
        let mut target = vec![0; 64 * 64];
        let (luma, rest) = target.split_at_mut(32 * 32);
        let (blue, red) = rest.split_at_mut(16 * 16);
        let mut targets = [(luma, 32), (blue, 16), (red, 16)].map(|(data, stride)| PlaneMut { data, stride });
        assert!(Shaper::new(input(64, 64), work(32, 32)).unwrap().run(&planes(&source), &mut targets).is_none());
    }
}
