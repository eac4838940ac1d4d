//! The section `webhook`: who is told what happens to assets, of which events, and with which
//! secrets that is signed.
//!
//! Secrets stand here sealed; the room `webhooks`, which signs, can open them. What a URL has to
//! be is judged there, too.

use serde::Deserialize;
use serde::Serialize;

use crate::support::clock::Instant;

/// Who is told what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Webhook {
    pub receivers: Vec<Receiver>,
    pub events: Events,
    /// What is told in Prepr's words, to those who are told in these.
    pub prepr_events: PreprEvents,
    /// The newest first. Every one that has not expired signs.
    pub secrets: Vec<SealedSecret>,
}

/// In whose words something is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    #[default]
    FileSpin,
    Prepr,
}

/// A URL that is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    pub url: String,
    #[serde(default)]
    pub dialect: Dialect,
    /// When it asked to be told nothing any more. Choosing the URL anew takes that back.
    #[serde(default)]
    pub disabled_at: Option<Instant>,
}

/// What is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    pub file_saved: bool,
    pub file_processed: bool,
    pub file_data_updated: bool,
    pub file_deleted: bool,
    pub file_undeleted: bool,
    pub addon_processed: bool,
}

/// What is told in Prepr's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreprEvents {
    pub created: bool,
    pub uploaded: bool,
    pub changed: bool,
    pub deleted: bool,
}

/// A signing secret at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Base64.
    pub sealed: String,
    /// Set when a newer one takes over.
    #[serde(default)]
    pub expires_at: Option<Instant>,
}

impl Webhook {
    /// The URLs that are told.
    pub fn active(&self) -> impl Iterator<Item = &str> {
        self.receivers.iter().filter(|r| r.disabled_at.is_none()).map(|r| &*r.url)
    }

    /// Those that are told in these words.
    pub fn active_in(&self, dialect: Dialect) -> impl Iterator<Item = &str> {
        self.receivers.iter().filter(move |r| r.disabled_at.is_none() && r.dialect == dialect).map(|r| &*r.url)
    }

    pub fn is_active(&self, url: &str) -> bool {
        self.active().any(|active| active == url)
    }
}

impl PreprEvents {
    /// Whether the event of this name is told.
    pub fn wants(self, word: &str) -> bool {
        match word {
            "asset.created" => self.created,
            "asset.uploaded" => self.uploaded,
            "asset.changed" => self.changed,
            "asset.deleted" => self.deleted,
            _ => false,
        }
    }
}

impl Events {
    /// Whether the event of this name is told.
    pub fn wants(self, word: &str) -> bool {
        match word {
            "file-saved" => self.file_saved,
            "file-processed" => self.file_processed,
            "file-data-updated" => self.file_data_updated,
            "file-deleted" => self.file_deleted,
            "file-undeleted" => self.file_undeleted,
            "addon-processed" => self.addon_processed,
            _ => false,
        }
    }
}
