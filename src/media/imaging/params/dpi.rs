//! `dpi`: how many pixels an inch of paper gets, as written into the file.
//!
//! It changes no pixel. Unasked it is 72, as the contract has it. WebP and AVIF have no place
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
        match whole(raw) {
            Some(n @ 1..=2400) if n == u32::from(DEFAULT) => Ok(None),
            Some(n @ 1..=2400) => Ok(Some(Box::new(Density(n as u16)))),
            _ => Err("must be a whole number, 1 to 2400".to_owned()),
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
        assert_eq!(Dpi.parse("0300").unwrap().map(|step| step.canonical()).as_deref(), Some("300"));
        assert!(Dpi.parse("72").unwrap().is_none());
        for raw in ["", "0", "2401", "-1", "7.5", "high"] {
            assert!(Dpi.parse(raw).is_err(), "{raw}");
        }
    }
}
