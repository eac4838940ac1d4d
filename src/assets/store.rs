//! The tables `asset` and `conversion`.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::named_params;
use rusqlite::params;
use serde_json::Map;
use serde_json::Value;

use crate::assets::Full;
use crate::assets::model::Asset;
use crate::assets::model::AssetId;
use crate::assets::model::Conversion;
use crate::assets::model::ORIGINAL;
use crate::assets::model::Status;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::infra::storage::Backend;
use crate::support::clock::Instant;
use crate::support::page::Page;

const COLUMNS: &str = "id, revision, status, name, size_bytes, md5, sha256, content_type, public, on_demand, creator_id, \
     updater_id, uploaded_at, updated_at, trashed_at, upload_source, data_schema_id, data, facts, errors, home, bucket";

/// The bytes of an asset, as far as moving them is concerned.
pub struct Original {
    /// Of its asset, in the order of arrival.
    pub seq: i64,
    pub id: AssetId,
    pub revision: u32,
    pub size_bytes: u64,
    pub sha256: String,
}

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

/// An asset, also one in the trash.
pub fn find(c: &Connection, id: AssetId) -> Result<Option<Asset>> {
    Ok(c.prepare_cached(&format!("SELECT {COLUMNS} FROM asset WHERE id = ?1"))?.query_row([id], read).optional()?)
}

/// An asset that is not in the trash, with its conversions.
pub fn shown(c: &Connection, id: AssetId) -> Result<Option<Full>> {
    let mut row = c.prepare_cached(&format!("SELECT {COLUMNS} FROM asset WHERE id = ?1 AND trashed_at IS NULL"))?;
    let Some(asset) = row.query_row([id], read).optional()? else { return Ok(None) };
    Ok(Some(Full { conversions: conversions(c, id)?, asset }))
}

/// The revision on record: what recovery asks about a file in staging.
pub fn revision(c: &Connection, id: AssetId) -> Result<Option<u32>> {
    Ok(c.prepare_cached("SELECT revision FROM asset WHERE id = ?1")?.query_row([id], |r| r.get(0)).optional()?)
}

/// Whether this is the content that everybody sees: neither replaced nor in the trash.
pub fn is_present(c: &Connection, id: AssetId, revision: u32) -> Result<bool> {
    let mut found = c.prepare_cached("SELECT 1 FROM asset WHERE id = ?1 AND revision = ?2 AND trashed_at IS NULL")?;
    Ok(found.exists(params![id, revision])?)
}

/// A page of the assets that are not in the trash, newest first. An offset skips whole blocks
/// and is walked only inside the last one, so a late page costs no more than the first.
pub fn newest(c: &Connection, page: Page) -> Result<Vec<Asset>> {
    let Some((block, skipped)) = block_at(c, page.offset)? else { return Ok(Vec::new()) };
    let mut rows = c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM asset WHERE seq IN (SELECT seq FROM asset INDEXED BY asset_listed \
         WHERE trashed_at IS NULL AND seq < (?1 + 1) << 10 ORDER BY seq DESC LIMIT ?2 OFFSET ?3) ORDER BY seq DESC"
    ))?;
    let left = u64::from(page.offset) - skipped;
    let assets = rows.query_map(params![block, page.limit, left as i64], read)?.collect::<rusqlite::Result<_>>()?;
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

/// How many assets are not in the trash.
pub fn count(c: &Connection) -> Result<u64> {
    let mut sum = c.prepare_cached("SELECT coalesce(sum(live), 0) FROM asset_block")?;
    Ok(sum.query_row([], |r| r.get::<_, i64>(0))? as u64)
}

/// The block that holds the asset at this offset, and how many assets newer blocks hold.
fn block_at(c: &Connection, offset: u32) -> Result<Option<(i64, u64)>> {
    let mut rows = c.prepare_cached("SELECT block, live FROM asset_block ORDER BY block DESC")?;
    let mut rows = rows.query([])?;
    let mut skipped = 0;
    while let Some(row) = rows.next()? {
        let live = row.get::<_, i64>(1)? as u64;
        if skipped + live > u64::from(offset) {
            return Ok(Some((row.get(0)?, skipped)));
        }
        skipped += live;
    }
    Ok(None)
}

/// Assets by their place in the order of arrival, with their conversions; those that are gone
/// are left out, and so are those in the trash unless it is them that are wanted.
pub fn by_seq(c: &Connection, seqs: &[i64], trashed: bool) -> Result<Vec<Full>> {
    let mut row =
        c.prepare_cached(&format!("SELECT {COLUMNS} FROM asset WHERE seq = ?1 AND (trashed_at IS NOT NULL) = ?2"))?;
    let mut found = Vec::with_capacity(seqs.len());
    for seq in seqs {
        if let Some(asset) = row.query_row(params![seq, trashed], read).optional()? {
            found.push(Full { conversions: conversions(c, asset.id)?, asset });
        }
    }
    Ok(found)
}

/// The place of the newest asset in the order of arrival; 0 when there is none.
pub fn last_seq(c: &Connection) -> Result<i64> {
    Ok(c.prepare_cached("SELECT coalesce(max(seq), 0) FROM asset")?.query_row([], |r| r.get(0))?)
}

/// Records whether an asset's data is as its schema wants it.
pub fn set_conforms(tx: &Tx, id: AssetId, conforms: bool) -> Result<()> {
    tx.prepare_cached("UPDATE asset SET data_conforms = ?2 WHERE id = ?1 AND data_conforms <> ?2")?
        .execute(params![id, conforms])?;
    Ok(())
}

/// Has an asset indexed anew, as its schema is now: the trigger does not ask what has changed.
pub fn index_anew(tx: &Tx, id: AssetId) -> Result<()> {
    tx.prepare_cached("UPDATE asset SET data_conforms = data_conforms WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Whether any asset names this schema.
pub fn names_schema(c: &Connection, schema: i64) -> Result<bool> {
    let mut found =
        c.prepare_cached("SELECT 1 FROM asset WHERE data_schema_id = ?1 AND data_schema_id <> 0 LIMIT 1")?;
    Ok(found.exists([schema])?)
}

/// Assets that name this schema, after one in the order of arrival.
pub fn of_schema(c: &Connection, schema: i64, after: i64, limit: u32) -> Result<Vec<(i64, AssetId)>> {
    let mut rows = c.prepare_cached(
        "SELECT seq, id FROM asset INDEXED BY asset_schema_id \
         WHERE data_schema_id = ?1 AND data_schema_id <> 0 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    Ok(rows
        .query_map(params![schema, after, limit], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?)
}

/// Assets that were uploaded from `from` to `to`, both included, oldest first; without the trash.
pub fn uploaded_between(c: &Connection, from: Instant, to: Instant, limit: u32) -> Result<Vec<AssetId>> {
    let mut rows = c.prepare_cached(
        "SELECT id FROM asset INDEXED BY asset_uploaded WHERE uploaded_at BETWEEN ?1 AND ?2 AND trashed_at IS NULL \
         ORDER BY uploaded_at, seq LIMIT ?3",
    )?;
    Ok(rows.query_map(params![from, to, limit], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Assets that were in the trash at an instant, those that went there first in front.
pub fn trashed(c: &Connection, until: Instant, limit: u32) -> Result<Vec<AssetId>> {
    let mut rows = c.prepare_cached(
        "SELECT id FROM asset INDEXED BY asset_trashed WHERE trashed_at <= ?1 ORDER BY trashed_at LIMIT ?2",
    )?;
    Ok(rows.query_map(params![until, limit], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

const COUNT_TRASHED: &str =
    "SELECT count(*), coalesce(sum(size_bytes), 0) FROM asset INDEXED BY asset_trashed WHERE trashed_at <= ?1";

/// How many assets were in the trash at an instant, and the bytes of their originals.
pub fn count_trashed(c: &Connection, until: Instant) -> Result<(u64, u64)> {
    let mut row = c.prepare_cached(COUNT_TRASHED)?;
    Ok(row.query_row([until], |r| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64)))?)
}

/// Writes what people say about an asset.
pub fn set_data(tx: &Tx, id: AssetId, data: &Map<String, Value>, data_schema_id: i64, user: i64) -> Result<()> {
    tx.prepare_cached(
        "UPDATE asset SET data = ?2, data_schema_id = ?3, updater_id = ?4, updated_at = ?5 WHERE id = ?1",
    )?
    .execute(params![id, Json(data), data_schema_id, user, tx.now()])?;
    Ok(())
}

/// Gives an asset its next content: everything that follows from the content is as after an
/// upload. False when a later revision is there already.
pub fn replace(tx: &Tx, new: &Asset) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE asset SET revision = :revision, status = :status, name = :name, size_bytes = :size_bytes, md5 = :md5, \
                    sha256 = :sha256, content_type = :content_type, on_demand = 0, updater_id = :updater_id, \
                    uploaded_at = :uploaded_at, updated_at = :updated_at, upload_source = :upload_source, \
                    data_schema_id = :data_schema_id, data = :data, facts = '{}', errors = '{}', home = 'fs', bucket = '' \
             WHERE id = :id AND revision < :revision",
        )?
        .execute(named_params! {
            ":id": new.id, ":revision": new.revision, ":status": new.status, ":name": new.name,
            ":size_bytes": new.size_bytes as i64, ":md5": new.md5, ":sha256": new.sha256,
            ":content_type": new.content_type, ":updater_id": new.updater_id, ":uploaded_at": new.uploaded_at,
            ":updated_at": new.updated_at, ":upload_source": new.upload_source,
            ":data_schema_id": new.data_schema_id, ":data": Json(&new.data),
        })?;
    Ok(changed == 1)
}

/// Gives an asset the content that was fetched for it. False when nobody waits for it any more.
pub fn fetched(tx: &Tx, id: AssetId, size_bytes: u64, digests: (&str, &str), content_type: &str) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE asset SET status = 'NOT_READY', size_bytes = ?2, md5 = ?3, sha256 = ?4, content_type = ?5, facts = '{}', \
                    updated_at = ?6 \
             WHERE id = ?1 AND revision = 1 AND status = 'QUEUED' AND trashed_at IS NULL",
        )?
        .execute(params![id, size_bytes as i64, digests.0, digests.1, content_type, tx.now()])?;
    Ok(changed == 1)
}

/// Says how far an asset that is being fetched is.
pub fn set_fetched_so_far(tx: &Tx, id: AssetId, facts: &Map<String, Value>) -> Result<()> {
    tx.prepare_cached("UPDATE asset SET facts = ?2 WHERE id = ?1 AND status = 'QUEUED'")?
        .execute(params![id, Json(facts)])?;
    Ok(())
}

/// Assets with the same content that came before this one, the newest first; of one user, or of all.
pub fn same_content(c: &Connection, id: AssetId, of: Option<i64>, limit: u32) -> Result<Vec<AssetId>> {
    let mut rows = c.prepare_cached(
        "SELECT there.id FROM asset AS this JOIN asset AS there INDEXED BY asset_content \
             ON substr(there.sha256, 1, 16) = substr(this.sha256, 1, 16) AND there.sha256 <> '' \
         WHERE this.id = ?1 AND there.sha256 = this.sha256 AND there.seq < this.seq AND there.trashed_at IS NULL \
           AND (?2 IS NULL OR there.creator_id = ?2) \
         ORDER BY there.seq DESC LIMIT ?3",
    )?;
    Ok(rows.query_map(params![id, of, limit], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Moves an asset into the trash, or out of it. In the trash nothing can be cut from it.
pub fn set_trashed(tx: &Tx, id: AssetId, trashed: bool, user: i64) -> Result<()> {
    tx.prepare_cached(
        "UPDATE asset SET trashed_at = ?2, on_demand = 0, updater_id = ?3, updated_at = ?4 WHERE id = ?1",
    )?
    .execute(params![id, trashed.then(|| tx.now()), user, tx.now()])?;
    Ok(())
}

/// Archives an asset, or takes that back.
pub fn set_status(tx: &Tx, id: AssetId, status: Status, user: i64) -> Result<()> {
    tx.prepare_cached("UPDATE asset SET status = ?2, updater_id = ?3, updated_at = ?4 WHERE id = ?1")?
        .execute(params![id, status, user, tx.now()])?;
    Ok(())
}

/// Forgets an asset that is in the trash, with all that is known of it. Its last revision; `None`
/// when it is not there.
pub fn forget(tx: &Tx, id: AssetId) -> Result<Option<u32>> {
    let mut gone =
        tx.prepare_cached("DELETE FROM asset WHERE id = ?1 AND trashed_at IS NOT NULL RETURNING revision")?;
    Ok(gone.query_row([id], |r| r.get(0)).optional()?)
}

/// Says who has changed something of an asset, and when.
pub fn touch(tx: &Tx, id: AssetId, user: i64) -> Result<()> {
    tx.prepare_cached("UPDATE asset SET updater_id = ?2, updated_at = ?3 WHERE id = ?1")?.execute(params![
        id,
        user,
        tx.now()
    ])?;
    Ok(())
}

/// Takes a conversion off the record, with what was said of who may read it.
pub fn remove_conversion(tx: &Tx, id: AssetId, key: &str) -> Result<()> {
    tx.prepare_cached("DELETE FROM conversion WHERE asset_id = ?1 AND key = ?2")?.execute(params![id, key])?;
    tx.prepare_cached("DELETE FROM access_choice WHERE asset_id = ?1 AND key = ?2")?.execute(params![id, key])?;
    Ok(())
}

/// Takes all conversions off the record. What was said of who may read them holds for those that are
/// made in their place.
pub fn remove_conversions(tx: &Tx, id: AssetId) -> Result<()> {
    tx.prepare_cached("DELETE FROM conversion WHERE asset_id = ?1")?.execute([id])?;
    Ok(())
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

/// Says where the original of this revision is for good.
pub fn set_home(tx: &Tx, id: AssetId, revision: u32, home: Backend, bucket: &str) -> Result<()> {
    tx.prepare_cached("UPDATE asset SET home = ?3, bucket = ?4 WHERE id = ?1 AND revision = ?2")?
        .execute(params![id, revision, home, bucket])?;
    Ok(())
}

/// Whether this revision is on record, also in the trash.
pub fn is_kept(c: &Connection, id: AssetId, revision: u32) -> Result<bool> {
    let mut found = c.prepare_cached("SELECT 1 FROM asset WHERE id = ?1 AND revision = ?2")?;
    Ok(found.exists(params![id, revision])?)
}

/// Originals after one in the order of arrival, with their size and SHA-256, also of the trash; not
/// those that are still to be fetched.
pub fn originals(c: &Connection, after: i64, limit: u32) -> Result<Vec<Original>> {
    let mut rows = c.prepare_cached(
        "SELECT seq, id, revision, size_bytes, sha256 FROM asset WHERE seq > ?1 AND status <> 'QUEUED' AND sha256 <> '' \
          ORDER BY seq LIMIT ?2",
    )?;
    let found = rows
        .query_map(params![after, limit], |r| {
            Ok(Original {
                seq: r.get(0)?,
                id: r.get(1)?,
                revision: r.get(2)?,
                size_bytes: r.get::<_, i64>(3)? as u64,
                sha256: r.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

/// Records why `key` could not be made.
pub fn set_error(tx: &Tx, id: AssetId, revision: u32, key: &str, sentence: &str) -> Result<()> {
    tx.prepare_cached(
        "UPDATE asset SET errors = json_set(errors, '$.\"' || ?3 || '\"', ?4) WHERE id = ?1 AND revision = ?2",
    )?
    .execute(params![id, revision, key, sentence])?;
    Ok(())
}

/// Takes back what was said about `key`: it was made after all.
pub fn clear_error(tx: &Tx, id: AssetId, revision: u32, key: &str) -> Result<()> {
    tx.prepare_cached(
        "UPDATE asset SET errors = json_remove(errors, '$.\"' || ?3 || '\"') \
         WHERE id = ?1 AND revision = ?2 AND errors <> '{}'",
    )?
    .execute(params![id, revision, key])?;
    Ok(())
}

/// Makes contents readable for everybody, or for nobody without a right; says which are there. It holds
/// whatever the settings say, also when a content is made again.
pub fn set_public(tx: &Tx, id: AssetId, keys: &[String], public: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for key in keys {
        let changed = if key == ORIGINAL {
            tx.prepare_cached("UPDATE asset SET public = ?2 WHERE id = ?1")?.execute(params![id, public])?
        } else {
            tx.prepare_cached(
                "INSERT INTO access_choice (asset_id, key, public) \
                 SELECT asset_id, key, ?3 FROM conversion WHERE asset_id = ?1 AND key = ?2 \
                 ON CONFLICT (asset_id, key) DO UPDATE SET public = excluded.public",
            )?
            .execute(params![id, key, public])?;
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

/// Makes the conversions of these keys readable for everybody, or for nobody without a right, of all
/// assets but those of which somebody said otherwise. Reads the whole table: for what is rare.
pub fn set_public_of_keys(tx: &Tx, keys: &[&str], public: bool) -> Result<()> {
    tx.prepare_cached(
        "UPDATE conversion SET public = ?2 WHERE public <> ?2 AND key IN (SELECT value FROM json_each(?1)) \
            AND NOT EXISTS (SELECT 1 FROM access_choice AS said \
                             WHERE said.asset_id = conversion.asset_id AND said.key = conversion.key)",
    )?
    .execute(params![Json(keys), public])?;
    Ok(())
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

/// Puts a conversion on record, in place of the one that had its key. What people handed in is
/// not overwritten by what is made, nor is what somebody said of who may read it.
pub fn put_conversion(tx: &Tx, id: AssetId, conversion: &Conversion) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO conversion (asset_id, key, revision, extension, content_type, width, height, duration_seconds, \
                 size_bytes, public, watermarked, created_at, handed, round) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, \
                 coalesce((SELECT public FROM access_choice WHERE asset_id = ?1 AND key = ?2), ?10), ?11, ?12, ?13, ?14) \
         ON CONFLICT (asset_id, key) DO UPDATE SET revision = excluded.revision, extension = excluded.extension, \
                 content_type = excluded.content_type, width = excluded.width, height = excluded.height, \
                 duration_seconds = excluded.duration_seconds, size_bytes = excluded.size_bytes, \
                 public = excluded.public, watermarked = excluded.watermarked, created_at = excluded.created_at, \
                 handed = excluded.handed, round = excluded.round \
         WHERE conversion.handed IS NULL OR excluded.handed IS NOT NULL",
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
        conversion.handed,
        conversion.round,
    ])?;
    Ok(())
}

pub fn conversions(c: &Connection, id: AssetId) -> Result<Vec<Conversion>> {
    let mut rows = c.prepare_cached(
        "SELECT key, revision, extension, content_type, width, height, duration_seconds, size_bytes, public, watermarked, \
                created_at, handed, round FROM conversion WHERE asset_id = ?1 ORDER BY key",
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
                handed: r.get(11)?,
                round: r.get(12)?,
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
        trashed_at: r.get(14)?,
        upload_source: r.get(15)?,
        data_schema_id: r.get(16)?,
        data: r.get::<_, Json<_>>(17)?.0,
        facts: r.get::<_, Json<_>>(18)?.0,
        errors: r.get::<_, Json<_>>(19)?.0,
        home: r.get(20)?,
        bucket: r.get(21)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::db::Db;
    use crate::support::clock::Clock;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_trash_is_counted_by_its_index_alone() {
        let db = Db::temporary(crate::app::SCHEMA, Clock::system()).unwrap();
        let plan = db.read(|c| {
            let mut plan = c.prepare(&format!("EXPLAIN QUERY PLAN {COUNT_TRASHED}"))?;
            Ok(plan.query_row([0], |r| r.get::<_, String>(3))?)
        });
        assert_eq!(plan.await.unwrap(), "SEARCH asset USING COVERING INDEX asset_trashed (trashed_at<?)");
    }
}
