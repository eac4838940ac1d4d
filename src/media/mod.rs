//! Media: pixels, frames and what is in them. Pure and blocking: bytes in, bytes out.
//!
//! Everything below this module that touches a stranger's bytes runs in the worker process
//! alone. What crosses the border between the server and the worker are the [`Request`] and
//! the [`Reply`] of this file, as JSON, beside two descriptors: the source and the output.

pub mod imaging;

use serde::Deserialize;
use serde::Serialize;

use crate::media::imaging::Facts;
use crate::media::imaging::ImageError;
use crate::media::imaging::Limits;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::Recipe;
use crate::media::imaging::container::VideoFacts;

/// What a worker can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// What is this picture?
    Probe { limits: Limits },
    /// What is this film or recording?
    ProbeContainer,
    /// Make a picture of it, by the canonical recipe.
    Render { recipe: String, format: OutputFormat, limits: Limits },
    /// Make the base image: upright, sRGB, fitting a square of this side.
    Base { side: u32, limits: Limits },
}

/// What it answers. A picture itself is in the output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Facts(Box<Facts>),
    Container(Option<VideoFacts>),
    Rendered { format: OutputFormat, width: u32, height: u32 },
    Refused(ImageError),
}

/// Answers a request; the worker's whole work. A picture goes to `output`.
pub fn answer(request: Request, source: &[u8], output: &mut impl std::io::Write) -> Reply {
    let rendered = |made: Result<imaging::Rendered, ImageError>, output: &mut dyn std::io::Write| match made {
        Ok(picture) => match output.write_all(&picture.bytes) {
            Ok(()) => Reply::Rendered { format: picture.format, width: picture.width, height: picture.height },
            Err(e) => Reply::Refused(ImageError::NotRendered(format!("the output cannot be written: {e}"))),
        },
        Err(e) => Reply::Refused(e),
    };
    // The server kills a worker whose answer nobody wants; there is nobody else to ask.
    let never = || false;
    match request {
        Request::Probe { limits } => match imaging::probe(source, &limits) {
            Ok(facts) => Reply::Facts(Box::new(facts)),
            Err(e) => Reply::Refused(e),
        },
        Request::ProbeContainer => Reply::Container(imaging::container::probe_video(source)),
        Request::Render { recipe, format, limits } => match Recipe::from_canonical(&recipe) {
            Ok(recipe) => rendered(imaging::render(source, &recipe.with_format(format), &limits, &never), output),
            Err(e) => Reply::Refused(ImageError::NotRendered(e.to_string())),
        },
        Request::Base { side, limits } => rendered(imaging::base(source, side, &limits), output),
    }
}
