//! Assets: content and what is known about it, under one ticket.
//!
//! The room keeps the rows of assets and of their conversions and knows where their bytes
//! lie ([`place`]). It does not take bytes in (`ingest`), make anything from them
//! (`processing`) or hand them out (`delivery`): those rooms write here, in their own
//! transactions, through [`store`].

pub mod data;
pub mod model;
pub mod place;
pub mod store;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;

pub use model::AUDIO_PREVIEW;
pub use model::Asset;
pub use model::AssetId;
pub use model::BASE;
pub use model::Conversion;
pub use model::HLS;
pub use model::Making;
pub use model::ORIGINAL;
pub use model::POSTER;
pub use model::STORYBOARD;
pub use model::Status;
pub use model::WAVEFORM;

use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::support::page::Page;

/// How long a remembered asset is believed without looking again. Whoever changes what may be
/// seen says so ([`Assets::changes`]); this bounds what another program may have changed.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Finds assets; cheap to clone.
#[derive(Clone)]
pub struct Assets {
    db: Db,
    remembered: moka::sync::Cache<AssetId, Arc<Full>>,
    changing: Arc<Mutex<Changing>>,
    changed: Arc<Notify>,
}

/// Which assets are being changed by writes that have not ended.
#[derive(Default)]
struct Changing {
    /// Writes that change all of them.
    all: u32,
    /// How many writes change this one.
    each: HashMap<AssetId, u32>,
    /// Changes that have begun so far: what was read before one is not remembered after it.
    begun: u64,
}

/// An asset with its conversions: what a caller is shown.
#[derive(Clone, Debug)]
pub struct Full {
    pub asset: Asset,
    pub conversions: Vec<Conversion>,
}

impl Full {
    /// The conversion of this key, of the present revision.
    pub fn conversion(&self, key: &str) -> Option<&Conversion> {
        self.conversions.iter().find(|c| c.key == key && c.revision == self.asset.revision)
    }
}

impl Assets {
    pub fn new(db: Db) -> Assets {
        let remembered = moka::sync::Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build();
        Assets { db, remembered, changing: Arc::default(), changed: Arc::default() }
    }

    /// The same as [`Assets::find`] for those who ask thousands of times a second.
    pub async fn recall(&self, id: AssetId) -> Result<Arc<Full>> {
        if let Some(known) = self.remembered.get(&id) {
            return Ok(known);
        }
        let before = self.changing().begun;
        let found = Arc::new(self.find(id).await?);
        let changing = self.changing();
        let is_settled = changing.begun == before && changing.all == 0 && !changing.each.contains_key(&id);
        if is_settled && found.asset.status == Status::Ok {
            self.remembered.insert(id, Arc::clone(&found));
        }
        Ok(found)
    }

    /// The same, whatever is remembered.
    pub async fn look_again(&self, id: AssetId) -> Result<Arc<Full>> {
        self.remembered.invalidate(&id);
        self.recall(id).await
    }

    /// This write changes an asset: nothing is remembered of it until the write has ended, so that
    /// whoever has seen any of what it wrote is not shown what was before. Then those who wait for a
    /// change look again.
    pub fn changes(&self, tx: &Tx, id: AssetId) {
        let change = Change::begin(self, Some(id));
        tx.after_commit(move || drop(change));
    }

    /// The same of all assets.
    pub fn changes_all(&self, tx: &Tx) {
        let change = Change::begin(self, None);
        tx.after_commit(move || drop(change));
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves after some asset was changed. Register before reading, then read.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The asset and its conversions, or [`Code::AssetNotFound`], as when it is in the trash.
    pub async fn find(&self, id: AssetId) -> Result<Full> {
        self.db.read(move |c| full(c, id)).await
    }

    /// Makes contents readable for everybody, or takes that back, whatever the settings say of their keys;
    /// keys that are not there are ignored. Says which were.
    pub async fn set_public(&self, id: AssetId, keys: Vec<String>, public: bool) -> Result<Vec<String>> {
        let this = self.clone();
        self.db
            .write(move |tx| {
                full(tx, id)?;
                this.changes(tx, id);
                store::set_public(tx, id, &keys, public)
            })
            .await
    }

    /// Assets, newest first.
    pub async fn list(&self, page: Page) -> Result<(Vec<Full>, u64)> {
        self.db
            .read(move |c| {
                let assets = store::newest(c, page)?;
                let total = store::count(c)?;
                let full = assets
                    .into_iter()
                    .map(|asset| Ok(Full { conversions: store::conversions(c, asset.id)?, asset }))
                    .collect::<Result<_>>()?;
                Ok((full, total))
            })
            .await
    }
}

/// A write that changes an asset, or all of them, until it has ended: also without a commit, or by a panic.
struct Change {
    assets: Assets,
    /// `None`: all.
    id: Option<AssetId>,
}

impl Change {
    fn begin(assets: &Assets, id: Option<AssetId>) -> Change {
        let mut changing = assets.changing();
        changing.begun += 1;
        if let Some(id) = id {
            *changing.each.entry(id).or_default() += 1;
            assets.remembered.invalidate(&id);
        } else {
            changing.all += 1;
            assets.remembered.invalidate_all();
        }
        Change { assets: assets.clone(), id }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut changing = self.assets.changing();
        // Who read before the commit may ask to remember after it.
        changing.begun += 1;
        match self.id {
            None => changing.all -= 1,
            Some(id) => {
                if let Entry::Occupied(mut entry) = changing.each.entry(id) {
                    *entry.get_mut() -= 1;
                    if *entry.get() == 0 {
                        entry.remove();
                    }
                }
            }
        }
        drop(changing);
        self.assets.changed.notify_waiters();
    }
}

/// The same, for rooms that are inside a transaction.
pub fn full(c: &rusqlite::Connection, id: AssetId) -> Result<Full> {
    let found = store::find(c, id)?.filter(|asset| asset.trashed_at.is_none());
    let asset = found.ok_or(Code::AssetNotFound)?;
    Ok(Full { conversions: store::conversions(c, id)?, asset })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::support::clock::Clock;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_seen_a_commit_is_not_shown_what_was_before() {
        let db = Db::temporary(crate::app::SCHEMA, Clock::system()).unwrap();
        let assets = Assets::new(db.clone());
        let id = AssetId::random().unwrap();
        db.write(move |tx| {
            tx.execute(
                "INSERT INTO asset (id, status, name, size_bytes, md5, sha256, content_type, creator_id, updater_id, \
                 uploaded_at, updated_at) VALUES (?1, 'OK', 'a', 1, '', '', 'image/png', 1, 1, 0, 0)",
                [id],
            )?;
            Ok(())
        })
        .await
        .unwrap();
        let errors = async || assets.recall(id).await.unwrap().asset.errors.len();
        assert_eq!(errors().await, 0);
        let (committed, is_committed) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let changing = tokio::spawn({
            let (db, assets) = (db.clone(), assets.clone());
            async move {
                db.write(move |tx| {
                    tx.after_commit(move || {
                        committed.send(()).unwrap();
                        goes_on.recv().unwrap();
                    });
                    assets.changes(tx, id);
                    store::set_error(tx, id, 1, "web", "No.")
                })
                .await
            }
        });
        tokio::task::block_in_place(|| is_committed.recv()).unwrap();
        // Others see the commit by now; its own caller does not know of it yet.
        assert_eq!(errors().await, 1);
        go_on.send(()).unwrap();
        changing.await.unwrap().unwrap();
        // A write that fails has changed nothing, and what is remembered may be remembered again.
        let failing = assets.clone();
        let failed = db.write(move |tx| {
            failing.changes(tx, id);
            Err::<(), _>(Code::Conflict.into())
        });
        assert!(failed.await.is_err());
        assert_eq!(errors().await, 1);
        assert!(assets.remembered.contains_key(&id));
        assert!(assets.changing().each.is_empty());
    }
}
