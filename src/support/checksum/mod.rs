//! Digests of a stream while it passes: MD5, SHA-256 and the size.
//!
//! In: a stream's bytes in batches of any size (about 256 KiB is best); out: [`Checksums`].
//! SHA-256 is done where the batch is handed in. MD5, three times as dear, goes through
//! [`Lanes`], where the batches of all running streams are hashed together; meanwhile the
//! caller writes the batch to disk and reads the next one.
//!
//! A step of an upload, which has one batch in flight:
//!
//! ```text
//! digester.settled().await;                        the batch before is hashed: no thread waits
//! blocking { digester.update(&batch); file.write_all(&batch) }
//! ```
//!
//! Invariants: the digests do not depend on how the stream is cut into batches or on which
//! kernel ran; a digester may be dropped at any moment, and its last batch is then given up.
//! At most two batches of a stream are alive here.

mod lanes;
mod md5;

use bytes::Bytes;
use ring::digest;
use tokio::sync::oneshot::error::TryRecvError;

pub use lanes::Lanes;
pub use md5::Kernel;

use lanes::Receipt;
use md5::Block;
use md5::State;

/// Below this a batch is hashed on the spot: handing it over would cost as much.
const WORTH_HANDING_OVER_BYTES: usize = 32 << 10;

/// What is known of a stream that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksums {
    pub md5: [u8; 16],
    pub sha256: [u8; 32],
    pub size_bytes: u64,
}

impl Checksums {
    /// 32 lower-case hexadecimal digits.
    pub fn md5_hex(&self) -> String {
        hex(&self.md5)
    }

    /// 64 lower-case hexadecimal digits.
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }
}

/// Digests one stream.
pub struct Digester {
    lanes: Lanes,
    sha256: digest::Context,
    /// After the last block that is hashed; not counting `pending`.
    state: State,
    pending: Option<Pending>,
    /// The bytes after the last whole block.
    rest: Block,
    rest_bytes: usize,
    size_bytes: u64,
}

/// A batch in the lanes, kept so that it can be hashed here if they fail.
struct Pending {
    bytes: Bytes,
    receipt: Receipt,
}

impl Digester {
    pub fn new(lanes: &Lanes) -> Digester {
        Digester {
            lanes: lanes.clone(),
            sha256: digest::Context::new(&digest::SHA256),
            state: md5::START,
            pending: None,
            rest: [0; 64],
            rest_bytes: 0,
            size_bytes: 0,
        }
    }

    /// Takes the next bytes. It computes, and waits for the batch before unless
    /// [`Digester::settled`] has: it belongs into a blocking step, never into an async task.
    pub fn update(&mut self, batch: &Bytes) {
        self.settle();
        self.size_bytes += batch.len() as u64;
        self.update_md5(batch.clone());
        self.sha256.update(batch);
    }

    /// Waits, without holding a thread, until the last batch is hashed. May be cancelled.
    pub async fn settled(&mut self) {
        if let Some(pending) = &mut self.pending {
            let state = (&mut pending.receipt).await.ok();
            let bytes = std::mem::take(&mut pending.bytes);
            self.pending = None;
            self.go_on(state, &bytes);
        }
    }

    /// The checksums of everything taken. As [`Digester::update`], it may wait for the last batch.
    pub fn finish(mut self) -> Checksums {
        self.settle();
        pad(&mut self.state, self.rest.get(..self.rest_bytes).unwrap_or_default(), self.size_bytes);

        let mut checksums = Checksums { md5: [0; 16], sha256: [0; 32], size_bytes: self.size_bytes };
        checksums.md5 = spelt(self.state);
        for (to, from) in checksums.sha256.iter_mut().zip(self.sha256.finish().as_ref()) {
            *to = *from;
        }
        checksums
    }

    fn update_md5(&mut self, mut bytes: Bytes) {
        if self.rest_bytes > 0 {
            let head = bytes.split_to(bytes.len().min(64 - self.rest_bytes));
            self.keep(&head);
            if self.rest_bytes < 64 {
                return;
            }
            md5::compress(&mut self.state, &[self.rest]);
            self.rest_bytes = 0;
        }
        let tail = bytes.split_off(bytes.len() / 64 * 64);
        self.keep(&tail);
        if bytes.len() < WORTH_HANDING_OVER_BYTES {
            md5::compress(&mut self.state, bytes.as_chunks().0);
        } else {
            let receipt = self.lanes.submit(self.state, bytes.clone());
            self.pending = Some(Pending { bytes, receipt });
        }
    }

    /// Adds to the bytes after the last whole block; there is room for them.
    fn keep(&mut self, bytes: &[u8]) {
        for (to, from) in self.rest.iter_mut().skip(self.rest_bytes).zip(bytes) {
            *to = *from;
        }
        self.rest_bytes += bytes.len();
    }

    fn settle(&mut self) {
        let Some(mut pending) = self.pending.take() else { return };
        let state = match pending.receipt.try_recv() {
            Ok(state) => Some(state),
            Err(TryRecvError::Closed) => None,
            Err(TryRecvError::Empty) => pending.receipt.blocking_recv().ok(),
        };
        self.go_on(state, &pending.bytes);
    }

    /// Goes on from the state after the pending batch, or hashes the batch here.
    fn go_on(&mut self, state: Option<State>, bytes: &Bytes) {
        match state {
            Some(state) => self.state = state,
            None => md5::compress(&mut self.state, bytes.as_chunks().0),
        }
    }
}

/// MD5 alone, of bytes that are all there.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    let (blocks, rest) = bytes.as_chunks();
    ended(md5::START, blocks, rest, bytes.len())
}

/// The same of two, for little more than the price of the longer one.
pub fn md5_of_both(one: &[u8], other: &[u8]) -> [[u8; 16]; 2] {
    let ((blocks, rest), (others, others_rest)) = (one.as_chunks(), other.as_chunks());
    let common = blocks.len().min(others.len());
    let ((blocks, more), (others, others_more)) = (blocks.split_at(common), others.split_at(common));
    let mut states = [md5::START; 2];
    Kernel::best().compress(&mut states, &[blocks, others]);
    let [state, others_state] = states;
    [ended(state, more, rest, one.len()), ended(others_state, others_more, others_rest, other.len())]
}

/// The last of a stream of that size.
fn ended(mut state: State, blocks: &[Block], rest: &[u8], size_bytes: usize) -> [u8; 16] {
    md5::compress(&mut state, blocks);
    pad(&mut state, rest, size_bytes as u64);
    spelt(state)
}

/// The last blocks: what is left, and the size.
fn pad(state: &mut State, rest: &[u8], size_bytes: u64) {
    let mut tail = [0; 128];
    let padded_bytes = if rest.len() < 56 { 64 } else { 128 };
    for (to, from) in tail.iter_mut().zip(rest.iter().chain(&[0x80])) {
        *to = *from;
    }
    let size_bits = size_bytes.wrapping_mul(8).to_le_bytes();
    for (to, from) in tail.iter_mut().skip(padded_bytes - size_bits.len()).zip(size_bits) {
        *to = from;
    }
    md5::compress(state, tail.as_chunks().0.get(..padded_bytes / 64).unwrap_or_default());
}

fn spelt(state: State) -> [u8; 16] {
    let mut md5 = [0; 16];
    for (to, from) in md5.iter_mut().zip(state.iter().flat_map(|word| word.to_le_bytes())) {
        *to = from;
    }
    md5
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::task::Context;
    use std::task::Waker;

    use proptest::prelude::*;
    use sha2::Digest;

    use super::*;

    #[test]
    fn the_vectors_of_rfc_1321() {
        let vectors = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ];
        let lanes = Lanes::start();
        for (text, md5) in vectors {
            assert_eq!(digest(&lanes, [Bytes::from_static(text.as_bytes())]).md5_hex(), md5, "{text}");
        }
    }

    #[test]
    fn sha256_and_size_are_of_the_whole_stream() {
        let checksums = digest(&Lanes::start(), ["a", "", "bc"].map(Bytes::from));
        assert_eq!(checksums.sha256_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(checksums.size_bytes, 3);
    }

    #[test]
    fn two_at_once_are_as_one_after_the_other() {
        let bytes = noise(20_000, 3);
        for lengths in [[0, 0], [0, 1], [64, 64], [63, 10_000], [10_001, 65], [20_000, 20_000], [20_000, 0]] {
            let [one, other] = lengths.map(|length| bytes.slice(20_000 - length..));
            assert_eq!(md5_of_both(&one, &other), [md5(&one), md5(&other)], "{lengths:?}");
        }
    }

    #[test]
    fn every_short_length() {
        let (lanes, bytes) = (Lanes::start(), noise(300, 1));
        for length in 0..=300 {
            let bytes = bytes.slice(..length);
            assert_eq!(digest(&lanes, [bytes.clone()]), expected(&bytes), "{length} bytes");
        }
    }

    #[test]
    fn long_streams_of_different_lengths_side_by_side_through_every_kernel() {
        for kernel in Kernel::all() {
            let lanes = Lanes::with_kernel(kernel);
            let lengths = (0..kernel.lanes() as u64 + 3).map(|n| if n == 0 { 5_000_001 } else { n * n * 7_001 });
            let streams: Vec<Bytes> = lengths.map(|length| noise(length as usize, length)).collect();
            let digesters: Vec<Digester> = streams.iter().map(|bytes| begun(&lanes, bytes)).collect();
            for (digester, bytes) in digesters.into_iter().zip(&streams) {
                assert_eq!(digester.finish(), expected(bytes), "{} bytes by {kernel:?}", bytes.len());
            }
        }
    }

    #[test]
    fn many_threads_share_the_lanes() {
        for kernel in Kernel::all() {
            let lanes = Lanes::with_kernel(kernel);
            std::thread::scope(|scope| {
                for seed in 0..24 {
                    let lanes = &lanes;
                    scope.spawn(move || {
                        let bytes = noise(400_000 + seed as usize * 10_007, seed);
                        let batches =
                            (0..bytes.len()).step_by(65_537).map(|at| bytes.slice(at..bytes.len().min(at + 65_537)));
                        assert_eq!(digest(lanes, batches), expected(&bytes));
                    });
                }
            });
        }
    }

    #[test]
    fn a_dropped_stream_lets_its_bytes_go_and_disturbs_nobody() {
        let lanes = Lanes::start();
        let (given_up, kept) = (noise(3_000_000, 1), noise(100_000, 2));
        drop(begun(&lanes, &given_up));
        let after = begun(&lanes, &kept);
        assert_eq!(after.finish(), expected(&kept));
        assert!(given_up.is_unique(), "the lanes still hold the bytes of a dropped stream");
    }

    #[test]
    fn without_a_thread_the_stream_hashes_for_itself() {
        let bytes = noise(300_000, 1);
        assert_eq!(
            digest(&Lanes::deserted(), [bytes.clone(), bytes.clone()]),
            expected(&[&bytes[..], &bytes].concat())
        );
    }

    #[tokio::test]
    async fn waiting_for_a_batch_may_be_cancelled() {
        let lanes = Lanes::start();
        let bytes = noise(1_000_000, 1);
        let mut digester = begun(&lanes, &bytes);
        for _ in 0..3 {
            let _ = std::pin::pin!(digester.settled()).poll(&mut Context::from_waker(Waker::noop()));
        }
        digester.settled().await;
        digester.settled().await;
        digester.update(&bytes);
        digester.settled().await;
        assert_eq!(digester.finish(), expected(&[&bytes[..], &bytes].concat()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Streams cut and interleaved at will, some given up, through every kernel.
        #[test]
        fn digests_do_not_depend_on_batches_or_neighbours(
            steps in prop::collection::vec((0_usize..20, prop_oneof![0_usize..200, 30_000_usize..80_000], 0_u8..12), 0..60),
        ) {
            let source = noise(80_000, 7);
            for kernel in Kernel::all() {
                let lanes = Lanes::with_kernel(kernel);
                let fresh = || (Digester::new(&lanes), Vec::new());
                let mut streams: Vec<(Digester, Vec<u8>)> = (0..20).map(|_| fresh()).collect();
                for &(which, length, fate) in &steps {
                    if fate == 0 {
                        streams[which] = fresh();
                    }
                    streams[which].0.update(&source.slice(..length));
                    streams[which].1.extend_from_slice(&source[..length]);
                }
                for (digester, bytes) in streams {
                    prop_assert_eq!(digester.finish(), expected(&bytes));
                }
            }
        }
    }

    fn digest(lanes: &Lanes, batches: impl IntoIterator<Item = Bytes>) -> Checksums {
        let mut digester = Digester::new(lanes);
        for batch in batches {
            digester.update(&batch);
        }
        digester.finish()
    }

    /// A digester whose bytes are in the lanes.
    fn begun(lanes: &Lanes, bytes: &Bytes) -> Digester {
        let mut digester = Digester::new(lanes);
        digester.update(bytes);
        digester
    }

    fn expected(bytes: &[u8]) -> Checksums {
        Checksums {
            md5: ::md5::Md5::digest(bytes).into(),
            sha256: sha2::Sha256::digest(bytes).into(),
            size_bytes: bytes.len() as u64,
        }
    }

    /// Bytes without a pattern, the same for the same seed.
    fn noise(length: usize, seed: u64) -> Bytes {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }
}
