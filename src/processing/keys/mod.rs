//! Processing keys: the words that `/process` accepts, one file each; those of films share one.

mod deepzoom;
pub mod films;
mod named;
mod smart_imaging;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Map;
use serde_json::Value;

use crate::assets::Asset;
use crate::assets::Conversion;
use crate::assets::Making;
use crate::assets::ORIGINAL;
use crate::assets::POSTER;
use crate::assets::STORYBOARD;
use crate::assets::WAVEFORM;
use crate::assets::place;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::films::Films;
use crate::homes::Homes;
use crate::infra::storage::Storage;
use crate::processing::placing::Placing;
use crate::settings::Values;
use crate::settings::Watermark;
use crate::stills::Sources;
use crate::stills::Stills;

/// Every key that is always there. Validation, steps and the reference read this list.
pub fn all() -> impl Iterator<Item = &'static dyn ProcessingKey> {
    const STILLS: [&dyn ProcessingKey; 2] = [&smart_imaging::SmartImaging, &deepzoom::DeepZoom];
    STILLS.into_iter().chain(films::FILMS.iter().map(|film| film as &dyn ProcessingKey))
}

/// Whether this names something of ours, so that people cannot hand in a conversion under it. Names
/// of the settings are theirs.
pub fn is_reserved(name: &str) -> bool {
    let other = [ORIGINAL, POSTER, WAVEFORM];
    all().any(|key| key.name().eq_ignore_ascii_case(name)) || other.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// Whether the contract counts this key among its add-ons, whose end is told by itself.
pub fn is_addon(name: &str) -> bool {
    name == STORYBOARD
}

/// These, and those of the settings.
pub fn in_force(settings: &Values) -> impl Iterator<Item = &dyn ProcessingKey> {
    let named = settings.images.conversions.iter().map(|named| named as &dyn ProcessingKey);
    all().map(|key| key as &dyn ProcessingKey).chain(named)
}

/// What a key does with an asset.
pub trait ProcessingKey: Sync {
    /// On the wire, in steps and in paths.
    fn name(&self) -> &str;
    /// One sentence for the reference.
    fn help(&self) -> &'static str;
    fn family(&self) -> Family;
    fn applies_to(&self, asset: &Asset) -> bool;
    /// Who does the work.
    fn work(&self) -> Work<'_>;
}

/// How a key's work is done.
pub enum Work<'a> {
    /// By a job of its own.
    Still(&'a dyn StillKey),
    /// Together with the other film keys of its round: a film is decoded once for all of them.
    Film(&'a films::FilmKey),
}

/// A key that makes pictures.
pub trait StillKey: Sync {
    /// Does the work. Running it again must be harmless.
    fn run<'a>(&'a self, asset: &'a Asset, at: &'a Bench) -> Pin<Box<dyn Future<Output = Result<Made>> + Send + 'a>>;
}

/// What a round of such keys is called on the wire; the last one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Image,
    Video,
}

impl Family {
    pub fn word(self) -> &'static str {
        match self {
            Family::Image => "IMAGE",
            Family::Video => "VIDEO_TRANSCODE",
        }
    }
}

/// What a key works with.
pub struct Bench {
    pub placing: Placing,
    pub storage: Storage,
    pub homes: Homes,
    pub stills: Stills,
    pub films: Films,
    pub settings: Arc<Values>,
    pub making: Making,
}

impl Bench {
    /// The files that a picture of an asset is made of: its original, and the mark of the
    /// settings if it is to be laid over. Where that was never set, there is no picture either.
    pub async fn open(&self, asset: &Asset, watermark: bool) -> Result<(Sources, Option<Watermark>)> {
        let mark = watermark.then(|| self.settings.watermark.clone().ok_or_else(no_watermark)).transpose()?;
        let overlay = mark.as_ref().map(|mark| place::watermark(&mark.digest)).transpose()?;
        let (storage, original) = (self.storage.clone(), place::original(asset.id, asset.revision)?);
        let open = move || Sources::open(&storage, &original, overlay.as_ref());
        let sources = self.homes.with(asset.id, asset.revision, open).await?;
        Ok((sources, mark))
    }

    /// Keeps what was made; the row says where.
    pub async fn keep(&self, asset: &Asset, conversion: &Conversion, bytes: Bytes) -> Result<()> {
        let to = place::whole(asset.id, conversion)?;
        self.placing.place(move |storage| storage.put(&to, &bytes)).await
    }
}

/// Why nothing is made that is to bear the venue's mark.
pub(super) fn no_watermark() -> Error {
    Code::InvalidRequest.because(
        "No watermark is set: choose one with the section `watermark` of the settings, then ask for this again.",
    )
}

/// What a key has made; it is recorded in one transaction with the end of its step.
#[derive(Default)]
pub struct Made {
    pub conversions: Vec<Conversion>,
    /// Added to what is known about the asset.
    pub facts: Map<String, Value>,
    /// Images can be cut from the asset from now on.
    pub on_demand: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_explained() {
        let documented = [include_str!("../../../docs/api.md"), include_str!("../../../docs/films.md")];
        for (n, key) in all().enumerate() {
            assert!(!key.help().is_empty());
            let named = |document: &str| document.contains(&format!("`{}`", key.name()));
            assert!(documented.iter().any(|document| named(document)), "no document names `{}`", key.name());
            assert!(all().skip(n + 1).all(|other| other.name() != key.name()));
        }
    }
}
