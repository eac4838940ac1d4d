//! `keep=copyright|all`: what a picture may tell about its origin.
//!
//! `copyright` names who made it and who owns it, and nothing else. `all` passes on what the
//! source says, place and all. Nothing is told unless asked; `none` says so aloud.
//!
//! Only the original knows, so such a picture is never made from a stand-in.

use super::super::kept::Keep;
use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;

pub struct KeepMetadata;

struct Telling(Keep);

impl Param for KeepMetadata {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn help(&self) -> &'static str {
        "copyright or all: keep the names of author and owner, or all metadata of the original including the place; default none"
    }

    fn example(&self) -> &'static str {
        "keep=copyright"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match raw.to_ascii_lowercase().as_str() {
            "none" => Ok(None),
            "copyright" => Ok(Some(Box::new(Telling(Keep::Copyright)))),
            "all" => Ok(Some(Box::new(Telling(Keep::All)))),
            _ => Err("must be copyright, all or none".to_owned()),
        }
    }
}

impl Step for Telling {
    fn canonical(&self) -> String {
        match self.0 {
            Keep::Nothing => "none",
            Keep::Copyright => "copyright",
            Keep::All => "all",
        }
        .to_owned()
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.keep = self.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in [("copyright", Some("copyright")), ("ALL", Some("all")), ("none", None)] {
            assert_eq!(KeepMetadata.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in ["", "true", "icc", "gps", "copyright,all"] {
            assert!(KeepMetadata.parse(raw).is_err(), "{raw}");
        }
    }
}
