//! From who-asks-for-what to bytes going out.
//!
//! Two kinds of answer: an on-demand image, computed once and then served from memory or
//! disk ([`on_demand`]), and a content as it is stored, read by descriptor ([`content`]).
//! Access is decided before any cache is asked.
//!
//! This room knows no HTTP: it gives bytes, an entity tag and a media type.

pub mod cache;
pub mod content;
pub mod on_demand;

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

pub use content::Content;
pub use on_demand::Image;

use crate::assets::Assets;
use crate::delivery::cache::Cache;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::Storage;
use crate::journal::Journal;
use crate::stills::Stills;
use crate::support::cpu::Cpu;
use crate::support::single_flight::SingleFlight;

/// How this process delivers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How much disk on-demand images may take; the least recently used go first.
    pub cache_disk_bytes: u64,
    /// How much memory the hottest of them may take.
    pub cache_memory_bytes: u64,
    /// How many files are kept open for reading.
    pub open_files: u64,
}

/// What everybody who waited for one rendering is given.
type Made = Result<Arc<Image>, Arc<Error>>;

/// Hands content out; cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    assets: Assets,
    storage: Storage,
    journal: Journal,
    stills: Stills,
    cpu: Cpu,
    cache: Arc<Cache>,
    open: moka::sync::Cache<content::Key, Arc<Content>>,
    rendering: SingleFlight<cache::Key, Made>,
}

impl Delivery {
    pub fn new(
        config: &Config,
        assets: Assets,
        storage: Storage,
        journal: Journal,
        stills: Stills,
        cpu: Cpu,
    ) -> Delivery {
        Delivery {
            assets,
            cache: Arc::new(Cache::new(config, storage.clone())),
            open: moka::sync::Cache::builder().max_capacity(config.open_files).build(),
            rendering: SingleFlight::new(cpu.handle().clone()),
            storage,
            journal,
            stills,
            cpu,
        }
    }

    /// Finds what the disk cache held before the restart.
    pub async fn recover(&self) -> Result<()> {
        let cache = Arc::clone(&self.cache);
        self.cpu.run(move || cache.recover()).await
    }
}
