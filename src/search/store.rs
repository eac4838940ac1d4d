//! The tables `search_text`, `search_number` and `search`, and how they are walked.
//!
//! Of all that is asked, one thing is walked (the [`Driver`]) and the rest is looked up for each
//! entry met. A range that holds few assets is walked whatever else is asked: it is short. Else
//! the words are, newest first, and their end need not be reached. Every statement that comes
//! out of here names the index it uses, so no statistics can talk SQLite into a scan.
//!
//! A key is an asset's seq; below zero it is in the trash (`schema.sql`).

use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::assets;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::types::Json;
use crate::search::Asked;
use crate::search::By;
use crate::search::SearchId;
use crate::search::Sort;
use crate::search::plan::Numbers;
use crate::search::plan::Plan;

/// Assets in a range that is walked from end to end.
const FEW: usize = 5_000;

/// What is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The trash, all of it.
    Trash,
    /// The full-text index, newest first.
    Text,
    /// A range that holds few.
    FewUploaded,
    FewSized,
    FewNumbers(usize),
    /// The numbers, newest asset first.
    Numbers(usize),
    /// A span of time, its latest first.
    Uploaded,
    /// Everything, by size.
    Sizes {
        descending: bool,
    },
    /// Everything, newest first.
    Rows,
}

/// Chooses what to walk.
pub fn driver(c: &Connection, plan: &Plan) -> Result<Driver> {
    if plan.trashed {
        return Ok(Driver::Trash);
    }
    if plan.is_open()
        && let [Sort { by: By::Size, descending }] = plan.sort[..]
    {
        return Ok(Driver::Sizes { descending });
    }
    let mut few = None;
    let mut offer = |count: usize, driver: Driver| {
        if count <= FEW && few.is_none_or(|(least, _)| count < least) {
            few = Some((count, driver));
        }
    };
    if plan.uploaded.is_some() {
        offer(count_uploaded(c, plan, FEW + 1)?, Driver::FewUploaded);
    }
    if plan.size.is_some() {
        offer(count_sized(c, plan, FEW + 1)?, Driver::FewSized);
    }
    for (n, numbers) in plan.numbers.iter().enumerate() {
        offer(count_numbers(c, numbers, FEW + 1)?, Driver::FewNumbers(n));
    }
    if let Some((_, driver)) = few {
        return Ok(driver);
    }
    Ok(match plan {
        Plan { text: Some(_), .. } => Driver::Text,
        Plan { numbers, .. } if !numbers.is_empty() => Driver::Numbers(0),
        Plan { uploaded: Some(_), .. } => Driver::Uploaded,
        _ => Driver::Rows,
    })
}

/// The next hits after those that are known.
pub fn next(c: &Connection, plan: &Plan, driver: Driver, known: &[i64], limit: usize) -> Result<Vec<i64>> {
    let (sql, values) = statement(plan, driver, known, limit);
    let mut rows = c.prepare_cached(&sql)?;
    Ok(rows.query_map(params_from_iter(values), |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// A number that hits do not exceed, found without looking for them all: what each part of the
/// plan finds alone, as far as it is counted within `patience`.
pub fn at_most(c: &Connection, plan: &Plan, reach: usize, patience: Duration) -> Result<usize> {
    let mut least = reach;
    if plan.is_open() && !plan.trashed {
        least = least.min(assets::store::count(c)? as usize);
    }
    if let Some(text) = &plan.text {
        let mut rows = c.prepare_cached(
            "SELECT rowid FROM search_text WHERE search_text MATCH ?1 AND rowid > 0 ORDER BY rowid DESC LIMIT ?2",
        )?;
        let mut rows = rows.query(params![text, reach as i64])?;
        let (began, mut count) = (Instant::now(), 0);
        while rows.next()?.is_some() && began.elapsed() < patience {
            count += 1;
        }
        if began.elapsed() < patience {
            least = least.min(count);
        }
    }
    if plan.uploaded.is_some() {
        least = least.min(count_uploaded(c, plan, reach)?);
    }
    if plan.size.is_some() {
        least = least.min(count_sized(c, plan, reach)?);
    }
    for numbers in &plan.numbers {
        least = least.min(count_numbers(c, numbers, reach)?);
    }
    Ok(least)
}

/// Puts hits into the order that is asked for; those that are equal stay newest first.
pub fn sort(c: &Connection, plan: &Plan, keys: &mut Vec<i64>) -> Result<()> {
    let columns: Vec<String> = plan
        .sort
        .iter()
        .filter_map(|sort| {
            let column = match sort.by {
                By::Uploaded => "uploaded_at",
                By::Size => "size_bytes",
                By::ContentType => "content_type",
                By::Relevance => return None,
            };
            Some(format!("{column} {}", if sort.descending { "DESC" } else { "ASC" }))
        })
        .collect();
    if columns.is_empty() {
        return Ok(());
    }
    let mut rows = c.prepare_cached(&format!(
        "SELECT h.value FROM json_each(?1) h CROSS JOIN asset ON asset.seq = abs(h.value) \
         ORDER BY {}, asset.seq DESC",
        columns.join(", ")
    ))?;
    *keys = rows.query_map([Json(&*keys)], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(())
}

/// The texts in which a keyword is sought: an asset's name, and the rest.
pub fn texts(c: &Connection, key: i64) -> Result<Option<(String, String)>> {
    let mut row = c.prepare_cached("SELECT name, coalesce(words, '') FROM search_entry WHERE seq = abs(?1)")?;
    Ok(row.query_row([key], |r| Ok((r.get(0)?, r.get(1)?))).optional()?)
}

/// Writes a search down and lets go of all but the newest.
pub fn keep(tx: &Tx, id: SearchId, asked: &Asked, most: i64) -> Result<()> {
    tx.prepare_cached("INSERT INTO search (id, asked, created_at) VALUES (?1, ?2, ?3)")?.execute(params![
        id,
        Json(asked),
        tx.now()
    ])?;
    let number = tx.last_insert_rowid();
    tx.prepare_cached("DELETE FROM search WHERE number <= ?1")?.execute([number - most])?;
    Ok(())
}

pub fn asked(c: &Connection, id: SearchId) -> Result<Option<Asked>> {
    let mut row = c.prepare_cached("SELECT asked FROM search WHERE id = ?1")?;
    Ok(row.query_row([id], |r| r.get::<_, Json<Asked>>(0)).optional()?.map(|asked| asked.0))
}

fn count_uploaded(c: &Connection, plan: &Plan, most: usize) -> Result<usize> {
    let (from, to) = plan.uploaded.unwrap_or((i64::MIN, i64::MAX));
    let mut count = c.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM asset INDEXED BY asset_uploaded WHERE uploaded_at BETWEEN ?1 AND ?2 LIMIT ?3)",
    )?;
    Ok(count.query_row(params![from, to, most as i64], |r| r.get::<_, i64>(0))? as usize)
}

fn count_sized(c: &Connection, plan: &Plan, most: usize) -> Result<usize> {
    let (from, to) = plan.size.unwrap_or((0, i64::MAX));
    let mut count = c.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM asset INDEXED BY asset_size WHERE size_bytes BETWEEN ?1 AND ?2 LIMIT ?3)",
    )?;
    Ok(count.query_row(params![from, to, most as i64], |r| r.get::<_, i64>(0))? as usize)
}

fn count_numbers(c: &Connection, numbers: &Numbers, most: usize) -> Result<usize> {
    let mut count = c.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM search_number WHERE field_id = ?1 AND value BETWEEN ?2 AND ?3 LIMIT ?4)",
    )?;
    let mut sum = 0;
    for (from, to) in &numbers.ranges {
        sum += count.query_row(params![numbers.field_id, from, to, most as i64], |r| r.get::<_, i64>(0))? as usize;
    }
    Ok(sum.min(most))
}

/// A statement being written.
#[derive(Default)]
struct Sql {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Sql {
    fn value(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    fn that(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    fn between(&mut self, column: &str, from: i64, to: i64) {
        let (from, to) = (self.value(from), self.value(to));
        self.that(format!("{column} BETWEEN {from} AND {to}"));
    }

    fn ranges(&mut self, column: &str, numbers: &Numbers) -> String {
        let ranges: Vec<String> = numbers
            .ranges
            .iter()
            .map(|(from, to)| {
                let (from, to) = (self.value(*from), self.value(*to));
                format!("{column} BETWEEN {from} AND {to}")
            })
            .collect();
        format!("({})", ranges.join(" OR "))
    }
}

impl Driver {
    /// Walking by seq, the last hit says where to go on; in any other order, their number does.
    fn is_by_seq(self) -> bool {
        !matches!(self, Driver::Uploaded | Driver::Sizes { .. } | Driver::Trash)
    }

    /// What is walked holds few, so it is walked whole and sorted.
    fn is_few(self) -> bool {
        matches!(self, Driver::FewNumbers(_) | Driver::FewUploaded | Driver::FewSized)
    }

    /// An index of `asset` is walked, not one of the search's own.
    fn walks_assets(self) -> bool {
        !matches!(self, Driver::Text | Driver::Numbers(_) | Driver::FewNumbers(_))
    }

    fn walks_numbers(self, n: usize) -> bool {
        matches!(self, Driver::Numbers(walked) | Driver::FewNumbers(walked) if walked == n)
    }

    /// The key of what is met, what it is read from and in which order; says in `sql` what the index is asked.
    fn walks(self, plan: &Plan, sql: &mut Sql) -> (&'static str, String, String) {
        let way = if plan.oldest_first() { "ASC" } else { "DESC" };
        let looks_at_asset = plan.uploaded.is_some() || plan.size.is_some();
        let asset =
            |key: &str| if looks_at_asset { format!(" CROSS JOIN asset ON asset.seq = {key}") } else { String::new() };
        // A plus keeps a condition from being what an index is chosen for.
        let (index, order) = match self {
            Driver::Text => {
                let text = sql.value(plan.text.clone().unwrap_or_default());
                sql.that(format!("search_text MATCH {text} AND search_text.rowid > 0"));
                let key = "search_text.rowid";
                return (key, format!("search_text{}", asset(key)), format!("{key} {way}"));
            }
            Driver::Numbers(n) | Driver::FewNumbers(n) => {
                if let Some(numbers) = plan.numbers.get(n) {
                    let field = sql.value(numbers.field_id);
                    let ranges = sql.ranges("n.value", numbers);
                    sql.that(format!("n.key > 0 AND n.field_id = {field} AND {ranges}"));
                }
                let (index, plus) = if self.is_few() { ("", "+") } else { (" INDEXED BY search_number_key", "") };
                return ("n.key", format!("search_number n{index}{}", asset("n.key")), format!("{plus}n.key {way}"));
            }
            Driver::Uploaded => ("asset_uploaded", format!("asset.uploaded_at {way}, asset.seq {way}")),
            Driver::FewUploaded => ("asset_uploaded", format!("+asset.seq {way}")),
            Driver::FewSized => ("asset_size", format!("+asset.seq {way}")),
            Driver::Sizes { descending } => {
                let way = if descending { "DESC" } else { "ASC" };
                ("asset_size", format!("asset.size_bytes {way}, asset.seq {way}"))
            }
            Driver::Trash => ("asset_trashed", format!("+asset.seq {way}")),
            Driver::Rows => ("asset_listed", format!("asset.seq {way}")),
        };
        ("asset.seq", format!("asset INDEXED BY {index}"), order)
    }
}

/// The statement that walks, and its values.
pub fn statement(plan: &Plan, driver: Driver, known: &[i64], limit: usize) -> (String, Vec<Value>) {
    let mut sql = Sql::default();
    let rises = plan.oldest_first();
    let last = known.last().copied().filter(|_| driver.is_by_seq());
    let before = last.filter(|_| !rises).unwrap_or(plan.newest.saturating_add(1));
    let (key, from, order) = driver.walks(plan, &mut sql);
    let bound = sql.value(before);
    let plus = if driver.is_by_seq() && !driver.is_few() { "" } else { "+" };
    sql.that(format!("{plus}{key} < {bound}"));
    if let Some(last) = last.filter(|_| rises) {
        let last = sql.value(last);
        sql.that(format!("{plus}{key} > {last}"));
    }

    if driver == Driver::Trash {
        sql.that("asset.trashed_at IS NOT NULL".to_owned());
    } else if driver.walks_assets() {
        sql.that("asset.trashed_at IS NULL".to_owned());
    }
    if let Driver::Sizes { .. } = driver {
        sql.that("asset.size_bytes >= 0".to_owned());
    }
    if let Some((from, to)) = plan.uploaded {
        sql.between("asset.uploaded_at", from, to);
    }
    if let Some((from, to)) = plan.size {
        sql.between("asset.size_bytes", from, to);
    }
    // The key of the index entries.
    let entry = if driver == Driver::Trash { "-asset.seq" } else { key };
    if driver != Driver::Text
        && let Some(text) = &plan.text
    {
        let text = sql.value(text.clone());
        sql.that(format!(
            "EXISTS (SELECT 1 FROM search_text t WHERE t.search_text MATCH {text} AND t.rowid = {entry})"
        ));
    }
    for (n, numbers) in plan.numbers.iter().enumerate() {
        if driver.walks_numbers(n) {
            continue;
        }
        let field = sql.value(numbers.field_id);
        let ranges = sql.ranges("o.value", numbers);
        sql.that(format!(
            "EXISTS (SELECT 1 FROM search_number o INDEXED BY search_number_key \
             WHERE o.key = {entry} AND o.field_id = {field} AND {ranges})"
        ));
    }
    let limit = sql.value(limit as i64);
    let offset = if driver.is_by_seq() { String::new() } else { format!(" OFFSET {}", sql.value(known.len() as i64)) };
    let key = if driver == Driver::Trash { "-asset.seq" } else { key };
    let text = format!(
        "SELECT {key} FROM {from} WHERE {} ORDER BY {order} LIMIT {limit}{offset}",
        sql.conditions.join(" AND ")
    );
    (text, sql.values)
}
