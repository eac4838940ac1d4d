//! How often somebody may do something: a bucket of tokens for each key, or a count in a window
//! where callers are told how much is left.
//!
//! A bucket holds `burst` tokens and gets one back every `each`. It is kept as a single
//! instant, the one at which it will be full again (the generic cell rate algorithm), on the
//! monotonic clock, which no clock jump can bend. Buckets that are full are forgotten, so
//! memory is bounded by those who are busy; beyond `MOST` of them everybody starts anew,
//! which a stranger can only bring about from that many addresses.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// Buckets that are kept at most.
const MOST: usize = 100_000;

/// Where a call comes from: an IPv4 address, or the /64 that an IPv6 subscriber owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    pub fn of(address: IpAddr) -> Network {
        Network(match address.to_canonical() {
            IpAddr::V6(long) => {
                let [a, b, c, d, ..] = long.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            short @ IpAddr::V4(_) => short,
        })
    }
}

/// Buckets of one size.
pub struct Buckets<K> {
    burst: u32,
    each: Duration,
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub fn new(burst: u32, each: Duration) -> Buckets<K> {
        Buckets { burst: burst.max(1), each, full_at: Mutex::default() }
    }

    /// Takes a token, or says how long it takes until there is one.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = all.get(&key).copied().unwrap_or(now).max(now);
        let after = full_at + self.each;
        let room = self.each * self.burst;
        let over = after.saturating_duration_since(now).saturating_sub(room);
        if !over.is_zero() {
            return Err(over);
        }
        if all.len() >= MOST && !all.contains_key(&key) {
            all.retain(|_, full_at| *full_at > now);
            if all.len() >= MOST {
                all.clear();
            }
        }
        all.insert(key, after);
        Ok(())
    }

    /// Puts a token back that was taken for nothing.
    pub fn give_back(&self, key: &K) {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = all.get_mut(key)
            && let Some(earlier) = full_at.checked_sub(self.each)
        {
            *full_at = earlier;
        }
    }
}

/// Counts in windows of fixed length, for those who tell their callers how much is left.
pub struct Windows<K> {
    most: u32,
    length: Duration,
    counts: Mutex<HashMap<K, (Instant, u32)>>,
}

impl<K: Eq + Hash> Windows<K> {
    pub fn new(most: u32, length: Duration) -> Windows<K> {
        Windows { most, length, counts: Mutex::default() }
    }

    /// How many a window takes.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Counts one; how many are left in this window, or how long it lasts when there are none.
    pub fn take(&self, key: K) -> Result<u32, Duration> {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: K, now: Instant) -> Result<u32, Duration> {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(&key) {
            all.retain(|_, (began, _)| now.saturating_duration_since(*began) < self.length);
            if all.len() >= MOST {
                all.clear();
            }
        }
        let (began, count) = all.entry(key).or_insert((now, 0));
        if now.saturating_duration_since(*began) >= self.length {
            (*began, *count) = (now, 0);
        }
        if *count >= self.most {
            return Err(self.length.saturating_sub(now.saturating_duration_since(*began)));
        }
        *count += 1;
        Ok(self.most - *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let buckets = Buckets::new(3, SECOND);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(buckets.take_at("a", start), Ok(()));
        }
        assert_eq!(buckets.take_at("a", start), Err(SECOND));
        assert_eq!(buckets.take_at("b", start), Ok(()), "others are not touched");
        assert_eq!(buckets.take_at("a", start + SECOND / 4), Err(SECOND * 3 / 4));
        assert_eq!(buckets.take_at("a", start + SECOND), Ok(()));
        assert!(buckets.take_at("a", start + SECOND).is_err());
        buckets.give_back(&"a");
        assert_eq!(buckets.take_at("a", start + SECOND), Ok(()));
        // A long rest fills the bucket and no more.
        let later = start + SECOND * 1000;
        assert_eq!((0..10).filter(|_| buckets.take_at("a", later).is_ok()).count(), 3);
    }

    #[test]
    fn ten_thousand_tries_in_a_minute_let_ten_through() {
        let buckets = Buckets::new(5, SECOND * 12);
        let start = Instant::now();
        let passed = (0..10_000).filter(|n| buckets.take_at((), start + SECOND * 60 * *n / 10_001).is_ok()).count();
        assert!(passed <= 10, "{passed}");
    }

    #[test]
    fn a_window_says_how_much_is_left_of_it() {
        let windows = Windows::new(2, SECOND * 60);
        let start = Instant::now();
        assert_eq!(windows.take_at("a", start), Ok(1));
        assert_eq!(windows.take_at("a", start + SECOND * 10), Ok(0));
        assert_eq!(windows.take_at("a", start + SECOND * 20), Err(SECOND * 40));
        assert_eq!(windows.take_at("b", start + SECOND * 20), Ok(1));
        assert_eq!(windows.take_at("a", start + SECOND * 60), Ok(1));
    }

    #[test]
    fn memory_is_bounded() {
        let buckets = Buckets::new(1, SECOND);
        let start = Instant::now();
        for n in 0..MOST + 10 {
            assert_eq!(buckets.take_at(n, start), Ok(()));
        }
        assert!(buckets.full_at.lock().unwrap().len() <= MOST);
    }

    #[test]
    fn a_subscriber_is_one_network() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.2"), network("10.0.0.1"));
    }
}
