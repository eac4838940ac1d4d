//! One writer at a time for each upload, and what it leaves to the next.
//!
//! Whoever wants to write, finish or give up an upload holds it. A sender that fell silent may hold
//! one for as long as its connection seems to live; the next who asks sends it away, and it keeps
//! what came (`receive.rs`). One that is at work is waited for.
//!
//! With the hold goes what one holder leaves to the next: the running digest of what is on the disk,
//! so that the end need not read everything again, the room that is set aside for what is still to
//! come, and whether the last answer was heard. It is in memory alone: SHA-256's state cannot be
//! written down, and after a restart the bytes are read once more (`finish.rs`).
//!
//! A blocking step goes on when the request that waits for it is dropped, so the hold has to go with
//! the file into every such step ([`Hold::during`]).

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
use crate::error::Result;
use crate::infra::storage::Reservation;
use crate::support::checksum::Digester;
use crate::support::cpu::Cpu;

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
    left: OwnedMutexGuard<Left>,
    sent_away: watch::Receiver<()>,
    /// Given up last, when the lock is free.
    seat: Seat,
}

/// What one holder leaves to the next.
#[derive(Default)]
struct Left {
    /// Of so many bytes from the beginning.
    digest: Option<(Digester, u64)>,
    room: Option<Reservation>,
    answered: bool,
}

#[derive(Default)]
struct Slot {
    lock: Arc<tokio::sync::Mutex<Left>>,
    send_away: watch::Sender<()>,
    /// Since when the holder has been waiting for its sender; unless it is at work.
    silent_since: Mutex<Option<Instant>>,
}

/// A holder, or somebody who waits. The slot goes with the last of them, unless something was left in it.
struct Seat {
    id: AssetId,
    holds: Holds,
    slot: Arc<Slot>,
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

    /// The same, unless somebody holds it.
    pub fn take_free(&self, id: AssetId) -> Option<Hold> {
        let seat = self.seat(id);
        let left = Arc::clone(&seat.slot.lock).try_lock_owned().ok()?;
        Some(Hold::new(left, seat))
    }

    async fn take_from(&self, id: AssetId, patience: Duration, silent: Duration) -> Option<Hold> {
        let seat = self.seat(id);
        let began = Instant::now();
        let mut until = patience;
        loop {
            if let Ok(left) = tokio::time::timeout(LOOK, Arc::clone(&seat.slot.lock).lock_owned()).await {
                return Some(Hold::new(left, seat));
            }
            if lock(&seat.slot.silent_since).is_some_and(|since| since.elapsed() >= silent) {
                seat.slot.send_away.send_replace(());
                until = until.max(LEAVING);
            }
            if began.elapsed() >= until {
                return None;
            }
        }
    }

    fn seat(&self, id: AssetId) -> Seat {
        Seat { id, holds: self.clone(), slot: Arc::clone(lock(&self.0).entry(id).or_default()) }
    }
}

impl Hold {
    fn new(left: OwnedMutexGuard<Left>, seat: Seat) -> Hold {
        *lock(&seat.slot.silent_since) = None;
        Hold { left, sent_away: seat.slot.send_away.subscribe(), seat }
    }

    /// Runs a step where it may block. Nobody else holds the upload before it has ended, also when nobody
    /// waits for it any more.
    pub async fn during<T: Send + 'static>(
        mut self,
        cpu: &Cpu,
        step: impl FnOnce(&mut Hold) -> Result<T> + Send + 'static,
    ) -> Result<(Hold, Result<T>)> {
        cpu.run(move || {
            let done = step(&mut self);
            Ok((self, done))
        })
        .await
    }

    /// Waits until somebody else wants to have the upload.
    pub async fn sent_away(&mut self) {
        // The slot keeps the sender, so this never fails.
        let _ = self.sent_away.changed().await;
    }

    /// From now on the holder waits for its sender.
    pub fn listens(&self) {
        *lock(&self.seat.slot.silent_since) = Some(Instant::now());
    }

    /// From now on it is at work.
    pub fn works(&self) {
        *lock(&self.seat.slot.silent_since) = None;
    }

    /// The digest of exactly the first `bytes`, if the holder before left it.
    pub fn take_digest(&mut self, bytes: u64) -> Option<Digester> {
        self.left.digest.take().filter(|(_, of)| *of == bytes).map(|(digester, _)| digester)
    }

    pub fn leave_digest(&mut self, digester: Digester, bytes: u64) {
        if lock(&self.seat.holds.0).len() <= MOST_DIGESTS {
            self.left.digest = Some((digester, bytes));
        }
    }

    /// What is set aside on the disk for what is still to come.
    pub fn room(&mut self) -> &mut Option<Reservation> {
        &mut self.left.room
    }

    /// Whether the answer to the last piece went out, as far as is known here.
    pub fn answered(&mut self) -> &mut bool {
        &mut self.left.answered
    }

    /// Leaves nothing to anybody: the upload is over.
    pub fn clear(&mut self) {
        *self.left = Left::default();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.works();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut slots = lock(&self.holds.0);
        // The map's and ours: nobody else holds it or waits for it.
        let is_last = Arc::strong_count(&self.slot) == 2;
        let is_empty = |left: &Left| left.digest.is_none() && left.room.is_none() && !left.answered;
        if is_last && self.slot.lock.try_lock().is_ok_and(|left| is_empty(&left)) {
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
    async fn one_that_waited_in_vain_leaves_no_slot_behind() {
        let (holds, id) = (Holds::default(), AssetId::random().unwrap());
        let first = holds.take_free(id).unwrap();
        // It leaves after the holder: it is the last one then.
        let waiting = holds.seat(id);
        assert!(holds.take_free(id).is_none());
        drop(first);
        drop(waiting);
        assert!(lock(&holds.0).is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_step_holds_what_it_works_on_when_nobody_waits_for_it() {
        let (holds, id, cpu) = (Holds::default(), AssetId::random().unwrap(), Cpu::open(1));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (begins, begun) = tokio::sync::oneshot::channel();
        let hold = holds.take_free(id).unwrap();
        let step = hold.during(&cpu, move |_| {
            let _ = begins.send(());
            let _ = held.recv();
            Ok(())
        });
        // Its request goes away in the middle of it.
        tokio::select! {
            _ = step => panic!("the step has ended"),
            begun = begun => begun.unwrap(),
        }
        assert!(holds.take(id, Duration::ZERO).await.is_none(), "it may still write");
        drop(release);
        assert!(holds.take(id, Duration::from_mins(1)).await.is_some());
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
