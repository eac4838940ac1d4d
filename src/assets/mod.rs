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

use std::sync::Arc;
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
use crate::infra::db::Memory;
use crate::infra::db::Tx;
use crate::support::page::Page;

/// How long a remembered asset is believed without looking again. Whoever changes what may be
/// seen says so ([`Assets::changes`]); this bounds what another program may have changed.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Finds assets; cheap to clone.
#[derive(Clone)]
pub struct Assets {
    db: Db,
    remembered: Memory<AssetId, Arc<Full>>,
    changed: Arc<Notify>,
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
        Assets { db, remembered: Memory::new(10_000, REMEMBERED), changed: Arc::default() }
    }

    /// The same as [`Assets::find`] for those who ask thousands of times a second.
    pub async fn recall(&self, id: AssetId) -> Result<Arc<Full>> {
        if let Some(known) = self.remembered.get(&id) {
            return Ok(known);
        }
        let look = self.remembered.look();
        let found = Arc::new(self.find(id).await?);
        if found.asset.status == Status::Ok {
            self.remembered.remember(look, id, Arc::clone(&found));
        }
        Ok(found)
    }

    /// The same, whatever is remembered.
    pub async fn look_again(&self, id: AssetId) -> Result<Arc<Full>> {
        self.remembered.forget(&id);
        self.recall(id).await
    }

    /// This write changes an asset: nobody who has seen any of it is shown what was before
    /// ([`Memory`]). Those who wait for a change look again.
    pub fn changes(&self, tx: &Tx, id: AssetId) {
        self.remembered.changes(tx, id);
        tx.wake(&self.changed);
    }

    /// The same of all assets.
    pub fn changes_all(&self, tx: &Tx) {
        self.remembered.changes_all(tx);
        tx.wake(&self.changed);
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

/// The same, for rooms that are inside a transaction.
pub fn full(c: &rusqlite::Connection, id: AssetId) -> Result<Full> {
    let found = store::find(c, id)?.filter(|asset| asset.trashed_at.is_none());
    let asset = found.ok_or(Code::AssetNotFound)?;
    Ok(Full { conversions: store::conversions(c, id)?, asset })
}
