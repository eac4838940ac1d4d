//! The venue's mark: kept as an image of its own, so that it outlives the asset it was made
//! of, and named by its digest, so that a new mark gives new pictures and an old cached one
//! is never taken for it.

use ring::digest;

use crate::assets::AssetId;
use crate::assets::place;
use crate::delivery::Delivery;
use crate::error::Code;
use crate::error::Result;
use crate::infra::storage::ObjectPath;
use crate::infra::workers::Class;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::Recipe;
use crate::media::imaging::params::watermark::Mark;
use crate::settings::Placement;
use crate::settings::Watermark;
use crate::stills::Order;
use crate::stills::Sources;
use crate::support::id;

impl Delivery {
    /// Makes an asset's image the mark, or changes where and how large it lies.
    pub async fn set_watermark(&self, asset: Option<AssetId>, placement: Placement, scale: f64) -> Result<()> {
        let image = match asset {
            Some(asset) => Some((asset, self.mark_of(asset).await?)),
            None => None,
        };
        // Making the image takes a while: what is kept of the mark is decided by what is set by then.
        let edit = move |mark: &mut Option<Watermark>| {
            let (asset, digest) = match (image, mark.take()) {
                (Some((asset, digest)), _) => (Some(asset), digest),
                (None, Some(before)) => (before.asset, before.digest),
                (None, None) => {
                    let missing = "watermarkFileKey: upload an image and give its asset id";
                    return Err(Code::MissingParameter.because(missing));
                }
            };
            *mark = Some(Watermark { digest, asset, placement, scale });
            Ok(())
        };
        self.settings.edit_watermark(edit).await
    }

    /// The digest of an asset's image as a mark.
    async fn mark_of(&self, asset: AssetId) -> Result<String> {
        match &self.settings.now().watermark {
            Some(set) if set.asset == Some(asset) => Ok(set.digest.clone()),
            _ => self.keep_mark(asset).await,
        }
    }

    async fn keep_mark(&self, asset: AssetId) -> Result<String> {
        let full = self.when_ready(asset).await?;
        if !full.asset.has_picture() {
            return Err(Code::InvalidRequest.because("watermarkFileKey: this asset is not an image"));
        }
        let (storage, original) = (self.storage.clone(), place::original(asset, full.asset.revision)?);
        let open = move || Sources::open(&storage, &original, None);
        let sources = self.homes.with(asset, full.asset.revision, open).await?;
        let order = Order::new(Recipe::default(), OutputFormat::Png);
        let made = self.stills.render(Class::Interactive, sources, order).await?;
        let sha256 = digest::digest(&digest::SHA256, &made.bytes);
        let name = id::hex(sha256.as_ref().get(..16).unwrap_or_default());
        let (storage, to) = (self.storage.clone(), place::watermark(&name)?);
        self.cpu.run(move || storage.put(&to, &made.bytes)).await?;
        Ok(name)
    }
}

/// Settles which mark a recipe means, and where that lies.
pub fn settle(recipe: Recipe, set: Option<&Watermark>) -> Result<(Recipe, Option<ObjectPath>)> {
    let Some(asked) = recipe.watermark() else { return Ok((recipe, None)) };
    let Some(set) = set else {
        return Err(
            Code::InvalidRequest.because("watermark: no watermark is set; an administrator sets it in the settings")
        );
    };
    let default = set.settled();
    let mark = Mark {
        placement: asked.placement.or(default.placement),
        scale_percent: asked.scale_percent.or(default.scale_percent),
        digest: default.digest,
    };
    Ok((recipe.with_watermark(mark), Some(place::watermark(&set.digest)?)))
}
