//! Tools without a domain word: each is used by two rooms or more, or it is not here.

pub mod checksum;
pub mod clock;
pub mod cpu;
pub mod fetch;
pub mod id;
pub mod mime;
pub mod page;
pub mod range;
pub mod rate;
pub mod secret;
pub mod single_flight;
pub mod zip;
