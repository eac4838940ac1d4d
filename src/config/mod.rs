//! How this process runs, read once at start.
//!
//! Layers, lowest first: `defaults.toml` (every setting with its comment, built in), then
//! `/etc/cloakroom/config.toml` or `--config`, then `CLOAKROOM_SECTION__KEY` variables, then
//! the flags. Each room owns its section; this file only lists them. What an administrator
//! changes while the box runs is not here but in the database.
//!
//! The environment is read in this room and nowhere else.

pub mod layers;

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::accounts;
use crate::accounts::FirstAdministrator;
use crate::config::layers::Effective;
use crate::config::layers::Layers;
use crate::custody;
use crate::delivery;
use crate::error::Code;
use crate::error::Result;
use crate::films;
use crate::infra::db;
use crate::infra::storage;
use crate::infra::workers;
use crate::ingest;
use crate::interfaces::http;
use crate::interfaces::prepr;
use crate::media::imaging;
use crate::processing;
use crate::support::fetch;
use crate::webhooks;

/// Every setting with its default and what it means.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Where the file is looked for when nobody names one.
const USUAL_FILE: &str = "/etc/cloakroom/config.toml";

/// Variables that are not settings: they introduce the first administrator of an empty box.
const FIRST_ADMINISTRATOR: &[&str] =
    &["CLOAKROOM_ADMIN_EMAIL", "CLOAKROOM_ADMIN_PASSWORD", "CLOAKROOM_ADMIN_API_KEY", "CLOAKROOM_ADMIN_UPLOAD_KEY"];

/// All settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder that holds everything.
    pub data_dir: String,
    /// What is logged, as `tracing` filters.
    pub log: String,
    /// `text` or `json`.
    pub log_format: String,
    pub http: http::Config,
    pub db: db::Config,
    pub accounts: accounts::Config,
    pub storage: storage::Config,
    pub workers: workers::Config,
    pub images: imaging::Limits,
    pub films: films::Config,
    pub ingest: ingest::Config,
    pub processing: processing::Config,
    pub custody: custody::Config,
    pub delivery: delivery::Config,
    pub net: fetch::Config,
    pub webhooks: webhooks::Config,
    pub prepr: prepr::Config,
}

/// What the command line may set.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<String>,
    pub listen: Vec<String>,
    pub data_dir: Option<String>,
    pub log: Option<String>,
}

/// Reads all layers; every complaint is in the error.
pub fn read(flags: &Flags) -> Result<(Config, Effective)> {
    let file = flags.config.as_deref().unwrap_or(USUAL_FILE);
    let mut layers = Layers::new(DEFAULTS)
        .file(Path::new(file), flags.config.is_some())
        .environment(std::env::vars_os(), FIRST_ADMINISTRATOR);
    if !flags.listen.is_empty() {
        layers = layers.flag("--listen", "http.listen", &flags.listen.join(","));
    }
    for (flag, key, value) in [("--data-dir", "data_dir", &flags.data_dir), ("--log", "log", &flags.log)] {
        if let Some(value) = value {
            layers = layers.flag(flag, key, value);
        }
    }
    let refused = |complaints: String| Code::InvalidRequest.because(complaints);
    let effective = layers.finish().map_err(|c| refused(c.to_string()))?;
    let config = effective.clone().into().map_err(|c| refused(c.join("\n")))?;
    Ok((config, effective))
}

/// What the environment says about the first administrator.
pub fn first_administrator() -> FirstAdministrator {
    #[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    FirstAdministrator {
        email: given("CLOAKROOM_ADMIN_EMAIL"),
        password: given("CLOAKROOM_ADMIN_PASSWORD"),
        api_key: given("CLOAKROOM_ADMIN_API_KEY"),
        upload_key: given("CLOAKROOM_ADMIN_UPLOAD_KEY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::workers::errand;

    #[test]
    fn the_defaults_are_whole_and_explained() {
        let config: Config = Layers::new(DEFAULTS).finish().unwrap().into().unwrap();
        assert_eq!(
            config.workers,
            workers::Config { program: Some(String::new().into()), ..workers::Config::default() }
        );
        assert_eq!(
            config.films.workers,
            errand::Config { program: Some(String::new().into()), ..errand::Config::default() }
        );
        assert_eq!(config.images, imaging::Limits::default());
        assert_eq!(config.db, db::Config::default());
        assert_eq!(config.accounts, accounts::Config::default());
        let mut explained = false;
        for line in DEFAULTS.lines().map(str::trim) {
            let setting = line.contains('=') && !line.starts_with('#');
            assert!(!setting || explained, "no comment above `{line}`");
            explained = line.starts_with('#') || (setting && explained);
        }
    }

    #[test]
    fn the_documents_name_settings_that_exist() {
        let documents = [
            include_str!("../../README.md"),
            include_str!("../../docs/api.md"),
            include_str!("../../docs/compatibility.md"),
            include_str!("../../docs/films.md"),
            include_str!("../../docs/images.md"),
            include_str!("../../docs/operating.md"),
        ];
        assert!(documents.iter().any(|text| text.contains("(../src/config/defaults.toml)")), "all are listed there");
        let settings: toml::Table = DEFAULTS.parse().unwrap();
        let mut named = 0;
        for word in documents.iter().flat_map(|text| text.split('`')) {
            let is_key = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '.');
            let Some((section, _)) = word.split_once('.').filter(|_| word.chars().all(is_key)) else { continue };
            if settings.get(section).is_some_and(toml::Value::is_table) {
                let parts: Vec<&str> = word.split('.').collect();
                let found = parts.iter().skip(1).try_fold(&settings[section], |at, part| at.get(part));
                assert!(found.is_some(), "a document names the setting {word}, which is not there");
                named += 1;
            }
        }
        assert!(named > 20, "the documents name settings: {named}");
    }
}
