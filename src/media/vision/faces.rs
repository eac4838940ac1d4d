//! Where the faces are.
//!
//! In: packed RGB. Out: faces in shares of the picture's sides, the weightiest first.
//!
//! Two networks of the `BlazeFace` family work together. The larger one looks at the whole
//! picture, and, where that shows no face or small ones only, at overlapping tiles of it. It
//! also sees faces in coffee cups; so the smaller one looks again, closely, at every find, and
//! only what both believe in counts.
//!
//! Invariant: numbers that are not finite, or lie outside, never leave this file.
//!
//! Tuned for a crop that somebody waits for, not for a catalogue: a face needs about a
//! twentieth of the longer side to be found.
#![expect(clippy::indexing_slicing, reason = "every index is derived from the networks' fixed shapes")]

use std::io::Cursor;
use std::sync::Arc;
use std::sync::OnceLock;

use fast_image_resize::FilterType;
use fast_image_resize::PixelType;
use fast_image_resize::ResizeAlg;
use fast_image_resize::ResizeOptions;
use fast_image_resize::Resizer;
use fast_image_resize::images::Image;
use fast_image_resize::images::ImageRef;
use tract_onnx::prelude::*;

/// From here on the larger network's opinion is worth a second look.
const SUSPECTED: f32 = 0.6;
/// From here on the smaller network's opinion settles it.
const BELIEVED: f32 = 0.75;
/// Second looks at most; a crowd has no single face that a crop must hold.
const MOST_LOOKS: usize = 12;
/// A picture is worth tiles when its shorter side has this many pixels …
const TILES_FROM: u32 = 480;
/// … and no face in it is this large a share of the longer side.
const LARGE: f32 = 0.16;
/// A tile's share of a side. Two tiles overlap by a sixth of the side.
const TILE: f64 = 7.0 / 12.0;

/// A face, in shares of the picture's sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
    /// How sure the networks are, up to 1.
    pub score: f32,
    /// Left and right as seen, when the face is upright.
    pub eyes: [(f32, f32); 2],
}

impl Face {
    /// How much it matters: size times certainty.
    pub fn weight(&self) -> f32 {
        self.width * self.height * self.score
    }
}

/// Finds the faces of a picture, the weightiest first. A picture that cannot be looked at
/// has none.
pub fn find(rgb: &[u8], width: u32, height: u32) -> Vec<Face> {
    let Ok(picture) = ImageRef::new(width, height, rgb, PixelType::U8x3) else { return Vec::new() };
    let (Some(finder), Some(judge)) = (finder(), judge()) else { return Vec::new() };
    let whole = Square::around(f64::from(width), f64::from(height));
    let mut faces = confirmed(&picture, judge, finder.look(&picture, whole));
    let largest = faces.iter().map(|face| face.side).fold(0.0, f64::max);
    if width.min(height) >= TILES_FROM && largest < f64::from(width.max(height)) * f64::from(LARGE) {
        let mut seen = Vec::new();
        for (right, down) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
            let (wide, high) = (f64::from(width) * TILE, f64::from(height) * TILE);
            let corner = (f64::from(width) * (1.0 - TILE) * right, f64::from(height) * (1.0 - TILE) * down);
            let tile = Square::around(wide, high).moved(corner);
            seen.extend(finder.look(&picture, tile).into_iter().filter(|find| {
                // Half a face at the inner edge of a tile is a whole one in its neighbour.
                find.x > corner.0 && find.x < corner.0 + wide && find.y > corner.1 && find.y < corner.1 + high
            }));
        }
        // What is known already needs no second look.
        seen.retain(|find| faces.iter().all(|face| face.overlap(find) < 0.3));
        faces.extend(confirmed(&picture, judge, distinct(seen)));
    }
    let (wide, high) = (f64::from(width), f64::from(height));
    let mut faces: Vec<Face> = distinct(faces).iter().map(|find| find.shares(wide, high)).collect();
    faces.sort_by(|a, b| b.weight().total_cmp(&a.weight()));
    faces
}

/// Keeps what the judge believes in, too, at the place where the judge sees it.
fn confirmed(picture: &ImageRef, judge: &Network, mut finds: Vec<Find>) -> Vec<Find> {
    finds.sort_by(|a, b| (b.side * b.side * b.score).total_cmp(&(a.side * a.side * a.score)));
    finds.truncate(MOST_LOOKS);
    let look_again = |find: Find| {
        let seen = judge.look(picture, Square::centred(find.x, find.y, find.side * 2.0));
        let best =
            seen.into_iter().filter(|again| again.overlap(&find) > 0.3).max_by(|a, b| a.score.total_cmp(&b.score))?;
        (best.score >= f64::from(BELIEVED)).then_some(best)
    };
    finds.into_iter().filter_map(look_again).collect()
}

/// A find, in pixels of the picture: a square around its middle.
#[derive(Clone, Debug)]
struct Find {
    x: f64,
    y: f64,
    side: f64,
    eyes: [(f64, f64); 2],
    score: f64,
}

impl Find {
    /// The part that two finds share, of all that they cover.
    fn overlap(&self, other: &Find) -> f64 {
        let shared = |a: f64, b: f64| {
            ((a + self.side / 2.0).min(b + other.side / 2.0) - (a - self.side / 2.0).max(b - other.side / 2.0)).max(0.0)
        };
        let both = shared(self.x, other.x) * shared(self.y, other.y);
        both / (self.side * self.side + other.side * other.side - both)
    }

    fn shares(&self, wide: f64, high: f64) -> Face {
        let edge = |at: f64, side: f64| (at / side).clamp(0.0, 1.0) as f32;
        let (left, right) = (edge(self.x - self.side / 2.0, wide), edge(self.x + self.side / 2.0, wide));
        let (top, bottom) = (edge(self.y - self.side / 2.0, high), edge(self.y + self.side / 2.0, high));
        Face {
            x: left,
            y: top,
            width: right - left,
            height: bottom - top,
            score: self.score as f32,
            eyes: self.eyes.map(|(x, y)| (edge(x, wide), edge(y, high))),
        }
    }
}

/// One find for each thing found: the best of those that overlap.
fn distinct(mut finds: Vec<Find>) -> Vec<Find> {
    finds.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Find> = Vec::new();
    for find in finds {
        if kept.iter().all(|better| better.overlap(&find) < 0.3) {
            kept.push(find);
        }
    }
    kept
}

/// The part of a picture that a network looks at; what lies outside the picture is black.
#[derive(Clone, Copy)]
struct Square {
    x: f64,
    y: f64,
    side: f64,
}

impl Square {
    /// The smallest around a rectangle at the corner.
    fn around(wide: f64, high: f64) -> Square {
        let side = wide.max(high);
        Square { x: (wide - side) / 2.0, y: (high - side) / 2.0, side }
    }

    fn centred(x: f64, y: f64, side: f64) -> Square {
        Square { x: x - side / 2.0, y: y - side / 2.0, side }
    }

    fn moved(self, (right, down): (f64, f64)) -> Square {
        Square { x: self.x + right, y: self.y + down, side: self.side }
    }

    /// Scales it to a square of pixels.
    fn scaled(self, picture: &ImageRef, pixels: u32) -> Option<Vec<u8>> {
        let zoom = f64::from(pixels) / self.side;
        // The part of the square that lies in the picture, and where that is among the pixels.
        let part = |at: f64, length: u32| {
            let (from, to) = (at.max(0.0), (at + self.side).min(f64::from(length)));
            let first = ((from - at) * zoom).round().clamp(0.0, f64::from(pixels) - 1.0) as u32;
            let after = (((to - at) * zoom).round() as u32).clamp(first + 1, pixels);
            (from, to - from, first as usize, after - first)
        };
        let (left, wide, first_column, columns) = part(self.x, picture.width());
        let (top, high, first_row, rows) = part(self.y, picture.height());
        if wide < 1.0 || high < 1.0 {
            return None;
        }
        let mut inner = Image::new(columns, rows, PixelType::U8x3);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .use_alpha(false)
            .crop(left, top, wide, high);
        Resizer::new().resize(picture, &mut inner, &options).ok()?;
        let mut square = vec![0; (pixels * pixels * 3) as usize];
        let (stride, kept) = (pixels as usize * 3, columns as usize * 3);
        for (row, from) in inner.buffer().chunks_exact(kept).enumerate() {
            square[(first_row + row) * stride + first_column * 3..][..kept].copy_from_slice(from);
        }
        Some(square)
    }
}

/// A `BlazeFace`: a square picture in; for each of 896 anchors, a score and how far from the
/// anchor the face, its size and six of its points are.
struct Network {
    plan: Arc<TypedSimplePlan>,
    /// Of its input, in pixels.
    side: u32,
}

/// For whole pictures and tiles.
fn finder() -> Option<&'static Network> {
    static FINDER: OnceLock<Option<Network>> = OnceLock::new();
    FINDER.get_or_init(|| Network::read(include_bytes!("models/blazeface-back-256.onnx"), 256).ok()).as_ref()
}

/// For a single face that fills half of what it looks at.
fn judge() -> Option<&'static Network> {
    static JUDGE: OnceLock<Option<Network>> = OnceLock::new();
    JUDGE.get_or_init(|| Network::read(include_bytes!("models/blazeface-front-128.onnx"), 128).ok()).as_ref()
}

impl Network {
    fn read(onnx: &[u8], side: u32) -> TractResult<Network> {
        let mut model = tract_onnx::onnx().model_for_read(&mut Cursor::new(onnx))?;
        model.set_input_fact(0, f32::fact([1, side as usize, side as usize, 3]).into())?;
        Ok(Network { plan: model.into_optimized()?.into_runnable()?, side })
    }

    /// What it sees in this square, each thing once.
    fn look(&self, picture: &ImageRef, square: Square) -> Vec<Find> {
        let seen = square.scaled(picture, self.side).and_then(|pixels| self.run(&pixels, square).ok());
        distinct(seen.unwrap_or_default())
    }

    fn run(&self, pixels: &[u8], square: Square) -> TractResult<Vec<Find>> {
        let side = self.side as usize;
        let input: Vec<f32> = pixels.iter().map(|&value| f32::from(value) / 127.5 - 1.0).collect();
        let input = tract_ndarray::Array4::from_shape_vec((1, side, side, 3), input)?.into_tensor();
        let output = self.plan.run(tvec!(input.into()))?;
        // In fine and coarse cells: scores, scores, boxes, boxes.
        let mut finds = Vec::new();
        for (grid, cells, anchors) in [(0, 16, 2), (1, 8, 6)] {
            let scores = output[grid].to_plain_array_view::<f32>()?;
            let boxes = output[grid + 2].to_plain_array_view::<f32>()?;
            for (at, (&score, numbers)) in
                scores.iter().zip(boxes.as_slice().unwrap_or_default().chunks_exact(16)).enumerate()
            {
                let score = 1.0 / (1.0 + (-score).exp());
                if score < SUSPECTED {
                    continue;
                }
                let cell = at / anchors;
                let anchor =
                    (((cell % cells) as f64 + 0.5) / cells as f64, ((cell / cells) as f64 + 0.5) / cells as f64);
                let point = |at: usize| {
                    let share = |n: f32, anchor: f64| anchor + f64::from(n) / f64::from(self.side);
                    let (x, y) = (share(numbers[at], anchor.0), share(numbers[at + 1], anchor.1));
                    (square.x + x * square.side, square.y + y * square.side)
                };
                let (x, y) = point(0);
                let face = f64::from(numbers[2].max(numbers[3])) / f64::from(self.side) * square.side;
                let find = Find { x, y, side: face, eyes: [point(4), point(6)], score: f64::from(score) };
                if face >= 1.0 && [x, y, face].iter().all(|n| n.is_finite()) {
                    finds.push(find);
                }
            }
        }
        Ok(finds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One face, a little left of the middle, near the top.
    fn astronaut() -> (Vec<u8>, u32, u32) {
        let jpeg = include_bytes!("../../../tests/media/faces/astronaut.jpg");
        let picture = turbojpeg::decompress(jpeg, turbojpeg::PixelFormat::RGB).unwrap();
        (picture.pixels, picture.width as u32, picture.height as u32)
    }

    fn near(a: f32, b: f32) -> bool {
        (a - b).abs() < 0.03
    }

    #[test]
    fn one_face_and_its_eyes() {
        let (rgb, width, height) = astronaut();
        let faces = find(&rgb, width, height);
        assert_eq!(faces.len(), 1, "{faces:?}");
        let Face { x, y, width, height, score, eyes } = faces[0];
        assert!(near(x, 0.34) && near(y, 0.14) && near(width, 0.2) && near(height, 0.2) && score > 0.75, "{faces:?}");
        assert!(near(eyes[0].0, 0.40) && near(eyes[0].1, 0.20) && near(eyes[1].0, 0.48), "{faces:?}");
    }

    #[test]
    fn mirrored_and_turned() {
        let (rgb, width, height) = astronaut();
        let face = &find(&rgb, width, height)[0];
        let mirrored: Vec<u8> = rgb
            .chunks_exact(width as usize * 3)
            .flat_map(|row| row.as_chunks::<3>().0.iter().rev().flatten().copied())
            .collect();
        let twin = &find(&mirrored, width, height)[0];
        assert!(near(twin.x, 1.0 - face.x - face.width) && near(twin.y, face.y), "{twin:?}");
        let side = width as usize;
        let turned: Vec<u8> =
            (0..side * side).flat_map(|i| rgb.as_chunks::<3>().0[(side - 1 - i % side) * side + i / side]).collect();
        let faces = find(&turned, height, width);
        // A face on its side may be missed; it may not be seen elsewhere.
        assert!(faces.iter().all(|f| near(f.x, 1.0 - face.y - face.height) && near(f.y, face.x)), "{faces:?}");
    }

    #[test]
    fn small_faces_are_found_by_tiles() {
        let (rgb, side, _) = astronaut();
        let (width, height) = (2400_u32, 1600_u32);
        let mut scene = vec![100; (width * height * 3) as usize];
        for (left, top) in [(60, 100), (1000, 600), (1900, 1100)] {
            for row in 0..side {
                let to = ((top + row) * width + left) as usize * 3;
                scene[to..to + side as usize * 3]
                    .copy_from_slice(&rgb[(row * side * 3) as usize..][..side as usize * 3]);
            }
        }
        let mut across: Vec<f32> = find(&scene, width, height).iter().map(|face| face.x * 2400.0).collect();
        across.sort_by(f32::total_cmp);
        assert_eq!(across.len(), 3, "{across:?}");
        for (found, left) in across.iter().zip([60.0, 1000.0, 1900.0]) {
            assert!((found - left - 136.0).abs() < 15.0, "{across:?}");
        }
    }

    #[test]
    fn no_faces_where_there_are_none() {
        type Scene = fn(u32, u32) -> [u8; 3];
        let scenes: [(&str, Scene); 10] = [
            ("black", |_, _| [0; 3]),
            ("white", |_, _| [255; 3]),
            ("slope", |x, y| [(x / 3) as u8, (y / 3) as u8, 90]),
            ("noise", |x, y| {
                [(x.wrapping_mul(7919) ^ y.wrapping_mul(104_729)).wrapping_mul(2_654_435_761).to_be_bytes()[0]; 3]
            }),
            ("stripes", |x, _| if x % 40 < 20 { [200, 30, 30] } else { [240; 3] }),
            ("chessboard", |x, y| if (x / 60 + y / 60) % 2 == 0 { [20; 3] } else { [230; 3] }),
            (
                "disc",
                |x, y| if x.abs_diff(320).pow(2) + y.abs_diff(240).pow(2) < 22_500 { [220, 180, 150] } else { [60; 3] },
            ),
            ("rings", |x, y| [((x.abs_diff(320).pow(2) + y.abs_diff(240).pow(2)) / 300) as u8; 3]),
            ("dots", |x, y| if (x % 50).abs_diff(25) + (y % 50).abs_diff(25) < 12 { [0; 3] } else { [225, 190, 160] }),
            ("horizon", |x, y| if y > 240 { [40, 110, 40] } else { [130, 170, 230 - (x / 20) as u8] }),
        ];
        for (name, scene) in scenes {
            let rgb: Vec<u8> = (0..480).flat_map(|y| (0..640).flat_map(move |x| scene(x, y))).collect();
            assert_eq!(find(&rgb, 640, 480), [], "{name}");
        }
    }

    #[test]
    fn odd_sizes_and_short_pixels_are_no_faces() {
        for (width, height) in [(1, 1), (1, 900), (900, 1), (3, 2)] {
            assert_eq!(find(&vec![128; width as usize * height as usize * 3], width, height), []);
        }
        assert_eq!(find(&[0; 5], 100, 100), []);
        assert_eq!(find(&[], 0, 0), []);
    }

    #[test]
    fn the_networks_are_those_of_the_card() {
        use sha2::Digest;
        let card = include_str!("models/MODEL-CARD.md");
        for (name, bytes) in [
            ("blazeface-back-256.onnx", &include_bytes!("models/blazeface-back-256.onnx")[..]),
            ("blazeface-front-128.onnx", &include_bytes!("models/blazeface-front-128.onnx")[..]),
        ] {
            let digest = crate::support::id::hex(&sha2::Sha256::digest(bytes));
            assert!(card.contains(&format!("| {name} | {digest} |")), "{name}: {digest}");
        }
    }
}
