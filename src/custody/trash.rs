//! Deleting and fetching back.
//!
//! Deleting the original moves an asset into the trash: its conversions go, and whatever is being made
//! of it ends. The original stays until the trash is emptied, so that fetching the asset back is
//! clearing a mark and making again what the settings ask for. In the trash an asset is hidden:
//! `assets::full` does not find it.

use serde_json::json;

use crate::accounts::Caller;
use crate::assets;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::Full;
use crate::assets::ORIGINAL;
use crate::assets::Status;
use crate::assets::store;
use crate::custody::Custody;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::journal::Event;

/// Every conversion.
const ALL: &str = "*";

impl Custody {
    /// Deletes contents; keys that are not there are ignored. Says which went.
    pub async fn delete(&self, caller: &Caller, id: AssetId, keys: Vec<String>) -> Result<Vec<String>> {
        let (this, user) = (self.clone(), caller.user_id());
        self.db.write(move |tx| this.delete_within(tx, user, id, &keys)).await
    }

    /// The same, inside a transaction; a refusal has changed nothing.
    pub(super) fn delete_within(&self, tx: &Tx, user: i64, id: AssetId, keys: &[String]) -> Result<Vec<String>> {
        let Full { asset, conversions } = assets::full(tx, id)?;
        asset.writable()?;
        let asked = |key: &str| keys.iter().any(|asked| asked == key);
        let (going, told): (Vec<Conversion>, Vec<String>) = if asked(ORIGINAL) {
            (conversions, vec![ORIGINAL.to_owned()])
        } else {
            let going = conversions.into_iter().filter(|c| !c.is_internal() && (asked(ALL) || asked(&c.key)));
            going.map(|c| (c.clone(), c.key)).unzip()
        };
        if told.is_empty() {
            return Ok(told);
        }
        if asked(ORIGINAL) {
            self.processing.abandon(tx, id, "The asset was deleted.")?;
            store::remove_conversions(tx, id)?;
            store::set_trashed(tx, id, true, user)?;
        } else {
            for conversion in &going {
                store::remove_conversion(tx, id, &conversion.key)?;
            }
            store::touch(tx, id, user)?;
        }
        if !going.is_empty() {
            self.processing.owe_sweep(tx, id, asset.revision)?;
        }
        self.journal.tell(tx, id, Event::FileDeleted, &json!({ "keys": told }))?;
        self.assets.changes(tx, id);
        Ok(told)
    }

    /// Fetches an asset out of the trash, and makes again what the settings ask for. False when
    /// it was not there, which is no mistake.
    pub async fn undelete(&self, caller: &Caller, id: AssetId) -> Result<bool> {
        let (this, user) = (self.clone(), caller.user_id());
        self.db
            .write(move |tx| {
                let asset = store::find(tx, id)?.ok_or(Code::AssetNotFound)?;
                if asset.trashed_at.is_none() {
                    return Ok(false);
                }
                store::set_trashed(tx, id, false, user)?;
                this.journal.tell(tx, id, Event::FileUndeleted, &json!({ "keys": [ORIGINAL] }))?;
                // One that was never looked at is still going to be.
                if asset.status == Status::Ok {
                    this.processing.open_automatic(tx, &asset, &[])?;
                }
                this.assets.changes(tx, id);
                Ok(true)
            })
            .await
    }

    /// How many assets are in the trash, and the bytes of their originals.
    pub async fn count_trash(&self) -> Result<(u64, u64)> {
        let now = self.db.clock().now();
        self.db.read(move |c| store::count_trashed(c, now)).await
    }
}
