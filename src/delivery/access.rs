//! Who may see a picture, decided before any cache is asked.
//!
//! On-demand images are for everybody unless the settings make them private; originals and
//! named conversions each say for themselves. A signed link carries its signer's right.
//!
//! Two switches protect an open box against being made to work: `signed_only` renders for
//! strangers only what was signed, `presets_only` only recipes from a list. Whoever may read
//! assets is bound by neither.

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::Asset;
use crate::delivery::Delivery;
use crate::delivery::link::Cosigner;
use crate::delivery::link::Signed;
use crate::error::Code;
use crate::error::Result;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::Recipe;

/// On what ground somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// None: what everybody may see.
    Public,
    /// They may read assets.
    Reader,
    /// Their link was signed by somebody who may.
    Signed,
}

/// The same, and who signs what the answer leads to when it was a signed link.
#[derive(Clone)]
pub struct Standing {
    pub ground: Ground,
    pub cosigner: Option<Cosigner>,
}

impl Delivery {
    /// Weighs what a caller brings. A signature that does not hold is refused in any case.
    pub async fn standing(&self, caller: &Caller, link: Option<Signed>) -> Result<Standing> {
        if let Some(link) = link {
            let signer = self.accounts.signer(&link.access_id).await?;
            let (caller, keys) = signer.map_or((Caller::Nobody, Vec::new()), |s| (s.caller, s.api_keys));
            let cosigner = link.verify(&keys, self.clock.now())?;
            if !caller.may(Permission::ReadAsset) {
                return Err(Code::Forbidden.because("Whoever signed this link may not read assets."));
            }
            return Ok(Standing { ground: Ground::Signed, cosigner: Some(cosigner) });
        }
        let ground = if caller.may(Permission::ReadAsset) { Ground::Reader } else { Ground::Public };
        Ok(Standing { ground, cosigner: None })
    }

    /// Whether a picture of the asset itself may be shown; true when everybody may see it.
    pub(super) fn admit_image(&self, ground: Ground, asset: &Asset, recipe: &Recipe) -> Result<bool> {
        self.admit_recipe(ground, asset, recipe, self.settings.now().images.on_demand_private)
    }

    /// The same of a picture that is cut from a stored content. That says for itself who may see it, whatever the
    /// settings say of on-demand images; what strangers may have made is bounded here as there.
    pub(super) fn admit_cut(&self, ground: Ground, asset: &Asset, recipe: &Recipe, public: bool) -> Result<bool> {
        admit_content(ground, public)?;
        self.admit_recipe(ground, asset, recipe, !public)
    }

    fn admit_recipe(&self, ground: Ground, asset: &Asset, recipe: &Recipe, private: bool) -> Result<bool> {
        // Where it was taken, and by whom, is in the original: whoever may not have that may not
        // have these either.
        let tells = recipe.keeps_everything() && !asset.public;
        let private = private || tells;
        if ground != Ground::Public {
            return Ok(!private);
        }
        if tells {
            return Err(Code::Unauthorized.because(
                "keep=all shows what only those may see who may read the original: it needs an API key, a token or a signed link.",
            ));
        }
        if private || self.config.signed_only {
            return Err(
                Code::Unauthorized.because("On-demand images of this box need an API key, a token or a signed link.")
            );
        }
        if self.config.presets_only && !self.presets.contains(&shape(recipe)) {
            let known: Vec<&str> = self.config.presets.iter().map(String::as_str).collect();
            return Err(Code::Forbidden.because(format!(
                "This box makes only listed shapes for strangers: {}. Others need an API key, a token or a signed link.",
                if known.is_empty() { "none".to_owned() } else { known.join(" · ") }
            )));
        }
        Ok(true)
    }
}

/// Whether a stored content may be shown.
pub(super) fn admit_content(ground: Ground, public: bool) -> Result<()> {
    if public || ground != Ground::Public {
        return Ok(());
    }
    Err(Code::Unauthorized.because("This content is private: it needs an API key, a token or a signed link."))
}

/// What a recipe does, whatever the format: strangers may negotiate that.
pub(super) fn shape(recipe: &Recipe) -> String {
    recipe.clone().with_format(OutputFormat::Jpeg).canonical()
}
