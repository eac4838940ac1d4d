//! Slots: each claims a job, sees it through, and looks for the next.
//!
//! A slot registers for the wake-up before it looks for a job, so that a job owed between
//! the looking and the waiting is not slept through. Claiming is a transaction of its own,
//! over before the work begins. The work is a task of its own, inside a boundary of panic
//! and time, while the slot renews the lease and writes the progress down.
//!
//! An outage of the storage is no fault of the job: its last attempt is then repeated until
//! the storage answers, however long that takes.
//!
//! Invariant: a slot ends an attempt in exactly one way: completed, put back, discarded,
//! handed back, or left alone because it is no longer its own.
//!
//! What can be repeated is written without a flush (`Db::write_relaxed`): a claim, a beat or
//! a completion forgotten in a power cut means only that the job runs once more. That a job
//! was given up is written in full.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant as Moment;

use tokio::task::JoinSet;
use tokio::time::Instant as Deadline;
use tokio::time::MissedTickBehavior;
use tracing::Instrument;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::error::Retry;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Engine;
use crate::infra::jobs::Phase;
use crate::infra::jobs::model::Backoff;
use crate::infra::jobs::model::Outcome;
use crate::infra::jobs::model::Queue;
use crate::infra::jobs::registry::Entry;
use crate::infra::jobs::store;

/// Longest sleep of an idle slot: how late a job can be after the clock jumped.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// Shortest wait before a last attempt is repeated because the storage, or the bucket, was away.
const OUTAGE: Duration = Duration::from_mins(1);
/// How often a paused slot asks again.
const PAUSED: Duration = Duration::from_millis(500);
/// What a runner has to end by itself after it was cancelled.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What a room has to record that a job was given up.
const GIVING_UP: Duration = Duration::from_mins(1);

/// A claimed job on its way to its runner.
pub(super) struct Held {
    kind: String,
    args: String,
    last_error: Option<(String, String)>,
    at: Attempt,
}

impl Engine {
    /// One slot's life: until the engine is stopped.
    pub(super) async fn slot(self: Arc<Self>, queue: Queue) {
        let wake = self.wake(queue);
        let mut phase = self.phase.subscribe();
        loop {
            let mut woken = Box::pin(wake.notified());
            woken.as_mut().enable();
            if *phase.borrow_and_update() != Phase::Running {
                return;
            }
            let idle = if self.paused(queue) {
                PAUSED
            } else {
                match self.claim(queue).await {
                    Ok(Some(held)) => {
                        // A wake-up that comes while this works is for a slot that is idle.
                        drop(woken);
                        self.work(held).await;
                        continue;
                    }
                    Ok(None) => self.idle(queue).await,
                    Err(e) => {
                        tracing::error!(job.queue = queue.0, error = %e, "no job could be claimed");
                        Duration::from_secs(1)
                    }
                }
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(idle) => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// Rescues what was left behind and forgets what nobody asks for any more, now and then.
    pub(super) async fn tend(self: Arc<Self>) {
        let mut phase = self.phase.subscribe();
        while *phase.borrow_and_update() == Phase::Running {
            if let Err(e) = self.tend_once().await {
                tracing::error!(error = %e, "the job table could not be tended");
            }
            tokio::select! {
                () = tokio::time::sleep(self.config.tend_every) => {}
                _ = phase.changed() => {}
            }
        }
    }

    pub(super) async fn tend_once(self: &Arc<Self>) -> Result<()> {
        let longest = self.longest_wait();
        let this = Arc::clone(self);
        let rescued = self.db.write_relaxed(move |tx| {
            let rescued = store::rescue(tx, Some(this.config.lease), |id| this.is_under_way(id))?;
            store::clamp(tx, longest)?;
            store::prune(tx, tx.now().minus(this.config.keep_finished))?;
            if rescued > 0 {
                this.wake_all_after(tx);
            }
            Ok(rescued)
        });
        let rescued = rescued.await?;
        if rescued > 0 {
            tracing::warn!(jobs = rescued, "jobs with dead leases were made available again");
        }
        Ok(())
    }

    /// Takes the next due job, if there is one.
    pub(super) async fn claim(self: &Arc<Self>, queue: Queue) -> Result<Option<Held>> {
        let this = Arc::clone(self);
        let claim = self.db.write_relaxed(move |tx| {
            let Some(claimed) = store::claim(tx, queue, this.config.lease)? else { return Ok(None) };
            let max_attempts = this.entry(&claimed.kind).map_or(0, |entry| entry.max_attempts);
            let at = Attempt::new(claimed.id, claimed.attempt, max_attempts);
            // Known to `cancel` before any later write can cancel it.
            let listed = at.clone();
            tx.after_commit(move || this.set_out(listed));
            Ok(Some(Held { kind: claimed.kind, args: claimed.args, last_error: claimed.last_error, at }))
        });
        claim.await
    }

    /// Sees one attempt through, whatever happens in it.
    pub(super) async fn work(&self, held: Held) {
        let (id, number) = (held.at.id(), held.at.number());
        let span = tracing::info_span!("job", job.id = id.0, job.kind = %held.kind, job.attempt = number);
        let begun = Moment::now();
        let done = async {
            match self.entry(&held.kind) {
                Some(entry) => self.attempt(&entry, &held).await,
                None => self.no_runner(&held).await,
            }
        };
        if let Err(e) = done.instrument(span.clone()).await {
            // The row stays under its lease, and is rescued when that is over.
            span.in_scope(|| tracing::error!(error = %e, "how a job ended could not be written down"));
        }
        self.come_back(id);
        span.in_scope(|| tracing::debug!(duration_ms = begun.elapsed().as_millis() as u64, "the attempt is over"));
    }

    async fn attempt(&self, entry: &Entry, held: &Held) -> Result<()> {
        let at = &held.at;
        let (id, number) = (at.id(), at.number());
        if number > entry.max_attempts {
            // The last attempt did not live to say how it ended.
            let (code, text) = held.last_error.clone().unwrap_or_default();
            let code = Code::ALL.iter().copied().find(|c| c.wire() == code).unwrap_or(Code::Internal);
            return self.give_up(entry, held, code.because(text)).await;
        }
        match self.watch(entry, held).await {
            Outcome::Lost => {
                tracing::info!("the job was cancelled or taken over");
                Ok(())
            }
            Outcome::HandedBack => self.db.write_relaxed(move |tx| store::hand_back(tx, id, number)).await.map(drop),
            Outcome::Ended(Ok(())) if at.is_completed() => Ok(()),
            Outcome::Ended(Ok(())) => self.db.write_relaxed(move |tx| store::finish(tx, id, number)).await.map(drop),
            Outcome::Ended(Err(e)) if at.is_completed() => {
                tracing::warn!(error = %e, "a runner failed after it had completed its job");
                Ok(())
            }
            Outcome::Ended(Err(e))
                if e.code.retry() == Retry::Never || (at.last_attempt() && e.code != Code::StorageUnavailable) =>
            {
                self.give_up(entry, held, e).await
            }
            Outcome::Ended(Err(e)) => {
                let mut wait = at.wanted_wait().unwrap_or_else(|| entry.backoff.after(number, id));
                if at.last_attempt() {
                    wait = wait.max(OUTAGE);
                }
                tracing::warn!(error = %e, wait_ms = wait.as_millis() as u64, "the attempt failed and will be repeated");
                let put_back = if at.last_attempt() { store::excuse } else { store::fail };
                self.db.write_relaxed(move |tx| put_back(tx, id, number, tx.now().plus(wait), &e)).await.map(drop)
            }
        }
    }

    /// Runs the job in a task of its own until it ends, or has to.
    async fn watch(&self, entry: &Entry, held: &Held) -> Outcome {
        let at = &held.at;
        let mut task = JoinSet::new();
        let run = Arc::clone(&entry.runner).run(held.args.clone(), at.clone());
        task.spawn_on(run.in_current_span(), self.db.handle());
        let mut deadline = pin!(tokio::time::sleep(entry.timeout));
        let mut ticks = tokio::time::interval(self.config.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut phase = self.phase.subscribe();
        let mut stopped = pin!(async {
            let _ = phase.wait_for(|p| *p == Phase::Stopped).await;
        });
        let mut cancelled = pin!(at.cancelled());
        let mut ending = false;
        let mut beaten = (Moment::now(), 0);
        loop {
            tokio::select! {
                ended = task.join_next() => return match ended {
                    _ if at.is_cancelled() => Outcome::Lost,
                    Some(Ok(result)) => Outcome::Ended(result),
                    Some(Err(e)) => Outcome::Ended(Err(Code::Internal.from("running a job", e))),
                    None => Outcome::Ended(Err(Code::Internal.because("a job's task was lost"))),
                },
                () = &mut deadline => {
                    end(&mut task).await;
                    if ending {
                        return Outcome::Lost;
                    }
                    let sentence = format!("took longer than {} s", entry.timeout.as_secs_f32());
                    return Outcome::Ended(Err(Code::Busy.because(sentence)));
                }
                () = &mut cancelled, if !ending => {
                    ending = true;
                    deadline.as_mut().reset(Deadline::now() + LAST_WORDS);
                }
                () = &mut stopped => {
                    end(&mut task).await;
                    // It may have completed its job just before.
                    return if at.is_completed() { Outcome::Ended(Ok(())) } else { Outcome::HandedBack };
                }
                _ = ticks.tick() => {
                    let percent = at.percent();
                    if !ending && (percent != beaten.1 || beaten.0.elapsed() >= self.config.beat) {
                        match self.beat(at, percent).await {
                            Ok(true) => beaten = (Moment::now(), percent),
                            Ok(false) if at.is_completed() => {}
                            Ok(false) => at.cancel(),
                            Err(e) => tracing::warn!(error = %e, "a lease could not be renewed"),
                        }
                    }
                }
            }
        }
    }

    /// Tells the room, then writes the job off. In this order: if the process ends between
    /// the two, the room is told again, rather than never.
    async fn give_up(&self, entry: &Entry, held: &Held, error: Error) -> Result<()> {
        let (id, number) = (held.at.id(), held.at.number());
        if !self.beat(&held.at, held.at.percent()).await? {
            return Ok(());
        }
        tracing::error!(error = %error, "the job is given up");
        let error = Arc::new(error);
        let mut task = JoinSet::new();
        let telling = Arc::clone(&entry.runner).gave_up(held.args.clone(), Arc::clone(&error));
        task.spawn_on(telling.in_current_span(), self.db.handle());
        match tokio::time::timeout(GIVING_UP, task.join_next()).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(e))) => tracing::error!(error = %e, "recording a job's failure failed"),
            Ok(None) | Err(_) => tracing::error!("recording a job's failure took too long"),
        }
        self.db.write(move |tx| store::discard(tx, id, number, &error)).await.map(drop)
    }

    /// A kind that this program does not know: somebody may come who does.
    async fn no_runner(&self, held: &Held) -> Result<()> {
        let (id, number) = (held.at.id(), held.at.number());
        let error = Code::Internal.because(format!("no runner is registered for {}", held.kind));
        tracing::error!(error = %error, "the job cannot be run");
        let wait = Backoff::USUAL.after(number, id);
        self.db.write_relaxed(move |tx| store::fail(tx, id, number, tx.now().plus(wait), &error)).await.map(drop)
    }

    async fn beat(&self, at: &Attempt, percent: u8) -> Result<bool> {
        let (id, number, lease) = (at.id(), at.number(), self.config.lease);
        self.db.write_relaxed(move |tx| store::beat(tx, id, number, lease, percent)).await
    }

    /// How long an idle slot may sleep.
    async fn idle(&self, queue: Queue) -> Duration {
        match self.db.read(move |c| store::next_due(c, queue)).await {
            Ok(due) => due.map_or(LONGEST_IDLE, |due| due.since(self.db.clock().now()).min(LONGEST_IDLE)),
            Err(_) => Duration::from_secs(1),
        }
    }
}

/// Aborts a task and waits until what it held is dropped, unless it refuses to yield.
async fn end(task: &mut JoinSet<Result<()>>) {
    let _ = tokio::time::timeout(LAST_WORDS, task.shutdown()).await;
}
