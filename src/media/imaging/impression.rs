//! What a picture looks like at a glance: a blur of a few bytes and its colours.
//!
//! In: a canvas. Out: a ThumbHash, which a client draws until the picture has come, and up to
//! five colours with their shares, for search and for frames around it.
//!
//! Invariant: the same picture gives the same answer on every machine that computes alike;
//! shares are of what can be seen and never exceed 1 together.
//!
//! Colours are grouped in Lab, where distance means what eyes mean by it. The start is the
//! commonest colour and then, again and again, the commonest far from those chosen; no dice.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Serialize;

use super::canvas::Canvas;
use super::color;
use super::error::ImageError;

/// `ThumbHash` takes no more than this.
pub const SIDE: u32 = 100;
const MOST_COLORS: usize = 5;
/// Groups nearer than this look like one colour.
const SAME_COLOR: f32 = 14.0;
/// Less is not worth a word.
const LEAST_SHARE: f32 = 0.02;
const ROUNDS: usize = 8;

/// A picture at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Impression {
    /// In Base64.
    pub thumbhash: String,
    /// The largest share first.
    pub colors: Vec<DominantColor>,
}

/// A colour of a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DominantColor {
    /// As `#rrggbb`.
    pub color: String,
    /// Of what can be seen, from 0 to 1, in hundredths.
    pub share: f64,
}

/// Looks at a canvas in sRGB.
pub fn of(canvas: &Canvas) -> Result<Impression, ImageError> {
    let small = canvas.thumbnail(SIDE)?;
    let (width, height) = small.size();
    let rgba: Vec<u8> = if small.has_alpha() {
        small.pixels().to_vec()
    } else {
        small.pixels().as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect()
    };
    let hash = thumbhash::rgba_to_thumb_hash(width as usize, height as usize, &rgba);
    Ok(Impression { thumbhash: STANDARD.encode(hash), colors: colors(&rgba) })
}

/// Pixels of about one colour.
#[derive(Clone, Copy, Default)]
struct Group {
    lab: [f32; 3],
    weight: f32,
}

fn colors(rgba: &[u8]) -> Vec<DominantColor> {
    let shades = histogram(rgba);
    let total: f32 = shades.iter().map(|shade| shade.weight).sum();
    let mut groups = seeds(&shades);
    for _ in 0..ROUNDS {
        groups = regrouped(&shades, &groups);
    }
    let mut found = merged(groups);
    found.retain(|group| group.weight >= total * LEAST_SHARE);
    found.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let spell = |group: &Group| {
        let [r, g, b] = color::rgb_from_lab(group.lab);
        let share = (f64::from(group.weight / total) * 100.0).floor() / 100.0;
        DominantColor { color: format!("#{r:02x}{g:02x}{b:02x}"), share }
    };
    found.iter().map(spell).collect()
}

/// The colours that occur, with 32 steps per channel, each at its mean.
fn histogram(rgba: &[u8]) -> Vec<Group> {
    let mut cells = std::collections::BTreeMap::<u16, [u32; 4]>::new();
    for &[r, g, b, alpha] in rgba.as_chunks::<4>().0 {
        if alpha >= 128 {
            let step = |n: u8| u16::from(n >> 3);
            let cell = cells.entry(step(r) << 10 | step(g) << 5 | step(b)).or_default();
            for (sum, value) in cell.iter_mut().zip([u32::from(r), u32::from(g), u32::from(b), 1]) {
                *sum += value;
            }
        }
    }
    let mean = |[r, g, b, count]: &[u32; 4]| {
        let rgb = [*r, *g, *b].map(|sum| ((sum + count / 2) / count) as u8);
        Group { lab: color::lab_from_rgb(rgb), weight: *count as f32 }
    };
    cells.values().map(mean).collect()
}

fn seeds(shades: &[Group]) -> Vec<Group> {
    let mut seeds: Vec<Group> = Vec::new();
    for _ in 0..MOST_COLORS {
        let interest = |shade: &Group| {
            let nearest = seeds.iter().map(|seed| distance(seed, shade)).fold(f32::INFINITY, f32::min);
            if seeds.is_empty() { shade.weight } else { shade.weight * nearest }
        };
        let next = shades.iter().max_by(|a, b| interest(a).total_cmp(&interest(b)));
        match next.copied() {
            Some(next) if interest(&next) > 0.0 => seeds.push(next),
            _ => break,
        }
    }
    seeds
}

/// Each shade joins the nearest group; each group moves to the mean of its shades.
fn regrouped(shades: &[Group], groups: &[Group]) -> Vec<Group> {
    let mut sums = vec![Group::default(); groups.len()];
    for shade in shades {
        let nearest = groups
            .iter()
            .zip(&mut sums)
            .min_by(|(a, _), (b, _)| distance(a, shade).total_cmp(&distance(b, shade)))
            .map(|(_, sum)| sum);
        if let Some(sum) = nearest {
            sum.weight += shade.weight;
            for (total, value) in sum.lab.iter_mut().zip(shade.lab) {
                *total += value * shade.weight;
            }
        }
    }
    sums.retain(|sum| sum.weight > 0.0);
    for sum in &mut sums {
        sum.lab = sum.lab.map(|total| total / sum.weight);
    }
    sums
}

/// Groups that look the same become one.
fn merged(groups: Vec<Group>) -> Vec<Group> {
    let mut merged: Vec<Group> = Vec::new();
    for group in groups {
        match merged.iter_mut().find(|known| distance(known, &group) < SAME_COLOR * SAME_COLOR) {
            Some(known) => {
                let weight = known.weight + group.weight;
                for (a, b) in known.lab.iter_mut().zip(group.lab) {
                    *a = (*a * known.weight + b * group.weight) / weight;
                }
                known.weight = weight;
            }
            None => merged.push(group),
        }
    }
    merged
}

/// Squared.
fn distance(a: &Group, b: &Group) -> f32 {
    a.lab.iter().zip(b.lab).map(|(a, b)| (a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(color: &str) -> [u8; 3] {
        [1, 3, 5].map(|at| u8::from_str_radix(&color[at..at + 2], 16).unwrap())
    }

    #[test]
    fn a_flag_has_its_colours() {
        // Half blue, a third yellow, the rest red with a little noise.
        let pixels = (0..60_u32 * 40).flat_map(|i| {
            let noise = (i * 7919 % 5) as u8;
            match i % 60 {
                0..30 => [10, 30 + noise, 160],
                30..50 => [250, 220 + noise, 20],
                _ => [200 + noise, 20, 30],
            }
        });
        let seen = of(&Canvas::rgb(60, 40, pixels.collect())).unwrap();
        let expected = [([10, 32, 160], 0.5), ([250, 222, 20], 0.33), ([202, 20, 30], 0.16)];
        assert_eq!(seen.colors.len(), 3, "{seen:?}");
        for (found, (color, share)) in seen.colors.iter().zip(expected) {
            assert!(rgb(&found.color).iter().zip(color).all(|(a, b)| a.abs_diff(b) <= 4), "{found:?} {color:?}");
            assert!((found.share - share).abs() < 0.02, "{found:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_has_no_colour() {
        let pixels = (0..64).flat_map(|i| if i % 2 == 0 { [255, 0, 0, 0] } else { [0, 160, 0, 255] });
        let seen = of(&Canvas::rgba(8, 8, pixels.collect())).unwrap();
        assert_eq!(seen.colors.len(), 1);
        assert!(rgb(&seen.colors[0].color)[0] < 10 && seen.colors[0].share > 0.99, "{seen:?}");
        assert!(of(&Canvas::rgba(8, 8, vec![0; 256])).unwrap().colors.is_empty());
    }

    #[test]
    fn the_hash_is_a_small_blur_of_the_picture() {
        let pixels = (0..300_u32 * 100).flat_map(|i| if i % 300 < 150 { [240, 240, 240] } else { [20, 20, 20] });
        let seen = of(&Canvas::rgb(300, 100, pixels.collect())).unwrap();
        let hash = STANDARD.decode(&seen.thumbhash).unwrap();
        assert!(hash.len() <= 32, "{}", hash.len());
        let (width, height, rgba) = thumbhash::thumb_hash_to_rgba(&hash).unwrap();
        assert!(width > height * 2);
        let row = &rgba[(height / 2) * width * 4..][..width * 4];
        assert!(row[4] > 180 && row[(width - 2) * 4] < 80, "{} {}", row[4], row[(width - 2) * 4]);
    }
}
