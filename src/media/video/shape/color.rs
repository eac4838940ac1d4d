//! Colour spaces of films, and the way from one to the other where it is linear.
//!
//! In: how a film keeps colours, and planes in that way. Out: the same planes as BT.709 in
//! limited range has them.
//!
//! Invariant: grey stays grey, and its brightness is kept.
//!
//! Primaries of standard definition are taken for BT.709's, as all players do: the difference
//! is a shade. Those of BT.2020 are not, and are `tone`'s.
#![expect(clippy::indexing_slicing, reason = "arithmetic on samples; every index is derived from the planes' sizes")]

use super::geometry::Area;
use super::planes::PlaneMut;

/// How a film keeps colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colors {
    /// What red and blue add to brightness.
    pub weights: Weights,
    /// From 0 to 255 instead of 16 to 235.
    pub full_range: bool,
    pub curve: Curve,
    pub primaries: Primaries,
    /// The brightest light that is to be expected, in candela per square metre.
    pub peak_nits: f32,
}

/// What red and blue add to brightness; green is the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    pub red: f64,
    pub blue: f64,
}

impl Weights {
    pub const BT601: Self = Self { red: 0.299, blue: 0.114 };
    pub const BT709: Self = Self { red: 0.2126, blue: 0.0722 };
    pub const BT2020: Self = Self { red: 0.2627, blue: 0.0593 };
    pub const FCC: Self = Self { red: 0.30, blue: 0.11 };
    pub const SMPTE240: Self = Self { red: 0.212, blue: 0.087 };

    pub(super) fn green(self) -> f64 {
        1.0 - self.red - self.blue
    }

    /// Red, green and blue of a brightness from 0 to 1 and colours from -0.5 to 0.5.
    pub(super) fn rgb(self, [luma, blue, red]: [f64; 3]) -> [f64; 3] {
        let (red, blue) = (luma + 2.0 * (1.0 - self.red) * red, luma + 2.0 * (1.0 - self.blue) * blue);
        [red, (luma - self.red * red - self.blue * blue) / self.green(), blue]
    }

    /// The other way round.
    pub(super) fn planes(self, [red, green, blue]: [f64; 3]) -> [f64; 3] {
        let luma = self.red * red + self.green() * green + self.blue * blue;
        [luma, (blue - luma) / (2.0 * (1.0 - self.blue)), (red - luma) / (2.0 * (1.0 - self.red))]
    }
}

/// How light becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    Standard,
    /// SMPTE ST 2084, of HDR10.
    Pq,
    /// ARIB STD-B67.
    Hlg,
}

/// Which red, green and blue are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primaries {
    Bt709,
    Bt2020,
    /// Display P3.
    P3,
}

impl Colors {
    /// What encoders get.
    pub const TARGET: Self = Self {
        weights: Weights::BT709,
        full_range: false,
        curve: Curve::Standard,
        primaries: Primaries::Bt709,
        peak_nits: 100.0,
    };

    pub fn is_target(&self) -> bool {
        !self.needs_tone() && self.weights == Weights::BT709 && !self.full_range
    }

    /// The way to BT.709 is not linear.
    pub fn needs_tone(&self) -> bool {
        self.curve != Curve::Standard || self.primaries != Primaries::Bt709
    }
}

/// Samples of a colour in BT.709's limited range: brightness, blue, red.
pub fn of_rgb(rgb: [u8; 3]) -> [u8; 3] {
    codes(Weights::BT709.planes(rgb.map(|level| f64::from(level) / 255.0)))
}

/// Samples in limited range of a brightness from 0 to 1 and colours from -0.5 to 0.5.
pub fn codes([luma, blue, red]: [f64; 3]) -> [u8; 3] {
    let code = |value: f64| value.round().clamp(0.0, 255.0) as u8;
    [code(16.0 + 219.0 * luma), code(128.0 + 224.0 * blue), code(128.0 + 224.0 * red)]
}

/// Bits behind the point.
const FRACTION: u32 = 14;

/// Brings samples to BT.709 in limited range, in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Remix {
    /// Of brightness, to brightness.
    luma: i32,
    luma_offset: i32,
    /// Of blue and red, to brightness, blue and red.
    chroma: [[i32; 2]; 3],
}

impl Remix {
    /// `None` if nothing is to be done. Samples that were narrowed from ten bits reach a bit
    /// further in full range.
    pub fn new(colors: &Colors, narrowed: bool) -> Option<Self> {
        if colors.is_target() {
            return None;
        }
        let most = if narrowed { 1023.0 / 4.0 } else { 255.0 };
        let (luma_span, chroma_span, foot) = if colors.full_range { (most, most, 0.0) } else { (219.0, 224.0, 16.0) };
        let fixed = |factor: f64| (factor * f64::from(1 << FRACTION)).round() as i32;
        let to = |[luma, blue, red]: [f64; 3]| {
            let [luma, blue, red] = Weights::BT709.planes(colors.weights.rgb([luma, blue, red]));
            [219.0 * luma, 224.0 * blue, 224.0 * red]
        };
        let luma = 219.0 / luma_span;
        let of_blue = to([0.0, 1.0 / chroma_span, 0.0]).map(fixed);
        let of_red = to([0.0, 0.0, 1.0 / chroma_span]).map(fixed);
        let half = 1 << (FRACTION - 1);
        Some(Self {
            luma: fixed(luma),
            luma_offset: fixed(16.0 - foot * luma) + half,
            chroma: [[of_blue[0], of_red[0]], [of_blue[1], of_red[1]], [of_blue[2], of_red[2]]],
        })
    }

    /// Changes this area, whose sides are even.
    pub fn apply(&self, [luma, blue, red]: &mut [PlaneMut; 3], area: Area) {
        let (left, top) = (area.left as usize, area.top as usize);
        let (width, height) = (area.width as usize, area.height as usize);
        let pairs = luma.data.chunks_mut(luma.stride * 2).skip(top / 2).take(height / 2);
        let blues = blue.data.chunks_mut(blue.stride).skip(top / 2);
        let reds = red.data.chunks_mut(red.stride).skip(top / 2);
        for ((rows, blue), red) in pairs.zip(blues).zip(reds) {
            let (upper, lower) = rows.split_at_mut(luma.stride);
            let (upper, lower) = (&mut upper[left..left + width], &mut lower[left..left + width]);
            let half = left / 2..left / 2 + width / 2;
            self.rows(upper, lower, &mut blue[half.clone()], &mut red[half]);
        }
    }

    fn rows(&self, upper: &mut [u8], lower: &mut [u8], blue: &mut [u8], red: &mut [u8]) {
        let middle = (128 << FRACTION) + (1 << (FRACTION - 1));
        let code = |value: i32| (value >> FRACTION).clamp(0, 255) as u8;
        let blocks = upper.as_chunks_mut::<2>().0.iter_mut().zip(lower.as_chunks_mut::<2>().0);
        for ((upper, lower), (blue, red)) in blocks.zip(blue.iter_mut().zip(red)) {
            let (b, r) = (i32::from(*blue) - 128, i32::from(*red) - 128);
            let offset = self.chroma[0][0] * b + self.chroma[0][1] * r + self.luma_offset;
            for sample in upper.iter_mut().chain(lower) {
                *sample = code(self.luma * i32::from(*sample) + offset);
            }
            *blue = code(self.chroma[1][0] * b + self.chroma[1][1] * r + middle);
            *red = code(self.chroma[2][0] * b + self.chroma[2][1] * r + middle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remixed(colors: &Colors, code: [u8; 3]) -> [u8; 3] {
        // Four columns and lines of brightness, of which the last two of either change.
        let mut planes = code.map(|sample| vec![sample; 16]);
        let [luma, blue, red] = &mut planes;
        let mut targets = [(luma, 4), (blue, 4), (red, 4)].map(|(data, stride)| PlaneMut { data, stride });
        Remix::new(colors, false).unwrap().apply(&mut targets, Area { left: 2, top: 2, width: 2, height: 2 });
        assert_eq!([planes[0][0], planes[1][0], planes[2][0]], code, "what is outside stays");
        assert_eq!([planes[0][10], planes[0][11], planes[0][14]], [planes[0][15]; 3], "all of it changes");
        [planes[0][10], planes[1][5], planes[2][5]]
    }

    #[test]
    fn colors_are_those_of_bt709() {
        let of = |weights, full_range| Colors { weights, full_range, ..Colors::TARGET };
        for rgb in [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 90, 30], [12, 100, 140]] {
            let expected = of_rgb(rgb);
            for weights in [Weights::BT601, Weights::FCC, Weights::SMPTE240, Weights::BT2020] {
                let planes = weights.planes(rgb.map(|level| f64::from(level) / 255.0));
                let limited = remixed(&of(weights, false), codes(planes));
                let full = [255.0 * planes[0], 128.0 + 255.0 * planes[1], 128.0 + 255.0 * planes[2]];
                let full = remixed(&of(weights, true), full.map(|code| code.round().clamp(0.0, 255.0) as u8));
                for (found, expected) in limited.iter().chain(&full).zip(expected.iter().chain(&expected)) {
                    assert!(found.abs_diff(*expected) <= 2, "{rgb:?} {weights:?}: {limited:?} {full:?} {expected:?}");
                }
            }
        }
        assert_eq!(of_rgb([255, 0, 0]), [63, 102, 240]);
    }

    #[test]
    fn grey_keeps_its_level() {
        let colors = Colors { weights: Weights::BT601, ..Colors::TARGET };
        for level in 0..=255 {
            assert_eq!(remixed(&colors, [level, 128, 128]), [level, 128, 128]);
        }
        assert_eq!(Remix::new(&Colors::TARGET, false), None);
    }
}
