//! Infrastructure: SQL, objects, owed work, sandboxed processes. Deaf to the domain.

pub mod db;
pub mod jobs;
pub mod storage;
pub mod workers;
