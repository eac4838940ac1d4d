//! The tables `asset_schema` and `schema_field`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::schemas::model::Draft;
use crate::schemas::model::Field;
use crate::schemas::model::Kind;
use crate::schemas::model::NewField;
use crate::schemas::model::Schema;
use crate::schemas::model::Status;
use crate::support::page::Page;

const COLUMNS: &str = "id, name, status, schema, version, creator_id, created_at, changed_at";

pub fn find(c: &Connection, id: i64) -> Result<Option<Schema>> {
    let mut found = c.prepare_cached(&format!("SELECT {COLUMNS} FROM asset_schema WHERE id = ?1"))?;
    Ok(found.query_row([id], read).optional()?)
}

/// The version of a schema, which is all that most need to know.
pub fn version(c: &Connection, id: i64) -> Result<Option<i64>> {
    let mut found = c.prepare_cached("SELECT version FROM asset_schema WHERE id = ?1")?;
    Ok(found.query_row([id], |r| r.get(0)).optional()?)
}

pub fn list(c: &Connection, page: Page) -> Result<Vec<Schema>> {
    let mut rows = c.prepare_cached(&format!("SELECT {COLUMNS} FROM asset_schema ORDER BY id LIMIT ?1 OFFSET ?2"))?;
    Ok(rows.query_map(params![page.limit, page.offset], read)?.collect::<rusqlite::Result<_>>()?)
}

pub fn count(c: &Connection) -> Result<u64> {
    Ok(c.prepare_cached("SELECT count(*) FROM asset_schema")?.query_row([], |r| r.get::<_, i64>(0))? as u64)
}

pub fn insert(tx: &Tx, draft: &Draft, creator: i64) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO asset_schema (name, status, schema, creator_id, created_at, changed_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
    )?
    .execute(params![Json(&draft.name), draft.status.word(), Json(&draft.schema), creator, tx.now()])?;
    Ok(tx.last_insert_rowid())
}

/// Replaces a schema; its version rises when its rules changed.
pub fn update(tx: &Tx, id: i64, draft: &Draft, is_new_version: bool) -> Result<()> {
    tx.prepare_cached(
        "UPDATE asset_schema SET name = ?2, status = ?3, schema = ?4, version = version + ?5, changed_at = ?6 WHERE id = ?1",
    )?
    .execute(params![id, Json(&draft.name), draft.status.word(), Json(&draft.schema), is_new_version, tx.now()])?;
    Ok(())
}

pub fn delete(tx: &Tx, id: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM asset_schema WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// The searchable properties of a schema.
pub fn fields(c: &Connection, schema: i64) -> Result<Vec<Field>> {
    let mut rows = c.prepare_cached(
        "SELECT id, name, kind, keyword, slot, ranged FROM schema_field WHERE schema_id = ?1 ORDER BY name",
    )?;
    let fields = rows
        .query_map([schema], |r| {
            Ok(Field {
                id: r.get(0)?,
                name: r.get(1)?,
                kind: Kind::from_word(&r.get::<_, String>(2)?).unwrap_or(Kind::Text),
                keyword: r.get(3)?,
                slot: r.get(4)?,
                ranged: r.get(5)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(fields)
}

/// Gives a schema these searchable properties in place of those it had. One of the same name
/// keeps its number.
pub fn set_fields(tx: &Tx, schema: i64, fields: &[NewField]) -> Result<()> {
    let names: Vec<&str> = fields.iter().map(|f| &*f.name).collect();
    tx.prepare_cached(
        "DELETE FROM schema_field WHERE schema_id = ?1 AND name NOT IN (SELECT value FROM json_each(?2))",
    )?
    .execute(params![schema, Json(names)])?;
    for field in fields {
        tx.prepare_cached(
            "INSERT INTO schema_field (schema_id, name, path, kind, keyword, slot, ranged) \
             VALUES (?1, ?2, '$.\"' || ?2 || '\"', ?3, ?4, ?5, ?6) \
             ON CONFLICT (schema_id, name) DO UPDATE SET kind = excluded.kind, keyword = excluded.keyword, \
                 slot = excluded.slot, ranged = excluded.ranged",
        )?
        .execute(params![schema, field.name, field.kind.word(), field.keyword, field.slot, field.ranged])?;
    }
    Ok(())
}

fn read(r: &Row<'_>) -> rusqlite::Result<Schema> {
    Ok(Schema {
        id: r.get(0)?,
        name: r.get::<_, Json<_>>(1)?.0,
        status: Status::from_word(&r.get::<_, String>(2)?).unwrap_or(Status::Inactive),
        schema: r.get::<_, Json<_>>(3)?.0,
        version: r.get(4)?,
        creator_id: r.get(5)?,
        created_at: r.get(6)?,
        changed_at: r.get(7)?,
    })
}
