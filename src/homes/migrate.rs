//! Moving everything: the command line's way, beside a running server or without one.
//!
//! First every original that is not where it is to be is given that goal, on record; then they
//! are moved one by one as the server's movers do it, which leave these rows alone. Killed at any
//! moment, the same command goes on where it was; the opposite one goes back.
//!
//! Giving goals takes what the server waits to move elsewhere over, too: what it is just sending
//! then arrives in vain and is removed again. It is done in pages, by the order of the key, each of
//! which is complete in itself.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::assets::store as asset_store;
use crate::assets::store::Original;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::homes::Homes;
use crate::homes::LINGER;
use crate::homes::model::Copy;
use crate::homes::model::Home;
use crate::homes::model::Object;
use crate::homes::mover::is_its_own;
use crate::homes::store;
use crate::infra::db::Tx;
use crate::infra::storage::Backend;
use crate::infra::storage::bucket::Pace;

/// Rows given a goal in one transaction.
const AT_ONCE: u32 = if cfg!(test) { 7 } else { 500 };
/// What has to wait for longer is left to the next run.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Between two such transactions.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Failures in a row after which it ends; it can be run again.
const MOST_FAILURES: u32 = 5;

/// What is to be moved, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    pub to: Backend,
    /// What is moved stays where it was, too.
    pub keep_source: bool,
    /// 0: as fast as it goes.
    pub bytes_per_second: u64,
}

/// How far it is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub planned: u64,
    pub planned_bytes: u64,
    pub moved: u64,
    pub moved_bytes: u64,
    /// Originals that cannot be moved, whatever the bucket does.
    pub failed: u64,
}

impl Homes {
    /// Moves all originals. Only one at a time does this on a data directory.
    pub async fn migrate(&self, plan: &Plan, mut told: impl FnMut(&Progress)) -> Result<Progress> {
        let _lock = lock(self.0.storage.root())?;
        let goal = self.goal_of(plan.to)?;
        self.0.db.write(|tx| store::let_go(tx, true)).await?;
        // Whatever waits is tried at once.
        self.0.latest.store(i64::MAX, Ordering::Relaxed);
        self.mind_the_clock(true).await?;
        self.plan(&goal).await?;
        let (planned, planned_bytes) = self.0.db.read(store::planned).await?;
        let mut progress = Progress { planned, planned_bytes, ..Progress::default() };
        told(&progress);
        let (pace, old) =
            (Arc::new(Pace::new(plan.bytes_per_second)), if plan.keep_source { Copy::Stays } else { Copy::MayGo });
        let mut under_way: JoinSet<(Object, Result<()>)> = JoinSet::new();
        let mut in_a_row = 0;
        loop {
            while under_way.len() < self.0.config.uploads_at_once.max(1) {
                let Some(object) = self.0.db.write_relaxed(|tx| store::claim(tx, true)).await? else { break };
                let (this, pace) = (self.clone(), Arc::clone(&pace));
                under_way.spawn_on(
                    async move {
                        let moved = this.relocate(&object, &pace, old).await;
                        (object, moved)
                    },
                    self.0.cpu.handle(),
                );
            }
            let Some(ended) = under_way.join_next().await else {
                if self.wait_for_next().await? {
                    continue;
                }
                break;
            };
            let (object, moved) = ended.map_err(|e| Code::Internal.from("moving an original", e))?;
            match moved {
                Ok(()) => {
                    in_a_row = 0;
                    progress.moved += 1;
                    progress.moved_bytes += object.size_bytes;
                    told(&progress);
                }
                Err(e) => {
                    let is_hopeless = is_its_own(&e) && e.code != Code::Conflict;
                    let again = Error::again(&e);
                    self.give_back(&object, e, is_hopeless).await?;
                    progress.failed += u64::from(is_hopeless);
                    in_a_row += u32::from(!is_hopeless && again.code != Code::Conflict);
                    if in_a_row >= MOST_FAILURES {
                        return Err(again);
                    }
                    tokio::time::sleep(Duration::from_millis(if is_hopeless { 0 } else { 500 })).await;
                }
            }
        }
        self.clear().await?;
        Ok(progress)
    }

    pub(super) fn goal_of(&self, to: Backend) -> Result<Home> {
        if to == Backend::Fs {
            return Ok(Home::here());
        }
        let bucket = self.0.buckets.iter().find(|bucket| bucket.backend() == to).ok_or_else(|| {
            Code::InvalidRequest
                .because(format!("no {0} bucket is configured: see storage.bucket and storage.other", to.word()))
        })?;
        Ok(Home { backend: to, bucket: bucket.name().to_owned() })
    }

    /// Gives a goal to everything that is not there.
    pub(super) async fn plan(&self, goal: &Home) -> Result<()> {
        let mut after = None;
        loop {
            let to = goal.clone();
            let page = self.0.db.read(move |c| store::page(c, &to, after, AT_ONCE)).await?;
            let Some((id, revision, _)) = page.last() else { break };
            after = Some((*id, *revision));
            let astray: Vec<_> = page.into_iter().filter(|(.., is_astray)| *is_astray).collect();
            let to = goal.clone();
            self.write_page(astray, move |tx, (id, revision, _)| store::send(tx, &to, *id, *revision)).await?;
        }
        if goal.backend == Backend::Fs {
            return Ok(());
        }
        let mut after = 0;
        loop {
            let page = self.0.db.read(move |c| {
                let page = asset_store::originals(c, after, AT_ONCE)?;
                page.into_iter().map(|at| Ok((store::is_known(c, at.id, at.revision)?, at))).collect::<Result<Vec<_>>>()
            });
            let page = page.await?;
            let Some((_, last)) = page.last() else { return Ok(()) };
            after = last.seq;
            let unknown: Vec<_> = page.into_iter().filter(|(is_known, _)| !is_known).collect();
            let to = goal.clone();
            let give = move |tx: &Tx, (_, original): &(bool, Original)| {
                let at = (original.id, original.revision);
                if asset_store::is_kept(tx, at.0, at.1)? && !store::is_known(tx, at.0, at.1)? {
                    store::owe_by_hand(tx, at, original.size_bytes, &original.sha256, &to)?;
                }
                Ok(())
            };
            self.write_page(unknown, give).await?;
        }
    }

    /// Writes to the rows of one page in a transaction, and leaves the database to others for as long as
    /// that took: a server beside us has uploads to take in.
    async fn write_page<T: Send + 'static>(
        &self,
        page: Vec<T>,
        write: impl Fn(&Tx, &T) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        if page.is_empty() {
            return Ok(());
        }
        let (this, began) = (self.clone(), Instant::now());
        self.0
            .db
            .write(move |tx| {
                this.told_to_wait(tx);
                page.iter().try_for_each(|row| write(tx, row))
            })
            .await?;
        tokio::time::sleep(began.elapsed().min(LONGEST_PAUSE)).await;
        Ok(())
    }

    /// Whether something is left that may be tried in a moment.
    async fn wait_for_next(&self) -> Result<bool> {
        self.mind_the_clock(true).await?;
        let Some(due) = self.0.db.read(|c| store::next_due(c, true)).await? else { return Ok(false) };
        let wait = due.since(self.0.db.clock().now());
        if wait > LONGEST_WAIT {
            return Ok(false);
        }
        self.sweep().await?;
        tokio::time::sleep(wait.max(Duration::from_millis(20))).await;
        Ok(true)
    }

    async fn give_back(&self, object: &Object, error: Error, is_hopeless: bool) -> Result<()> {
        let wait = if is_hopeless { Duration::from_hours(1) } else { Duration::from_secs(1) };
        tracing::warn!(asset.id = %object.id, %error, "an original could not be moved");
        let (object, text) = (object.clone(), error.to_string());
        let this = self.clone();
        self.0
            .db
            .write_relaxed(move |tx| {
                this.told_to_wait(tx);
                store::put_off(tx, &object, wait, &text)
            })
            .await
    }

    /// Removes what moving has left in buckets. What cannot be removed now, the server will.
    async fn clear(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + LINGER + Duration::from_secs(15);
        loop {
            let soon = self.0.db.clock().now().plus(LINGER);
            let is_left = self.0.db.read(store::next_leftover).await?.is_some_and(|due| due <= soon);
            if !is_left || tokio::time::Instant::now() >= deadline {
                return Ok(());
            }
            if self.sweep().await? == 0 {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    }
}

/// Held while a process migrates; gone with it.
fn lock(root: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(root.join("migrate.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Code::Busy.because("another `storage migrate` is at work on this data directory")),
    }
}
