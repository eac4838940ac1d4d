//! `dpr=N`: how many device pixels a pixel of the request is worth.
//!
//! A decimal number, clamped to 0.5 … 4. It multiplies the boxes of `resize` and of
//! `crop=W,H`; the general maximum still holds. 1 is the default and leaves no step.

use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::hundredths;
use super::spell;

pub struct Dpr;

struct Density(i64);

impl Param for Dpr {
    fn name(&self) -> &'static str {
        "dpr"
    }

    fn help(&self) -> &'static str {
        "a number from 0.5 to 4, default 1: multiplies the sizes given to resize and crop, for dense screens"
    }

    fn example(&self) -> &'static str {
        "resize=120,90&dpr=2"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match hundredths(raw) {
            Some(n) if n >= 0 => match n.clamp(50, 400) {
                100 => Ok(None),
                n => Ok(Some(Box::new(Density(n)))),
            },
            _ => Err("must be a number, as in 2 or 1.5".to_owned()),
        }
    }
}

impl Step for Density {
    fn canonical(&self) -> String {
        spell(self.0)
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.dpr = self.0 as f64 / 100.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in
            [("2", Some("2")), ("1.50", Some("1.5")), ("1", None), ("99", Some("4")), ("0.1", Some("0.5"))]
        {
            assert_eq!(Dpr.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in ["", "-1", "two", "1x"] {
            assert!(Dpr.parse(raw).is_err(), "{raw}");
        }
    }
}
