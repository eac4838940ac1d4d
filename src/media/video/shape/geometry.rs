//! Which part of a film's frame comes to lie where.
//!
//! In: the size of a frame and the shape of its pixels, and the work. Out: where the picture
//! lies in the result, and which part of the frame it shows.
//!
//! Invariant: the picture lies inside the result and its corners and sides are even, so that
//! no colour sample is shared with the bars; the part lies inside the frame.

use super::Work;
use crate::media::video::Fit;

/// Where a picture lies, in pixels of the upright result; all even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

/// A part of a frame, in its own pixels and as it was stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

/// A shape may differ by so many pixels from that of the box before bars are added to it.
const TOLERANCE_PIXELS: f64 = 2.5;

/// Lays a frame of this size, its pixels of that shape, into the result.
pub fn lay(width: u32, height: u32, pixel_aspect: (u32, u32), work: &Work) -> (Area, Part) {
    let (mut wide, mut high) = (f64::from(width), f64::from(height));
    let whole = Part { left: 0.0, top: 0.0, width: wide, height: high };
    let (numerator, denominator) = (f64::from(pixel_aspect.0.max(1)), f64::from(pixel_aspect.1.max(1)));
    if numerator > denominator {
        wide *= numerator / denominator;
    } else {
        high *= denominator / numerator;
    }
    if work.turn.transposes() {
        (wide, high) = (high, wide);
    }
    let full = Area { left: 0, top: 0, width: work.width, height: work.height };
    let (box_wide, box_high) = (f64::from(work.width), f64::from(work.height));
    let near = (box_wide - box_high * wide / high).abs() < TOLERANCE_PIXELS
        || (box_high - box_wide * high / wide).abs() < TOLERANCE_PIXELS;
    match work.fit {
        Fit::Scale => (full, whole),
        Fit::Preserve if near => (full, whole),
        Fit::Preserve | Fit::Pad => {
            let mut scale = (box_wide / wide).min(box_high / high);
            if work.fit == Fit::Pad && !work.upscale {
                scale = scale.min(1.0);
            }
            let side = |length: f64, most: u32| even(length * scale).clamp(2, most.max(2));
            let (width, height) = (side(wide, work.width), side(high, work.height));
            let before = |room: u32, side: u32| room.saturating_sub(side) / 4 * 2;
            (Area { left: before(work.width, width), top: before(work.height, height), width, height }, whole)
        }
        Fit::Crop => {
            // Shares of the upright frame that remain.
            let (mut across, mut down) = (1.0, 1.0);
            if wide * box_high > high * box_wide {
                across = (high * box_wide / box_high / wide).min(1.0);
            } else {
                down = (wide * box_high / box_wide / high).min(1.0);
            }
            if work.turn.transposes() {
                (across, down) = (down, across);
            }
            let (kept_width, kept_height) = (whole.width * across, whole.height * down);
            let part = Part {
                left: (whole.width - kept_width) / 2.0,
                top: (whole.height - kept_height) / 2.0,
                width: kept_width,
                height: kept_height,
            };
            (full, part)
        }
    }
}

/// The nearest even number.
fn even(length: f64) -> u32 {
    ((length / 2.0).round() * 2.0) as u32
}

#[cfg(test)]
mod tests {
    use super::super::Turn;
    use super::*;

    fn work(width: u32, height: u32, fit: Fit) -> Work {
        Work { width, height, fit, upscale: true, ..Work::default() }
    }

    #[test]
    fn pictures_lie_where_they_should() {
        let area = |left, top, width, height| Area { left, top, width, height };
        for (name, size, aspect, work, expected) in [
            ("same shape", (1920, 1080), (1, 1), work(1280, 720, Fit::Preserve), area(0, 0, 1280, 720)),
            ("rounded", (853, 481), (1, 1), work(638, 360, Fit::Preserve), area(0, 0, 638, 360)),
            ("anamorphic", (720, 576), (64, 45), work(640, 360, Fit::Preserve), area(0, 0, 640, 360)),
            ("tall pixels", (1440, 1080), (4, 3), work(640, 360, Fit::Pad), area(0, 0, 640, 360)),
            ("bars left and right", (640, 480), (1, 1), work(640, 360, Fit::Pad), area(80, 0, 480, 360)),
            ("bars above and below", (2000, 500), (1, 1), work(640, 360, Fit::Pad), area(0, 100, 640, 160)),
            ("stretched", (100, 500), (1, 1), work(640, 360, Fit::Scale), area(0, 0, 640, 360)),
            ("another shape midway", (640, 480), (1, 1), work(640, 360, Fit::Preserve), area(80, 0, 480, 360)),
            ("thin", (8000, 2), (1, 1), work(64, 64, Fit::Pad), area(0, 30, 64, 2)),
        ] {
            let (found, part) = lay(size.0, size.1, aspect, &work);
            assert_eq!(found, expected, "{name}");
            let whole = Part { left: 0.0, top: 0.0, width: f64::from(size.0), height: f64::from(size.1) };
            assert_eq!(part, whole, "{name}");
        }
    }

    #[test]
    fn small_films_keep_their_size_between_bars() {
        let work = Work { upscale: false, ..work(640, 360, Fit::Pad) };
        assert_eq!(lay(160, 90, (1, 1), &work).0, Area { left: 240, top: 134, width: 160, height: 90 });
        assert_eq!(lay(1920, 1080, (1, 1), &work).0, Area { left: 0, top: 0, width: 640, height: 360 });
    }

    #[test]
    fn the_middle_is_cut_out() {
        let (area, part) = lay(1920, 1080, (1, 1), &work(360, 360, Fit::Crop));
        assert_eq!(area, Area { left: 0, top: 0, width: 360, height: 360 });
        assert_eq!(part, Part { left: 420.0, top: 0.0, width: 1080.0, height: 1080.0 });
        let upright = Work { turn: Turn::RIGHT, ..work(360, 640, Fit::Crop) };
        assert_eq!(
            lay(1920, 1080, (1, 1), &upright).1,
            Part { left: 0.0, top: 0.0, width: 1920.0, height: 1080.0 },
            "a frame on its side"
        );
        let part = lay(1920, 1080, (1, 1), &Work { height: 360, ..upright }).1;
        assert_eq!((part.left, part.width), (420.0, 1080.0), "columns become rows");
    }
}
