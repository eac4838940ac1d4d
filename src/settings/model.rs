//! The sections and what may stand in them.
//!
//! Invariant: a section that was stored has passed its check, so nobody checks again.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::assets::AssetId;
use crate::error::Code;
use crate::error::Result;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::params::watermark::Mark;
pub use crate::media::imaging::params::watermark::Placement;
use crate::settings::addons::Addons;
use crate::settings::auth::Auth;
use crate::settings::videos::Videos;
use crate::settings::webhook::Webhook;

/// The content key of deep zoom.
pub const DEEPZOOM: &str = "deepzoom";

/// The contract's limit, deep zoom included.
const MOST_CONVERSIONS: usize = 5;

/// The longest side of a named conversion, in pixels.
pub const MOST_PIXELS: u32 = 8192;

/// Words that name something else in the same places.
const RESERVED: &[&str] = &["original", DEEPZOOM, "smartimaging"];

/// Every section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    pub images: Images,
    pub videos: Videos,
    pub watermark: Option<Watermark>,
    pub auth: Auth,
    pub addons: Addons,
    pub webhook: Webhook,
}

impl Values {
    /// Whether this key is made by itself of whatever it applies to.
    pub fn makes(&self, key: &str) -> bool {
        self.images.makes(key) || self.videos.makes(key)
    }

    /// The keys that the settings speak of, and whether everybody may read what they make.
    pub fn access(&self) -> BTreeMap<String, bool> {
        let Images { conversions, deepzoom, .. } = &self.images;
        let named = conversions.iter().map(|named| (named.name.clone(), named.public));
        let tiles = deepzoom.iter().map(|tiles| (DEEPZOOM.to_owned(), tiles.public));
        let films = self.videos.keys().map(|key| (key.to_owned(), self.videos.shows(key)));
        named.chain(tiles).chain(films).collect()
    }
}

/// How pictures are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Images {
    /// On-demand images are for callers who may read assets, and for signed links.
    pub on_demand_private: bool,
    pub conversions: Vec<NamedConversion>,
    pub deepzoom: Option<DeepZoom>,
    /// What pictures are about unless their data say otherwise, in shares of width and height
    /// from the top left: for a camera that always looks at the same spot.
    pub focus: Option<(f32, f32)>,
}

/// A conversion of the venue's own, made of every picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedConversion {
    /// 1 to 20 letters and digits; also its content key.
    pub name: String,
    pub format: OutputFormat,
    /// Pixels; 0 leaves a side free. With both, width decides.
    pub width: u32,
    pub height: u32,
    /// Pixels per inch, as written into the file.
    pub dpi: u16,
    pub watermark: bool,
    /// Made by itself after an upload.
    pub enabled: bool,
    /// Everybody may read it.
    pub public: bool,
}

/// Tiles for looking closely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeepZoom {
    pub watermark: bool,
    pub enabled: bool,
    pub public: bool,
}

/// What is laid over a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    /// Names the stored image, in hex: the first 16 bytes of its SHA-256.
    pub digest: String,
    /// The asset that it was made of.
    pub asset: Option<AssetId>,
    pub placement: Placement,
    /// The largest share of the picture's width and height, above 0 and up to 1.
    pub scale: f64,
}

impl Watermark {
    /// The mark as a step of a recipe.
    pub fn settled(&self) -> Mark {
        Mark {
            placement: Some(self.placement),
            scale_percent: Some(((self.scale * 100.0).round() as u32).clamp(1, 100)),
            digest: Some(self.digest.clone()),
        }
    }
}

impl NamedConversion {
    /// The box it is fitted into.
    pub fn ceiling(&self) -> (u32, u32) {
        match (self.width, self.height) {
            (0, 0) => (MOST_PIXELS, MOST_PIXELS),
            (0, height) => (MOST_PIXELS, height),
            (width, _) => (width, MOST_PIXELS),
        }
    }
}

impl Images {
    /// Whether a conversion of this name is made of every picture that comes in.
    pub fn makes(&self, name: &str) -> bool {
        self.conversions.iter().any(|c| c.enabled && c.name == name)
            || (name == DEEPZOOM && self.deepzoom.is_some_and(|d| d.enabled))
    }

    /// Itself, if it makes sense.
    pub(super) fn checked(self) -> Result<Images> {
        let wrong = |what: String| Err(Code::InvalidRequest.because(what));
        let count = self.conversions.len() + usize::from(self.deepzoom.is_some());
        if count > MOST_CONVERSIONS {
            return wrong(format!("conversions: at most {MOST_CONVERSIONS} are kept, deepzoom included"));
        }
        for (n, conversion) in self.conversions.iter().enumerate() {
            let name = &conversion.name;
            if name.is_empty() || name.len() > 20 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return wrong(format!("conversions: the key `{name}` has to be 1 to 20 letters and digits"));
            }
            let taken = |other: &NamedConversion| other.name.eq_ignore_ascii_case(name);
            if RESERVED.contains(&&*name.to_ascii_lowercase()) || self.conversions.iter().take(n).any(taken) {
                return wrong(format!("conversions: the key `{name}` is taken"));
            }
            if conversion.width > MOST_PIXELS || conversion.height > MOST_PIXELS {
                return wrong(format!("conversions: `{name}` is larger than {MOST_PIXELS} pixels"));
            }
            if !(1..=2400).contains(&conversion.dpi) {
                return wrong(format!("conversions: dpi of `{name}` has to be 1 to 2400"));
            }
        }
        if self.focus.is_some_and(|(x, y)| !(0.0..=1.0).contains(&x) || !(0.0..=1.0).contains(&y)) {
            return wrong("focal_point: x and y have to be 0 to 1".to_owned());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> NamedConversion {
        NamedConversion {
            name: name.into(),
            format: OutputFormat::Jpeg,
            width: 500,
            height: 300,
            dpi: 72,
            watermark: false,
            enabled: true,
            public: true,
        }
    }

    #[test]
    fn only_what_makes_sense_is_kept() {
        let with = |conversions: Vec<NamedConversion>| Images { conversions, ..Images::default() }.checked();
        assert!(with(vec![named("web500"), named("Print")]).is_ok());
        for bad in [
            vec![named("")],
            vec![named("a/b")],
            vec![named("averylongnamethatexceeds")],
            vec![named("original")],
            vec![named("same"), named("SAME")],
            vec![NamedConversion { width: 9000, ..named("big") }],
            vec![NamedConversion { dpi: 0, ..named("x") }],
            (0..6).map(|n| named(&format!("c{n}"))).collect(),
        ] {
            assert_eq!(with(bad.clone()).unwrap_err().code, Code::InvalidRequest, "{bad:?}");
        }
    }

    #[test]
    fn width_wins() {
        assert_eq!(named("a").ceiling(), (500, MOST_PIXELS));
        assert_eq!(NamedConversion { width: 0, ..named("a") }.ceiling(), (MOST_PIXELS, 300));
    }
}
