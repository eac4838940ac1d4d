//! What is made from an asset after it was saved, or when somebody asks.
//!
//! A *round* is one asked-for batch (the API calls it a job); its *steps* are processing
//! keys. Opening a round writes it, its steps and one owed job for each step in a single
//! transaction; the last step to end closes the round and tells `file-processed`. An asset of which
//! nothing is to be made is told of at once. Rounds about many assets are kept here, too; other rooms
//! do their work ([`Processing::open_bulk`]).
//!
//! What is made again lies beside what was made before until it is on record; then the one before is
//! taken away ([`SweepConversions`]).
//!
//! A new processing key is one file in [`keys`] and one line in [`keys::all`].

mod cancel;
mod film;
pub mod keys;
pub mod model;
mod placing;
mod run;
mod store;
mod sweep;

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

pub use film::RunFilm;
pub use model::Bulk;
pub use model::Round;
pub use model::RoundStatus;
pub use model::Step;
pub use run::RunStep;
pub use sweep::SweepConversions;

use crate::accounts::Caller;
use crate::assets;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::error::Code;
use crate::error::Result;
use crate::films::Films;
use crate::homes::Homes;
use crate::infra::db::Conn;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Job;
use crate::infra::jobs::JobId;
use crate::infra::jobs::Jobs;
use crate::infra::storage::Storage;
use crate::journal::Journal;
use crate::processing::keys::ProcessingKey;
use crate::processing::keys::Work;
use crate::processing::placing::Placing;
use crate::settings::Settings;
use crate::settings::Values;
use crate::stills::Stills;
use crate::support::clock::Instant;
use crate::support::cpu::Cpu;
use crate::support::page::Page;

/// What this process makes by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The keys that run by themselves after an asset was saved, where they apply.
    pub automatic: Vec<String>,
}

/// Opens and runs rounds; cheap to clone.
#[derive(Clone)]
pub struct Processing {
    config: Config,
    /// How long files of what is off the record stay for those who are reading them.
    linger: Duration,
    db: Db,
    cpu: Cpu,
    storage: Storage,
    homes: Homes,
    jobs: Jobs,
    assets: Assets,
    journal: Journal,
    settings: Settings,
    stills: Stills,
    films: Films,
    placing: Placing,
}

impl Processing {
    #[expect(clippy::too_many_arguments, reason = "the wiring names each collaborator once")]
    pub fn new(
        config: Config,
        linger: Duration,
        db: Db,
        cpu: Cpu,
        storage: Storage,
        homes: Homes,
        jobs: Jobs,
        assets: Assets,
        journal: Journal,
        settings: Settings,
        stills: Stills,
        films: Films,
    ) -> Processing {
        Processing {
            placing: Placing::new(cpu.clone(), storage.clone()),
            config,
            linger,
            db,
            cpu,
            storage,
            homes,
            jobs,
            assets,
            journal,
            settings,
            stills,
            films,
        }
    }

    /// Opens the round that follows saving, inside the transaction that saved: what the settings
    /// ask for, and what the content that was here before had (`again`). When that is nothing, it is
    /// told at once that all is done.
    pub fn open_automatic(&self, tx: &Tx, asset: &Asset, again: &[String]) -> Result<()> {
        let settings = self.settings.now();
        let keys = applicable(asset, &settings, |name| {
            self.config.automatic.iter().chain(again).any(|n| n == name) || settings.makes(name)
        });
        if keys.is_empty() {
            return self.open_nothing(tx, asset.id, asset.revision);
        }
        self.open(tx, asset, asset.creator_id, &keys).map(|_| ())
    }

    /// Tells, inside the transaction that saved, that of this content nothing is to be made:
    /// whoever waits for `file-processed` waits for every asset.
    pub fn open_nothing(&self, tx: &Tx, id: AssetId, revision: u32) -> Result<()> {
        self.tell(tx, (id, revision), None)
    }

    /// Opens a round for the keys that are known and apply; the others are ignored, as the
    /// contract has it. `None` when nothing is left to do.
    pub async fn ask(&self, caller: &Caller, id: AssetId, keys: Vec<String>) -> Result<Option<i64>> {
        let (this, user) = (self.clone(), caller.user_id());
        self.db
            .write(move |tx| {
                let asset = assets::full(tx, id)?.asset;
                this.ask_within(tx, &asset, user, &keys)
            })
            .await
    }

    /// The same, inside a transaction.
    pub fn ask_within(&self, tx: &Tx, asset: &Asset, user: i64, keys: &[String]) -> Result<Option<i64>> {
        asset.ready()?;
        let settings = self.settings.now();
        let keys = applicable(asset, &settings, |name| keys.iter().any(|n| n == name));
        if keys.is_empty() { Ok(None) } else { self.open(tx, asset, user, &keys).map(Some) }
    }

    /// Opens a round about many assets, with the one job that does it. `job` is given its number.
    pub fn open_bulk<J: Job>(
        &self,
        tx: &Tx,
        user: i64,
        kind: Bulk,
        input: &Map<String, Value>,
        job: impl FnOnce(i64) -> J,
    ) -> Result<i64> {
        let round = store::insert_bulk(tx, user, kind.word(), input)?;
        let job = self.jobs.enqueue(tx, &job(round), Enqueue::default())?;
        store::insert_step(tx, round, kind.step(), job)?;
        Ok(round)
    }

    /// What has come of a round about many so far; fails when it has ended.
    pub fn outcome(&self, c: &Conn, round: i64) -> Result<Map<String, Value>> {
        let found = store::find(c, round)?.filter(|round| round.completed_at.is_none());
        found.map(|round| round.outcome).ok_or_else(|| Code::Conflict.because("This job has ended already."))
    }

    /// Writes down how far a round about many is.
    pub fn bulk_moved(&self, tx: &Tx, round: i64, kind: Bulk, percent: u8, outcome: &Map<String, Value>) -> Result<()> {
        store::set_outcome(tx, round, outcome)?;
        store::progress(tx, round, &[kind.step()], percent)?;
        Ok(())
    }

    /// Ends a round about many.
    pub fn end_bulk(&self, tx: &Tx, round: i64, kind: Bulk, started: Instant, failure: Option<&str>) -> Result<()> {
        store::end_step(tx, round, kind.step(), started, failure).map(|_| ())
    }

    /// Whether something is to be made of an asset, or is being made.
    pub fn is_busy(&self, c: &Conn, id: AssetId) -> Result<bool> {
        Ok(!store::open_rounds(c, id)?.is_empty())
    }

    /// The jobs that are making something of an asset's content, or of any that it has had, right
    /// now, whether it is wanted any more or not: until they end, files may appear.
    pub fn makers(&self, c: &Conn, id: AssetId, revision: Option<u32>) -> Result<Vec<JobId>> {
        Ok(store::jobs_of(c, id, revision)?.into_iter().filter(|job| self.jobs.is_under_way(*job)).collect())
    }

    pub async fn find(&self, round: i64) -> Result<Round> {
        self.db.read(move |c| Ok(store::find(c, round)?.ok_or(Code::JobNotFound)?)).await
    }

    /// The rounds that a user asked for, newest first, and how many there are.
    pub async fn list(&self, user: i64, page: Page) -> Result<(Vec<Round>, u64)> {
        self.db.read(move |c| store::list(c, user, page)).await
    }

    fn open(&self, tx: &Tx, asset: &Asset, user: i64, keys: &[&dyn ProcessingKey]) -> Result<i64> {
        let kind = keys.iter().map(|k| k.family()).max().unwrap_or(keys::Family::Image);
        let round = store::insert(tx, asset, user, kind)?;
        let Asset { id, revision, .. } = *asset;
        let mut film = None;
        for key in keys {
            let job = match key.work() {
                Work::Still(_) => {
                    let step = RunStep { round, key: key.name().to_owned(), id, revision };
                    self.jobs.enqueue(tx, &step, Enqueue::default())?
                }
                Work::Film(_) => match film {
                    Some(job) => job,
                    None => {
                        *film.insert(self.jobs.enqueue(tx, &RunFilm { round, id, revision }, Enqueue::default())?)
                    }
                },
            };
            store::insert_step(tx, round, key.name(), job)?;
        }
        Ok(round)
    }
}

fn applicable<'a>(asset: &Asset, settings: &'a Values, is_asked: impl Fn(&str) -> bool) -> Vec<&'a dyn ProcessingKey> {
    keys::in_force(settings).filter(|key| is_asked(key.name()) && key.applies_to(asset)).collect()
}
