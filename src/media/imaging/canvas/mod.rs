//! The picture in hand: pixels, and what is known about their geometry and colour.
//!
//! In: decoded pixels, with the orientation and profile they came with. Out: the same,
//! after each step. Steps of a recipe are written in terms of this type.
//!
//! Invariant: pixels are 8-bit RGB or RGBA (not premultiplied), rows without padding, at
//! least 1 x 1; `scale` says how many canvas pixels stand for one pixel of the source, so
//! that sizes come out exact although decoding may have shrunk the picture.
//!
//! A picture that comes in planes stays in planes while it is only shrunk, cut at its edges,
//! mirrored or turned by right angles; the first move that wants pixels makes it pixels.
//!
//! Orientation and colour profile stay pending until the picture has its final size, where
//! they cost a fraction. A step that minds where up is calls `settle` first.
//!
//! Resizing averages the numbers as they are stored, not the light they stand for, as libvips,
//! ImageMagick and browsers do. Averaging light keeps thin bright lines on black brighter (137
//! instead of 64 for every fourth line), but fades thin dark lines on white by as much (225
//! instead of 191), and those are what scans, plans and text are made of. It would also cost
//! a 16-bit picture and two more passes.
//!
//! No codec is known here; the server links this through `Recipe` and never runs it.
#![expect(clippy::indexing_slicing, reason = "pixel arithmetic; every index is derived from the canvas' own size")]

mod geometry;
mod paint;

use std::borrow::Cow;
use std::sync::Arc;

use super::Guide;
use super::color::Profile;
use super::error::ImageError;
use super::format::OutputFormat;
use super::framing;
use super::orientation::Orientation;
use super::params::Plan;
use super::planar::Planar;
use super::planes::Planes;

pub(super) use self::paint::unpremultiply;

/// Parts that steps have chosen by looking at a picture, in the order of the steps.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    made: Vec<Part>,
    /// How many of them this canvas has followed.
    followed: usize,
}

/// A part of a canvas: left, top, width, height.
pub type Part = (u32, u32, u32, u32);

/// A picture being worked on.
#[derive(Clone)]
pub struct Canvas {
    width: u32,
    height: u32,
    /// 3 or 4; 3 in planes.
    channels: usize,
    /// Empty while the picture is in planes.
    pixels: Vec<u8>,
    planes: Option<Planar>,
    /// Canvas pixels per source pixel, along the canvas' own axes.
    scale: (f64, f64),
    orientation: Orientation,
    profile: Profile,
    ceiling: (u32, u32),
    /// Result pixels per source pixel, as the plan foresees.
    shrink: f64,
    /// What a watermark lays over the picture.
    mark: Option<Arc<Canvas>>,
    choices: Choices,
    /// Its point is kept in shares of the upright canvas, wherever the canvas is turned.
    guide: Guide,
    /// The encoder will want pixels, so planes keep all the colour they have.
    becomes_pixels: bool,
}

impl Canvas {
    /// Of packed RGB.
    pub fn rgb(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        Self::new(width, height, 3, pixels)
    }

    /// Of packed RGBA, not premultiplied.
    pub fn rgba(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        Self::new(width, height, 4, pixels)
    }

    /// Of planes, luma of at least 1 x 1.
    pub fn planar(planes: Planes) -> Self {
        let planes = Planar::new(planes);
        let (width, height) = planes.size();
        Self { planes: Some(planes), pixels: Vec::new(), ..Self::new(width, height, 3, Vec::new()) }
    }

    fn new(width: u32, height: u32, channels: usize, mut pixels: Vec<u8>) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        pixels.resize(width as usize * height as usize * channels, 0);
        Self {
            width,
            height,
            channels,
            pixels,
            planes: None,
            scale: (1.0, 1.0),
            orientation: Orientation::UPRIGHT,
            profile: Profile::Srgb,
            ceiling: Plan::CEILING,
            shrink: 1.0,
            mark: None,
            choices: Choices::default(),
            guide: Guide::default(),
            becomes_pixels: false,
        }
    }

    /// Tells what the pixels came from: the source's stored size, its orientation and profile.
    pub(super) fn decoded_from(mut self, size: (u32, u32), orientation: Orientation, profile: Profile) -> Self {
        self.scale =
            (f64::from(self.width) / f64::from(size.0.max(1)), f64::from(self.height) / f64::from(size.1.max(1)));
        self.orientation = orientation;
        self.profile = profile;
        self
    }

    /// Tells what the recipe is heading for.
    pub(super) fn heading_for(mut self, plan: &Plan) -> Self {
        self.ceiling = plan.ceiling;
        self.shrink = plan.shrink();
        self.becomes_pixels = plan.format == Some(OutputFormat::Png);
        self
    }

    /// Gives it the mark that a watermark step will lay over it.
    pub(super) fn marked(mut self, mark: Option<Arc<Self>>) -> Self {
        self.mark = mark;
        self
    }

    /// Tells what was chosen on the first frame of an animation, so that this frame follows.
    pub(super) fn choosing(mut self, choices: Choices) -> Self {
        self.choices = Choices { followed: 0, ..choices };
        self
    }

    /// What has been chosen, for the next frame.
    pub(super) fn into_choices(self) -> Choices {
        self.choices
    }

    /// The part that a step chooses by looking at the picture. Every choice that depends on
    /// pixels must be made through this, or an animation would jump.
    pub fn chosen(&mut self, choose: impl FnOnce(&Self) -> Result<Part, ImageError>) -> Result<Part, ImageError> {
        let made = self.choices.made.get(self.choices.followed).copied();
        let part = match made {
            Some(part) => part,
            None => choose(self)?,
        };
        if made.is_none() {
            self.choices.made.push(part);
        }
        self.choices.followed += 1;
        Ok(part)
    }

    /// Tells where to look, should a step ask.
    pub(super) fn guided_by(mut self, guide: Guide) -> Self {
        self.guide = guide;
        self
    }

    /// Width and height in canvas pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Canvas pixels per source pixel.
    pub fn scale(&self) -> (f64, f64) {
        self.scale
    }

    pub fn has_alpha(&self) -> bool {
        self.channels == 4
    }

    /// Packed rows. Of a picture in planes there are none until `unpack`.
    pub fn pixels(&self) -> &[u8] {
        debug_assert!(self.planes.is_none(), "pixels of a picture in planes");
        &self.pixels
    }

    /// The planes of a picture that has them, grey or exactly 4:2:0.
    pub(super) fn planes(&self) -> Option<&Planes> {
        self.planes.as_ref().and_then(Planar::as_420)
    }

    /// Whether the picture is in planes and has no colour.
    pub(super) fn is_grey(&self) -> bool {
        self.planes.as_ref().is_some_and(Planar::is_grey)
    }

    /// Turns planes into pixels.
    pub fn unpack(&mut self) -> Result<(), ImageError> {
        if let Some(planes) = &self.planes {
            self.pixels = planes.to_rgb()?;
            self.planes = None;
        }
        Ok(())
    }

    /// Makes planes fit for an encoder; pixels stay as they are.
    pub(super) fn halve_chroma(&mut self) -> Result<(), ImageError> {
        self.planes.as_mut().map_or(Ok(()), Planar::halve_chroma)
    }

    /// Shrinks the picture under the plan's ceiling, then settles colour and orientation.
    pub fn fit(&mut self) -> Result<(), ImageError> {
        let (most_wide, most_high) = self.orientation.upright(self.ceiling.0, self.ceiling.1);
        let (wide, high) = (f64::from(self.width) / self.scale.0, f64::from(self.height) / self.scale.1);
        let shrink = (f64::from(most_wide) / wide).min(f64::from(most_high) / high).min(1.0);
        let side = |length: f64, most: u32| ((length * shrink).round() as u32).clamp(1, most.max(1));
        self.resize(side(wide, most_wide), side(high, most_high))?;
        self.settle_colour()
    }

    /// Makes the colours sRGB and sets the picture upright, at the size it has.
    pub(super) fn settle_colour(&mut self) -> Result<(), ImageError> {
        let profile = self.profile.take();
        if !profile.is_srgb() {
            self.unpack()?;
            profile.convert(&mut self.pixels, self.channels);
        }
        self.settle();
        Ok(())
    }

    /// The same picture in pixels, fitting a square of this side; never larger than it is.
    pub(super) fn thumbnail(&self, side: u32) -> Result<Self, ImageError> {
        let shrink = (f64::from(side) / f64::from(self.width.max(self.height))).min(1.0);
        let small = |length: u32| ((f64::from(length) * shrink).round() as u32).clamp(1, length);
        let mut copy = self.clone();
        copy.resize(small(self.width), small(self.height))?;
        copy.unpack()?;
        Ok(copy)
    }

    /// A copy of this part, which lies within the canvas.
    pub(super) fn part(&self, (x, y, width, height): Part) -> Self {
        let (stride, kept) = (self.width as usize * self.channels, width as usize * self.channels);
        let mut pixels = Vec::with_capacity(kept * height as usize);
        for row in self.pixels.chunks_exact(stride).skip(y as usize).take(height as usize) {
            pixels.extend_from_slice(&row[x as usize * self.channels..][..kept]);
        }
        Self::new(width, height, self.channels, pixels)
    }

    /// The corner of the part of this size that holds what people look at: the point that was
    /// named, else faces. `None` when there is neither.
    pub fn of_people(&self, width: u32, height: u32) -> Result<Option<(u32, u32)>, ImageError> {
        let (picture, frame) = (self.size(), (width, height));
        if picture == frame {
            return Ok(Some((0, 0)));
        }
        if let Some(focus) = self.guide.focus {
            return Ok(Some(framing::around_point(picture, frame, focus)));
        }
        let spots = (self.guide.faces)(&self.opaque()?, self.width, self.height);
        Ok(framing::around_spots(picture, frame, &spots))
    }

    /// The corner of the part of this size that draws the eye most.
    pub fn busiest(&self, width: u32, height: u32) -> Result<(u32, u32), ImageError> {
        const THUMB: u32 = 256;
        let thumb = self.thumbnail(THUMB)?;
        let zoom = (f64::from(thumb.width) / f64::from(self.width), f64::from(thumb.height) / f64::from(self.height));
        let side = |length: u32, zoom: f64, most: u32| ((f64::from(length) * zoom).round() as u32).clamp(1, most);
        let frame = (side(width, zoom.0, thumb.width), side(height, zoom.1, thumb.height));
        let (x, y) = framing::around_detail(&thumb.opaque()?, thumb.size(), frame);
        let full = |at: u32, zoom: f64, spare: u32| ((f64::from(at) / zoom).round() as u32).min(spare);
        Ok((full(x, zoom.0, self.width.saturating_sub(width)), full(y, zoom.1, self.height.saturating_sub(height))))
    }

    /// Packed RGB; what is transparent is seen on grey.
    fn opaque(&self) -> Result<Cow<'_, [u8]>, ImageError> {
        if let Some(planes) = &self.planes {
            return Ok(Cow::Owned(planes.to_rgb()?));
        }
        Ok(match self.channels {
            4 => {
                let on_grey = |&[r, g, b, alpha]: &[u8; 4]| {
                    [r, g, b].map(|v| ((u32::from(v) * u32::from(alpha) + 128 * u32::from(255 - alpha)) / 255) as u8)
                };
                Cow::Owned(self.pixels().as_chunks::<4>().0.iter().flat_map(on_grey).collect())
            }
            _ => Cow::Borrowed(self.pixels()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red channel of the canvas, row by row.
    fn reds(canvas: &Canvas) -> Vec<u8> {
        canvas.pixels().chunks_exact(canvas.channels).map(|p| p[0]).collect()
    }

    #[test]
    fn every_orientation_is_set_upright() {
        // The upright picture is 1 2 / 3 4 / 5 6; each row says how it is stored.
        let stored: [(u32, (u32, u32), [u8; 6]); 8] = [
            (1, (2, 3), [1, 2, 3, 4, 5, 6]),
            (2, (2, 3), [2, 1, 4, 3, 6, 5]),
            (3, (2, 3), [6, 5, 4, 3, 2, 1]),
            (4, (2, 3), [5, 6, 3, 4, 1, 2]),
            (5, (3, 2), [1, 3, 5, 2, 4, 6]),
            (6, (3, 2), [2, 4, 6, 1, 3, 5]),
            (7, (3, 2), [6, 4, 2, 5, 3, 1]),
            (8, (3, 2), [5, 3, 1, 6, 4, 2]),
        ];
        for (value, (width, height), pixels) in stored {
            let orientation = Orientation::from_exif(value);
            let pixels = pixels.into_iter().flat_map(|p| [p; 3]).collect();
            let mut canvas =
                Canvas::rgb(width, height, pixels).decoded_from((width, height), orientation, Profile::Srgb);
            assert_eq!(orientation.upright(width, height), (2, 3));
            canvas.settle();
            assert_eq!((canvas.size(), reds(&canvas)), ((2, 3), vec![1, 2, 3, 4, 5, 6]), "{value}");
        }
    }

    #[test]
    fn heif_turns_match_exif() {
        let numbers = [
            (0, None, 1),
            (1, None, 8),
            (2, None, 3),
            (3, None, 6),
            (0, Some(1), 2),
            (0, Some(0), 4),
            (3, Some(1), 5),
            (1, Some(1), 7),
        ];
        for (turns, mirror, exif) in numbers {
            assert_eq!(Orientation::from_heif(turns, mirror), Orientation::from_exif(exif), "{turns} {mirror:?}");
        }
    }

    #[test]
    fn the_named_point_goes_along() {
        // One red pixel, and the point in the middle of it.
        for value in 1..=8 {
            let mut pixels = vec![0; 6 * 4 * 3];
            pixels[(6 + 4) * 3] = 255;
            let orientation = Orientation::from_exif(value);
            let mut canvas = Canvas::rgb(6, 4, pixels).decoded_from((6, 4), orientation, Profile::Srgb);
            let mut upright = Canvas::rgb(6, 4, canvas.pixels().to_vec());
            upright.orientation = orientation;
            upright.settle();
            let point = |canvas: &Canvas| {
                let at = reds(canvas).iter().position(|&red| red == 255).unwrap() as u32;
                let (x, y) = (at % canvas.width, at / canvas.width);
                ((x as f32 + 0.5) / canvas.width as f32, (y as f32 + 0.5) / canvas.height as f32)
            };
            canvas.guide.focus = Some(point(&upright));
            let agrees = |canvas: &Canvas, step: &str| {
                let (is, should) = (canvas.guide.focus.unwrap(), point(canvas));
                assert!((is.0 - should.0).abs() + (is.1 - should.1).abs() < 1e-5, "{value} {step}: {is:?} {should:?}");
            };
            canvas.settle();
            agrees(&canvas, "settled");
            canvas.mirror(true, false);
            agrees(&canvas, "mirrored");
            for turns in 1..4 {
                canvas.quarter_turns(turns);
                agrees(&canvas, "turned");
            }
            canvas.mirror(false, true);
            agrees(&canvas, "upside down");
            let (x, y) = canvas.guide.focus.unwrap();
            let at = ((x * canvas.width as f32) as u32, (y * canvas.height as f32) as u32);
            canvas.cut(at.0.saturating_sub(1), at.1.saturating_sub(1), 3, 3);
            agrees(&canvas, "cut");
        }
        let mut canvas = Canvas::rgb(100, 100, vec![0; 30_000]);
        canvas.guide.focus = Some((0.75, 0.5));
        canvas.turn(45.0).unwrap();
        let (x, y) = canvas.guide.focus.unwrap();
        assert!((x - 0.625).abs() < 0.01 && (y - 0.625).abs() < 0.01, "{x} {y}");
    }

    #[test]
    fn transparent_pixels_do_not_bleed() {
        // Hidden green beside visible red: a resize that forgot to premultiply would mix them.
        let pixels = (0..64 * 64).flat_map(|i| if i % 2 == 0 { [255, 0, 0, 255] } else { [0, 255, 0, 0] }).collect();
        let mut canvas = Canvas::rgba(64, 64, pixels);
        canvas.resize(16, 16).unwrap();
        for pixel in canvas.pixels().as_chunks::<4>().0 {
            assert!(pixel[0] > 250 && pixel[1] < 5, "{pixel:?}");
        }
    }

    #[test]
    fn a_wide_blur_keeps_size_and_mean() {
        let mut canvas = Canvas::rgb(100, 60, (0..6000).flat_map(|i| [if i % 2 == 0 { 0 } else { 200 }; 3]).collect());
        canvas.blur(20.0).unwrap();
        assert_eq!(canvas.size(), (100, 60));
        assert!(canvas.pixels().iter().all(|&v| (95..=105).contains(&v)));
    }
}
