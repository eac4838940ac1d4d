//! Collections: up to thirty assets that somebody put together, to be shown and taken along.
//!
//! A collection is its maker's; the others see it when it is shared with the group. What goes
//! to the trash leaves every collection for as long as it is there.
//!
//! All originals of one can be downloaded as an archive (`download.rs`, `sums.rs`).

mod download;
mod store;
mod sums;

use rusqlite::Connection;

pub use download::Archive;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets;
use crate::assets::AssetId;
use crate::assets::Full;
use crate::collections::sums::Sums;
use crate::error::Code;
use crate::error::Result;
use crate::homes::Homes;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::support::clock::Instant;
use crate::support::cpu::Cpu;
use crate::support::page::Page;

/// Assets of one collection.
pub const MOST_ASSETS: usize = 30;

const MAX_NAME_CHARS: usize = 200;
const MAX_DESCRIPTION_CHARS: usize = 2000;

/// What a row of `collection` holds, and who may do what with it.
#[derive(Clone, Debug)]
pub struct Collection {
    pub id: i64,
    pub user_id: i64,
    pub name: String,
    pub description: String,
    pub group_access: bool,
    pub created_at: Instant,
    pub changed_at: Instant,
}

/// A collection with what is in it and not in the trash.
#[derive(Clone, Debug)]
pub struct Filled {
    pub collection: Collection,
    pub assets: Vec<Full>,
}

/// A collection as it is wanted; what is left out is made up, or copied.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Which one it is a copy of.
    pub source: Option<i64>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub group_access: Option<bool>,
    pub assets: Option<Vec<AssetId>>,
}

/// What is to change; what is left out stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub description: Option<String>,
    pub group_access: Option<bool>,
    /// Instead of those that are in it.
    pub assets: Option<Vec<AssetId>>,
    pub add: Vec<AssetId>,
    pub remove: Vec<AssetId>,
}

/// Which collections are asked for; everything left out means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In the name or in the description.
    pub keyword: Option<String>,
    /// One's own that are shared with nobody.
    pub private_only: bool,
    pub changed: (Option<Instant>, Option<Instant>),
    pub sort: Vec<(By, Descending)>,
}

/// What collections are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Name,
    Changed,
    GroupAccess,
}

/// From the last to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descending(pub bool);

/// Keeps collections; cheap to clone.
#[derive(Clone)]
pub struct Collections {
    db: Db,
    cpu: Cpu,
    homes: Homes,
    sums: Sums,
}

impl Collections {
    pub fn new(db: Db, cpu: Cpu, homes: Homes) -> Collections {
        let sums = Sums::new(&cpu);
        Collections { db, cpu, homes, sums }
    }

    /// Makes a collection, perhaps of another one.
    pub async fn create(&self, caller: &Caller, draft: Draft) -> Result<Filled> {
        let caller = caller.clone();
        let made = self
            .db
            .write(move |tx| {
                let now = tx.now().iso();
                let source = draft.source.map(|source| visible(tx, &caller, source)).transpose()?;
                let (name, description, group_access, assets) = match source {
                    None => (format!("Collection {now}"), String::new(), false, Vec::new()),
                    Some(Filled { collection: c, assets }) => {
                        let ids = assets.iter().map(|full| full.asset.id).collect();
                        let name: String = c.name.chars().take(MAX_NAME_CHARS - 40).collect();
                        (format!("Copy of {name} @ {now}"), c.description, c.group_access, ids)
                    }
                };
                let collection = Collection {
                    id: 0,
                    user_id: caller.user_id(),
                    name: draft.name.filter(|name| !name.trim().is_empty()).unwrap_or(name),
                    description: draft.description.unwrap_or(description),
                    group_access: draft.group_access.unwrap_or(group_access),
                    created_at: tx.now(),
                    changed_at: tx.now(),
                };
                check(&collection)?;
                let id = store::insert(tx, &collection)?;
                fill(tx, id, draft.assets.unwrap_or(assets))?;
                visible(tx, &caller, id)
            })
            .await?;
        self.prepare(&made);
        Ok(made)
    }

    pub async fn find(&self, caller: &Caller, id: i64) -> Result<Filled> {
        let caller = caller.clone();
        self.db.read(move |c| visible(c, &caller, id)).await
    }

    pub async fn update(&self, caller: &Caller, id: i64, change: Change) -> Result<Filled> {
        let caller = caller.clone();
        let made = self
            .db
            .write(move |tx| {
                let Filled { mut collection, .. } = editable(tx, &caller, id)?;
                if let Some(name) = change.name {
                    collection.name = name;
                }
                if let Some(description) = change.description {
                    collection.description = description;
                }
                collection.group_access = change.group_access.unwrap_or(collection.group_access);
                check(&collection)?;
                store::update(tx, &collection)?;
                let before = store::asset_ids(tx, id)?;
                let mut assets = change.assets.unwrap_or_else(|| before.clone());
                assets.extend(change.add);
                assets.retain(|asset| !change.remove.contains(asset));
                if assets != before {
                    fill(tx, id, assets)?;
                }
                visible(tx, &caller, id)
            })
            .await?;
        self.prepare(&made);
        Ok(made)
    }

    pub async fn delete(&self, caller: &Caller, id: i64) -> Result<()> {
        let caller = caller.clone();
        self.db
            .write(move |tx| {
                editable(tx, &caller, id)?;
                store::delete(tx, id)
            })
            .await
    }

    /// Those that the caller sees, and how many there are.
    pub async fn search(&self, caller: &Caller, filter: Filter, page: Page) -> Result<(Vec<Filled>, u64)> {
        let user = caller.user_id();
        self.db
            .read(move |c| {
                let (found, total) = store::search(c, user, &filter, page)?;
                let filled = found.into_iter().map(|collection| filled(c, collection)).collect::<Result<_>>()?;
                Ok((filled, total))
            })
            .await
    }
}

/// The collection, if the caller sees it; else there is none.
fn visible(c: &Connection, caller: &Caller, id: i64) -> Result<Filled> {
    let found = store::find(c, id)?.filter(|found| found.group_access || found.user_id == caller.user_id());
    let missing = || Code::CollectionNotFound.because(format!("There is no collection {id} that you may see."));
    filled(c, found.ok_or_else(missing)?)
}

/// The same, if the caller may change it: its maker, and of a shared one an administrator.
fn editable(c: &Connection, caller: &Caller, id: i64) -> Result<Filled> {
    let found = visible(c, caller, id)?;
    if found.collection.user_id != caller.user_id() && !caller.may(Permission::AdministerUsers) {
        return Err(Code::Forbidden.because("Only whoever made a collection, or an administrator, may change it."));
    }
    Ok(found)
}

fn filled(c: &Connection, collection: Collection) -> Result<Filled> {
    let ids = store::asset_ids(c, collection.id)?;
    let assets = ids.into_iter().filter_map(|id| assets::store::shown(c, id).transpose()).collect::<Result<_>>()?;
    Ok(Filled { collection, assets })
}

/// Puts these assets, each once, in place of those that were in it. What is new has to be there.
fn fill(tx: &Tx, id: i64, wanted: Vec<AssetId>) -> Result<()> {
    let before = store::asset_ids(tx, id)?;
    let mut assets = Vec::new();
    for asset in wanted {
        if assets.contains(&asset) {
            continue;
        }
        if !before.contains(&asset) && assets::store::shown(tx, asset)?.is_none() {
            return Err(Code::AssetNotFound.because(format!("No asset has the id {asset}.")));
        }
        assets.push(asset);
    }
    if assets.len() > MOST_ASSETS {
        return Err(Code::InvalidRequest.because(format!("A collection holds at most {MOST_ASSETS} assets.")));
    }
    store::set_assets(tx, id, &assets)
}

fn check(collection: &Collection) -> Result<()> {
    let name = collection.name.chars().count();
    if name == 0 || name > MAX_NAME_CHARS || collection.description.chars().count() > MAX_DESCRIPTION_CHARS {
        return Err(Code::InvalidRequest.because(format!(
            "A collection's name has 1 to {MAX_NAME_CHARS} characters, its description at most {MAX_DESCRIPTION_CHARS}."
        )));
    }
    Ok(())
}
