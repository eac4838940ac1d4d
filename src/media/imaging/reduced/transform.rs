//! The inverse transform of the lowest coefficients: from `N` by `N` of them to as many samples.
//!
//! In: quantised coefficients and a quantisation table. Out: 8-bit samples, rounded.
//!
//! This is the inverse discrete cosine transform of size `N` of what is left of a block, scaled
//! by `N / 8` so that brightness stays. Seen as a filter it drops every frequency that the
//! smaller picture cannot show and leaves the others as they are.
//!
//! Invariant: any coefficients give samples; what is out of range is clamped.
#![expect(clippy::indexing_slicing, reason = "constant indices of arrays, and masked ones")]

use std::f64::consts::PI;

/// Zig-zag order: where each coefficient lies in the block of eight by eight.
const NATURAL: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];
/// Where coefficients go that are not kept.
const NOWHERE: u8 = 31;

/// The coefficients kept of a block, row by row, `N` in each. The rest is filled with whatever.
pub type Block = [i16; 32];

/// Which coefficients are kept for `N` by `N` samples.
pub struct Kept<const N: usize>;

impl<const N: usize> Kept<N> {
    /// A bit for each zig-zag position.
    pub const MASK: u64 = mask(N);
    /// The last of the positions.
    pub const LAST: u32 = mask(N).ilog2();
    const PLACES: [u8; 256] = places(N);

    /// Where in a [`Block`] the coefficient of this zig-zag position goes.
    #[inline]
    pub fn place(position: u32) -> usize {
        usize::from(Self::PLACES[position as usize & 255] & NOWHERE)
    }
}

const fn mask(n: usize) -> u64 {
    let (mut mask, mut at) = (0, 0);
    while at < 64 {
        if (NATURAL[at] / 8) < n as u8 && (NATURAL[at] % 8) < n as u8 {
            mask |= 1 << at;
        }
        at += 1;
    }
    mask
}

const fn places(n: usize) -> [u8; 256] {
    let mut places = [NOWHERE; 256];
    let mut at = 0;
    while at < 64 {
        if mask(n) >> at & 1 == 1 {
            places[at] = NATURAL[at] / 8 * n as u8 + NATURAL[at] % 8;
        }
        at += 1;
    }
    places
}

/// Factors for the coefficients kept, made from a quantisation table.
pub struct Factors {
    whole: [i32; 4],
    real: [f32; 16],
}

impl Factors {
    pub fn new<const N: usize>(quantisation: &[u16; 64]) -> Self {
        // What each row and column of the transform of size four contributes. The odd ones are
        // both divided by what `transform_4` multiplies back.
        let root = 0.5_f64.sqrt();
        let odd = 0.5 * (PI / 8.0).cos();
        let weights = [0.5 * root, odd, 0.5 * root, odd];
        let mut factors = Self { whole: [0; 4], real: [0.0; 16] };
        for (&step, position) in quantisation.iter().zip(0..) {
            let place = Kept::<N>::place(position);
            if Kept::<N>::MASK >> position & 1 == 0 {
                continue;
            }
            if N == 4 {
                factors.real[place] = (f64::from(step) * weights[place / 4] * weights[place % 4]) as f32;
            } else {
                factors.whole[place] = i32::from(step);
            }
        }
        factors
    }
}

/// Writes a block's samples to `out`, whose rows are `stride` apart.
#[inline]
pub fn transform<const N: usize>(block: &Block, factors: &Factors, out: &mut [u8], stride: usize) {
    match N {
        1 => out[0] = sample(i32::from(block[0]).wrapping_mul(factors.whole[0])),
        2 => transform_2(block, factors, out, stride),
        _ => transform_4(block, factors, out, stride),
    }
}

fn transform_2(block: &Block, factors: &Factors, out: &mut [u8], stride: usize) {
    let [a, b, c, d] = std::array::from_fn(|i| i32::from(block[i]).wrapping_mul(factors.whole[i]));
    let (top, bottom) = (a.wrapping_add(c), a.wrapping_sub(c));
    let (right_top, right_bottom) = (b.wrapping_add(d), b.wrapping_sub(d));
    out[..2].copy_from_slice(&[sample(top.wrapping_add(right_top)), sample(top.wrapping_sub(right_top))]);
    let below = [sample(bottom.wrapping_add(right_bottom)), sample(bottom.wrapping_sub(right_bottom))];
    out[stride..stride + 2].copy_from_slice(&below);
}

/// From eight times a sample around zero.
#[inline]
fn sample(eightfold: i32) -> u8 {
    ((eightfold.wrapping_add(4) >> 3) + 128).clamp(0, 255) as u8
}

fn transform_4(block: &Block, factors: &Factors, out: &mut [u8], stride: usize) {
    let mut rows = [[0.0_f32; 4]; 4];
    for (y, row) in rows.iter_mut().enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            *value = f32::from(block[y * 4 + x]) * factors.real[y * 4 + x];
        }
    }
    let rows = transpose(&inverse_4(&transpose(&inverse_4(&rows))));
    for (y, row) in rows.iter().enumerate() {
        let mut samples = [0; 4];
        for (to, &value) in samples.iter_mut().zip(row) {
            let value = value + 128.0;
            let value = if value > 0.0 { value } else { 0.0 };
            let value = if value < 255.0 { value } else { 255.0 };
            // Added to 2^23, a number is rounded and stands in the lowest bits.
            *to = (value + 8_388_608.0).to_bits() as u8;
        }
        out[y * stride..y * stride + 4].copy_from_slice(&samples);
    }
}

/// Down the columns.
#[inline]
fn inverse_4(rows: &[[f32; 4]; 4]) -> [[f32; 4]; 4] {
    /// The tangent of 22.5 degrees.
    const TANGENT: f32 = 0.414_213_56;
    let mut out = [[0.0; 4]; 4];
    for x in 0..4 {
        let (sum, difference) = (rows[0][x] + rows[2][x], rows[0][x] - rows[2][x]);
        let outer = rows[1][x] + TANGENT * rows[3][x];
        let inner = TANGENT * rows[1][x] - rows[3][x];
        out[0][x] = sum + outer;
        out[1][x] = difference + inner;
        out[2][x] = difference - inner;
        out[3][x] = sum - outer;
    }
    out
}

#[inline]
fn transpose(rows: &[[f32; 4]; 4]) -> [[f32; 4]; 4] {
    std::array::from_fn(|y| std::array::from_fn(|x| rows[x][y]))
}
