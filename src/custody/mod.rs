//! What people do with an asset while it is in our keeping: write about it, put it into the archive,
//! throw it away, fetch it back, and have the trash emptied.
//!
//! Each is one transaction with its entry in the journal. Files are not touched in it: that they
//! have to go is a row ([`Sweep`]) beside the change, and they go a moment later, when nobody reads
//! them any more. What is asked for many assets at once is a round with one job ([`RunBulk`]).
//!
//! Taking content in is `ingest`, which owes the sweeping of what it replaces here.

mod bulk;
mod sweep;
mod trash;

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

pub use bulk::MOST_ASSETS;
pub use bulk::RunBulk;
pub use bulk::Selection;
pub use sweep::Sweep;

use crate::accounts::Caller;
use crate::assets;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::assets::Full;
use crate::assets::Status;
use crate::assets::data;
use crate::assets::data::Mode;
use crate::assets::store;
use crate::error::Code;
use crate::error::Result;
use crate::homes::Homes;
use crate::infra::db::Db;
use crate::infra::jobs::Jobs;
use crate::infra::storage::Storage;
use crate::journal::Event;
use crate::journal::Journal;
use crate::processing::Processing;
use crate::schemas::Schemas;

/// How this process keeps what it is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long files of what was deleted or replaced stay for those who are reading them.
    pub linger_seconds: u64,
}

/// Keeps assets for people; cheap to clone.
#[derive(Clone)]
pub struct Custody {
    config: Config,
    db: Db,
    storage: Storage,
    homes: Homes,
    jobs: Jobs,
    assets: Assets,
    journal: Journal,
    processing: Processing,
    schemas: Schemas,
}

impl Custody {
    #[expect(clippy::too_many_arguments, reason = "the wiring names each collaborator once")]
    pub fn new(
        config: Config,
        db: Db,
        storage: Storage,
        homes: Homes,
        jobs: Jobs,
        assets: Assets,
        journal: Journal,
        processing: Processing,
        schemas: Schemas,
    ) -> Custody {
        Custody { config, db, storage, homes, jobs, assets, journal, processing, schemas }
    }

    /// Writes what somebody says about an asset. The asset as it is then.
    pub async fn write_data(
        &self,
        caller: &Caller,
        id: AssetId,
        said: Map<String, Value>,
        mode: Mode,
        data_schema_id: i64,
    ) -> Result<Full> {
        let (this, user) = (self.clone(), caller.user_id());
        self.db
            .write(move |tx| {
                let asset = assets::full(tx, id)?.asset;
                asset.writable()?;
                if matches!(asset.status, Status::NotReady | Status::Queued) {
                    return Err(Code::AssetNotReady.into());
                }
                let whole = data::merged(asset.data, said, mode)?;
                store::set_data(tx, id, &whole, data_schema_id, user)?;
                this.schemas.settle(tx, id)?;
                this.journal.tell(tx, id, Event::FileDataUpdated, &json!({}))?;
                this.assets.changes(tx, id);
                assets::full(tx, id)
            })
            .await
    }

    /// Puts an asset into the archive, where it can only be read, or takes it out. Doing it twice
    /// is no mistake. The asset as it is then.
    pub async fn archive(&self, caller: &Caller, id: AssetId, archived: bool) -> Result<Full> {
        let (this, user) = (self.clone(), caller.user_id());
        self.db
            .write(move |tx| {
                let full = assets::full(tx, id)?;
                match (full.asset.status, archived) {
                    (Status::Archived, false) => store::set_status(tx, id, Status::Ok, user)?,
                    (Status::Archived, true) | (_, false) => return Ok(full),
                    (_, true) => {
                        full.asset.ready()?;
                        store::set_status(tx, id, Status::Archived, user)?;
                    }
                }
                this.assets.changes(tx, id);
                assets::full(tx, id)
            })
            .await
    }

    fn linger(&self) -> Duration {
        Duration::from_secs(self.config.linger_seconds)
    }
}
