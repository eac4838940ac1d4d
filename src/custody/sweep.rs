//! The job that removes the files of revisions and of assets that are off the record.
//!
//! It is owed in the transaction that took them off the record, so it is not forgotten, and run a
//! while later, so that those who are reading finish. Whoever is still making something of the
//! asset is waited for: what they leave behind goes, too.
//!
//! Invariant: no file goes that the record names, or is about to: the files of a revision that was
//! replaced and of an asset that is gone have names that never come back. Single conversions of a
//! revision that stays are swept by those who make them (`processing::sweep`).

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::assets::AssetId;
use crate::assets::place;
use crate::assets::store;
use crate::custody::Custody;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Job;
use crate::infra::jobs::JobId;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::processing::SweepConversions;

/// When those who work on an asset have been told to stop, how long until the next look.
const SOON: Duration = Duration::from_secs(2);

/// What has to go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Sweep {
    /// A revision that was replaced, and all that was made of it.
    Revision { id: AssetId, revision: u32 },
    /// Assets that are gone, each with its last revision, and the jobs that were still at them.
    Assets { gone: Vec<(AssetId, u32)>, makers: Vec<JobId> },
}

impl Sweep {
    /// Where what people have changed is followed up.
    pub const QUEUE_NAME: Queue = SweepConversions::QUEUE;
}

impl Job for Sweep {
    const KIND: &'static str = "custody.sweep";
    const QUEUE: Queue = Sweep::QUEUE_NAME;
    const MAX_ATTEMPTS: u32 = 20;
    const TIMEOUT: Duration = Duration::from_mins(10);
}

impl Run<Sweep> for Custody {
    async fn run(&self, job: Sweep, at: &Attempt) -> Result<()> {
        match job {
            Sweep::Revision { id, revision } => self.sweep_revision(id, revision, at).await,
            Sweep::Assets { gone, makers } => {
                if makers.iter().any(|job| self.jobs.is_under_way(*job)) {
                    return self.put_off(Sweep::Assets { gone, makers }, at).await;
                }
                for (id, last) in gone {
                    for revision in 1..=last {
                        self.homes.forget(id, revision).await?;
                    }
                    for folder in place::folders(id)? {
                        self.storage.delete_folder(&folder).await?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl Custody {
    /// Owes the removal of files, in the transaction that takes them off the record.
    pub fn owe(&self, tx: &Tx, sweep: &Sweep) -> Result<()> {
        self.owe_after(tx, sweep, self.linger())
    }

    fn owe_after(&self, tx: &Tx, sweep: &Sweep, wait: Duration) -> Result<()> {
        let when = Enqueue { run_at: Some(tx.now().plus(wait)), ..Enqueue::default() };
        self.jobs.enqueue(tx, sweep, when).map(|_| ())
    }

    async fn put_off(&self, sweep: Sweep, at: &Attempt) -> Result<()> {
        let (this, at) = (self.clone(), at.clone());
        self.db
            .write(move |tx| {
                this.owe_after(tx, &sweep, SOON)?;
                at.complete(tx)
            })
            .await
    }

    async fn sweep_revision(&self, id: AssetId, revision: u32, at: &Attempt) -> Result<()> {
        let this = self.clone();
        let (present, makers) = self
            .db
            .read(move |c| Ok((store::revision(c, id)?, this.processing.makers(c, id, Some(revision))?)))
            .await?;
        if present.is_some_and(|present| present <= revision) {
            return Ok(());
        }
        if !makers.is_empty() {
            return self.put_off(Sweep::Revision { id, revision }, at).await;
        }
        self.homes.forget(id, revision).await?;
        self.storage.delete_folder(&place::conversions(id, revision)?).await?;
        self.storage.delete_folder(&place::on_demand_images(id, revision)?).await
    }
}
