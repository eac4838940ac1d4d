//! Cancelling a round: what it still owes is owed no longer.
//!
//! Steps that have ended keep how they ended; the others end as failed, with who cancelled them
//! as the reason, which is all that the contract has a word for. One owed job may do several
//! steps; it is told to stop after the commit, and can record nothing any more.
//!
//! The same happens to all rounds of an asset whose content is deleted or replaced: what is made
//! of the old one must not appear beside the new one. Nobody is told that these were processed.

use serde_json::Map;

use crate::assets::AssetId;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::processing::Processing;
use crate::processing::Round;
use crate::processing::RoundStatus;
use crate::processing::store;

impl Processing {
    /// Ends what a round has under way or waiting; `by` says in words who wants that. The round as it is then.
    pub async fn cancel(&self, round: i64, by: &str) -> Result<Round> {
        let (this, sentence) = (self.clone(), format!("Cancelled by {by}."));
        let cancelled = self
            .db
            .write(move |tx| {
                let before = store::find(tx, round)?.ok_or(Code::JobNotFound)?;
                if before.completed_at.is_some() {
                    return Err(Code::Conflict.because("This job has ended already."));
                }
                this.end_early(tx, round, &sentence)?;
                if let Some(asset) = before.asset_id {
                    this.tell(tx, (asset, before.revision.unwrap_or_default()), Some(round))?;
                    this.assets.changes(tx, asset);
                }
                Ok(store::find(tx, round)?.ok_or(Code::JobNotFound)?)
            })
            .await?;
        Ok(cancelled)
    }

    /// Ends all that is under way or waiting for an asset; `sentence` says why. Nothing that was begun
    /// before can be recorded after this commit.
    pub fn abandon(&self, tx: &Tx, id: AssetId, sentence: &str) -> Result<()> {
        let outcome = Map::from_iter([
            ("status".to_owned(), RoundStatus::Error.word().into()),
            ("message".to_owned(), sentence.into()),
        ]);
        for round in store::open_rounds(tx, id)? {
            self.end_early(tx, round, sentence)?;
            store::set_outcome(tx, round, &outcome)?;
        }
        Ok(())
    }

    /// What it has made is not on record, and has to be swept.
    fn end_early(&self, tx: &Tx, round: i64, sentence: &str) -> Result<()> {
        for job in store::open_jobs(tx, round)? {
            self.jobs.cancel(tx, job)?;
        }
        if let Some(Round { asset_id: Some(id), revision: Some(revision), .. }) = store::find(tx, round)? {
            self.owe_sweep(tx, id, revision)?;
        }
        store::cancel(tx, round, sentence)
    }
}
