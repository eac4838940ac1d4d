//! Moving: what has a goal is brought there, and what is left behind is removed.
//!
//! The rows are the owed work, written with the fact that caused them; a few movers take the next
//! that is due. They are not jobs: while a bucket does not answer, thousands would each fail by
//! themselves and hold the slots of everybody's queue. Here one failure makes all movers wait,
//! longer each time up to a quarter of a minute, and the first success sends them on. It is tried for ever.
//! Removing is a task of its own, and each bucket is put off by itself: one that is gone for good holds up nobody.
//!
//! Verified means: the file was read whole and is the original (SHA-256), before anything had its
//! name in the bucket; and the server's entity tag, as it was answered and as the object is found
//! with it, is the one of these bytes, or the object was read back and is the original.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::MutexGuard;
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
use crate::homes::model::Leftover;
use crate::homes::model::Object;
use crate::homes::model::Tally;
use crate::homes::source::on_record;
use crate::homes::store;
use crate::infra::db::Tx;
use crate::infra::storage::Backend;
use crate::infra::storage::Bucket;
use crate::infra::storage::bucket::Known;
use crate::infra::storage::bucket::Pace;

/// Longest sleep of who has nothing to do: how late it can be after the clock jumped, to see that the disk is short of
/// room, or to remove what the command line has left.
const LONGEST_IDLE: Duration = Duration::from_secs(5);
const SHORTEST_IDLE: Duration = Duration::from_millis(20);
/// After the first failure in a row; doubled by each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// For a single original that cannot be moved, whatever the bucket does.
const LONGEST_ALONE: Duration = Duration::from_hours(1);
/// Until it is tried again to remove something from a bucket that nothing can be removed from.
const LONGEST_REST: Duration = Duration::from_mins(10);
/// Longer than one removal takes.
const LEASE: Duration = Duration::from_mins(2);
/// Rows changed in one transaction.
const AT_ONCE: u32 = 500;
/// Removals from one bucket before it is the turn of the next.
const SWEPT_AT_ONCE: u32 = 32;

/// What a task of the server goes on with.
#[derive(Clone, Copy)]
enum Duty {
    Move,
    Sweep,
    MakeRoom,
}

impl Homes {
    /// Takes up what the last run left, and moves from now on.
    pub async fn start(&self) -> Result<()> {
        self.look_for_unknown().await;
        if !self.has_bucket() && self.0.db.read(store::waiting).await?.0 == 0 {
            return Ok(());
        }
        self.0.db.write(|tx| store::let_go(tx, false)).await?;
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = self.0.db.handle();
        let movers = std::iter::repeat_n(Duty::Move, self.0.config.uploads_at_once.max(1));
        for duty in movers.chain([Duty::Sweep, Duty::MakeRoom]) {
            running.push(handle.spawn(self.clone().go_on(duty)));
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

    /// One task's life.
    async fn go_on(self, duty: Duty) {
        let mut stopping = self.0.stopping.subscribe();
        while !*stopping.borrow_and_update() {
            let bell = if matches!(duty, Duty::MakeRoom) { &self.0.crowded } else { &self.0.owed };
            let mut woken = pin!(bell.notified());
            woken.as_mut().enable();
            let done = match duty {
                Duty::Move => self.next().await,
                Duty::Sweep => self.sweep_due().await,
                Duty::MakeRoom => {
                    self.make_room(0).await;
                    Ok(Some(LONGEST_IDLE))
                }
            };
            let idle = match done {
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

    /// Moves the next that is due; or says how long nothing will be.
    pub(super) async fn next(&self) -> Result<Option<Duration>> {
        self.mind_the_clock(false).await?;
        let until = self.state().not_before;
        if let Some(wait) = until.and_then(|until| until.checked_duration_since(Instant::now())) {
            return Ok(Some(wait.max(Duration::from_millis(50))));
        }
        let (this, goal) = (self.clone(), self.0.goal.clone().unwrap_or_else(Home::here));
        let claimed = self.0.db.write_relaxed(move |tx| {
            for _ in 0..AT_ONCE {
                match store::first_due(tx, false)? {
                    // From before the configuration named another place.
                    Some(due) if due.goal.as_ref() != Some(&goal) => {
                        this.told_to_wait(tx);
                        store::send(tx, &goal, false, due.id, due.revision)?;
                    }
                    _ => break,
                }
            }
            store::claim(tx, false)
        });
        let Some(object) = claimed.await? else {
            let due = self.0.db.read(|c| store::next_due(c, false)).await?;
            let wait = due.map_or(LONGEST_IDLE, |due| due.since(self.0.db.clock().now()).min(LONGEST_IDLE));
            return Ok(Some(wait.max(SHORTEST_IDLE)));
        };
        let began = Instant::now();
        let moved = self.relocate(&object, &Pace::default(), Copy::MayGo).await;
        self.note(&object, began, moved).await?;
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
        for (bucket, _) in self.0.buckets.iter().filter(|_| !by_hand) {
            let hasten = || {
                let bucket = bucket.clone();
                move |tx: &Tx| store::hasten_leftovers(tx, &bucket, LINGER, AT_ONCE)
            };
            while self.0.db.write_relaxed(hasten()).await? == AT_ONCE {}
        }
        self.0.latest.store(now.0, Ordering::Relaxed);
        Ok(())
    }

    /// Writes down how a move went. What could not be done is let go in any case, however long it takes to
    /// write that down: nobody else would look at it. This fails when moving ends.
    ///
    /// While the bucket does not answer, the time between attempts counts from when they `began`: one that was
    /// swallowed has taken its time.
    pub(super) async fn note(&self, object: &Object, began: Instant, moved: Result<()>) -> Result<()> {
        let error = match moved {
            Ok(()) => {
                let mut state = self.state();
                let State { moved, moved_bytes, failed, failures, .. } = *state;
                *state = State {
                    moved: moved + 1,
                    moved_bytes: moved_bytes + object.size_bytes,
                    failed,
                    ..State::default()
                };
                drop(state);
                let rested = object.goal.as_ref().and_then(|goal| self.resting().remove(&goal.bucket));
                if failures > 0 || rested.is_some() {
                    self.0.owed.notify_waiters();
                }
                self.0.crowded.notify_one();
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
            state.not_before = state.not_before.max(Some(began + wait));
            wait.saturating_sub(began.elapsed())
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
        let mut sent = self.send(object, &goal, file, pace).await;
        if has_copy && object.home.backend != Backend::Fs && sent.as_ref().is_err_and(|e| e.code == Code::Internal) {
            // It may be damaged, but it is no more than a copy.
            self.download(object, &object.home, pace).await?;
            let storage = self.0.storage.clone();
            let file = self.0.cpu.run(move || storage.open_file(&key)).await?;
            sent = self.send(object, &goal, file, pace).await;
        }
        if let Some(name) = staged {
            self.unstage(name).await?;
        }
        sent?;
        let here = match (has_copy, object.home.backend, old) {
            (false, ..) => Copy::None,
            (true, Backend::Fs, Copy::Stays) => Copy::Stays,
            (true, Backend::Fs, _) => Copy::MayGo,
            (true, ..) => object.here.max(Copy::MayGo),
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
            self.verify(object, goal, pace).await.map_err(on_record)?;
        }
        Ok(())
    }

    /// The one transaction in which an original changes its home.
    pub(super) async fn switch(&self, object: &Object, goal: &Home, here: Copy, keep_source: bool) -> Result<()> {
        let (this, moved, to) = (self.clone(), object.clone(), goal.clone());
        let shown = self.shown(goal)?;
        let is_there = self
            .0
            .db
            .write(move |tx| {
                let at = (moved.id, moved.revision);
                let is_left = store::is_left(tx, &to, moved.id, moved.revision)?;
                if !is_left && store::arrived(tx, &moved, here)? {
                    asset_store::set_home(tx, moved.id, moved.revision, to.backend, &shown)?;
                    this.0.assets.changes(tx, moved.id);
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
        Ok(())
    }

    /// Removes from buckets what is due; or says how long nothing will be.
    pub(super) async fn sweep_due(&self) -> Result<Option<Duration>> {
        self.mind_the_clock(false).await?;
        if self.sweep().await? > 0 {
            return Ok(None);
        }
        let mut idle = LONGEST_IDLE;
        for (name, _) in &self.0.buckets {
            let bucket = name.clone();
            if let Some(due) = self.0.db.read(move |c| store::next_leftover(c, &bucket)).await? {
                idle = idle.min(due.since(self.0.db.clock().now()).max(self.rests(name)));
            }
        }
        Ok(Some(idle.max(SHORTEST_IDLE)))
    }

    /// Removes from buckets what is due; how many.
    pub(super) async fn sweep(&self) -> Result<usize> {
        let mut swept = 0;
        for (name, bucket) in self.0.buckets.iter().filter(|(name, _)| self.rests(name).is_zero()) {
            for _ in 0..SWEPT_AT_ONCE {
                let (this, from) = (self.clone(), name.clone());
                let taken = self.0.db.write_relaxed(move |tx| {
                    this.told_to_wait(tx);
                    store::take_leftover(tx, &from, LEASE)
                });
                let Some(left) = taken.await? else { break };
                let removed = self.remove(bucket, &left).await;
                let is_removed = removed.is_ok();
                let wait = removed.err().map(|error| self.rest(name, &left, &error));
                self.0.db.write(move |tx| store::cleared(tx, &left, wait)).await?;
                if !is_removed {
                    break;
                }
                self.resting().remove(name);
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Removes an object, unless it is the original by now.
    async fn remove(&self, bucket: &Bucket, left: &Leftover) -> Result<()> {
        let (id, revision) = (left.asset_id, left.revision);
        let now = self.0.db.read(move |c| store::find(c, id, revision)).await?;
        match now.map(|object| object.home).filter(|home| home.backend != Backend::Fs) {
            Some(home) if home == left.home => return Ok(()),
            // It might be this bucket under another name.
            Some(home) => self.bucket(&home).map(|_| ())?,
            None => {}
        }
        bucket.delete(&left.place()?).await
    }

    /// Nothing can be removed from a bucket now. How long what could not be waits.
    fn rest(&self, name: &str, left: &Leftover, error: &Error) -> Duration {
        let mut resting = self.resting();
        let (failures, until) = resting.entry(name.to_owned()).or_insert((0, Instant::now()));
        *failures += 1;
        let wait = doubled(FIRST_WAIT, *failures).min(LONGEST_REST);
        *until = Instant::now() + wait;
        tracing::warn!(%error, asset.id = %left.asset_id, bucket = name, wait_ms = wait.as_millis() as u64, "an original could not be removed from a bucket; it will be tried again");
        wait.max(LONGEST_WAIT)
    }

    /// For how long nothing is removed from a bucket.
    fn rests(&self, name: &str) -> Duration {
        let until = self.resting().get(name).map(|(_, until)| *until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    pub(super) fn resting(&self) -> MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        self.0.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a home is called for those who look at an asset.
    pub(super) fn shown(&self, home: &Home) -> Result<String> {
        if home.backend == Backend::Fs { Ok(String::new()) } else { Ok(self.bucket(home)?.name().to_owned()) }
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

pub(super) fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(20))
}
