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

use std::borrow::Cow;
use std::sync::Arc;

use fast_image_resize::FilterType;
use fast_image_resize::PixelType;
use fast_image_resize::ResizeAlg;
use fast_image_resize::ResizeOptions;
use fast_image_resize::Resizer;
use fast_image_resize::images::Image;
use fast_image_resize::images::ImageRef;

use super::Guide;
use super::color::Profile;
use super::error::ImageError;
use super::format::OutputFormat;
use super::framing;
use super::orientation::Orientation;
use super::params::Plan;
use super::params::watermark::Placement;
use super::planar::Planar;
use super::planes::Plane;
use super::planes::Planes;

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

    /// Sets the picture upright.
    pub fn settle(&mut self) {
        let (mirrored, turns) = std::mem::replace(&mut self.orientation, Orientation::UPRIGHT).moves();
        // The point to look at was said of the upright picture already.
        let focus = self.guide.focus;
        if mirrored {
            self.mirror(true, false);
        }
        self.quarter_turns(turns);
        self.guide.focus = focus;
    }

    /// Mirrors left to right, top to bottom, or both.
    pub fn mirror(&mut self, across: bool, down: bool) {
        self.settle_unless_upright();
        self.move_focus(|x, y| (if across { 1.0 - x } else { x }, if down { 1.0 - y } else { y }));
        if let Some(planes) = &mut self.planes {
            planes.mirror(across, down);
            return;
        }
        let channels = self.channels;
        if across {
            for row in self.pixels.chunks_exact_mut(self.width as usize * channels) {
                match channels {
                    3 => row.as_chunks_mut::<3>().0.reverse(),
                    _ => row.as_chunks_mut::<4>().0.reverse(),
                }
            }
        }
        if down {
            let stride = self.width as usize * channels;
            let (mut top, mut bottom) = (0, self.height as usize - 1);
            while top < bottom {
                let (head, tail) = self.pixels.split_at_mut(bottom * stride);
                head[top * stride..(top + 1) * stride].swap_with_slice(&mut tail[..stride]);
                top += 1;
                bottom -= 1;
            }
        }
    }

    /// Turns clockwise by right angles.
    pub fn quarter_turns(&mut self, turns: u8) {
        self.settle_unless_upright();
        self.move_focus(|x, y| [(x, y), (1.0 - y, x), (1.0 - x, 1.0 - y), (y, 1.0 - x)][usize::from(turns % 4)]);
        if let Some(planes) = &mut self.planes {
            // A turn is a mirror and a diagonal one, which no plane minds.
            match turns % 4 {
                1 => planes.mirror(false, true),
                2 => planes.mirror(true, true),
                3 => planes.mirror(true, false),
                _ => {}
            }
            if turns % 2 == 1 {
                planes.transpose();
                (self.width, self.height) = (self.height, self.width);
                self.scale = (self.scale.1, self.scale.0);
            }
            return;
        }
        match turns % 4 {
            1 | 3 => {
                self.pixels = match self.channels {
                    3 => quarter::<3>(&self.pixels, self.width as usize, self.height as usize, turns % 4 == 3),
                    _ => quarter::<4>(&self.pixels, self.width as usize, self.height as usize, turns % 4 == 3),
                };
                std::mem::swap(&mut self.width, &mut self.height);
                self.scale = (self.scale.1, self.scale.0);
            }
            2 => match self.channels {
                3 => self.pixels.as_chunks_mut::<3>().0.reverse(),
                _ => self.pixels.as_chunks_mut::<4>().0.reverse(),
            },
            _ => {}
        }
    }

    /// Turns clockwise by any angle; the corners that open up are transparent.
    pub fn turn(&mut self, degrees: f64) -> Result<(), ImageError> {
        self.settle();
        self.lighten()?;
        self.unpack()?;
        self.add_alpha();
        premultiply(&mut self.pixels);
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (wide, high) = (f64::from(self.width), f64::from(self.height));
        let new_wide = (wide * cos.abs() + high * sin.abs()).round().max(1.0);
        let new_high = (wide * sin.abs() + high * cos.abs()).round().max(1.0);
        let mut turned = vec![0; new_wide as usize * new_high as usize * 4];
        for (y, row) in turned.chunks_exact_mut(new_wide as usize * 4).enumerate() {
            let down = y as f64 + 0.5 - new_high / 2.0;
            for (x, pixel) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let right = x as f64 + 0.5 - new_wide / 2.0;
                let from_x = right * cos + down * sin + wide / 2.0 - 0.5;
                let from_y = down * cos - right * sin + high / 2.0 - 0.5;
                *pixel = self.sample(from_x as f32, from_y as f32);
            }
        }
        unpremultiply(&mut turned);
        self.move_focus(|x, y| {
            let (right, down) = ((x - 0.5) * wide, (y - 0.5) * high);
            (0.5 + (right * cos - down * sin) / new_wide, 0.5 + (right * sin + down * cos) / new_high)
        });
        (self.width, self.height, self.pixels) = (new_wide as u32, new_high as u32, turned);
        Ok(())
    }

    /// Keeps only this part, which is clipped to the canvas.
    pub fn cut(&mut self, x: u32, y: u32, width: u32, height: u32) {
        let (x, y) = (x.min(self.width - 1), y.min(self.height - 1));
        let (width, height) = (width.clamp(1, self.width - x), height.clamp(1, self.height - y));
        if (width, height) == (self.width, self.height) {
            return;
        }
        let (wide, high) = (f64::from(self.width), f64::from(self.height));
        self.move_focus(|from_left, from_top| {
            ((from_left * wide - f64::from(x)) / f64::from(width), (from_top * high - f64::from(y)) / f64::from(height))
        });
        if let Some(planes) = &mut self.planes {
            planes.cut(x, y, width, height);
            (self.width, self.height) = (width, height);
            return;
        }
        let stride = self.width as usize * self.channels;
        let (left, kept) = (x as usize * self.channels, width as usize * self.channels);
        for row in 0..height as usize {
            let from = (row + y as usize) * stride + left;
            self.pixels.copy_within(from..from + kept, row * kept);
        }
        self.pixels.truncate(kept * height as usize);
        self.pixels.shrink_to_fit();
        (self.width, self.height) = (width, height);
    }

    /// Cuts off the border that differs from the corner's colour by no more than this per channel.
    pub fn trim(&mut self, tolerance: u8) -> Result<(), ImageError> {
        self.settle();
        self.unpack()?;
        let (x, y, width, height) = self.chosen(|canvas| Ok(canvas.within_border(tolerance)))?;
        self.cut(x, y, width, height);
        Ok(())
    }

    /// The smallest part that holds everything but the border; all of it if there is nothing else.
    fn within_border(&self, tolerance: u8) -> Part {
        let corner: Vec<u8> = self.pixels[..self.channels].to_vec();
        // Where the corner is transparent, transparency is the border and hidden colour is noise.
        let clear = self.channels == 4 && corner[3] == 0;
        let is_border = |pixel: &[u8]| {
            if clear {
                pixel[3] <= tolerance
            } else {
                pixel.iter().zip(&corner).all(|(&a, &b)| a.abs_diff(b) <= tolerance)
            }
        };
        let (mut left, mut right, mut top, mut bottom) = (self.width, 0, self.height, 0);
        for (y, row) in (0_u32..).zip(self.pixels.chunks_exact(self.width as usize * self.channels)) {
            let mut pixels = row.chunks_exact(self.channels);
            let Some(first) = pixels.position(|p| !is_border(p)) else { continue };
            let last = row.chunks_exact(self.channels).rposition(|p| !is_border(p)).unwrap_or(first);
            left = left.min(first as u32);
            right = right.max(last as u32);
            top = top.min(y);
            bottom = y;
        }
        if left <= right && top <= bottom {
            return (left, top, right - left + 1, bottom - top + 1);
        }
        (0, 0, self.width, self.height)
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

    /// Lays the picture on a plain colour; transparency is gone afterwards.
    pub fn flatten(&mut self, background: [u8; 3]) {
        if self.channels != 4 {
            return;
        }
        let mut flat = vec![0; self.width as usize * self.height as usize * 3];
        for (from, to) in self.pixels.as_chunks::<4>().0.iter().zip(flat.as_chunks_mut::<3>().0) {
            let alpha = u32::from(from[3]);
            for channel in 0..3 {
                let mixed = u32::from(from[channel]) * alpha + u32::from(background[channel]) * (255 - alpha);
                to[channel] = ((mixed + 127) / 255) as u8;
            }
        }
        self.pixels = flat;
        self.channels = 3;
    }

    /// Takes transparency out of colours that were stored multiplied with it.
    pub(super) fn unpremultiply(&mut self) {
        if self.channels == 4 {
            unpremultiply(&mut self.pixels);
        }
    }

    /// Takes the colour away (luma of BT.709). What is opaque becomes a single plane.
    pub fn grayscale(&mut self) -> Result<(), ImageError> {
        if self.is_grey() {
            return Ok(());
        }
        self.unpack()?;
        let shade = |pixel: &[u8]| {
            let luma = u32::from(pixel[0]) * 13_933 + u32::from(pixel[1]) * 46_871 + u32::from(pixel[2]) * 4_732;
            ((luma + 32_768) >> 16) as u8
        };
        if self.has_alpha() {
            for pixel in self.pixels.as_chunks_mut::<4>().0 {
                let shade = shade(pixel);
                pixel[..3].fill(shade);
            }
        } else {
            let samples = self.pixels.as_chunks::<3>().0.iter().map(|pixel| shade(pixel)).collect();
            let luma = Plane { width: self.width, height: self.height, samples };
            self.planes = Some(Planar::new(Planes { luma, chroma: None }));
            self.pixels = Vec::new();
        }
        Ok(())
    }

    /// Softens with a Gaussian of this standard deviation in canvas pixels.
    pub fn blur(&mut self, sigma: f64) -> Result<(), ImageError> {
        const WIDEST_KERNEL: f64 = 4.0;
        self.unpack()?;
        if sigma <= WIDEST_KERNEL {
            self.pixels = self.softened(sigma as f32);
            return Ok(());
        }
        // A wide blur leaves no fine detail to lose, so it is done on a smaller picture.
        let (width, height) = (self.width, self.height);
        let shrink = WIDEST_KERNEL / sigma;
        let small = |side: u32| ((f64::from(side) * shrink).round() as u32).max(1);
        let before = self.scale;
        self.resize(small(width), small(height))?;
        self.pixels = self.softened(WIDEST_KERNEL as f32);
        self.resize_with(width, height, FilterType::Bilinear)?;
        self.scale = before;
        Ok(())
    }

    /// Unsharp mask of one pixel; `amount` 1 doubles the contrast of an edge.
    pub fn sharpen(&mut self, amount: f32) -> Result<(), ImageError> {
        self.unpack()?;
        let soft = self.softened(1.0);
        for (pixel, soft) in self.pixels.chunks_exact_mut(self.channels).zip(soft.chunks_exact(self.channels)) {
            for channel in 0..3 {
                let (sharp, soft) = (f32::from(pixel[channel]), f32::from(soft[channel]));
                pixel[channel] = (sharp + (sharp - soft) * amount).round().clamp(0.0, 255.0) as u8;
            }
        }
        Ok(())
    }

    /// Lays the mark over the picture, at most this share of its width and height.
    pub fn lay_over(&mut self, placement: Placement, scale: f64) -> Result<(), ImageError> {
        let Some(mark) = self.mark.take() else {
            return Err(ImageError::NotRendered("there is no watermark to lay over".to_owned()));
        };
        let mut mark = Self::clone(&mark);
        let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
        mark.ceiling = (side(self.width), side(self.height));
        mark.scale = (1.0, 1.0);
        mark.fit()?;
        mark.unpack()?;
        mark.add_alpha();
        self.unpack()?;
        let (left, top) = placement.corner(self.size(), mark.size());
        let stride = self.width as usize * self.channels;
        let rows = self.pixels.chunks_exact_mut(stride).skip(top as usize);
        for (row, marks) in rows.zip(mark.pixels.chunks_exact(mark.width as usize * 4)) {
            let under = row[left as usize * self.channels..].chunks_exact_mut(self.channels);
            for (pixel, mark) in under.zip(marks.as_chunks::<4>().0) {
                lay_pixel(pixel, *mark);
            }
        }
        Ok(())
    }

    /// Shrinks to half again what the result needs, before a step that is dear per pixel.
    fn lighten(&mut self) -> Result<(), ImageError> {
        let needed = self.shrink * 1.5;
        if needed < self.scale.0.min(self.scale.1) {
            let side = |pixels: u32, scale: f64| ((f64::from(pixels) / scale * needed).round() as u32).clamp(1, pixels);
            self.resize(side(self.width, self.scale.0), side(self.height, self.scale.1))?;
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, width: u32, height: u32) -> Result<(), ImageError> {
        self.resize_with(width, height, FilterType::Lanczos3)
    }

    fn resize_with(&mut self, width: u32, height: u32, filter: FilterType) -> Result<(), ImageError> {
        if (width, height) == (self.width, self.height) {
            return Ok(());
        }
        let (from_width, from_height) = (self.width, self.height);
        if let Some(planes) = &mut self.planes {
            if self.becomes_pixels || !self.profile.is_srgb() {
                planes.resize((width, height), filter)?;
            } else {
                planes.resize_to_420((width, height), filter, self.orientation.reverses())?;
            }
        } else {
            self.pixels = self.resized(width, height, filter)?;
        }
        self.scale.0 *= f64::from(width) / f64::from(from_width);
        self.scale.1 *= f64::from(height) / f64::from(from_height);
        (self.width, self.height) = (width, height);
        Ok(())
    }

    fn resized(&self, width: u32, height: u32, filter: FilterType) -> Result<Vec<u8>, ImageError> {
        let kind = if self.channels == 4 { PixelType::U8x4 } else { PixelType::U8x3 };
        let source = ImageRef::new(self.width, self.height, &self.pixels, kind).map_err(ImageError::not_rendered)?;
        let mut smaller = Image::new(width, height, kind);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(true);
        Resizer::new().resize(&source, &mut smaller, &options).map_err(ImageError::not_rendered)?;
        Ok(smaller.into_vec())
    }

    /// The canvas' pixels under a Gaussian, with transparency weighed in.
    fn softened(&self, sigma: f32) -> Vec<u8> {
        let reach = (sigma * 3.0).ceil().max(1.0) as usize;
        let mut kernel: Vec<f32> = (0..=reach).map(|i| (-((i * i) as f32) / (2.0 * sigma * sigma)).exp()).collect();
        let sum = kernel[0] + 2.0 * kernel[1..].iter().sum::<f32>();
        for weight in &mut kernel {
            *weight /= sum;
        }

        let mut pixels = self.pixels.clone();
        if self.channels == 4 {
            premultiply(&mut pixels);
        }
        let (width, height, channels) = (self.width as usize, self.height as usize, self.channels);
        let stride = width * channels;
        let mut across = vec![0.0_f32; pixels.len()];
        for (from, to) in pixels.chunks_exact(stride).zip(across.chunks_exact_mut(stride)) {
            for x in 0..width {
                for channel in 0..channels {
                    let at = |x: usize| f32::from(from[x * channels + channel]);
                    let mut sum = at(x) * kernel[0];
                    for (i, weight) in kernel.iter().enumerate().skip(1) {
                        sum += (at(x.saturating_sub(i)) + at((x + i).min(width - 1))) * weight;
                    }
                    to[x * channels + channel] = sum;
                }
            }
        }
        let mut row = vec![0.0_f32; stride];
        for y in 0..height {
            row.copy_from_slice(&across[y * stride..][..stride]);
            for value in &mut row {
                *value *= kernel[0];
            }
            for (i, weight) in kernel.iter().enumerate().skip(1) {
                let above = &across[y.saturating_sub(i) * stride..][..stride];
                let below = &across[(y + i).min(height - 1) * stride..][..stride];
                for ((value, a), b) in row.iter_mut().zip(above).zip(below) {
                    *value += (a + b) * weight;
                }
            }
            for (to, value) in pixels[y * stride..][..stride].iter_mut().zip(&row) {
                *to = value.round().clamp(0.0, 255.0) as u8;
            }
        }
        if channels == 4 {
            unpremultiply(&mut pixels);
        }
        pixels
    }

    /// Bilinear value of a premultiplied RGBA canvas; transparent outside.
    fn sample(&self, x: f32, y: f32) -> [u8; 4] {
        let (left, top) = (x.floor(), y.floor());
        let (part_x, part_y) = (x - left, y - top);
        let mut sum = [0.5_f32; 4];
        for (dx, dy, weight) in [
            (0, 0, (1.0 - part_x) * (1.0 - part_y)),
            (1, 0, part_x * (1.0 - part_y)),
            (0, 1, (1.0 - part_x) * part_y),
            (1, 1, part_x * part_y),
        ] {
            let (x, y) = (left as i64 + dx, top as i64 + dy);
            if (0..i64::from(self.width)).contains(&x) && (0..i64::from(self.height)).contains(&y) {
                let at = (y as usize * self.width as usize + x as usize) * 4;
                for (sum, value) in sum.iter_mut().zip(&self.pixels[at..at + 4]) {
                    *sum += f32::from(*value) * weight;
                }
            }
        }
        sum.map(|value| value as u8)
    }

    fn add_alpha(&mut self) {
        if self.channels == 3 {
            self.pixels = self.pixels.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
            self.channels = 4;
        }
    }

    /// Takes the named point along; what leaves the picture is kept at its edge.
    fn move_focus(&mut self, to: impl Fn(f64, f64) -> (f64, f64)) {
        self.guide.focus = self.guide.focus.map(|(x, y)| {
            let (x, y) = to(f64::from(x), f64::from(y));
            (x.clamp(0.0, 1.0) as f32, y.clamp(0.0, 1.0) as f32)
        });
    }

    fn settle_unless_upright(&mut self) {
        if self.orientation != Orientation::UPRIGHT {
            self.settle();
        }
    }
}

/// A quarter turn, clockwise or not, in tiles that stay in the processor's cache.
fn quarter<const N: usize>(pixels: &[u8], width: usize, height: usize, anticlockwise: bool) -> Vec<u8> {
    const TILE: usize = 32;
    let mut turned = vec![0; pixels.len()];
    let (from, to) = (pixels.as_chunks::<N>().0, turned.as_chunks_mut::<N>().0);
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for y in top..(top + TILE).min(height) {
                for x in left..(left + TILE).min(width) {
                    let (to_x, to_y) = if anticlockwise { (y, width - 1 - x) } else { (height - 1 - y, x) };
                    to[to_y * height + to_x] = from[y * width + x];
                }
            }
        }
    }
    turned
}

/// Lays one pixel over another (source over, neither premultiplied).
fn lay_pixel(under: &mut [u8], over: [u8; 4]) {
    let over_alpha = u32::from(over[3]);
    let under_alpha = under.get(3).map_or(255, |&alpha| u32::from(alpha));
    // In 255ths of 255ths, so that nothing is rounded twice.
    let kept = under_alpha * (255 - over_alpha);
    let alpha = over_alpha * 255 + kept;
    if alpha == 0 {
        return;
    }
    for (under, over) in under.iter_mut().take(3).zip(over) {
        *under = ((u32::from(over) * over_alpha * 255 + u32::from(*under) * kept + alpha / 2) / alpha) as u8;
    }
    if let Some(under) = under.get_mut(3) {
        *under = ((alpha + 127) / 255) as u8;
    }
}

fn premultiply(pixels: &mut [u8]) {
    for pixel in pixels.as_chunks_mut::<4>().0 {
        let alpha = u32::from(pixel[3]);
        for channel in &mut pixel[..3] {
            *channel = ((u32::from(*channel) * alpha + 127) / 255) as u8;
        }
    }
}

/// From premultiplied RGBA.
pub(super) fn unpremultiply(pixels: &mut [u8]) {
    for pixel in pixels.as_chunks_mut::<4>().0 {
        let alpha = u32::from(pixel[3]);
        if alpha == 0 {
            continue;
        }
        for channel in &mut pixel[..3] {
            *channel = ((u32::from(*channel) * 255 + alpha / 2) / alpha).min(255) as u8;
        }
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
