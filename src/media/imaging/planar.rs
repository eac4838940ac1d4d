//! Moves on a picture in planes, so that one on its way from JPEG to JPEG is never unpacked.
//!
//! In: planes as a decoder gives them, with chroma of any size. Out: the same picture shrunk,
//! cut, turned; planes of the size that 4:2:0 output takes; or RGB.
//!
//! Invariant: every move keeps chroma over the luma it belongs to, to a fraction of a sample.
//! The chroma grid is described along each axis by where luma begins in it and by its pitch,
//! so an odd cut or a turn of an odd picture costs nothing until the next resize evens it out.
//!
//! Half as many samples are resized as in RGB, and two conversions of colour are saved.
#![expect(clippy::indexing_slicing, reason = "pixel arithmetic; every index is derived from a plane's own size")]

use fast_image_resize::FilterType;
use fast_image_resize::PixelType;
use fast_image_resize::ResizeAlg;
use fast_image_resize::ResizeOptions;
use fast_image_resize::Resizer;
use fast_image_resize::images::Image;
use fast_image_resize::images::ImageRef;

use super::error::ImageError;
use super::planes::Plane;
use super::planes::Planes;

/// Planes, and how their grids lie over each other.
#[derive(Clone)]
pub struct Planar {
    planes: Planes,
    across: Grid,
    down: Grid,
}

/// How chroma lies along one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grid {
    /// Luma samples per chroma sample.
    pitch: f64,
    /// Where the first luma sample begins, in chroma samples.
    origin: f64,
}

/// What part of a plane's axis to take, in samples; it may reach over the edge.
#[derive(Clone, Copy)]
struct Span {
    start: f64,
    end: f64,
}

impl Planar {
    /// Of planes whose grids begin together.
    pub fn new(planes: Planes) -> Self {
        let grid = |luma: u32, chroma: u32| {
            // A picture's last chroma sample may reach beyond its luma.
            let pitch = [1, 2, 4].into_iter().find(|&n| luma.div_ceil(n) == chroma).map(f64::from);
            Grid { pitch: pitch.unwrap_or(f64::from(luma) / f64::from(chroma.max(1))), origin: 0.0 }
        };
        let luma = (planes.luma.width, planes.luma.height);
        let chroma = planes.chroma.as_ref().map_or(luma, |[cb, _]| (cb.width, cb.height));
        Self { across: grid(luma.0, chroma.0), down: grid(luma.1, chroma.1), planes }
    }

    /// Width and height in luma samples.
    pub fn size(&self) -> (u32, u32) {
        (self.planes.luma.width, self.planes.luma.height)
    }

    pub fn is_grey(&self) -> bool {
        self.planes.chroma.is_none()
    }

    /// The planes, if they are grey or exactly 4:2:0.
    pub fn as_420(&self) -> Option<&Planes> {
        let even = Grid { pitch: 2.0, origin: 0.0 };
        let (width, height) = self.size();
        match &self.planes.chroma {
            // Over a single row or column of luma, a pitch of 1 is as good as one of 2.
            Some([cb, _]) => {
                let fits = |grid: Grid, luma: u32, chroma: u32| {
                    chroma == luma.div_ceil(2) && (grid == even || (luma == 1 && grid.origin == 0.0))
                };
                (fits(self.across, width, cb.width) && fits(self.down, height, cb.height)).then_some(&self.planes)
            }
            None => Some(&self.planes),
        }
    }

    /// Brings chroma to 4:2:0, leaving luma as it is.
    pub fn halve_chroma(&mut self) -> Result<(), ImageError> {
        if self.as_420().is_none() {
            let (width, height) = self.size();
            self.resize_chroma((width, height), FilterType::Lanczos3, (false, false))?;
        }
        Ok(())
    }

    /// Resizes, with as much chroma as luma.
    pub fn resize(&mut self, (width, height): (u32, u32), filter: FilterType) -> Result<(), ImageError> {
        let (wide, high) = self.size();
        if let Some(chroma) = &mut self.planes.chroma {
            let (across, down) = (self.across.span(0.0, wide), self.down.span(0.0, high));
            for plane in chroma {
                *plane = resampled(plane, across, down, (width, height), filter)?;
            }
            let whole = Grid { pitch: 1.0, origin: 0.0 };
            (self.across, self.down) = (whole, whole);
        }
        self.resize_luma((width, height), filter)
    }

    /// Resizes to 4:2:0. `reversed` says which axes the caller is about to mirror: on these the
    /// chroma grid is laid from the far end, so that it lies right afterwards.
    pub fn resize_to_420(
        &mut self,
        size: (u32, u32),
        filter: FilterType,
        reversed: (bool, bool),
    ) -> Result<(), ImageError> {
        self.resize_chroma(size, filter, reversed)?;
        self.resize_luma(size, filter)
    }

    /// Keeps only this part, which must lie inside.
    pub fn cut(&mut self, x: u32, y: u32, width: u32, height: u32) {
        self.planes.luma.cut(x, y, width, height);
        if let Some(chroma) = &mut self.planes.chroma {
            let (most_wide, most_high) = (chroma[0].width, chroma[0].height);
            let (left, kept_wide) = self.across.cut(x, width, most_wide);
            let (top, kept_high) = self.down.cut(y, height, most_high);
            for plane in chroma {
                plane.cut(left, top, kept_wide, kept_high);
            }
        }
    }

    /// Mirrors left to right, top to bottom, or both.
    pub fn mirror(&mut self, across: bool, down: bool) {
        let (width, height) = self.size();
        if let Some([cb, _]) = &self.planes.chroma {
            if across {
                self.across.mirror(width, cb.width);
            }
            if down {
                self.down.mirror(height, cb.height);
            }
        }
        self.each(|plane| {
            let stride = plane.width as usize;
            if across && down {
                plane.samples.reverse();
            } else if across {
                plane.samples.chunks_exact_mut(stride).for_each(<[u8]>::reverse);
            } else if down {
                let rows = plane.samples.chunks_exact(stride).rev();
                plane.samples = rows.flatten().copied().collect();
            }
        });
    }

    /// Swaps rows and columns.
    pub fn transpose(&mut self) {
        std::mem::swap(&mut self.across, &mut self.down);
        self.each(|plane| {
            const TILE: usize = 32;
            let (width, height) = (plane.width as usize, plane.height as usize);
            let mut turned = vec![0; plane.samples.len()];
            for top in (0..height).step_by(TILE) {
                for left in (0..width).step_by(TILE) {
                    for y in top..(top + TILE).min(height) {
                        for x in left..(left + TILE).min(width) {
                            turned[x * height + y] = plane.samples[y * width + x];
                        }
                    }
                }
            }
            plane.samples = turned;
            (plane.width, plane.height) = (plane.height, plane.width);
        });
    }

    /// Packed RGB.
    pub fn to_rgb(&self) -> Result<Vec<u8>, ImageError> {
        let luma = &self.planes.luma;
        let mut rgb = vec![0; luma.samples.len() * 3];
        let pixels = rgb.as_chunks_mut::<3>().0;
        let Some([cb, cr]) = &self.planes.chroma else {
            for (pixel, &y) in pixels.iter_mut().zip(&luma.samples) {
                *pixel = [y; 3];
            }
            return Ok(rgb);
        };
        // Straight lines between the samples' centres, as libjpeg draws them.
        let (across, down) = (self.across.span(0.0, luma.width), self.down.span(0.0, luma.height));
        let upsampled = |plane: &Plane| resampled(plane, across, down, self.size(), FilterType::Bilinear);
        let (cb, cr) = (upsampled(cb)?, upsampled(cr)?);
        for (((pixel, &y), &cb), &cr) in pixels.iter_mut().zip(&luma.samples).zip(&cb.samples).zip(&cr.samples) {
            *pixel = rgb_of(y, cb, cr);
        }
        Ok(rgb)
    }

    fn resize_luma(&mut self, size: (u32, u32), filter: FilterType) -> Result<(), ImageError> {
        let (wide, high) = self.size();
        let whole = |side: u32| Span { start: 0.0, end: f64::from(side) };
        self.planes.luma = resampled(&self.planes.luma, whole(wide), whole(high), size, filter)?;
        Ok(())
    }

    fn resize_chroma(
        &mut self,
        (width, height): (u32, u32),
        filter: FilterType,
        reversed: (bool, bool),
    ) -> Result<(), ImageError> {
        let (wide, high) = self.size();
        if let Some([cb, cr]) = &mut self.planes.chroma {
            let (spans_x, across) = self.across.halved(wide, width, reversed.0);
            let (spans_y, down) = self.down.halved(high, height, reversed.1);
            for plane in [cb, cr] {
                *plane = resampled(plane, spans_x, spans_y, (width.div_ceil(2), height.div_ceil(2)), filter)?;
            }
            (self.across, self.down) = (across, down);
        }
        Ok(())
    }

    fn each(&mut self, mut change: impl FnMut(&mut Plane)) {
        change(&mut self.planes.luma);
        self.planes.chroma.iter_mut().flatten().for_each(change);
    }
}

impl Grid {
    /// The chroma under this many luma samples.
    fn span(self, start: f64, luma: u32) -> Span {
        Span { start: self.origin + start / self.pitch, end: self.origin + (start + f64::from(luma)) / self.pitch }
    }

    /// The chroma under a 4:2:0 grid of `to` luma samples that stand for these `from`, and how
    /// that grid will lie. Where `to` is odd, the grid reaches one sample beyond the picture.
    fn halved(self, from: u32, to: u32, from_far_end: bool) -> (Span, Self) {
        let spare = f64::from(to % 2);
        let before = if from_far_end { spare } else { 0.0 };
        let zoom = f64::from(from) / f64::from(to);
        let start = -before * zoom;
        let length = (f64::from(to) + spare) * zoom;
        let span = Span { start: self.origin + start / self.pitch, end: self.origin + (start + length) / self.pitch };
        (span, Self { pitch: 2.0, origin: before / 2.0 })
    }

    /// Moves the origin to `at`; the first and the number of chroma samples still needed of `most`.
    fn cut(&mut self, at: u32, luma: u32, most: u32) -> (u32, u32) {
        let Span { start, end } = self.span(f64::from(at), luma);
        let first = (start.floor().max(0.0) as u32).min(most - 1);
        let last = (end.ceil() as u32).clamp(first + 1, most);
        self.origin = start - f64::from(first);
        (first, last - first)
    }

    fn mirror(&mut self, luma: u32, chroma: u32) {
        self.origin = f64::from(chroma) - self.span(0.0, luma).end;
    }
}

impl Plane {
    /// Keeps only this part.
    pub(super) fn cut(&mut self, x: u32, y: u32, width: u32, height: u32) {
        if (x, y, width, height) == (0, 0, self.width, self.height) {
            return;
        }
        let stride = self.width as usize;
        for row in 0..height as usize {
            let from = (row + y as usize) * stride + x as usize;
            self.samples.copy_within(from..from + width as usize, row * width as usize);
        }
        self.samples.truncate(width as usize * height as usize);
        self.samples.shrink_to_fit();
        (self.width, self.height) = (width, height);
    }

    /// With its reflection beyond the edges, this many samples at left, right, top and bottom.
    pub(super) fn padded(&self, left: usize, right: usize, top: usize, bottom: usize) -> Self {
        let reflected = |at: usize, before: usize, most: usize| match at.checked_sub(before) {
            None => (before - 1 - at).min(most - 1),
            Some(inside) if inside < most => inside,
            Some(beyond) => (2 * most - 1).saturating_sub(beyond),
        };
        let (width, height) = (self.width as usize, self.height as usize);
        let (wide, high) = (left + width + right, top + height + bottom);
        let mut samples = Vec::with_capacity(wide * high);
        for y in 0..high {
            let row = &self.samples[reflected(y, top, height) * width..][..width];
            samples.extend((0..left).map(|x| row[reflected(x, left, width)]));
            samples.extend_from_slice(row);
            samples.extend((left + width..wide).map(|x| row[reflected(x, left, width)]));
        }
        Self { width: wide as u32, height: high as u32, samples }
    }
}

/// This part of a plane, in another size. Beyond its edges a plane goes on as its reflection, so
/// that a sample that lies half outside shows only what is inside.
fn resampled(
    plane: &Plane,
    across: Span,
    down: Span,
    (width, height): (u32, u32),
    filter: FilterType,
) -> Result<Plane, ImageError> {
    let (left, right) = across.overhang(plane.width);
    let (top, bottom) = down.overhang(plane.height);
    let padded;
    let plane = if left + right + top + bottom > 0 {
        padded = plane.padded(left, right, top, bottom);
        &padded
    } else {
        plane
    };
    let part = |span: Span, before: usize, most: u32| {
        let start = (span.start + before as f64).clamp(0.0, f64::from(most));
        (start, (span.end - span.start).min(f64::from(most) - start))
    };
    let (x, part_width) = part(across, left, plane.width);
    let (y, part_height) = part(down, top, plane.height);
    let source = ImageRef::new(plane.width, plane.height, &plane.samples, PixelType::U8);
    let mut made = Image::new(width, height, PixelType::U8);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(x, y, part_width, part_height);
    Resizer::new()
        .resize(&source.map_err(ImageError::not_rendered)?, &mut made, &options)
        .map_err(ImageError::not_rendered)?;
    Ok(Plane { width, height, samples: made.into_vec() })
}

impl Span {
    /// How many whole samples to add before and after a plane of this length, so that it holds the span.
    fn overhang(self, length: u32) -> (usize, usize) {
        /// Less than this is the rounding of a division.
        const NOTHING: f64 = 1e-6;
        let beyond = |by: f64| if by > NOTHING { by.ceil() as usize } else { 0 };
        (beyond(-self.start), beyond(self.end - f64::from(length)))
    }
}

/// JFIF's conversion, in 16-bit fixed point.
fn rgb_of(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = ((i32::from(y) << 16) + HALF, i32::from(cb) - 128, i32::from(cr) - 128);
    [y + 91_881 * cr, y - 22_554 * cb - 46_802 * cr, y + 116_130 * cb].map(|n| (n >> 16).clamp(0, 255) as u8)
}
