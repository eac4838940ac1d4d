//! The CRC-32 of originals, which an archive says before their bytes.
//!
//! It is computed once for each original and kept: ahead, when a collection is put together, or at
//! the latest when an archive is first asked for. A film is many gigabytes, so it is read in blocks,
//! between which everybody else's work has its turn; no original is read twice at the same time,
//! and few are at once, however many collections are made.
//!
//! Working ahead ends with the process and is not taken up again: whoever asks gets the same.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::Semaphore;

use crate::assets::AssetId;
use crate::assets::Status;
use crate::collections::Collections;
use crate::collections::Filled;
use crate::collections::store;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::homes::Source;
use crate::support::cpu::Cpu;
use crate::support::single_flight::SingleFlight;

/// How much of a file is read in one step.
const BLOCK_BYTES: usize = 1 << 20;

/// Originals that are read at once: one ahead, and one that somebody waits for.
const READERS: usize = 2;

/// A content of an original.
type Which = (AssetId, u32);

/// What is being computed, and what is to be; cheap to clone.
#[derive(Clone)]
pub(super) struct Sums {
    under_way: SingleFlight<Which, Result<u32, Arc<Error>>>,
    readers: Arc<Semaphore>,
    ahead: Arc<Mutex<Ahead>>,
}

impl Sums {
    pub(super) fn new(cpu: &Cpu) -> Sums {
        Sums {
            under_way: SingleFlight::new(cpu.handle().clone()),
            readers: Arc::new(Semaphore::new(READERS)),
            ahead: Arc::default(),
        }
    }
}

/// What somebody may ask for one day.
#[derive(Default)]
struct Ahead {
    waiting: BTreeSet<Which>,
    /// Somebody works on them.
    is_served: bool,
}

impl Ahead {
    /// Adds to what waits; true for whoever is to begin to work on it.
    fn add(&mut self, more: impl Iterator<Item = Which>) -> bool {
        self.waiting.extend(more);
        !self.waiting.is_empty() && !std::mem::replace(&mut self.is_served, true)
    }

    /// The next one; without one, whoever asked works no more.
    fn next(&mut self) -> Option<Which> {
        let next = self.waiting.pop_first();
        self.is_served = next.is_some();
        next
    }
}

impl Collections {
    /// Computes what the archive will need before somebody waits for it.
    pub(super) fn prepare(&self, filled: &Filled) {
        let kept = filled.assets.iter().map(|full| &full.asset).filter(|asset| asset.status != Status::Queued);
        let is_first = self.with_ahead(|ahead| ahead.add(kept.map(|asset| (asset.id, asset.revision))));
        if is_first {
            self.db.handle().spawn(self.clone().work_ahead());
        }
    }

    /// An original, open, with its size and its CRC-32.
    pub(super) async fn summed(&self, id: AssetId, revision: u32) -> Result<(Source, u64, u32)> {
        let (source, size_bytes) = self.homes.open(id, revision).await?;
        if let Some(crc32) = self.known(id, revision, size_bytes).await? {
            return Ok((source, size_bytes, crc32));
        }
        let (this, reading) = (self.clone(), source.clone());
        let work = move || async move { this.compute((id, revision), reading, size_bytes).await.map_err(Arc::new) };
        let crc32 = self.sums.under_way.run((id, revision), work).await?.map_err(|e| Error::again(&e))?;
        Ok((source, size_bytes, crc32))
    }

    async fn work_ahead(self) {
        while let Some((id, revision)) = self.with_ahead(Ahead::next) {
            if let Err(error) = self.summed(id, revision).await {
                tracing::debug!(asset.id = %id, %error, "the checksum for archives could not be computed");
            }
        }
    }

    async fn known(&self, id: AssetId, revision: u32, size_bytes: u64) -> Result<Option<u32>> {
        let known = self.db.read(move |c| store::crc32(c, id, revision)).await?;
        Ok(known.filter(|(_, of_bytes)| *of_bytes == size_bytes).map(|(crc32, _)| crc32))
    }

    async fn compute(&self, (id, revision): Which, source: Source, size_bytes: u64) -> Result<u32> {
        let _turn = self.sums.readers.acquire().await.map_err(|e| Code::Internal.from("waiting for a turn", e))?;
        if let Some(crc32) = self.known(id, revision, size_bytes).await? {
            return Ok(crc32);
        }
        let crc32 = match source {
            Source::Here(file) => sum(&self.cpu, &file).await?,
            Source::Away(away) => {
                let mut hasher = crc32fast::Hasher::new();
                let (mut incoming, mut next) = away.begin(0..size_bytes).await?;
                while let Some(bytes) = next {
                    hasher.update(&bytes);
                    next = incoming.next().await?;
                }
                hasher.finalize()
            }
        };
        self.db.write_relaxed(move |tx| store::set_crc32(tx, id, revision, crc32, size_bytes)).await?;
        Ok(crc32)
    }

    fn with_ahead<T>(&self, look: impl FnOnce(&mut Ahead) -> T) -> T {
        look(&mut self.sums.ahead.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Of a whole file, in many short steps.
async fn sum(cpu: &Cpu, file: &Arc<File>) -> Result<u32> {
    let (mut hasher, mut block, mut at) = (crc32fast::Hasher::new(), vec![0; BLOCK_BYTES], 0);
    loop {
        let file = Arc::clone(file);
        let step = move || {
            let read = loop {
                match file.read_at(&mut block, at) {
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            hasher.update(block.get(..read).unwrap_or_default());
            Ok((hasher, block, read))
        };
        let read;
        (hasher, block, read) = cpu.run(step).await?;
        if read == 0 {
            return Ok(hasher.finalize());
        }
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use super::*;

    fn which() -> Which {
        (AssetId::random().unwrap(), 1)
    }

    #[test]
    fn what_waits_is_served_by_one_and_each_once() {
        let mut ahead = Ahead::default();
        let (a, b) = (which(), which());
        assert!(!ahead.add([].into_iter()), "nothing to do");
        assert!(ahead.add([a, b].into_iter()));
        assert!(!ahead.add([a].into_iter()), "somebody is at it");
        let (first, second) = (ahead.next(), ahead.next());
        assert_eq!(BTreeSet::from([first, second]), BTreeSet::from([Some(a), Some(b)]));
        assert!(!ahead.add([a].into_iter()), "a content may be asked for while it is computed");
        assert_eq!((ahead.next(), ahead.next()), (Some(a), None));
        assert!(ahead.add([a].into_iter()), "whoever was at it has stopped");
    }

    #[tokio::test]
    async fn others_have_their_turn_while_a_large_file_is_read() {
        let cpu = Cpu::open(1);
        let mut file = tempfile::tempfile().unwrap();
        let body: Vec<u8> = (0..5 * BLOCK_BYTES + 7).map(|n| (n % 251) as u8).collect();
        file.write_all(&body).unwrap();
        // While the only slot is taken everybody queues: the sum, then three others.
        let (go, gate) = std::sync::mpsc::channel::<()>();
        cpu.spawn(move || gate.recv().unwrap_or_default());
        tokio::task::yield_now().await;
        let done = Arc::new(AtomicUsize::new(0));
        let (counted, pool) = (Arc::clone(&done), cpu.clone());
        let summing = tokio::spawn(async move {
            let crc32 = sum(&pool, &Arc::new(file)).await.unwrap();
            (crc32, counted.load(Ordering::SeqCst))
        });
        for _ in 0..3 {
            let done = Arc::clone(&done);
            cpu.spawn(move || {
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        tokio::task::yield_now().await;
        // The sum gives the slot back after its first block, and queues behind them for the second.
        go.send(()).unwrap();
        let (crc32, meanwhile) = summing.await.unwrap();
        assert_eq!((crc32, meanwhile), (crc32fast::hash(&body), 3));
    }
}
