//! The tables `notice`, `delivery` and `attempt`.
//!
//! Invariant: what is recorded about an attempt names how many there were before it and touches
//! only a delivery that still waits with that number. So a result that comes late, after somebody
//! dropped or re-sent the delivery, changes nothing.

use std::time::Duration;

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::assets::AssetId;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Tx;
use crate::support::clock::Instant;
use crate::webhooks::model::Attempt;
use crate::webhooks::model::Delivery;
use crate::webhooks::model::DeliveryId;
use crate::webhooks::model::Due;
use crate::webhooks::model::Filter;
use crate::webhooks::model::State;

/// What the next deliveries of a URL are.
pub(super) struct Outlook {
    pub due: Vec<Due>,
    /// When the first that is not due comes.
    pub next_at: Option<Instant>,
    /// When the last does.
    pub last_at: Option<Instant>,
}

pub(super) fn add_notice(tx: &Tx, asset_id: Option<AssetId>, event: &str, body: &str) -> Result<i64> {
    tx.prepare_cached("INSERT INTO notice (asset_id, event, body, created_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![asset_id, event, body, tx.now()])?;
    Ok(tx.last_insert_rowid())
}

/// Owes a notice to a URL; `tries` are thought of as made already.
pub(super) fn add_delivery(tx: &Tx, notice: i64, event: &str, url: &str, tries: u32) -> Result<DeliveryId> {
    let id = DeliveryId::random()?;
    tx.prepare_cached(
        "INSERT INTO delivery (id, notice_id, event, url, state, tries, next_at)
         VALUES (?1, ?2, ?3, ?4, 'WAITING', ?5, ?6)",
    )?
    .execute(params![id, notice, event, url, tries, tx.now()])?;
    Ok(id)
}

/// Up to `limit` due deliveries of a URL, the longest due first, and what comes after them.
pub(super) fn outlook(c: &Conn, url: &str, now: Instant, limit: usize) -> Result<Outlook> {
    let mut rows = c.prepare_cached(
        "SELECT d.seq, d.id, n.asset_id, n.body, d.tries, d.attempts
           FROM delivery AS d JOIN notice AS n ON n.id = d.notice_id
          WHERE d.state = 'WAITING' AND d.url = ?1 AND d.next_at <= ?2
          ORDER BY d.next_at, d.seq LIMIT ?3",
    )?;
    let due = rows
        .query_map(params![url, now, limit as i64], |r| {
            Ok(Due {
                seq: r.get(0)?,
                id: r.get(1)?,
                asset_id: r.get(2)?,
                body: r.get(3)?,
                tries: r.get(4)?,
                attempts: r.get(5)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let next_at = c
        .prepare_cached("SELECT min(next_at) FROM delivery WHERE state = 'WAITING' AND url = ?1 AND next_at > ?2")?
        .query_row(params![url, now], |r| r.get(0))?;
    let last_at = c
        .prepare_cached("SELECT max(next_at) FROM delivery WHERE state = 'WAITING' AND url = ?1")?
        .query_row([url], |r| r.get(0))?;
    Ok(Outlook { due, next_at, last_at })
}

/// Brings deliveries that wait longer than any does to now: the clock was set back.
pub(super) fn pull_forward(tx: &Tx, url: &str, longest: Duration) -> Result<usize> {
    let mut pull =
        tx.prepare_cached("UPDATE delivery SET next_at = ?2 WHERE state = 'WAITING' AND url = ?1 AND next_at > ?3")?;
    Ok(pull.execute(params![url, tx.now(), tx.now().plus(longest)])?)
}

/// Records an attempt and where the delivery stands after it; false if it does not wait for that any more.
pub(super) fn record(tx: &Tx, due: &Due, attempt: &Attempt, state: State, next_at: Instant) -> Result<bool> {
    let finished_at = (state != State::Waiting).then_some(tx.now());
    let mut change = tx.prepare_cached(
        "UPDATE delivery SET state = ?3, tries = tries + 1, attempts = attempts + 1, next_at = ?4, finished_at = ?5
          WHERE seq = ?1 AND attempts = ?2 AND state = 'WAITING'",
    )?;
    if change.execute(params![due.seq, due.attempts, state, next_at, finished_at])? == 0 {
        return Ok(false);
    }
    tx.prepare_cached(
        "INSERT INTO attempt (delivery_seq, number, at, duration_ms, status, error, answer)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        due.seq,
        attempt.number,
        attempt.at,
        attempt.duration.as_millis() as i64,
        attempt.status,
        attempt.error,
        attempt.answer
    ])?;
    Ok(true)
}

/// Drops up to `limit` of what waits for a URL; how many.
pub(super) fn drop_waiting(tx: &Tx, url: &str, limit: u32) -> Result<usize> {
    let mut change = tx.prepare_cached(
        "UPDATE delivery SET state = 'DROPPED', finished_at = ?2
          WHERE seq IN (
              SELECT seq FROM delivery INDEXED BY delivery_waiting WHERE state = 'WAITING' AND url = ?1 LIMIT ?3)",
    )?;
    Ok(change.execute(params![url, tx.now(), limit])?)
}

/// The URLs for which something waits: one look at the index for each, however much it is.
pub(super) fn waited_for(c: &Conn) -> Result<Vec<String>> {
    let mut next = c.prepare_cached(
        "SELECT url FROM delivery INDEXED BY delivery_waiting WHERE state = 'WAITING' AND url > ?1 ORDER BY url LIMIT 1",
    )?;
    let mut urls: Vec<String> = Vec::new();
    loop {
        let last = urls.last().map_or("", String::as_str);
        match next.query_row([last], |r| r.get(0)).optional()? {
            Some(url) => urls.push(url),
            None => return Ok(urls),
        }
    }
}

/// Owes a delivery anew, with all its tries.
pub(super) fn begin_again(tx: &Tx, seq: i64) -> Result<()> {
    tx.prepare_cached(
        "UPDATE delivery SET state = 'WAITING', tries = 0, next_at = ?2, finished_at = NULL WHERE seq = ?1",
    )?
    .execute(params![seq, tx.now()])?;
    Ok(())
}

/// Deliveries, newest first.
pub(super) fn list(c: &Conn, filter: &Filter, limit: u32) -> Result<Vec<Delivery>> {
    let (query, values) = listing(filter);
    let mut find = c.prepare_cached(&query)?;
    let found = find.query_map(params_from_iter(values.into_iter().chain([limit.into()])), read)?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// The query for those that are wanted, and its parameters but for the last, how many.
pub(super) fn listing(filter: &Filter) -> (String, Vec<Value>) {
    let mut wanted: Vec<(&str, Value)> = Vec::new();
    if let Some(state) = filter.state {
        wanted.push(("d.state = ?", state.word().to_owned().into()));
    }
    if let Some(event) = &filter.event {
        wanted.push(("d.event = ?", event.clone().into()));
    }
    if let Some(url) = &filter.url {
        wanted.push(("d.url = ?", url.clone().into()));
    }
    if let Some(id) = filter.asset_id {
        wanted.push(("n.asset_id = ?", id.to_string().into()));
    }
    wanted.push(("d.seq < ?", filter.before.unwrap_or(i64::MAX).into()));
    let (conditions, values): (Vec<&str>, Vec<Value>) = wanted.into_iter().unzip();
    let conditions = conditions.join(" AND ");
    (format!("SELECT {COLUMNS} FROM {TABLES} WHERE {conditions} ORDER BY d.seq DESC LIMIT ?"), values)
}

/// A delivery and the body that it sends.
pub(super) fn find(c: &Conn, id: DeliveryId) -> Result<Option<(Delivery, String)>> {
    let mut find = c.prepare_cached(&format!("SELECT {COLUMNS}, n.body FROM {TABLES} WHERE d.id = ?1"))?;
    Ok(find.query_row([id], |r| Ok((read(r)?, r.get(16)?))).optional()?)
}

pub(super) fn attempts(c: &Conn, seq: i64) -> Result<Vec<Attempt>> {
    let mut rows = c.prepare_cached(
        "SELECT number, at, duration_ms, status, error, answer FROM attempt WHERE delivery_seq = ?1 ORDER BY number",
    )?;
    let found = rows.query_map([seq], |r| attempt(r, 0))?.collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

/// How many deliveries wait.
pub(super) fn waiting(c: &Conn) -> Result<u64> {
    let mut count = c.prepare_cached("SELECT count(*) FROM delivery WHERE state = 'WAITING'")?;
    Ok(count.query_row([], |r| r.get::<_, i64>(0))? as u64)
}

/// Forgets up to `limit` deliveries that ended before `before`, and the notices nobody needs then.
pub(super) fn prune(tx: &Tx, before: Instant, limit: u32) -> Result<usize> {
    let mut find = tx.prepare_cached("SELECT seq, notice_id FROM delivery WHERE finished_at < ?1 LIMIT ?2")?;
    let old: Vec<(i64, i64)> =
        find.query_map(params![before, limit], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    for (seq, notice) in &old {
        tx.prepare_cached("DELETE FROM delivery WHERE seq = ?1")?.execute([seq])?;
        tx.prepare_cached(
            "DELETE FROM notice WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE notice_id = ?1)",
        )?
        .execute([notice])?;
    }
    Ok(old.len())
}

const TABLES: &str = "delivery AS d JOIN notice AS n ON n.id = d.notice_id \
     LEFT JOIN attempt AS a ON a.delivery_seq = d.seq AND a.number = d.attempts";

const COLUMNS: &str = "d.seq, d.id, n.asset_id, d.event, d.url, d.state, d.attempts, d.next_at, d.finished_at, \
     a.number, a.at, a.duration_ms, a.status, a.error, a.answer, n.created_at";

fn read(r: &Row<'_>) -> rusqlite::Result<Delivery> {
    let state = r.get(5)?;
    Ok(Delivery {
        seq: r.get(0)?,
        id: r.get(1)?,
        asset_id: r.get(2)?,
        event: r.get(3)?,
        url: r.get(4)?,
        state,
        attempts: r.get(6)?,
        created_at: r.get(15)?,
        next_at: if state == State::Waiting { r.get(7)? } else { None },
        finished_at: r.get(8)?,
        last: r.get::<_, Option<u32>>(9)?.map(|_| attempt(r, 9)).transpose()?,
    })
}

fn attempt(r: &Row<'_>, first: usize) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        number: r.get(first)?,
        at: r.get(first + 1)?,
        duration: Duration::from_millis(r.get::<_, i64>(first + 2)? as u64),
        status: r.get(first + 3)?,
        error: r.get(first + 4)?,
        answer: r.get(first + 5)?,
    })
}
