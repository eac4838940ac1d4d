//! A named conversion of the settings, as a processing key: one picture, stored.
//!
//! It is made of the original, never of the base image: it is kept, and may be printed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::assets::Asset;
use crate::assets::Conversion;
use crate::assets::place;
use crate::error::Code;
use crate::error::Result;
use crate::infra::workers::Class;
use crate::media::imaging::Recipe;
use crate::processing::keys::Bench;
use crate::processing::keys::Family;
use crate::processing::keys::Made;
use crate::processing::keys::ProcessingKey;
use crate::settings::NamedConversion;
use crate::stills::Order;
use crate::stills::Sources;

impl ProcessingKey for NamedConversion {
    fn name(&self) -> &str {
        &self.name
    }

    fn help(&self) -> &'static str {
        "A conversion of the image settings."
    }

    fn family(&self) -> Family {
        Family::Image
    }

    fn applies_to(&self, asset: &Asset) -> bool {
        asset.is_image()
    }

    fn run<'a>(&'a self, asset: &'a Asset, at: &'a Bench) -> Pin<Box<dyn Future<Output = Result<Made>> + Send + 'a>> {
        Box::pin(make(self, asset, at))
    }
}

async fn make(named: &NamedConversion, asset: &Asset, at: &Bench) -> Result<Made> {
    let recipe = Recipe::from_canonical(&format!("dpi={}", named.dpi))
        .map_err(|e| Code::Internal.because(e.to_string()))?
        .with_format(named.format);
    // A mark that was never set leaves the picture without: the conversion is still wanted.
    let mark = at.settings.watermark.as_ref().filter(|_| named.watermark);
    let (recipe, overlay) = match mark {
        Some(mark) => (recipe.with_watermark(mark.settled()), Some(place::watermark(&mark.digest)?)),
        None => (recipe, None),
    };
    let (storage, original) = (at.storage.clone(), place::original(asset.id, asset.revision)?);
    let sources = at
        .cpu
        .run(move || {
            let mark = overlay.map(|place| storage.open_file(&place)).transpose()?;
            Ok(Sources { picture: Arc::new(storage.open_file(&original)?), mark: mark.map(Arc::new) })
        })
        .await?;
    let order = Order { ceiling: Some(named.ceiling()), ..Order::new(recipe, named.format) };
    let picture = at.stills.render(Class::Background, sources, order).await?;
    let conversion = Conversion {
        key: named.name.clone(),
        revision: asset.revision,
        extension: picture.format.extension().to_owned(),
        content_type: picture.format.mime().to_owned(),
        width: Some(picture.width),
        height: Some(picture.height),
        duration_seconds: None,
        size_bytes: picture.bytes.len() as u64,
        public: named.public,
        watermarked: mark.is_some(),
        created_at: at.now,
    };
    let to = place::conversion(asset.id, asset.revision, &conversion.key, &conversion.extension)?;
    let storage = at.storage.clone();
    at.cpu.run(move || storage.put(&to, &picture.bytes)).await?;
    Ok(Made { conversions: vec![conversion], ..Made::default() })
}
