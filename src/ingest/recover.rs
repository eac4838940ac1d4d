//! After a crash: what lies in staging, and what becomes of it.
//!
//! | in staging | final name | row | it was | so |
//! |---|---|---|---|---|
//! | `tmp-…` | – | – | a derived object being written | removed |
//! | whole or part | no | no | an upload that was not finished | removed |
//! | whole | yes | no | kept, but nobody was told | the final name goes, the file is quarantined |
//! | whole | yes | yes | kept and recorded | the name in staging goes |
//!
//! Only staging is looked at, so a start takes the same time with ten assets or ten million.

use crate::assets::place;
use crate::assets::store;
use crate::error::Result;
use crate::infra::storage::staging;
use crate::ingest::Ingest;

impl Ingest {
    /// Brings staging in order. Runs before the first request is taken.
    pub async fn recover(&self) -> Result<()> {
        for name in self.storage.staged()? {
            let Some((id, revision)) = place::parse_original_name(&name) else {
                if !name.starts_with(staging::TEMPORARY) {
                    tracing::warn!(staged.name = name, "an unknown file in staging was removed");
                }
                self.storage.unstage(&name);
                continue;
            };
            let recorded = self.db.read(move |c| store::has_revision(c, id, revision)).await?;
            if !recorded && self.storage.is_linked(&name) {
                self.storage.uncommit(&place::original(id, revision)?);
                self.storage.quarantine(&name)?;
                tracing::warn!(asset.id = %id, "an upload that nobody was told about was quarantined");
            } else {
                self.storage.unstage(&name);
            }
        }
        Ok(())
    }
}
