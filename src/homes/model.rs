//! What is known of where an original is.

use crate::assets::AssetId;
use crate::assets::place;
use crate::error::Result;
use crate::infra::storage::Backend;
use crate::infra::storage::ObjectPath;

/// Where bytes are for good.
#[derive(Clone, Debug, Eq)]
pub struct Home {
    /// What it was taken for when that was written down: it may have been corrected since.
    pub backend: Backend,
    /// The name by which the configuration knows the bucket; empty for the local disk.
    pub bucket: String,
}

/// The name alone says which one it is.
impl PartialEq for Home {
    fn eq(&self, other: &Home) -> bool {
        self.bucket == other.bucket
    }
}

impl Home {
    /// The local disk.
    pub fn here() -> Home {
        Home { backend: Backend::Fs, bucket: String::new() }
    }
}

/// Whether there are bytes on this disk beside those in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Copy {
    None = 0,
    /// Room is made with it.
    MayGo = 1,
    /// Somebody wanted it kept.
    Stays = 2,
}

/// An original on record.
#[derive(Clone, Debug)]
pub struct Object {
    pub id: AssetId,
    pub revision: u32,
    pub size_bytes: u64,
    pub sha256: String,
    pub home: Home,
    /// Where it is to go.
    pub goal: Option<Home>,
    pub here: Copy,
    pub tries: u32,
    /// A mover is at it.
    pub held: bool,
    /// Whose move it is: who finds another number has been overtaken.
    pub turn: i64,
}

impl Object {
    /// Its name, here and in every bucket.
    pub fn place(&self) -> Result<ObjectPath> {
        place::original(self.id, self.revision)
    }
}

/// Something in a bucket that nobody needs any more.
#[derive(Clone, Debug)]
pub struct Leftover {
    pub id: i64,
    pub home: Home,
    pub asset_id: AssetId,
    pub revision: u32,
}

impl Leftover {
    /// Its name in the bucket.
    pub fn place(&self) -> Result<ObjectPath> {
        place::original(self.asset_id, self.revision)
    }
}

/// What lies in a home.
#[derive(Clone, Debug)]
pub struct Tally {
    pub home: Home,
    pub objects: u64,
    pub bytes: u64,
    /// Of these, on their way elsewhere.
    pub waiting: u64,
}
