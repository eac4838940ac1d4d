//! `quality=N` or `quality=auto`: how much detail a lossy format keeps.
//!
//! A whole number from 1 to 100; 90 when nobody asks. PNG is lossless and ignores it.
//! The default leaves no step, so that asking for 90 is the same request as not asking.
//!
//! `auto` is the smallest file that still looks the same: the lowest quality that keeps a score
//! on the scale of SSIMULACRA2, where 70 is high, 80 very high and 90 beyond what can be seen.
//! `auto,SCORE` asks for another score than the usual one.

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
                Some(score) => whole(score.trim()).and_then(|n| u8::try_from(n).ok()),
                None => score.is_empty().then_some(AUTO_SCORE),
            };
            return match score {
                Some(score @ 40..=95) => Ok(Some(Box::new(Score(score)))),
                _ => Err("must be auto, or auto and a whole number from 40 to 95, as in auto,80".to_owned()),
            };
        }
        match whole(raw).and_then(|n| u8::try_from(n).ok()) {
            Some(DEFAULT) => Ok(None),
            Some(quality @ 1..=100) => Ok(Some(Box::new(Keep(quality)))),
            _ => Err("must be a whole number from 1 to 100, or auto".to_owned()),
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
            ("090", None),
            ("90", None),
            ("auto", Some("auto")),
            ("Auto,078", Some("auto")),
            ("auto, 85", Some("auto,85")),
        ] {
            assert_eq!(Quality.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in [
            "0",
            "101",
            "256",
            "-1",
            "85.5",
            "high",
            "",
            "99999999999",
            "auto,",
            "auto,39",
            "auto,96",
            "automatic",
            "auto80",
        ] {
            assert!(Quality.parse(raw).is_err(), "{raw}");
        }
    }
}
