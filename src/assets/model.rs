//! What an asset is, and which states it may pass through.
//!
//! ```text
//! QUEUED ──fetched──▶ NOT_READY ──saved──▶ OK ◀──▶ ARCHIVED
//!    └──────refused──────▶ ERROR ◀── not readable, at once or when it is decoded
//! ```
//!
//! Replacing the original starts again at NOT_READY, with the next revision. Being in the trash
//! is no status: an asset comes out of it as it went in.

use std::collections::BTreeMap;

use rusqlite::types::FromSql;
use rusqlite::types::FromSqlError;
use rusqlite::types::FromSqlResult;
use rusqlite::types::ToSql;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef;
use serde_json::Map;
use serde_json::Value;

use crate::error::Code;
use crate::error::Result;
use crate::infra::storage::Backend;
use crate::support::clock::Instant;

crate::hex_id!(
    /// The ticket: 32 lower-case hex digits.
    AssetId
);

/// Where an asset stands between arriving and being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waiting to be fetched from elsewhere.
    Queued,
    /// Kept safely, not yet looked at.
    NotReady,
    Ok,
    /// Kept safely, but not what it should be; `errors` says why.
    Error,
    /// Read-only.
    Archived,
}

impl Status {
    const WORDS: [(Status, &'static str); 5] = [
        (Status::Queued, "QUEUED"),
        (Status::NotReady, "NOT_READY"),
        (Status::Ok, "OK"),
        (Status::Error, "ERROR"),
        (Status::Archived, "ARCHIVED"),
    ];

    pub fn word(self) -> &'static str {
        Status::WORDS.iter().find(|(s, _)| *s == self).map_or("ERROR", |(_, word)| word)
    }
}

impl ToSql for Status {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.word().into())
    }
}

impl FromSql for Status {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        Status::WORDS.iter().find(|(_, w)| *w == word).map(|(s, _)| *s).ok_or(FromSqlError::InvalidType)
    }
}

/// The one kind of document that is drawn.
pub const PDF: &str = "application/pdf";

/// The content key of the bytes as received.
pub const ORIGINAL: &str = "original";
/// The content key of the picture from which smaller ones are cut.
pub const BASE: &str = "smart_imaging";
/// The content key of a stream, a folder of playlists and segments.
pub const HLS: &str = "hls-video";
/// The content key of frames from all along a film, a folder of pictures.
pub const STORYBOARD: &str = "storyboard";
/// The content key of the picture that stands for a film; made as its base image.
pub const POSTER: &str = "poster";
/// The content key of a recording's copy for browsers.
pub const AUDIO_PREVIEW: &str = "audio_preview";
/// The content key of the picture that stands for a recording; made with that copy.
pub const WAVEFORM: &str = "waveform";

/// What a row of `asset` holds.
#[derive(Clone, Debug)]
pub struct Asset {
    pub id: AssetId,
    pub revision: u32,
    pub status: Status,
    pub name: String,
    pub size_bytes: u64,
    pub md5: String,
    pub sha256: String,
    pub content_type: String,
    /// The original may be read by anyone.
    pub public: bool,
    /// Smart imaging has run: images can be cut from it.
    pub on_demand: bool,
    pub creator_id: i64,
    pub updater_id: i64,
    pub uploaded_at: Instant,
    pub updated_at: Instant,
    /// When its original was deleted: it is in the trash, where only few may find it.
    pub trashed_at: Option<Instant>,
    pub upload_source: Option<String>,
    /// Where its original is for good, and in which bucket.
    pub home: Backend,
    pub bucket: String,
    pub data_schema_id: i64,
    /// What people write.
    pub data: Map<String, Value>,
    /// What was read out of the original: `width`, `height`, `duration`, `Make`, ...
    pub facts: Map<String, Value>,
    /// Content key or `warning`, and a sentence.
    pub errors: BTreeMap<String, String>,
}

impl Asset {
    /// One that comes in: nothing is known of it yet.
    pub fn arriving(id: AssetId, user: i64, now: Instant) -> Asset {
        Asset {
            id,
            revision: 1,
            status: Status::NotReady,
            name: String::new(),
            size_bytes: 0,
            md5: String::new(),
            sha256: String::new(),
            content_type: String::new(),
            public: false,
            on_demand: false,
            creator_id: user,
            updater_id: user,
            uploaded_at: now,
            updated_at: now,
            trashed_at: None,
            upload_source: None,
            home: Backend::Fs,
            bucket: String::new(),
            data_schema_id: 0,
            data: Map::new(),
            facts: Map::new(),
            errors: BTreeMap::new(),
        }
    }

    /// That it is whole and may be worked on, or why not.
    pub fn ready(&self) -> Result<()> {
        match self.status {
            Status::Ok => Ok(()),
            Status::Archived => Err(Code::AssetArchived.into()),
            Status::Error => Err(Code::AssetInvalid.into()),
            Status::NotReady | Status::Queued => Err(Code::AssetNotReady.into()),
        }
    }

    /// That it may be changed, or why not.
    pub fn writable(&self) -> Result<()> {
        if self.status == Status::Archived { Err(Code::AssetArchived.into()) } else { Ok(()) }
    }

    /// Whether it is a picture, or pages that can be drawn.
    pub fn has_picture(&self) -> bool {
        self.content_type.starts_with("image/") || self.content_type == PDF
    }

    /// Whether it can be watched.
    pub fn is_film(&self) -> bool {
        self.content_type.starts_with("video/")
    }

    /// Whether it can only be listened to.
    pub fn is_recording(&self) -> bool {
        self.content_type.starts_with("audio/")
    }

    /// The processing key that makes the picture which stands for what is no picture.
    pub fn still_by(&self) -> Option<&'static str> {
        if self.is_film() {
            return Some(BASE);
        }
        self.is_recording().then_some(AUDIO_PREVIEW)
    }
}

/// The making of something of an asset's content: of which, for which round, and since when. A round
/// makes a conversion once.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    pub revision: u32,
    pub round: i64,
    pub begun_at: Instant,
}

/// A stored derivative.
#[derive(Clone, Debug)]
pub struct Conversion {
    pub key: String,
    pub revision: u32,
    pub extension: String,
    /// Of one that was made here: the round that wanted it, which names its files; else 0.
    pub round: i64,
    /// Of one that people handed in: what names its file, which no other has ever had.
    pub handed: Option<String>,
    pub content_type: String,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub duration_seconds: Option<f64>,
    pub size_bytes: u64,
    /// Everybody may read it. The settings of its key come before what is said here when it goes on record, and what
    /// somebody said of this one asset before both.
    pub public: bool,
    pub watermarked: bool,
    pub created_at: Instant,
}

impl Conversion {
    /// One that was made here; how large it is, in whatever way, is said by who made it.
    pub fn made(key: &str, extension: &str, content_type: &str, making: Making) -> Conversion {
        Conversion {
            key: key.to_owned(),
            revision: making.revision,
            extension: extension.to_owned(),
            round: making.round,
            handed: None,
            content_type: content_type.to_owned(),
            width: None,
            height: None,
            duration_seconds: None,
            size_bytes: 0,
            public: false,
            watermarked: false,
            created_at: making.begun_at,
        }
    }

    /// Whether it is for this box alone and not listed among an asset's conversions.
    pub fn is_internal(&self) -> bool {
        matches!(&*self.key, BASE | POSTER | WAVEFORM)
    }
}
