//! Many ways in, one way on.
//!
//! In: streams of bytes with a name. Out: assets that survive a power cut. Every way in ends
//! in [`Ingest::keep`]:
//!
//! ```text
//! begin ─▶ write … ─▶ finish        staging/{id}.{revision}, hashed and flushed     (intake.rs)
//! keep  ─▶ final name, flushed ─▶ one transaction: asset NOT_READY + job `save`  ─▶ the caller is answered
//!          or the next revision of one that is there (replace.rs), or a conversion (hand_in.rs)
//!          what comes in phases (phases) is put together first
//! save  ─▶ sniffed and probed ─▶ one transaction: OK, file-saved, a round of processing (save.rs)
//! ```
//!
//! Invariant: whoever was given an id finds the same bytes under it after any crash; bytes
//! whose id nobody was given are never visible. Recovery looks at staging alone (`recover.rs`).

mod hand_in;
mod intake;
mod name;
pub mod phases;
mod recover;
mod replace;
mod save;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

pub use intake::Intake;
pub use intake::Taken;
pub use phases::GiveUpPhased;
pub use phases::Phased;
pub use phases::Turn;
pub use save::SaveOriginal;

use crate::accounts::Caller;
use crate::assets::Asset;
use crate::assets::Assets;
use crate::assets::ORIGINAL;
use crate::assets::Status;
use crate::assets::data;
use crate::assets::data::Mode;
use crate::assets::place;
use crate::assets::store;
use crate::catalogue;
use crate::catalogue::Draft;
use crate::custody::Custody;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Jobs;
use crate::infra::storage::Storage;
use crate::ingest::phases::Sessions;
use crate::journal::Event;
use crate::journal::Journal;
use crate::processing::Processing;
use crate::schemas::Schemas;
use crate::settings::Settings;
use crate::stills::Stills;
use crate::support::checksum::Lanes;
use crate::support::clock::Instant;
use crate::support::cpu::Cpu;

/// How this process takes files in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The largest file that is taken.
    pub max_file_bytes: u64,
    /// How many parts one upload may have, files and fields together.
    pub max_parts: usize,
    /// An upload in phases that nobody went on with for so long is given up.
    pub phased_seconds: u64,
}

/// Takes files in; cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    db: Db,
    cpu: Cpu,
    storage: Storage,
    jobs: Jobs,
    assets: Assets,
    journal: Journal,
    settings: Settings,
    processing: Processing,
    custody: Custody,
    schemas: Schemas,
    stills: Stills,
    md5: Lanes,
    config: Config,
    /// Uploads under way: background work yields to them.
    under_way: Arc<AtomicUsize>,
    phased: Arc<Sessions>,
}

/// What the sender says about the files of one upload.
#[derive(Clone, Debug, Default)]
pub struct Note {
    pub data: Map<String, Value>,
    pub data_schema_id: i64,
    /// Where it came from, for the record: a host name.
    pub source: Option<String>,
    /// Of one that the catalogue is told of at once.
    pub arrival: Option<Arrival>,
}

/// What the catalogue is told of an asset that comes in.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    pub draft: Draft,
    /// It was announced before: this is the end of an upload in phases.
    pub phased: bool,
    /// The original may be read by anyone, unless it is a picture, of which anyone is shown copies.
    pub public: bool,
}

impl Ingest {
    #[expect(clippy::too_many_arguments, reason = "the wiring names each collaborator once")]
    pub fn new(
        config: Config,
        db: Db,
        cpu: Cpu,
        storage: Storage,
        jobs: Jobs,
        assets: Assets,
        journal: Journal,
        settings: Settings,
        processing: Processing,
        custody: Custody,
        schemas: Schemas,
        stills: Stills,
    ) -> Ingest {
        Ingest {
            db,
            cpu,
            storage,
            jobs,
            assets,
            journal,
            settings,
            processing,
            custody,
            schemas,
            stills,
            md5: Lanes::start(),
            config,
            under_way: Arc::default(),
            phased: Arc::default(),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many uploads are being received right now.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Makes uploads permanent and gives each its asset. All of them, or none.
    ///
    /// Runs to its end even when the caller goes away: half-way there is no safe place to stop.
    pub async fn keep(&self, caller: &Caller, taken: Vec<Taken>, note: Note) -> Result<Vec<Asset>> {
        if taken.is_empty() {
            return Err(Code::NoFile.because("The upload holds no file: send at least one file part."));
        }
        let note = Note { data: data::merged(Map::new(), note.data, Mode::Replace)?, ..note };
        let (this, user) = (self.clone(), caller.user_id());
        let keeping = self.cpu.handle().spawn(async move { this.keep_all(user, taken, note).await });
        keeping.await.map_err(|e| Code::Internal.from("keeping an upload", e))?
    }

    async fn keep_all(&self, user: i64, taken: Vec<Taken>, note: Note) -> Result<Vec<Asset>> {
        let storage = self.storage.clone();
        let placed = self
            .cpu
            .run(move || {
                for (n, file) in taken.iter().enumerate() {
                    if let Err(e) = storage.commit(file.staged_name(), &file.place()?) {
                        for done in taken.iter().take(n) {
                            storage.uncommit(&done.place()?);
                        }
                        return Err(e);
                    }
                }
                Ok(taken)
            })
            .await?;
        let taken = Arc::new(placed);
        let (rows, this) = (Arc::clone(&taken), self.clone());
        let written = self
            .db
            .write(move |tx| {
                rows.iter()
                    .map(|file| {
                        let asset = new_asset(file, user, &note, tx.now());
                        store::insert(tx, &asset)?;
                        this.schemas.settle(tx, asset.id)?;
                        this.jobs.enqueue(tx, &SaveOriginal::of(&asset), Enqueue::default())?;
                        if let Some(arrival) = &note.arrival {
                            this.announce(tx, &asset, arrival)?;
                        }
                        Ok(asset)
                    })
                    .collect::<Result<Vec<_>>>()
            })
            .await;
        let (storage, failed) = (self.storage.clone(), written.is_err());
        // Dropping `taken` forgets the names in staging; that may wait until the caller is answered.
        self.cpu.spawn(move || {
            for place in taken.iter().filter(|_| failed).filter_map(|file| file.place().ok()) {
                storage.uncommit(&place);
            }
            drop(taken);
        });
        written
    }

    /// Tells the catalogue and the journal of a new asset.
    fn announce(&self, tx: &Tx, asset: &Asset, arrival: &Arrival) -> Result<()> {
        catalogue::describe(tx, asset.id, &arrival.draft, true)?;
        if arrival.public && !asset.content_type.starts_with("image/") {
            store::set_public(tx, asset.id, &[ORIGINAL.to_owned()], true)?;
        }
        let by = json!({ "by": asset.creator_id });
        if arrival.phased {
            phases::store::forget(tx, asset.id)?;
            return self.journal.tell(tx, asset.id, Event::AssetUploaded, &by);
        }
        self.journal.tell(tx, asset.id, Event::AssetCreated, &by)
    }
}

fn new_asset(file: &Taken, user: i64, note: &Note, now: Instant) -> Asset {
    Asset {
        id: file.id,
        revision: file.revision,
        status: Status::NotReady,
        name: file.name.clone(),
        size_bytes: file.checksums.size_bytes,
        md5: file.checksums.md5_hex(),
        sha256: file.checksums.sha256_hex(),
        content_type: file.content_type.clone(),
        public: false,
        on_demand: false,
        creator_id: user,
        updater_id: user,
        uploaded_at: now,
        updated_at: now,
        trashed_at: None,
        upload_source: note.source.clone(),
        data_schema_id: note.data_schema_id,
        data: note.data.clone(),
        facts: Map::new(),
        errors: BTreeMap::new(),
    }
}

impl Taken {
    fn place(&self) -> Result<crate::infra::storage::ObjectPath> {
        place::original(self.id, self.revision)
    }
}
