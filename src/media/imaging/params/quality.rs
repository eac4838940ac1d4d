//! `quality=N`: how much detail a lossy format keeps.
//!
//! A whole number from 1 to 100; 90 when nobody asks. PNG is lossless and ignores it.
//! The default leaves no step, so that asking for 90 is the same request as not asking.

use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::whole;

/// The quality when nobody asks.
pub const DEFAULT: u8 = 90;

pub struct Quality;

struct Keep(u8);

impl Param for Quality {
    fn name(&self) -> &'static str {
        "quality"
    }

    fn help(&self) -> &'static str {
        "a whole number from 1 to 100, default 90: how much detail JPEG, WebP and AVIF keep"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match whole(raw).and_then(|n| u8::try_from(n).ok()) {
            Some(DEFAULT) => Ok(None),
            Some(quality @ 1..=100) => Ok(Some(Box::new(Keep(quality)))),
            _ => Err("must be a whole number from 1 to 100".to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in
            [("1", Some("1")), ("85", Some("85")), ("100", Some("100")), ("090", None), ("90", None)]
        {
            assert_eq!(Quality.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in ["0", "101", "256", "-1", "85.5", "high", "", "99999999999"] {
            assert!(Quality.parse(raw).is_err(), "{raw}");
        }
    }
}
