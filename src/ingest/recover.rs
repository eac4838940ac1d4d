//! After a crash: what lies in staging, and what becomes of it.
//!
//! | in staging | final name | row | it was | so |
//! |---|---|---|---|---|
//! | `tmp-…` | – | – | a derived object being written, or one being removed | removed |
//! | whole or part | no | – | an upload that was not finished | removed |
//! | `….resumable` | – | – | an upload that comes in pieces | stays when its row is open; else it goes |
//! | whole, of such an upload | maybe | none | about to be kept | both names go, it is kept again |
//! | whole | yes | none, or of an earlier revision | kept, but nobody was told | the final name goes, the file is quarantined |
//! | whole | yes | of this revision | kept and recorded | the name in staging goes |
//! | whole | yes | of a later revision | replaced meanwhile, or refused for that | both names go |
//! | a conversion | yes | does not name it | handed in, but nobody was told, or replaced meanwhile | both names go |
//! | fetched or sent | no | a row waits for it | on its way | it stays |
//! | fetched or sent | yes | a row waits for it | kept, but not recorded | the final name goes; it is kept again |
//! | fetched or sent | – | no row waits for it | kept and recorded, or given up | the name in staging goes |
//! | `phase-…` | – | of an upload in phases | as far as it was acknowledged | cut to that; it can go on |
//! | `phase-…` | any | none, or of the asset | kept, given up or never announced | removed |
//! | a conversion | yes | names it | kept and recorded | the name in staging goes |
//!
//! Only staging is looked at, so a start takes the same time with ten assets or ten million. Files
//! that were to be removed are owed by rows.

use crate::assets::AssetId;
use crate::assets::place;
use crate::assets::store;
use crate::error::Result;
use crate::infra::storage::staging;
use crate::ingest;
use crate::ingest::Ingest;

impl Ingest {
    /// Brings staging in order. Runs before the first request is taken.
    pub async fn recover(&self) -> Result<()> {
        self.recover_phased().await?;
        self.recover_vouchers().await?;
        for name in self.storage.staged()? {
            if place::parse_phased_name(&name).is_some() {
                continue;
            }
            if let Some(id) = place::parse_resumable_name(&name) {
                self.recover_resumable(&name, id).await?;
            } else if let Some((id, revision)) = place::parse_original_name(&name) {
                self.recover_original(&name, id, revision).await?;
            } else if let Some((id, revision, key, handed)) = place::parse_handed_name(&name) {
                self.recover_conversion(&name, id, revision, key, handed).await?;
            } else if let Some(id) = place::parse_waiting_name(&name) {
                self.recover_waiting(&name, id).await?;
            } else {
                if !name.starts_with(staging::TEMPORARY) {
                    tracing::warn!(staged.name = name, "an unknown file in staging was removed");
                }
                self.storage.unstage(&name);
            }
        }
        self.take_up_resumables().await
    }

    async fn recover_original(&self, name: &str, id: AssetId, revision: u32) -> Result<()> {
        let recorded = self.db.read(move |c| store::revision(c, id)).await?;
        let comes_in_pieces = self.is_resumable(id).await?;
        if recorded.is_none() && comes_in_pieces {
            // A second name of bytes that have another one here, and are kept anew from there.
            self.storage.uncommit(&place::original(id, revision)?);
        }
        if recorded == Some(revision) || comes_in_pieces || !self.storage.is_linked(name) {
            self.storage.unstage(name);
            return Ok(());
        }
        let place = place::original(id, revision)?;
        if recorded.is_some_and(|recorded| recorded > revision) {
            self.storage.uncommit(&place);
            self.storage.unstage(name);
            return Ok(());
        }
        // Whenever this is cut off, the name in staging is still one of two, and the next start goes on.
        self.storage.quarantine(name)?;
        self.storage.uncommit(&place);
        self.storage.unstage(name);
        tracing::warn!(asset.id = %id, "an upload that nobody was told about was quarantined");
        Ok(())
    }

    async fn recover_waiting(&self, name: &str, id: AssetId) -> Result<()> {
        let staged = name.to_owned();
        if !self.db.read(move |c| ingest::store::waits_for(c, id, &staged)).await? {
            self.storage.unstage(name);
        } else if self.storage.is_linked(name) {
            self.storage.uncommit(&place::original(id, 1)?);
        }
        Ok(())
    }

    async fn recover_conversion(&self, name: &str, id: AssetId, revision: u32, key: &str, handed: &str) -> Result<()> {
        let conversions = self.db.read(move |c| store::conversions(c, id)).await?;
        let is_named =
            conversions.iter().any(|c| c.key == key && c.revision == revision && c.handed.as_deref() == Some(handed));
        if !is_named {
            self.storage.uncommit(&place::handed_in(id, revision, key, handed)?);
        }
        self.storage.unstage(name);
        Ok(())
    }
}
