//! Search: what is asked, found among a million assets while somebody waits for it.
//!
//! ```text
//! Criteria ─▶ Plan      words become an expression of the index, the rest ranges      (plan.rs, words.rs)
//! Plan     ─▶ driver    which index is walked and what is only looked up              (store.rs)
//! driver   ─▶ keys      newest first, as many as the pages asked for so far need
//! ```
//!
//! A search sees the assets of its moment: what arrives later shifts no page. It reaches its
//! first [`REACH`] hits; who needs more asks for a span of time. Pages are cut from a list that
//! grows as it is read, so a late page never skips what earlier ones have found.
//!
//! Searches are remembered in memory, and those of several pages in the database too: the next
//! page is of the same search also after a restart.
//!
//! The index is kept by triggers in `schema.sql`; this room never writes it. Whether data is
//! indexed by field is for `schemas` to say.

mod plan;
mod rank;
mod span;
mod store;
mod words;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::assets;
use crate::assets::Full;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Db;
use crate::search::plan::Plan;
use crate::search::store::Driver;
use crate::support::clock::Instant;

/// Hits that a search reaches.
pub const REACH: usize = 10_000;

/// Of these, the newest, the best are put in front when somebody asks for the best.
const RANKED: usize = 1_000;

/// Hits that are looked for beyond a page that is turned to.
const AHEAD: usize = 200;

/// How long hits are counted that nobody has asked for yet.
const COUNTING: Duration = Duration::from_millis(2);

/// Searches remembered in the database.
const KEPT: i64 = 10_000;

/// How long a search is remembered in memory after somebody turned a page.
const REMEMBERED: Duration = Duration::from_mins(30);

crate::hex_id!(
    /// A search that was made: what its further pages are asked by.
    SearchId
);

/// What is asked; everything left out means any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Criteria {
    /// Words in the name, in `filespin_search_txt` and in keyword-searchable fields.
    pub keyword: Option<String>,
    pub file_name: Option<String>,
    /// `image* OR video/mp4`
    pub content_type: Option<String>,
    pub creator: Option<i64>,
    /// Both ends included.
    pub uploaded: Option<(Option<Instant>, Option<Instant>)>,
    /// Bytes; both ends included.
    pub size_bytes: Option<(Option<u64>, Option<u64>)>,
    pub schema: Option<SchemaCriteria>,
    pub sort: Vec<Sort>,
    pub per_page: usize,
    /// In the trash, instead of what is not.
    pub trashed: bool,
}

/// What is asked of the fields of a schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaCriteria {
    pub schema: i64,
    pub fields: Map<String, Value>,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    pub by: By,
    pub descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// The order of arrival.
    Uploaded,
    Size,
    ContentType,
    /// How well the keyword fits.
    Relevance,
}

/// A page of a search.
pub struct Found {
    pub id: SearchId,
    pub assets: Vec<Full>,
    /// Exact as far as was looked; beyond that no less than the truth. At most what is reached.
    pub pages: usize,
    /// The same, in hits.
    pub hits: usize,
}

/// Searches; cheap to clone.
#[derive(Clone)]
pub struct Search {
    db: Db,
    recent: moka::sync::Cache<SearchId, Arc<Made>>,
}

/// A search that was made, and what it has found so far.
struct Made {
    criteria: Criteria,
    plan: Plan,
    driver: Driver,
    /// Hits, if the list never grew.
    at_most: usize,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    keys: Vec<i64>,
    is_whole: bool,
}

/// What a search is made again from.
#[derive(Serialize, Deserialize)]
struct Asked {
    criteria: Criteria,
    newest: i64,
}

impl Search {
    pub fn new(db: Db) -> Search {
        // A list has at most REACH numbers: together less than 80 MB.
        let recent = moka::sync::Cache::builder().max_capacity(1000).time_to_idle(REMEMBERED).build();
        Search { db, recent }
    }

    /// Makes a search; its first page.
    pub async fn search(&self, criteria: Criteria) -> Result<Found> {
        let id = SearchId::random()?;
        let (made, newest, found) = self
            .db
            .read(move |c| {
                let newest = assets::store::last_seq(c)?;
                let made = Made::new(c, criteria, newest)?;
                let found = made.page(c, id, 1)?;
                Ok((made, newest, found))
            })
            .await?;
        if found.pages > 1 {
            self.keep(id, &made.criteria, newest);
        }
        self.recent.insert(id, Arc::new(made));
        Ok(found)
    }

    /// A page of a search that was made; the first is 1. `may_see_trash` is whether the caller does.
    pub async fn page(&self, id: SearchId, page: usize, may_see_trash: bool) -> Result<Found> {
        let known = self.recent.get(&id);
        let (made, found) = self
            .db
            .read(move |c| {
                let made = if let Some(made) = known {
                    made
                } else {
                    let asked = store::asked(c, id)?.ok_or(Code::SearchNotFound)?;
                    Arc::new(Made::new(c, asked.criteria, asked.newest)?)
                };
                if made.criteria.trashed && !may_see_trash {
                    return Err(Code::Forbidden.because("The trash is searched by administrators alone."));
                }
                let found = made.page(c, id, page)?;
                Ok((made, found))
            })
            .await?;
        self.recent.insert(id, made);
        Ok(found)
    }

    /// Writes a search down, after the answer: nobody waits for it.
    fn keep(&self, id: SearchId, criteria: &Criteria, newest: i64) {
        let (db, asked) = (self.db.clone(), Asked { criteria: criteria.clone(), newest });
        self.db.handle().spawn(async move {
            if let Err(error) = db.write_relaxed(move |tx| store::keep(tx, id, &asked, KEPT)).await {
                tracing::warn!(%error, "a search could not be written down");
            }
        });
    }
}

impl Made {
    fn new(c: &Conn, mut criteria: Criteria, newest: i64) -> Result<Made> {
        criteria.per_page = criteria.per_page.max(1);
        let plan = Plan::new(c, &criteria, newest)?;
        let driver = store::driver(c, &plan)?;
        let mut list = List::default();
        // What is put into another order has to be there first.
        let is_sorted = plan.is_sorted() && !plan.by_relevance() && !matches!(driver, Driver::Sizes { .. });
        let wanted = match criteria.per_page + 1 {
            _ if is_sorted => REACH,
            one_page if plan.by_relevance() => RANKED.max(one_page),
            one_page => one_page,
        };
        grow(c, &plan, driver, &mut list, wanted)?;
        if is_sorted {
            list.is_whole = true;
            store::sort(c, &plan, &mut list.keys)?;
        } else if plan.by_relevance() {
            rank::best_first(c, &plan, &mut list.keys, RANKED)?;
        }
        let at_most = if list.is_whole { list.keys.len() } else { store::at_most(c, &plan, REACH, COUNTING)? };
        Ok(Made { criteria, plan, driver, at_most, list: Mutex::new(list) })
    }

    fn page(&self, c: &Conn, id: SearchId, page: usize) -> Result<Found> {
        let per_page = self.criteria.per_page;
        let first = page.saturating_sub(1).saturating_mul(per_page);
        let (keys, hits) = {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = first.saturating_add(per_page).min(REACH);
            if list.keys.len() < wanted {
                grow(c, &self.plan, self.driver, &mut list, wanted.saturating_add(AHEAD))?;
            }
            let keys: Vec<i64> = list.keys.iter().skip(first).take(per_page).map(|key| key.abs()).collect();
            (keys, if list.is_whole { list.keys.len() } else { self.at_most.max(list.keys.len()) })
        };
        let assets = assets::store::by_seq(c, &keys, self.criteria.trashed)?;
        Ok(Found { id, assets, pages: hits.div_ceil(per_page), hits })
    }
}

/// Looks for hits until the list has this many, or there are no more.
fn grow(c: &Conn, plan: &Plan, driver: Driver, list: &mut List, wanted: usize) -> Result<()> {
    let wanted = wanted.min(REACH);
    if list.is_whole || list.keys.len() >= wanted {
        return Ok(());
    }
    let more = wanted - list.keys.len();
    let found = store::next(c, plan, driver, &list.keys, more)?;
    list.is_whole = found.len() < more || list.keys.len() + found.len() >= REACH;
    list.keys.extend(found);
    Ok(())
}

#[cfg(test)]
mod tests;
