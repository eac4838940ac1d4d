//! Brings decoded frames into the shape an encoder wants, in one pass.
//!
//! In: frames of any size, shape of pixels, sampling of colour, depth and colour space. Out:
//! I420 of the size that was asked for, with square pixels, eight bits, BT.709 and limited
//! range, upright, with the mark laid over.
//!
//! Invariant: frames that are right already go by untouched.
//!
//! `planes` has the work itself and knows nothing of GStreamer; `element` gives it a pair of
//! pads. Scaling in planes with `fast_image_resize` costs less than `videoconvertscale` and
//! keeps more of the film.

mod color;
mod element;
mod geometry;
mod mark;
mod planes;
mod scaling;
mod tone;
mod turn;

use gstreamer as gst;
use gstreamer_video::VideoOrientationMethod;

use super::Fit;
use super::Place;
use super::VideoError;
pub use mark::Picture;
pub use turn::Turn;

/// What to make of every frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Of the result, even.
    pub width: u32,
    /// Of the result, even.
    pub height: u32,
    pub fit: Fit,
    /// Around a padded picture: red, green, blue.
    pub padding: [u8; 3],
    /// A padded picture may be larger than it was.
    pub upscale: bool,
    /// Sets the film upright. Width and height are those of the upright picture.
    pub turn: Turn,
    pub mark: Option<Overlay>,
}

/// An image to lay over every frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    pub picture: Picture,
    pub place: Place,
    /// The largest share of the frame's width and height. The image is never enlarged.
    pub scale: f64,
}

impl From<VideoOrientationMethod> for Turn {
    fn from(orientation: VideoOrientationMethod) -> Self {
        match orientation {
            VideoOrientationMethod::_90r => Self::RIGHT,
            VideoOrientationMethod::_180 => Self::HALF,
            VideoOrientationMethod::_90l => Self::LEFT,
            VideoOrientationMethod::Horiz => Self::MIRROR,
            VideoOrientationMethod::Vert => Self::FLIP,
            VideoOrientationMethod::UlLr => Self::DIAGONAL,
            VideoOrientationMethod::UrLl => Self::OTHER_DIAGONAL,
            _ => Self::NONE,
        }
    }
}

/// An element with one pad on either side that does this work.
///
/// Films whose pixels it does not take (RGB, 4:1:1, 12 bit) need a `videoconvert` in front,
/// interlaced ones a `deinterlace`.
pub fn element(work: Work) -> Result<gst::Element, VideoError> {
    element::make(work)
}
