//! Assets, collections and events as Prepr's REST API spells them.
//!
//! Shapes: <https://docs.prepr.io/mutation-api/assets>. An id is the same 128 bits as everywhere here,
//! with dashes. `cdn_files` are always there; their `url` holds the literal `{format}`, to be replaced by
//! tokens such as `w_300,h_200`, or left out.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::assets::Asset;
use crate::assets::AssetId;
use crate::catalogue::Album;
use crate::catalogue::Draft;
use crate::catalogue::Entry;
use crate::catalogue::Tag;
use crate::support::clock::Instant;
use crate::support::mime;

/// An asset.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PreprAsset {
    /// A UUID with dashes.
    id: String,
    /// `YYYY-MM-DDTHH:MM:SS+00:00`
    created_on: String,
    changed_on: String,
    /// `Photo`, `Video`, `Audio` or `Document`
    label: String,
    name: String,
    body: Option<String>,
    author: Option<String>,
    status: Option<String>,
    reference_id: Option<String>,
    /// Pixels.
    width: Option<u64>,
    height: Option<u64>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    original_name: Option<String>,
    mime_type: Option<String>,
    cdn_files: PreprItems<CdnFile>,
    /// When `fields` names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<PreprItems<PreprTag>>,
    /// When `fields` names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    collections: Option<PreprItems<PreprCollection>>,
}

/// An asset that is being uploaded in phases.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PreprUpload {
    #[serde(flatten)]
    asset: PreprAsset,
    /// Where the next chunk begins, and how far it may reach.
    start_offset: u64,
    end_offset: u64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PreprItems<T> {
    total: usize,
    items: Vec<T>,
}

/// A file as it is delivered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CdnFile {
    id: String,
    created_on: String,
    /// `CdnFile`
    label: &'static str,
    file: String,
    /// Put tokens (`w_300,h_200`) in the place of `{format}`, or nothing.
    url: String,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PreprTag {
    id: String,
    body: String,
    slug: String,
}

/// A collection.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PreprCollection {
    id: String,
    created_on: String,
    changed_on: String,
    /// `Collection`
    label: &'static str,
    body: String,
    /// The asset that stands for it.
    cover: Option<Reference>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Reference {
    id: String,
}

/// A page of a listing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PreprPage<T> {
    pub items: Vec<T>,
    /// On all pages.
    pub total: u64,
    /// Asks for the next page.
    pub after: Option<String>,
    /// Asks for the page before.
    pub before: Option<String>,
    pub skip: u32,
    pub limit: u32,
}

/// The body of a webhook.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PreprEvent {
    id: String,
    created_on: String,
    event: &'static str,
    payload: Value,
    performed_by: String,
}

/// What is known of an asset before it is whole.
pub struct Pending<'a> {
    pub id: AssetId,
    pub at: Instant,
    pub name: Option<String>,
    pub label: Option<String>,
    pub draft: &'a Draft,
}

/// Which parts of an asset are shown beyond the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub tags: bool,
    pub collections: bool,
}

impl Fields {
    /// Reads `fields=cdn_files,tags{id,body}`; what is not known asks for nothing.
    pub fn parse(text: &str) -> Fields {
        let named = |name: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
        Fields { tags: named("tags"), collections: named("collections") }
    }
}

impl PreprAsset {
    pub fn new(entry: &Entry, origin: &str) -> PreprAsset {
        let (asset, caption) = (&entry.full.asset, &entry.caption);
        let fact = |name: &str| asset.facts.get(name);
        PreprAsset {
            id: uuid(&asset.id.to_string()),
            created_on: date(asset.uploaded_at),
            changed_on: date(asset.updated_at),
            label: label(&asset.content_type).to_owned(),
            name: caption.name.clone().unwrap_or_else(|| asset.name.clone()),
            body: caption.body.clone(),
            author: caption.author.clone(),
            status: None,
            reference_id: caption.reference_id.clone(),
            width: fact("width").and_then(Value::as_u64),
            height: fact("height").and_then(Value::as_u64),
            duration: fact("duration").and_then(Value::as_f64),
            original_name: Some(asset.name.clone()),
            mime_type: Some(asset.content_type.clone()),
            cdn_files: PreprItems::of(vec![CdnFile::new(asset, origin)]),
            tags: None,
            collections: None,
        }
    }

    /// The same with what is not always shown.
    pub fn with(entry: &Entry, origin: &str, fields: Fields) -> PreprAsset {
        PreprAsset {
            tags: fields.tags.then(|| PreprItems::of(entry.tags.iter().map(PreprTag::from).collect())),
            collections: fields
                .collections
                .then(|| PreprItems::of(entry.albums.iter().map(PreprCollection::from).collect())),
            ..PreprAsset::new(entry, origin)
        }
    }

    /// One that is not whole yet.
    pub fn pending(pending: &Pending<'_>) -> PreprAsset {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let by_name =
            pending.name.as_deref().and_then(mime::from_name).map_or("Document", |kind| label(kind.content_type));
        PreprAsset {
            id: uuid(&pending.id.to_string()),
            created_on: date(pending.at),
            changed_on: date(pending.at),
            label: pending.label.clone().unwrap_or_else(|| by_name.to_owned()),
            name: said(&pending.draft.name).or_else(|| pending.name.clone()).unwrap_or_default(),
            body: said(&pending.draft.body),
            author: said(&pending.draft.author),
            status: None,
            reference_id: said(&pending.draft.reference_id),
            width: None,
            height: None,
            duration: None,
            original_name: pending.name.clone(),
            mime_type: None,
            cdn_files: PreprItems::of(Vec::new()),
            tags: None,
            collections: None,
        }
    }
}

impl PreprUpload {
    /// `chunk_bytes` is how much may come next.
    pub fn new(asset: PreprAsset, offset: u64, size: u64, chunk_bytes: u64) -> PreprUpload {
        PreprUpload { asset, start_offset: offset, end_offset: size.min(offset.saturating_add(chunk_bytes)) }
    }
}

impl<T> PreprItems<T> {
    fn of(items: Vec<T>) -> PreprItems<T> {
        PreprItems { total: items.len(), items }
    }
}

impl CdnFile {
    fn new(asset: &Asset, origin: &str) -> CdnFile {
        let file = format!("{}.{}", asset.id, extension(asset));
        CdnFile {
            id: uuid(asset.sha256.get(..32).unwrap_or_default()),
            created_on: date(asset.uploaded_at),
            label: "CdnFile",
            url: format!("{origin}/cdn/{{format}}/{file}"),
            file,
        }
    }
}

impl From<&Tag> for PreprTag {
    fn from(tag: &Tag) -> PreprTag {
        PreprTag { id: uuid(&tag.id.to_string()), body: tag.body.clone(), slug: tag.slug.clone() }
    }
}

impl From<&Album> for PreprCollection {
    fn from(album: &Album) -> PreprCollection {
        PreprCollection {
            id: uuid(&album.id.to_string()),
            created_on: date(album.created_at),
            changed_on: date(album.changed_at),
            label: "Collection",
            body: album.body.clone(),
            cover: album.cover.map(|id| Reference { id: uuid(&id.to_string()) }),
        }
    }
}

impl PreprEvent {
    pub fn new(id: String, at: Instant, event: &'static str, payload: Value, performed_by: String) -> PreprEvent {
        PreprEvent { id, created_on: date(at), event, payload, performed_by }
    }
}

/// What the vendor calls a kind of content.
pub fn label(content_type: &str) -> &'static str {
    match content_type.split('/').next() {
        Some("image") => "Photo",
        Some("video") => "Video",
        Some("audio") => "Audio",
        _ => "Document",
    }
}

/// 32 hex digits, with dashes between them.
pub fn uuid(hex: &str) -> String {
    let mut text = String::with_capacity(36);
    for (n, digit) in hex.chars().enumerate() {
        if matches!(n, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        let _ = write!(text, "{digit}");
    }
    text
}

/// Reads [`uuid`] back, or an id as it is written elsewhere here.
pub fn parse_id<T: std::str::FromStr>(text: &str) -> Option<T> {
    let dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-'));
    let plain = if dashed { text.replace('-', "") } else { text.to_owned() };
    plain.to_ascii_lowercase().parse().ok()
}

/// `2023-06-13T14:35:54+00:00`
pub fn date(at: Instant) -> String {
    at.iso().replace('Z', "+00:00")
}

/// As its name has it; of one without, as its kind is.
fn extension(asset: &Asset) -> String {
    let own = asset.name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let plain = |text: &String| (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    own.filter(plain).unwrap_or_else(|| "bin".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_dashes_here_and_none_elsewhere() {
        let plain = "df7c1544bad04c9d928f0c9f684c9ceb";
        let dashed = "df7c1544-bad0-4c9d-928f-0c9f684c9ceb";
        assert_eq!(uuid(plain), dashed);
        for text in [plain, dashed, "DF7C1544-BAD0-4C9D-928F-0C9F684C9CEB"] {
            assert_eq!(parse_id::<AssetId>(text).map(|id| id.to_string()).as_deref(), Some(plain), "{text}");
        }
        for bad in ["", "df7c1544-bad0", "df7c1544bad0-4c9d-928f-0c9f-684c9ceb", "../../etc/passwd"] {
            assert_eq!(parse_id::<AssetId>(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_and_labels_are_the_vendors() {
        assert_eq!(date(Instant(1_686_666_954_000)), "2023-06-13T14:35:54+00:00");
        for (content_type, named) in [
            ("image/jpeg", "Photo"),
            ("video/mp4", "Video"),
            ("audio/mpeg", "Audio"),
            ("application/pdf", "Document"),
            ("text/plain", "Document"),
        ] {
            assert_eq!(label(content_type), named);
        }
    }

    #[test]
    fn fields_may_say_more_than_is_heard() {
        assert_eq!(Fields::parse("cdn_files"), Fields::default());
        assert_eq!(Fields::parse("cdn_files,tags{id,body}"), Fields { tags: true, collections: false });
        assert_eq!(Fields::parse("tags,collections"), Fields { tags: true, collections: true });
    }
}
