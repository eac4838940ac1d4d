//! Cancelling a round: what it still owes is owed no longer.
//!
//! Steps that have ended keep how they ended; the others end as failed, with who cancelled them
//! as the reason, which is all that the contract has a word for. One owed job may do several
//! steps; it is told to stop after the commit, and can record nothing any more.

use serde_json::json;

use crate::error::Code;
use crate::error::Result;
use crate::journal::Event;
use crate::processing::Processing;
use crate::processing::Round;
use crate::processing::store;

impl Processing {
    /// Ends what a round has under way or waiting; `by` says in words who wants that. The round as it is then.
    pub async fn cancel(&self, round: i64, by: &str) -> Result<Round> {
        let (this, sentence) = (self.clone(), format!("Cancelled by {by}."));
        let cancelled = self
            .db
            .write(move |tx| {
                let missing = || Code::JobNotFound.because(format!("no job {round}"));
                let before = store::find(tx, round)?.ok_or_else(missing)?;
                if before.completed_at.is_some() {
                    return Err(Code::Conflict.because("This job has ended already."));
                }
                for job in store::open_jobs(tx, round)? {
                    this.jobs.cancel(tx, job)?;
                }
                store::cancel(tx, round, &sentence)?;
                let detail = json!({ "job_id": round, "revision": before.revision });
                this.journal.tell(tx, before.asset_id, Event::FileProcessed, &detail)?;
                store::find(tx, round)?.ok_or_else(missing)
            })
            .await?;
        self.assets.forget(cancelled.asset_id);
        Ok(cancelled)
    }
}
