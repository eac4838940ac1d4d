//! The tables `fetch`, `voucher` and `repeatable`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::assets::AssetId;
use crate::assets::place;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::support::clock::Instant;

/// Whether a row waits for what lies under this name in staging.
pub(super) fn waits_for(c: &Connection, id: AssetId, staged: &str) -> Result<bool> {
    if staged == place::fetched_name(id) {
        return Ok(c.prepare_cached("SELECT 1 FROM fetch WHERE asset_id = ?1")?.exists([id])?);
    }
    Ok(c.prepare_cached("SELECT 1 FROM voucher WHERE asset_id = ?1 AND staged = ?2")?.exists(params![id, staged])?)
}

/// A row of `fetch`.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub source: String,
    pub validator: Option<String>,
    pub total_bytes: Option<u64>,
    pub kept_bytes: u64,
}

pub(super) fn put_order(tx: &Tx, id: AssetId, source: &str) -> Result<()> {
    tx.prepare_cached("INSERT INTO fetch (asset_id, source) VALUES (?1, ?2)")?.execute(params![id, source])?;
    Ok(())
}

pub(super) fn order(c: &Connection, id: AssetId) -> Result<Option<Order>> {
    let mut row =
        c.prepare_cached("SELECT source, validator, total_bytes, kept_bytes FROM fetch WHERE asset_id = ?1")?;
    let read = |r: &rusqlite::Row<'_>| {
        Ok(Order {
            source: r.get(0)?,
            validator: r.get(1)?,
            total_bytes: r.get::<_, Option<i64>>(2)?.map(|n| n as u64),
            kept_bytes: r.get::<_, i64>(3)? as u64,
        })
    };
    Ok(row.query_row([id], read).optional()?)
}

/// Notes how much of which content is safe in staging.
pub(super) fn set_kept(
    tx: &Tx,
    id: AssetId,
    kept_bytes: u64,
    validator: Option<&str>,
    total_bytes: Option<u64>,
) -> Result<()> {
    tx.prepare_cached("UPDATE fetch SET kept_bytes = ?2, validator = ?3, total_bytes = ?4 WHERE asset_id = ?1")?
        .execute(params![id, kept_bytes as i64, validator, total_bytes.map(|n| n as i64)])?;
    Ok(())
}

pub(super) fn remove_order(tx: &Tx, id: AssetId) -> Result<()> {
    tx.prepare_cached("DELETE FROM fetch WHERE asset_id = ?1")?.execute([id])?;
    Ok(())
}

/// A row of `voucher`.
#[derive(Clone, Debug)]
pub(super) struct Voucher {
    pub user_id: i64,
    pub name: String,
    pub object_key: String,
    /// The form leads into this one.
    pub bucket: Option<String>,
    pub expires_at: Instant,
    pub sent: Option<Sent>,
    /// Size and MD5 of what was registered and lies in the bucket.
    pub registered: Option<(u64, String)>,
}

/// What was sent on a voucher, and lies in staging.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub staged: String,
    pub size_bytes: u64,
    pub md5: String,
    pub sha256: String,
    pub content_type: String,
}

/// False when another voucher has the id.
pub(super) fn put_voucher(tx: &Tx, id: AssetId, voucher: &Voucher) -> Result<bool> {
    let put = tx
        .prepare_cached(
            "INSERT INTO voucher (asset_id, user_id, name, object_key, expires_at, bucket) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            id,
            voucher.user_id,
            voucher.name,
            voucher.object_key,
            voucher.expires_at,
            voucher.bucket
        ])?;
    Ok(put == 1)
}

pub(super) fn voucher(c: &Connection, id: AssetId) -> Result<Option<Voucher>> {
    let mut row = c.prepare_cached(
        "SELECT user_id, name, object_key, expires_at, staged, size_bytes, md5, sha256, content_type, bucket \
         FROM voucher WHERE asset_id = ?1",
    )?;
    let read = |r: &rusqlite::Row<'_>| {
        let sent = match r.get::<_, Option<String>>(4)? {
            None => None,
            Some(staged) => Some(Sent {
                staged,
                size_bytes: r.get::<_, i64>(5)? as u64,
                md5: r.get(6)?,
                sha256: r.get(7)?,
                content_type: r.get(8)?,
            }),
        };
        let (size_bytes, md5): (Option<i64>, Option<String>) = (r.get(5)?, r.get(6)?);
        let registered = size_bytes.filter(|_| sent.is_none()).map(|bytes| bytes as u64).zip(md5);
        Ok(Voucher {
            user_id: r.get(0)?,
            name: r.get(1)?,
            object_key: r.get(2)?,
            bucket: r.get(9)?,
            expires_at: r.get(3)?,
            sent,
            registered,
        })
    };
    Ok(row.query_row([id], read).optional()?)
}

/// Notes what was sent, or that nothing is there any more. False when the voucher is gone.
pub(super) fn set_sent(tx: &Tx, id: AssetId, sent: Option<&Sent>) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE voucher SET staged = ?2, size_bytes = ?3, md5 = ?4, sha256 = ?5, content_type = ?6 WHERE asset_id = ?1",
        )?
        .execute(params![
            id,
            sent.map(|s| &s.staged),
            sent.map(|s| s.size_bytes as i64),
            sent.map(|s| &s.md5),
            sent.map(|s| &s.sha256),
            sent.map(|s| &s.content_type),
        ])?;
    Ok(changed == 1)
}

/// Notes what lies in the bucket. False when that was noted before, or the voucher is gone.
pub(super) fn set_registered(tx: &Tx, id: AssetId, size_bytes: u64, md5: &str) -> Result<bool> {
    let changed = tx
        .prepare_cached("UPDATE voucher SET size_bytes = ?2, md5 = ?3 WHERE asset_id = ?1 AND size_bytes IS NULL")?
        .execute(params![id, size_bytes as i64, md5])?;
    Ok(changed == 1)
}

/// Takes a voucher off the record when it still stands for what lies under this name, if one is given.
pub(super) fn remove_voucher(tx: &Tx, id: AssetId, staged: Option<&str>) -> Result<bool> {
    let gone = tx
        .prepare_cached("DELETE FROM voucher WHERE asset_id = ?1 AND (?2 IS NULL OR staged = ?2)")?
        .execute(params![id, staged])?;
    Ok(gone == 1)
}

/// A row of `repeatable`.
#[derive(Clone, Debug)]
pub struct Answered {
    pub fingerprint: String,
    pub assets: Vec<AssetId>,
    /// As it was given; absent when the process ended before that was noted.
    pub answer: Option<String>,
}

pub(super) fn answered(c: &Connection, caller: &str, key: &str, since: Instant) -> Result<Option<Answered>> {
    let mut row = c.prepare_cached(
        "SELECT fingerprint, assets, answer FROM repeatable WHERE caller = ?1 AND key = ?2 AND at > ?3",
    )?;
    let read = |r: &rusqlite::Row<'_>| {
        Ok(Answered { fingerprint: r.get(0)?, assets: r.get::<_, Json<_>>(1)?.0, answer: r.get(2)? })
    };
    Ok(row.query_row(params![caller, key, since], read).optional()?)
}

/// Notes what a call has made; forgets those of before `since`. Nothing is made twice under one key.
pub(super) fn put_answered(
    tx: &Tx,
    (caller, key): (&str, &str),
    fingerprint: &str,
    assets: &[AssetId],
    since: Instant,
) -> Result<()> {
    tx.prepare_cached("DELETE FROM repeatable WHERE at <= ?1")?.execute([since])?;
    let noted = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO repeatable (caller, key, fingerprint, assets, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![caller, key, fingerprint, Json(assets), tx.now()])?;
    if noted == 1 { Ok(()) } else { Err(Code::KeyInUse.into()) }
}

pub(super) fn set_answer(tx: &Tx, caller: &str, key: &str, answer: &str) -> Result<()> {
    tx.prepare_cached("UPDATE repeatable SET answer = ?3 WHERE caller = ?1 AND key = ?2")?
        .execute(params![caller, key, answer])?;
    Ok(())
}
