//! The job after a schema has changed: its assets are judged and indexed anew.
//!
//! Batches, each in a transaction of its own, so that nobody waits long for the one writer. A
//! batch that is done again does no harm, so after a crash the job begins at the beginning.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::assets;
use crate::error::Result;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::schemas::Schemas;

/// Assets in one transaction: some tens of milliseconds.
const BATCH: u32 = 200;

/// Judges and indexes the assets of a schema anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReapplySchema {
    pub schema: i64,
}

impl Job for ReapplySchema {
    const KIND: &'static str = "schemas.reapply";
    const QUEUE: Queue = Queue("save");
    const MAX_ATTEMPTS: u32 = 8;
    const TIMEOUT: Duration = Duration::from_hours(6);
    const PRIORITY: i32 = -10;
}

impl Run<ReapplySchema> for Schemas {
    async fn run(&self, job: ReapplySchema, at: &Attempt) -> Result<()> {
        let mut after = 0;
        loop {
            let (this, at) = (self.clone(), at.clone());
            let done = self
                .db
                .write(move |tx| {
                    let batch = assets::store::of_schema(tx, job.schema, after, BATCH)?;
                    let Some(last) = batch.last() else {
                        at.complete(tx)?;
                        return Ok(None);
                    };
                    for (_, id) in &batch {
                        this.settle(tx, *id)?;
                        assets::store::index_anew(tx, *id)?;
                    }
                    Ok(Some(last.0))
                })
                .await?;
            match done {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }
}
