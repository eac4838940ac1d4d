//! The tables `asset` and `conversion`.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::named_params;
use rusqlite::params;
use serde_json::Map;
use serde_json::Value;

use crate::assets::model::Asset;
use crate::assets::model::AssetId;
use crate::assets::model::Conversion;
use crate::assets::model::ORIGINAL;
use crate::assets::model::Status;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::support::clock::Instant;
use crate::support::page::Page;

const COLUMNS: &str = "id, revision, status, name, size_bytes, md5, sha256, content_type, public, on_demand, creator_id, \
     updater_id, uploaded_at, updated_at, upload_source, data_schema_id, data, facts, errors";

pub fn insert(tx: &Tx, asset: &Asset) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO asset (id, revision, status, name, size_bytes, md5, sha256, content_type, creator_id, updater_id, \
                            uploaded_at, updated_at, upload_source, data_schema_id, data, facts, errors) \
         VALUES (:id, :revision, :status, :name, :size_bytes, :md5, :sha256, :content_type, :creator_id, :updater_id, \
                 :uploaded_at, :updated_at, :upload_source, :data_schema_id, :data, :facts, :errors)",
    )?
    .execute(named_params! {
        ":id": asset.id, ":revision": asset.revision, ":status": asset.status, ":name": asset.name,
        ":size_bytes": asset.size_bytes as i64, ":md5": asset.md5, ":sha256": asset.sha256,
        ":content_type": asset.content_type, ":creator_id": asset.creator_id, ":updater_id": asset.updater_id,
        ":uploaded_at": asset.uploaded_at, ":updated_at": asset.updated_at, ":upload_source": asset.upload_source,
        ":data_schema_id": asset.data_schema_id, ":data": Json(&asset.data), ":facts": Json(&asset.facts),
        ":errors": Json(&asset.errors),
    })?;
    Ok(())
}

pub fn find(c: &Connection, id: AssetId) -> Result<Option<Asset>> {
    Ok(c.prepare_cached(&format!("SELECT {COLUMNS} FROM asset WHERE id = ?1"))?.query_row([id], read).optional()?)
}

/// Whether this very revision is on record: what recovery asks about a file in staging.
pub fn has_revision(c: &Connection, id: AssetId, revision: u32) -> Result<bool> {
    Ok(c.prepare_cached("SELECT 1 FROM asset WHERE id = ?1 AND revision = ?2")?.exists(params![id, revision])?)
}

pub fn newest(c: &Connection, page: Page) -> Result<Vec<Asset>> {
    let mut rows = c.prepare_cached(&format!("SELECT {COLUMNS} FROM asset ORDER BY seq DESC LIMIT ?1 OFFSET ?2"))?;
    let assets = rows.query_map(params![page.limit, page.offset], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(assets)
}

/// Assets that arrived in a span of time, ends included, after the cursor; in the order of arrival.
/// Each comes with its cursor.
pub fn arrived(
    c: &Connection,
    (from, to): (Instant, Instant),
    after: (Instant, i64),
    limit: u32,
) -> Result<Vec<((Instant, i64), AssetId)>> {
    let mut rows = c.prepare_cached(
        "SELECT uploaded_at, seq, id FROM asset
          WHERE uploaded_at BETWEEN ?1 AND ?2 AND (uploaded_at, seq) > (?3, ?4)
          ORDER BY uploaded_at, seq LIMIT ?5",
    )?;
    let found = rows
        .query_map(params![from, to, after.0, after.1, limit], |r| Ok(((r.get(0)?, r.get(1)?), r.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

pub fn count(c: &Connection) -> Result<u64> {
    Ok(c.prepare_cached("SELECT count(*) FROM asset")?.query_row([], |r| r.get::<_, i64>(0))? as u64)
}

/// Records what looking at the original brought. False when that revision is gone.
pub fn looked_at(
    tx: &Tx,
    id: AssetId,
    revision: u32,
    status: Status,
    facts: &Map<String, Value>,
    errors: &BTreeMap<String, String>,
) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE asset SET status = ?3, facts = ?4, errors = ?5, updated_at = ?6 \
             WHERE id = ?1 AND revision = ?2 AND status IN ('NOT_READY', 'QUEUED')",
        )?
        .execute(params![id, revision, status, Json(facts), Json(errors), tx.now()])?;
    Ok(changed == 1)
}

/// Says better what this revision is than its first bytes did.
pub fn set_content_type(tx: &Tx, id: AssetId, revision: u32, content_type: &str) -> Result<()> {
    tx.prepare_cached("UPDATE asset SET content_type = ?3 WHERE id = ?1 AND revision = ?2")?.execute(params![
        id,
        revision,
        content_type
    ])?;
    Ok(())
}

/// Adds to what is known about this revision; what has the same name is replaced. False when
/// that revision is gone.
pub fn add_facts(tx: &Tx, id: AssetId, revision: u32, facts: &Map<String, Value>) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE asset SET facts = json_patch(facts, ?3), updated_at = ?4 WHERE id = ?1 AND revision = ?2",
        )?
        .execute(params![id, revision, Json(facts), tx.now()])?;
    Ok(changed == 1)
}

/// Images can be cut from this revision from now on. False when that revision is gone.
pub fn set_on_demand(tx: &Tx, id: AssetId, revision: u32) -> Result<bool> {
    let changed = tx
        .prepare_cached("UPDATE asset SET on_demand = 1, updated_at = ?3 WHERE id = ?1 AND revision = ?2")?
        .execute(params![id, revision, tx.now()])?;
    Ok(changed == 1)
}

/// Records why `key` could not be made.
pub fn set_error(tx: &Tx, id: AssetId, revision: u32, key: &str, sentence: &str) -> Result<()> {
    tx.prepare_cached(
        "UPDATE asset SET errors = json_set(errors, '$.\"' || ?3 || '\"', ?4) WHERE id = ?1 AND revision = ?2",
    )?
    .execute(params![id, revision, key, sentence])?;
    Ok(())
}

/// Makes contents readable for everybody, or for nobody without a right; says which are there.
pub fn set_public(tx: &Tx, id: AssetId, keys: &[String], public: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for key in keys {
        let changed = if key == ORIGINAL {
            tx.prepare_cached("UPDATE asset SET public = ?2 WHERE id = ?1")?.execute(params![id, public])?
        } else {
            tx.prepare_cached("UPDATE conversion SET public = ?3 WHERE asset_id = ?1 AND key = ?2")?
                .execute(params![id, key, public])?
        };
        if changed > 0 && !found.contains(key) {
            found.push(key.clone());
        }
    }
    tx.prepare_cached("UPDATE asset SET updated_at = ?2 WHERE id = ?1")?.execute(params![id, tx.now()])?;
    Ok(found)
}

/// Records that this revision, which looked right from outside, cannot be played.
pub fn refuse(tx: &Tx, id: AssetId, revision: u32, sentence: &str) -> Result<()> {
    tx.prepare_cached(
        "UPDATE asset SET status = ?3, errors = json_set(errors, '$.original', ?4), updated_at = ?5 \
         WHERE id = ?1 AND revision = ?2 AND status = ?6",
    )?
    .execute(params![id, revision, Status::Error, sentence, tx.now(), Status::Ok])?;
    Ok(())
}

pub fn put_conversion(tx: &Tx, id: AssetId, conversion: &Conversion) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO conversion (asset_id, key, revision, extension, content_type, width, height, \
                 duration_seconds, size_bytes, public, watermarked, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        id,
        conversion.key,
        conversion.revision,
        conversion.extension,
        conversion.content_type,
        conversion.width,
        conversion.height,
        conversion.duration_seconds,
        conversion.size_bytes as i64,
        conversion.public,
        conversion.watermarked,
        conversion.created_at,
    ])?;
    Ok(())
}

pub fn conversions(c: &Connection, id: AssetId) -> Result<Vec<Conversion>> {
    let mut rows = c.prepare_cached(
        "SELECT key, revision, extension, content_type, width, height, duration_seconds, size_bytes, public, watermarked, \
                created_at FROM conversion WHERE asset_id = ?1 ORDER BY key",
    )?;
    let found = rows
        .query_map([id], |r| {
            Ok(Conversion {
                key: r.get(0)?,
                revision: r.get(1)?,
                extension: r.get(2)?,
                content_type: r.get(3)?,
                width: r.get(4)?,
                height: r.get(5)?,
                duration_seconds: r.get(6)?,
                size_bytes: r.get::<_, i64>(7)? as u64,
                public: r.get(8)?,
                watermarked: r.get(9)?,
                created_at: r.get(10)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

fn read(r: &Row<'_>) -> rusqlite::Result<Asset> {
    Ok(Asset {
        id: r.get(0)?,
        revision: r.get(1)?,
        status: r.get(2)?,
        name: r.get(3)?,
        size_bytes: r.get::<_, i64>(4)? as u64,
        md5: r.get(5)?,
        sha256: r.get(6)?,
        content_type: r.get(7)?,
        public: r.get(8)?,
        on_demand: r.get(9)?,
        creator_id: r.get(10)?,
        updater_id: r.get(11)?,
        uploaded_at: r.get(12)?,
        updated_at: r.get(13)?,
        upload_source: r.get(14)?,
        data_schema_id: r.get(15)?,
        data: r.get::<_, Json<_>>(16)?.0,
        facts: r.get::<_, Json<_>>(17)?.0,
        errors: r.get::<_, Json<_>>(18)?.0,
    })
}
