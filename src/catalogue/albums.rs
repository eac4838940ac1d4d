//! Albums: assets put together, as many as there are. Everybody who may read assets sees them.
//!
//! Putting in what is in it already, and taking out what is not, is no mistake.

use crate::assets;
use crate::assets::AssetId;
use crate::catalogue::Catalogue;
use crate::catalogue::model::Album;
use crate::catalogue::model::AlbumId;
use crate::catalogue::store;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Tx;
use crate::support::page::Page;

const MOST_BODY_CHARS: usize = 255;

/// Assets that are put in or taken out at once.
const MOST_AT_ONCE: usize = 1000;

impl Catalogue {
    pub async fn create_album(&self, body: String) -> Result<Album> {
        check(&body)?;
        self.db
            .write(move |tx| {
                let id = AlbumId::random()?;
                store::add_album(tx, id, body.trim())?;
                album(tx, id)
            })
            .await
    }

    pub async fn find_album(&self, id: AlbumId) -> Result<Album> {
        self.db.read(move |c| album(c, id)).await
    }

    /// Albums, newest first, and how many there are.
    pub async fn albums(&self, page: Page) -> Result<(Vec<Album>, u64)> {
        self.db.read(move |c| store::albums(c, page)).await
    }

    /// Gives an album another text; nothing said changes nothing.
    pub async fn change_album(&self, id: AlbumId, body: Option<String>) -> Result<Album> {
        body.as_deref().map_or(Ok(()), check)?;
        self.db
            .write(move |tx| {
                album(tx, id)?;
                if let Some(body) = body {
                    store::set_album(tx, id, body.trim())?;
                }
                album(tx, id)
            })
            .await
    }

    /// Forgets an album; its assets stay.
    pub async fn delete_album(&self, id: AlbumId) -> Result<()> {
        self.db
            .write(move |tx| {
                album(tx, id)?;
                store::delete_album(tx, id)
            })
            .await
    }

    /// Puts assets in.
    pub async fn put_into_album(&self, id: AlbumId, put: Vec<AssetId>) -> Result<Album> {
        at_once(&put)?;
        self.db
            .write(move |tx| {
                album(tx, id)?;
                for asset in put {
                    assets::full(tx, asset)?;
                    store::put_into_album(tx, id, asset)?;
                }
                touched(tx, id)
            })
            .await
    }

    /// Takes assets out.
    pub async fn take_from_album(&self, id: AlbumId, take: Vec<AssetId>) -> Result<Album> {
        at_once(&take)?;
        self.db
            .write(move |tx| {
                album(tx, id)?;
                for asset in take {
                    store::take_from_album(tx, id, asset)?;
                }
                touched(tx, id)
            })
            .await
    }

    /// Chooses the asset that stands for an album.
    pub async fn set_cover(&self, id: AlbumId, cover: AssetId) -> Result<Album> {
        self.db
            .write(move |tx| {
                album(tx, id)?;
                assets::full(tx, cover)?;
                store::set_cover(tx, id, cover)?;
                touched(tx, id)
            })
            .await
    }
}

fn album(c: &Conn, id: AlbumId) -> Result<Album> {
    store::album(c, id)?.ok_or_else(|| Code::CollectionNotFound.because("There is no collection of this id."))
}

fn touched(tx: &Tx, id: AlbumId) -> Result<Album> {
    store::touch_album(tx, id)?;
    album(tx, id)
}

fn check(body: &str) -> Result<()> {
    let characters = body.trim().chars().count();
    if characters == 0 || characters > MOST_BODY_CHARS {
        return Err(Code::InvalidRequest.because(format!("body: 1 to {MOST_BODY_CHARS} characters")));
    }
    Ok(())
}

fn at_once(assets: &[AssetId]) -> Result<()> {
    if assets.is_empty() || assets.len() > MOST_AT_ONCE {
        return Err(Code::InvalidRequest.because(format!("items: 1 to {MOST_AT_ONCE} assets")));
    }
    Ok(())
}
