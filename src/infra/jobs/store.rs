//! The SQL of the `job` table; sync functions over a connection or a transaction.
//!
//! Invariant: every change to a job under way names its attempt and touches only a running
//! row of that attempt. Whoever was cancelled or given up on changes nothing, and is told so
//! by `false`.
//!
//! A job goes back to waiting through [`yield_to_twin`]: if another with the same unique key
//! waits by now, that one does the work and this row goes.

use std::time::Duration;

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::infra::jobs::model::Filter;
use crate::infra::jobs::model::JobId;
use crate::infra::jobs::model::Listed;
use crate::infra::jobs::model::Queue;
use crate::infra::jobs::model::State;
use crate::support::clock::Instant;

/// A job to be owed.
pub(super) struct New<'a> {
    pub kind: &'a str,
    pub queue: Queue,
    pub args: String,
    pub priority: i32,
    pub run_at: Instant,
    pub unique_key: Option<&'a str>,
}

/// A job that was claimed.
#[derive(Debug)]
pub(super) struct Claimed {
    pub id: JobId,
    pub kind: String,
    pub args: String,
    pub attempt: u32,
    /// Code and text of the attempt before, if that failed.
    pub last_error: Option<(String, String)>,
}

const ERROR_CHARS: usize = 2000;

/// Owes a job; the id is that of a twin if one waits already.
pub(super) fn enqueue(tx: &Tx, new: &New) -> Result<JobId> {
    let state = if new.run_at <= tx.now() { State::Available } else { State::Scheduled };
    // A twin that waits after a failure keeps its wait: `attempt = 0` guards it.
    let mut insert = tx.prepare_cached(
        "INSERT INTO job (kind, queue, args, state, priority, run_at, unique_key, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (kind, unique_key) WHERE unique_key IS NOT NULL AND state IN ('scheduled', 'available')
         DO UPDATE SET priority = max(priority, excluded.priority),
                       run_at = iif(attempt = 0, min(run_at, excluded.run_at), run_at)
         RETURNING id",
    )?;
    let values = params![new.kind, new.queue.0, new.args, state, new.priority, new.run_at, new.unique_key, tx.now()];
    Ok(insert.query_row(values, |r| r.get(0))?)
}

/// Takes the next job of a queue, if one is due.
pub(super) fn claim(tx: &Tx, queue: Queue, lease: Duration) -> Result<Option<Claimed>> {
    tx.prepare_cached("UPDATE job SET state = 'available' WHERE state = 'scheduled' AND queue = ?1 AND run_at <= ?2")?
        .execute(params![queue.0, tx.now()])?;
    let mut take = tx.prepare_cached(
        "UPDATE job SET state = 'running', attempt = attempt + 1, percent = 0, lease_until = ?2
          WHERE id = (SELECT id FROM job WHERE queue = ?1 AND state = 'available'
                       ORDER BY priority DESC, run_at, id LIMIT 1)
         RETURNING id, kind, args, attempt, error_code, error",
    )?;
    let claimed = take.query_row(params![queue.0, tx.now().plus(lease)], |r| {
        let (code, text): (Option<String>, Option<String>) = (r.get(4)?, r.get(5)?);
        Ok(Claimed { id: r.get(0)?, kind: r.get(1)?, args: r.get(2)?, attempt: r.get(3)?, last_error: code.zip(text) })
    });
    Ok(claimed.optional()?)
}

/// When the next job of a queue becomes due.
pub(super) fn next_due(c: &Conn, queue: Queue) -> Result<Option<Instant>> {
    let mut find = c.prepare_cached("SELECT min(run_at) FROM job WHERE state = 'scheduled' AND queue = ?1")?;
    Ok(find.query_row([queue.0], |r| r.get(0))?)
}

/// Renews the lease and tells the progress; false if the job is no longer ours.
pub(super) fn beat(tx: &Tx, id: JobId, attempt: u32, lease: Duration, percent: u8) -> Result<bool> {
    let mut beat = tx.prepare_cached(
        "UPDATE job SET lease_until = ?3, percent = ?4 WHERE id = ?1 AND attempt = ?2 AND state = 'running'",
    )?;
    Ok(beat.execute(params![id, attempt, tx.now().plus(lease), percent])? == 1)
}

/// Completes the job; false if it is no longer ours.
pub(super) fn finish(tx: &Tx, id: JobId, attempt: u32) -> Result<bool> {
    let mut finish = tx.prepare_cached("DELETE FROM job WHERE id = ?1 AND attempt = ?2 AND state = 'running'")?;
    Ok(finish.execute(params![id, attempt])? == 1)
}

/// Puts a failed job back until `run_at`; false if it is no longer ours.
pub(super) fn fail(tx: &Tx, id: JobId, attempt: u32, run_at: Instant, error: &Error) -> Result<bool> {
    put_back(tx, (id, attempt), attempt, run_at, error)
}

/// The same, as if this attempt had not been.
pub(super) fn excuse(tx: &Tx, id: JobId, attempt: u32, run_at: Instant, error: &Error) -> Result<bool> {
    put_back(tx, (id, attempt), attempt.saturating_sub(1), run_at, error)
}

fn put_back(tx: &Tx, (id, attempt): (JobId, u32), made: u32, run_at: Instant, error: &Error) -> Result<bool> {
    if yield_to_twin(tx, id)? {
        return Ok(true);
    }
    let mut fail = tx.prepare_cached(
        "UPDATE job SET state = 'scheduled', run_at = ?3, lease_until = NULL, error_code = ?4, error = ?5,
                attempt = ?6
          WHERE id = ?1 AND attempt = ?2 AND state = 'running'",
    )?;
    Ok(fail.execute(params![id, attempt, run_at, error.code.wire(), text_of(error), made])? == 1)
}

/// Gives a job up; false if it is no longer ours.
pub(super) fn discard(tx: &Tx, id: JobId, attempt: u32, error: &Error) -> Result<bool> {
    let mut discard = tx.prepare_cached(
        "UPDATE job SET state = 'discarded', finished_at = ?3, lease_until = NULL, error_code = ?4, error = ?5
          WHERE id = ?1 AND attempt = ?2 AND state = 'running'",
    )?;
    Ok(discard.execute(params![id, attempt, tx.now(), error.code.wire(), text_of(error)])? == 1)
}

/// Makes a job available again as if this attempt had not been.
pub(super) fn hand_back(tx: &Tx, id: JobId, attempt: u32) -> Result<bool> {
    if yield_to_twin(tx, id)? {
        return Ok(true);
    }
    let mut back = tx.prepare_cached(
        "UPDATE job SET state = 'available', attempt = attempt - 1, lease_until = NULL
          WHERE id = ?1 AND attempt = ?2 AND state = 'running'",
    )?;
    Ok(back.execute(params![id, attempt])? == 1)
}

/// Cancels a job that waits or runs; false if it does neither.
pub(super) fn cancel(tx: &Tx, id: JobId) -> Result<bool> {
    let mut cancel = tx.prepare_cached(
        "UPDATE job SET state = 'cancelled', finished_at = ?2, lease_until = NULL
          WHERE id = ?1 AND state IN ('scheduled', 'available', 'running')",
    )?;
    Ok(cancel.execute(params![id, tx.now()])? == 1)
}

/// Owes a discarded or cancelled job anew; false if it is neither.
pub(super) fn revive(tx: &Tx, id: JobId) -> Result<bool> {
    let finished = get(tx, id)?.is_some_and(|job| job.finished_at.is_some());
    if !finished {
        return Ok(false);
    }
    if yield_to_twin(tx, id)? {
        return Ok(true);
    }
    let mut revive = tx.prepare_cached(
        "UPDATE job SET state = 'available', attempt = 0, run_at = ?2, finished_at = NULL, error_code = NULL, error = NULL
          WHERE id = ?1",
    )?;
    Ok(revive.execute(params![id, tx.now()])? == 1)
}

/// Makes running jobs available again: all, or those whose lease is dead. The attempt counts,
/// so that a job that brings the process down is given up in the end.
///
/// A lease further ahead than any is given is a clock that was set back: dead too.
pub(super) fn rescue(tx: &Tx, dead_only: Option<Duration>, not: impl Fn(JobId) -> bool) -> Result<usize> {
    let (from, to) = dead_only.map_or((None, None), |lease| (Some(tx.now()), Some(tx.now().plus(lease * 2))));
    let mut find = tx.prepare_cached(
        "SELECT id FROM job WHERE state = 'running' AND (?1 IS NULL OR lease_until < ?1 OR lease_until > ?2)",
    )?;
    let found = find.query_map(params![from, to], |r| r.get(0))?.collect::<rusqlite::Result<Vec<JobId>>>()?;
    let mut rescued = 0;
    for id in found.into_iter().filter(|id| !not(*id)) {
        rescued += 1;
        if !yield_to_twin(tx, id)? {
            tx.prepare_cached(
                "UPDATE job SET state = 'available', lease_until = NULL, error_code = 'INTERNAL_ERROR',
                        error = 'the process ended during the attempt'
                  WHERE id = ?1",
            )?
            .execute([id])?;
        }
    }
    Ok(rescued)
}

/// Brings waits after a failure that lie further ahead than any is long to now: the clock was set back.
pub(super) fn clamp(tx: &Tx, longest: Duration) -> Result<usize> {
    let mut clamp =
        tx.prepare_cached("UPDATE job SET run_at = ?1 WHERE state = 'scheduled' AND attempt > 0 AND run_at > ?2")?;
    Ok(clamp.execute(params![tx.now(), tx.now().plus(longest)])?)
}

/// Brings appointments of a kind that lie further ahead than any is made to now: the clock was set back.
pub(super) fn pull_forward(tx: &Tx, queue: Queue, kind: &str, longest: Duration) -> Result<usize> {
    let mut pull = tx.prepare_cached(
        "UPDATE job SET run_at = ?3 WHERE state = 'scheduled' AND queue = ?1 AND kind = ?2 AND run_at > ?4",
    )?;
    Ok(pull.execute(params![queue.0, kind, tx.now(), tx.now().plus(longest)])?)
}

/// Forgets discarded and cancelled jobs that ended before `before`.
pub(super) fn prune(tx: &Tx, before: Instant) -> Result<usize> {
    Ok(tx.prepare_cached("DELETE FROM job WHERE finished_at < ?1")?.execute([before])?)
}

pub(super) fn get(c: &Conn, id: JobId) -> Result<Option<Listed>> {
    let mut find = c.prepare_cached(&format!("SELECT {COLUMNS} FROM job WHERE id = ?1"))?;
    Ok(find.query_row([id], listed).optional()?)
}

/// Jobs, newest first.
pub(super) fn list(c: &Conn, filter: &Filter, limit: u32) -> Result<Vec<Listed>> {
    let mut find = c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM job
          WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR queue = ?2) AND (?3 IS NULL OR state = ?3)
            AND id < ?4
          ORDER BY id DESC LIMIT ?5"
    ))?;
    let before = filter.before.unwrap_or(JobId(i64::MAX));
    let rows = find.query_map(params![filter.kind, filter.queue, filter.state, before, limit], listed)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many jobs stand where, by queue and state.
pub(super) fn counts(c: &Conn) -> Result<Vec<(String, State, u64)>> {
    let mut count =
        c.prepare_cached("SELECT queue, state, count(*) FROM job GROUP BY queue, state ORDER BY queue, state")?;
    let rows = count.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get::<_, i64>(2)? as u64)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Deletes a job if another of its kind and key waits; true if so.
fn yield_to_twin(tx: &Tx, id: JobId) -> Result<bool> {
    let mut delete = tx.prepare_cached(
        "DELETE FROM job WHERE id = ?1 AND unique_key IS NOT NULL AND state NOT IN ('scheduled', 'available')
            AND EXISTS (SELECT 1 FROM job AS twin
                         WHERE twin.kind = job.kind AND twin.unique_key = job.unique_key
                           AND twin.unique_key IS NOT NULL AND twin.state IN ('scheduled', 'available'))",
    )?;
    Ok(delete.execute([id])? == 1)
}

const COLUMNS: &str =
    "id, kind, queue, args, state, priority, run_at, attempt, percent, error, created_at, finished_at";

fn listed(r: &Row) -> rusqlite::Result<Listed> {
    Ok(Listed {
        id: r.get(0)?,
        kind: r.get(1)?,
        queue: r.get(2)?,
        args: r.get::<_, Json<_>>(3)?.0,
        state: r.get(4)?,
        priority: r.get(5)?,
        run_at: r.get(6)?,
        attempt: r.get(7)?,
        percent: r.get(8)?,
        error: r.get(9)?,
        created_at: r.get(10)?,
        finished_at: r.get(11)?,
    })
}

fn text_of(error: &Error) -> String {
    error.to_string().chars().take(ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::infra::db::Db;
    use crate::support::clock::Clock;

    const LEASE: Duration = Duration::from_mins(1);
    const Q: Queue = Queue("image");

    fn db() -> Db {
        Db::temporary(include_str!("../../../schema.sql"), Clock::by_hand(Instant(1_000_000))).unwrap()
    }

    fn new(priority: i32, run_at: i64, unique_key: Option<&str>) -> New<'_> {
        New { kind: "test", queue: Q, args: "{}".to_owned(), priority, run_at: Instant(run_at), unique_key }
    }

    async fn on<T: Send + 'static>(db: &Db, f: impl FnOnce(&Tx) -> Result<T> + Send + 'static) -> T {
        db.write(f).await.unwrap()
    }

    async fn next(db: &Db) -> Option<JobId> {
        on(db, |tx| Ok(claim(tx, Q, LEASE)?.map(|c| c.id))).await
    }

    #[tokio::test]
    async fn jobs_come_by_priority_then_time_then_number_and_not_before_they_are_due() {
        let db = db();
        let ids = on(&db, |tx| {
            [(0, 900_000), (0, 800_000), (5, 1_000_000), (9, 1_000_001), (0, 800_000)]
                .into_iter()
                .map(|(priority, run_at)| enqueue(tx, &new(priority, run_at, None)))
                .collect::<Result<Vec<_>>>()
        })
        .await;
        for expected in [2, 1, 4, 0] {
            assert_eq!(next(&db).await, Some(ids[expected]));
        }
        assert_eq!(next(&db).await, None);
        assert_eq!(db.read(|c| next_due(c, Q)).await.unwrap(), Some(Instant(1_000_001)));
        db.clock().advance(Duration::from_millis(1));
        assert_eq!(next(&db).await, Some(ids[3]));
        assert_eq!(db.read(|c| next_due(c, Q)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_claim_is_a_seek() {
        let db = db();
        let plans = db.read(|c| {
            let plan = |sql: &str| -> Result<String> {
                let mut explain = c.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let lines = explain.query_map([], |r| r.get::<_, String>(3))?.collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(lines.join("; "))
            };
            Ok([
                plan("SELECT id FROM job WHERE queue = 'x' AND state = 'available' ORDER BY priority DESC, run_at, id LIMIT 1")?,
                plan("UPDATE job SET state = 'available' WHERE state = 'scheduled' AND queue = 'x' AND run_at <= 5")?,
                plan("SELECT min(run_at) FROM job WHERE state = 'scheduled' AND queue = 'x'")?,
                plan("DELETE FROM job WHERE finished_at < 5")?,
            ])
        });
        assert_eq!(
            plans.await.unwrap(),
            [
                "SEARCH job USING COVERING INDEX job_available (queue=?)",
                "SEARCH job USING INDEX job_scheduled (queue=? AND run_at<?)",
                "SEARCH job USING COVERING INDEX job_scheduled (queue=?)",
                "SEARCH job USING INDEX job_finished (finished_at<?)",
            ]
        );
    }

    #[tokio::test]
    async fn a_waiting_twin_is_the_same_job_and_a_running_one_is_not() {
        let db = db();
        let key = Some("k");
        let first = on(&db, move |tx| enqueue(tx, &new(0, 2_000_000, key))).await;
        let twin = on(&db, move |tx| enqueue(tx, &new(3, 1_000_000, key))).await;
        let other = on(&db, |tx| enqueue(tx, &new(0, 1_000_000, Some("other")))).await;
        assert_eq!(first, twin);
        assert_eq!(next(&db).await, Some(first), "pulled forward and more urgent");
        let after = on(&db, move |tx| enqueue(tx, &new(0, 1_000_000, key))).await;
        assert!(after != first && after != other);
        let back = on(&db, move |tx| fail(tx, first, 1, Instant(1_500_000), &Code::Busy.into())).await;
        assert!(back);
        assert_eq!(db.read(move |c| get(c, first)).await.unwrap(), None, "the waiting twin does the work");
        assert!(db.read(move |c| get(c, after)).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_wait_after_a_failure_is_not_cut_short_by_a_twin() {
        let db = db();
        let id = on(&db, |tx| enqueue(tx, &new(0, 0, Some("k")))).await;
        next(&db).await;
        on(&db, move |tx| fail(tx, id, 1, Instant(1_500_000), &Code::Busy.into())).await;
        assert_eq!(on(&db, |tx| enqueue(tx, &new(0, 0, Some("k")))).await, id);
        assert_eq!(next(&db).await, None);
    }

    #[tokio::test]
    async fn who_was_given_up_on_changes_nothing() {
        let db = db();
        let id = on(&db, |tx| enqueue(tx, &new(0, 0, None))).await;
        next(&db).await;
        assert_eq!(on(&db, |tx| rescue(tx, None, |_| false)).await, 1);
        next(&db).await;
        let error = || Error::from(Code::Busy);
        assert!(!on(&db, move |tx| beat(tx, id, 1, LEASE, 50)).await);
        assert!(!on(&db, move |tx| finish(tx, id, 1)).await);
        assert!(!on(&db, move |tx| fail(tx, id, 1, Instant(0), &error())).await);
        assert!(!on(&db, move |tx| discard(tx, id, 1, &error())).await);
        assert!(!on(&db, move |tx| hand_back(tx, id, 1)).await);
        let job = db.read(move |c| get(c, id)).await.unwrap().unwrap();
        assert_eq!((job.state, job.attempt, job.percent), (State::Running, 2, 0));
        assert!(on(&db, move |tx| finish(tx, id, 2)).await);
    }

    #[tokio::test]
    async fn only_dead_and_impossible_leases_are_rescued_and_never_those_named() {
        let db = db();
        let ids = on(&db, |tx| (0..4).map(|_| enqueue(tx, &new(0, 0, None))).collect::<Result<Vec<_>>>()).await;
        for _ in &ids {
            next(&db).await;
        }
        let (dead, ahead, named) = (ids[0], ids[1], ids[2]);
        on(&db, move |tx| {
            for (id, lease_until) in [(dead, 999_999), (ahead, 1_120_001), (named, 1)] {
                tx.execute("UPDATE job SET lease_until = ?2 WHERE id = ?1", params![id, lease_until])?;
            }
            Ok(())
        })
        .await;
        assert_eq!(on(&db, move |tx| rescue(tx, Some(LEASE), |id| id == named)).await, 2);
        let states =
            db.read(move |c| ids.iter().map(|id| Ok(get(c, *id)?.map(|j| j.state))).collect::<Result<Vec<_>>>());
        let (available, running) = (Some(State::Available), Some(State::Running));
        assert_eq!(states.await.unwrap(), [available, available, running, running]);
    }

    #[tokio::test]
    async fn a_clock_set_back_does_not_strand_a_retry_and_leaves_appointments() {
        let db = db();
        let ids = on(&db, |tx| Ok([enqueue(tx, &new(0, 0, None))?, enqueue(tx, &new(0, 900_000_000, None))?])).await;
        next(&db).await;
        on(&db, move |tx| fail(tx, ids[0], 1, Instant(500_000_000), &Code::Busy.into())).await;
        assert_eq!(on(&db, |tx| clamp(tx, Duration::from_hours(1))).await, 1);
        assert_eq!(next(&db).await, Some(ids[0]));
        assert_eq!(next(&db).await, None);
    }

    #[tokio::test]
    async fn appointments_that_a_wrong_clock_made_are_pulled_forward_kind_by_kind() {
        let db = db();
        let (soon, far) = (1_000_000 + 3_600_000, 1_000_000 + 3_600_001);
        let other = New { kind: "test.other", ..new(0, far, None) };
        let ids = on(&db, move |tx| Ok([enqueue(tx, &new(0, soon, None))?, enqueue(tx, &new(0, far, None))?])).await;
        on(&db, move |tx| enqueue(tx, &other)).await;
        let new = new(0, 0, None);
        let pulled = on(&db, move |tx| pull_forward(tx, new.queue, new.kind, Duration::from_hours(1))).await;
        assert_eq!(pulled, 1);
        assert_eq!(next(&db).await, Some(ids[1]));
        assert_eq!(next(&db).await, None);
    }

    #[tokio::test]
    async fn finished_jobs_are_listed_revived_and_forgotten() {
        let db = db();
        let ids = on(&db, |tx| (0..3).map(|_| enqueue(tx, &new(0, 0, None))).collect::<Result<Vec<_>>>()).await;
        let [a, b, c] = ids[..] else { panic!() };
        next(&db).await;
        assert!(on(&db, move |tx| discard(tx, a, 1, &Code::BadImage.because("torn"))).await);
        assert!(on(&db, move |tx| cancel(tx, b)).await);
        assert!(!on(&db, move |tx| cancel(tx, b)).await);
        let state = |state| Filter { state: Some(state), ..Filter::default() };
        let discarded = db.read(move |c| list(c, &state(State::Discarded), 10)).await.unwrap();
        assert_eq!(discarded.len(), 1);
        assert_eq!((discarded[0].id, discarded[0].error.as_deref()), (a, Some("BAD_IMAGE: torn")));
        assert_eq!(
            db.read(counts).await.unwrap(),
            [
                ("image".to_owned(), State::Available, 1),
                ("image".to_owned(), State::Cancelled, 1),
                ("image".to_owned(), State::Discarded, 1)
            ]
        );
        assert!(on(&db, move |tx| revive(tx, a)).await);
        assert!(!on(&db, move |tx| revive(tx, c)).await);
        assert_eq!(on(&db, |tx| prune(tx, tx.now())).await, 0);
        db.clock().advance(Duration::from_millis(1));
        assert_eq!(on(&db, |tx| prune(tx, tx.now())).await, 1);
        let page = db.read(move |conn| list(conn, &Filter { before: Some(c), ..Filter::default() }, 10)).await.unwrap();
        assert_eq!(page.iter().map(|j| (j.id, j.attempt)).collect::<Vec<_>>(), [(a, 0)]);
    }
}
