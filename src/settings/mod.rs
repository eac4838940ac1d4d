//! Settings: what an administrator chooses while the box runs.
//!
//! In: a section, whole. Out: the same, at once and everywhere: a copy of all sections is
//! kept in memory, because every picture that is asked for looks at it, and it is replaced
//! when a change has been committed.
//!
//! Who may read what a key makes is part of them: when that changes, it changes for what was made
//! before as well, but for the assets of which somebody said otherwise.
//!
//! How a process runs (addresses, limits, folders) is `config`, which is read once.
//!
//! A new section is a type in [`model`] or in a file of its own, a field of [`Values`] and a name in `store`.

pub mod addons;
pub mod auth;
pub mod model;
mod store;
pub mod videos;
pub mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

pub use addons::Addons;
pub use auth::Auth;
pub use model::DEEPZOOM;
pub use model::DeepZoom;
pub use model::Images;
pub use model::NamedConversion;
pub use model::Placement;
pub use model::Values;
pub use model::Watermark;
pub use videos::Videos;
pub use webhook::Webhook;

use crate::assets;
use crate::assets::Assets;
use crate::error::Result;
use crate::infra::db::Db;
use crate::infra::db::Tx;

/// Knows the settings; cheap to clone.
#[derive(Clone)]
pub struct Settings {
    db: Db,
    assets: Assets,
    current: Arc<RwLock<Arc<Values>>>,
}

impl Settings {
    /// Reads what was chosen before.
    pub async fn open(db: Db, assets: Assets) -> Result<Settings> {
        let values = db.read(store::all).await?;
        Ok(Settings { db, assets, current: Arc::new(RwLock::new(Arc::new(values))) })
    }

    /// Everything, as it is now.
    pub fn now(&self) -> Arc<Values> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Chooses how pictures are made.
    pub async fn set_images(&self, images: Images) -> Result<()> {
        let images = images.checked()?;
        self.change(move |values| values.images = images).await
    }

    /// Chooses what is made of films.
    pub async fn set_videos(&self, videos: Videos) -> Result<()> {
        let videos = videos.checked()?;
        self.change(move |values| values.videos = videos).await
    }

    /// Chooses what is laid over pictures; `None` for nothing.
    pub async fn set_watermark(&self, watermark: Option<Watermark>) -> Result<()> {
        self.change(move |values| values.watermark = watermark).await
    }

    /// The same, by what is chosen when the change is made; a refusal changes nothing.
    pub async fn edit_watermark(
        &self,
        edit: impl FnOnce(&mut Option<Watermark>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let this = self.clone();
        let write = move |tx: &Tx| {
            let mut edited = Ok(());
            this.edit(tx, |values| edited = edit(&mut values.watermark))?;
            edited
        };
        self.db.write(write).await
    }

    /// Keeps what is said about add-ons.
    pub async fn set_addons(&self, addons: Addons) -> Result<()> {
        let addons = addons::checked(addons)?;
        self.change(move |values| values.addons = addons).await
    }

    /// Changes something together with what depends on it: for rooms that are inside a transaction.
    pub fn edit(&self, tx: &Tx, edit: impl FnOnce(&mut Values)) -> Result<()> {
        // Read inside the transaction: writes come one at a time, so no edit is lost.
        let mut values = store::all(tx)?;
        let before = values.access();
        edit(&mut values);
        store::put(tx, &values)?;
        self.open_and_close(tx, &before, &values.access())?;
        let current = Arc::clone(&self.current);
        tx.after_commit(move || {
            *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(values);
        });
        Ok(())
    }

    /// Who is told what happens, as a transaction sees it.
    pub fn webhook(&self, tx: &Tx) -> Result<Webhook> {
        store::webhook(tx)
    }

    /// Who may read what, by key, as a transaction sees it.
    pub fn access(&self, tx: &Tx) -> Result<BTreeMap<String, bool>> {
        Ok(store::all(tx)?.access())
    }

    /// Has what was made follow its key, where that is new or its flag was changed.
    fn open_and_close(&self, tx: &Tx, before: &BTreeMap<String, bool>, now: &BTreeMap<String, bool>) -> Result<()> {
        let changed = || now.iter().filter(|(key, public)| before.get(*key) != Some(*public));
        for public in [false, true] {
            let keys: Vec<&str> = changed().filter(|(_, now)| **now == public).map(|(key, _)| &**key).collect();
            if !keys.is_empty() {
                assets::store::set_public_of_keys(tx, &keys, public)?;
            }
        }
        if changed().next().is_some() {
            self.assets.changes_all(tx);
        }
        Ok(())
    }

    async fn change(&self, edit: impl FnOnce(&mut Values) + Send + 'static) -> Result<()> {
        let this = self.clone();
        self.db.write(move |tx| this.edit(tx, edit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::clock::Clock;

    #[tokio::test]
    async fn a_choice_holds_at_once_and_after_a_restart() {
        let db = Db::temporary(crate::app::SCHEMA, Clock::system()).unwrap();
        let settings = Settings::open(db.clone(), Assets::new(db.clone())).await.unwrap();
        assert_eq!(*settings.now(), Values::default());
        let images = Images { on_demand_private: true, ..Images::default() };
        settings.set_images(images.clone()).await.unwrap();
        let mark = Watermark { digest: "00".repeat(16), asset: None, placement: Placement::TopLeft, scale: 0.25 };
        settings.set_watermark(Some(mark.clone())).await.unwrap();
        let videos = Videos { hls_watermark: true, ..Videos::default() };
        settings.set_videos(videos.clone()).await.unwrap();
        let auth = Auth { authorized_domains: vec!["example.com".to_owned()], ..Auth::default() };
        let (this, chosen) = (settings.clone(), auth.clone());
        db.write(move |tx| this.edit(tx, |values| values.auth = chosen)).await.unwrap();
        let addons = Addons::from_iter([("AUTO_TAGS".to_owned(), serde_json::json!({"enabled": false}))]);
        settings.set_addons(addons.clone()).await.unwrap();
        let expected = Values { images, videos, watermark: Some(mark), auth, addons, ..Values::default() };
        assert_eq!(*settings.now(), expected);
        let again = Settings::open(db.clone(), Assets::new(db)).await.unwrap();
        assert_eq!(*again.now(), expected);
    }
}
