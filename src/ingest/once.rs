//! Calls that are made once, however often they are sent.
//!
//! Whoever does not hear an answer sends again, and must not get a second asset. A call may bring
//! a key of the sender's choice; what it made is noted under the key in the transaction that made
//! it, and for a day, also when a clock jumps, the same call is answered the same. Another call under the same key is refused.
//!
//! A key counts for its caller alone. Calls under way are known in memory: this process is the only
//! one, and after a crash none is under way. What failed is not noted; it may be tried again.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::accounts::Caller;
use crate::assets::AssetId;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::ingest::Ingest;
use crate::ingest::store;
pub use crate::ingest::store::Answered;
use crate::support::clock::Instant;

/// The longest key.
const MOST_CHARACTERS: usize = 255;

/// What becomes of a call with a key.
pub enum Repeat {
    /// It has not been made: make it, and note what came of it with this.
    First(Once),
    /// It has been made, and this came of it, if it is the same.
    Again(Answered),
}

/// A call that is being made for the first time; the key is taken while any copy of this lives.
#[derive(Clone, Debug)]
pub struct Once {
    taken: Arc<Busy>,
    fingerprint: String,
    /// What was made before is known no longer.
    since: Instant,
}

impl Once {
    /// Says what was asked for, in whatever words: the same request gives the same.
    #[must_use]
    pub fn of(mut self, fingerprint: String) -> Once {
        self.fingerprint = fingerprint;
        self
    }

    /// Notes what the call made, in the transaction that makes it.
    pub(crate) fn note(&self, tx: &Tx, made: impl IntoIterator<Item = AssetId>) -> Result<()> {
        let (caller, key) = &self.taken.name;
        let ids: Vec<_> = made.into_iter().collect();
        // Free only when whoever asks for the key finds the note: the caller may be gone before the commit.
        let taken = Arc::clone(&self.taken);
        tx.after_commit(move || drop(taken));
        store::put_answered(tx, (caller, key), &self.fingerprint, &ids, self.since)
    }
}

impl Answered {
    /// That the same was asked for.
    pub fn fits(&self, fingerprint: &str) -> Result<()> {
        if self.fingerprint == fingerprint { Ok(()) } else { Err(Code::KeyReused.into()) }
    }
}

/// The keys of calls under way, each with its caller.
pub(super) type UnderWay = Arc<Mutex<HashSet<(String, String)>>>;

struct Busy {
    name: (String, String),
    all: UnderWay,
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Busy")
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Ingest {
    /// Whether a call with this key was made before.
    pub async fn repeat(&self, caller: &Caller, key: &str) -> Result<Repeat> {
        if key.is_empty() || key.len() > MOST_CHARACTERS || !key.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(Code::InvalidRequest
                .because(format!("An Idempotency-Key has 1 to {MOST_CHARACTERS} printable ASCII characters.")));
        }
        let who = match caller {
            Caller::UploadKey { user_id, key_id, .. } => format!("{user_id}/{key_id}"),
            _ => caller.user_id().to_string(),
        };
        let name = (who, key.to_owned());
        if !self.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            return Err(Code::KeyInUse.into());
        }
        let taken = Arc::new(Busy { name: name.clone(), all: Arc::clone(&self.calls) });
        let kept = Duration::from_secs(self.config.repeat_seconds);
        let since = self.steady.at_most(self.db.clock().now()).minus(kept);
        let before = self.db.read(move |c| store::answered(c, &name.0, &name.1, since)).await?;
        Ok(match before {
            Some(before) => Repeat::Again(before),
            None => Repeat::First(Once { taken, fingerprint: String::new(), since }),
        })
    }

    /// Notes the answer to a call, word for word.
    pub async fn answered(&self, once: &Once, answer: String) -> Result<()> {
        let (caller, key) = once.taken.name.clone();
        self.db.write_relaxed(move |tx| store::set_answer(tx, &caller, &key, &answer)).await
    }
}
