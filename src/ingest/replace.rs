//! Replacing: an asset's next content, under the same ticket.
//!
//! It is taken in like an upload, under the next revision, so the old content is served until one
//! transaction puts the new one in its place: the row starts again as after an upload, all that was
//! made of the old content goes off the record, and what was being made of it ends. The old files go
//! a while later (`custody::sweep`).
//!
//! Two at once are two revisions: the name in staging is what a number is taken by. Of these the
//! higher one stays; a lower one that ends later is refused.

use serde_json::Map;
use serde_json::Value;

use crate::accounts::Caller;
use crate::assets;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Full;
use crate::assets::data;
use crate::assets::data::Mode;
use crate::assets::place;
use crate::assets::store;
use crate::custody::Sweep;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::jobs::Enqueue;
use crate::infra::storage::Storage;
use crate::ingest::Ingest;
use crate::ingest::Intake;
use crate::ingest::Note;
use crate::ingest::SaveOriginal;
use crate::ingest::Taken;
use crate::ingest::new_asset;

/// How many may replace one asset at the same time.
const MOST_AT_ONCE: u32 = 8;

impl Ingest {
    /// Starts to receive the next content of an asset.
    pub async fn begin_replacing(&self, id: AssetId, name: &str, declared_bytes: u64) -> Result<Intake> {
        let present = self.assets.find(id).await?.asset;
        present.writable()?;
        for revision in present.revision.saturating_add(1)..=present.revision.saturating_add(MOST_AT_ONCE) {
            match self.begin_as(id, revision, place::original_name(id, revision), name, declared_bytes).await {
                Err(e) if e.code == Code::Conflict => {}
                begun => return begun,
            }
        }
        Err(Code::Conflict.because("Too many others are replacing this asset at the same time."))
    }

    /// Makes what was received the content of its asset. A note adds to what is written about it.
    ///
    /// Runs to its end even when the caller goes away.
    pub async fn replace(&self, caller: &Caller, taken: Taken, note: Note) -> Result<Asset> {
        let (this, user) = (self.clone(), caller.user_id());
        let keeping = self.cpu.handle().spawn(async move { this.replace_with(user, taken, note).await });
        keeping.await.map_err(|e| Code::Internal.from("replacing an original", e))?
    }

    async fn replace_with(&self, user: i64, taken: Taken, note: Note) -> Result<Asset> {
        let asset = new_asset(&taken, user, &note, self.db.clock().now());
        let (this, at) = (self.clone(), taken.place()?);
        let replaced = self.commit(vec![(taken, at)], Storage::commit, move |tx| this.record(tx, asset, note.data));
        // A refused one of the same number may just be being taken away.
        replaced.await.map_err(|e| if e.code == Code::AssetIdExists { overtaken() } else { e })
    }

    fn record(&self, tx: &Tx, new: Asset, said: Map<String, Value>) -> Result<Asset> {
        let Full { asset: old, conversions } = assets::full(tx, new.id)?;
        old.writable()?;
        let data_schema_id = if said.is_empty() { old.data_schema_id } else { new.data_schema_id };
        let new = Asset {
            public: old.public,
            creator_id: old.creator_id,
            uploaded_at: tx.now(),
            updated_at: tx.now(),
            upload_source: new.upload_source.clone().or(old.upload_source),
            data: data::merged(old.data, said, Mode::Append)?,
            data_schema_id,
            ..new
        };
        if !store::replace(tx, &new)? {
            return Err(overtaken());
        }
        self.schemas.settle(tx, new.id)?;
        self.processing.abandon(tx, new.id, "The original was replaced.")?;
        store::remove_conversions(tx, new.id)?;
        let again = conversions.into_iter().filter(|c| c.handed.is_none() && !c.is_internal()).map(|c| c.key).collect();
        self.jobs.enqueue(tx, &SaveOriginal { again, ..SaveOriginal::of(&new) }, Enqueue::default())?;
        self.homes.owe(tx, &new)?;
        // Revisions between the two were refused, or are about to be; they take themselves away.
        self.custody.owe(tx, &Sweep::Revision { id: new.id, revision: old.revision })?;
        self.assets.changes(tx, new.id);
        Ok(new)
    }
}

fn overtaken() -> Error {
    Code::Conflict.because("Somebody else replaced this asset meanwhile; their content stays.")
}
