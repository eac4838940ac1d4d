//! A named conversion of the settings, as a processing key: one picture, stored.
//!
//! It is made of the original, never of the base image: it is kept, and may be printed.

use std::future::Future;
use std::pin::Pin;

use crate::assets::Asset;
use crate::assets::Conversion;
use crate::error::Code;
use crate::error::Result;
use crate::infra::workers::Class;
use crate::media::imaging::Recipe;
use crate::processing::keys::Bench;
use crate::processing::keys::Family;
use crate::processing::keys::Made;
use crate::processing::keys::ProcessingKey;
use crate::processing::keys::StillKey;
use crate::processing::keys::Work;
use crate::settings::NamedConversion;
use crate::stills::Order;

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
        asset.has_picture()
    }

    fn work(&self) -> Work<'_> {
        Work::Still(self)
    }
}

impl StillKey for NamedConversion {
    fn run<'a>(&'a self, asset: &'a Asset, at: &'a Bench) -> Pin<Box<dyn Future<Output = Result<Made>> + Send + 'a>> {
        Box::pin(make(self, asset, at))
    }
}

async fn make(named: &NamedConversion, asset: &Asset, at: &Bench) -> Result<Made> {
    let recipe = Recipe::from_canonical(&format!("dpi={}", named.dpi))
        .map_err(|e| Code::Internal.because(e.to_string()))?
        .with_format(named.format);
    let (sources, mark) = at.open(asset, named.watermark).await?;
    let recipe = match &mark {
        Some(mark) => recipe.with_watermark(mark.settled()),
        None => recipe,
    };
    let order = Order { ceiling: Some(named.ceiling()), ..Order::new(recipe, named.format) };
    let picture = at.stills.render(Class::Background, sources, order).await?;
    let conversion = Conversion {
        width: Some(picture.width),
        height: Some(picture.height),
        size_bytes: picture.bytes.len() as u64,
        watermarked: mark.is_some(),
        ..Conversion::made(&named.name, picture.format.extension(), picture.format.mime(), at.making)
    };
    at.keep(asset, &conversion, picture.bytes).await?;
    Ok(Made { conversions: vec![conversion], ..Made::default() })
}
