//! `quality=N` or `quality=auto`: how much detail a lossy format keeps.
//!
//! A whole number, clamped to 1 … 100; 90 when nobody asks. PNG is lossless and ignores it.
//! The default leaves no step, so that asking for 90 is the same request as not asking.
//!
//! `auto` is the smallest file that still looks the same: the lowest quality that keeps a score
//! on the scale of SSIMULACRA2, where 70 is high, 80 very high and 90 beyond what can be seen.
//! `auto,SCORE` asks for another score than the usual one, clamped to 40 … 95.

use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::whole;

/// The quality when nobody asks.
pub const DEFAULT: u8 = 90;

/// What `auto` keeps: what a JPEG of 70 keeps of a clean photograph and one of 85 of a noisy one.
/// Against a quality of 90 it saves a third to a half of a JPEG's bytes, and a quarter to two
/// fifths of a WebP's or an AVIF's.
const AUTO_SCORE: u8 = 78;

pub struct Quality;

struct Keep(u8);

struct Score(u8);

impl Param for Quality {
    fn name(&self) -> &'static str {
        "quality"
    }

    fn help(&self) -> &'static str {
        "a whole number from 1 to 100, default 90: how much detail JPEG, WebP and AVIF keep; auto, or auto,SCORE with a score from 40 to 95: the smallest file that looks the same"
    }

    fn example(&self) -> &'static str {
        "quality=8"
    }

    fn parse(&self, raw: &str) -> Parsed {
        let word = raw.to_ascii_lowercase();
        if let Some(score) = word.strip_prefix("auto") {
            let score = match score.strip_prefix(',') {
                Some(score) => whole(score.trim()).map(|n| n.clamp(40, 95) as u8),
                None => score.is_empty().then_some(AUTO_SCORE),
            };
            return match score {
                Some(score) => Ok(Some(Box::new(Score(score)))),
                None => Err("must be auto, or auto and a whole number from 40 to 95, as in auto,80".to_owned()),
            };
        }
        match whole(raw).map(|n| n.clamp(1, 100) as u8) {
            Some(DEFAULT) => Ok(None),
            Some(quality) => Ok(Some(Box::new(Keep(quality)))),
            None => Err("must be a whole number from 1 to 100, or auto".to_owned()),
        }
    }
}

impl Step for Keep {
    fn canonical(&self) -> String {
        self.0.to_string()
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.quality = self.0;
    }
}

impl Step for Score {
    fn canonical(&self) -> String {
        match self.0 {
            AUTO_SCORE => "auto".to_owned(),
            score => format!("auto,{score}"),
        }
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.score = Some(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in [
            ("1", Some("1")),
            ("85", Some("85")),
            ("100", Some("100")),
            ("0", Some("1")),
            ("101", Some("100")),
            ("256", Some("100")),
            ("99999999999", Some("100")),
            ("090", None),
            ("90", None),
            ("auto", Some("auto")),
            ("Auto,078", Some("auto")),
            ("auto, 85", Some("auto,85")),
            ("auto,39", Some("auto,40")),
            ("auto,300", Some("auto,95")),
        ] {
            assert_eq!(Quality.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in ["-1", "85.5", "high", "", "auto,", "auto,-1", "auto,x", "automatic", "auto80"] {
            assert!(Quality.parse(raw).is_err(), "{raw}");
        }
    }
}
