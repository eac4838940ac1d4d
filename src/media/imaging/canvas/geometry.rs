//! Steps that move pixels: upright, mirrored, turned, cut, resized.
//!
//! In: a canvas. Out: the same with another size or orientation; its scale and its named point go along.
//!
//! Right angles, cuts at the edges and sizes leave planes in planes; all others make them pixels first.
#![expect(clippy::indexing_slicing, reason = "pixel arithmetic; every index is derived from the canvas' own size")]

use fast_image_resize::FilterType;
use fast_image_resize::PixelType;
use fast_image_resize::ResizeAlg;
use fast_image_resize::ResizeOptions;
use fast_image_resize::Resizer;
use fast_image_resize::images::Image;
use fast_image_resize::images::ImageRef;

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::Canvas;
use super::Part;
use super::paint::premultiply;
use super::paint::unpremultiply;

impl Canvas {
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

    /// Shrinks to half again what the result needs, before a step that is dear per pixel.
    fn lighten(&mut self) -> Result<(), ImageError> {
        let needed = self.shrink * 1.5;
        if needed < self.scale.0.min(self.scale.1) {
            let side = |pixels: u32, scale: f64| ((f64::from(pixels) / scale * needed).round() as u32).clamp(1, pixels);
            self.resize(side(self.width, self.scale.0), side(self.height, self.scale.1))?;
        }
        Ok(())
    }

    pub(in super::super) fn resize(&mut self, width: u32, height: u32) -> Result<(), ImageError> {
        self.resize_with(width, height, FilterType::Lanczos3)
    }

    pub(super) fn resize_with(&mut self, width: u32, height: u32, filter: FilterType) -> Result<(), ImageError> {
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
