//! Where originals are kept for good: on this disk, or in a bucket.
//!
//! ```text
//! taken in  ─▶ on this disk, flushed; with a bucket: row `object` with a goal   ─▶ the caller is answered
//! mover     ─▶ read, sent in parts, verified ─▶ one transaction: its home is the bucket   (mover.rs)
//! copies    ─▶ the file here is a copy from then on, and goes when room is wanted         (copies.rs)
//! read      ─▶ the file here, if there is one; else ranges from the bucket                (source.rs)
//! worked on ─▶ a copy is brought back first: programs and workers are given files         (copies.rs)
//! migrate   ─▶ the command line gives goals to what lies elsewhere, and moves it          (migrate.rs)
//! ```
//!
//! An original never changes under its name, so a file that is here is right, whatever the row
//! says; nobody has to ask the row first, and a box without a bucket has no rows at all.
//!
//! Invariant: at every instant the home of an original, as its row says it, holds all its bytes,
//! verified. The row changes in one transaction, after the new home was verified and before
//! anything is taken from the old one. What is to be removed from a bucket is a row, too
//! (`leftover`), written in the transaction that made it useless, and nothing is sent under a name
//! that still is to be removed. Nothing is removed from where its row's home is, nor while that home
//! is not known. A bucket that does not answer for days delays, and loses nothing.
//!
//! A bucket is known by its name in the configuration (`storage.name`), which no other has: rows keep
//! it, so its address, keys and kind can be corrected, and two buckets may be called the same.
//!
//! What is made of originals stays on the local disk: it can be made again.

mod copies;
mod migrate;
mod model;
mod mover;
mod source;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use copies::Pin;
pub use migrate::Plan;
pub use migrate::Progress;
pub use model::Home;
pub use model::Tally;
pub use source::Away;
pub use source::Reading;
pub use source::Source;

use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::assets::place;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::infra::storage::Backend;
use crate::infra::storage::Bucket;
use crate::infra::storage::Config;
use crate::infra::storage::Storage;
use crate::support::cpu::Cpu;
use crate::support::single_flight::SingleFlight;

/// How long what is in a bucket and of no use any more stays for those who are reading it.
const LINGER: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(15) };

/// Knows where originals are, and moves them; cheap to clone.
#[derive(Clone)]
pub struct Homes(Arc<Inner>);

struct Inner {
    config: Config,
    /// Where what arrives is to go.
    goal: Option<Home>,
    /// With their names.
    buckets: Vec<(String, Bucket)>,
    db: Db,
    cpu: Cpu,
    storage: Storage,
    assets: Assets,
    bringing: SingleFlight<(AssetId, u32), Result<(), Arc<Error>>>,
    /// Originals whose file must not go now, and for how many.
    pins: Mutex<HashMap<(AssetId, u32), u32>>,
    state: Mutex<State>,
    /// Buckets that nothing could be removed from: how often in a row, and until when nobody tries again.
    resting: Mutex<HashMap<String, (u32, Instant)>>,
    /// The latest time, in milliseconds, by which anything was told how long to wait. Before it was looked:
    /// later than any.
    latest: AtomicI64,
    owed: Notify,
    /// Copies may take more than they should.
    crowded: Notify,
    stopping: watch::Sender<bool>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

/// How moving goes.
#[derive(Clone, Debug, Default)]
struct State {
    failures: u32,
    last_error: Option<(Instant, String)>,
    /// Until then nobody tries, whatever becomes of the clock on the wall.
    not_before: Option<Instant>,
    moved: u64,
    moved_bytes: u64,
    failed: u64,
}

/// What there is to say of a bucket.
#[derive(Clone, Debug)]
pub struct Counts {
    pub waiting: u64,
    pub waiting_bytes: u64,
    /// Removals from buckets that are owed.
    pub leftovers: u64,
    pub copies_bytes: u64,
    pub moved: u64,
    pub moved_bytes: u64,
    pub failed: u64,
    /// How long ago the last failure was, unless something was moved since; and what it was.
    pub last_error: Option<(Duration, String)>,
}

impl Homes {
    pub fn new(config: Config, db: Db, cpu: Cpu, storage: Storage, assets: Assets) -> Result<Homes> {
        let buckets = config.buckets()?;
        let backend = config.backend()?;
        let first = buckets.first().filter(|_| backend != Backend::Fs);
        let goal = first.map(|(name, _)| Home { backend, bucket: name.clone() });
        Ok(Homes(Arc::new(Inner {
            config,
            goal,
            buckets,
            bringing: SingleFlight::new(cpu.handle().clone()),
            db,
            cpu,
            storage,
            assets,
            pins: Mutex::default(),
            state: Mutex::default(),
            resting: Mutex::default(),
            latest: AtomicI64::new(i64::MAX),
            owed: Notify::new(),
            crowded: Notify::new(),
            stopping: watch::Sender::new(false),
            running: Mutex::default(),
        })))
    }

    /// Owes an original that was taken in to its bucket, in the transaction that records it.
    pub fn owe(&self, tx: &Tx, asset: &Asset) -> Result<()> {
        let Some(goal) = &self.0.goal else { return Ok(()) };
        store::owe(tx, (asset.id, asset.revision), asset.size_bytes, &asset.sha256, goal, false)?;
        self.told_to_wait(tx);
        let this = self.clone();
        tx.after_commit(move || this.0.owed.notify_waiters());
        Ok(())
    }

    /// Forgets an original that no asset names any more: its file goes, and what is in a bucket is
    /// owed to be removed.
    pub async fn forget(&self, id: AssetId, revision: u32) -> Result<()> {
        if self.0.db.read(move |c| store::is_known(c, id, revision)).await? {
            let this = self.clone();
            self.0
                .db
                .write(move |tx| {
                    this.told_to_wait(tx);
                    if store::forget(tx, id, revision)? {
                        tx.after_commit(move || this.0.owed.notify_waiters());
                    }
                    Ok(())
                })
                .await?;
        }
        self.0.storage.delete(&place::original(id, revision)?).await
    }

    /// Whether a bucket is in use, or known.
    pub fn has_bucket(&self) -> bool {
        !self.0.buckets.is_empty()
    }

    /// The bucket that originals go to, as its server calls it; `None` when they stay here.
    pub fn goal(&self) -> Option<&str> {
        self.0.goal.as_ref().and_then(|home| self.bucket(home).ok()).map(Bucket::name)
    }

    /// The bucket that files may be sent straight into: what arrives goes there anyway, and as far as is known it
    /// answers. Its name on record. R2 takes no forms.
    pub fn open_to_forms(&self) -> Option<&str> {
        let goal = self.0.goal.as_ref().filter(|goal| goal.backend == Backend::S3)?;
        let answers = self.0.config.direct_to_bucket && self.state().failures == 0;
        answers.then_some(&*goal.bucket)
    }

    /// The bucket of this name that files were sent into.
    pub fn sent_into(&self, name: &str) -> Result<&Bucket> {
        self.bucket(&Home { backend: Backend::S3, bucket: name.to_owned() })
    }

    /// How it goes.
    pub async fn counts(&self) -> Result<Counts> {
        let ((waiting, waiting_bytes), leftovers, copies_bytes) =
            self.0.db.read(|c| Ok((store::waiting(c)?, store::count_leftovers(c)?, store::copies_bytes(c)?))).await?;
        let state = self.state().clone();
        Ok(Counts {
            waiting,
            waiting_bytes,
            leftovers,
            copies_bytes,
            moved: state.moved,
            moved_bytes: state.moved_bytes,
            failed: state.failed,
            last_error: state.last_error.map(|(at, what)| (at.elapsed(), what)),
        })
    }

    /// What lies where, as far as it is on record, and what holds something up.
    pub async fn survey(&self) -> Result<(Vec<Tally>, Vec<(AssetId, String)>)> {
        self.0.db.read(|c| Ok((store::tallies(c)?, store::failures(c, 5)?))).await
    }

    /// Asks every bucket whether it answers.
    pub async fn check(&self) -> Vec<(String, Result<()>)> {
        let mut found = Vec::new();
        for (name, bucket) in &self.0.buckets {
            found.push((format!("{} {name}", bucket.backend().word()), bucket.check().await));
        }
        found
    }

    /// Something waits from now on, by the clock as it is.
    fn told_to_wait(&self, tx: &Tx) {
        self.0.latest.fetch_max(tx.now().0, Ordering::Relaxed);
    }

    fn bucket(&self, home: &Home) -> Result<&Bucket> {
        let found = self.0.buckets.iter().find(|(name, _)| *name == home.bucket);
        found.map(|(_, bucket)| bucket).ok_or_else(|| {
            Code::StorageUnavailable.because(format!(
                "an original lies in the {} bucket `{}`, which the configuration does not name",
                home.backend.word(),
                home.bucket
            ))
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
