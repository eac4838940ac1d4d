//! From who-asks-for-what to bytes going out.
//!
//! Two kinds of answer: an on-demand image, computed once and then served from memory or
//! disk ([`on_demand`]), and a content as it is stored, read by descriptor ([`content`]); of
//! films and recordings, [`transcodes`] hands out what is made.
//! Access is decided before any cache is asked.
//!
//! This room knows no HTTP: it gives bytes, an entity tag and a media type.

pub mod access;
pub mod cache;
pub mod content;
pub mod deepzoom;
pub mod link;
pub mod manual;
pub mod on_demand;
#[cfg(test)]
mod tests;
pub mod transcodes;
mod wait;
pub mod watermark;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

pub use access::Ground;
pub use access::Standing;
pub use content::Content;
pub use on_demand::Image;
pub use on_demand::Of;
pub use on_demand::Shown;
pub use on_demand::Wanted;
pub use transcodes::Text;

use crate::accounts::Accounts;
use crate::assets::Assets;
use crate::delivery::cache::Cache;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::homes::Homes;
use crate::infra::storage::Storage;
use crate::journal::Journal;
use crate::media::imaging::Recipe;
use crate::settings::Settings;
use crate::stills::Stills;
use crate::support::clock::Clock;
use crate::support::cpu::Cpu;
use crate::support::single_flight::SingleFlight;

/// How long a request waits for an asset that is being saved, or for what is made of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after its upload the picture that stands for a film is waited for at all.
const STILL_COMES_WITHIN: Duration = Duration::from_secs(30);

/// How long a file that nobody reads is held open: until then, one that was deleted takes room.
const HELD_OPEN: Duration = Duration::from_mins(5);

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
    /// Strangers are shown on-demand images only through signed links.
    pub signed_only: bool,
    /// Strangers are shown on-demand images only of the shapes in `presets`.
    pub presets_only: bool,
    /// Recipes as in a URL: `resize=400,300`.
    pub presets: Vec<String>,
}

/// What everybody who waited for one rendering is given.
type Made = Result<Arc<Image>, Arc<Error>>;

/// Hands content out; cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    config: Config,
    /// The presets, in canonical form.
    presets: Arc<HashSet<String>>,
    clock: Clock,
    accounts: Accounts,
    settings: Settings,
    assets: Assets,
    storage: Storage,
    homes: Homes,
    journal: Journal,
    stills: Stills,
    cpu: Cpu,
    cache: Arc<Cache>,
    open: moka::sync::Cache<content::Key, Arc<Content>>,
    rendering: SingleFlight<cache::Key, Made>,
    examples: moka::sync::Cache<String, Arc<Image>>,
}

impl Delivery {
    #[expect(clippy::too_many_arguments, reason = "the wiring names each collaborator once")]
    pub fn new(
        config: Config,
        clock: Clock,
        accounts: Accounts,
        settings: Settings,
        assets: Assets,
        storage: Storage,
        homes: Homes,
        journal: Journal,
        stills: Stills,
        cpu: Cpu,
    ) -> Result<Delivery> {
        let presets = config.presets.iter().map(|preset| preset_shape(preset)).collect::<Result<_>>()?;
        Ok(Delivery {
            presets: Arc::new(presets),
            cache: Arc::new(Cache::new(&config, storage.clone())),
            open: moka::sync::Cache::builder().max_capacity(config.open_files).time_to_idle(HELD_OPEN).build(),
            rendering: SingleFlight::new(cpu.handle().clone()),
            examples: moka::sync::Cache::new(64),
            config,
            clock,
            accounts,
            settings,
            assets,
            storage,
            homes,
            journal,
            stills,
            cpu,
        })
    }

    /// Finds what the disk cache held before the restart.
    pub async fn recover(&self) -> Result<()> {
        let cache = Arc::clone(&self.cache);
        self.cpu.run(move || cache.recover()).await
    }
}

fn preset_shape(preset: &str) -> Result<String> {
    let recipe = Recipe::from_canonical(preset)
        .map_err(|bad| Code::InvalidRequest.because(format!("delivery.presets: `{preset}`: {bad}")))?;
    Ok(access::shape(&recipe))
}
