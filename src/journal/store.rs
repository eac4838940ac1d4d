//! The table `journal`.

use rusqlite::Connection;
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
    let entries = rows
        .query_map(params![seq, limit], |r| {
            Ok(Entry {
                seq: r.get(0)?,
                at: r.get(1)?,
                asset_id: r.get(2)?,
                event: r.get(3)?,
                detail: r.get::<_, Json<_>>(4)?.0,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(entries)
}
