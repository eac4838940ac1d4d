//! The only place that knows the time.
//!
//! A [`Clock`] is a value handed to whoever needs it: the system's, or one set by hand, so
//! that tests of retries, leases and expiry move time instead of waiting for it.
//!
//! Wall time answers "when"; durations of a running process (timeouts, rates) are measured
//! with `std::time::Instant`, which no clock jump can bend.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// An instant of wall time, in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(pub i64);

impl Instant {
    pub fn plus(self, by: Duration) -> Instant {
        Instant(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    pub fn minus(self, by: Duration) -> Instant {
        Instant(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to `self`; zero when the order is the other way round.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The last instant that is told as the same second: where a span ends that somebody has put
    /// together of what they were told.
    pub fn end_of_second(self) -> Instant {
        Instant(self.0.div_euclid(1000).saturating_mul(1000).saturating_add(999))
    }

    /// `2015-07-02T08:12:56Z`, the form of both contracts: whole seconds, always UTC.
    pub fn iso(self) -> String {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        OffsetDateTime::from_unix_timestamp(self.unix_seconds())
            .ok()
            .and_then(|t| t.format(format).ok())
            .unwrap_or_default()
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Instant> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        Some(Instant((at.unix_timestamp_nanos() / 1_000_000) as i64))
    }
}

/// Tells the time; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    by_hand: Option<Arc<AtomicI64>>,
}

impl Clock {
    pub fn system() -> Clock {
        Clock { by_hand: None }
    }

    /// A clock that stands still until it is moved.
    pub fn by_hand(start: Instant) -> Clock {
        Clock { by_hand: Some(Arc::new(AtomicI64::new(start.0))) }
    }

    pub fn now(&self) -> Instant {
        if let Some(at) = &self.by_hand {
            return Instant(at.load(Ordering::Relaxed));
        }
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Instant(since.as_millis() as i64)
    }

    /// Moves a clock set by hand; the system's clock ignores it.
    pub fn advance(&self, by: Duration) {
        if let Some(at) = &self.by_hand {
            at.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
        }
    }

    /// Moves a clock set by hand to an earlier time, as somebody may move the system's.
    #[cfg(test)]
    pub fn set_back(&self, by: Duration) {
        if let Some(at) = &self.by_hand {
            at.fetch_sub(by.as_millis() as i64, Ordering::Relaxed);
        }
    }
}

/// Wall time that this process can vouch for: it does not run ahead of the process's own running time.
/// For what must not be forgotten because a clock jumped.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    began_at: Instant,
    began: std::time::Instant,
}

impl Steady {
    pub fn begin(clock: &Clock) -> Steady {
        Steady { began_at: clock.now(), began: std::time::Instant::now() }
    }

    /// The wall's time, or what it would be without the jump.
    pub fn at_most(&self, now: Instant) -> Instant {
        now.min(self.began_at.plus(self.began.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_the_contracts_write_them() {
        assert_eq!(Instant(1_435_824_776_123).iso(), "2015-07-02T08:12:56Z");
        assert_eq!(Instant::parse("2015-07-02T08:12:56Z"), Some(Instant(1_435_824_776_000)));
        assert_eq!(Instant::parse("yesterday"), None);
        for at in [1_435_824_776_000, 1_435_824_776_123, 1_435_824_776_999] {
            assert_eq!(Instant(at).end_of_second(), Instant(1_435_824_776_999));
        }
        assert_eq!(Instant(-1).end_of_second(), Instant(-1));
    }

    #[test]
    fn a_jump_ahead_is_not_vouched_for() {
        let clock = Clock::by_hand(Instant(1_000_000));
        let steady = Steady::begin(&clock);
        clock.advance(Duration::from_hours(24));
        assert!(steady.at_most(clock.now()).since(Instant(1_000_000)) < Duration::from_hours(12));
        assert_eq!(steady.at_most(Instant(500)), Instant(500));
    }

    #[test]
    fn a_clock_set_by_hand_moves_only_by_hand() {
        let clock = Clock::by_hand(Instant(1000));
        assert_eq!(clock.now(), Instant(1000));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), Instant(3000));
        assert_eq!(clock.now().since(Instant(9000)), Duration::ZERO);
        clock.set_back(Duration::from_secs(1));
        assert_eq!(clock.now(), Instant(2000));
    }
}
