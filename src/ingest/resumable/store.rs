//! The table `resumable`.

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::assets::AssetId;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::ingest::Note;
use crate::ingest::resumable::Resumable;
use crate::support::clock::Instant;

const COLUMNS: &str = "id, user_id, upload_key_id, kind, state, length_bytes, offset_bytes, most_bytes, name, data, \
                       data_schema_id, source, said, parts, parts_said, created_at, expires_at";

pub fn insert(tx: &Tx, new: &Resumable) -> Result<()> {
    tx.prepare_cached(&format!(
        "INSERT INTO resumable ({COLUMNS}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
    ))?
    .execute(params![
        new.id,
        new.user_id,
        new.upload_key_id,
        new.kind,
        new.state,
        new.length_bytes.map(|bytes| bytes as i64),
        new.offset_bytes as i64,
        new.most_bytes as i64,
        new.name,
        Json(&new.note.data),
        new.note.data_schema_id,
        new.note.source,
        new.said,
        Json(&new.parts),
        new.parts_said,
        new.created_at,
        new.expires_at,
    ])?;
    Ok(())
}

pub fn find(c: &Conn, id: AssetId) -> Result<Option<Resumable>> {
    let mut found = c.prepare_cached(&format!("SELECT {COLUMNS} FROM resumable WHERE id = ?1"))?;
    Ok(found.query_row([id], read).optional()?)
}

/// One of a user that was joined of the same and is said to be the same.
pub fn find_joined(
    c: &Conn,
    user: i64,
    by_upload_key: bool,
    parts: &[AssetId],
    said: &str,
) -> Result<Option<Resumable>> {
    let mut found = c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM resumable WHERE kind = 'joined' AND state <> 'gone' \
         AND user_id = ?1 AND (upload_key_id IS NOT NULL) = ?2 AND parts = ?3 AND said = ?4"
    ))?;
    Ok(found.query_row(params![user, by_upload_key, Json(parts), said], read).optional()?)
}

/// Records what is on the disk now; false when it is not open any more.
pub fn progress(tx: &Tx, id: AssetId, offset_bytes: u64, expires_at: Instant) -> Result<bool> {
    let mut row =
        tx.prepare_cached("UPDATE resumable SET offset_bytes = ?2, expires_at = ?3 WHERE id = ?1 AND state = 'open'")?;
    Ok(row.execute(params![id, offset_bytes as i64, expires_at])? == 1)
}

pub fn set_length(tx: &Tx, id: AssetId, length_bytes: u64) -> Result<bool> {
    let mut row = tx.prepare_cached(
        "UPDATE resumable SET length_bytes = ?2 WHERE id = ?1 AND state = 'open' AND length_bytes IS NULL",
    )?;
    Ok(row.execute(params![id, length_bytes as i64])? == 1)
}

pub fn finish(tx: &Tx, id: AssetId) -> Result<()> {
    tx.prepare_cached("UPDATE resumable SET state = 'finished' WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// What was said about it is forgotten at once; that it was there, later.
pub fn give_up(tx: &Tx, id: AssetId, forget_at: Instant) -> Result<()> {
    tx.prepare_cached(
        "UPDATE resumable SET state = 'gone', expires_at = ?2, name = '', data = '{}', said = '' WHERE id = ?1",
    )?
    .execute(params![id, forget_at])?;
    Ok(())
}

/// Forgets those that went long ago.
pub fn forget(tx: &Tx, now: Instant) -> Result<()> {
    tx.prepare_cached("DELETE FROM resumable WHERE state = 'gone' AND expires_at <= ?1")?.execute([now])?;
    Ok(())
}

/// When those that are not gone expire.
pub fn expiries(c: &Conn) -> Result<Vec<(AssetId, Instant)>> {
    let mut rows = c.prepare_cached("SELECT id, expires_at FROM resumable WHERE state <> 'gone'")?;
    Ok(rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?)
}

/// Those that have all their bytes, or can have them, and are not an asset yet.
pub fn due(c: &Conn) -> Result<Vec<AssetId>> {
    let mut rows = c.prepare_cached(
        "SELECT id FROM resumable WHERE state = 'open' \
         AND (kind = 'joined' OR (kind = 'whole' AND offset_bytes = length_bytes))",
    )?;
    Ok(rows.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

pub fn is_empty(c: &Conn) -> Result<bool> {
    Ok(c.prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM resumable)")?.query_row([], |r| r.get(0))?)
}

fn read(r: &Row<'_>) -> rusqlite::Result<Resumable> {
    let Json(data) = r.get(9)?;
    let Json(parts) = r.get(13)?;
    Ok(Resumable {
        id: r.get(0)?,
        user_id: r.get(1)?,
        upload_key_id: r.get(2)?,
        kind: r.get(3)?,
        state: r.get(4)?,
        length_bytes: r.get::<_, Option<i64>>(5)?.map(|bytes| bytes as u64),
        offset_bytes: r.get::<_, i64>(6)? as u64,
        most_bytes: r.get::<_, i64>(7)? as u64,
        name: r.get(8)?,
        note: Note { data, data_schema_id: r.get(10)?, source: r.get(11)?, ..Note::default() },
        said: r.get(12)?,
        parts,
        parts_said: r.get(14)?,
        created_at: r.get(15)?,
        expires_at: r.get(16)?,
    })
}
