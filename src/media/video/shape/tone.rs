//! High dynamic range and wide gamut, brought to BT.709.
//!
//! In: samples of PQ, HLG or BT.2020. Out: samples of BT.709 in eight bits, limited range.
//!
//! Invariant: grey stays grey, brighter stays brighter, and no colour changes its hue because
//! a channel was cut off.
//!
//! Light is brought down by BT.2390's curve, which leaves the dark half alone; all channels of
//! a pixel by the same factor. Diffuse white of 203 candela ends at nine tenths of the signal.
//! Curves are looked up; the steps between them are computed, for a lattice of colours fine
//! enough to be right would not fit a cache.
#![expect(clippy::indexing_slicing, reason = "arithmetic on samples; every index is bounded by the tables' size")]

use fast_image_resize::pixels::U16;

use super::color::Colors;
use super::color::Curve;
use super::color::Primaries;

/// What white in BT.709 stands for, in candela per square metre.
const WHITE_NITS: f64 = 203.0;
/// Of the brightest light of HLG.
const HLG_NITS: f64 = 1000.0;
/// Of the screen that BT.709 is seen on, as BT.1886 has it.
const GAMMA: f64 = 2.4;
const ENTRIES: usize = 4096;
const LAST: f32 = (ENTRIES - 1) as f32;

/// A function of 0 to 1.
#[derive(Debug)]
struct Table(Box<[f32; ENTRIES]>);

impl Table {
    fn new(of: impl Fn(f64) -> f64) -> Self {
        let mut table = Box::new([0.0; ENTRIES]);
        for (i, entry) in table.iter_mut().enumerate() {
            *entry = of(i as f64 / f64::from(LAST)) as f32;
        }
        Self(table)
    }

    fn at(&self, x: f32) -> f32 {
        self.0[((x * LAST + 0.5) as u32 as usize).min(ENTRIES - 1)]
    }
}

/// The way from a film's samples to BT.709.
#[derive(Debug)]
pub struct Tone {
    /// Sample to brightness, and sample to colour: factor, then what is taken off the sample.
    luma: (f32, f32),
    chroma: (f32, f32),
    /// What a colour of blue and of red adds to red, green and blue.
    mix: [[f32; 2]; 3],
    /// Signal to light, 1 being white.
    light: Table,
    /// What a scene's brightness does to its light on the screen; by its square root.
    gain: Option<Table>,
    /// By how much light is to be dimmed; by the square root of its share of the brightest.
    dim: Option<Table>,
    brightest: f32,
    /// The film's primaries to BT.709's.
    matrix: [[f32; 3]; 3],
    /// Of the film's primaries, their shares of brightness.
    weights: [f32; 3],
    /// Light to signal, by its square root.
    signal: Table,
}

impl Tone {
    pub fn new(colors: &Colors) -> Self {
        let (matrix, weights) = match colors.primaries {
            Primaries::Bt709 => ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.2126, 0.7152, 0.0722]),
            Primaries::Bt2020 => (
                [
                    [1.660_491, -0.587_641, -0.072_85],
                    [-0.124_55, 1.132_9, -0.008_35],
                    [-0.018_151, -0.100_579, 1.118_73],
                ],
                [0.2627, 0.6780, 0.0593],
            ),
            Primaries::P3 => (
                [[1.224_94, -0.224_94, 0.0], [-0.042_057, 1.042_057, 0.0], [-0.019_638, -0.078_636, 1.098_274]],
                [0.228_97, 0.691_74, 0.079_29],
            ),
        };
        let (peak, light, gain) = match colors.curve {
            Curve::Standard => (WHITE_NITS, Table::new(|signal| signal.powf(GAMMA)), None),
            Curve::Pq => {
                let peak = f64::from(colors.peak_nits).max(WHITE_NITS);
                (peak, Table::new(|signal| (pq_to_nits(signal)).min(peak) / WHITE_NITS), None)
            }
            Curve::Hlg => {
                let gain = Table::new(|root| (root * root).powf(0.2));
                (HLG_NITS, Table::new(|signal| hlg_to_scene(signal) * HLG_NITS / WHITE_NITS), Some(gain))
            }
        };
        let brightest = peak / WHITE_NITS;
        let dim = (colors.curve != Curve::Standard && peak > WHITE_NITS).then(|| {
            Table::new(|root| {
                let light = (root * root * brightest).max(1e-6);
                dimmed(light, peak) / light
            })
        });
        let (luma, chroma) = if colors.full_range {
            ((1.0 / 1023.0, 0.0), (1.0 / 1023.0, 512.0))
        } else {
            ((1.0 / 876.0, 64.0), (1.0 / 896.0, 512.0))
        };
        let (blue, red) = (colors.weights.rgb([0.0, 1.0, 0.0]), colors.weights.rgb([0.0, 0.0, 1.0]));
        Self {
            luma,
            chroma,
            mix: [0, 1, 2].map(|i| [blue[i] as f32, red[i] as f32]),
            light,
            gain,
            dim,
            brightest: brightest as f32,
            matrix,
            weights,
            signal: Table::new(|root| (root * root).powf(1.0 / GAMMA)),
        }
    }

    /// Two rows of brightness and one of either colour, in ten bits that are shifted left by
    /// `shift`.
    pub fn apply(&self, [upper, lower, blue, red]: [&[U16]; 4], out: [&mut [u8]; 4], shift: u32) {
        let [out_upper, out_lower, out_blue, out_red] = out;
        let code = |sample: U16| f32::from((sample.0 >> shift).min(1023));
        let sources = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0).zip(blue.iter().zip(red));
        let outs = out_upper.as_chunks_mut::<2>().0.iter_mut().zip(out_lower.as_chunks_mut::<2>().0);
        let outs = outs.zip(out_blue.iter_mut().zip(out_red));
        let [to_red, to_green, to_blue] = [0.2126_f32, 0.7152, 0.0722].map(|weight| weight * 219.0);
        for (((upper, lower), (blue, red)), ((out_upper, out_lower), (out_blue, out_red))) in sources.zip(outs) {
            let [blue, red] = [*blue, *red].map(|sample| (code(sample) - self.chroma.1) * self.chroma.0);
            let tint = self.mix.map(|[of_blue, of_red]| of_blue * blue + of_red * red);
            let mut sum = [0.0_f32; 3];
            let samples = [upper[0], upper[1], lower[0], lower[1]];
            let outs = out_upper.iter_mut().chain(out_lower);
            for (sample, out) in samples.into_iter().zip(outs) {
                let level = (code(sample) - self.luma.1) * self.luma.0;
                let rgb = self.pixel(tint.map(|tint| level + tint));
                for (sum, level) in sum.iter_mut().zip(rgb) {
                    *sum += level;
                }
                *out = (16.5 + to_red * rgb[0] + to_green * rgb[1] + to_blue * rgb[2]) as u8;
            }
            let mean = sum.map(|level| level / 4.0);
            let level = 0.2126 * mean[0] + 0.7152 * mean[1] + 0.0722 * mean[2];
            *out_blue = (128.5 + 224.0 / 1.8556 * (mean[2] - level)) as u8;
            *out_red = (128.5 + 224.0 / 1.5748 * (mean[0] - level)) as u8;
        }
    }

    /// Signals of red, green and blue, from 0 to 1.
    fn pixel(&self, signal: [f32; 3]) -> [f32; 3] {
        let mut light = signal.map(|level| self.light.at(level));
        if let Some(gain) = &self.gain {
            let bright = self.weights[0] * light[0] + self.weights[1] * light[1] + self.weights[2] * light[2];
            let gain = gain.at((bright / self.brightest).sqrt());
            light = light.map(|level| level * gain);
        }
        if let Some(dim) = &self.dim {
            let greatest = light[0].max(light[1]).max(light[2]);
            let dim = dim.at((greatest / self.brightest).sqrt());
            light = light.map(|level| level * dim);
        }
        let light = self.matrix.map(|row| row[0] * light[0] + row[1] * light[1] + row[2] * light[2]);
        into_gamut(light).map(|level| self.signal.at(level.sqrt()))
    }
}

/// A colour that the screen has none for gives way towards grey of its own brightness.
fn into_gamut(light: [f32; 3]) -> [f32; 3] {
    if light.iter().all(|level| (0.0..=1.0).contains(level)) {
        return light;
    }
    let grey = (0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]).clamp(0.0, 1.0);
    let mut share: f32 = 1.0;
    for level in light {
        if level < 0.0 {
            share = share.min(grey / (grey - level));
        } else if level > 1.0 {
            share = share.min((1.0 - grey) / (level - grey));
        }
    }
    light.map(|level| (grey + (level - grey) * share).clamp(0.0, 1.0))
}

/// BT.2390's curve: what of this light, 1 being white, a screen shows whose white is its
/// brightest. `peak` is the film's brightest, in candela per square metre.
fn dimmed(light: f64, peak: f64) -> f64 {
    let most = nits_to_pq(peak);
    let white = nits_to_pq(WHITE_NITS) / most;
    let level = (nits_to_pq(light * WHITE_NITS) / most).min(1.0);
    let knee = 1.5 * white - 0.5;
    if level <= knee {
        return light.min(1.0);
    }
    let t = (level - knee) / (1.0 - knee);
    let (t2, t3) = (t * t, t * t * t);
    let level = (2.0 * t3 - 3.0 * t2 + 1.0) * knee + (t3 - 2.0 * t2 + t) * (1.0 - knee) + (3.0 * t2 - 2.0 * t3) * white;
    pq_to_nits(level * most) / WHITE_NITS
}

fn pq_to_nits(level: f64) -> f64 {
    let root = level.max(0.0).powf(1.0 / 78.843_75);
    ((root - 0.835_937_5).max(0.0) / (18.851_562_5 - 18.6875 * root)).powf(1.0 / 0.159_301_757_812_5) * 10_000.0
}

fn nits_to_pq(nits: f64) -> f64 {
    let root = (nits.max(0.0) / 10_000.0).powf(0.159_301_757_812_5);
    ((0.835_937_5 + 18.851_562_5 * root) / (1.0 + 18.6875 * root)).powf(78.843_75)
}

/// Light of the scene, from 0 to 1.
fn hlg_to_scene(level: f64) -> f64 {
    const A: f64 = 0.178_832_77;
    const B: f64 = 0.284_668_92;
    const C: f64 = 0.559_910_73;
    if level <= 0.5 { level * level / 3.0 } else { (((level - C) / A).exp() + B) / 12.0 }
}

#[cfg(test)]
mod tests {
    use super::super::color::Weights;
    use super::*;

    const HDR10: Colors = Colors {
        weights: Weights::BT2020,
        full_range: false,
        curve: Curve::Pq,
        primaries: Primaries::Bt2020,
        peak_nits: 1000.0,
    };
    const HLG: Colors = Colors { curve: Curve::Hlg, ..HDR10 };
    const WIDE: Colors = Colors { curve: Curve::Standard, ..HDR10 };

    /// What becomes of a block of one colour.
    fn looked_up(tone: &Tone, code: [u16; 3]) -> [u8; 3] {
        let [luma, blue, red] = code.map(|sample| [U16::new(sample << 6); 2]);
        let (mut upper, mut lower, mut out_blue, mut out_red) = ([0; 2], [0; 2], [0; 1], [0; 1]);
        tone.apply([&luma, &luma, &blue[..1], &red[..1]], [&mut upper, &mut lower, &mut out_blue, &mut out_red], 6);
        assert!(upper.iter().chain(&lower).all(|&sample| sample == upper[0]));
        [upper[0], out_blue[0], out_red[0]]
    }

    /// Ten-bit samples of light, 1 being 203 candela, red, green and blue.
    fn pq_code(light: [f64; 3]) -> [u16; 3] {
        let [luma, blue, red] = Weights::BT2020.planes(light.map(|level| nits_to_pq(level * WHITE_NITS)));
        [64.0 + 876.0 * luma, 512.0 + 896.0 * blue, 512.0 + 896.0 * red].map(|code| code.round() as u16)
    }

    #[test]
    fn white_is_bright_and_leaves_room() {
        for (name, colors, code, expected) in [
            ("black in PQ", HDR10, pq_code([0.0; 3]), 16..=16),
            ("white in PQ", HDR10, pq_code([1.0; 3]), 205..=222),
            ("the brightest in PQ", HDR10, pq_code([1000.0 / WHITE_NITS; 3]), 234..=235),
            ("brighter than announced", HDR10, [940, 512, 512], 234..=235),
            ("half a white's light in PQ", HDR10, pq_code([0.5; 3]), 172..=182),
            ("black in HLG", HLG, [64, 512, 512], 16..=16),
            ("white in HLG", HLG, [64 + 657, 512, 512], 205..=222),
            ("the brightest in HLG", HLG, [940, 512, 512], 234..=235),
            ("grey in BT.2020", WIDE, [502, 512, 512], 125..=126),
        ] {
            let found = looked_up(&Tone::new(&colors), code);
            assert!(expected.contains(&found[0]), "{name}: {found:?}");
            assert_eq!(found[1..], [128, 128], "{name}");
        }
    }

    #[test]
    fn grey_stays_grey_and_in_order() {
        for colors in [HDR10, HLG, WIDE, Colors { full_range: true, ..HDR10 }] {
            let tone = Tone::new(&colors);
            let mut before = 0;
            for level in 0..1024 {
                let [luma, blue, red] = looked_up(&tone, [level, 512, 512]);
                assert!(luma >= before, "{colors:?} {level}: {luma} after {before}");
                assert_eq!([blue, red], [128, 128], "{colors:?} {level}");
                before = luma;
            }
        }
    }

    #[test]
    fn colors_keep_their_hue() {
        let red = looked_up(&Tone::new(&WIDE), {
            // BT.709's red as BT.2020 has it.
            let light = [0.627_404, 0.069_097, 0.016_391].map(|level: f64| level.powf(1.0 / GAMMA));
            let [luma, blue, red] = Weights::BT2020.planes(light);
            [64.0 + 876.0 * luma, 512.0 + 896.0 * blue, 512.0 + 896.0 * red].map(|code| code.round() as u16)
        });
        for (found, expected) in red.iter().zip([63_u8, 102, 240]) {
            assert!(found.abs_diff(expected) <= 2, "{red:?}");
        }
        // Far brighter than white, and outside BT.709: red still, and not pink, orange or clipped.
        let bright = looked_up(&Tone::new(&HDR10), pq_code([3.0, 0.1, 0.1]));
        let limited = [
            (f64::from(bright[0]) - 16.0) / 219.0,
            (f64::from(bright[1]) - 128.0) / 224.0,
            (f64::from(bright[2]) - 128.0) / 224.0,
        ];
        let [r, g, b] = Weights::BT709.rgb(limited);
        assert!(r > 0.85 && (g - b).abs() < 0.25 && g < 0.55 && b < 0.55, "{r} {g} {b}");
    }
}
