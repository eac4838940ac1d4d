//! Waiting a moment for what an upload of a moment ago will still bring, so that a script that
//! asks right after its upload gets its picture.

use std::sync::Arc;

use crate::assets::AssetId;
use crate::assets::Full;
use crate::assets::Status;
use crate::delivery::Delivery;
use crate::delivery::PATIENCE;
use crate::delivery::on_demand::named;
use crate::error::Code;
use crate::error::Result;

impl Delivery {
    /// The asset once it can be shown.
    pub(super) async fn when_ready(&self, id: AssetId) -> Result<Arc<Full>> {
        let settled = |full: &Full| !matches!(full.asset.status, Status::NotReady | Status::Queued);
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
        self.when(id, |full| !expected || named(full, name).is_ok() || is_late(full)).await
    }

    /// The asset as it is once `enough`, or when patience is over.
    async fn when(&self, id: AssetId, enough: impl Fn(&Full) -> bool) -> Result<Arc<Full>> {
        let full = self.assets.recall(id).await?;
        if enough(&full) {
            return Ok(full);
        }
        let changed = self.journal.changed();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let waiting = changed.notified();
            tokio::pin!(waiting);
            // Registered before the row is read, so that a change in between is not missed. What is
            // remembered may be older than the change that woke us.
            waiting.as_mut().enable();
            self.assets.forget(id);
            let full = self.assets.recall(id).await?;
            if enough(&full) || tokio::time::timeout_at(deadline, waiting).await.is_err() {
                return Ok(full);
            }
        }
    }
}
