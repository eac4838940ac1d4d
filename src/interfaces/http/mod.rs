//! HTTP as all dialects share it: listeners, the table of routes, callers, bodies, answers.
//!
//! A request passes `observe` (its id, its log line, its figures), then the row of the table
//! that serves it (`table`), which settles who calls and whether they may before any part of
//! the body is read. The handler that follows is a dialect's.

pub mod caller;
pub mod extract;
pub mod health;
pub mod observe;
pub mod once;
pub mod openapi;
pub mod pace;
pub mod parts;
pub mod peer;
pub mod respond;
pub mod server;
pub mod table;
pub mod throttle;
pub mod tls;

use serde::Deserialize;
use serde::Serialize;

/// How this process listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Addresses to listen on: `ADDR:PORT`, `http://ADDR:PORT` or `https://ADDR:PORT`.
    pub listen: Vec<String>,
    /// The origin in URLs that are handed out; empty: the one the caller used.
    pub public_url: String,
    /// Threads that serve requests; 0 takes one for each core.
    pub workers: usize,
    /// Connections at once, all listeners together.
    pub max_connections: usize,
    /// Origins whose pages may call the API; `*` is any. The API never uses cookies.
    pub cors_origins: Vec<String>,
    /// Certificate chain and key (PEM); empty: the box makes its own authority.
    pub tls_certificate: String,
    pub tls_private: String,
    /// Further IP addresses that the box's own certificate is for.
    pub tls_addresses: Vec<String>,
    /// A body may come slower than `body_min_bytes_per_second` for this long at its start.
    pub body_grace_seconds: u64,
    pub body_min_bytes_per_second: u64,
    /// A body may pause this long.
    pub body_stall_seconds: u64,
    /// How long a stop waits for requests under way.
    pub drain_seconds: u64,
    /// How many requests somebody may make.
    pub rates: Rates,
}

/// What `throttle` allows; a zero means no limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Calls of one user that ask for a permission, in the long run …
    pub calls_per_second: u32,
    /// … and at once.
    pub calls_burst: u32,
    /// Calls from one address that fail for want of a right or name what is not there, in the long run …
    pub failures_per_second: u32,
    /// … and at once.
    pub failures_burst: u32,
}
