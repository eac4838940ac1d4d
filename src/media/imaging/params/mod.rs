//! The parameters of an on-demand image: one file each, and the order they act in.
//!
//! In: a raw value from a URL. Out: a [`Step`], which has one canonical spelling, can say
//! beforehand what it will do to the geometry, and does it to a canvas.
//!
//! Invariant: order in [`PARAMS`] is the order of work, whatever the URL says, and a step's
//! canonical text parses back to the same step.
//!
//! A parameter that would change nothing (`rotate=0`) parses to no step at all, so that it
//! leaves no trace in a cache key.

pub mod bgcolor;
pub mod blur;
pub mod crop;
pub mod dpi;
pub mod dpr;
pub mod flip;
pub mod format;
pub mod grayscale;
pub mod keep;
pub mod page;
pub mod quality;
pub mod resize;
pub mod rotate;
pub mod sharpen;
pub mod strip;
pub mod trim;
pub mod watermark;

use super::canvas::Canvas;
use super::error::ImageError;
use super::format::OutputFormat;
use super::kept::Keep;

/// What a value means: a step, or nothing to do, or a sentence on what is wrong with it.
pub type Parsed = Result<Option<Box<dyn Step>>, String>;

/// A parameter of the URL.
pub trait Param: Sync {
    /// The name in the URL.
    fn name(&self) -> &'static str;
    /// Grammar and meaning, for the reference.
    fn help(&self) -> &'static str;
    /// A query that shows it; the manual has its picture.
    fn example(&self) -> &'static str;
    /// Reads a value; clamps what the contract clamps.
    fn parse(&self, raw: &str) -> Parsed;
    /// The step that is taken at this point when the URL says nothing.
    fn unasked(&self) -> Option<Box<dyn Step>> {
        None
    }
}

/// One thing to do to a picture.
pub trait Step: Send + Sync {
    /// The one spelling of the value.
    fn canonical(&self) -> String;
    /// Says beforehand what this step will do, so that decoding can do less.
    fn foresee(&self, _plan: &mut Plan) {}
    /// The mark it lays over the picture, if that is what it does.
    fn mark(&self) -> Option<&watermark::Mark> {
        None
    }
    /// Does it.
    fn apply(&self, _canvas: &mut Canvas) -> Result<(), ImageError> {
        Ok(())
    }
}

/// Order here is the order of work.
pub static PARAMS: &[&dyn Param] = &[
    &page::Page,
    &dpr::Dpr,
    &trim::Trim,
    &rotate::Rotate,
    &flip::Flip,
    &crop::Crop,
    &resize::Resize,
    &grayscale::Grayscale,
    &blur::Blur,
    &sharpen::Sharpen,
    &bgcolor::Bgcolor,
    &watermark::Watermark,
    &dpi::Dpi,
    &quality::Quality,
    &keep::KeepMetadata,
    &strip::Strip,
    &format::Format,
];

/// What the whole recipe comes to, known before a pixel is decoded.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Size of the picture at this point, in pixels of the (upright) source.
    pub width: f64,
    pub height: f64,
    /// The result fits in this many pixels.
    pub ceiling: (u32, u32),
    /// Output pixels per pixel asked for.
    pub dpr: f64,
    /// Some step keeps in view what the picture is about.
    pub minds_focus: bool,
    /// Some step must see every pixel of the source, so decoding may not shrink.
    pub full_size: bool,
    /// Some step names pixels of the source by their coordinates.
    pub source_coordinates: bool,
    /// Of a document, from 1.
    pub page: u32,
    pub background: Option<[u8; 3]>,
    pub dpi: u16,
    pub quality: u8,
    /// The likeness to keep at whatever quality that takes, as an SSIMULACRA2 score.
    pub score: Option<u8>,
    /// What of the source's metadata leaves with the result.
    pub keep: Keep,
    pub format: Option<OutputFormat>,
}

impl Plan {
    /// No result is larger than this, asked or not.
    pub const CEILING: (u32, u32) = (2048, 1536);

    pub(super) fn new(width: u32, height: u32, ceiling: (u32, u32)) -> Self {
        Self {
            width: f64::from(width),
            height: f64::from(height),
            ceiling,
            dpr: 1.0,
            minds_focus: false,
            full_size: false,
            source_coordinates: false,
            page: 1,
            background: None,
            dpi: dpi::DEFAULT,
            quality: quality::DEFAULT,
            score: None,
            keep: Keep::Nothing,
            format: None,
        }
    }

    /// Result pixels per source pixel, never above 1.
    pub fn shrink(&self) -> f64 {
        let (width, height) = self.ceiling;
        (f64::from(width) / self.width.max(1.0)).min(f64::from(height) / self.height.max(1.0)).min(1.0)
    }

    /// The same, as far as decoding may make use of it.
    pub(super) fn decode_shrink(&self) -> f64 {
        if self.full_size { 1.0 } else { self.shrink() }
    }

    /// By how much the source may be shrunk while it is decoded: 8, 4, 2 or 1. At least
    /// `residual` pixels, along a side, are left for each of the result.
    pub(super) fn denominator(&self, residual: f64) -> u32 {
        // Edges that are given in pixels of the source would fall between those that are left.
        let residual = if self.source_coordinates { residual * 2.0 } else { residual };
        [8, 4, 2].into_iter().find(|&n| self.decode_shrink() * f64::from(n) * residual <= 1.0).unwrap_or(1)
    }

    /// What decoding has to leave for the most demanding of these.
    pub(super) fn covering(plans: &[Self], (width, height): (u32, u32)) -> Self {
        let demanding = plans.iter().max_by(|a, b| a.shrink().total_cmp(&b.shrink()));
        let plan = demanding.cloned().unwrap_or_else(|| Self::new(width, height, Self::CEILING));
        Self {
            full_size: plans.iter().any(|plan| plan.full_size),
            source_coordinates: plans.iter().any(|plan| plan.source_coordinates),
            ..plan
        }
    }

    /// Narrows the ceiling to a box given in asked pixels; 0 leaves that side free.
    pub fn narrow(&mut self, width: u32, height: u32) {
        let side = |asked: u32, now: u32| match asked {
            0 => now,
            asked => now.min(((f64::from(asked) * self.dpr).round() as u32).max(1)),
        };
        self.ceiling = (side(width, self.ceiling.0), side(height, self.ceiling.1));
    }
}

/// Reads a whole number of digits alone; what does not fit is as large as a number gets.
fn whole(raw: &str) -> Option<u32> {
    (!raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit())).then(|| raw.parse().unwrap_or(u32::MAX))
}

/// Reads a decimal number as hundredths, so that it has one spelling and is compared exactly.
fn hundredths(raw: &str) -> Option<i64> {
    let plain = raw.strip_prefix('-').unwrap_or(raw);
    let digits = plain.bytes().filter(u8::is_ascii_digit).count();
    let dots = plain.bytes().filter(|&b| b == b'.').count();
    if digits == 0 || digits > 12 || dots > 1 || digits + dots != plain.len() {
        return None;
    }
    raw.parse::<f64>().ok().map(|n| (n * 100.0).round() as i64)
}

/// The spelling of hundredths without needless zeros.
fn spell(hundredths: i64) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let (whole, rest) = (hundredths.abs() / 100, hundredths.abs() % 100);
    match rest {
        0 => format!("{sign}{whole}"),
        _ if rest % 10 == 0 => format!("{sign}{whole}.{}", rest / 10),
        _ => format!("{sign}{whole}.{rest:02}"),
    }
}

/// Reads an on/off word; a bare name counts as on.
fn switch(raw: &str) -> Option<bool> {
    match raw {
        "" | "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::recipe::Recipe;
    use super::*;

    #[test]
    fn the_list_is_sound() {
        let mut names: Vec<_> = PARAMS.iter().map(|p| p.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PARAMS.len());
        let documented = include_str!("../../../../docs/images.md");
        for param in PARAMS {
            assert!(documented.contains(&format!("\n| `{}`", param.name())), "docs/images.md lacks {}", param.name());
            assert!(param.help().len() > 20, "{} has no help", param.name());
            let pairs = param.example().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            assert!(pairs.clone().any(|(name, _)| name == param.name()), "{} is not in its example", param.name());
            assert!(Recipe::parse(pairs).is_ok(), "{}", param.example());
        }
    }

    #[test]
    fn decimals_have_one_spelling() {
        for (raw, spelled) in [("1", "1"), ("1.50", "1.5"), ("-.25", "-0.25"), ("0.004", "0"), ("007.", "7")] {
            assert_eq!(hundredths(raw).map(spell).as_deref(), Some(spelled), "{raw}");
        }
        for raw in ["", "-", ".", "1e5", "+1", "inf", "NaN", "1,5", "--1", "9999999999999"] {
            assert_eq!(hundredths(raw), None, "{raw}");
        }
    }

    #[test]
    fn decoding_leaves_enough_for_the_resize() {
        for (from, to, expected, reduced) in [
            (6000, 800, 4, 4),
            (6000, 400, 8, 8),
            (6000, 2048, 2, 2),
            (5000, 2000, 1, 2),
            (6144, 2048, 2, 2),
            (2048, 1024, 1, 2),
            (800, 800, 1, 1),
        ] {
            let plan = Plan::new(from, from, (to, to));
            assert_eq!((plan.denominator(1.45), plan.denominator(1.0)), (expected, reduced), "{from} to {to}");
            assert_eq!(Plan { full_size: true, ..plan }.denominator(1.0), 1);
        }
    }
}
