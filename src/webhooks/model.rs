//! Deliveries, attempts and what they are judged by; no I/O.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::assets::AssetId;
use crate::support::clock::Instant;
use crate::text_column;

crate::hex_id!(
    /// What a receiver knows a delivery by, however often it is sent.
    DeliveryId
);

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is owed.
    Waiting,
    Delivered,
    /// All tries are used up, or the receiver wants no more.
    Failed,
    /// Nobody wants it any more: its URL was taken out of the settings, or is disabled.
    Dropped,
}

impl State {
    const WORDS: [(State, &'static str); 4] = [
        (State::Waiting, "WAITING"),
        (State::Delivered, "DELIVERED"),
        (State::Failed, "FAILED"),
        (State::Dropped, "DROPPED"),
    ];

    pub fn word(self) -> &'static str {
        State::WORDS.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<State, ()> {
        State::WORDS.iter().find(|(_, word)| word.eq_ignore_ascii_case(text)).map(|(state, _)| *state).ok_or(())
    }
}

text_column!(State);

/// A delivery as it is shown.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub seq: i64,
    pub id: DeliveryId,
    pub asset_id: Option<AssetId>,
    pub event: String,
    pub url: String,
    pub state: State,
    pub attempts: u32,
    pub created_at: Instant,
    /// While it waits.
    pub next_at: Option<Instant>,
    pub finished_at: Option<Instant>,
    pub last: Option<Attempt>,
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub number: u32,
    pub at: Instant,
    pub duration: Duration,
    /// What was answered, if anything.
    pub status: Option<u16>,
    /// Why it does not count as delivered.
    pub error: Option<String>,
    /// How the answer's body begins.
    pub answer: String,
}

/// Which deliveries to list; everything left out means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<State>,
    pub event: Option<String>,
    pub url: Option<String>,
    pub asset_id: Option<AssetId>,
    /// Only those before this one: the last of the page before.
    pub before: Option<i64>,
}

/// A delivery that is due.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub seq: i64,
    pub id: DeliveryId,
    pub asset_id: Option<AssetId>,
    pub body: String,
    /// Made already since it was last begun.
    pub tries: u32,
    /// Made already in all.
    pub attempts: u32,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    Again(Duration),
    GivenUp,
    /// The receiver wants nothing any more, of this or of anything.
    Gone,
}

/// The longest wait that a receiver may ask for.
const LONGEST_ASKED: Duration = Duration::from_hours(4);

/// Waits are scattered by a tenth, so that what failed together does not come back together.
const SPREAD: f64 = 0.1;

/// The verdict on the attempt that followed `tries` others; `scatter` is 0 to 1.
pub(super) fn judge(
    schedule: &[Duration],
    tries: u32,
    status: Option<u16>,
    asked: Option<Duration>,
    scatter: f64,
) -> Verdict {
    match (status, schedule.get(tries as usize)) {
        (Some(200..=202), _) => Verdict::Delivered,
        (Some(410), _) => Verdict::Gone,
        (_, None) => Verdict::GivenUp,
        (_, Some(wait)) => {
            let wait = wait.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * scatter);
            Verdict::Again(wait.max(asked.unwrap_or_default().min(LONGEST_ASKED)))
        }
    }
}

/// No delivery waits longer than this for its next attempt.
pub(super) fn longest_wait(schedule: &[Duration]) -> Duration {
    let longest = schedule.iter().copied().max().unwrap_or_default();
    longest.mul_f64(1.0 + SPREAD).max(LONGEST_ASKED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_answers_count_and_eight_attempts_are_made() {
        let schedule: Vec<_> = [60, 300, 900, 1800, 3600, 7200, 14400].map(Duration::from_secs).to_vec();
        let judged = |tries, status| judge(&schedule, tries, status, None, 0.5);
        for status in [200, 201, 202] {
            assert_eq!(judged(0, Some(status)), Verdict::Delivered);
        }
        for status in [None, Some(100), Some(203), Some(204), Some(206), Some(301), Some(404), Some(429), Some(503)] {
            for (tries, wait) in schedule.iter().enumerate() {
                assert_eq!(judged(tries as u32, status), Verdict::Again(*wait), "{status:?}");
            }
            assert_eq!(judged(7, status), Verdict::GivenUp, "{status:?}");
        }
        assert_eq!(judged(0, Some(410)), Verdict::Gone);
        let total: Duration = schedule.iter().sum();
        assert!(total <= Duration::from_hours(8) && total > Duration::from_hours(7));
    }

    #[test]
    fn a_receiver_may_ask_for_longer_but_not_for_ever() {
        let minute = [Duration::from_mins(1)];
        let asked = |seconds| judge(&minute, 0, Some(503), Some(Duration::from_secs(seconds)), 0.0);
        assert_eq!(asked(1), Verdict::Again(Duration::from_secs(54)));
        assert_eq!(asked(600), Verdict::Again(Duration::from_mins(10)));
        assert_eq!(asked(9_999_999), Verdict::Again(LONGEST_ASKED));
        assert_eq!(judge(&minute, 0, None, None, 1.0), Verdict::Again(Duration::from_secs(66)));
        assert!(longest_wait(&minute) >= LONGEST_ASKED);
    }
}
