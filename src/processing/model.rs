//! Rounds and steps.

use rusqlite::types::FromSql;
use rusqlite::types::FromSqlError;
use rusqlite::types::FromSqlResult;
use rusqlite::types::ToSql;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef;

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

/// One asked-for batch of processing.
#[derive(Clone, Debug)]
pub struct Round {
    pub id: i64,
    pub asset_id: AssetId,
    pub revision: u32,
    pub creator_id: i64,
    /// `IMAGE` or `VIDEO_TRANSCODE`.
    pub kind: String,
    pub status: RoundStatus,
    pub requested_at: Instant,
    pub completed_at: Option<Instant>,
    pub steps: Vec<Step>,
}

/// One processing key of a round.
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
