//! MD5 on the ordinary registers: one stream, or two or three side by side.
//!
//! In: the states of `N` streams and their whole blocks; out: the states after the last
//! block that all of them have. MD5 is a single chain of dependent additions, so a core is
//! half idle while it hashes one stream; two chains interleaved take hardly longer than one.
//! (A third no longer fits the registers of `x86_64`, and still gains a little.)
//!
//! The shape is about that chain: in each step everything that does not need the previous
//! step's result is summed first, and [`apart`] keeps the compiler from re-associating the
//! additions into a longer chain, which would cost a quarter of the speed.

#![expect(clippy::indexing_slicing, reason = "arrays of a constant length, indexed by constants below it")]

use super::Block;
use super::State;
use super::steps::steps;

/// Advances `N` streams in step, over as many blocks as all of them have.
pub fn compress<const N: usize>(states: &mut [State; N], blocks: [&[Block]; N]) {
    let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(|word| states.map(|state| state[word]));
    let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    for at in 0..count {
        let words = blocks.map(|blocks| words(&blocks[at]));
        let before = [a, b, c, d];
        macro_rules! step {
            ($round:ident $w:ident $x:ident $y:ident $z:ident $word:literal $shift:literal $constant:literal) => {
                for n in 0..N {
                    let sum = apart($w[n].wrapping_add(words[n][$word]).wrapping_add($constant));
                    $w[n] = $round(sum, $x[n], $y[n], $z[n]).rotate_left($shift).wrapping_add($x[n]);
                }
            };
        }
        steps!(step, a, b, c, d);
        for n in 0..N {
            a[n] = a[n].wrapping_add(before[0][n]);
            b[n] = b[n].wrapping_add(before[1][n]);
            c[n] = c[n].wrapping_add(before[2][n]);
            d[n] = d[n].wrapping_add(before[3][n]);
        }
    }
    for (n, state) in states.iter_mut().enumerate() {
        *state = [a[n], b[n], c[n], d[n]];
    }
}

#[inline]
fn words(block: &Block) -> [u32; 16] {
    let (words, _) = block.as_chunks::<4>();
    std::array::from_fn(|at| u32::from_le_bytes(words[at]))
}

// In each round `x` is the word that the step before has just made: it comes in last.

#[inline]
fn f(sum: u32, x: u32, y: u32, z: u32) -> u32 {
    sum.wrapping_add(((y ^ z) & x) ^ z)
}

#[inline]
fn g(sum: u32, x: u32, y: u32, z: u32) -> u32 {
    apart(sum.wrapping_add(y & !z)).wrapping_add(x & z)
}

#[inline]
fn h(sum: u32, x: u32, y: u32, z: u32) -> u32 {
    sum.wrapping_add(apart(y ^ z) ^ x)
}

#[inline]
fn i(sum: u32, x: u32, y: u32, z: u32) -> u32 {
    sum.wrapping_add(y ^ (x | !z))
}

/// `value`, made opaque to the optimiser without leaving its register.
#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "an empty instruction sequence is the only such barrier that costs nothing")]
fn apart(mut value: u32) -> u32 {
    // SAFETY: the template holds only a comment: no instruction, no memory, no flags; the
    // register comes out as it went in.
    unsafe {
        std::arch::asm!("/* {0:e} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
    }
    value
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn apart(value: u32) -> u32 {
    value
}
