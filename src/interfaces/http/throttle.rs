//! How many requests somebody may make: what is answered 429, and when to come back.
//!
//! Two kinds of bucket. One belongs to each user and is drawn from by every call that asks for
//! a permission, also with a token; pictures and contents that need none are bounded by their workers and by the
//! network, not here. The other belongs to each address and is drawn from by calls that fail
//! for want of a right or for naming what is not there, as guessing does; when it is empty, such
//! calls are told so instead, and nobody else at that address notices.
//!
//! The contract speaks of about 30 requests a second for everybody; a box in the venue's own
//! network serves capture stations that come in bursts, so the defaults are far higher.

use std::time::Duration;

use crate::accounts::Caller;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::interfaces::http::Rates;
use crate::support::rate::Buckets;
use crate::support::rate::Network;

/// Both kinds; one for the process.
pub struct Throttle {
    calls: Option<Buckets<i64>>,
    failures: Option<Buckets<Network>>,
}

impl Throttle {
    /// Zeros in the configuration mean no limit.
    pub fn new(rates: &Rates) -> Throttle {
        Throttle {
            calls: buckets(rates.calls_burst, rates.calls_per_second),
            failures: buckets(rates.failures_burst, rates.failures_per_second),
        }
    }

    /// A call that asks for a permission begins.
    pub fn call(&self, caller: &Caller) -> Result<()> {
        let (Some(calls), Caller::Known { user_id, .. } | Caller::Token { user_id, .. }) = (&self.calls, caller) else {
            return Ok(());
        };
        calls.take(*user_id).map_err(|wait| {
            Code::TooManyRequests
                .because("Too many requests by this user. Slow down; see Retry-After.")
                .again_after(wait)
        })
    }

    /// What a failed call from there is told: its own failure, unless there were too many.
    pub fn failed(&self, from: Network, error: &Error) -> Option<Error> {
        if !matches!(error.code.http(), 401 | 404) {
            return None;
        }
        let wait = self.failures.as_ref()?.take(from).err()?;
        let sentence = "Too many requests from your address had no right or named what is not there. Slow down.";
        Some(Code::TooManyRequests.because(sentence).again_after(wait))
    }
}

fn buckets<K: Eq + std::hash::Hash>(burst: u32, per_second: u32) -> Option<Buckets<K>> {
    (burst > 0 && per_second > 0).then(|| Buckets::new(burst, Duration::from_secs(1) / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Role;
    use crate::accounts::Scopes;

    fn throttle() -> Throttle {
        Throttle::new(&Rates { calls_burst: 3, calls_per_second: 1, failures_burst: 2, failures_per_second: 1 })
    }

    #[test]
    fn a_user_who_calls_too_often_waits_and_others_do_not() {
        let throttle = throttle();
        let user = |user_id| Caller::Known { user_id, role: Role::Admin };
        assert!((0..3).all(|_| throttle.call(&user(1)).is_ok()));
        let refused = throttle.call(&user(1)).unwrap_err();
        assert_eq!((refused.code, refused.again_after.is_some()), (Code::TooManyRequests, true));
        let scopes = Scopes::parse("assets");
        let token = |user_id| Caller::Token { user_id, role: Role::Admin, key_id: 9, scopes };
        assert_eq!(throttle.call(&token(1)).unwrap_err().code, Code::TooManyRequests, "a token is its user's");
        assert!((0..3).all(|_| throttle.call(&token(3)).is_ok()));
        assert!(throttle.call(&token(3)).is_err());
        assert!(throttle.call(&user(2)).is_ok());
        assert!((0..9).all(|_| throttle.call(&Caller::Nobody).is_ok()));
    }

    #[test]
    fn guessing_is_told_to_slow_down() {
        let throttle = throttle();
        let from = |text: &str| Network::of(text.parse().unwrap());
        let (here, there) = (from("10.0.0.1"), from("10.0.0.2"));
        let unknown = Code::AssetNotFound.because("");
        assert!((0..9).all(|_| throttle.failed(here, &Code::InvalidRequest.because("")).is_none()));
        assert!(throttle.failed(here, &unknown).is_none());
        assert!(throttle.failed(here, &Code::Unauthorized.because("")).is_none());
        assert_eq!(throttle.failed(here, &unknown).unwrap().code, Code::TooManyRequests);
        assert!(throttle.failed(there, &unknown).is_none());
    }

    #[test]
    fn zeros_are_no_limit() {
        let throttle =
            Throttle::new(&Rates { calls_burst: 0, calls_per_second: 9, failures_burst: 9, failures_per_second: 0 });
        let user = Caller::Known { user_id: 1, role: Role::Admin };
        assert!((0..10_000).all(|_| throttle.call(&user).is_ok()));
        let from = Network::of("10.0.0.1".parse().unwrap());
        assert!((0..10_000).all(|_| throttle.failed(from, &Code::NotFound.because("")).is_none()));
    }
}
