//! The smallest file that still looks like its canvas.
//!
//! In: a canvas, a format, and the SSIMULACRA2 score to keep. Out: the bytes of a file, of the
//! lowest quality found that keeps it.
//!
//! Invariant: at most [`MOST_TRIES`] encodings, whatever the picture, and the same file for the
//! same canvas every time. A score out of reach gives the best there is.
//!
//! The score compares with what the encoder was given, so what the resize lost is not held
//! against it. Its cost grows with the pixels (33 ms for 800 x 533), so of a large picture only
//! bands are compared, at full size: shrinking it would hide the very faults that are looked for.
//! In all, two or three tries cost 0.1 to 0.3 s at 800 x 533 as JPEG or WebP, 0.3 to 1 s as AVIF.

use fast_ssim2::PixelDescriptor;
use fast_ssim2::PixelSlice;
use fast_ssim2::Ssimulacra2Reference;

use super::Limits;
use super::canvas::Canvas;
use super::encode;
use super::encode::Finish;
use super::error::ImageError;
use super::format::OutputFormat;

/// Encodings per picture: enough to come within a step or two of the right quality.
const MOST_TRIES: usize = 5;

const LOWEST: u8 = 30;
const HIGHEST: u8 = 95;

/// A score above the goal by no more than this is near enough.
const NEAR_ENOUGH: f64 = 0.5;

/// Score per step of quality where two tries do not yet tell.
const USUAL_SLOPE: f64 = 0.45;

/// More pixels than this are compared in bands.
const MOST_PIXELS: usize = 1 << 20;
const BAND_ROWS: usize = 64;

const WHITE: [u8; 3] = [255; 3];

/// Encodes the canvas as small as the score allows. A format without losses is encoded once.
pub fn encode(
    canvas: &mut Canvas,
    format: OutputFormat,
    score: f64,
    mut finish: Finish,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, ImageError> {
    if format == OutputFormat::Png {
        return encode::encode(canvas, format, &finish);
    }
    let mut whole = canvas.clone();
    whole.unpack()?;
    whole.flatten(WHITE);
    let (width, _) = whole.size();
    let sample = sampled(whole.pixels(), width as usize);
    let reference = Ssimulacra2Reference::new(&view(&sample, width)?).map_err(ImageError::not_rendered)?;

    let (mut too_low, mut enough) = (LOWEST - 1, HIGHEST + 1);
    let mut best = None;
    let mut tried: Vec<(u8, f64)> = Vec::new();
    // What most pictures come to.
    let mut quality = 78;
    while tried.len() < MOST_TRIES {
        if cancelled() {
            return Err(ImageError::Cancelled);
        }
        finish.quality = quality;
        let file = encode::encode(canvas, format, &finish)?;
        let seen = decoded(&file, limits)?;
        let seen = sampled(seen.pixels(), width as usize);
        let reached = reference.compare(&view(&seen, width)?).map_err(ImageError::not_rendered)?;
        if reached >= score {
            enough = quality;
            best = Some(file);
        } else {
            too_low = quality;
            // Each such try is better than the ones before, and as long as none is good enough it is
            // the best there is.
            if enough > HIGHEST {
                best = Some(file);
            }
        }
        if enough - too_low <= 1 || (0.0..NEAR_ENOUGH).contains(&(reached - score)) {
            break;
        }
        let slope = tried.last().map_or(USUAL_SLOPE, |&(before, was)| {
            ((reached - was) / (f64::from(quality) - f64::from(before))).clamp(0.1, 3.0)
        });
        tried.push((quality, reached));
        // Aimed a little above the goal: a miss from above still counts.
        let step = ((score + NEAR_ENOUGH / 2.0 - reached) / slope).round();
        quality = (f64::from(quality) + step).clamp(f64::from(too_low + 1), f64::from(enough - 1)) as u8;
    }
    best.ok_or_else(|| ImageError::not_rendered("no quality was tried"))
}

/// The pixels of a file that was just encoded.
fn decoded(file: &[u8], limits: &Limits) -> Result<Canvas, ImageError> {
    let mut canvas = super::whole(file, limits)?;
    canvas.unpack()?;
    canvas.flatten(WHITE);
    Ok(canvas)
}

/// All rows, or bands evenly spread over a large picture, one below the other.
fn sampled(pixels: &[u8], width: usize) -> Vec<u8> {
    let rows = pixels.len() / (width * 3);
    let bands = (MOST_PIXELS / (width * BAND_ROWS)).max(1);
    if rows * width <= MOST_PIXELS || rows <= bands * BAND_ROWS {
        return pixels.to_vec();
    }
    let spare = rows - bands * BAND_ROWS;
    let starts = (0..bands).map(|band| band * BAND_ROWS + spare * (2 * band + 1) / (2 * bands));
    starts.filter_map(|row| pixels.get(row * width * 3..(row + BAND_ROWS) * width * 3)).flatten().copied().collect()
}

fn view(pixels: &[u8], width: u32) -> Result<PixelSlice<'_>, ImageError> {
    let stride = width as usize * 3;
    let rows = (pixels.len() / stride) as u32;
    PixelSlice::new(pixels, width, rows, stride, PixelDescriptor::RGB8_SRGB).map_err(ImageError::not_rendered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_spread_over_the_picture() {
        let (width, rows) = (4096, 1000);
        let pixels: Vec<u8> = (0..rows).flat_map(|row| vec![(row / 4) as u8; width * 3]).collect();
        let sample = sampled(&pixels, width);
        assert_eq!(sample.len(), 4 * BAND_ROWS * width * 3);
        let firsts: Vec<u8> = sample.chunks(BAND_ROWS * width * 3).map(|band| band[0]).collect();
        assert_eq!(firsts, [23, 85, 148, 210]);
        assert_eq!(sampled(&pixels[..width * 300], width), &pixels[..width * 300]);
    }
}
