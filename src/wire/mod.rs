//! The domain in a vendor's JSON: pure mapping, used by interfaces and by webhooks.

pub mod filespin;
pub mod prepr;
