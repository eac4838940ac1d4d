//! The job of one step: let its key work, record what it made, and close the round if it was
//! the last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::assets;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::Making;
use crate::assets::store as asset_store;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::journal::Event;
use crate::processing::Processing;
use crate::processing::keys;
use crate::processing::keys::Bench;
use crate::processing::keys::Made;
use crate::processing::keys::ProcessingKey;
use crate::processing::keys::Work;
use crate::processing::store;
use crate::processing::store::Ended;
use crate::support::clock::Instant;

/// One processing key of one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunStep {
    pub round: i64,
    pub key: String,
    pub id: AssetId,
    pub revision: u32,
}

impl RunStep {
    /// Where pictures are made in the background.
    pub const QUEUE_NAME: Queue = Queue("image");
}

impl Job for RunStep {
    const KIND: &'static str = "processing.step";
    const QUEUE: Queue = RunStep::QUEUE_NAME;
    const MAX_ATTEMPTS: u32 = 3;
    const TIMEOUT: Duration = Duration::from_mins(5);
}

impl Run<RunStep> for Processing {
    async fn run(&self, job: RunStep, at: &Attempt) -> Result<()> {
        let started = self.db.clock().now();
        let id = job.id;
        let full = match self.db.read(move |c| assets::full(c, id)).await {
            Ok(full) if full.asset.revision == job.revision => full,
            // Deleted or replaced meanwhile: nobody waits for this any more.
            Ok(_) => return Ok(()),
            Err(e) if e.code == Code::AssetNotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let settings = self.settings.now();
        let bench = Bench {
            placing: self.placing.clone(),
            storage: self.storage.clone(),
            homes: self.homes.clone(),
            stills: self.stills.clone(),
            films: self.films.clone(),
            settings: Arc::clone(&settings),
            making: Making { revision: job.revision, round: job.round, begun_at: started },
        };
        let key = keys::in_force(&settings).find(|key| key.name() == job.key);
        let was_handed_in = full.conversion(&job.key).is_some_and(|made| made.handed.is_some());
        let made = match key.filter(|_| !was_handed_in).map(ProcessingKey::work) {
            Some(Work::Still(key)) => key.run(&full.asset, &bench).await?,
            // Taken out of the settings meanwhile, or made by people.
            Some(Work::Film(_)) | None => Made::default(),
        };
        let (this, at) = (self.clone(), at.clone());
        self.db
            .write(move |tx| {
                // Deleted or replaced at this very moment: nothing comes of it.
                if !asset_store::is_present(tx, job.id, job.revision)? {
                    return at.complete(tx);
                }
                this.assets.changes(tx, id);
                this.record(tx, (job.id, job.revision), made.conversions)?;
                if at.number() > 1 {
                    // The attempt before may have made something that this one has not.
                    this.owe_sweep(tx, job.id, job.revision)?;
                }
                if !made.facts.is_empty() {
                    asset_store::add_facts(tx, job.id, job.revision, &made.facts)?;
                }
                if made.on_demand {
                    asset_store::set_on_demand(tx, job.id, job.revision)?;
                }
                this.end(tx, (job.id, job.revision), job.round, &job.key, started, None)?;
                at.complete(tx)
            })
            .await
    }

    async fn gave_up(&self, job: RunStep, error: &Error) {
        let (this, id, sentence) = (self.clone(), job.id, error.public().to_owned());
        let unplayable = error.code == Code::BadVideo;
        let started = self.db.clock().now();
        let recorded = self
            .db
            .write(move |tx| {
                this.assets.changes(tx, id);
                if unplayable {
                    asset_store::refuse(tx, job.id, job.revision, &sentence)?;
                } else {
                    asset_store::set_error(tx, job.id, job.revision, &job.key, &sentence)?;
                }
                this.owe_sweep(tx, job.id, job.revision)?;
                this.end(tx, (job.id, job.revision), job.round, &job.key, started, Some(&sentence))
            })
            .await;
        if let Err(e) = recorded {
            tracing::error!(asset.id = %id, error = %e, "a failed step could not be recorded");
        }
    }
}

impl Processing {
    /// Puts on record what was made. Who may read it is as the settings are by now: making a film
    /// takes its time, and they may have been changed meanwhile. What had its key before goes later; so does
    /// what was made in vain, because people have handed in one meanwhile.
    pub(super) fn record(&self, tx: &Tx, (id, revision): (AssetId, u32), made: Vec<Conversion>) -> Result<()> {
        let speaks = made.iter().any(|conversion| !conversion.is_internal());
        let access = if speaks { self.settings.access(tx)? } else { BTreeMap::new() };
        let before = if made.is_empty() { Vec::new() } else { asset_store::conversions(tx, id)? };
        if before.iter().any(|before| made.iter().any(|made| made.key == before.key)) {
            self.owe_sweep(tx, id, revision)?;
        }
        for conversion in made {
            let public = access.get(&conversion.key).copied().unwrap_or(conversion.public);
            asset_store::put_conversion(tx, id, &Conversion { public, ..conversion })?;
        }
        Ok(())
    }

    /// Ends a step, and tells the journal: of an add-on that has done its work, and of the round that the
    /// last step closes.
    pub(super) fn end(
        &self,
        tx: &Tx,
        (id, revision): (AssetId, u32),
        round: i64,
        key: &str,
        started: Instant,
        failure: Option<&str>,
    ) -> Result<()> {
        if failure.is_none() {
            asset_store::clear_error(tx, id, revision, key)?;
        }
        let ended = store::end_step(tx, round, key, started, failure)?;
        if ended != Ended::Nothing && failure.is_none() && keys::is_addon(key) {
            let detail = json!({ "keys": [key], "job_id": round, "revision": revision });
            self.journal.tell(tx, id, Event::AddonProcessed, &detail)?;
        }
        if ended == Ended::Round { self.tell(tx, (id, revision), Some(round)) } else { Ok(()) }
    }

    /// Tells that what was to be made of an asset's content is made, or failed: by a round, or without
    /// one because there was nothing to make.
    pub(super) fn tell(&self, tx: &Tx, (id, revision): (AssetId, u32), round: Option<i64>) -> Result<()> {
        let detail = match round {
            Some(round) => json!({ "job_id": round, "revision": revision }),
            None => json!({ "revision": revision }),
        };
        self.journal.tell(tx, id, Event::FileProcessed, &detail)
    }
}
