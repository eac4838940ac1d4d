//! `deepzoom`: a pyramid of tiles, for looking closely.
//!
//! All tiles lie in one file, a pack, so that a picture of a thousand tiles is written, replaced
//! and deleted as one thing. `delivery::deepzoom` finds single tiles in it.

use std::future::Future;
use std::pin::Pin;

use crate::assets::Asset;
use crate::assets::Conversion;
use crate::error::Result;
use crate::processing::keys::Bench;
use crate::processing::keys::Family;
use crate::processing::keys::Made;
use crate::processing::keys::ProcessingKey;
use crate::processing::keys::StillKey;
use crate::processing::keys::Work;
use crate::settings::DEEPZOOM;

pub struct DeepZoom;

impl ProcessingKey for DeepZoom {
    fn name(&self) -> &str {
        DEEPZOOM
    }

    fn help(&self) -> &'static str {
        "Makes Deep Zoom tiles, from a single pixel up to the full size."
    }

    fn family(&self) -> Family {
        Family::Image
    }

    fn applies_to(&self, asset: &Asset) -> bool {
        asset.has_picture()
    }

    fn work(&self) -> Work<'_> {
        Work::Still(self)
    }
}

impl StillKey for DeepZoom {
    fn run<'a>(&'a self, asset: &'a Asset, at: &'a Bench) -> Pin<Box<dyn Future<Output = Result<Made>> + Send + 'a>> {
        Box::pin(make(asset, at))
    }
}

async fn make(asset: &Asset, at: &Bench) -> Result<Made> {
    let wanted = at.settings.images.deepzoom;
    let (sources, mark) = at.open(asset, wanted.is_some_and(|wanted| wanted.watermark)).await?;
    let overlay = mark.as_ref().map(|mark| (mark.placement, mark.scale));
    let tiles = at.stills.deep_zoom(sources, overlay).await?;
    let conversion = Conversion {
        width: Some(tiles.width),
        height: Some(tiles.height),
        size_bytes: tiles.pack.len() as u64,
        watermarked: mark.is_some(),
        ..Conversion::made(DEEPZOOM, "tiles", "application/octet-stream", at.making)
    };
    at.keep(asset, &conversion, tiles.pack).await?;
    Ok(Made { conversions: vec![conversion], ..Made::default() })
}
