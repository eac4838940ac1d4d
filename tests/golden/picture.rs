//! A picture as a stranger sees it, and how far two pictures are apart.
//!
//! Decoding takes other programs than the code under test does, where there are any: zune-jpeg, image-webp,
//! and the program avifdec. What is compared is what an eye compares: colour on a dark and on a bright ground,
//! each place averaged with its neighbours, so that noise of one pixel counts little and a shift much.

use std::fmt;
use std::process::Command;

/// Red, green, blue and opacity of each pixel, from 0 to 255.
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pixels: Vec<[f32; 4]>,
}

/// How far two pictures of one size are apart, in steps of 255.
#[derive(Clone, Copy)]
pub struct Apart {
    pub mean: f32,
    /// At the worst place.
    pub most: f32,
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} on average, {:.1} at the worst place", self.mean, self.most)
    }
}

impl Picture {
    /// Decodes a JPEG, PNG, WebP or AVIF.
    pub fn of(bytes: &[u8]) -> Picture {
        match bytes {
            [0xff, 0xd8, ..] => {
                let mut decoder = zune_jpeg::JpegDecoder::new(std::io::Cursor::new(bytes));
                let samples = decoder.decode().unwrap();
                let (width, height) = decoder.dimensions().unwrap();
                let channels = samples.len() / (width * height);
                let colour = |pixel: &[u8]| [pixel[0], pixel[channels / 2], pixel[channels - 1]];
                let pixels = samples.chunks_exact(channels).map(|pixel| {
                    let [red, green, blue] = colour(pixel).map(f32::from);
                    [red, green, blue, 255.0]
                });
                Picture { width, height, pixels: pixels.collect() }
            }
            _ if bytes.get(4..8) == Some(b"ftyp") => Picture::of(&avif_as_png(bytes)),
            _ => {
                let decoded = image::load_from_memory(bytes).unwrap().to_rgba8();
                let pixels = decoded.pixels().map(|pixel| pixel.0.map(f32::from)).collect();
                Picture { width: decoded.width() as usize, height: decoded.height() as usize, pixels }
            }
        }
    }

    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    pub fn apart(&self, other: &Picture) -> Apart {
        assert_eq!(self.size(), other.size());
        let mut sum = 0.0;
        let mut most: f32 = 0.0;
        for ground in [0.0, 255.0] {
            for (ours, theirs) in self.seen_on(ground).iter().zip(other.seen_on(ground)) {
                for (one, two) in ours.iter().zip(theirs) {
                    sum += f64::from((one - two).abs());
                    most = most.max((one - two).abs());
                }
            }
        }
        Apart { mean: (sum / (self.pixels.len() * 6) as f64) as f32, most }
    }

    /// Laid on a grey ground and averaged over three by three pixels.
    fn seen_on(&self, ground: f32) -> Vec<[f32; 3]> {
        let laid: Vec<[f32; 3]> = self
            .pixels
            .iter()
            .map(|&[red, green, blue, alpha]| [red, green, blue].map(|c| ground + (c - ground) * alpha / 255.0))
            .collect();
        let mut seen = Vec::with_capacity(laid.len());
        for y in 0..self.height {
            for x in 0..self.width {
                let mut sum = [0.0; 3];
                let mut count = 0.0;
                for row in y.saturating_sub(1)..(y + 2).min(self.height) {
                    for pixel in
                        &laid[row * self.width + x.saturating_sub(1)..row * self.width + (x + 2).min(self.width)]
                    {
                        (0..3).for_each(|channel| sum[channel] += pixel[channel]);
                        count += 1.0;
                    }
                }
                seen.push(sum.map(|channel| channel / count));
            }
        }
        seen
    }
}

fn avif_as_png(bytes: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("p.avif"), folder.path().join("p.png"));
    std::fs::write(&from, bytes).unwrap();
    let done =
        Command::new("avifdec").arg(&from).arg(&to).output().expect("this test needs `avifdec`: install libavif-bin");
    assert!(done.status.success(), "avifdec: {}", String::from_utf8_lossy(&done.stdout));
    std::fs::read(to).unwrap()
}
