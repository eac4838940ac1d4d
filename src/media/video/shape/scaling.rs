//! Resizes one plane, a row or a column of weights at a time.
//!
//! In: a plane, and for either direction which stretch of it becomes how many samples. Out:
//! the resized plane, written where the caller says.
//!
//! Invariant: a stretch may begin and end anywhere, also between samples and outside the
//! plane; nothing beyond the plane's edge is read.
//!
//! The two directions are two calls of `fast_image_resize`, rows first, as it would do itself.
//! That crate wants its crop box inside the plane, which colour samples that lie beside the
//! brightness samples do not oblige; what sticks out is given to the filter as a shift.

use std::cell::Cell;

use fast_image_resize::Filter;
use fast_image_resize::FilterType;
use fast_image_resize::ImageView;
use fast_image_resize::ImageViewMut;
use fast_image_resize::PixelTrait;
use fast_image_resize::ResizeAlg;
use fast_image_resize::ResizeOptions;
use fast_image_resize::Resizer;
use fast_image_resize::images::TypedCroppedImage;
use fast_image_resize::images::TypedImage;

/// How far the filter reaches, in samples of the smaller side.
const REACH: f64 = 2.0;

thread_local! {
    /// How far to move the filter that is being used by this thread, in its own unit.
    static SHIFT: Cell<f64> = const { Cell::new(0.0) };
}

/// A stretch of a row or a column, in samples, and how many samples become of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    start: f64,
    length: f64,
    /// What of the start lay outside.
    shift: f64,
    to: u32,
    untouched: bool,
}

impl Stretch {
    /// From `start` on, `length` of the `from` samples there are.
    pub fn new(from: u32, start: f64, length: f64, to: u32) -> Self {
        let most = f64::from(from);
        let untouched = start.abs() < 1e-6 && (length - most).abs() < 1e-6 && from == to;
        let length = length.clamp(most.min(1e-3), most);
        let inside = start.clamp(0.0, most - length);
        let mut stretch = Self { start: inside, length, shift: start - inside, to, untouched };
        if stretch.shift.abs() < 1e-6 {
            stretch.shift = 0.0;
        }
        if stretch.start + stretch.length > most || (stretch.shift != 0.0 && stretch.is_whole()) {
            stretch.length -= 1e-6;
        }
        stretch
    }

    /// The crate copies such stretches instead of filtering them.
    #[expect(clippy::float_cmp, reason = "the crate compares them so")]
    fn is_whole(&self) -> bool {
        self.length == f64::from(self.to) && self.start == self.start.round()
    }

    fn options(&self, down: bool, other: u32) -> ResizeOptions {
        let scale = (self.length / f64::from(self.to)).max(1.0);
        let shift = self.shift / scale;
        SHIFT.set(shift);
        let filter = Filter::new("shifted bicubic", shifted_bicubic, REACH + shift.abs())
            .map_or(FilterType::CatmullRom, FilterType::Custom);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
        if down {
            options.crop(0.0, self.start, f64::from(other), self.length)
        } else {
            options.crop(self.start, 0.0, self.length, f64::from(other))
        }
    }
}

/// Resizes planes of one size in one way.
#[derive(Debug)]
pub struct Scaler<P> {
    resizer: Resizer,
    /// Of the plane, the columns that matter.
    columns: (u32, u32),
    across: Stretch,
    down: Stretch,
    /// What the rows have become, before the columns are.
    between: Vec<P>,
}

impl<P: PixelTrait> Scaler<P> {
    /// For planes of `width` columns.
    pub fn new(width: u32, across: Stretch, down: Stretch) -> Self {
        let reach = (REACH + 1.0) * (across.length / f64::from(across.to)).max(1.0) + across.shift.abs();
        let first = (across.start - reach).floor().max(0.0) as u32;
        let last = ((across.start + across.length + reach).ceil() as u32).min(width);
        let across = Stretch { start: across.start - f64::from(first), ..across };
        Self { resizer: Resizer::new(), columns: (first, last - first), across, down, between: Vec::new() }
    }

    /// `None` if the plane or the target is not as large as was said.
    pub fn run(&mut self, source: &impl ImageView<Pixel = P>, target: &mut impl ImageViewMut<Pixel = P>) -> Option<()> {
        let (first, width) = self.columns;
        let height = source.height();
        let source = TypedCroppedImage::from_ref(source, first, 0, width, height).ok()?;
        if self.down.untouched {
            return self.resizer.resize_typed(&source, target, &self.across.options(false, height)).ok();
        }
        if self.across.untouched {
            return self.resizer.resize_typed(&source, target, &self.down.options(true, width)).ok();
        }
        let (width, height) = (width, self.down.to);
        self.between.resize(width as usize * height as usize, P::default());
        let mut between = TypedImage::from_pixels_slice(width, height, &mut self.between).ok()?;
        self.resizer.resize_typed(&source, &mut between, &self.down.options(true, width)).ok()?;
        self.resizer.resize_typed(&between, target, &self.across.options(false, height)).ok()
    }
}

fn shifted_bicubic(x: f64) -> f64 {
    bicubic(x - SHIFT.get())
}

/// Keys' cubic. Catmull and Rom's has -0.5, ffmpeg's scaler -0.6; this one keeps more of the
/// film in a file of the same size, and costs less than Lanczos' filter.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
