//! `page=N`: the page of a document, from 1.
//!
//! Pages exist in PDF and TIFF; elsewhere there is page 1 alone. A page that is not there is refused when
//! the document has been opened, for only then is their number known.
//!
//! The base image is of page 1, so any other page needs the original.

use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::whole;

/// No document worth a preview has more; the number keeps cache keys short.
const MOST: u32 = 100_000;

pub struct Page;

struct Turned {
    to: u32,
}

impl Param for Page {
    fn name(&self) -> &'static str {
        "page"
    }

    fn help(&self) -> &'static str {
        "the page of a document, a whole number from 1; pictures have page 1 alone"
    }

    fn example(&self) -> &'static str {
        "page=1"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match whole(raw) {
            Some(1) => Ok(None),
            Some(to @ 2..=MOST) => Ok(Some(Box::new(Turned { to }))),
            _ => Err(format!("must be a whole number from 1 to {MOST}")),
        }
    }
}

impl Step for Turned {
    fn canonical(&self) -> String {
        self.to.to_string()
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.page = self.to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in [("1", None), ("2", Some("2")), ("0100", Some("100"))] {
            assert_eq!(Page.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in ["0", "", "-1", "last", "1-3", "100001", "99999999999999"] {
            assert!(Page.parse(raw).is_err(), "{raw}");
        }
    }
}
