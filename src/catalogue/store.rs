//! The tables `caption`, `tag`, `asset_tag`, `album` and `album_asset`, and the view `catalogue_entry`.

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::assets::AssetId;
use crate::assets::Full;
use crate::catalogue::model;
use crate::catalogue::model::Album;
use crate::catalogue::model::AlbumId;
use crate::catalogue::model::Caption;
use crate::catalogue::model::Cursor;
use crate::catalogue::model::Entry;
use crate::catalogue::model::Filter;
use crate::catalogue::model::From;
use crate::catalogue::model::Query;
use crate::catalogue::model::Tag;
use crate::catalogue::model::TagId;
use crate::catalogue::model::TagRef;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Tx;
use crate::support::page::Page;

const ALBUM: &str = "album.id, album.body, album.cover, album.created_at, album.changed_at";

/// What is known of an asset beside itself.
pub fn entry(c: &Conn, full: Full) -> Result<Entry> {
    let id = full.asset.id;
    let mut tags = c.prepare_cached(
        "SELECT tag.id, slug, body FROM asset_tag JOIN tag ON tag.id = tag_id WHERE asset_id = ?1 ORDER BY position",
    )?;
    let tags = tags
        .query_map([id], |r| Ok(Tag { id: r.get(0)?, slug: r.get(1)?, body: r.get(2)? }))?
        .collect::<rusqlite::Result<_>>()?;
    let mut albums = c.prepare_cached(&format!(
        "SELECT {ALBUM} FROM album_asset JOIN album ON album.id = album_id WHERE asset_id = ?1 ORDER BY album.seq"
    ))?;
    let albums = albums.query_map([id], read_album)?.collect::<rusqlite::Result<_>>()?;
    Ok(Entry { caption: caption(c, id)?, tags, albums, full })
}

/// What people call an asset; nothing, if nobody said.
pub fn caption(c: &Conn, id: AssetId) -> Result<Caption> {
    let mut row =
        c.prepare_cached("SELECT name, body, author, reference_id, announced FROM caption WHERE asset_id = ?1")?;
    let read = |r: &Row<'_>| {
        Ok(Caption {
            name: r.get(0)?,
            body: r.get(1)?,
            author: r.get(2)?,
            reference_id: r.get(3)?,
            announced: r.get(4)?,
        })
    };
    Ok(row.query_row([id], read).optional()?.unwrap_or_default())
}

pub fn put_caption(tx: &Tx, id: AssetId, caption: &Caption) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO caption (asset_id, name, body, author, reference_id, announced) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![id, caption.name, caption.body, caption.author, caption.reference_id, caption.announced])?;
    Ok(())
}

pub fn has_tag(c: &Conn, id: TagId) -> Result<bool> {
    Ok(c.prepare_cached("SELECT 1 FROM tag WHERE id = ?1")?.exists([id])?)
}

pub fn tag_by_slug(c: &Conn, slug: &str) -> Result<Option<TagId>> {
    Ok(c.prepare_cached("SELECT id FROM tag WHERE slug = ?1")?.query_row([slug], |r| r.get(0)).optional()?)
}

pub fn add_tag(tx: &Tx, slug: &str, body: &str) -> Result<TagId> {
    let id = TagId::random()?;
    tx.prepare_cached("INSERT INTO tag (id, slug, body, created_at) VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        id,
        slug,
        body,
        tx.now()
    ])?;
    Ok(id)
}

pub fn set_tags(tx: &Tx, id: AssetId, tags: &[TagId]) -> Result<()> {
    tx.prepare_cached("DELETE FROM asset_tag WHERE asset_id = ?1")?.execute([id])?;
    for (position, tag) in tags.iter().enumerate() {
        tx.prepare_cached("INSERT INTO asset_tag (asset_id, tag_id, position) VALUES (?1, ?2, ?3)")?
            .execute(params![id, tag, position as i64])?;
    }
    Ok(())
}

/// Puts an asset into these albums and no others.
pub fn set_albums(tx: &Tx, id: AssetId, albums: &[AlbumId]) -> Result<()> {
    tx.prepare_cached("DELETE FROM album_asset WHERE asset_id = ?1")?.execute([id])?;
    albums.iter().try_for_each(|album| put_into_album(tx, *album, id))
}

pub fn add_album(tx: &Tx, id: AlbumId, body: &str) -> Result<()> {
    tx.prepare_cached("INSERT INTO album (id, body, created_at, changed_at) VALUES (?1, ?2, ?3, ?3)")?
        .execute(params![id, body, tx.now()])?;
    Ok(())
}

pub fn album(c: &Conn, id: AlbumId) -> Result<Option<Album>> {
    let mut row = c.prepare_cached(&format!("SELECT {ALBUM} FROM album WHERE id = ?1"))?;
    Ok(row.query_row([id], read_album).optional()?)
}

pub fn albums(c: &Conn, page: Page) -> Result<(Vec<Album>, u64)> {
    let mut rows = c.prepare_cached(&format!("SELECT {ALBUM} FROM album ORDER BY seq DESC LIMIT ?1 OFFSET ?2"))?;
    let albums = rows.query_map([page.limit, page.offset], read_album)?.collect::<rusqlite::Result<_>>()?;
    let total: i64 = c.prepare_cached("SELECT count(*) FROM album")?.query_row([], |r| r.get(0))?;
    Ok((albums, total.cast_unsigned()))
}

pub fn set_album(tx: &Tx, id: AlbumId, body: &str) -> Result<()> {
    tx.prepare_cached("UPDATE album SET body = ?2, changed_at = ?3 WHERE id = ?1")?.execute(params![
        id,
        body,
        tx.now()
    ])?;
    Ok(())
}

pub fn set_cover(tx: &Tx, id: AlbumId, cover: AssetId) -> Result<()> {
    tx.prepare_cached("UPDATE album SET cover = ?2 WHERE id = ?1")?.execute(params![id, cover])?;
    Ok(())
}

pub fn touch_album(tx: &Tx, id: AlbumId) -> Result<()> {
    tx.prepare_cached("UPDATE album SET changed_at = ?2 WHERE id = ?1")?.execute(params![id, tx.now()])?;
    Ok(())
}

pub fn delete_album(tx: &Tx, id: AlbumId) -> Result<()> {
    tx.prepare_cached("DELETE FROM album WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub fn put_into_album(tx: &Tx, id: AlbumId, asset: AssetId) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO album_asset (album_id, asset_id) VALUES (?1, ?2)")?
        .execute(params![id, asset])?;
    Ok(())
}

pub fn take_from_album(tx: &Tx, id: AlbumId, asset: AssetId) -> Result<()> {
    tx.prepare_cached("DELETE FROM album_asset WHERE album_id = ?1 AND asset_id = ?2")?.execute(params![id, asset])?;
    Ok(())
}

/// The places of a page, in the order asked for, and whether there are more behind it.
pub fn list(c: &Conn, query: &Query) -> Result<(Vec<Cursor>, bool)> {
    let (mut conditions, mut values) = conditions(&query.filters);
    let column = if query.by_change { "e.changed_at" } else { "e.created_at" };
    let backward = matches!(query.from, From::Before(_));
    let descending = query.descending != backward;
    let mut skip = 0;
    match query.from {
        From::Skip(rows) => skip = rows,
        From::After(cursor) | From::Before(cursor) => {
            conditions.push(format!("({column}, e.seq) {} (?, ?)", if descending { "<" } else { ">" }));
            values.extend([Value::Integer(cursor.at.0), Value::Integer(cursor.seq)]);
        }
    }
    let direction = if descending { "DESC" } else { "ASC" };
    let mut rows = c.prepare_cached(&format!(
        "SELECT {column}, e.seq FROM catalogue_entry e {} ORDER BY {column} {direction}, e.seq {direction} LIMIT ? OFFSET ?",
        all_of(&conditions)
    ))?;
    values.extend([Value::Integer(i64::from(query.limit) + 1), Value::Integer(i64::from(skip))]);
    let mut found: Vec<Cursor> = rows
        .query_map(params_from_iter(values), |r| Ok(Cursor { at: r.get(0)?, seq: r.get(1)? }))?
        .collect::<rusqlite::Result<_>>()?;
    let more = found.len() > query.limit as usize;
    found.truncate(query.limit as usize);
    if backward {
        found.reverse();
    }
    Ok((found, more))
}

/// How many fit, on all pages.
pub fn count(c: &Conn, query: &Query) -> Result<u64> {
    let (conditions, values) = conditions(&query.filters);
    let mut count = c.prepare_cached(&format!("SELECT count(*) FROM catalogue_entry e {}", all_of(&conditions)))?;
    Ok(count.query_row(params_from_iter(values), |r| r.get::<_, i64>(0))?.cast_unsigned())
}

fn all_of(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) }
}

fn conditions(filters: &[Filter]) -> (Vec<String>, Vec<Value>) {
    const TEXT: &str = "e.file_name || ' ' || ifnull(e.name, '') || ' ' || ifnull(e.body, '') || ' ' || \
         ifnull(e.author, '') || ' ' || ifnull(e.reference_id, '') || ' ' || \
         ifnull((SELECT group_concat(tag.body, ' ') FROM asset_tag t JOIN tag ON tag.id = t.tag_id WHERE t.asset_id = e.id), '')";
    let (mut conditions, mut values) = (Vec::new(), Vec::new());
    let among = |count: usize| vec!["?"; count].join(", ");
    for filter in filters {
        match filter {
            Filter::Text(text) => {
                for word in text.split_whitespace() {
                    let plain = word.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
                    conditions.push(format!("({TEXT}) LIKE ? ESCAPE '\\'"));
                    values.push(Value::Text(format!("%{plain}%")));
                }
            }
            Filter::Kind(kinds) => {
                conditions.push(format!("e.kind IN ({})", among(kinds.len())));
                values.extend(kinds.iter().cloned().map(Value::Text));
            }
            Filter::NotKind(kinds) => {
                conditions.push(format!("e.kind NOT IN ({})", among(kinds.len())));
                values.extend(kinds.iter().cloned().map(Value::Text));
            }
            Filter::Tag(tags) => {
                let (mut ids, mut slugs) = (Vec::new(), Vec::new());
                for tag in tags {
                    match tag {
                        TagRef::Id(id) => ids.push(Value::Text(id.to_string())),
                        TagRef::Text(text) => slugs.push(Value::Text(model::slug(text))),
                    }
                }
                conditions.push(format!(
                    "e.id IN (SELECT asset_id FROM asset_tag JOIN tag ON tag.id = tag_id \
                     WHERE tag.id IN ({}) OR tag.slug IN ({}))",
                    among(ids.len()),
                    among(slugs.len())
                ));
                values.extend(ids.into_iter().chain(slugs));
            }
            Filter::Album(albums) => {
                conditions.push(format!(
                    "e.id IN (SELECT asset_id FROM album_asset WHERE album_id IN ({}))",
                    among(albums.len())
                ));
                values.extend(albums.iter().map(|album| Value::Text(album.to_string())));
            }
            Filter::Reference(references) => {
                conditions.push(format!(
                    "e.id IN (SELECT asset_id FROM caption WHERE reference_id IN ({}))",
                    among(references.len())
                ));
                values.extend(references.iter().cloned().map(Value::Text));
            }
            Filter::Nothing => conditions.push("0".to_owned()),
        }
    }
    (conditions, values)
}

fn read_album(r: &Row<'_>) -> rusqlite::Result<Album> {
    Ok(Album { id: r.get(0)?, body: r.get(1)?, cover: r.get(2)?, created_at: r.get(3)?, changed_at: r.get(4)? })
}
