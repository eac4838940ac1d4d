//! `format=jpg|png|webp|avif|auto`: the kind of picture to make.
//!
//! `auto` leaves the choice to the negotiation with the client and is the same as not asking.

use super::super::format::OutputFormat;
use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;

pub struct Format;

/// A settled output format; the negotiation makes one too.
pub struct FormatStep(pub OutputFormat);

impl Param for Format {
    fn name(&self) -> &'static str {
        "format"
    }

    fn help(&self) -> &'static str {
        "jpg, png, webp, avif, or auto (the default): the kind of picture to make, whatever the client accepts"
    }

    fn example(&self) -> &'static str {
        "format=webp"
    }

    fn parse(&self, raw: &str) -> Parsed {
        let word = raw.to_ascii_lowercase();
        match word.as_str() {
            "auto" => Ok(None),
            "jpeg" => Ok(Some(Box::new(FormatStep(OutputFormat::Jpeg)))),
            _ => match OutputFormat::ALL.into_iter().find(|format| format.extension() == word) {
                Some(format) => Ok(Some(Box::new(FormatStep(format)))),
                None => Err("must be jpg, png, webp, avif or auto".to_owned()),
            },
        }
    }
}

impl Step for FormatStep {
    fn canonical(&self) -> String {
        self.0.extension().to_owned()
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.format = Some(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in [
            ("jpg", Some("jpg")),
            ("JPEG", Some("jpg")),
            ("png", Some("png")),
            ("webp", Some("webp")),
            ("avif", Some("avif")),
            ("auto", None),
        ] {
            assert_eq!(Format.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in ["", "gif", "image/png", "jpg,png"] {
            assert!(Format.parse(raw).is_err(), "{raw}");
        }
    }
}
