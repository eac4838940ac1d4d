//! Everything through which the world comes in: it translates, refuses, passes on.

pub mod filespin;
pub mod http;
pub mod invitation;
pub mod manual;
pub mod router;
pub mod tus;
