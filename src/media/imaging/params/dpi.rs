//! `dpi`: how many pixels an inch of paper gets, as written into the file.
//!
//! It changes no pixel. Clamped to 1 … 2400; unasked it is 72, as the contract has it. WebP and AVIF have no place
//! for it.

use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::whole;

pub struct Dpi;

/// What is written unasked.
pub const DEFAULT: u16 = 72;

struct Density(u16);

impl Param for Dpi {
    fn name(&self) -> &'static str {
        "dpi"
    }

    fn help(&self) -> &'static str {
        "1 to 2400: pixels per inch, as written into a JPEG or PNG; 72 unasked"
    }

    fn example(&self) -> &'static str {
        "dpi=300"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match whole(raw).map(|n| n.clamp(1, 2400) as u16) {
            Some(DEFAULT) => Ok(None),
            Some(n) => Ok(Some(Box::new(Density(n)))),
            None => Err("must be a whole number, 1 to 2400".to_owned()),
        }
    }
}

impl Step for Density {
    fn canonical(&self) -> String {
        self.0.to_string()
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.dpi = self.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in [("0300", "300"), ("0", "1"), ("2401", "2400")] {
            assert_eq!(Dpi.parse(raw).unwrap().map(|step| step.canonical()).as_deref(), Some(canonical), "{raw}");
        }
        assert!(Dpi.parse("72").unwrap().is_none());
        for raw in ["", "-1", "7.5", "high"] {
            assert!(Dpi.parse(raw).is_err(), "{raw}");
        }
    }
}
