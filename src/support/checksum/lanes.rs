//! Hashes the batches of all running streams together, lane by lane.
//!
//! In: batches, each the next whole blocks of one stream with that stream's MD5 state; out:
//! for each the state after it, through a receipt. One thread takes whatever is queued, works
//! on it in short strides, and after each stride lets finished batches go and new ones in:
//! nothing waits for a lane to fill, and the busier the box, the fuller the lanes. With
//! nothing queued the thread sleeps.
//!
//! Invariants: a batch whose receipt is gone is given up at the next stride; a batch that the
//! thread cannot take is told by its receipt, and its stream hashes it itself. When the last
//! [`Lanes`] and the last digester are dropped, the thread ends.
//!
//! A thread of its own, because one is enough for several GB a second, because hashing then
//! goes on while the stream is written and read, and because a thread that waited for its
//! lane would take a place in the pool for blocking work.

use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::md5::Block;
use super::md5::Kernel;
use super::md5::MOST_LANES;
use super::md5::START;
use super::md5::State;

/// Blocks between two looks at the queue: 16 KiB, some 20 to 40 µs.
const STRIDE_BLOCKS: usize = 256;

/// The lanes, shared by all streams of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Lanes {
    queue: mpsc::Sender<Batch>,
}

/// Where the state after a batch arrives; an error means that nobody will hash it.
pub type Receipt = oneshot::Receiver<State>;

#[derive(Debug)]
struct Batch {
    state: State,
    /// What is left of it: always whole blocks.
    bytes: Bytes,
    receipt: oneshot::Sender<State>,
}

impl Lanes {
    /// Starts the thread with the widest kernel of this CPU.
    pub fn start() -> Lanes {
        Lanes::with_kernel(Kernel::best())
    }

    /// Starts the thread with a chosen kernel, to measure and to test it.
    pub fn with_kernel(kernel: Kernel) -> Lanes {
        let (queue, batches) = mpsc::channel();
        let thread = std::thread::Builder::new().name("md5".into()).spawn(move || run(kernel, &batches));
        match thread {
            Ok(_) => tracing::debug!(kernel = kernel.name(), lanes = kernel.lanes(), "md5 is hashed in lanes"),
            Err(error) => tracing::warn!(%error, "no thread for md5: each upload hashes for itself"),
        }
        Lanes { queue }
    }

    /// Lanes in which nobody works.
    #[cfg(test)]
    pub(super) fn deserted() -> Lanes {
        Lanes { queue: mpsc::channel().0 }
    }

    /// Hands in the next whole blocks of a stream.
    pub(super) fn submit(&self, state: State, bytes: Bytes) -> Receipt {
        let (sender, receipt) = oneshot::channel();
        // Refused, the batch is dropped, its sender with it, and so the receipt tells.
        let _ = self.queue.send(Batch { state, bytes, receipt: sender });
        receipt
    }
}

fn run(kernel: Kernel, queue: &mpsc::Receiver<Batch>) {
    let mut lanes: Vec<Batch> = Vec::with_capacity(MOST_LANES);
    loop {
        if lanes.is_empty() {
            let Ok(batch) = queue.recv() else { return };
            lanes.push(batch);
        }
        while lanes.len() < kernel.lanes()
            && let Ok(batch) = queue.try_recv()
        {
            lanes.push(batch);
        }
        lanes.retain(|batch| !batch.receipt.is_closed());
        stride(kernel, &mut lanes);
        for done in lanes.extract_if(.., |batch| batch.bytes.is_empty()) {
            drop(done.bytes);
            // The stream may have been dropped meanwhile.
            let _ = done.receipt.send(done.state);
        }
    }
}

/// Advances all lanes by a stride, or to the end of the shortest.
fn stride(kernel: Kernel, lanes: &mut [Batch]) {
    let shortest = lanes.iter().map(|batch| batch.bytes.len() / size_of::<Block>()).min().unwrap_or(0);
    let count = shortest.min(STRIDE_BLOCKS);

    let (mut states, mut blocks) = ([START; MOST_LANES], [[].as_slice(); MOST_LANES]);
    for ((state, blocks), batch) in states.iter_mut().zip(&mut blocks).zip(lanes.iter()) {
        *state = batch.state;
        *blocks = batch.bytes.as_chunks().0.get(..count).unwrap_or_default();
    }
    if let (Some(states), Some(blocks)) = (states.get_mut(..lanes.len()), blocks.get(..lanes.len())) {
        kernel.compress(states, blocks);
    }
    for (batch, state) in lanes.iter_mut().zip(states) {
        batch.state = state;
        let _ = batch.bytes.split_to(count * size_of::<Block>());
    }
}
