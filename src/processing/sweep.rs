//! The job that removes files of conversions which the record does not name.
//!
//! It is owed in the transaction that made them superfluous: a conversion was made again, deleted or
//! handed in, or a round ended without recording what it had made. It has two parts. The first notes
//! the names of all that lies there of a revision and is not on record; so also what a crash left is found. The second
//! removes them a while later, so that those who are reading finish.
//!
//! Invariant: no file goes that the record names, or ever will. A name is given once: by a round, which is
//! looked for only when none is open and nothing is being made or placed, or to what is handed in, which has its second
//! name in staging until it is on record. So what was noted stays superfluous.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::assets::AssetId;
use crate::assets::place;
use crate::assets::store as asset_store;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::processing::Processing;

/// When an asset is being worked on, how long until the next look.
const LATER: Duration = Duration::from_secs(30);

/// The same when those who work on it have been told to stop, or are about to end.
const SOON: Duration = Duration::from_secs(2);

/// What was made of a revision, and is not on record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepConversions {
    pub id: AssetId,
    pub revision: u32,
    /// What was found; absent before it was looked for.
    pub names: Option<Vec<String>>,
}

impl Job for SweepConversions {
    const KIND: &'static str = "processing.sweep";
    const QUEUE: Queue = Queue("upkeep");
    const MAX_ATTEMPTS: u32 = 20;
    const TIMEOUT: Duration = Duration::from_mins(10);
}

impl Run<SweepConversions> for Processing {
    async fn run(&self, job: SweepConversions, at: &Attempt) -> Result<()> {
        let Some(names) = job.names else {
            let (this, at) = (self.clone(), at.clone());
            let looked = move |tx: &Tx| {
                this.look(tx, job.id, job.revision)?;
                at.complete(tx)
            };
            return self.db.write_relaxed(looked).await;
        };
        let storage = self.storage.clone();
        self.cpu
            .run(move || {
                for name in names {
                    if let Some(aside) = storage.set_aside(&place::within(job.id, job.revision, &name)?)? {
                        storage.unstage(&aside);
                    }
                }
                Ok(())
            })
            .await
    }
}

impl Processing {
    /// Owes the removal of what lies there of a revision and is not on record, in the transaction that
    /// took it off the record, or ended its making.
    pub fn owe_sweep(&self, tx: &Tx, id: AssetId, revision: u32) -> Result<()> {
        self.owe_look(tx, id, revision, Duration::ZERO)
    }

    fn owe_look(&self, tx: &Tx, id: AssetId, revision: u32, wait: Duration) -> Result<()> {
        let unique_key = Some(format!("{id}.{revision}"));
        let when = Enqueue { run_at: Some(tx.now().plus(wait)), unique_key, ..Enqueue::default() };
        self.jobs.enqueue(tx, &SweepConversions { id, revision, names: None }, when).map(drop)
    }

    /// Notes what is to be removed, or puts that off.
    fn look(&self, tx: &Tx, id: AssetId, revision: u32) -> Result<()> {
        let is_present = asset_store::revision(tx, id)? == Some(revision);
        if is_present && self.is_busy(tx, id)? {
            return self.owe_look(tx, id, revision, LATER);
        }
        if !self.makers(tx, id, Some(revision))?.is_empty() || self.placing.is_under_way() {
            return self.owe_look(tx, id, revision, SOON);
        }
        let recorded = if is_present { asset_store::conversions(tx, id)? } else { Vec::new() };
        let recorded: HashSet<String> = recorded.iter().map(place::conversion_name).collect();
        let mut names = self.storage.names(&place::conversions(id, revision)?)?;
        names.retain(|name| !recorded.contains(name));
        if names.is_empty() {
            return Ok(());
        }
        let arriving = self.storage.staged()?;
        let arriving = arriving.iter().filter_map(|name| place::parse_handed_name(name));
        let arriving: HashSet<String> = arriving
            .filter(|(of, at, ..)| (*of, *at) == (id, revision))
            .map(|(.., key, handed)| place::handed_in_name(key, handed))
            .collect();
        let before = names.len();
        names.retain(|name| !arriving.contains(name));
        if names.len() < before {
            self.owe_look(tx, id, revision, SOON)?;
        }
        if names.is_empty() {
            return Ok(());
        }
        let when = Enqueue { run_at: Some(tx.now().plus(self.linger)), ..Enqueue::default() };
        self.jobs.enqueue(tx, &SweepConversions { id, revision, names: Some(names) }, when).map(drop)
    }
}
