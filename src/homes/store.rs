//! The tables `object` and `leftover`, and the tally of both, which triggers keep: however much is
//! in buckets, nothing that is asked while the box runs takes longer for it.

use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::named_params;
use rusqlite::params;

use crate::assets::AssetId;
use crate::error::Result;
use crate::homes::model::Copy;
use crate::homes::model::Home;
use crate::homes::model::Leftover;
use crate::homes::model::Object;
use crate::homes::model::Tally;
use crate::infra::db::Tx;
use crate::infra::storage::Backend;
use crate::support::clock::Instant;

const COLUMNS: &str =
    "asset_id, revision, size_bytes, sha256, home, bucket, goal, goal_bucket, here, tries, held, turn";

/// Longer than any move takes: until then, what is being sent somewhere may still arrive there.
const LONGEST_MOVE: Duration = Duration::from_hours(24);

/// Where a copy stands in the order of their age.
pub type CopyAt = (Instant, AssetId, u32);

/// Puts an original on record that is on this disk and is to go elsewhere: brought there by the command line,
/// if `by_hand`, or by the server.
pub fn owe(
    tx: &Tx,
    (id, revision): (AssetId, u32),
    size_bytes: u64,
    sha256: &str,
    goal: &Home,
    by_hand: bool,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO object (asset_id, revision, size_bytes, sha256, home, bucket, goal, goal_bucket, by_hand, here, since, \
                             next_at) \
         VALUES (?1, ?2, ?3, ?4, 'fs', '', ?5, ?6, ?7, 1, ?8, ?8)",
    )?
    .execute(params![id, revision, size_bytes as i64, sha256, goal.backend, goal.bucket, by_hand, tx.now()])?;
    Ok(())
}

pub fn find(c: &Connection, id: AssetId, revision: u32) -> Result<Option<Object>> {
    let mut row = c.prepare_cached(&format!("SELECT {COLUMNS} FROM object WHERE asset_id = ?1 AND revision = ?2"))?;
    Ok(row.query_row(params![id, revision], read).optional()?)
}

/// What [`claim`] would take.
pub fn first_due(tx: &Tx, by_hand: bool) -> Result<Option<Object>> {
    let mut row = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM object INDEXED BY object_goal \
          WHERE goal IS NOT NULL AND by_hand = :by_hand AND held = 0 AND next_at <= :now ORDER BY next_at LIMIT 1"
    ))?;
    Ok(row.query_row(named_params! { ":by_hand": by_hand, ":now": tx.now() }, read).optional()?)
}

/// Takes the next that waits to be moved; it is held until it was moved or put off.
pub fn claim(tx: &Tx, by_hand: bool) -> Result<Option<Object>> {
    let mut row = tx.prepare_cached(&format!(
        "UPDATE object SET held = 1, turn = random(), tries = tries + 1 WHERE (asset_id, revision) = ( \
             SELECT asset_id, revision FROM object INDEXED BY object_goal \
              WHERE goal IS NOT NULL AND by_hand = :by_hand AND held = 0 AND next_at <= :now ORDER BY next_at LIMIT 1) \
         RETURNING {COLUMNS}"
    ))?;
    Ok(row.query_row(named_params! { ":by_hand": by_hand, ":now": tx.now() }, read).optional()?)
}

/// When the next is due.
pub fn next_due(c: &Connection, by_hand: bool) -> Result<Option<Instant>> {
    let mut row = c.prepare_cached(
        "SELECT next_at FROM object INDEXED BY object_goal \
          WHERE goal IS NOT NULL AND by_hand = ?1 AND held = 0 ORDER BY next_at LIMIT 1",
    )?;
    Ok(row.query_row([by_hand], |r| r.get(0)).optional()?)
}

/// Those that were held when their mover ended.
pub fn let_go(tx: &Tx, by_hand: bool) -> Result<()> {
    tx.prepare_cached(
        "UPDATE object INDEXED BY object_goal SET held = 0, turn = random(), next_at = ?2 \
          WHERE goal IS NOT NULL AND by_hand = ?1 AND held > 0",
    )?
    .execute(params![by_hand, tx.now()])?;
    Ok(())
}

/// Brings those that wait to now, so many at most. How many.
pub fn hasten(tx: &Tx, by_hand: bool, limit: u32) -> Result<u32> {
    let changed = tx
        .prepare_cached(
            "UPDATE object SET next_at = :now WHERE (asset_id, revision) IN ( \
                 SELECT asset_id, revision FROM object INDEXED BY object_goal \
                  WHERE goal IS NOT NULL AND by_hand = :by_hand AND held = 0 AND next_at > :now LIMIT :limit)",
        )?
        .execute(named_params! { ":by_hand": by_hand, ":now": tx.now(), ":limit": limit })?;
    Ok(changed as u32)
}

/// It could not be moved now.
pub fn put_off(tx: &Tx, object: &Object, wait: Duration, error: &str) -> Result<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE object SET held = 0, next_at = ?4, error = ?5 \
              WHERE asset_id = ?1 AND revision = ?2 AND turn = ?3 AND goal IS NOT NULL",
        )?
        .execute(params![object.id, object.revision, object.turn, tx.now().plus(wait), error])?;
    if changed == 0 { overtaken(tx, object) } else { Ok(()) }
}

/// Whoever moved it was overtaken: what they may have brought to its goal is of no use, unless it
/// came there otherwise, too. From now on nothing arrives there by them any more.
pub fn overtaken(tx: &Tx, object: &Object) -> Result<()> {
    let Some(goal) = &object.goal else { return Ok(()) };
    if find(tx, object.id, object.revision)?.is_some_and(|now| now.home == *goal) {
        return Ok(());
    }
    let at = (object.id, object.revision);
    leave_no_more(tx, goal, at)?;
    leave(tx, goal, at, Duration::ZERO)
}

/// It is at its goal, if it is still for whoever says so to bring it there, and has not been removed
/// there meanwhile.
pub fn arrived(tx: &Tx, object: &Object, here: Copy) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE object SET home = goal, bucket = goal_bucket, goal = NULL, goal_bucket = '', by_hand = 0, held = 0, \
                    tries = 0, error = NULL, here = :here, since = :now \
              WHERE asset_id = :id AND revision = :revision AND turn = :turn AND held = 1 AND goal IS NOT NULL",
        )?
        .execute(named_params! {
            ":id": object.id, ":revision": object.revision, ":turn": object.turn, ":here": here as i64, ":now": tx.now(),
        })?;
    Ok(changed == 1)
}

/// Takes an original off the record, and owes its removal from where it was, and from where it was
/// going. False when it was not on record.
pub fn forget(tx: &Tx, id: AssetId, revision: u32) -> Result<bool> {
    let Some(object) = find(tx, id, revision)? else { return Ok(false) };
    tx.prepare_cached("DELETE FROM object WHERE asset_id = ?1 AND revision = ?2")?.execute(params![id, revision])?;
    leave(tx, &object.home, (id, revision), Duration::ZERO)?;
    if let Some(goal) = &object.goal {
        leave(tx, goal, (id, revision), Duration::ZERO)?;
        leave_once_sent(tx, &object, goal)?;
    }
    Ok(true)
}

/// A copy comes to this disk now. False when the original is gone, or needs none.
pub fn copied(tx: &Tx, id: AssetId, revision: u32) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE object SET here = max(here, 1), since = ?3 WHERE asset_id = ?1 AND revision = ?2 AND home <> 'fs'",
        )?
        .execute(params![id, revision, tx.now()])?;
    Ok(changed == 1)
}

/// Bytes of copies of what lies in buckets.
pub fn copies_bytes(c: &Connection) -> Result<u64> {
    let mut sum =
        c.prepare_cached("SELECT coalesce(sum(bytes), 0) FROM object_tally WHERE here = 1 AND home <> 'fs'")?;
    Ok(sum.query_row([], |r| r.get::<_, i64>(0))? as u64)
}

/// The oldest copies that may go, after one of them.
pub fn oldest_copies(c: &Connection, after: Option<&CopyAt>, limit: u32) -> Result<Vec<(CopyAt, Object)>> {
    let mut rows = c.prepare_cached(&format!(
        "SELECT {COLUMNS}, since FROM object INDEXED BY object_copy \
          WHERE here = 1 AND home <> 'fs' AND goal IS NULL AND (since, asset_id, revision) > (?1, ?2, ?3) \
          ORDER BY since, asset_id, revision LIMIT ?4"
    ))?;
    let (since, id, revision) = after
        .map_or((Instant(i64::MIN), String::new(), 0), |(since, id, revision)| (*since, id.to_string(), *revision));
    let found = rows.query_map(params![since, id, revision, limit], |r| {
        let object = read(r)?;
        Ok(((r.get(12)?, object.id, object.revision), object))
    })?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// Records that a copy goes. False when it has become more than a copy.
pub fn drop_copy(tx: &Tx, object: &Object) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE object SET here = 0 WHERE asset_id = ?1 AND revision = ?2 AND here = 1 AND home <> 'fs' AND goal IS NULL",
        )?
        .execute(params![object.id, object.revision])?;
    Ok(changed == 1)
}

/// The next originals on record by the order of their names, and whether each is bound for elsewhere, or for
/// there by another kind.
pub fn page(
    c: &Connection,
    goal: &Home,
    after: Option<(AssetId, u32)>,
    limit: u32,
) -> Result<Vec<(AssetId, u32, bool)>> {
    let mut rows = c.prepare_cached(
        "SELECT asset_id, revision, (coalesce(goal, home), iif(goal IS NULL, bucket, goal_bucket)) <> (:goal, :bucket) \
           FROM object WHERE (asset_id, revision) > (:id, :revision) ORDER BY asset_id, revision LIMIT :limit",
    )?;
    let (id, revision) = after.map_or_else(|| (String::new(), 0), |(id, revision)| (id.to_string(), revision));
    let found = rows
        .query_map(
            named_params! {
                ":goal": goal.backend, ":bucket": goal.bucket, ":id": id, ":revision": revision, ":limit": limit,
            },
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

/// Gives an original that goal, or takes the one that it has from it when it is there already. Whoever
/// is moving it elsewhere is overtaken, and what may have come there is owed to be removed. Whether it
/// lies there.
pub fn send(tx: &Tx, goal: &Home, by_hand: bool, id: AssetId, revision: u32) -> Result<bool> {
    let Some(object) = find(tx, id, revision)? else { return Ok(false) };
    let is_there = object.home == *goal;
    // Whatever becomes of it: what is known by this name is of this kind.
    tx.prepare_cached(
        "UPDATE object SET home = iif(bucket = :bucket, :kind, home), \
                goal = iif(goal IS NOT NULL AND goal_bucket = :bucket, :kind, goal) \
          WHERE asset_id = :id AND revision = :revision",
    )?
    .execute(named_params! { ":bucket": goal.bucket, ":kind": goal.backend, ":id": id, ":revision": revision })?;
    if object.goal.as_ref().unwrap_or(&object.home) == goal {
        return Ok(is_there);
    }
    if let Some(old) = object.goal.as_ref().filter(|_| object.tries > 0) {
        leave(tx, old, (id, revision), Duration::ZERO)?;
        leave_once_sent(tx, &object, old)?;
    }
    let elsewhere = Some(goal).filter(|_| !is_there);
    tx.prepare_cached(
        "UPDATE object SET goal = :goal, goal_bucket = :bucket, by_hand = :by_hand, held = 0, turn = random(), tries = 0, \
                error = NULL, next_at = :now \
          WHERE asset_id = :id AND revision = :revision",
    )?
    .execute(named_params! {
        ":goal": elsewhere.map(|goal| goal.backend), ":bucket": elsewhere.map_or("", |goal| &*goal.bucket),
        ":by_hand": by_hand && !is_there, ":now": tx.now(), ":id": id, ":revision": revision,
    })?;
    settle(tx, id, revision)?;
    Ok(is_there)
}

/// An original that is on this disk and stays there needs no row.
pub fn settle(tx: &Tx, id: AssetId, revision: u32) -> Result<()> {
    tx.prepare_cached("DELETE FROM object WHERE asset_id = ?1 AND revision = ?2 AND home = 'fs' AND goal IS NULL")?
        .execute(params![id, revision])?;
    Ok(())
}

/// What the command line is to move: originals and bytes.
pub fn planned(c: &Connection) -> Result<(u64, u64)> {
    tally_of(c, &["by_hand"])
}

/// Whether an original has a row.
pub fn is_known(c: &Connection, id: AssetId, revision: u32) -> Result<bool> {
    let mut found = c.prepare_cached("SELECT 1 FROM object WHERE asset_id = ?1 AND revision = ?2")?;
    Ok(found.exists(params![id, revision])?)
}

/// Owes the removal of an original from a bucket.
pub fn leave(tx: &Tx, home: &Home, (id, revision): (AssetId, u32), wait: Duration) -> Result<()> {
    if home.backend == Backend::Fs {
        return Ok(());
    }
    tx.prepare_cached("INSERT INTO leftover (home, bucket, asset_id, revision, next_at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![home.backend, home.bucket, id, revision, tx.now().plus(wait)])?;
    Ok(())
}

/// The same for what a mover is just sending, so that it is removed even if the process ends after it
/// arrived and before the mover could say so. The mover, if it lives, has it removed at once.
fn leave_once_sent(tx: &Tx, object: &Object, goal: &Home) -> Result<()> {
    if object.held { leave(tx, goal, (object.id, object.revision), LONGEST_MOVE) } else { Ok(()) }
}

/// Nothing is owed there of an original.
pub fn leave_no_more(tx: &Tx, home: &Home, (id, revision): (AssetId, u32)) -> Result<()> {
    tx.prepare_cached("DELETE FROM leftover WHERE asset_id = ?1 AND revision = ?2 AND bucket = ?3")?
        .execute(params![id, revision, home.bucket])?;
    Ok(())
}

/// Whether an original is still to be removed there.
pub fn is_left(c: &Connection, home: &Home, id: AssetId, revision: u32) -> Result<bool> {
    let mut found = c.prepare_cached("SELECT 1 FROM leftover WHERE asset_id = ?1 AND revision = ?2 AND bucket = ?3")?;
    Ok(found.exists(params![id, revision, home.bucket])?)
}

/// Takes the next that has to be removed from a bucket by now. For so long nobody else takes it: a removal
/// that comes late would be one of what was sent there since.
pub fn take_leftover(tx: &Tx, bucket: &str, lease: Duration) -> Result<Option<Leftover>> {
    let mut row = tx.prepare_cached(
        "UPDATE leftover SET next_at = ?3 WHERE id = ( \
             SELECT id FROM leftover INDEXED BY leftover_due WHERE bucket = ?1 AND next_at <= ?2 ORDER BY next_at LIMIT 1) \
         RETURNING id, home, bucket, asset_id, revision",
    )?;
    let left = row.query_row(params![bucket, tx.now(), tx.now().plus(lease)], |r| {
        Ok(Leftover {
            id: r.get(0)?,
            home: Home { backend: r.get(1)?, bucket: r.get(2)? },
            asset_id: r.get(3)?,
            revision: r.get(4)?,
        })
    });
    Ok(left.optional()?)
}

/// It is gone; or stays for a while, if `wait` is given. Whoever is sending it there again, and began
/// before this was owed, does so in vain: it may be what was removed.
pub fn cleared(tx: &Tx, left: &Leftover, wait: Option<Duration>) -> Result<()> {
    if let Some(wait) = wait {
        tx.prepare_cached("UPDATE leftover SET next_at = ?2 WHERE id = ?1")?
            .execute(params![left.id, tx.now().plus(wait)])?;
        return Ok(());
    }
    tx.prepare_cached("DELETE FROM leftover WHERE id = ?1")?.execute([left.id])?;
    tx.prepare_cached(
        "UPDATE object SET held = 2 \
          WHERE asset_id = ?1 AND revision = ?2 AND held = 1 AND goal IS NOT NULL AND goal_bucket = ?3",
    )?
    .execute(params![left.asset_id, left.revision, left.home.bucket])?;
    Ok(())
}

/// Brings removals from a bucket that are due later than that from now to then, so many at most. How many.
pub fn hasten_leftovers(tx: &Tx, bucket: &str, wait: Duration, limit: u32) -> Result<u32> {
    let changed = tx
        .prepare_cached(
            "UPDATE leftover SET next_at = ?2 WHERE id IN ( \
                 SELECT id FROM leftover INDEXED BY leftover_due WHERE bucket = ?1 AND next_at > ?2 LIMIT ?3)",
        )?
        .execute(params![bucket, tx.now().plus(wait), limit])?;
    Ok(changed as u32)
}

/// How many removals are owed.
pub fn count_leftovers(c: &Connection) -> Result<u64> {
    Ok(tally_of(c, &["left"])?.0)
}

/// When the first of what is to be removed from a bucket is due.
pub fn next_leftover(c: &Connection, bucket: &str) -> Result<Option<Instant>> {
    let mut row = c.prepare_cached(
        "SELECT next_at FROM leftover INDEXED BY leftover_due WHERE bucket = ?1 ORDER BY next_at LIMIT 1",
    )?;
    Ok(row.query_row([bucket], |r| r.get(0)).optional()?)
}

/// What waits to be moved: originals and bytes.
pub fn waiting(c: &Connection) -> Result<(u64, u64)> {
    tally_of(c, &["waits", "by_hand"])
}

/// What lies in each home, as far as it is on record: the rest is on this disk.
pub fn tallies(c: &Connection) -> Result<Vec<Tally>> {
    let mut rows = c.prepare_cached(
        "SELECT home, bucket, sum(objects), sum(bytes), sum(iif(what = 'stays', 0, objects)) \
         FROM object_tally WHERE what <> 'left' GROUP BY home, bucket HAVING sum(objects) > 0 ORDER BY home, bucket",
    )?;
    let found = rows
        .query_map([], |r| {
            Ok(Tally {
                home: Home { backend: r.get(0)?, bucket: r.get(1)? },
                objects: r.get::<_, i64>(2)? as u64,
                bytes: r.get::<_, i64>(3)? as u64,
                waiting: r.get::<_, i64>(4)? as u64,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

/// The latest failures that still hold something up.
pub fn failures(c: &Connection, limit: u32) -> Result<Vec<(AssetId, String)>> {
    let mut rows = c.prepare_cached(
        "SELECT asset_id, error FROM object INDEXED BY object_failed \
          WHERE goal IS NOT NULL AND error IS NOT NULL ORDER BY next_at DESC LIMIT ?1",
    )?;
    Ok(rows.query_map([limit], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?)
}

/// Objects of some sorts, and their bytes.
fn tally_of(c: &Connection, sorts: &[&str]) -> Result<(u64, u64)> {
    let mut rows = c.prepare_cached("SELECT what, objects, bytes FROM object_tally")?;
    let (mut objects, mut bytes) = (0, 0);
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        if sorts.contains(&row.get_ref(0)?.as_str().unwrap_or_default()) {
            objects += row.get::<_, i64>(1)?;
            bytes += row.get::<_, i64>(2)?;
        }
    }
    Ok((objects as u64, bytes as u64))
}

fn read(r: &Row<'_>) -> rusqlite::Result<Object> {
    let goal: Option<Backend> = r.get(6)?;
    let goal_bucket: String = r.get(7)?;
    Ok(Object {
        id: r.get(0)?,
        revision: r.get(1)?,
        size_bytes: r.get::<_, i64>(2)? as u64,
        sha256: r.get(3)?,
        home: Home { backend: r.get(4)?, bucket: r.get(5)? },
        goal: goal.map(|backend| Home { backend, bucket: goal_bucket }),
        here: match r.get::<_, i64>(8)? {
            0 => Copy::None,
            1 => Copy::MayGo,
            _ => Copy::Stays,
        },
        tries: r.get(9)?,
        held: r.get::<_, i64>(10)? != 0,
        turn: r.get(11)?,
    })
}
