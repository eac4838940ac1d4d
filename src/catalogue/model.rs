//! Captions, tags, albums, and what a listing is asked by; no I/O.

use serde::Deserialize;
use serde::Serialize;

use crate::assets::Asset;
use crate::assets::Full;
use crate::error::Code;
use crate::error::Result;
use crate::support::clock::Instant;

crate::hex_id!(
    /// What a tag is known by.
    TagId
);

crate::hex_id!(
    /// What an album is known by.
    AlbumId
);

const MOST_LINE_CHARS: usize = 255;
const MOST_BODY_CHARS: usize = 10_000;

/// What people call an asset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caption {
    pub name: Option<String>,
    pub body: Option<String>,
    pub author: Option<String>,
    pub reference_id: Option<String>,
    /// Its coming was told when it came.
    pub announced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub id: TagId,
    pub slug: String,
    pub body: String,
}

/// Assets put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Album {
    pub id: AlbumId,
    pub body: String,
    pub cover: Option<crate::assets::AssetId>,
    pub created_at: Instant,
    pub changed_at: Instant,
}

/// An asset as the catalogue knows it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub full: Full,
    pub caption: Caption,
    pub tags: Vec<Tag>,
    pub albums: Vec<Album>,
}

impl Entry {
    /// Of an asset of which nothing is known but that it is there.
    pub fn bare(asset: Asset) -> Entry {
        let full = Full { asset, conversions: Vec::new() };
        Entry { full, caption: Caption::default(), tags: Vec::new(), albums: Vec::new() }
    }
}

/// What is to be different; what is left out stays, and an empty text takes away what was there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Draft {
    pub name: Option<String>,
    pub body: Option<String>,
    pub author: Option<String>,
    pub reference_id: Option<String>,
    /// Instead of those that are there.
    pub tags: Option<Vec<TagRef>>,
    pub albums: Option<Vec<AlbumId>>,
}

/// How a tag is named: the text of one that is not there makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TagRef {
    Id(TagId),
    Text(String),
}

impl Draft {
    /// That no text is longer than what is kept.
    pub fn check(&self) -> Result<()> {
        let lines = [("name", &self.name), ("author", &self.author), ("reference_id", &self.reference_id)];
        for (what, text) in lines {
            bounded(what, text.as_deref(), MOST_LINE_CHARS)?;
        }
        bounded("body", self.body.as_deref(), MOST_BODY_CHARS)?;
        for tag in self.tags.iter().flatten() {
            if let TagRef::Text(text) = tag {
                bounded("tags", Some(text), MOST_LINE_CHARS)?;
            }
        }
        Ok(())
    }

    /// Adds what is said later.
    pub fn then(&mut self, later: Draft) {
        let put = |there: &mut Option<String>, said: Option<String>| {
            if said.is_some() {
                *there = said;
            }
        };
        put(&mut self.name, later.name);
        put(&mut self.body, later.body);
        put(&mut self.author, later.author);
        put(&mut self.reference_id, later.reference_id);
        self.tags = later.tags.or_else(|| self.tags.take());
        self.albums = later.albums.or_else(|| self.albums.take());
    }
}

fn bounded(what: &str, text: Option<&str>, most: usize) -> Result<()> {
    if text.is_some_and(|text| text.chars().count() > most) {
        return Err(Code::InvalidRequest.because(format!("{what}: at most {most} characters")));
    }
    Ok(())
}

impl Caption {
    /// What is there after this was said.
    pub fn take(&mut self, draft: &Draft) {
        let put = |there: &mut Option<String>, said: &Option<String>| {
            if let Some(said) = said {
                *there = Some(said.clone()).filter(|text| !text.is_empty());
            }
        };
        put(&mut self.name, &draft.name);
        put(&mut self.body, &draft.body);
        put(&mut self.author, &draft.author);
        put(&mut self.reference_id, &draft.reference_id);
    }
}

/// What makes two tags the same: `Summer 2026!` is `summer-2026`.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

/// What a listing is asked by.
#[derive(Clone, Debug)]
pub struct Query {
    /// All of them.
    pub filters: Vec<Filter>,
    pub by_change: bool,
    pub descending: bool,
    pub from: From,
    pub limit: u32,
}

/// What an asset has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Every word is somewhere in what it is called.
    Text(String),
    /// `Photo`, `Video`, `Audio` or `Document`.
    Kind(Vec<String>),
    /// None of these.
    NotKind(Vec<String>),
    /// Under any of these tags, by id or by text.
    Tag(Vec<TagRef>),
    Album(Vec<AlbumId>),
    Reference(Vec<String>),
    /// Nothing is that.
    Nothing,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Skip(u32),
    After(Cursor),
    /// The page that ends before this.
    Before(Cursor),
}

/// A place in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub at: Instant,
    pub seq: i64,
}

/// A page of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    pub entries: Vec<Entry>,
    pub total: u64,
    pub first: Option<Cursor>,
    pub last: Option<Cursor>,
    /// There is more in the direction that was asked for.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_the_same_by_their_slug() {
        for (text, made) in
            [("Summer 2026!", "summer-2026"), ("  summer  2026", "summer-2026"), ("Größe", "größe"), ("!?", "")]
        {
            assert_eq!(slug(text), made);
        }
    }

    #[test]
    fn what_is_left_out_stays_and_what_is_empty_goes() {
        let text = |text: &str| Some(text.to_owned());
        let mut caption = Caption { name: text("n"), body: text("b"), author: text("a"), ..Caption::default() };
        caption.take(&Draft { body: text("c"), author: text(""), ..Draft::default() });
        assert_eq!((caption.name, caption.body, caption.author), (text("n"), text("c"), None));
        let mut draft = Draft { name: text("n"), tags: Some(Vec::new()), ..Draft::default() };
        draft.then(Draft { name: text("m"), ..Draft::default() });
        assert_eq!(draft, Draft { name: text("m"), tags: Some(Vec::new()), ..Draft::default() });
        assert!(Draft { author: Some("x".repeat(256)), ..Draft::default() }.check().is_err());
    }
}
