//! `smart_imaging`: makes the base image, from which on-demand images are cut.
//!
//! A photo of 24 or 45 megapixels is decoded once, here; every later request for a screen-sized
//! image starts from 2,048 upright sRGB pixels. Small originals need no base. While it has the
//! pixels in hand, it notes what they look like at a glance: `thumbhash` and `colors`. Of a film
//! it keeps a good frame, the poster.

use std::future::Future;
use std::pin::Pin;

use serde_json::Map;

use crate::assets::Asset;
use crate::assets::BASE;
use crate::assets::Conversion;
use crate::assets::POSTER;
use crate::assets::place;
use crate::error::Code;
use crate::error::Result;
use crate::processing::keys::Bench;
use crate::processing::keys::Family;
use crate::processing::keys::Made;
use crate::processing::keys::ProcessingKey;
use crate::processing::keys::StillKey;
use crate::processing::keys::Work;

/// The longer side of a base image or a poster.
const SIDE: u32 = 2048;

pub struct SmartImaging;

impl ProcessingKey for SmartImaging {
    fn name(&self) -> &'static str {
        BASE
    }

    fn help(&self) -> &'static str {
        "Prepares on-demand images: a base image of at most 2048 pixels a side; notes the picture's ThumbHash and colours."
    }

    fn family(&self) -> Family {
        Family::Image
    }

    fn applies_to(&self, asset: &Asset) -> bool {
        asset.has_picture() || asset.is_film()
    }

    fn work(&self) -> Work<'_> {
        Work::Still(self)
    }
}

impl StillKey for SmartImaging {
    fn run<'a>(&'a self, asset: &'a Asset, at: &'a Bench) -> Pin<Box<dyn Future<Output = Result<Made>> + Send + 'a>> {
        if asset.is_film() { Box::pin(poster(asset, at)) } else { Box::pin(make(asset, at)) }
    }
}

/// A good frame stands for the film wherever a picture of it is asked for.
async fn poster(asset: &Asset, at: &Bench) -> Result<Made> {
    let _here = at.homes.bring(asset.id, asset.revision).await?;
    let source = at.storage.path_of(&place::original(asset.id, asset.revision)?);
    let (work, still) = at.films.poster(source, SIDE).await?;
    let mut poster = Conversion {
        width: Some(still.width),
        height: Some(still.height),
        ..Conversion::made(POSTER, "jpg", "image/jpeg", at.making)
    };
    let to = place::whole(asset.id, &poster)?;
    poster.size_bytes = at
        .placing
        .place(move |storage| {
            let size = std::fs::metadata(work.path().join(&still.file))?.len();
            storage.adopt(&work, &still.file, &to)?;
            Ok(size)
        })
        .await?;
    Ok(Made { conversions: vec![poster], on_demand: true, ..Made::default() })
}

async fn make(asset: &Asset, at: &Bench) -> Result<Made> {
    let (sources, _) = at.open(asset, false).await?;
    let (picture, impression) = match at.stills.base(sources.picture, SIDE).await {
        Ok(made) => made,
        // Looking is a favour: a small original that is broken has no impression, as it had no
        // base, and says so itself when an image is asked of it.
        Err(e) if is_small(asset) && matches!(e.code, Code::BadImage | Code::NoImage) => {
            return Ok(Made { on_demand: true, ..Made::default() });
        }
        Err(e) => return Err(e),
    };
    let facts = Map::from_iter([
        ("thumbhash".to_owned(), impression.thumbhash.into()),
        ("colors".to_owned(), serde_json::to_value(impression.colors).unwrap_or_default()),
    ]);
    let Some(picture) = picture else {
        return Ok(Made { facts, on_demand: true, ..Made::default() });
    };
    let base = Conversion {
        width: Some(picture.width),
        height: Some(picture.height),
        size_bytes: picture.bytes.len() as u64,
        ..Conversion::made(BASE, picture.format.extension(), picture.format.mime(), at.making)
    };
    at.keep(asset, &base, picture.bytes).await?;
    Ok(Made { conversions: vec![base], facts, on_demand: true })
}

fn is_small(asset: &Asset) -> bool {
    let side = |name: &str| asset.facts.get(name).and_then(serde_json::Value::as_u64).unwrap_or(u64::MAX);
    side("width") <= u64::from(SIDE) && side("height") <= u64::from(SIDE)
}
