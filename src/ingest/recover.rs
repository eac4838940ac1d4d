//! After a crash: what lies in staging, and what becomes of it.
//!
//! | in staging | final name | row | it was | so |
//! |---|---|---|---|---|
//! | `tmp-…` | – | – | a derived object being written, or one being removed | removed |
//! | whole or part | no | – | an upload that was not finished | removed |
//! | whole | yes | none, or of an earlier revision | kept, but nobody was told | the final name goes, the file is quarantined |
//! | whole | yes | of this revision | kept and recorded | the name in staging goes |
//! | whole | yes | of a later revision | replaced meanwhile, or refused for that | both names go |
//! | a conversion | yes | does not name it | handed in, but nobody was told, or replaced meanwhile | both names go |
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
use crate::ingest::Ingest;
use crate::ingest::phases;

impl Ingest {
    /// Brings staging in order. Runs before the first request is taken.
    pub async fn recover(&self) -> Result<()> {
        self.recover_phased().await?;
        for name in self.storage.staged()? {
            if name.starts_with(phases::STAGED) {
                continue;
            }
            if let Some((id, revision)) = place::parse_original_name(&name) {
                self.recover_original(&name, id, revision).await?;
            } else if let Some((id, revision, key, handed)) = place::parse_handed_name(&name) {
                self.recover_conversion(&name, id, revision, key, handed).await?;
            } else {
                if !name.starts_with(staging::TEMPORARY) {
                    tracing::warn!(staged.name = name, "an unknown file in staging was removed");
                }
                self.storage.unstage(&name);
            }
        }
        Ok(())
    }

    async fn recover_original(&self, name: &str, id: AssetId, revision: u32) -> Result<()> {
        let recorded = self.db.read(move |c| store::revision(c, id)).await?;
        if recorded == Some(revision) || !self.storage.is_linked(name) {
            self.storage.unstage(name);
            return Ok(());
        }
        self.storage.uncommit(&place::original(id, revision)?);
        if recorded.is_some_and(|recorded| recorded > revision) {
            self.storage.unstage(name);
            return Ok(());
        }
        self.storage.quarantine(name)?;
        tracing::warn!(asset.id = %id, "an upload that nobody was told about was quarantined");
        Ok(())
    }

    async fn recover_conversion(&self, name: &str, id: AssetId, revision: u32, key: &str, handed: &str) -> Result<()> {
        let conversions = self.db.read(move |c| store::conversions(c, id)).await?;
        let is_named =
            conversions.iter().any(|c| c.key == key && c.revision == revision && c.handed.as_deref() == Some(handed));
        if !is_named {
            self.storage.uncommit(&place::conversion(id, revision, key, handed)?);
        }
        self.storage.unstage(name);
        Ok(())
    }
}
