//! Steps that change pixels where they are: transparency, colour, sharpness, a mark.
//!
//! In: a canvas. Out: the same at the same size.
//!
//! Colours are not premultiplied with transparency outside of here.
#![expect(clippy::indexing_slicing, reason = "pixel arithmetic; every index is derived from the canvas' own size")]

use fast_image_resize::FilterType;

use super::super::error::ImageError;
use super::super::params::watermark::Placement;
use super::super::planar::Planar;
use super::super::planes::Plane;
use super::super::planes::Planes;
use super::Canvas;

impl Canvas {
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
    pub(in super::super) fn unpremultiply(&mut self) {
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

    pub(super) fn add_alpha(&mut self) {
        if self.channels == 3 {
            self.pixels = self.pixels.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
            self.channels = 4;
        }
    }
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

pub(super) fn premultiply(pixels: &mut [u8]) {
    for pixel in pixels.as_chunks_mut::<4>().0 {
        let alpha = u32::from(pixel[3]);
        for channel in &mut pixel[..3] {
            *channel = ((u32::from(*channel) * alpha + 127) / 255) as u8;
        }
    }
}

/// From premultiplied RGBA.
pub(in super::super) fn unpremultiply(pixels: &mut [u8]) {
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
