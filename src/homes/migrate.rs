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
use std::fs::TryLockError;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use ring::digest::SHA256;
use ring::digest::digest;
use tokio::task::JoinSet;

use crate::assets::AssetId;
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
use crate::homes::mover::doubled;
use crate::homes::mover::is_its_own;
use crate::homes::store;
use crate::infra::db::DataLock;
use crate::infra::db::Tx;
use crate::infra::storage::Backend;
use crate::infra::storage::bucket::Pace;
use crate::infra::storage::staging;
use crate::support::id;

/// Rows given a goal in one transaction.
const AT_ONCE: u32 = if cfg!(test) { 7 } else { 500 };
/// What has to wait for longer is left to the next run.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Between two such transactions.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After the first failure in a row; doubled by each.
const FIRST_PAUSE: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_millis(500) };
/// Longer than it takes to see whether two buckets are one.
const PROBED_WITHIN: Duration = Duration::from_mins(5);
const LONGEST_FAILURE_PAUSE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(15) };

/// What is to be moved, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `fs`, the name of a bucket, or a kind: the first bucket of it.
    pub to: String,
    /// What is moved stays where it was, too.
    pub keep_source: bool,
    /// 0: as fast as it goes.
    pub bytes_per_second: u64,
    /// It ends when for so long nothing but failures came; it can be run again.
    pub patience: Duration,
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
    pub async fn migrate(&self, plan: &Plan, told: impl FnMut(&Progress)) -> Result<Progress> {
        let _lock = lock(self.0.storage.root())?;
        let moved = self.move_all(plan, told).await;
        // A server that runs knows which copies are worked with, and sees to them.
        if let Ok(_alone) = DataLock::take(self.0.storage.root()) {
            self.make_room(0).await;
        }
        moved
    }

    async fn move_all(&self, plan: &Plan, mut told: impl FnMut(&Progress)) -> Result<Progress> {
        let goal = self.goal_of(&plan.to)?;
        self.look_whether_it_is_apart(&goal).await?;
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
        let mut failing: Option<(Instant, u32)> = None;
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
                    failing = None;
                    self.resting().remove(&goal.bucket);
                    progress.moved += 1;
                    progress.moved_bytes += object.size_bytes;
                    told(&progress);
                }
                Err(e) => {
                    let again = Error::again(&e);
                    let is_hopeless = is_its_own(&e) && !matches!(e.code, Code::Conflict | Code::DiskFull);
                    self.give_back(&object, e, is_hopeless).await?;
                    if is_hopeless {
                        progress.failed += 1;
                        continue;
                    }
                    let (since, times) = failing.get_or_insert((Instant::now(), 0));
                    *times += 1;
                    // No other would find more room.
                    if again.code == Code::DiskFull || since.elapsed() >= plan.patience {
                        return Err(again);
                    }
                    tokio::time::sleep(doubled(FIRST_PAUSE, *times).min(LONGEST_FAILURE_PAUSE)).await;
                }
            }
        }
        self.clear().await?;
        Ok(progress)
    }

    pub(super) fn goal_of(&self, to: &str) -> Result<Home> {
        if to == Backend::Fs.word() {
            return Ok(Home::here());
        }
        let all = || self.0.buckets.iter();
        let found =
            all().find(|(name, _)| name == to).or_else(|| all().find(|(_, bucket)| bucket.backend().word() == to));
        let (name, bucket) = found.ok_or_else(|| {
            Code::InvalidRequest.because(format!(
                "no bucket `{to}` is configured, and none of such a kind: see storage.bucket and storage.other"
            ))
        })?;
        Ok(Home { backend: bucket.backend(), bucket: name.clone() })
    }

    /// Refuses a goal that turns out to be, by another address, the bucket that originals would come from: each
    /// would be sent onto itself, and then removed as what was left behind.
    async fn look_whether_it_is_apart(&self, goal: &Home) -> Result<()> {
        let homes = self.0.db.read(store::tallies).await?;
        let is_source = |name: &String| *name != goal.bucket && homes.iter().any(|tally| tally.home.bucket == *name);
        let sources: Vec<_> = self.0.buckets.iter().filter(|(name, _)| is_source(name)).collect();
        if goal.backend == Backend::Fs || sources.is_empty() {
            return Ok(());
        }
        let (bytes, staged) = (id::random::<16>()?, format!("{}{}", staging::TEMPORARY, id::hex(&id::random::<8>()?)));
        let probe = Object {
            id: AssetId::random()?,
            revision: 0,
            size_bytes: bytes.len() as u64,
            sha256: id::hex(digest(&SHA256, &bytes).as_ref()),
            home: Home::here(),
            goal: None,
            here: Copy::None,
            tries: 0,
            held: false,
            turn: 0,
        };
        let (storage, name) = (self.0.storage.clone(), staged.clone());
        let file = self.0.cpu.run(move || {
            let mut file = storage.stage(&name)?;
            file.write_all(&bytes)?;
            Ok(file)
        });
        let (file, to, at) = (file.await?, goal.clone(), (probe.id, probe.revision));
        let removed_from = goal.clone();
        // Whatever becomes of this process.
        self.0.db.write(move |tx| store::leave(tx, &to, at, PROBED_WITHIN)).await?;
        let sent = self.send(&probe, goal, file, &Pace::default()).await;
        self.unstage(staged).await?;
        sent?;
        let key = probe.place()?;
        let mut same = None;
        for (name, bucket) in sources {
            // One that does not answer, though the goal does, is another.
            if bucket.find(&key).await.is_ok_and(|found| found.is_some()) {
                same = Some(name);
            }
        }
        self.bucket(goal)?.delete(&key).await?;
        self.0.db.write(move |tx| store::leave_no_more(tx, &removed_from, at)).await?;
        match same {
            None => Ok(()),
            Some(name) => Err(Code::InvalidRequest.because(format!(
                "`{name}` and `{}` are one bucket by two addresses: leave one of the two out of the configuration, and the \
                 name to the other that `storage status` shows originals in",
                goal.bucket
            ))),
        }
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
            let (this, to, shown) = (self.clone(), goal.clone(), self.shown(goal)?);
            let give = move |tx: &Tx, (id, revision, _): &(AssetId, u32, bool)| {
                if store::send(tx, &to, true, *id, *revision)? {
                    // Its kind may have been corrected.
                    asset_store::set_home(tx, *id, *revision, to.backend, &shown)?;
                    this.0.assets.changes(tx, *id);
                }
                Ok(())
            };
            self.write_page(astray, give).await?;
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
                    store::owe(tx, at, original.size_bytes, &original.sha256, &to, true)?;
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
            let names: Vec<_> = self.0.buckets.iter().map(|(name, _)| name.clone()).collect();
            let first = self.0.db.read(move |c| {
                let due = names.iter().map(|name| store::next_leftover(c, name)).collect::<Result<Vec<_>>>()?;
                Ok(due.into_iter().flatten().min())
            });
            let is_left = first.await?.is_some_and(|due| due <= soon);
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
        Err(TryLockError::WouldBlock) => {
            Err(Code::Busy.because("another `storage migrate` is at work on this data directory"))
        }
        Err(TryLockError::Error(e)) => Err(e.into()),
    }
}
