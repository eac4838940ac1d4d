//! The life of a job.
//!
//! A job is a row written in the same transaction as the reason for it, so owed work
//! survives a crash and is never owed for a fact that was rolled back. States and moves are
//! drawn in `model.rs`; `worker.rs` sees a single attempt through.
//!
//! Invariant: a job is `running` only under a lease; whoever finds a dead lease may take the
//! job again. Runners must therefore be repeatable: they write to a place that follows from
//! their arguments, and running again overwrites the same place. [`Attempt::complete`] lets a
//! runner end its job in the transaction of its effect: then the effect happens once, and a
//! job that was cancelled meanwhile has none.
//!
//! This room knows no kind of job: kinds live beside the verbs they finish and meet their
//! runners where the program is put together.
//!
//! Claiming ends its transaction before work begins. With one SQLite writer, holding it
//! while a video encodes would stop the house.
//!
//! One process owns the data directory (`db::DataLock`). So what is `running` at the start
//! was left behind by a dead one, and the engine's own list of what is under way is
//! stronger than any lease: a clock that jumps cannot make a job run twice at once.

mod model;
mod registry;
mod store;
mod worker;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::infra::jobs::registry::Entry;
use crate::infra::jobs::registry::Registry;

pub use crate::infra::jobs::model::Backoff;
pub use crate::infra::jobs::model::Enqueue;
pub use crate::infra::jobs::model::Filter;
pub use crate::infra::jobs::model::JobId;
pub use crate::infra::jobs::model::Listed;
pub use crate::infra::jobs::model::Queue;
pub use crate::infra::jobs::model::State;

/// A kind of owed work: its arguments, and the numbers by which it is run.
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// The stable word in the table.
    const KIND: &'static str;
    const QUEUE: Queue;
    /// Attempts before the job is given up.
    const MAX_ATTEMPTS: u32;
    /// Longest time for one attempt.
    const TIMEOUT: Duration;
    /// Higher goes first.
    const PRIORITY: i32 = 0;
    const BACKOFF: Backoff = Backoff::USUAL;
}

/// A room that has the means to do a kind of job.
pub trait Run<J: Job>: Send + Sync + 'static {
    /// Does the job. Must be repeatable. An error is repeated or not as its code says.
    fn run(&self, job: J, at: &Attempt) -> impl Future<Output = Result<()>> + Send;

    /// Records that the job was given up. May be called more than once.
    fn gave_up(&self, job: J, error: &Error) -> impl Future<Output = ()> + Send {
        let _ = (job, error);
        std::future::ready(())
    }
}

/// The engine's own times.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a claim holds without a sign of life.
    pub lease: Duration,
    /// How often a sign of life is given.
    pub beat: Duration,
    /// How often progress is written at most.
    pub tick: Duration,
    /// How often dead leases and old rows are looked for.
    pub tend_every: Duration,
    /// How long discarded and cancelled jobs are kept.
    pub keep_finished: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            lease: Duration::from_mins(1),
            beat: Duration::from_secs(20),
            tick: Duration::from_secs(1),
            tend_every: Duration::from_secs(30),
            keep_finished: Duration::from_hours(7 * 24),
        }
    }
}

/// Owes work and has it done; cheap to clone.
#[derive(Clone)]
pub struct Jobs(Arc<Engine>);

impl Jobs {
    pub fn new(db: Db, config: Config) -> Jobs {
        Jobs(Arc::new(Engine {
            db,
            config,
            registry: RwLock::default(),
            wakes: Mutex::default(),
            pauses: RwLock::default(),
            under_way: Mutex::default(),
            phase: watch::Sender::new(Phase::Running),
            slots: Mutex::default(),
        }))
    }

    /// Owes a job, in the transaction of the reason for it. The queue is woken by the commit.
    pub fn enqueue<J: Job>(&self, tx: &Tx, job: &J, how: Enqueue) -> Result<JobId> {
        let Enqueue { priority, run_at, unique_key } = how;
        let args = serde_json::to_string(job)
            .map_err(|e| Code::Internal.from(format!("writing down the arguments of a {} job", J::KIND), e))?;
        let new = store::New {
            kind: J::KIND,
            queue: J::QUEUE,
            args,
            priority: priority.unwrap_or(J::PRIORITY),
            run_at: run_at.unwrap_or(tx.now()),
            unique_key: unique_key.as_deref(),
        };
        let id = store::enqueue(tx, &new)?;
        self.0.wake_after(tx, J::QUEUE);
        Ok(id)
    }

    /// Has jobs of a kind that are owed further ahead than any ever is, `longest`, done now: the clock was
    /// wrong when they were.
    pub fn pull_forward<J: Job>(&self, tx: &Tx, longest: Duration) -> Result<()> {
        if store::pull_forward(tx, J::QUEUE, J::KIND, longest)? > 0 {
            self.0.wake_after(tx, J::QUEUE);
        }
        Ok(())
    }

    /// Cancels a job that waits or runs; false if it does neither. A running one has no
    /// effect through [`Attempt::complete`] any more, and is told to end after the commit.
    pub fn cancel(&self, tx: &Tx, id: JobId) -> Result<bool> {
        let cancelled = store::cancel(tx, id)?;
        if cancelled {
            let engine = Arc::clone(&self.0);
            tx.after_commit(move || {
                if let Some(at) = engine.under_way().get(&id) {
                    at.cancel();
                }
            });
        }
        Ok(cancelled)
    }

    /// Whether somebody is at a job right now, also at one that was cancelled and has not noticed yet.
    pub fn is_under_way(&self, id: JobId) -> bool {
        self.0.is_under_way(id)
    }

    /// Owes a discarded or cancelled job anew, with all its attempts; false if it is neither.
    pub fn retry(&self, tx: &Tx, id: JobId) -> Result<bool> {
        let revived = store::revive(tx, id)?;
        if revived {
            self.0.wake_all_after(tx);
        }
        Ok(revived)
    }

    pub fn find(&self, c: &Conn, id: JobId) -> Result<Listed> {
        Ok(store::get(c, id)?.ok_or(Code::JobNotFound)?)
    }

    /// Jobs, newest first.
    pub fn list(&self, c: &Conn, filter: &Filter, limit: u32) -> Result<Vec<Listed>> {
        store::list(c, filter, limit)
    }

    /// How many jobs stand where: queue, state, number.
    pub fn counts(&self, c: &Conn) -> Result<Vec<(String, State, u64)>> {
        store::counts(c)
    }

    /// Names the room that does a kind of job. All are named before [`Jobs::start`].
    pub fn register<J: Job>(&self, runner: Arc<impl Run<J>>) {
        self.0.registry.write().unwrap_or_else(PoisonError::into_inner).add(Entry::new::<J>(runner));
    }

    /// Makes a queue wait while `yields` says so: asked before each claim, so work under way goes on.
    pub fn pause(&self, queue: Queue, yields: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.pauses.write().unwrap_or_else(PoisonError::into_inner).insert(queue, Box::new(yields));
    }

    /// Takes over what a dead process left running, then opens the slots of each queue.
    pub async fn start(&self, slots: &[(Queue, usize)]) -> Result<()> {
        let open: BTreeSet<_> = slots.iter().filter(|(_, n)| *n > 0).map(|(queue, _)| *queue).collect();
        if let Some((kind, queue)) = self.0.kinds().into_iter().find(|(_, queue)| !open.contains(queue)) {
            return Err(
                Code::Internal.because(format!("jobs of kind {kind} would wait for ever: no slot in {}", queue.0))
            );
        }
        let rescued = self.0.db.write(|tx| store::rescue(tx, None, |_| false)).await?;
        if rescued > 0 {
            tracing::info!(jobs = rescued, "jobs that the last run left behind were made available again");
        }
        let handle = self.0.db.handle();
        let mut running = self.0.slots();
        running.push(handle.spawn(Arc::clone(&self.0).tend()));
        for &(queue, count) in slots {
            running.extend((0..count).map(|_| handle.spawn(Arc::clone(&self.0).slot(queue))));
        }
        Ok(())
    }

    /// Claims nothing more, lets work under way end for `grace`, then aborts what is left and
    /// hands it back as if it had not been begun. Afterwards nothing of the engine runs.
    pub async fn stop(&self, grace: Duration) {
        self.0.phase.send_replace(Phase::Draining);
        let mut slots = std::mem::take(&mut *self.0.slots());
        let all = async {
            for slot in &mut slots {
                let _ = slot.await;
            }
        };
        if tokio::time::timeout(grace, all).await.is_ok() {
            return;
        }
        self.0.phase.send_replace(Phase::Stopped);
        for slot in slots.into_iter().filter(|slot| !slot.is_finished()) {
            let _ = slot.await;
        }
    }

    /// Does what is due, one job after the other, and what becomes due by that,
    /// without any slot. Says how many attempts were made. Paused queues stay paused.
    #[cfg(test)]
    pub async fn run_due_until_quiet(&self) -> Result<u64> {
        let queues: BTreeSet<_> = self.0.kinds().into_iter().map(|(_, queue)| queue).collect();
        let mut attempts = 0;
        loop {
            let before = attempts;
            for queue in &queues {
                while !self.0.paused(*queue)
                    && let Some(held) = self.0.claim(*queue).await?
                {
                    self.0.work(held).await;
                    attempts += 1;
                }
            }
            if attempts == before {
                return Ok(attempts);
            }
        }
    }
}

/// One attempt at a job, as its runner sees it; cheap to clone.
#[derive(Clone, Debug)]
pub struct Attempt(Arc<AttemptState>);

#[derive(Debug)]
struct AttemptState {
    id: JobId,
    number: u32,
    max_attempts: u32,
    percent: AtomicU8,
    completed: AtomicBool,
    wait: Mutex<Option<Duration>>,
    cancelled: watch::Sender<bool>,
}

impl Attempt {
    pub fn id(&self) -> JobId {
        self.0.id
    }

    /// Counted from 1.
    pub fn number(&self) -> u32 {
        self.0.number
    }

    /// Whether the job is given up if this fails.
    pub fn last_attempt(&self) -> bool {
        self.0.number >= self.0.max_attempts
    }

    /// Tells how far the work is. Never goes back; written down about once a second.
    pub fn progress(&self, percent: u8) {
        self.0.percent.fetch_max(percent.min(100), Ordering::Relaxed);
    }

    /// Completes the job in the transaction of its effect. Fails, and so takes the effect
    /// back, if the job was cancelled or taken over.
    pub fn complete(&self, tx: &Tx) -> Result<()> {
        if !store::finish(tx, self.0.id, self.0.number)? {
            return Err(Code::Conflict.because(format!("job {} was cancelled or taken over", self.0.id)));
        }
        let this = Arc::clone(&self.0);
        tx.after_commit(move || this.completed.store(true, Ordering::Release));
        Ok(())
    }

    /// If this attempt fails, the next one comes after `wait` instead of the usual time.
    pub fn retry_in(&self, wait: Duration) {
        *self.0.wait.lock().unwrap_or_else(PoisonError::into_inner) = Some(wait);
    }

    pub fn is_cancelled(&self) -> bool {
        *self.0.cancelled.borrow()
    }

    /// Resolves when the job is cancelled. Ten seconds later the runner is dropped.
    pub async fn cancelled(&self) {
        // The sender is ours, so the wait cannot fail.
        let _ = self.0.cancelled.subscribe().wait_for(|cancelled| *cancelled).await;
    }

    fn new(id: JobId, number: u32, max_attempts: u32) -> Attempt {
        Attempt(Arc::new(AttemptState {
            id,
            number,
            max_attempts,
            percent: AtomicU8::new(0),
            completed: AtomicBool::new(false),
            wait: Mutex::default(),
            cancelled: watch::Sender::new(false),
        }))
    }

    fn cancel(&self) {
        self.0.cancelled.send_replace(true);
    }

    fn percent(&self) -> u8 {
        self.0.percent.load(Ordering::Relaxed)
    }

    fn is_completed(&self) -> bool {
        self.0.completed.load(Ordering::Acquire)
    }

    fn wanted_wait(&self) -> Option<Duration> {
        *self.0.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the slots share.
struct Engine {
    db: Db,
    config: Config,
    registry: RwLock<Registry>,
    wakes: Mutex<HashMap<Queue, Arc<Notify>>>,
    pauses: RwLock<HashMap<Queue, Yields>>,
    under_way: Mutex<HashMap<JobId, Attempt>>,
    phase: watch::Sender<Phase>,
    slots: Mutex<Vec<JoinHandle<()>>>,
}

type Yields = Box<dyn Fn() -> bool + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing more is claimed.
    Draining,
    /// What still runs is aborted.
    Stopped,
}

impl Engine {
    fn wake(&self, queue: Queue) -> Arc<Notify> {
        let mut wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(wakes.entry(queue).or_default())
    }

    /// One slot per job: `notify_one` also holds for the slot that is just about to wait.
    fn wake_after(&self, tx: &Tx, queue: Queue) {
        let wake = self.wake(queue);
        tx.after_commit(move || wake.notify_one());
    }

    fn wake_all_after(&self, tx: &Tx) {
        let wakes: Vec<_> = self.wakes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        tx.after_commit(move || wakes.iter().for_each(|wake| wake.notify_waiters()));
    }

    fn entry(&self, kind: &str) -> Option<Entry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).get(kind)
    }

    fn kinds(&self) -> Vec<(&'static str, Queue)> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).all().map(|e| (e.kind, e.queue)).collect()
    }

    /// The longest wait that any kind has after a failure.
    fn longest_wait(&self) -> Duration {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.all().map(|entry| entry.backoff).chain([Backoff::USUAL]).map(|b| b.longest()).max().unwrap_or_default()
    }

    fn paused(&self, queue: Queue) -> bool {
        self.pauses.read().unwrap_or_else(PoisonError::into_inner).get(&queue).is_some_and(|yields| yields())
    }

    fn set_out(&self, at: Attempt) {
        self.under_way().insert(at.id(), at);
    }

    fn come_back(&self, id: JobId) {
        self.under_way().remove(&id);
    }

    fn is_under_way(&self, id: JobId) -> bool {
        self.under_way().contains_key(&id)
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<JobId, Attempt>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
