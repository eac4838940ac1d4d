//! Slow bodies: how long a sender may take.
//!
//! actix bounds the time of a request's head, not of its body: one byte a second would hold
//! a connection for days. A body may pause for `stall`, and after `grace` it has to have come
//! at `min_bytes_per_second` on average. Only the time spent waiting for the sender counts:
//! when our own disk is slow, nobody is refused for it. Measured on the monotonic clock.

use std::future::Future;
use std::time::Duration;
use std::time::Instant;

use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::Config;

/// The limits.
#[derive(Clone, Debug)]
pub struct Pace {
    grace: Duration,
    stall: Duration,
    min_bytes_per_second: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { grace: Duration::from_secs(10), stall: Duration::from_secs(30), min_bytes_per_second: 1024 }
    }
}

impl Pace {
    pub fn new(config: &Config) -> Pace {
        Pace {
            grace: Duration::from_secs(config.body_grace_seconds),
            stall: Duration::from_secs(config.body_stall_seconds),
            min_bytes_per_second: config.body_min_bytes_per_second,
        }
    }

    /// Starts to watch one body.
    pub fn watch(&self) -> Watch {
        Watch { pace: self.clone(), waited: Duration::ZERO, bytes: 0 }
    }
}

/// One body being watched.
pub struct Watch {
    pace: Pace,
    waited: Duration,
    bytes: u64,
}

impl Watch {
    /// Waits for the next part of the body, but not too long.
    pub async fn next<T>(&mut self, part: impl Future<Output = T>) -> Result<T> {
        let slow = || {
            Code::BodyTooSlow.because("The body came too slowly or stopped coming. Nothing was kept; send it again.")
        };
        let asked = Instant::now();
        let part = tokio::time::timeout(self.pace.stall, part).await.map_err(|_| slow())?;
        self.waited += asked.elapsed();
        let late = self.waited.saturating_sub(self.pace.grace);
        let owed = late.as_secs().saturating_mul(self.pace.min_bytes_per_second);
        if self.bytes < owed { Err(slow()) } else { Ok(part) }
    }

    /// That many bytes have come.
    pub fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}
