//! Many ways in, one way on.
//!
//! In: streams of bytes with a name. Out: assets that survive a power cut. Every way in ends
//! in [`Ingest::keep`]:
//!
//! ```text
//! begin ─▶ write … ─▶ finish        staging/{id}.{revision}, hashed and flushed     (intake.rs)
//! keep  ─▶ final name, flushed ─▶ one transaction: asset NOT_READY + job `save`  ─▶ the caller is answered
//!          or the next revision of one that is there (replace.rs), or a conversion (hand_in.rs)
//!          or the content of one that waits for it: fetched from elsewhere          (from_url.rs)
//! pieces ─▶ staging/{id}.resumable, flushed; the row knows how far ─▶ keep          (resumable/)
//!          what comes in phases (phases) is put together first
//! save  ─▶ sniffed and probed ─▶ one transaction: OK, file-saved, a round of processing (save.rs)
//! ```
//!
//! A file may also be sent first and become an asset when it is registered (direct.rs). Calls that
//! bring a key of the sender's are made once (once.rs).
//!
//! Invariant: whoever was given an id finds the same bytes under it after any crash; bytes
//! whose id nobody was given are never visible. Recovery looks at staging alone (`recover.rs`).
//! The files of a row of which is not known whether it was written stay under both their names, and
//! recovery decides by the row.

mod collect;
mod commit;
mod digests;
mod direct;
mod from_url;
mod hand_in;
mod intake;
mod name;
mod once;
pub mod phases;
mod recover;
mod replace;
pub mod resumable;
mod save;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

pub use direct::Claim;
pub use direct::ExpireVoucher;
pub use direct::Permit;
pub use from_url::Bucket;
pub use from_url::FetchConfig;
pub use from_url::FetchOriginal;
pub use intake::Intake;
pub use intake::Taken;
pub use once::Answered;
pub use once::Once;
pub use once::Repeat;
pub use phases::GiveUpPhased;
pub use phases::Phased;
pub use phases::Turn;
pub use save::SaveOriginal;

use crate::accounts::Caller;
use crate::accounts::MasterKey;
use crate::assets;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::assets::ORIGINAL;
use crate::assets::data;
use crate::assets::data::Mode;
use crate::assets::place;
use crate::catalogue;
use crate::catalogue::Draft;
use crate::custody::Custody;
use crate::error::Code;
use crate::error::Result;
use crate::homes::Homes;
use crate::infra::db::Conn;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Jobs;
use crate::infra::storage::Storage;
use crate::infra::storage::sigv4::Signer;
use crate::ingest::resumable::Doubts;
use crate::ingest::resumable::Holds;
use crate::journal::Event;
use crate::journal::Journal;
use crate::processing::Processing;
use crate::schemas::Schemas;
use crate::settings::Settings;
use crate::stills::Stills;
use crate::support::checksum::Lanes;
use crate::support::clock::Instant;
use crate::support::clock::Steady;
use crate::support::cpu::Cpu;
use crate::support::fetch::Fetch;

/// Of how many assets with the same content is told.
const MOST_DUPLICATES: u32 = 10;

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
    /// How long an upload in pieces waits for its next piece.
    pub resumable_seconds: u64,
    /// How long anything unfinished has to have been seen as expired before it is removed.
    pub resumable_doubt_seconds: u64,
    /// With which assets a new one is compared.
    pub duplicates: Duplicates,
    /// How long the same call is answered the same.
    pub repeat_seconds: u64,
    /// How long a file may be sent straight to storage, and registered, after that was announced.
    pub direct_seconds: u64,
    /// What `s3://` addresses may name, by the bucket's name.
    pub buckets: HashMap<String, Bucket>,
    pub fetch: FetchConfig,
}

/// Where the same content is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    None,
    /// Among the assets of the same user.
    Own,
    All,
}

/// Takes files in; cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    db: Db,
    cpu: Cpu,
    storage: Storage,
    homes: Homes,
    jobs: Jobs,
    assets: Assets,
    journal: Journal,
    settings: Settings,
    processing: Processing,
    custody: Custody,
    schemas: Schemas,
    stills: Stills,
    fetch: Fetch,
    /// Calls the buckets of the configuration, wherever they are.
    bucket_fetch: Fetch,
    /// Signs the forms that send files straight to storage.
    signer: Signer,
    md5: Lanes,
    steady: Steady,
    config: Config,
    /// Calls under way that brought a key.
    calls: once::UnderWay,
    /// Uploads under way: background work yields to them.
    under_way: Arc<AtomicUsize>,
    holds: Holds,
    /// Of everything unfinished that seems to have expired.
    doubts: Doubts,
}

/// What the sender says about the files of one upload.
#[derive(Clone, Debug, Default)]
pub struct Note {
    pub data: Map<String, Value>,
    pub data_schema_id: i64,
    /// Where it came from, for the record: a host name.
    pub source: Option<String>,
    /// What the system keeps with the data, under names of its own.
    pub system: Map<String, Value>,
    /// The call that this belongs to, if it is to be made once.
    pub once: Option<Once>,
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
        homes: Homes,
        jobs: Jobs,
        assets: Assets,
        journal: Journal,
        settings: Settings,
        processing: Processing,
        custody: Custody,
        schemas: Schemas,
        stills: Stills,
        fetch: Fetch,
        bucket_fetch: Fetch,
        master: &MasterKey,
    ) -> Ingest {
        let steady = Steady::begin(db.clock());
        Ingest {
            db,
            cpu,
            storage,
            homes,
            jobs,
            assets,
            journal,
            settings,
            processing,
            custody,
            schemas,
            stills,
            fetch,
            bucket_fetch,
            signer: direct::signer(master),
            md5: Lanes::start(),
            steady,
            config,
            calls: once::UnderWay::default(),
            under_way: Arc::default(),
            holds: Holds::default(),
            doubts: Doubts::default(),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many uploads are being received right now.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// What uploads have been promised of the disk.
    #[cfg(test)]
    pub fn set_aside_bytes(&self) -> u64 {
        self.storage.set_aside_bytes()
    }

    /// Makes uploads permanent and gives each its asset. All of them, or none.
    ///
    /// Runs to its end even when the caller goes away: half-way there is no safe place to stop.
    pub async fn keep(&self, caller: &Caller, taken: Vec<Taken>, note: Note) -> Result<Vec<Asset>> {
        if taken.is_empty() {
            return Err(Code::NoFile.because("The upload holds no file: send at least one file part."));
        }
        self.keep_with(caller, taken, note, |_| Ok(())).await
    }

    /// Those that came before each of these and have the same content: of that is told, nothing is merged.
    /// Pages with an upload key are told nothing of others.
    pub async fn duplicates(&self, caller: &Caller, assets: &[Asset]) -> Vec<Vec<AssetId>> {
        if matches!(caller, Caller::UploadKey { .. }) || self.config.duplicates == Duplicates::None {
            return Vec::new();
        }
        let (this, new): (_, Vec<_>) = (self.clone(), assets.iter().map(|a| (a.id, a.creator_id)).collect());
        let same = self.db.read(move |c| new.into_iter().map(|(id, creator)| this.same_as(c, id, creator)).collect());
        after_keeping(same.await)
    }

    fn same_as(&self, c: &Conn, id: AssetId, creator: i64) -> Result<Vec<AssetId>> {
        let of = match self.config.duplicates {
            Duplicates::None => return Ok(Vec::new()),
            Duplicates::Own => Some(creator),
            Duplicates::All => None,
        };
        assets::store::same_content(c, id, of, MOST_DUPLICATES)
    }

    /// Keeps uploads; what else is to be written with their rows is, or nothing is kept.
    async fn keep_with(
        &self,
        caller: &Caller,
        taken: Vec<Taken>,
        note: Note,
        also: impl FnOnce(&Tx) -> Result<()> + Send + 'static,
    ) -> Result<Vec<Asset>> {
        let mut note = Note { data: data::merged(Map::new(), note.data, Mode::Replace)?, ..note };
        note.data.append(&mut note.system);
        let (this, user) = (self.clone(), caller.user_id());
        let keeping = self.cpu.handle().spawn(async move { this.keep_all(user, taken, note, also).await });
        keeping.await.map_err(|e| Code::Internal.from("keeping an upload", e))?
    }

    async fn keep_all(
        &self,
        user: i64,
        taken: Vec<Taken>,
        note: Note,
        also: impl FnOnce(&Tx) -> Result<()> + Send + 'static,
    ) -> Result<Vec<Asset>> {
        let this = self.clone();
        let now = self.db.clock().now();
        let assets: Vec<_> = taken.iter().map(|file| new_asset(file, user, &note, now)).collect();
        let files = taken.into_iter().map(|file| file.place().map(|place| (file, place))).collect::<Result<_>>()?;
        self.commit(files, Storage::commit, move |tx| {
            let arrive = |asset: Asset| {
                let asset = Asset { uploaded_at: tx.now(), updated_at: tx.now(), ..asset };
                assets::store::insert(tx, &asset)?;
                this.schemas.settle(tx, asset.id)?;
                this.jobs.enqueue(tx, &SaveOriginal::of(&asset), Enqueue::default())?;
                this.homes.owe(tx, &asset)?;
                if let Some(arrival) = &note.arrival {
                    this.tell_arrival(tx, &asset, arrival)?;
                }
                Ok(asset)
            };
            let kept = assets.into_iter().map(arrive).collect::<Result<Vec<_>>>()?;
            also(tx)?;
            if let Some(once) = &note.once {
                once.note(tx, kept.iter().map(|asset| asset.id))?;
            }
            Ok(kept)
        })
        .await
    }

    /// Tells the catalogue and the journal of a new asset.
    fn tell_arrival(&self, tx: &Tx, asset: &Asset, arrival: &Arrival) -> Result<()> {
        // More may have been said, and answered, while an announced file was looked through.
        let announced = if arrival.phased { phases::store::find(tx, asset.id)? } else { None };
        let draft = match announced {
            Some(row) => catalogue::what_is_left(tx, row.draft)?,
            None => arrival.draft.clone(),
        };
        catalogue::describe(tx, asset.id, &draft, true)?;
        if arrival.public && !asset.content_type.starts_with("image/") {
            assets::store::set_public(tx, asset.id, &[ORIGINAL.to_owned()], true)?;
        }
        let by = json!({ "by": asset.creator_id });
        if arrival.phased {
            phases::store::forget(tx, asset.id)?;
            return self.journal.tell(tx, asset.id, Event::AssetUploaded, &by);
        }
        self.journal.tell(tx, asset.id, Event::AssetCreated, &by)
    }
}

/// What fails once a file is kept is logged: whoever is told of it would send the file again.
pub fn after_keeping<T: Default>(done: Result<T>) -> T {
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "something failed after a file was kept");
        T::default()
    })
}

fn new_asset(file: &Taken, user: i64, note: &Note, now: Instant) -> Asset {
    Asset {
        revision: file.revision,
        name: file.name.clone(),
        size_bytes: file.checksums.size_bytes,
        md5: file.checksums.md5_hex(),
        sha256: file.checksums.sha256_hex(),
        content_type: file.content_type.clone(),
        upload_source: note.source.clone(),
        data_schema_id: note.data_schema_id,
        data: note.data.clone(),
        ..Asset::arriving(file.id, user, now)
    }
}

impl Taken {
    fn place(&self) -> Result<crate::infra::storage::ObjectPath> {
        place::original(self.id, self.revision)
    }
}
