//! Moving: what has a goal is brought there, and what is left behind is removed.
//!
//! The rows are the owed work, written with the fact that caused them; a few movers take the next
//! that is due. They are not jobs: while a bucket does not answer, thousands would each fail by
//! themselves and hold the slots of everybody's queue. Here one failure makes all movers wait,
//! longer each time up to a quarter of a minute, and the first success sends them on. It is tried for ever.
//!
//! Verified means: the file was read whole and is the original (SHA-256), before anything had its
//! name in the bucket; and the server's entity tag, as it was answered and as the object is found
//! with it, is the one of these bytes, or the object was read back and is the original.

use std::pin::pin;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::assets::store as asset_store;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::homes::Homes;
use crate::homes::LINGER;
use crate::homes::State;
use crate::homes::model::Copy;
use crate::homes::model::Home;
use crate::homes::model::Object;
use crate::homes::model::Tally;
use crate::homes::source::on_record;
use crate::homes::store;
use crate::infra::db::Tx;
use crate::infra::storage::Backend;
use crate::infra::storage::bucket::Known;
use crate::infra::storage::bucket::Pace;

/// Longest sleep of an idle mover: how late it can be after the clock jumped, or to remove copies that
/// the command line has left.
const LONGEST_IDLE: Duration = Duration::from_secs(5);
/// After the first failure in a row; doubled by each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// For a single original that cannot be moved, whatever the bucket does.
const LONGEST_ALONE: Duration = Duration::from_hours(1);
/// Rows brought to now in one transaction.
const AT_ONCE: u32 = 500;
/// Removals at a time.
const SWEPT_AT_ONCE: u32 = 32;

impl Homes {
    /// Takes up what the last run left, and moves from now on.
    pub async fn start(&self) -> Result<()> {
        self.look_for_unknown().await;
        if !self.has_bucket() {
            return Ok(());
        }
        self.0.db.write(|tx| store::let_go(tx, false)).await?;
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = self.0.db.handle();
        for n in 0..self.0.config.uploads_at_once.max(1) {
            running.push(handle.spawn(self.clone().mover(n == 0)));
        }
        Ok(())
    }

    /// Complains of originals that lie where nobody can get at them. The rest can be served all the same.
    async fn look_for_unknown(&self) {
        let tallies = match self.0.db.read(store::tallies).await {
            Ok(tallies) => tallies,
            Err(error) => {
                tracing::error!(%error, "it could not be looked up in which buckets originals lie");
                return;
            }
        };
        for Tally { home, objects, .. } in tallies {
            if home.backend != Backend::Fs && self.bucket(&home).is_err() {
                tracing::error!(
                    bucket = home.bucket,
                    objects,
                    "originals lie in a bucket that the configuration does not name: they cannot be read"
                );
            }
        }
    }

    /// Ends moving; what is under way will be begun anew.
    pub async fn stop(&self, grace: Duration) {
        self.0.stopping.send_replace(true);
        let running = std::mem::take(&mut *self.0.running.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = tokio::time::Instant::now() + grace;
        for mut mover in running {
            if tokio::time::timeout_at(deadline, &mut mover).await.is_err() {
                mover.abort();
            }
        }
    }

    /// One mover's life; the first one sweeps, too.
    async fn mover(self, sweeps: bool) {
        let mut stopping = self.0.stopping.subscribe();
        while !*stopping.borrow_and_update() {
            let mut woken = pin!(self.0.owed.notified());
            woken.as_mut().enable();
            let idle = match self.next(sweeps).await {
                Ok(None) => continue,
                Ok(Some(idle)) => idle,
                Err(error) => {
                    tracing::error!(%error, "originals on their way to a bucket could not be looked up");
                    FIRST_WAIT
                }
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(idle) => {}
                _ = stopping.changed() => {}
            }
        }
    }

    /// Does what is due; or says how long nothing will be.
    pub(super) async fn next(&self, sweeps: bool) -> Result<Option<Duration>> {
        self.mind_the_clock(false).await?;
        let until = self.state().not_before;
        if let Some(wait) = until.and_then(|until| until.checked_duration_since(Instant::now())) {
            return Ok(Some(wait.max(Duration::from_millis(50))));
        }
        let swept = if sweeps { self.sweep().await? } else { 0 };
        let Some(object) = self.0.db.write_relaxed(|tx| store::claim(tx, false)).await? else {
            if swept > 0 {
                return Ok(None);
            }
            if sweeps {
                self.make_room().await;
            }
            let (due, left) = self.0.db.read(|c| Ok((store::next_due(c, false)?, store::next_leftover(c)?))).await?;
            let first = due.into_iter().chain(left.filter(|_| sweeps)).min();
            let wait = first.map_or(LONGEST_IDLE, |due| due.since(self.0.db.clock().now()).min(LONGEST_IDLE));
            return Ok(Some(wait.max(Duration::from_millis(20))));
        };
        let moved = self.relocate(&object, &Pace::default(), Copy::MayGo).await;
        self.note(&object, moved).await?;
        Ok(None)
    }

    /// What waits was told for how long by the clock. If that once was later than it is now, it was set
    /// back, and what it said then is not waited for. A process that begins knows nothing of what was.
    pub(super) async fn mind_the_clock(&self, by_hand: bool) -> Result<()> {
        let latest = self.0.latest.load(Ordering::Relaxed);
        let now = self.0.db.clock().now();
        if now.0 >= latest {
            self.0.latest.fetch_max(now.0, Ordering::Relaxed);
            return Ok(());
        }
        while self.0.db.write_relaxed(move |tx| store::hasten(tx, by_hand, AT_ONCE)).await? == AT_ONCE {}
        // Beside the command line a server may be sending what is to be removed only afterwards.
        let leftovers = |tx: &Tx| store::hasten_leftovers(tx, LINGER, AT_ONCE);
        while !by_hand && self.0.db.write_relaxed(leftovers).await? == AT_ONCE {}
        self.0.latest.store(now.0, Ordering::Relaxed);
        Ok(())
    }

    /// Writes down how a move went. What could not be done is let go in any case, however long it takes to
    /// write that down: nobody else would look at it. This fails when moving ends.
    pub(super) async fn note(&self, object: &Object, moved: Result<()>) -> Result<()> {
        let error = match moved {
            Ok(()) => {
                let mut state = self.state();
                let State { moved, moved_bytes, failed, .. } = *state;
                *state = State {
                    moved: moved + 1,
                    moved_bytes: moved_bytes + object.size_bytes,
                    failed,
                    ..State::default()
                };
                return Ok(());
            }
            Err(error) => error,
        };
        let wait = if is_its_own(&error) {
            doubled(FIRST_WAIT, object.tries).min(LONGEST_ALONE)
        } else {
            let mut state = self.state();
            state.failures += 1;
            let wait = doubled(FIRST_WAIT, state.failures).min(LONGEST_WAIT);
            state.not_before = Some(Instant::now() + wait);
            wait
        };
        let text = error.to_string();
        {
            let mut state = self.state();
            state.failed += 1;
            state.last_error = Some((Instant::now(), text.clone()));
        }
        tracing::warn!(asset.id = %object.id, %error, wait_ms = wait.as_millis() as u64, "an original could not be moved to where it belongs; it will be tried again");
        let mut stopping = self.0.stopping.subscribe();
        let mut failures = 0;
        loop {
            let (this, object, text) = (self.clone(), object.clone(), text.clone());
            let put_off = self.0.db.write_relaxed(move |tx| {
                this.told_to_wait(tx);
                store::put_off(tx, &object, wait, &text)
            });
            let Err(error) = put_off.await else { return Ok(()) };
            if *stopping.borrow_and_update() {
                return Err(error);
            }
            failures += 1;
            tracing::error!(%error, "that an original could not be moved could not be written down");
            tokio::select! {
                () = tokio::time::sleep(doubled(FIRST_WAIT, failures).min(LONGEST_WAIT)) => {}
                _ = stopping.changed() => {}
            }
        }
    }

    /// Brings an original to its goal and says so.
    pub(super) async fn relocate(&self, object: &Object, pace: &Pace, old: Copy) -> Result<()> {
        let Some(goal) = object.goal.clone() else { return Ok(()) };
        let key = object.place()?;
        if goal.backend == Backend::Fs {
            self.download(object, &object.home, pace).await?;
            return self.switch(object, &goal, Copy::MayGo, old == Copy::Stays).await;
        }
        let (at, id, revision) = (goal.clone(), object.id, object.revision);
        if self.0.db.read(move |c| store::is_left(c, &at, id, revision)).await? {
            self.0.owed.notify_waiters();
            return Err(removed_first());
        }
        let (storage, at) = (self.0.storage.clone(), key.clone());
        let opened = self.0.cpu.run(move || storage.open_file(&at)).await;
        let (file, staged) = match opened {
            Ok(file) => (file, None),
            Err(e) if e.code == Code::ContentNotFound && object.home.backend != Backend::Fs => {
                let name = self.fetch(object, &object.home, pace).await?;
                (self.0.storage.open_staged(&name)?, Some(name))
            }
            Err(e) => return Err(e),
        };
        let has_copy = staged.is_none();
        let sent = self.send(object, &goal, file, pace).await;
        if let Some(name) = staged {
            self.unstage(name).await?;
        }
        sent?;
        let here = match (has_copy, object.home.backend, old) {
            (false, ..) => Copy::None,
            (true, Backend::Fs, Copy::Stays) => Copy::Stays,
            (true, Backend::Fs, _) => Copy::MayGo,
            (true, ..) => object.here,
        };
        self.switch(object, &goal, here, old == Copy::Stays).await
    }

    pub(super) async fn send(&self, object: &Object, goal: &Home, file: std::fs::File, pace: &Pace) -> Result<()> {
        let (bucket, key) = (self.bucket(goal)?, object.place()?);
        let (id, revision) = (object.id, object.revision);
        let asset = self.0.db.read(move |c| asset_store::find(c, id)).await?;
        let md5 = asset.filter(|asset| asset.revision == revision).map(|asset| asset.md5);
        let known = Known { sha256: &object.sha256, md5: md5.as_deref() };
        let tag = bucket.send(&self.0.cpu, &key, Arc::new(file), &known, pace).await?;
        let Some(told) = bucket.find(&key).await?.filter(|told| told.size_bytes == object.size_bytes) else {
            return Err(Code::StorageUnavailable.because(format!(
                "the bucket `{}` has not {key:?} with its {} bytes, though it was sent there",
                goal.bucket, object.size_bytes
            )));
        };
        if tag.is_none() || tag != told.tag {
            let name = self.fetch(object, goal, pace).await.map_err(on_record)?;
            self.unstage(name).await?;
        }
        Ok(())
    }

    /// The one transaction in which an original changes its home.
    pub(super) async fn switch(&self, object: &Object, goal: &Home, here: Copy, keep_source: bool) -> Result<()> {
        let (this, moved, to) = (self.clone(), object.clone(), goal.clone());
        let is_there = self
            .0
            .db
            .write(move |tx| {
                let at = (moved.id, moved.revision);
                let is_left = store::is_left(tx, &to, moved.id, moved.revision)?;
                if !is_left && store::arrived(tx, &moved, here)? {
                    asset_store::set_home(tx, moved.id, moved.revision, to.backend, &to.bucket)?;
                    this.0.assets.forget_after(tx, moved.id);
                    this.told_to_wait(tx);
                    if !keep_source {
                        store::leave(tx, &moved.home, at, LINGER)?;
                    }
                    store::settle(tx, moved.id, moved.revision)?;
                    return Ok(true);
                }
                let now = store::find(tx, moved.id, moved.revision)?;
                if now.as_ref().is_some_and(|now| now.turn == moved.turn) {
                    return Err(removed_first());
                }
                // Deleted, or sent elsewhere meanwhile.
                store::overtaken(tx, &moved)?;
                Ok(now.is_some() || asset_store::is_kept(tx, moved.id, moved.revision)?)
            })
            .await?;
        if !is_there {
            self.0.storage.delete(&object.place()?).await?;
        }
        if goal.backend != Backend::Fs {
            self.make_room().await;
        }
        Ok(())
    }

    /// Removes from buckets what is due; how many.
    pub(super) async fn sweep(&self) -> Result<usize> {
        let now = self.0.db.clock().now();
        let due = self.0.db.read(move |c| store::leftovers(c, now, SWEPT_AT_ONCE)).await?;
        let mut swept = 0;
        for left in due {
            let removed = match self.bucket(&left.home) {
                Ok(bucket) => bucket.delete(&left.place()?).await,
                Err(e) => Err(e),
            };
            let wait = match removed {
                Ok(()) => {
                    swept += 1;
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, asset.id = %left.asset_id, "an original could not be removed from a bucket; it will be tried again");
                    Some(LONGEST_WAIT)
                }
            };
            self.0.db.write(move |tx| store::cleared(tx, &left, wait)).await?;
            if wait.is_some() {
                break;
            }
        }
        Ok(swept)
    }
}

/// An object that is taken for the original must not be the one that is about to go.
fn removed_first() -> Error {
    Code::Conflict.because("what lay there under this name is still to be removed, or was while it was sent again")
}

/// Whether the bucket has nothing to do with it.
pub(super) fn is_its_own(error: &Error) -> bool {
    matches!(error.code, Code::Internal | Code::ContentNotFound | Code::Conflict | Code::DiskFull)
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(20))
}
