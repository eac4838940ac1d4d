//! A recipe: what to do to a picture, parsed once, ordered, and canonical.
//!
//! In: the pairs of a query string, in any order. Out: steps in the order of [`PARAMS`], and
//! one spelling for all requests that mean the same, which therefore serves as a cache key.
//!
//! Invariant: `parse(canonical(r)) == r`, and the canonical text does not depend on the order
//! of the pairs, on unknown names, or on the spelling of a value. Of a repeated name the last
//! one counts.
//!
//! Parsing runs in the server and touches no codec: a step knows how to work on pixels, but
//! only `render`, in the worker, ever gives it some. A recipe travels there as its canonical text.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error as _;

use super::format::OutputFormat;
use super::kept::Keep;
use super::params::PARAMS;
use super::params::Plan;
use super::params::Step;
use super::params::format::FormatStep;
use super::params::watermark::Mark;

/// A parameter that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParam {
    pub name: String,
    /// A sentence for the caller.
    pub reason: String,
}

impl fmt::Display for BadParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl std::error::Error for BadParam {}

/// What to do to a picture.
#[derive(Clone, Default)]
pub struct Recipe {
    /// One place per entry of `PARAMS`; empty means that the parameter is absent or does nothing.
    steps: Vec<Option<Arc<dyn Step>>>,
}

impl Recipe {
    /// Reads the pairs of a query string. Unknown names are ignored.
    pub fn parse<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Recipe, BadParam> {
        let mut raw: Vec<Option<&str>> = vec![None; PARAMS.len()];
        for (name, value) in pairs {
            if let Some((_, place)) = PARAMS.iter().zip(&mut raw).find(|(param, _)| param.name() == name) {
                *place = Some(value);
            }
        }
        let mut steps = Vec::with_capacity(PARAMS.len());
        for (param, value) in PARAMS.iter().zip(raw) {
            let step = match value {
                Some(value) => param
                    .parse(value.trim())
                    .map_err(|reason| BadParam { name: param.name().to_owned(), reason })?
                    .map(Arc::from),
                None => None,
            };
            steps.push(step);
        }
        Ok(Recipe { steps })
    }

    /// The one spelling of this recipe, itself a query string; empty for the plain picture.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        for (param, step) in PARAMS.iter().zip(&self.steps) {
            if let Some(step) = step {
                if !text.is_empty() {
                    text.push('&');
                }
                text.push_str(param.name());
                text.push('=');
                text.push_str(&step.canonical());
            }
        }
        text
    }

    /// Reads a canonical text back.
    pub fn from_canonical(text: &str) -> Result<Recipe, BadParam> {
        Self::parse(text.split('&').filter_map(|pair| pair.split_once('=')))
    }

    /// The same recipe, with the output format settled.
    pub fn with_format(mut self, format: OutputFormat) -> Recipe {
        self.steps.resize(PARAMS.len(), None);
        if let Some((_, place)) = PARAMS.iter().zip(&mut self.steps).find(|(param, _)| param.name() == "format") {
            *place = Some(Arc::new(FormatStep(format)));
        }
        self
    }

    /// The watermark that was asked for, if any.
    pub fn watermark(&self) -> Option<&Mark> {
        self.steps.iter().flatten().find_map(|step| step.mark())
    }

    /// The same recipe, with the watermark settled.
    pub fn with_watermark(mut self, mark: Mark) -> Recipe {
        self.steps.resize(PARAMS.len(), None);
        if let Some((_, place)) = PARAMS.iter().zip(&mut self.steps).find(|(param, _)| param.name() == "watermark") {
            *place = Some(Arc::new(mark));
        }
        self
    }

    /// The output format, if one was asked for.
    pub fn format(&self) -> Option<OutputFormat> {
        self.foreseen(0).format
    }

    /// The box that the result was asked to fit in, if narrower than the general maximum.
    pub fn max_output(&self) -> Option<(u32, u32)> {
        let plan = self.foreseen(u32::MAX);
        (plan.ceiling != Plan::CEILING).then_some(plan.ceiling)
    }

    /// Whether the recipe speaks of the original's own pixels (a crop by coordinates), of a later
    /// page, or keeps some of its metadata, so that a smaller stand-in would give another picture.
    pub fn needs_original(&self) -> bool {
        let plan = self.foreseen(0);
        plan.source_coordinates || plan.page > 1 || plan.keep != Keep::Nothing
    }

    /// Whether the result says more than the picture: where it was taken, and by whom.
    pub fn keeps_everything(&self) -> bool {
        self.foreseen(0).keep == Keep::All
    }

    /// The page of a document that is asked for, from 1.
    pub(super) fn page(&self) -> u32 {
        self.foreseen(0).page
    }

    /// Whether the result depends on what the picture is about.
    pub fn minds_focus(&self) -> bool {
        self.foreseen(0).minds_focus
    }

    /// Foresees the work for a source of this side, for questions that do not depend on it.
    fn foreseen(&self, side: u32) -> Plan {
        self.plan(side, side, Plan::CEILING)
    }

    /// Foresees the work for a source of this (upright) size.
    pub(super) fn plan(&self, width: u32, height: u32, ceiling: (u32, u32)) -> Plan {
        let mut plan = Plan::new(width, height, ceiling);
        for step in self.steps.iter().flatten() {
            step.foresee(&mut plan);
        }
        plan
    }

    /// The steps in the order of work, with those that are taken even when nobody asked.
    pub(super) fn steps(&self) -> impl Iterator<Item = Arc<dyn Step>> {
        PARAMS.iter().enumerate().filter_map(|(at, param)| match self.steps.get(at) {
            Some(Some(step)) => Some(Arc::clone(step)),
            _ => param.unasked().map(Arc::from),
        })
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipe({})", self.canonical())
    }
}

impl PartialEq for Recipe {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for Recipe {}

impl Serialize for Recipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.canonical())
    }
}

impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Recipe::from_canonical(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recipe(query: &str) -> Recipe {
        Recipe::from_canonical(query).unwrap()
    }

    #[test]
    fn order_of_the_url_does_not_matter() {
        assert_eq!(recipe("blur=2&resize=800,600").canonical(), "resize=800,600&blur=2");
        assert_eq!(recipe("quality=80&nonsense=1&resize=0800,600&resize=100,").canonical(), "resize=100,0&quality=80");
        assert_eq!(recipe("").canonical(), "");
        assert_eq!(recipe("format=auto&quality=90&rotate=360&flip=none&trim=false").canonical(), "");
    }

    #[test]
    fn bad_values_are_named() {
        let error = Recipe::parse([("resize", "12,34"), ("quality", "best")].into_iter()).unwrap_err();
        assert_eq!(error.name, "quality");
        assert!(error.to_string().contains("1 to 100"), "{error}");
    }

    #[test]
    fn what_the_server_asks_a_recipe() {
        assert_eq!(recipe("").max_output(), None);
        assert_eq!(recipe("resize=800,0").max_output(), Some((800, 1536)));
        assert_eq!(recipe("resize=800,600&dpr=2").max_output(), Some((1600, 1200)));
        assert_eq!(recipe("crop=300,200,face").max_output(), Some((300, 200)));
        assert!(!recipe("crop=300,200").needs_original());
        assert!(recipe("crop=1,2,300,200").needs_original());
        assert!(recipe("page=2").needs_original() && !recipe("page=1").needs_original());
        assert!(recipe("keep=copyright").needs_original() && !recipe("keep=none&strip=").needs_original());
        assert_eq!(recipe("format=jpeg").format(), Some(OutputFormat::Jpeg));
        let settled = recipe("resize=10,10").with_format(OutputFormat::Avif);
        assert_eq!(settled.canonical(), "resize=10,10&format=avif");
        assert_eq!(Recipe::default().with_format(OutputFormat::Png).canonical(), "format=png");
        let text = serde_json::to_string(&settled).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), settled);
    }

    fn pair() -> impl Strategy<Value = (String, String)> {
        let value = prop_oneof![
            "[0-9]{0,12},[0-9]{0,12}",
            "[0-9]{1,4},[0-9]{1,4},(face|smart|center|centre|north|southeast|middle)",
            "[0-9]{1,4},[0-9]{1,4},[0-9]{1,4},[0-9]{1,4}",
            "-?[0-9]{0,4}(\\.[0-9]{0,3})?",
            "[0-9a-fA-F]{3,6}",
            "jpg|jpeg|png|webp|avif|auto|true|false|h|v|hv|none|all|copyright",
            "auto,[0-9]{1,3}",
            "\\PC{0,8}",
        ];
        let name = prop::sample::select(
            PARAMS.iter().map(|p| p.name().to_owned()).chain(["other".to_owned()]).collect::<Vec<_>>(),
        );
        (name, value)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn canonical_round_trip(pairs in prop::collection::vec(pair(), 0..6)) {
            if let Ok(recipe) = Recipe::parse(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))) {
                let text = recipe.canonical();
                let again = Recipe::from_canonical(&text).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
                prop_assert_eq!(&again.canonical(), &text);
                prop_assert_eq!(again.max_output(), recipe.max_output());
                prop_assert_eq!(again.format(), recipe.format());
                let (w, h) = recipe.max_output().unwrap_or((2048, 1536));
                prop_assert!((1..=2048).contains(&w) && (1..=1536).contains(&h));
            }
        }

        #[test]
        fn permutation_invariance(pairs in prop::collection::vec(pair(), 0..6).prop_shuffle(), turn in 0_usize..6) {
            let mut unique: Vec<(String, String)> = Vec::new();
            for pair in pairs {
                if unique.iter().all(|(n, _)| *n != pair.0) { unique.push(pair); }
            }
            let text = |pairs: &[(String, String)]| Recipe::parse(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).map(|r| r.canonical());
            let before = text(&unique);
            if !unique.is_empty() { let turn = turn % unique.len(); unique.rotate_left(turn); }
            prop_assert_eq!(before, text(&unique));
        }
    }
}
