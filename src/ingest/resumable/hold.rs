//! One writer at a time for each upload, and what it leaves to the next.
//!
//! Whoever wants to write, finish or give up an upload holds it. A sender that fell silent may hold
//! one for as long as its connection seems to live; the next who asks sends it away, and it keeps
//! what came (`receive.rs`). One that is at work is waited for.
//!
//! With the hold goes the running digest of what is on the disk, so that the end need not read
//! everything again. It is in memory alone: SHA-256's state cannot be written down, and after a
//! restart the bytes are read once more (`finish.rs`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::OwnedMutexGuard;
use tokio::sync::watch;

use crate::assets::AssetId;
use crate::support::checksum::Digester;

/// A holder from whom nothing came for so long may be sent away.
const SILENT: Duration = Duration::from_secs(1);

/// How long one that was sent away may take to put what it has in order.
const LEAVING: Duration = Duration::from_secs(5);

/// How often a holder is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Digests are kept for so many uploads at most.
const MOST_DIGESTS: usize = 4096;

/// Who holds which upload; cheap to clone.
#[derive(Clone, Default)]
pub struct Holds(Arc<Mutex<HashMap<AssetId, Arc<Slot>>>>);

/// The right to change one upload, until dropped.
pub struct Hold {
    id: AssetId,
    holds: Holds,
    slot: Arc<Slot>,
    left: OwnedMutexGuard<Left>,
    sent_away: watch::Receiver<()>,
}

/// What one holder leaves to the next: the digest of so many bytes from the beginning.
#[derive(Default)]
struct Left(Option<(Digester, u64)>);

#[derive(Default)]
struct Slot {
    lock: Arc<tokio::sync::Mutex<Left>>,
    send_away: watch::Sender<()>,
    /// Since when the holder has been waiting for its sender; unless it is at work.
    silent_since: Mutex<Option<Instant>>,
}

impl Holds {
    /// Takes hold of an upload, waiting so long for a holder who is at work. `None` when that is too short.
    pub async fn take(&self, id: AssetId, patience: Duration) -> Option<Hold> {
        self.take_from(id, patience, SILENT).await
    }

    /// The same, whatever the holder is receiving.
    pub async fn insist(&self, id: AssetId) -> Option<Hold> {
        self.take_from(id, LEAVING, Duration::ZERO).await
    }

    async fn take_from(&self, id: AssetId, patience: Duration, silent: Duration) -> Option<Hold> {
        let slot = Arc::clone(lock(&self.0).entry(id).or_default());
        let began = Instant::now();
        let mut until = patience;
        loop {
            if let Ok(left) = tokio::time::timeout(LOOK, Arc::clone(&slot.lock).lock_owned()).await {
                *lock(&slot.silent_since) = None;
                let sent_away = slot.send_away.subscribe();
                return Some(Hold { id, holds: self.clone(), slot, left, sent_away });
            }
            if lock(&slot.silent_since).is_some_and(|since| since.elapsed() >= silent) {
                slot.send_away.send_replace(());
                until = until.max(LEAVING);
            }
            if began.elapsed() >= until {
                return None;
            }
        }
    }
}

impl Hold {
    /// Waits until somebody else wants to have the upload.
    pub async fn sent_away(&mut self) {
        // The slot keeps the sender, so this never fails.
        let _ = self.sent_away.changed().await;
    }

    /// From now on the holder waits for its sender.
    pub fn listens(&self) {
        *lock(&self.slot.silent_since) = Some(Instant::now());
    }

    /// From now on it is at work.
    pub fn works(&self) {
        *lock(&self.slot.silent_since) = None;
    }

    /// The digest of exactly the first `bytes`, if the holder before left it.
    pub fn take_digest(&mut self, bytes: u64) -> Option<Digester> {
        self.left.0.take().filter(|(_, of)| *of == bytes).map(|(digester, _)| digester)
    }

    pub fn leave_digest(&mut self, digester: Digester, bytes: u64) {
        if lock(&self.holds.0).len() <= MOST_DIGESTS {
            self.left.0 = Some((digester, bytes));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        *lock(&self.slot.silent_since) = None;
        let mut slots = lock(&self.holds.0);
        // The map's and ours: nobody waits for it.
        if self.left.0.is_none() && Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::support::checksum::Lanes;

    #[tokio::test]
    async fn one_holds_at_a_time_and_leaves_its_digest() {
        let (holds, id) = (Holds::default(), AssetId::random().unwrap());
        let mut first = holds.take(id, Duration::ZERO).await.unwrap();
        assert!(holds.take(id, Duration::ZERO).await.is_none(), "a holder at work is not sent away");
        assert!(holds.take(AssetId::random().unwrap(), Duration::ZERO).await.is_some(), "others are others");
        let mut digester = Digester::new(&Lanes::start());
        digester.update(&Bytes::from_static(b"abc"));
        first.leave_digest(digester, 3);
        drop(first);
        let mut second = holds.take(id, Duration::ZERO).await.unwrap();
        assert!(second.take_digest(4).is_none(), "of other bytes");
        drop(second);
        assert!(lock(&holds.0).is_empty());
    }

    #[tokio::test]
    async fn one_that_listens_can_be_sent_away() {
        let (holds, id) = (Holds::default(), AssetId::random().unwrap());
        let mut first = holds.take(id, Duration::ZERO).await.unwrap();
        first.listens();
        let leaving = tokio::spawn(async move { first.sent_away().await });
        let second = holds.insist(id).await;
        assert!(second.is_some());
        leaving.await.unwrap();
    }
}
