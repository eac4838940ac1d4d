//! MD5 of many streams at once in vector registers: 8 with AVX2, 16 with AVX-512F.
//!
//! In: the states of up to 8 or 16 streams and their whole blocks; out: the states after the
//! last block that all of them have. Lane `n` of every vector belongs to stream `n`; lanes
//! without a stream repeat the first one and are thrown away.
//!
//! A step takes as long for 16 lanes as for one, so the cost of a byte falls with each lane
//! in use. Blocks are loaded by rows (one stream's 16 words) and transposed into columns
//! (one word of every stream), which the processor does in the shadow of the step chain.
//!
//! Invariant: a function here runs only on a CPU that has the feature in its name; the one
//! who calls it (`super::Kernel`) has asked the CPU.

#![expect(clippy::indexing_slicing, reason = "arrays of a constant length, indexed by constants below it")]
#![expect(clippy::needless_range_loop, reason = "lane, row and block numbers read better than nested iterators")]

#[allow(clippy::wildcard_imports, reason = "two dozen instructions, each with its own unmistakable prefix")]
use std::arch::x86_64::*;

use super::Block;
use super::State;
use super::steps::steps;

/// Advances up to 8 streams in step, over as many blocks as all of them have.
#[target_feature(enable = "avx2")]
pub fn compress_avx2(states: &mut [State], blocks: &[&[Block]]) {
    let Some((lanes, count)) = rows::<8>(blocks) else { return };
    let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(|word| vector_256(column(states, word)));
    let ones = _mm256_set1_epi32(-1);
    for at in 0..count {
        let mut halves = [[_mm256_setzero_si256(); 8]; 2];
        for lane in 0..8 {
            [halves[0][lane], halves[1][lane]] = load_256(&lanes[lane][at]);
        }
        let words = [transpose_256(&halves[0]), transpose_256(&halves[1])];
        let before = [a, b, c, d];
        macro_rules! round {
            (f $sum:ident $x:ident $y:ident $z:ident) => {
                _mm256_add_epi32($sum, _mm256_xor_si256(_mm256_and_si256(_mm256_xor_si256($y, $z), $x), $z))
            };
            (g $sum:ident $x:ident $y:ident $z:ident) => {{
                let sum = apart_256(_mm256_add_epi32($sum, _mm256_andnot_si256($z, $y)));
                _mm256_add_epi32(sum, _mm256_and_si256($x, $z))
            }};
            (h $sum:ident $x:ident $y:ident $z:ident) => {
                _mm256_add_epi32($sum, _mm256_xor_si256(apart_256(_mm256_xor_si256($y, $z)), $x))
            };
            (i $sum:ident $x:ident $y:ident $z:ident) => {
                _mm256_add_epi32($sum, _mm256_xor_si256($y, _mm256_or_si256($x, _mm256_xor_si256($z, ones))))
            };
        }
        macro_rules! step {
            ($round:ident $w:ident $x:ident $y:ident $z:ident $word:literal $shift:literal $constant:literal) => {
                let constant = _mm256_set1_epi32(u32::cast_signed($constant));
                let sum = _mm256_add_epi32(words[$word / 8][$word % 8], constant);
                let sum = apart_256(_mm256_add_epi32($w, sum));
                let sum = round!($round sum $x $y $z);
                let (high, low) = (_mm256_slli_epi32::<$shift>(sum), _mm256_srli_epi32::<{ 32 - $shift }>(sum));
                $w = _mm256_add_epi32(_mm256_or_si256(high, low), $x);
            };
        }
        steps!(step, a, b, c, d);
        a = _mm256_add_epi32(a, before[0]);
        b = _mm256_add_epi32(b, before[1]);
        c = _mm256_add_epi32(c, before[2]);
        d = _mm256_add_epi32(d, before[3]);
    }
    put_back(states, [a, b, c, d].map(|lanes| words_256(lanes)));
}

/// Advances up to 16 streams in step, over as many blocks as all of them have.
#[target_feature(enable = "avx512f")]
pub fn compress_avx512(states: &mut [State], blocks: &[&[Block]]) {
    let Some((lanes, count)) = rows::<16>(blocks) else { return };
    let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(|word| vector_512(column(states, word)));
    for at in 0..count {
        let mut words = [_mm512_setzero_si512(); 16];
        for lane in 0..16 {
            words[lane] = load_512(&lanes[lane][at]);
        }
        let words = transpose_512(&words);
        let before = [a, b, c, d];
        // Each round is one instruction that looks its three inputs up in an 8-bit truth table.
        macro_rules! round {
            (f $x:ident $y:ident $z:ident) => {
                _mm512_ternarylogic_epi32::<0xCA>($x, $y, $z)
            };
            (g $x:ident $y:ident $z:ident) => {
                _mm512_ternarylogic_epi32::<0xE4>($x, $y, $z)
            };
            (h $x:ident $y:ident $z:ident) => {
                _mm512_ternarylogic_epi32::<0x96>($x, $y, $z)
            };
            (i $x:ident $y:ident $z:ident) => {
                _mm512_ternarylogic_epi32::<0x39>($x, $y, $z)
            };
        }
        macro_rules! step {
            ($round:ident $w:ident $x:ident $y:ident $z:ident $word:literal $shift:literal $constant:literal) => {
                let constant = _mm512_set1_epi32(u32::cast_signed($constant));
                let sum = apart_512(_mm512_add_epi32($w, _mm512_add_epi32(words[$word], constant)));
                let sum = _mm512_add_epi32(sum, round!($round $x $y $z));
                $w = _mm512_add_epi32(_mm512_rol_epi32::<$shift>(sum), $x);
            };
        }
        steps!(step, a, b, c, d);
        a = _mm512_add_epi32(a, before[0]);
        b = _mm512_add_epi32(b, before[1]);
        c = _mm512_add_epi32(c, before[2]);
        d = _mm512_add_epi32(d, before[3]);
    }
    put_back(states, [a, b, c, d].map(|lanes| words_512(lanes)));
}

/// One row per lane, and how many blocks all of them have; nothing when there is no stream.
fn rows<'a, const LANES: usize>(blocks: &[&'a [Block]]) -> Option<([&'a [Block]; LANES], usize)> {
    let mut lanes = [*blocks.first()?; LANES];
    for (lane, blocks) in lanes.iter_mut().zip(blocks) {
        *lane = blocks;
    }
    let count = lanes.iter().map(|blocks| blocks.len()).min()?;
    Some((lanes, count))
}

/// One word of every stream's state.
fn column<const LANES: usize>(states: &[State], word: usize) -> [u32; LANES] {
    let mut lanes = [0; LANES];
    for (lane, state) in lanes.iter_mut().zip(states) {
        *lane = state[word];
    }
    lanes
}

fn put_back<const LANES: usize>(states: &mut [State], words: [[u32; LANES]; 4]) {
    for (lane, state) in states.iter_mut().enumerate().take(LANES) {
        *state = words.map(|word| word[lane]);
    }
}

/// Eight rows of eight words become eight columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_256(rows: &[__m256i; 8]) -> [__m256i; 8] {
    let mut pairs = *rows;
    for n in 0..4 {
        pairs[2 * n] = _mm256_unpacklo_epi32(rows[2 * n], rows[2 * n + 1]);
        pairs[2 * n + 1] = _mm256_unpackhi_epi32(rows[2 * n], rows[2 * n + 1]);
    }
    let mut fours = pairs;
    for n in 0..2 {
        let (low, high) = (4 * n, 4 * n + 2);
        fours[4 * n] = _mm256_unpacklo_epi64(pairs[low], pairs[high]);
        fours[4 * n + 1] = _mm256_unpackhi_epi64(pairs[low], pairs[high]);
        fours[4 * n + 2] = _mm256_unpacklo_epi64(pairs[low + 1], pairs[high + 1]);
        fours[4 * n + 3] = _mm256_unpackhi_epi64(pairs[low + 1], pairs[high + 1]);
    }
    let mut columns = fours;
    for n in 0..4 {
        columns[n] = _mm256_permute2x128_si256::<0x20>(fours[n], fours[n + 4]);
        columns[n + 4] = _mm256_permute2x128_si256::<0x31>(fours[n], fours[n + 4]);
    }
    columns
}

/// Sixteen rows of sixteen words become sixteen columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_512(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = *rows;
    for n in 0..8 {
        pairs[2 * n] = _mm512_unpacklo_epi32(rows[2 * n], rows[2 * n + 1]);
        pairs[2 * n + 1] = _mm512_unpackhi_epi32(rows[2 * n], rows[2 * n + 1]);
    }
    // `fours[4 * n + k]` holds, in its quarter `q`, word `4 * q + k` of the rows `4 * n ..`.
    let mut fours = pairs;
    for n in 0..4 {
        let (low, high) = (4 * n, 4 * n + 2);
        fours[4 * n] = _mm512_unpacklo_epi64(pairs[low], pairs[high]);
        fours[4 * n + 1] = _mm512_unpackhi_epi64(pairs[low], pairs[high]);
        fours[4 * n + 2] = _mm512_unpacklo_epi64(pairs[low + 1], pairs[high + 1]);
        fours[4 * n + 3] = _mm512_unpackhi_epi64(pairs[low + 1], pairs[high + 1]);
    }
    let mut columns = fours;
    for k in 0..4 {
        let even_01 = _mm512_shuffle_i32x4::<0x88>(fours[k], fours[4 + k]);
        let odd_01 = _mm512_shuffle_i32x4::<0xDD>(fours[k], fours[4 + k]);
        let even_23 = _mm512_shuffle_i32x4::<0x88>(fours[8 + k], fours[12 + k]);
        let odd_23 = _mm512_shuffle_i32x4::<0xDD>(fours[8 + k], fours[12 + k]);
        columns[k] = _mm512_shuffle_i32x4::<0x88>(even_01, even_23);
        columns[4 + k] = _mm512_shuffle_i32x4::<0x88>(odd_01, odd_23);
        columns[8 + k] = _mm512_shuffle_i32x4::<0xDD>(even_01, even_23);
        columns[12 + k] = _mm512_shuffle_i32x4::<0xDD>(odd_01, odd_23);
    }
    columns
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "a vector is loaded by transmutation")]
fn load_256(block: &Block) -> [__m256i; 2] {
    // SAFETY: both sides are 64 bytes without padding, and every bit pattern is a valid vector.
    unsafe { std::mem::transmute::<Block, [__m256i; 2]>(*block) }
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "a vector is loaded by transmutation")]
fn vector_256(words: [u32; 8]) -> __m256i {
    // SAFETY: both sides are 32 bytes without padding, and every bit pattern is a valid vector.
    unsafe { std::mem::transmute::<[u32; 8], __m256i>(words) }
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "a vector is stored by transmutation")]
fn words_256(vector: __m256i) -> [u32; 8] {
    // SAFETY: both sides are 32 bytes without padding, and every bit pattern is a valid word.
    unsafe { std::mem::transmute::<__m256i, [u32; 8]>(vector) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "a vector is loaded by transmutation")]
fn load_512(block: &Block) -> __m512i {
    // SAFETY: both sides are 64 bytes without padding, and every bit pattern is a valid vector.
    unsafe { std::mem::transmute::<Block, __m512i>(*block) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "a vector is loaded by transmutation")]
fn vector_512(words: [u32; 16]) -> __m512i {
    // SAFETY: both sides are 64 bytes without padding, and every bit pattern is a valid vector.
    unsafe { std::mem::transmute::<[u32; 16], __m512i>(words) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "a vector is stored by transmutation")]
fn words_512(vector: __m512i) -> [u32; 16] {
    // SAFETY: both sides are 64 bytes without padding, and every bit pattern is a valid word.
    unsafe { std::mem::transmute::<__m512i, [u32; 16]>(vector) }
}

/// `value`, made opaque to the optimiser without leaving its register: see `scalar`.
#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "an empty instruction sequence is the only such barrier that costs nothing")]
fn apart_256(mut value: __m256i) -> __m256i {
    // SAFETY: the template holds only a comment: no instruction, no memory, no flags; the
    // register comes out as it went in.
    unsafe {
        std::arch::asm!("/* {0} */", inout(ymm_reg) value, options(pure, nomem, nostack, preserves_flags));
    }
    value
}

/// `value`, made opaque to the optimiser without leaving its register: see `scalar`.
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "an empty instruction sequence is the only such barrier that costs nothing")]
fn apart_512(mut value: __m512i) -> __m512i {
    // SAFETY: the template holds only a comment: no instruction, no memory, no flags; the
    // register comes out as it went in.
    unsafe {
        std::arch::asm!("/* {0} */", inout(zmm_reg) value, options(pure, nomem, nostack, preserves_flags));
    }
    value
}
