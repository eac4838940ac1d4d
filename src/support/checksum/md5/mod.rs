//! The block function of MD5, for one stream or for several at once.
//!
//! In: the states of some streams and whole 64-byte blocks of each; out: the states after
//! these blocks. Padding, carried bytes and who waits for whom are not known here.
//!
//! Invariants: a [`Kernel`] exists only if this CPU can run it, so using one is safe; every
//! kernel gives the same states, which the tests hold against the `md-5` crate.
//!
//! Own code instead of that crate, because MD5 is the greatest part of an upload's CPU time:
//! the crate hashes one stream, this hashes one a fifth faster, two or three for little more
//! than the price of one, and sixteen for less than twice that.

mod scalar;
mod steps;
#[cfg(target_arch = "x86_64")]
mod x86;

/// What MD5 remembers of the blocks it has seen.
pub type State = [u32; 4];
/// What MD5 takes at a time.
pub type Block = [u8; 64];

/// The state before the first block.
pub const START: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// The most streams any kernel takes at once.
pub const MOST_LANES: usize = 16;

/// A way to hash several streams at once that this CPU can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// The widest that this CPU can run.
    pub fn best() -> Kernel {
        Kernel::all().pop().unwrap_or(Kernel(Kind::Scalar))
    }

    /// Every kernel that this CPU can run, narrowest first.
    pub fn all() -> Vec<Kernel> {
        let known = [
            Kind::Scalar,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512,
        ];
        known.into_iter().filter(|kind| kind.runs_here()).map(Kernel).collect()
    }

    /// For logs: `scalar`, `avx2`, `avx512`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    /// How many streams it takes at once.
    pub fn lanes(self) -> usize {
        match self.0 {
            Kind::Scalar => 3,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 16,
        }
    }

    /// Advances each state over its stream's blocks; all streams have the same number of
    /// blocks, and there are no more of them than [`Kernel::lanes`]. Up to three streams go
    /// over the ordinary registers, where a step is twice as fast as in vectors.
    pub fn compress(self, states: &mut [State], blocks: &[&[Block]]) {
        debug_assert!(states.len() == blocks.len() && states.len() <= self.lanes());
        match (states, blocks) {
            ([], _) | (_, []) => {}
            ([state], [blocks]) => scalar::compress(std::array::from_mut(state), [blocks]),
            ([first, second], [one, two]) => {
                let mut states = [*first, *second];
                scalar::compress(&mut states, [one, two]);
                [*first, *second] = states;
            }
            ([first, second, third], [one, two, three]) => {
                let mut states = [*first, *second, *third];
                scalar::compress(&mut states, [one, two, three]);
                [*first, *second, *third] = states;
            }
            (states, blocks) => self.compress_wide(states, blocks),
        }
    }

    #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the vector kernels need a CPU feature"))]
    fn compress_wide(self, states: &mut [State], blocks: &[&[Block]]) {
        match self.0 {
            Kind::Scalar => {
                for (states, blocks) in states.chunks_mut(3).zip(blocks.chunks(3)) {
                    self.compress(states, blocks);
                }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a kernel of this kind comes only from `all`, after the CPU said that it has AVX2.
            Kind::Avx2 => unsafe { x86::compress_avx2(states, blocks) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a kernel of this kind comes only from `all`, after the CPU said that it has AVX-512F.
            Kind::Avx512 => unsafe { x86::compress_avx512(states, blocks) },
        }
    }
}

impl Kind {
    fn runs_here(self) -> bool {
        match self {
            Kind::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => is_x86_feature_detected!("avx512f"),
        }
    }
}

/// Advances one stream over its blocks.
pub fn compress(state: &mut State, blocks: &[Block]) {
    scalar::compress(std::array::from_mut(state), [blocks]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_and_number_of_lanes_agrees_with_the_md_5_crate() {
        let bytes: Vec<u8> = (0..64 * 40_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let all: &[Block] = bytes.as_chunks().0;
        for kernel in Kernel::all() {
            for lanes in 0..=kernel.lanes() {
                for count in [0, 1, 2, 9] {
                    let blocks: Vec<&[Block]> = (0..lanes).map(|lane| &all[lane * 2..][..count]).collect();
                    // Streams that are not at their start, each elsewhere.
                    let before: Vec<State> = (0..lanes).map(|lane| START.map(|word| word ^ lane as u32)).collect();
                    let mut expected = before.clone();
                    for (state, blocks) in expected.iter_mut().zip(&blocks) {
                        ::md5::block_api::compress(state, blocks);
                    }

                    let mut states = before.clone();
                    kernel.compress(&mut states, &blocks);
                    assert_eq!(states, expected, "{kernel:?}, {lanes} lanes, {count} blocks");

                    let mut states = before;
                    kernel.compress_wide(&mut states, &blocks);
                    assert_eq!(states, expected, "{kernel:?} wide, {lanes} lanes, {count} blocks");
                }
            }
        }
    }

    #[test]
    fn the_best_kernel_is_the_widest() {
        assert_eq!(Kernel::all().iter().map(|kernel| kernel.lanes()).max(), Some(Kernel::best().lanes()));
    }
}
