//! The table `phased`.

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::assets::AssetId;
use crate::catalogue::Draft;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::ingest::phases::Phased;

const COLUMNS: &str = "id, user_id, size_bytes, offset_bytes, last_bytes, last_sha256, name, label, draft, created_at, touched_at, \
     overflowed";

pub fn insert(tx: &Tx, row: &Phased) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO phased (id, user_id, size_bytes, name, label, draft, created_at, touched_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        row.id,
        row.user_id,
        row.size_bytes as i64,
        row.name,
        row.label,
        Json(&row.draft),
        row.created_at,
        row.touched_at
    ])?;
    Ok(())
}

pub fn find(c: &Conn, id: AssetId) -> Result<Option<Phased>> {
    let mut row = c.prepare_cached(&format!("SELECT {COLUMNS} FROM phased WHERE id = ?1"))?;
    Ok(row.query_row([id], read).optional()?)
}

pub fn all(c: &Conn) -> Result<Vec<Phased>> {
    let mut rows = c.prepare_cached(&format!("SELECT {COLUMNS} FROM phased"))?;
    Ok(rows.query_map([], read)?.collect::<rusqlite::Result<_>>()?)
}

/// Another chunk is on the disk.
pub fn advance(tx: &Tx, row: &Phased) -> Result<()> {
    tx.prepare_cached(
        "UPDATE phased SET offset_bytes = ?2, last_bytes = ?3, last_sha256 = ?4, name = ?5, touched_at = ?6 WHERE id = ?1",
    )?
    .execute(params![
        row.id,
        row.offset_bytes as i64,
        row.last_bytes as i64,
        row.last_sha256,
        row.name,
        tx.now()
    ])?;
    Ok(())
}

pub fn set_draft(tx: &Tx, id: AssetId, draft: &Draft) -> Result<()> {
    tx.prepare_cached("UPDATE phased SET draft = ?2, touched_at = ?3 WHERE id = ?1")?.execute(params![
        id,
        Json(draft),
        tx.now()
    ])?;
    Ok(())
}

/// More came than was declared.
pub fn overflow(tx: &Tx, id: AssetId) -> Result<()> {
    tx.prepare_cached("UPDATE phased SET overflowed = 1 WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub fn forget(tx: &Tx, id: AssetId) -> Result<()> {
    tx.prepare_cached("DELETE FROM phased WHERE id = ?1")?.execute([id])?;
    Ok(())
}

fn read(r: &Row<'_>) -> rusqlite::Result<Phased> {
    Ok(Phased {
        id: r.get(0)?,
        user_id: r.get(1)?,
        size_bytes: r.get::<_, i64>(2)? as u64,
        offset_bytes: r.get::<_, i64>(3)? as u64,
        last_bytes: r.get::<_, i64>(4)? as u64,
        last_sha256: r.get(5)?,
        name: r.get(6)?,
        label: r.get(7)?,
        draft: r.get::<_, Json<Draft>>(8)?.0,
        created_at: r.get(9)?,
        touched_at: r.get(10)?,
        overflowed: r.get(11)?,
    })
}
