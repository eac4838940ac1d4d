//! Waiting a moment for what an upload of a moment ago will still bring, so that a script that
//! asks right after its upload gets its picture.

use std::sync::Arc;

use crate::assets::AssetId;
use crate::assets::Full;
use crate::assets::Status;
use crate::delivery::Delivery;
use crate::delivery::PATIENCE;
use crate::delivery::STILL_COMES_WITHIN;
use crate::delivery::on_demand;
use crate::delivery::on_demand::named;
use crate::error::Code;
use crate::error::Result;

impl Delivery {
    /// The asset once it can be shown.
    pub(super) async fn when_ready(&self, id: AssetId) -> Result<Arc<Full>> {
        let settled = |full: &Full| match full.asset.status {
            Status::NotReady | Status::Queued => false,
            Status::Ok => !self.still_comes(full),
            Status::Error | Status::Archived => true,
        };
        let full = self.when(id, settled).await?;
        match full.asset.status {
            Status::Ok | Status::Archived => Ok(full),
            Status::NotReady | Status::Queued => Err(Code::AssetNotReady.into()),
            Status::Error => {
                let why = full.asset.errors.get("original").cloned().unwrap_or_default();
                Err(Code::NoImage.because(format!("No image can be made from this content. {why}")))
            }
        }
    }

    /// The asset, which has a conversion of this name if it is to have one soon.
    pub(super) async fn when_made(&self, id: AssetId, name: &str) -> Result<Arc<Full>> {
        let expected = self.settings.now().images.makes(name);
        let is_late = |full: &Full| self.clock.now().since(full.asset.uploaded_at) > PATIENCE;
        let failed = |full: &Full| full.asset.errors.contains_key(name);
        self.when(id, |full| !expected || named(full, name).is_ok() || failed(full) || is_late(full)).await
    }

    /// Whether the picture that stands for a film or a recording is on its way.
    fn still_comes(&self, full: &Full) -> bool {
        let asset = &full.asset;
        asset.still_by().is_some_and(|key| {
            on_demand::still(full).is_none()
                && !asset.errors.contains_key(key)
                // Counted from the last change: it may have been replaced, or fetched out of the trash.
                && self.clock.now().since(asset.updated_at) < STILL_COMES_WITHIN
        })
    }

    /// The asset as it is once `enough`, or when patience is over.
    async fn when(&self, id: AssetId, enough: impl Fn(&Full) -> bool) -> Result<Arc<Full>> {
        let full = self.assets.recall(id).await?;
        if enough(&full) {
            return Ok(full);
        }
        let (told, changed) = (self.journal.changed(), self.assets.changed());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (told, changed) = (told.notified(), changed.notified());
            tokio::pin!(told, changed);
            // Registered before the row is read, so that a change in between is not missed.
            told.as_mut().enable();
            changed.as_mut().enable();
            let full = self.assets.look_again(id).await?;
            let woken = async {
                tokio::select! {
                    () = told => {}
                    () = changed => {}
                }
            };
            if enough(&full) {
                return Ok(full);
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return self.assets.look_again(id).await;
            }
        }
    }
}
