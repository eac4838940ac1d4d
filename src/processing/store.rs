//! The tables `round` and `step`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::assets::Asset;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::processing::keys::Family;
use crate::processing::model::Round;
use crate::processing::model::RoundStatus;
use crate::processing::model::Step;
use crate::support::clock::Instant;
use crate::support::page::Page;

const COLUMNS: &str = "id, asset_id, creator_id, kind, status, requested_at, completed_at";

pub fn insert(tx: &Tx, asset: &Asset, user: i64, kind: Family) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO round (asset_id, revision, creator_id, kind, status, requested_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![asset.id, asset.revision, user, kind.word(), RoundStatus::Queued, tx.now()])?;
    Ok(tx.last_insert_rowid())
}

pub fn insert_step(tx: &Tx, round: i64, key: &str) -> Result<()> {
    tx.prepare_cached("INSERT INTO step (round_id, key, status) VALUES (?1, ?2, ?3)")?.execute(params![
        round,
        key,
        RoundStatus::Queued
    ])?;
    Ok(())
}

/// Ends a step; true when it was the last one and the round is closed with it.
pub fn end_step(tx: &Tx, round: i64, key: &str, started: Instant, failure: Option<&str>) -> Result<bool> {
    let (status, percent) = if failure.is_some() { (RoundStatus::Error, 0) } else { (RoundStatus::Completed, 100) };
    let changed = tx
        .prepare_cached(
            "UPDATE step SET status = ?3, percent = ?4, started_at = ?5, finished_at = ?6, message = ?7 \
             WHERE round_id = ?1 AND key = ?2 AND finished_at IS NULL",
        )?
        .execute(params![round, key, status, percent, started, tx.now(), failure.unwrap_or_default()])?;
    if changed == 0 {
        return Ok(false);
    }
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
        creator_id: r.get(2)?,
        kind: r.get(3)?,
        status: r.get(4)?,
        requested_at: r.get(5)?,
        completed_at: r.get(6)?,
        steps: Vec::new(),
    })
}
