//! Rounds and steps.
//!
//! Most rounds are about one asset and have a step for each processing key. One about many has a
//! single step, and an outcome that grows with it.

use rusqlite::types::FromSql;
use rusqlite::types::FromSqlError;
use rusqlite::types::FromSqlResult;
use rusqlite::types::ToSql;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef;

use serde_json::Map;
use serde_json::Value;

use crate::assets::AssetId;
use crate::support::clock::Instant;

/// Where a round or a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundStatus {
    Queued,
    InProgress,
    Completed,
    Error,
}

impl RoundStatus {
    const WORDS: [(RoundStatus, &'static str); 4] = [
        (RoundStatus::Queued, "QUEUED"),
        (RoundStatus::InProgress, "IN_PROGRESS"),
        (RoundStatus::Completed, "COMPLETED"),
        (RoundStatus::Error, "ERROR"),
    ];

    pub fn word(self) -> &'static str {
        RoundStatus::WORDS.iter().find(|(s, _)| *s == self).map_or("ERROR", |(_, word)| word)
    }
}

impl ToSql for RoundStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.word().into())
    }
}

impl FromSql for RoundStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        RoundStatus::WORDS.iter().find(|(_, w)| *w == word).map(|(s, _)| *s).ok_or(FromSqlError::InvalidType)
    }
}

/// What can be asked for of many assets at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    Delete,
    Process,
    Purge,
}

impl Bulk {
    /// What such a round is called on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Bulk::Delete => "BULK_DELETE",
            Bulk::Process => "BULK_PROCESS",
            Bulk::Purge => "PURGE",
        }
    }

    /// The key of its one step.
    pub fn step(self) -> &'static str {
        match self {
            Bulk::Delete => "delete",
            Bulk::Process => "process",
            Bulk::Purge => "purge",
        }
    }
}

/// One asked-for batch of work.
#[derive(Clone, Debug)]
pub struct Round {
    pub id: i64,
    /// `None`: it is about many.
    pub asset_id: Option<AssetId>,
    pub revision: Option<u32>,
    pub creator_id: i64,
    /// `IMAGE` or `VIDEO_TRANSCODE`; of one about many, [`Bulk::word`].
    pub kind: String,
    pub status: RoundStatus,
    pub requested_at: Instant,
    pub completed_at: Option<Instant>,
    /// Of one about many: what was asked for.
    pub input: Map<String, Value>,
    /// Of one about many: what has come of it so far. Of one about an asset: empty, unless it ended
    /// without a `file-processed`; then what is to be said instead.
    pub outcome: Map<String, Value>,
    pub steps: Vec<Step>,
}

/// One part of a round, mostly a processing key.
#[derive(Clone, Debug)]
pub struct Step {
    pub key: String,
    pub status: RoundStatus,
    pub percent: u8,
    pub started_at: Option<Instant>,
    pub finished_at: Option<Instant>,
    /// Why it failed; empty otherwise.
    pub message: String,
}
