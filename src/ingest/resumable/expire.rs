//! Uploads that nobody goes on with are removed, but not because a clock jumped.
//!
//! What the wall clock calls expired is doubted first: it goes when a later look, a good while later
//! by the monotonic clock, finds it expired still. Whoever sends a piece meanwhile renews it. A
//! restart forgets the doubts, so that they begin again.
//!
//! The job is owed as long as there is an upload; each that begins moves it to no later than usual,
//! so that one which a wrong clock put far into the future comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;

use crate::assets::AssetId;
use crate::custody::Sweep;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::ingest::Ingest;
use crate::ingest::resumable::State;
use crate::ingest::resumable::store;

/// The job looks at least so often.
const LONGEST_WAIT: Duration = Duration::from_mins(30);

/// Removes what has expired for sure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExpireUploads {}

impl Job for ExpireUploads {
    const KIND: &'static str = "ingest.expire";
    const QUEUE: Queue = Sweep::QUEUE_NAME;
    const MAX_ATTEMPTS: u32 = 20;
    const TIMEOUT: Duration = Duration::from_mins(10);
}

/// What was seen as expired, and since when; cheap to clone.
#[derive(Clone, Default)]
pub struct Doubts(Arc<Mutex<HashMap<AssetId, Instant>>>);

impl Doubts {
    /// Whether one was seen as expired `wait` before `now`, and whenever it was looked at since.
    pub(in crate::ingest) fn is_sure(&self, id: AssetId, is_expired: bool, now: Instant, wait: Duration) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_expired {
            seen.remove(&id);
            return false;
        }
        now.saturating_duration_since(*seen.entry(id).or_insert(now)) >= wait
    }

    /// It is gone.
    pub(in crate::ingest) fn forget(&self, id: AssetId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Run<ExpireUploads> for Ingest {
    async fn run(&self, _: ExpireUploads, at: &Attempt) -> Result<()> {
        let now = self.db.clock().now();
        for (id, expires_at) in self.db.read(store::expiries).await? {
            if !self.doubts.is_sure(id, expires_at <= now, Instant::now(), self.doubt()) {
                continue;
            }
            if let Err(error) = self.expire(id).await {
                // It is looked at again with the others; they do not wait for it.
                tracing::error!(upload.id = %id, %error, "an upload that expired could not be removed");
            }
        }
        let (this, at) = (self.clone(), at.clone());
        self.db
            .write(move |tx| {
                store::forget(tx, tx.now())?;
                if !store::is_empty(tx)? {
                    this.owe_expiry(tx)?;
                }
                at.complete(tx)
            })
            .await
    }
}

impl Ingest {
    /// Owes the next look.
    pub(super) fn owe_expiry(&self, tx: &Tx) -> Result<()> {
        let when = Enqueue {
            run_at: Some(tx.now().plus(self.next_look())),
            unique_key: Some(ExpireUploads::KIND.to_owned()),
            ..Enqueue::default()
        };
        self.jobs.enqueue(tx, &ExpireUploads {}, when).map(|_| ())
    }

    /// What is doubted is looked at again after this.
    pub(in crate::ingest) fn next_look(&self) -> Duration {
        (self.doubt() / 2).clamp(Duration::from_secs(1), LONGEST_WAIT)
    }

    async fn expire(&self, id: AssetId) -> Result<()> {
        // Somebody is at it, so it is not left alone.
        let Some(mut hold) = self.holds.take_free(id) else { return Ok(()) };
        let Some(upload) = self.db.read(move |c| store::find(c, id)).await? else { return Ok(()) };
        if upload.state == State::Gone || upload.expires_at > self.db.clock().now() {
            return Ok(());
        }
        if upload.is_due() {
            // All of it came. Whatever kept it from becoming an asset may have passed.
            return self.finish(&mut hold, upload).await.map(drop);
        }
        tracing::info!(upload.id = %id, "an upload expired");
        self.give_up(hold, id).await
    }

    pub(in crate::ingest) fn doubt(&self) -> Duration {
        Duration::from_secs(self.config.resumable_doubt_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expires_is_doubted_for_a_while() {
        let doubts = Doubts::default();
        let [a, b] = std::array::from_fn(|_| AssetId::random().unwrap());
        let (began, hour) = (Instant::now(), Duration::from_hours(1));
        let look = |id, expired, minutes: u64| doubts.is_sure(id, expired, began + Duration::from_mins(minutes), hour);
        assert!(!look(a, true, 0));
        assert!(!look(b, true, 30), "another is another");
        assert!(!look(a, true, 59));
        assert!(look(a, true, 60));
        assert!(!look(a, false, 61), "the clock jumped back");
        assert!(!look(a, true, 62));
        assert!(look(a, true, 122));
        doubts.forget(a);
        assert!(!look(a, true, 200));
        assert!(!look(b, true, 30) && look(b, true, 90));
    }
}
