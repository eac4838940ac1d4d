//! What happened to assets, in order.
//!
//! An entry is written in the transaction of the change it tells of, so there is no change
//! without its entry and no entry without its change. Consumers (webhooks, live pages) keep
//! a cursor on `seq` and are woken after the commit.
//!
//! This room does not know who listens.

pub mod store;

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Notify;

use crate::assets::AssetId;
use crate::error::Result;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::support::clock::Instant;

/// What can happen to an asset. The words are the contracts': `file-…` are FileSpin's, `asset-…` are Prepr's and
/// tell what happens by its API alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    FileSaved,
    FileProcessed,
    FileDataUpdated,
    FileDeleted,
    FileUndeleted,
    AddonProcessed,
    /// It came in, or was announced.
    AssetCreated,
    /// What was announced is whole.
    AssetUploaded,
    /// What people call it is different.
    AssetChanged,
}

impl Event {
    pub const ALL: [Event; 9] = [
        Event::FileSaved,
        Event::FileProcessed,
        Event::FileDataUpdated,
        Event::FileDeleted,
        Event::FileUndeleted,
        Event::AddonProcessed,
        Event::AssetCreated,
        Event::AssetUploaded,
        Event::AssetChanged,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Event::FileSaved => "file-saved",
            Event::FileProcessed => "file-processed",
            Event::FileDataUpdated => "file-data-updated",
            Event::FileDeleted => "file-deleted",
            Event::FileUndeleted => "file-undeleted",
            Event::AddonProcessed => "addon-processed",
            Event::AssetCreated => "asset-created",
            Event::AssetUploaded => "asset-uploaded",
            Event::AssetChanged => "asset-changed",
        }
    }
}

/// One line of the journal.
#[derive(Clone, Debug)]
pub struct Entry {
    pub seq: i64,
    pub at: Instant,
    pub asset_id: AssetId,
    pub event: String,
    pub detail: Value,
}

/// Writes and reads entries; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    db: Db,
    changed: Arc<Notify>,
}

impl Journal {
    pub fn new(db: Db) -> Journal {
        Journal { db, changed: Arc::new(Notify::new()) }
    }

    /// Adds an entry to the transaction of the change it tells of.
    pub fn tell(&self, tx: &Tx, id: AssetId, event: Event, detail: &Value) -> Result<()> {
        store::insert(tx, id, event.word(), detail)?;
        tx.wake(&self.changed);
        Ok(())
    }

    /// Up to `limit` entries after the cursor, oldest first.
    pub async fn after(&self, seq: i64, limit: u32) -> Result<Vec<Entry>> {
        self.db.read(move |c| store::after(c, seq, limit)).await
    }

    /// The number of the newest entry; 0 when nothing has happened yet.
    pub async fn latest(&self) -> Result<i64> {
        self.db.read(store::latest).await
    }

    /// Resolves after a commit that told something. Register before reading, then read.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}
