//! Assets: content and what is known about it, under one ticket.
//!
//! The room keeps the rows of assets and of their conversions and knows where their bytes
//! lie ([`place`]). It does not take bytes in (`ingest`), make anything from them
//! (`processing`) or hand them out (`delivery`): those rooms write here, in their own
//! transactions, through [`store`].

pub mod model;
pub mod place;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

pub use model::Asset;
pub use model::AssetId;
pub use model::Conversion;
pub use model::Status;

use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Db;
use crate::support::page::Page;

/// How long a remembered asset is believed without looking again. Whoever changes what may be
/// seen (access, revision) calls [`Assets::forget`]; this bounds what is left.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Finds assets; cheap to clone.
#[derive(Clone)]
pub struct Assets {
    db: Db,
    remembered: moka::sync::Cache<AssetId, Arc<Full>>,
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
        Assets { db, remembered: moka::sync::Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build() }
    }

    /// The same as [`Assets::find`] for those who ask thousands of times a second.
    pub async fn recall(&self, id: AssetId) -> Result<Arc<Full>> {
        if let Some(known) = self.remembered.get(&id) {
            return Ok(known);
        }
        let found = Arc::new(self.find(id).await?);
        if found.asset.status == Status::Ok {
            self.remembered.insert(id, Arc::clone(&found));
        }
        Ok(found)
    }

    /// What is remembered of this asset is no longer true.
    pub fn forget(&self, id: AssetId) {
        self.remembered.invalidate(&id);
    }

    /// The asset and its conversions, or [`Code::AssetNotFound`].
    pub async fn find(&self, id: AssetId) -> Result<Full> {
        self.db.read(move |c| full(c, id)).await
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
    let asset = store::find(c, id)?.ok_or_else(|| Code::AssetNotFound.because(format!("no asset {id}")))?;
    Ok(Full { conversions: store::conversions(c, id)?, asset })
}
