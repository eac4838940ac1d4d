//! Where to lay a frame on a picture: pure geometry.
//!
//! In: the sizes of a picture and of a frame no larger than it, and what matters in the
//! picture: a point, faces, or pixels. Out: the frame's top left corner.
//!
//! Invariant: the frame lies inside the picture, and it holds the weightiest face wholly if
//! that is not larger than the frame.
//!
//! Across and down are decided one after the other. That loses nothing: a frame as large as
//! its aspect ratio allows can move along one of them only.
#![expect(clippy::indexing_slicing, reason = "prefix sums; every index is derived from their length")]

/// Eyes belong here, as a share of the frame's height.
const EYE_LINE: f64 = 0.4;
/// A face of less than this share of the greatest weight has no say in where the frame goes.
const HEARD: f64 = 0.1;

/// Something that matters in a picture, in shares of its sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
    /// Against other spots.
    pub weight: f32,
    /// Where between top and bottom of the picture the eyes are.
    pub eye_line: f32,
}

/// The frame with this point, given in shares of the picture, as near to its middle as can be.
pub fn around_point(picture: (u32, u32), frame: (u32, u32), point: (f32, f32)) -> (u32, u32) {
    let axis = |length: u32, frame: u32, at: f32| {
        let spare = length.saturating_sub(frame);
        (f64::from(length) * f64::from(at) - f64::from(frame) / 2.0).round().clamp(0.0, f64::from(spare)) as u32
    };
    (axis(picture.0, frame.0, point.0), axis(picture.1, frame.1, point.1))
}

/// The frame that holds the spots best: the weightiest for certain, as many others as fit,
/// with room for their hair, and none cut that can be left out or taken in whole. `None`
/// without spots.
pub fn around_spots(picture: (u32, u32), frame: (u32, u32), spots: &[Spot]) -> Option<(u32, u32)> {
    let greatest = spots.iter().map(|spot| spot.weight).fold(0.0, f32::max);
    if greatest <= 0.0 {
        return None;
    }
    let mut spots: Vec<&Spot> = spots.iter().collect();
    spots.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let along = |length: u32, of: &dyn Fn(&Spot) -> Extent| {
        let extents: Vec<(Extent, f64)> =
            spots.iter().map(|spot| (of(spot), f64::from(spot.weight / greatest))).collect();
        move |frame: u32, middle: f64| axis(i64::from(length), i64::from(frame), middle, &extents)
    };
    let across = along(picture.0, &|spot| Extent {
        face: pixels(spot.x, spot.x + spot.width, picture.0),
        head: pixels(spot.x - spot.width * 0.2, spot.x + spot.width * 1.2, picture.0),
        ideal: f64::from(spot.x + spot.width / 2.0) * f64::from(picture.0),
    });
    let down = along(picture.1, &|spot| Extent {
        face: pixels(spot.y, spot.y + spot.height, picture.1),
        head: pixels(spot.y - spot.height * 0.6, spot.y + spot.height * 1.2, picture.1),
        ideal: f64::from(spot.eye_line) * f64::from(picture.1),
    });
    Some((across(frame.0, 0.5), down(frame.1, EYE_LINE)))
}

/// The frame with the most of what draws the eye, rather near its middle than at its edge:
/// detail, and strong or skin-like colour. The picture is packed RGB and the frame is in its
/// pixels; some hundred a side are plenty. Of equals, the one nearest to the picture's middle.
pub fn around_detail(rgb: &[u8], picture: (u32, u32), frame: (u32, u32)) -> (u32, u32) {
    let (wide, high) = (picture.0 as usize, picture.1 as usize);
    let mut columns = vec![0.0; wide];
    let mut rows = vec![0.0; high];
    let pixels = rgb.as_chunks::<3>().0;
    let luma = |[r, g, b]: [u8; 3]| (2 * i32::from(r) + 5 * i32::from(g) + i32::from(b)) / 8;
    for (y, row) in pixels.chunks_exact(wide.max(1)).take(high).enumerate() {
        for (x, &pixel) in row.iter().enumerate() {
            let left = row[x.saturating_sub(1)];
            let above = pixels[y.saturating_sub(1) * wide + x];
            let edge = luma(pixel).abs_diff(luma(left)) + luma(pixel).abs_diff(luma(above));
            let energy = f64::from(edge) + colour(pixel);
            columns[x] += energy;
            rows[y] += energy;
        }
    }
    (busiest(&columns, frame.0 as usize) as u32, busiest(&rows, frame.1 as usize) as u32)
}

/// A face along one axis, in pixels: its own ends, those of the head, and the point of it that
/// has an ideal place in the frame.
struct Extent {
    face: (i64, i64),
    head: (i64, i64),
    ideal: f64,
}

fn pixels(from: f32, to: f32, length: u32) -> (i64, i64) {
    // What a share is imprecise by is not a pixel.
    const CRUMB: f64 = 0.01;
    let end = |share: f32| f64::from(share.clamp(0.0, 1.0)) * f64::from(length);
    ((end(from) + CRUMB).floor() as i64, (end(to) - CRUMB).ceil() as i64)
}

/// Where the frame begins. The extents come with their weights, the weightiest first.
fn axis(length: i64, frame: i64, middle: f64, extents: &[(Extent, f64)]) -> u32 {
    let spare = (length - frame).max(0);
    let (mut first, mut last) = (0, spare);
    // Where a frame holds the whole, or lies wholly in it.
    let around = |(from, to): (i64, i64)| ((to - frame).min(from), from.max(to - frame));
    let mut held = Vec::new();
    for (extent, weight) in extents.iter().filter(|(_, weight)| *weight >= HEARD) {
        let (from, to) = around(extent.face);
        if from.max(first) <= to.min(last) {
            (first, last) = (from.max(first), to.min(last));
            held.push((extent, *weight));
        }
    }
    for (extent, _) in &held {
        let (from, to) = around(extent.head);
        if from.max(first) <= to.min(last) {
            (first, last) = (from.max(first), to.min(last));
        }
    }
    let total: f64 = held.iter().map(|(_, weight)| weight).sum();
    let ideal = held.iter().map(|(extent, weight)| extent.ideal * weight).sum::<f64>() / total.max(f64::MIN_POSITIVE);
    let wish = ((ideal - frame as f64 * middle).round() as i64).clamp(first, last);

    let cut = |at: i64| {
        let is_cut = |(from, to): (i64, i64)| at < to && at + frame > from && (at > from || at + frame < to);
        extents.iter().filter(|(extent, _)| is_cut(extent.face)).map(|(_, weight)| weight).sum::<f64>()
    };
    let mut places = vec![wish, first, last];
    for (Extent { face: (from, to), .. }, _) in extents {
        places.extend([*to, from - frame, *from, to - frame]);
    }
    places.retain(|at| (first..=last).contains(at));
    places.sort_by(|&a, &b| cut(a).total_cmp(&cut(b)).then(a.abs_diff(wish).cmp(&b.abs_diff(wish))));
    places.first().copied().unwrap_or(wish).clamp(0, spare) as u32
}

/// How much a colour draws the eye: as much as a soft edge at most.
fn colour([r, g, b]: [u8; 3]) -> f64 {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let spread = f64::from(most - least);
    let is_skin = r > 95 && r > g && g >= b && r - g > 12 && r - g < 90 && r - b > 20 && r - b < 140;
    spread / 32.0 + if is_skin { 8.0 } else { 0.0 }
}

/// Where the window of this length begins that holds the most, weighed by nearness to its middle.
fn busiest(energy: &[f64], length: usize) -> usize {
    let length = length.clamp(1, energy.len().max(1));
    let spare = energy.len().saturating_sub(length);
    // Of a parabola over the window, all but the sums does not depend on where it is.
    let mut sums = vec![[0.0; 3]];
    for (i, value) in energy.iter().enumerate() {
        let [a, b, c] = sums[i];
        let x = i as f64 + 0.5;
        sums.push([a + value, b + value * x, c + value * x * x]);
    }
    let worth = |start: usize| {
        let [from, to] = [sums[start], sums[(start + length).min(energy.len())]];
        let [a, b, c] = [to[0] - from[0], to[1] - from[1], to[2] - from[2]];
        let (middle, half) = (start as f64 + length as f64 / 2.0, length as f64 / 2.0);
        // Full worth in the middle, half of it at the edge.
        let within = a - 0.5 * (c - 2.0 * middle * b + middle * middle * a) / (half * half);
        let off = (start as f64 - spare as f64 / 2.0).abs() / energy.len() as f64;
        within * (1.0 - 0.2 * off)
    };
    let from_centre = |start: usize| (2 * start).abs_diff(spare);
    (0..=spare)
        .max_by(|&a, &b| {
            let (left, right) = (worth(a), worth(b));
            if (left - right).abs() <= 1e-9 * left.abs().max(right.abs()) {
                return from_centre(b).cmp(&from_centre(a));
            }
            left.total_cmp(&right)
        })
        .unwrap_or(spare / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spot(x: f32, y: f32, side: f32, weight: f32) -> Spot {
        Spot { x, y, width: side, height: side, weight, eye_line: y + side * 0.3 }
    }

    #[test]
    fn a_point_comes_to_the_middle_or_as_near_as_can_be() {
        assert_eq!(around_point((400, 100), (100, 100), (0.5, 0.5)), (150, 0));
        assert_eq!(around_point((400, 100), (100, 100), (0.0, 0.9)), (0, 0));
        assert_eq!(around_point((400, 100), (100, 100), (1.0, 0.1)), (300, 0));
        assert_eq!(around_point((100, 400), (100, 100), (0.5, 0.25)), (0, 50));
    }

    #[test]
    fn eyes_come_above_the_middle() {
        let (_, y) = around_spots((400, 1000), (400, 400), &[spot(0.4, 0.5, 0.1, 1.0)]).unwrap();
        assert_eq!(y, 530 - 160);
    }

    #[test]
    fn two_that_fit_are_both_held_and_of_two_that_do_not_the_weightier() {
        let pair = [spot(0.1, 0.3, 0.1, 1.0), spot(0.5, 0.3, 0.1, 0.8)];
        let (x, _) = around_spots((1000, 500), (500, 500), &pair).unwrap();
        assert!((100..=100).contains(&x), "{x}");
        let (x, _) = around_spots((1000, 300), (300, 300), &pair).unwrap();
        assert!(x <= 100 && x + 300 <= 500, "the weightier is held, the other not cut: {x}");
    }

    #[test]
    fn a_small_stranger_is_left_out_rather_than_cut() {
        let spots = [spot(0.4, 0.3, 0.2, 1.0), spot(0.62, 0.3, 0.04, 0.04)];
        let (x, _) = around_spots((1000, 300), (300, 300), &spots).unwrap();
        assert!(x <= 400 && x + 300 >= 600, "the large one is whole: {x}");
        assert!(x + 300 <= 620 || x + 300 >= 660, "the small one is not cut: {x}");
    }

    #[test]
    fn without_spots_nothing_is_said() {
        assert_eq!(around_spots((100, 50), (50, 50), &[]), None);
        assert_eq!(around_spots((100, 50), (50, 50), &[spot(0.1, 0.1, 0.2, 0.0)]), None);
    }

    #[test]
    fn detail_and_colour_draw_the_frame_and_nothing_leaves_it_in_the_middle() {
        let plain = vec![90; 60 * 20 * 3];
        assert_eq!(around_detail(&plain, (60, 20), (20, 20)), (20, 0));
        let mut busy = plain.clone();
        let mut red = plain;
        for y in 0..20 {
            for x in 44..52 {
                busy[(y * 60 + x) * 3..][..3].fill(if (x + y) % 2 == 0 { 255 } else { 0 });
                red[(y * 60 + x) * 3..][..3].copy_from_slice(&[220, 60, 40]);
            }
        }
        for (name, pixels) in [("busy", busy), ("red", red)] {
            let (x, y) = around_detail(&pixels, (60, 20), (20, 20));
            assert!((32..=40).contains(&x) && y == 0, "{name}: {x}");
        }
    }

    proptest! {
        #[test]
        fn always_inside_and_the_weightiest_is_whole(
            picture in (1_u32..3000, 1_u32..3000),
            shares in (0.01_f64..=1.0, 0.01_f64..=1.0),
            faces in prop::collection::vec((0.0_f32..1.0, 0.0_f32..1.0, 0.001_f32..0.6, 0.01_f32..1.0), 1..6),
        ) {
            let side = |length: u32, share: f64| ((f64::from(length) * share) as u32).clamp(1, length);
            let frame = (side(picture.0, shares.0), side(picture.1, shares.1));
            let spots: Vec<Spot> = faces.iter().map(|&(x, y, s, w)| spot(x * (1.0 - s), y * (1.0 - s), s, w)).collect();
            let (x, y) = around_spots(picture, frame, &spots).unwrap();
            prop_assert!(x + frame.0 <= picture.0 && y + frame.1 <= picture.1);
            let first = spots.iter().max_by(|a, b| a.weight.total_cmp(&b.weight)).unwrap();
            for (at, frame, (from, to)) in [
                (x, frame.0, pixels(first.x, first.x + first.width, picture.0)),
                (y, frame.1, pixels(first.y, first.y + first.height, picture.1)),
            ] {
                let (at, frame) = (i64::from(at), i64::from(frame));
                if to - from <= frame {
                    prop_assert!(at <= from && at + frame >= to, "{at} + {frame} does not hold {from}..{to}");
                } else {
                    prop_assert!(at >= from && at + frame <= to, "{at} + {frame} wastes room beside {from}..{to}");
                }
            }
            let (px, py) = around_point(picture, frame, (faces[0].0, faces[0].1));
            prop_assert!(px + frame.0 <= picture.0 && py + frame.1 <= picture.1);
        }

        #[test]
        fn detail_stays_inside(picture in (1_u32..40, 1_u32..40), part in (1_u32..40, 1_u32..40), seed in any::<u8>()) {
            let frame = (part.0.min(picture.0), part.1.min(picture.1));
            let rgb: Vec<u8> = (0..picture.0 * picture.1 * 3).map(|i| (i as u8).wrapping_mul(seed)).collect();
            let (x, y) = around_detail(&rgb, picture, frame);
            prop_assert!(x + frame.0 <= picture.0 && y + frame.1 <= picture.1);
        }
    }
}
