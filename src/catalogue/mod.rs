//! The catalogue: what people call an asset, the tags and albums it is under, and listings by all that.
//!
//! In: drafts, which say what is to be different. Out: [`Entry`]s, assets with their captions, and
//! pages of them. An asset that nobody described has no caption row; its name is its file's then.
//!
//! This is beside the data of an asset, which schemas judge and search finds. What changes here
//! counts as a change of the asset, in its row and in the journal.

pub mod albums;
pub mod model;
pub mod store;

use serde_json::json;

pub use model::Album;
pub use model::AlbumId;
pub use model::Caption;
pub use model::Cursor;
pub use model::Draft;
pub use model::Entry;
pub use model::Filter;
pub use model::From;
pub use model::Listed;
pub use model::Query;
pub use model::Tag;
pub use model::TagId;
pub use model::TagRef;

use crate::accounts::Caller;
use crate::assets;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::journal::Event;
use crate::journal::Journal;

/// Tags of one asset.
const MOST_TAGS: usize = 200;

/// Knows what assets are called; cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    db: Db,
    assets: Assets,
    journal: Journal,
}

impl Catalogue {
    pub fn new(db: Db, assets: Assets, journal: Journal) -> Catalogue {
        Catalogue { db, assets, journal }
    }

    /// An asset with its caption, or [`Code::AssetNotFound`].
    pub async fn find(&self, id: AssetId) -> Result<Entry> {
        self.db.read(move |c| entry(c, id)).await
    }

    /// A page of what fits.
    pub async fn list(&self, query: Query) -> Result<Listed> {
        self.db
            .read(move |c| {
                let (rows, more) = store::list(c, &query)?;
                let seqs: Vec<i64> = rows.iter().map(|cursor| cursor.seq).collect();
                let entries = assets::store::by_seq(c, &seqs, false)?
                    .into_iter()
                    .map(|full| store::entry(c, full))
                    .collect::<Result<_>>()?;
                let total = if query.filters.is_empty() { assets::store::count(c)? } else { store::count(c, &query)? };
                Ok(Listed { entries, total, first: rows.first().copied(), last: rows.last().copied(), more })
            })
            .await
    }

    /// Changes what is said about an asset. The asset as it is then.
    pub async fn change(&self, caller: &Caller, id: AssetId, draft: Draft) -> Result<Entry> {
        let (this, user) = (self.clone(), caller.user_id());
        self.db
            .write(move |tx| {
                assets::full(tx, id)?.asset.writable()?;
                describe(tx, id, &draft, false)?;
                assets::store::touch(tx, id, user)?;
                this.journal.tell(tx, id, Event::AssetChanged, &json!({ "by": user }))?;
                this.assets.changes(tx, id);
                entry(tx, id)
            })
            .await
    }
}

/// An asset with its caption, for rooms that are inside a transaction.
pub fn entry(c: &Conn, id: AssetId) -> Result<Entry> {
    store::entry(c, assets::full(c, id)?)
}

/// That what is said can be written down: there is whatever it names.
pub fn can_describe(c: &Conn, draft: &Draft) -> Result<()> {
    draft.check()?;
    let tags = draft.tags.as_deref().unwrap_or_default();
    if tags.len() > MOST_TAGS {
        return Err(Code::InvalidRequest.because(format!("tags: an asset has at most {MOST_TAGS}")));
    }
    for tag in tags {
        match tag {
            TagRef::Id(id) if store::has_tag(c, *id)? => {}
            TagRef::Id(_) => return Err(Code::InvalidRequest.because("tags: there is none of this id")),
            TagRef::Text(text) if model::slug(text).is_empty() => {
                return Err(Code::InvalidRequest.because("tags: a tag has at least one letter or digit"));
            }
            TagRef::Text(_) => {}
        }
    }
    for album in draft.albums.iter().flatten() {
        if store::album(c, *album)?.is_none() {
            return Err(Code::InvalidRequest.because("collections: there is none of this id"));
        }
    }
    Ok(())
}

/// What was said a while ago, without the tags and albums that are not there any more.
pub fn what_is_left(c: &Conn, mut draft: Draft) -> Result<Draft> {
    let mut there = Vec::new();
    for tag in draft.tags.iter().flatten() {
        let is_there = match tag {
            TagRef::Id(id) => store::has_tag(c, *id)?,
            TagRef::Text(_) => true,
        };
        if is_there {
            there.push(tag.clone());
        }
    }
    draft.tags = draft.tags.and(Some(there));
    let mut albums = Vec::new();
    for album in draft.albums.iter().flatten() {
        if store::album(c, *album)?.is_some() {
            albums.push(*album);
        }
    }
    draft.albums = draft.albums.and(Some(albums));
    Ok(draft)
}

/// Writes down what is said about an asset that is there; `announced` as it is new.
pub fn describe(tx: &Tx, id: AssetId, draft: &Draft, announced: bool) -> Result<()> {
    can_describe(tx, draft)?;
    let mut caption = store::caption(tx, id)?;
    caption.take(draft);
    caption.announced |= announced;
    store::put_caption(tx, id, &caption)?;
    if let Some(wanted) = &draft.tags {
        let mut tags: Vec<TagId> = Vec::new();
        for tag in wanted {
            let tag = tag_id(tx, tag)?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        store::set_tags(tx, id, &tags)?;
    }
    if let Some(albums) = &draft.albums {
        store::set_albums(tx, id, albums)?;
    }
    Ok(())
}

/// A tag that is there, or one that is made.
fn tag_id(tx: &Tx, wanted: &TagRef) -> Result<TagId> {
    match wanted {
        TagRef::Id(id) => Ok(*id),
        TagRef::Text(text) => {
            let slug = model::slug(text);
            match store::tag_by_slug(tx, &slug)? {
                Some(id) => Ok(id),
                None => store::add_tag(tx, &slug, text.trim()),
            }
        }
    }
}
