//! The tables `journal` and `journal_cursor`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use serde_json::Value;

use crate::assets::AssetId;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::journal::Entry;

pub fn insert(tx: &Tx, id: AssetId, event: &str, detail: &Value) -> Result<()> {
    tx.prepare_cached("INSERT INTO journal (at, asset_id, event, detail) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![tx.now(), id, event, Json(detail)])?;
    Ok(())
}

pub fn after(c: &Connection, seq: i64, limit: u32) -> Result<Vec<Entry>> {
    let mut rows =
        c.prepare_cached("SELECT seq, at, asset_id, event, detail FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let entries = rows.query_map(params![seq, limit], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(entries)
}

/// The newest entry of each event that befell an asset, oldest first.
pub fn last_of_each(c: &Connection, id: AssetId) -> Result<Vec<Entry>> {
    let mut rows = c.prepare_cached(
        "SELECT max(seq), at, asset_id, event, detail FROM journal WHERE asset_id = ?1 GROUP BY event ORDER BY 1",
    )?;
    let entries = rows.query_map([id], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(entries)
}

/// The number of the newest entry; 0 when there is none.
pub fn latest(c: &Connection) -> Result<i64> {
    Ok(c.prepare_cached("SELECT ifnull(max(seq), 0) FROM journal")?.query_row([], |r| r.get(0))?)
}

/// How far a consumer has read.
pub fn cursor(c: &Connection, consumer: &str) -> Result<i64> {
    let found = c
        .prepare_cached("SELECT seq FROM journal_cursor WHERE consumer = ?1")?
        .query_row([consumer], |r| r.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

pub fn set_cursor(tx: &Tx, consumer: &str, seq: i64) -> Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO journal_cursor (consumer, seq) VALUES (?1, ?2)")?
        .execute(params![consumer, seq])?;
    Ok(())
}

fn read(r: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: r.get(0)?,
        at: r.get(1)?,
        asset_id: r.get(2)?,
        event: r.get(3)?,
        detail: r.get::<_, Json<_>>(4)?.0,
    })
}
