//! Media: pixels, frames and what is in them. Pure and blocking: bytes in, bytes out.
//!
//! Everything below this module that touches a stranger's bytes runs in the worker process
//! alone. What crosses the border between the server and the worker are the [`Request`] and
//! the [`Reply`] of this file, as JSON, beside two descriptors: the source and the output.

pub mod imaging;
// Films have a program of their own; what fuzzes the rest is spared GStreamer.
#[cfg(not(fuzzing))]
pub mod video;
pub mod vision;

use std::io::Write;

use serde::Deserialize;
use serde::Serialize;

use crate::media::imaging::Facts;
use crate::media::imaging::ImageError;
use crate::media::imaging::Impression;
use crate::media::imaging::Limits;
use crate::media::imaging::Order;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::Rendered;
use crate::media::imaging::Spot;
use crate::media::imaging::container::VideoFacts;
use crate::media::imaging::params::watermark::Placement;
use crate::media::vision::faces;

/// What a worker can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// What is this picture?
    Probe { limits: Limits },
    /// What is this film or recording?
    ProbeContainer,
    /// Make pictures of it, one for each order; a second file is the mark to lay over them.
    Render { orders: Vec<Order>, limits: Limits },
    /// Look at it, and make the base image if it is larger: upright, sRGB, fitting a square of
    /// this side.
    Base { side: u32, limits: Limits },
    /// Make the pack of deep-zoom tiles; a second file is the mark to lay over the picture, at this
    /// place and of at most this share of its sides.
    DeepZoom { mark: Option<(Placement, f64)>, limits: Limits },
}

/// What it answers. Pictures themselves are in the output, one behind the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Facts(Box<Facts>),
    Container(Option<VideoFacts>),
    Rendered(Vec<Result<Made, ImageError>>),
    /// The base image, if one was made.
    Base {
        made: Option<Made>,
        impression: Impression,
    },
    DeepZoom {
        format: OutputFormat,
        width: u32,
        height: u32,
        tiles: u64,
    },
    Refused(ImageError),
}

/// A picture in the output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    pub format: OutputFormat,
    pub width: u32,
    pub height: u32,
    /// Where it begins in the output.
    pub offset_bytes: u64,
    pub size_bytes: u64,
}

/// Answers a request about the first source; the worker's whole work. Pictures go to `output`.
pub fn answer(request: Request, sources: &[&[u8]], output: &mut impl Write) -> Reply {
    let source = sources.first().copied().unwrap_or_default();
    let mut output = Written { output, bytes: 0 };
    match request {
        Request::Probe { limits } => match imaging::probe(source, &limits) {
            Ok(facts) => Reply::Facts(Box::new(facts)),
            Err(e) => Reply::Refused(e),
        },
        Request::ProbeContainer => Reply::Container(imaging::container::probe_video(source)),
        Request::Render { orders, limits } => {
            let mark = sources.get(1).copied();
            Reply::Rendered(imaging::render_all(source, mark, &orders, spots, &limits, |made| output.add(made)))
        }
        Request::Base { side, limits } => {
            let made = imaging::base(source, side, &limits).and_then(|imaging::Base { picture, impression }| {
                Ok(Reply::Base { made: picture.map(|picture| output.add(picture)).transpose()?, impression })
            });
            made.unwrap_or_else(Reply::Refused)
        }
        Request::DeepZoom { mark, limits } => {
            let mark = mark.zip(sources.get(1)).map(|((placement, scale), file)| (*file, placement, scale));
            match imaging::deepzoom::make(source, mark, &limits, output.output) {
                Ok(imaging::deepzoom::Made { format, width, height, tiles }) => {
                    Reply::DeepZoom { format, width, height, tiles }
                }
                Err(e) => Reply::Refused(e),
            }
        }
    }
}

/// The output, and how much of it is written.
struct Written<'a, W> {
    output: &'a mut W,
    bytes: u64,
}

impl<W: Write> Written<'_, W> {
    fn add(&mut self, picture: Rendered) -> Result<Made, ImageError> {
        let Rendered { bytes, format, width, height } = picture;
        let (offset_bytes, size_bytes) = (self.bytes, bytes.len() as u64);
        match self.output.write_all(&bytes) {
            Ok(()) => {
                self.bytes += size_bytes;
                Ok(Made { format, width, height, offset_bytes, size_bytes })
            }
            Err(e) => Err(ImageError::NotRendered(format!("the output cannot be written: {e}"))),
        }
    }
}

/// Faces, as a crop sees them.
fn spots(rgb: &[u8], width: u32, height: u32) -> Vec<Spot> {
    let spot = |face: faces::Face| Spot {
        x: face.x,
        y: face.y,
        width: face.width,
        height: face.height,
        weight: face.weight(),
        eye_line: f32::midpoint(face.eyes[0].1, face.eyes[1].1),
    };
    faces::find(rgb, width, height).into_iter().map(spot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &[u8], recipe: &str, focus: Option<(f32, f32)>) -> Vec<u8> {
        let recipe = imaging::Recipe::from_canonical(recipe).unwrap();
        let order = Order { focus, ..Order::new(recipe, OutputFormat::Jpeg) };
        let mut output = Vec::new();
        let reply = answer(Request::Render { orders: vec![order], limits: Limits::default() }, &[source], &mut output);
        assert!(matches!(&reply, Reply::Rendered(made) if made[0].is_ok()), "{reply:?}");
        output
    }

    #[test]
    fn a_crop_holds_the_face_from_the_original_and_from_its_base_and_a_named_point_wins() {
        let source = include_bytes!("../../tests/media/faces/astronaut.jpg");
        let mut base = Vec::new();
        answer(Request::Base { side: 360, limits: Limits::default() }, &[source], &mut base);
        for source in [&source[..], &base] {
            for gravity in ["face", "smart"] {
                let made = rendered(source, &format!("crop=360,144,{gravity}"), None);
                let picture = turbojpeg::decompress(&made, turbojpeg::PixelFormat::RGB).unwrap();
                let faces = faces::find(&picture.pixels, 360, 144);
                let [face] = &faces[..] else { panic!("{gravity}: {faces:?}") };
                assert!(face.y > 0.05 && face.y + face.height < 0.95, "{gravity}: {face:?}");
                assert!((face.eyes[0].1 - 0.4).abs() < 0.15, "{gravity}: {face:?}");
            }
            let bottom = rendered(source, "crop=360,144,face", Some((0.5, 1.0)));
            assert_eq!(bottom, rendered(source, "crop=360,144,south", None));
        }
    }
}
