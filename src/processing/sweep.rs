//! The job that removes files of conversions which the record does not name.
//!
//! It is owed in the transaction that made them superfluous: a conversion was made again, deleted or
//! handed in, or a round ended without recording what it had made. It runs a while later, so that those
//! who are reading finish, and looks at all that lies there of a revision: so also what a crash left goes.
//!
//! Invariant: no file goes that the record names, or is about to. Therefore nothing goes while something
//! is being made of the asset; a conversion that is just being handed in is known by its second name in
//! staging, and looked at again; and the files are taken away inside a write, between which and their last look at the record
//! nothing can be recorded.

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
}

impl Job for SweepConversions {
    const KIND: &'static str = "processing.sweep";
    const QUEUE: Queue = Queue("upkeep");
    const MAX_ATTEMPTS: u32 = 20;
    const TIMEOUT: Duration = Duration::from_mins(10);
}

impl Run<SweepConversions> for Processing {
    async fn run(&self, job: SweepConversions, at: &Attempt) -> Result<()> {
        let (this, at) = (self.clone(), at.clone());
        let aside = self
            .db
            .write(move |tx| {
                let aside = this.sweep(tx, &job)?;
                at.complete(tx)?;
                Ok(aside)
            })
            .await?;
        let storage = self.storage.clone();
        self.cpu
            .run(move || {
                for name in &aside {
                    storage.unstage(name);
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
        self.owe_sweep_after(tx, &SweepConversions { id, revision }, self.linger)
    }

    fn owe_sweep_after(&self, tx: &Tx, sweep: &SweepConversions, wait: Duration) -> Result<()> {
        let when = Enqueue { run_at: Some(tx.now().plus(wait)), ..Enqueue::default() };
        self.jobs.enqueue(tx, sweep, when).map(|_| ())
    }

    /// Takes the files away, or puts it off; the names in staging under which they are to be removed.
    fn sweep(&self, tx: &Tx, job: &SweepConversions) -> Result<Vec<String>> {
        let SweepConversions { id, revision } = *job;
        let is_present = asset_store::revision(tx, id)? == Some(revision);
        if is_present && self.is_busy(tx, id)? {
            return self.owe_sweep_after(tx, job, LATER).map(|()| Vec::new());
        }
        if !self.makers(tx, id, Some(revision))?.is_empty() || self.placing.try_write().is_err() {
            return self.owe_sweep_after(tx, job, SOON).map(|()| Vec::new());
        }
        let recorded = if is_present { asset_store::conversions(tx, id)? } else { Vec::new() };
        let recorded: HashSet<String> = recorded.iter().map(place::conversion_name).collect();
        let (mut aside, mut is_handed_in) = (Vec::new(), false);
        for (name, is_shared) in self.storage.names(&place::conversions(id, revision)?)? {
            if recorded.contains(&name) {
                continue;
            }
            if is_shared {
                is_handed_in = true;
            } else {
                aside.extend(self.storage.set_aside(&place::within(id, revision, &name)?)?);
            }
        }
        if is_handed_in {
            self.owe_sweep_after(tx, job, SOON)?;
        }
        Ok(aside)
    }
}
