//! The tables `round` and `step`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use serde_json::Map;
use serde_json::Value;

use crate::assets::Asset;
use crate::assets::AssetId;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::infra::jobs::JobId;
use crate::processing::keys::Family;
use crate::processing::model::Round;
use crate::processing::model::RoundStatus;
use crate::processing::model::Step;
use crate::support::clock::Instant;
use crate::support::page::Page;

const COLUMNS: &str = "id, asset_id, revision, creator_id, kind, status, requested_at, completed_at, input, outcome";

pub fn insert(tx: &Tx, asset: &Asset, user: i64, kind: Family) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO round (asset_id, revision, creator_id, kind, status, requested_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![asset.id, asset.revision, user, kind.word(), RoundStatus::Queued, tx.now()])?;
    Ok(tx.last_insert_rowid())
}

/// Opens a round about many assets; `kind` is its word.
pub fn insert_bulk(tx: &Tx, user: i64, kind: &str, input: &Map<String, Value>) -> Result<i64> {
    tx.prepare_cached("INSERT INTO round (creator_id, kind, status, requested_at, input) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![user, kind, RoundStatus::Queued, tx.now(), Json(input)])?;
    Ok(tx.last_insert_rowid())
}

/// Writes down what has come of a round about many, or of one that nobody was told of.
pub fn set_outcome(tx: &Tx, round: i64, outcome: &Map<String, Value>) -> Result<()> {
    tx.prepare_cached("UPDATE round SET outcome = ?2 WHERE id = ?1")?.execute(params![round, Json(outcome)])?;
    Ok(())
}

/// The rounds of an asset that have not ended.
pub fn open_rounds(c: &Connection, asset: AssetId) -> Result<Vec<i64>> {
    let mut rows = c.prepare_cached("SELECT id FROM round WHERE asset_id = ?1 AND completed_at IS NULL")?;
    Ok(rows.query_map([asset], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Adds a step, and which owed job does it; several steps may have the same.
pub fn insert_step(tx: &Tx, round: i64, key: &str, job: JobId) -> Result<()> {
    tx.prepare_cached("INSERT INTO step (round_id, key, status, job_id) VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        round,
        key,
        RoundStatus::Queued,
        job
    ])?;
    Ok(())
}

/// The keys of a round's steps that have not ended.
pub fn open_steps(c: &Connection, round: i64) -> Result<Vec<String>> {
    let mut rows = c.prepare_cached("SELECT key FROM step WHERE round_id = ?1 AND finished_at IS NULL ORDER BY key")?;
    Ok(rows.query_map([round], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Says something about a step that goes well.
pub fn note(tx: &Tx, round: i64, key: &str, note: &str) -> Result<()> {
    tx.prepare_cached("UPDATE step SET message = ?3 WHERE round_id = ?1 AND key = ?2 AND finished_at IS NULL")?
        .execute(params![round, key, note])?;
    Ok(())
}

/// The owed jobs of a round's steps that have not ended.
pub fn open_jobs(c: &Connection, round: i64) -> Result<Vec<JobId>> {
    let mut rows = c.prepare_cached(
        "SELECT DISTINCT job_id FROM step WHERE round_id = ?1 AND finished_at IS NULL AND job_id IS NOT NULL",
    )?;
    Ok(rows.query_map([round], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Every owed job that there ever was for the steps of an asset's content, or of all it has had;
/// most of them are gone.
pub fn jobs_of(c: &Connection, asset: AssetId, revision: Option<u32>) -> Result<Vec<JobId>> {
    let mut rows = c.prepare_cached(
        "SELECT DISTINCT step.job_id FROM round JOIN step ON step.round_id = round.id \
         WHERE round.asset_id = ?1 AND (?2 IS NULL OR round.revision = ?2) AND step.job_id IS NOT NULL",
    )?;
    Ok(rows.query_map(params![asset, revision], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Records that steps are under way, and how far; never goes back. False when none of them is
/// open any more.
pub fn progress(tx: &Tx, round: i64, keys: &[impl AsRef<str>], percent: u8) -> Result<bool> {
    let mut moved = 0;
    let mut step = tx.prepare_cached(
        "UPDATE step SET status = 'IN_PROGRESS', percent = max(percent, ?3), started_at = coalesce(started_at, ?4) \
         WHERE round_id = ?1 AND key = ?2 AND finished_at IS NULL",
    )?;
    for key in keys {
        moved += step.execute(params![round, key.as_ref(), percent.min(100), tx.now()])?;
    }
    tx.prepare_cached("UPDATE round SET status = 'IN_PROGRESS' WHERE id = ?1 AND status = 'QUEUED'")?
        .execute([round])?;
    Ok(moved > 0)
}

/// Ends every open step of a round as failed, and so the round.
pub fn cancel(tx: &Tx, round: i64, sentence: &str) -> Result<()> {
    tx.prepare_cached(
        "UPDATE step SET status = 'ERROR', finished_at = ?2, message = ?3 WHERE round_id = ?1 AND finished_at IS NULL",
    )?
    .execute(params![round, tx.now(), sentence])?;
    close(tx, round).map(|_| ())
}

/// What has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing: the step had ended before.
    Nothing,
    /// The step.
    Step,
    /// The step, and the round with it: it was the last one.
    Round,
}

/// Ends a step, unless it has ended.
pub fn end_step(tx: &Tx, round: i64, key: &str, started: Instant, failure: Option<&str>) -> Result<Ended> {
    // A step that fails stays as far as it was.
    let (status, percent) = if failure.is_some() { (RoundStatus::Error, 0) } else { (RoundStatus::Completed, 100) };
    let changed = tx
        .prepare_cached(
            "UPDATE step SET status = ?3, percent = max(percent, ?4), started_at = coalesce(started_at, ?5), \
                    finished_at = ?6, message = coalesce(?7, message) \
             WHERE round_id = ?1 AND key = ?2 AND finished_at IS NULL",
        )?
        .execute(params![round, key, status, percent, started, tx.now(), failure])?;
    match changed {
        0 => Ok(Ended::Nothing),
        _ if close(tx, round)? => Ok(Ended::Round),
        _ => Ok(Ended::Step),
    }
}

/// Gives a round the status that its steps have come to; true when it is closed with that.
fn close(tx: &Tx, round: i64) -> Result<bool> {
    let open = tx.prepare_cached("SELECT 1 FROM step WHERE round_id = ?1 AND finished_at IS NULL")?.exists([round])?;
    let status = if open {
        "'IN_PROGRESS'"
    } else {
        "(SELECT CASE WHEN max(status = 'ERROR') THEN 'ERROR' ELSE 'COMPLETED' END FROM step WHERE round_id = ?1)"
    };
    let completed = (!open).then(|| tx.now());
    tx.prepare_cached(&format!("UPDATE round SET status = {status}, completed_at = ?2 WHERE id = ?1"))?
        .execute(params![round, completed])?;
    Ok(!open)
}

pub fn find(c: &Connection, id: i64) -> Result<Option<Round>> {
    let found =
        c.prepare_cached(&format!("SELECT {COLUMNS} FROM round WHERE id = ?1"))?.query_row([id], read).optional()?;
    found.map(|round| with_steps(c, round)).transpose()
}

pub fn list(c: &Connection, user: i64, page: Page) -> Result<(Vec<Round>, u64)> {
    let mut rows = c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM round WHERE creator_id = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3"
    ))?;
    let rounds: Vec<Round> =
        rows.query_map(params![user, page.limit, page.offset], read)?.collect::<rusqlite::Result<_>>()?;
    let total: i64 =
        c.prepare_cached("SELECT count(*) FROM round WHERE creator_id = ?1")?.query_row([user], |r| r.get(0))?;
    Ok((rounds.into_iter().map(|round| with_steps(c, round)).collect::<Result<_>>()?, total as u64))
}

fn with_steps(c: &Connection, round: Round) -> Result<Round> {
    let mut rows = c.prepare_cached(
        "SELECT key, status, percent, started_at, finished_at, message FROM step WHERE round_id = ?1 ORDER BY key",
    )?;
    let steps = rows
        .query_map([round.id], |r| {
            Ok(Step {
                key: r.get(0)?,
                status: r.get(1)?,
                percent: r.get(2)?,
                started_at: r.get(3)?,
                finished_at: r.get(4)?,
                message: r.get(5)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Round { steps, ..round })
}

fn read(r: &Row<'_>) -> rusqlite::Result<Round> {
    Ok(Round {
        id: r.get(0)?,
        asset_id: r.get(1)?,
        revision: r.get(2)?,
        creator_id: r.get(3)?,
        kind: r.get(4)?,
        status: r.get(5)?,
        requested_at: r.get(6)?,
        completed_at: r.get(7)?,
        input: r.get::<_, Json<_>>(8)?.0,
        outcome: r.get::<_, Json<_>>(9)?.0,
        steps: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets;
    use crate::infra::db::Db;
    use crate::support::clock::Clock;

    /// A round of three steps, of which one job does two.
    async fn round(db: &Db) -> i64 {
        db.write(|tx| {
            tx.execute_batch(
                "INSERT INTO asset (id, status, name, size_bytes, md5, sha256, content_type, creator_id, updater_id, \
                                    uploaded_at, updated_at) \
                 VALUES ('99d819953914402babbdeb68337ea6a3', 'OK', 'a.mp4', 1, '', '', 'video/mp4', 1, 1, 1, 1)",
            )?;
            let id = "99d819953914402babbdeb68337ea6a3".parse().unwrap_or_else(|()| unreachable!());
            let asset = assets::store::find(tx, id)?.unwrap();
            let round = insert(tx, &asset, 1, Family::Image)?;
            for (key, job) in [("720p-video", 7), ("hls-video", 7), ("storyboard", 8)] {
                insert_step(tx, round, key, JobId(job))?;
            }
            Ok(round)
        })
        .await
        .unwrap()
    }

    async fn told(db: &Db, id: i64) -> (RoundStatus, Vec<(RoundStatus, u8, bool, String)>) {
        let round = db.read(move |c| find(c, id)).await.unwrap().unwrap();
        let steps = round.steps.into_iter().map(|s| (s.status, s.percent, s.started_at.is_some(), s.message)).collect();
        assert_eq!(round.completed_at.is_some(), matches!(round.status, RoundStatus::Completed | RoundStatus::Error));
        (round.status, steps)
    }

    #[tokio::test]
    async fn steps_go_forward_and_the_last_closes_the_round() {
        use RoundStatus::Completed;
        use RoundStatus::InProgress;
        use RoundStatus::Queued;
        let db = Db::temporary(crate::app::SCHEMA, Clock::system()).unwrap();
        let id = round(&db).await;
        let none = String::new;
        assert_eq!(told(&db, id).await, (Queued, vec![(Queued, 0, false, none()); 3]));
        for percent in [40, 20] {
            assert!(db.write(move |tx| progress(tx, id, &["720p-video", "hls-video"], percent)).await.unwrap());
        }
        let (status, steps) = told(&db, id).await;
        assert_eq!((status, &steps[0]), (InProgress, &(InProgress, 40, true, none())));
        assert_eq!(steps[1..], [(InProgress, 40, true, none()), (Queued, 0, false, none())]);
        let ends = [
            ("720p-video", Ended::Step),
            ("720p-video", Ended::Nothing),
            ("hls-video", Ended::Step),
            ("storyboard", Ended::Round),
            ("storyboard", Ended::Nothing),
        ];
        for (key, ended) in ends {
            assert_eq!(db.write(move |tx| end_step(tx, id, key, tx.now(), None)).await.unwrap(), ended, "{key}");
        }
        assert_eq!(told(&db, id).await, (Completed, vec![(Completed, 100, true, none()); 3]));
        assert!(!db.write(move |tx| progress(tx, id, &["720p-video"], 10)).await.unwrap(), "it has ended");
        assert_eq!(told(&db, id).await.0, Completed);
    }

    #[tokio::test]
    async fn cancelling_ends_what_is_open_and_keeps_what_is_done() {
        use RoundStatus::Completed;
        let db = Db::temporary(crate::app::SCHEMA, Clock::system()).unwrap();
        let id = round(&db).await;
        assert_eq!(db.read(move |c| open_jobs(c, id)).await.unwrap(), [JobId(7), JobId(8)]);
        db.write(move |tx| end_step(tx, id, "storyboard", tx.now(), None)).await.unwrap();
        assert_eq!(db.read(move |c| open_jobs(c, id)).await.unwrap(), [JobId(7)]);
        db.write(move |tx| progress(tx, id, &["hls-video"], 30)).await.unwrap();
        db.write(move |tx| cancel(tx, id, "Cancelled by x.")).await.unwrap();
        let (status, steps) = told(&db, id).await;
        let cancelled = |percent, begun| (RoundStatus::Error, percent, begun, "Cancelled by x.".to_owned());
        assert_eq!(status, RoundStatus::Error);
        assert_eq!(steps, [cancelled(0, false), cancelled(30, true), (Completed, 100, true, String::new())]);
        let late = db.write(move |tx| end_step(tx, id, "hls-video", tx.now(), None)).await.unwrap();
        assert_eq!(late, Ended::Nothing);
        assert_eq!(told(&db, id).await.1, steps);
    }
}
