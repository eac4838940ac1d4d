//! The words of owed work: ids, states, queues, waiting times.
//!
//! ```text
//! scheduled ──due──▶ available ──claim──▶ running ──ok──▶ (row deleted)
//!     ▲                  ▲                 │ │ │
//!     └── failed, again ─│─────────────────┘ │ └─ failed for good ─▶ discarded
//!                        └─ rescued, or ─────┘
//!                           handed back            by hand, from the first three ─▶ cancelled
//! ```
//!
//! No I/O here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rusqlite::types::FromSql;
use rusqlite::types::FromSqlResult;
use rusqlite::types::ToSql;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef;
use serde::Deserialize;
use serde::Serialize;

use crate::support::clock::Instant;
use crate::text_column;

/// A job's number, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ToSql for JobId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl FromSql for JobId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(JobId)
    }
}

/// A resource that work waits for, not a topic: slots are counted per queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Queue(pub &'static str);

/// Where a job stands. A completed job has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Scheduled,
    Available,
    Running,
    Discarded,
    Cancelled,
}

impl State {
    const WORDS: [(State, &'static str); 5] = [
        (State::Scheduled, "scheduled"),
        (State::Available, "available"),
        (State::Running, "running"),
        (State::Discarded, "discarded"),
        (State::Cancelled, "cancelled"),
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS.iter().find(|(s, _)| s == self).map_or("", |(_, w)| w))
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<State, ()> {
        Self::WORDS.iter().find(|(_, w)| *w == text).map(|(s, _)| *s).ok_or(())
    }
}

text_column!(State);

/// How a job is owed. The default: its kind's priority, at once, as often as asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enqueue {
    /// Instead of the kind's own; higher goes first.
    pub priority: Option<i32>,
    /// Not before this instant.
    pub run_at: Option<Instant>,
    /// If a job of this kind and key waits already, it is that one, made no later and no
    /// less urgent. A running one does not count: it may have looked before this reason came.
    pub unique_key: Option<String>,
}

/// How long to wait after each failed attempt, give or take a tenth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// `first`, then twice as long each time, up to `longest`.
    Doubling { first: Duration, longest: Duration },
    /// A wait per attempt; the last one repeats.
    Steps(&'static [Duration]),
}

impl Backoff {
    /// 5 s, 10 s, 20 s … an hour.
    pub const USUAL: Backoff = Backoff::Doubling { first: Duration::from_secs(5), longest: Duration::from_hours(1) };

    /// The wait after the `attempt`-th attempt (from 1) of a job.
    ///
    /// The spread keeps jobs that failed together from coming back together. It depends on
    /// the job and the attempt alone, so that a wait can be foretold.
    pub fn after(&self, attempt: u32, id: JobId) -> Duration {
        let nth = attempt.saturating_sub(1);
        let wait = match *self {
            Backoff::Doubling { first, longest } => first.saturating_mul(1 << nth.min(30)).min(longest),
            Backoff::Steps(steps) => steps.get(nth as usize).or(steps.last()).copied().unwrap_or_default(),
        };
        let share = scatter(id.0 as u64 ^ u64::from(attempt) << 48) as f64 / u64::MAX as f64;
        wait.mul_f64(0.9 + 0.2 * share)
    }

    /// No wait is longer than this.
    pub fn longest(&self) -> Duration {
        let longest = match *self {
            Backoff::Doubling { longest, .. } => longest,
            Backoff::Steps(steps) => steps.iter().copied().max().unwrap_or_default(),
        };
        longest.mul_f64(1.1)
    }
}

/// A job as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub id: JobId,
    pub kind: String,
    pub queue: String,
    pub args: serde_json::Value,
    pub state: State,
    pub priority: i32,
    pub run_at: Instant,
    pub attempt: u32,
    pub percent: u8,
    pub error: Option<String>,
    pub created_at: Instant,
    pub finished_at: Option<Instant>,
}

/// Which jobs to list; everything left out means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub kind: Option<String>,
    pub queue: Option<String>,
    pub state: Option<State>,
    /// Only jobs older than this one: the last of the page before.
    pub before: Option<JobId>,
}

/// How an attempt ended, as the engine sees it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// By itself, by panic or by timeout.
    Ended(crate::error::Result<()>),
    /// Somebody cancelled the job or took it over; what is left of it is not ours to write.
    Lost,
    /// The process is being stopped; the attempt does not count.
    HandedBack,
}

/// The finalizer of `SplitMix64`: neighbours in, strangers out.
fn scatter(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_back_as_they_are_written() {
        for (state, word) in State::WORDS {
            assert_eq!(state.to_string(), word);
            assert_eq!(word.parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), word);
        }
    }

    #[test]
    fn waits_grow_to_a_limit_and_stay_within_a_tenth() {
        let minutes = |m: u64| Duration::from_mins(m);
        const HOOKS: Backoff = Backoff::Steps(&[Duration::from_mins(1), Duration::from_mins(5)]);
        let table = [
            (Backoff::USUAL, 1, Duration::from_secs(5)),
            (Backoff::USUAL, 2, Duration::from_secs(10)),
            (Backoff::USUAL, 5, Duration::from_secs(80)),
            (Backoff::USUAL, 40, minutes(60)),
            (Backoff::USUAL, u32::MAX, minutes(60)),
            (HOOKS, 1, minutes(1)),
            (HOOKS, 2, minutes(5)),
            (HOOKS, 9, minutes(5)),
            (Backoff::Steps(&[]), 1, Duration::ZERO),
        ];
        for (backoff, attempt, about) in table {
            let waits: Vec<_> = (1..200).map(|id| backoff.after(attempt, JobId(id))).collect();
            for wait in &waits {
                assert!(*wait >= about.mul_f64(0.9) && *wait <= about.mul_f64(1.1), "{backoff:?} {attempt}: {wait:?}");
                assert!(*wait <= backoff.longest());
            }
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*most >= *least + about.mul_f64(0.15), "hardly any spread");
        }
    }
}
