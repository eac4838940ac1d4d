//! Lays an image over frames.
//!
//! In: the image with transparency, once, and frames. Out: the frames with the image over them.
//!
//! Invariant: only samples under the image change; it is never enlarged, and it stands where
//! the still pictures' watermark would.
//!
//! The image is brought to brightness, colours and shares of itself once; for a frame nothing
//! is left but to mix. Its corner lies on an even column and line, as colours do.
#![expect(clippy::indexing_slicing, reason = "arithmetic on samples; every index is derived from the mark's size")]

use std::io::BufRead;
use std::io::Seek;

use fast_image_resize::FilterType;
use fast_image_resize::PixelType;
use fast_image_resize::ResizeAlg;
use fast_image_resize::ResizeOptions;
use fast_image_resize::Resizer;
use fast_image_resize::images::Image;
use fast_image_resize::images::ImageRef;

use super::Overlay;
use super::color::Weights;
use super::planes::PlaneMut;
use crate::media::video::Place;
use crate::media::video::VideoError;

/// The longest side an image may have.
const MOST_PIXELS: u32 = 4096;

/// Red, green, blue and opacity, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Picture {
    /// `None` if there are not four bytes for each pixel.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Option<Self> {
        let whole = width > 0 && height > 0 && pixels.len() as u64 == u64::from(width) * u64::from(height) * 4;
        whole.then_some(Self { width, height, pixels })
    }

    /// Reads a PNG of up to 4096 pixels a side.
    pub fn read_png(file: impl BufRead + Seek) -> Result<Self, VideoError> {
        let wrong = |e: png::DecodingError| VideoError::Invalid(format!("The watermark cannot be read: {e}"));
        let mut decoder = png::Decoder::new_with_limits(file, png::Limits { bytes: 128 << 20 });
        decoder.set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::ALPHA);
        let mut reader = decoder.read_info().map_err(wrong)?;
        let (width, height) = reader.info().size();
        if width > MOST_PIXELS || height > MOST_PIXELS {
            return Err(VideoError::Invalid(format!("The watermark is larger than {MOST_PIXELS} pixels a side.")));
        }
        let mut bytes = vec![0; reader.output_buffer_size().unwrap_or_default()];
        let frame = reader.next_frame(&mut bytes).map_err(wrong)?;
        bytes.truncate(frame.buffer_size());
        if frame.color_type == png::ColorType::GrayscaleAlpha {
            bytes = bytes.as_chunks::<2>().0.iter().flat_map(|&[grey, alpha]| [grey, grey, grey, alpha]).collect();
        }
        Self::new(width, height, bytes)
            .ok_or_else(|| VideoError::Invalid("The watermark cannot be read: its pixels are missing.".to_owned()))
    }

    /// The picture at this size, its colours multiplied by its opacity.
    fn multiplied(&self, width: u32, height: u32) -> Option<Vec<u8>> {
        let source = ImageRef::new(self.width, self.height, &self.pixels, PixelType::U8x4).ok()?;
        let mut target = Image::new(width, height, PixelType::U8x4);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).use_alpha(true);
        Resizer::new().resize(&source, &mut target, &options).ok()?;
        Some(target.into_vec())
    }
}

/// A mark for frames of one size.
#[derive(Debug)]
pub struct Stamp {
    planes: [Mix; 3],
}

/// Of one plane: its samples become `sample * keep + add`, in shares of 255.
#[derive(Debug)]
struct Mix {
    left: usize,
    top: usize,
    width: usize,
    /// What of a sample is kept, and what is added to it.
    samples: Vec<(u8, u16)>,
}

impl Stamp {
    pub fn new(overlay: &Overlay, width: u32, height: u32) -> Option<Self> {
        let picture = &overlay.picture;
        let most = |side: u32| (f64::from(side) * overlay.scale.clamp(0.0, 1.0)).round().max(1.0);
        let shrink = (most(width) / f64::from(picture.width)).min(most(height) / f64::from(picture.height)).min(1.0);
        let side = |length: u32, most: u32| ((f64::from(length) * shrink).round() as u32).clamp(1, most);
        let (wide, high) = (side(picture.width, width), side(picture.height, height));
        let pixels = picture.multiplied(wide, high)?;

        let (right, bottom) = (width - wide, height - high);
        let (left, top) = match overlay.place {
            Place::Center => (right / 2, bottom / 2),
            Place::TopLeft => (0, 0),
            Place::TopRight => (right, 0),
            Place::BottomLeft => (0, bottom),
            Place::BottomRight => (right, bottom),
        };
        let (left, top, wide, high) = (left as usize, top as usize, wide as usize, high as usize);

        // Brightness, colours and opacity of a pixel of the frame, the colours times opacity.
        let at = |x: usize, y: usize| -> [f64; 4] {
            let inside = (left..left + wide).contains(&x) && (top..top + high).contains(&y);
            if !inside {
                return [0.0; 4];
            }
            let pixel = &pixels[((y - top) * wide + x - left) * 4..][..4];
            let alpha = f64::from(pixel[3]) / 255.0;
            let [luma, blue, red] =
                Weights::BT709.planes([pixel[0], pixel[1], pixel[2]].map(|level| f64::from(level) / 255.0));
            [(16.0 + 219.0 * luma) * alpha, (128.0 + 224.0 * blue) * alpha, (128.0 + 224.0 * red) * alpha, alpha]
        };
        let sample = |add: f64, alpha: f64| ((255.0 * (1.0 - alpha)).round() as u8, (add * 255.0).round() as u16);
        let mut luma = Vec::with_capacity(wide * high);
        for y in top..top + high {
            for x in left..left + wide {
                let [add, _, _, alpha] = at(x, y);
                luma.push(sample(add, alpha));
            }
        }
        let (half_left, half_top) = (left / 2, top / 2);
        let (half_wide, half_high) = ((left + wide).div_ceil(2) - half_left, (top + high).div_ceil(2) - half_top);
        let (mut blue, mut red) = (Vec::new(), Vec::new());
        for y in half_top..half_top + half_high {
            for x in half_left..half_left + half_wide {
                let mut sum = [0.0; 4];
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    for (sum, part) in sum.iter_mut().zip(at(x * 2 + dx, y * 2 + dy)) {
                        *sum += part / 4.0;
                    }
                }
                blue.push(sample(sum[1], sum[3]));
                red.push(sample(sum[2], sum[3]));
            }
        }
        let colors = |samples| Mix { left: half_left, top: half_top, width: half_wide, samples };
        Some(Self { planes: [Mix { left, top, width: wide, samples: luma }, colors(blue), colors(red)] })
    }

    pub fn apply(&self, planes: &mut [PlaneMut; 3]) {
        for (plane, mix) in planes.iter_mut().zip(&self.planes) {
            let rows = plane.data.chunks_mut(plane.stride).skip(mix.top);
            for (row, samples) in rows.zip(mix.samples.chunks_exact(mix.width)) {
                for (sample, &(keep, add)) in row[mix.left..].iter_mut().zip(samples) {
                    let sum = u32::from(*sample) * u32::from(keep) + u32::from(add) + 127;
                    *sample = (sum / 255).min(255) as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn overlay(width: u32, height: u32, pixel: [u8; 4], place: Place, scale: f64) -> Overlay {
        let pixels = pixel.repeat((width * height) as usize);
        Overlay { picture: Picture::new(width, height, pixels).unwrap(), place, scale }
    }

    /// A grey frame of 64 x 32 under the mark, as rows of each plane.
    fn stamped(overlay: &Overlay) -> [Vec<Vec<u8>>; 3] {
        let mut planes = [(64, 32), (32, 16), (32, 16)].map(|(wide, high)| vec![100_u8; (wide + 1) * high]);
        let [luma, blue, red] = &mut planes;
        let mut targets = [(luma, 65), (blue, 33), (red, 33)].map(|(data, stride)| PlaneMut { data, stride });
        Stamp::new(overlay, 64, 32).unwrap().apply(&mut targets);
        let mut rows = [const { Vec::new() }; 3];
        for ((rows, plane), stride) in rows.iter_mut().zip(planes).zip([65, 33, 33]) {
            rows.extend(plane.chunks(stride).map(|row| row[..stride - 1].to_vec()));
        }
        rows
    }

    #[test]
    fn marks_stand_where_they_should() {
        for (place, left, top) in [
            (Place::TopLeft, 0, 0),
            (Place::TopRight, 48, 0),
            (Place::BottomLeft, 0, 24),
            (Place::BottomRight, 48, 24),
            (Place::Center, 24, 12),
        ] {
            // White, larger than a quarter of the frame.
            let [luma, blue, red] = stamped(&overlay(160, 80, [255; 4], place, 0.25));
            for (y, row) in luma.iter().enumerate() {
                for (x, &sample) in row.iter().enumerate() {
                    let under = (left..left + 16).contains(&x) && (top..top + 8).contains(&y);
                    assert_eq!(sample, if under { 235 } else { 100 }, "{place:?} {x} {y}");
                }
            }
            for (y, row) in blue.iter().chain(&red).enumerate() {
                for (x, &sample) in row.iter().enumerate() {
                    let under = (left..left + 16).contains(&(x * 2)) && (top..top + 8).contains(&(y % 16 * 2));
                    assert_eq!(sample, if under { 128 } else { 100 }, "{place:?} {x} {y}");
                }
            }
        }
    }

    #[test]
    fn small_marks_stay_small_and_odd_ones_fade_into_colors() {
        let [luma, blue, _] = stamped(&overlay(5, 3, [255; 4], Place::BottomRight, 1.0));
        assert_eq!(luma.iter().flatten().filter(|&&sample| sample == 235).count(), 15);
        assert_eq!(luma[31][59], 235);
        // A quarter of the colour sample's four pixels is under the mark.
        assert_eq!([blue[15][31], blue[15][29], blue[14][29]], [128, 114, 107]);
    }

    #[test]
    fn marks_let_the_film_shine_through() {
        let [luma, blue, _] = stamped(&overlay(10, 10, [255, 255, 255, 128], Place::Center, 1.0));
        assert_eq!([luma[16][32], blue[8][16]], [168, 114]);
        let [luma, blue, _] = stamped(&overlay(10, 10, [255, 0, 0, 0], Place::Center, 1.0));
        assert_eq!([luma[16][32], blue[8][16]], [100, 100], "invisible");
    }

    #[test]
    fn pngs_of_every_kind_are_read() {
        for (color, depth, data, expected) in [
            (png::ColorType::Rgba, png::BitDepth::Eight, vec![1, 2, 3, 4], [1, 2, 3, 4]),
            (png::ColorType::Rgb, png::BitDepth::Eight, vec![1, 2, 3], [1, 2, 3, 255]),
            (png::ColorType::Rgb, png::BitDepth::Sixteen, vec![1, 0, 2, 0, 3, 0], [1, 2, 3, 255]),
            (png::ColorType::Grayscale, png::BitDepth::One, vec![128], [255, 255, 255, 255]),
            (png::ColorType::GrayscaleAlpha, png::BitDepth::Eight, vec![9, 80], [9, 9, 9, 80]),
        ] {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 1, 1);
            encoder.set_color(color);
            encoder.set_depth(depth);
            encoder.write_header().unwrap().write_image_data(&data).unwrap();
            let picture = Picture::read_png(Cursor::new(file)).unwrap();
            assert_eq!(picture.pixels, expected, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let mut large = Vec::new();
        let encoder = png::Encoder::new(&mut large, MOST_PIXELS + 1, 1);
        drop(encoder.write_header().unwrap());
        for file in [large, b"GIF89a".to_vec(), Vec::new()] {
            assert!(matches!(Picture::read_png(Cursor::new(file)), Err(VideoError::Invalid(_))));
        }
        assert_eq!(Picture::new(2, 2, vec![0; 15]), None);
        assert_eq!(Picture::new(0, 2, Vec::new()), None);
    }
}
