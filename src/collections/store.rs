//! The tables `collection`, `collection_asset` and `original_crc`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::named_params;
use rusqlite::params;

use crate::assets::AssetId;
use crate::collections::By;
use crate::collections::Collection;
use crate::collections::Descending;
use crate::collections::Filter;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::support::page::Page;

const COLUMNS: &str = "id, user_id, name, description, group_access, created_at, changed_at";

pub fn find(c: &Connection, id: i64) -> Result<Option<Collection>> {
    let mut found = c.prepare_cached(&format!("SELECT {COLUMNS} FROM collection WHERE id = ?1"))?;
    Ok(found.query_row([id], read).optional()?)
}

/// Those that a user sees, and how many there are.
pub fn search(c: &Connection, user: i64, filter: &Filter, page: Page) -> Result<(Vec<Collection>, u64)> {
    let mut order: Vec<String> = filter
        .sort
        .iter()
        .map(|(by, Descending(descending))| {
            let column = match by {
                By::Name => "name COLLATE NOCASE",
                By::Changed => "changed_at",
                By::GroupAccess => "group_access",
            };
            format!("{column} {}", if *descending { "DESC" } else { "ASC" })
        })
        .collect();
    if order.is_empty() {
        order.push("changed_at DESC".to_owned());
    }
    let pattern = filter.keyword.as_ref().map(|text| {
        let escaped: String =
            text.chars().flat_map(|c| if "%_\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect();
        format!("%{escaped}%")
    });
    let (from, to) = filter.changed;
    let found = "FROM collection WHERE (user_id = :user OR (group_access AND NOT :private)) \
         AND (NOT :private OR NOT group_access) \
         AND (:pattern IS NULL OR name LIKE :pattern ESCAPE '\\' OR description LIKE :pattern ESCAPE '\\') \
         AND (:from IS NULL OR changed_at >= :from) AND (:to IS NULL OR changed_at <= :to)";
    let total = c.prepare_cached(&format!("SELECT count(*) {found}"))?.query_row(
        named_params! { ":user": user, ":private": filter.private_only, ":pattern": pattern, ":from": from, ":to": to },
        |r| r.get::<_, i64>(0),
    )?;
    let mut rows = c.prepare_cached(&format!(
        "SELECT {COLUMNS} {found} ORDER BY {}, id DESC LIMIT :limit OFFSET :offset",
        order.join(", ")
    ))?;
    let found = rows
        .query_map(
            named_params! {
                ":user": user, ":private": filter.private_only, ":pattern": pattern, ":from": from, ":to": to,
                ":limit": page.limit, ":offset": page.offset,
            },
            read,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok((found, total as u64))
}

/// The assets of a collection, those in the trash included, in their order.
pub fn asset_ids(c: &Connection, id: i64) -> Result<Vec<AssetId>> {
    let mut rows =
        c.prepare_cached("SELECT asset_id FROM collection_asset WHERE collection_id = ?1 ORDER BY position")?;
    Ok(rows.query_map([id], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

pub fn insert(tx: &Tx, collection: &Collection) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO collection (user_id, name, description, group_access, created_at, changed_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
    )?
    .execute(params![
        collection.user_id,
        collection.name,
        collection.description,
        collection.group_access,
        tx.now()
    ])?;
    Ok(tx.last_insert_rowid())
}

pub fn update(tx: &Tx, collection: &Collection) -> Result<()> {
    tx.prepare_cached(
        "UPDATE collection SET name = ?2, description = ?3, group_access = ?4, changed_at = ?5 WHERE id = ?1",
    )?
    .execute(params![
        collection.id,
        collection.name,
        collection.description,
        collection.group_access,
        tx.now()
    ])?;
    Ok(())
}

pub fn delete(tx: &Tx, id: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM collection WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub fn set_assets(tx: &Tx, id: i64, assets: &[AssetId]) -> Result<()> {
    tx.prepare_cached("DELETE FROM collection_asset WHERE collection_id = ?1")?.execute([id])?;
    for (position, asset) in assets.iter().enumerate() {
        tx.prepare_cached("INSERT INTO collection_asset (collection_id, position, asset_id) VALUES (?1, ?2, ?3)")?
            .execute(params![id, position as i64, asset])?;
    }
    Ok(())
}

/// The CRC-32 of an original, if it is known, with the size it is of.
pub fn crc32(c: &Connection, id: AssetId, revision: u32) -> Result<Option<(u32, u64)>> {
    let mut row =
        c.prepare_cached("SELECT crc32, size_bytes FROM original_crc WHERE asset_id = ?1 AND revision = ?2")?;
    Ok(row.query_row(params![id, revision], |r| Ok((r.get(0)?, r.get::<_, i64>(1)? as u64))).optional()?)
}

/// Remembers a CRC-32; that of an asset that is gone meanwhile is not kept.
pub fn set_crc32(tx: &Tx, id: AssetId, revision: u32, crc32: u32, size_bytes: u64) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO original_crc (asset_id, revision, crc32, size_bytes) \
         SELECT id, ?2, ?3, ?4 FROM asset WHERE id = ?1",
    )?
    .execute(params![id, revision, crc32, size_bytes as i64])?;
    Ok(())
}

fn read(r: &Row<'_>) -> rusqlite::Result<Collection> {
    Ok(Collection {
        id: r.get(0)?,
        user_id: r.get(1)?,
        name: r.get(2)?,
        description: r.get(3)?,
        group_access: r.get(4)?,
        created_at: r.get(5)?,
        changed_at: r.get(6)?,
    })
}
