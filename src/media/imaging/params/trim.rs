//! `trim`: cuts off a border of one colour.
//!
//! Bare, `true`, or a tolerance, clamped to 0 … 100 (10 when not given): how far, in percent of a
//! channel's range, a pixel may differ from the corner's colour and still count as border.
//! A picture of one colour alone is left as it is.
//!
//! A border can only be found in the whole picture, so decoding may not shrink it first.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::whole;

const DEFAULT_PERCENT: u32 = 10;

pub struct Trim;

struct Border {
    tolerance_percent: u32,
}

impl Param for Trim {
    fn name(&self) -> &'static str {
        "trim"
    }

    fn help(&self) -> &'static str {
        "bare, true, or a tolerance from 0 to 100: cut off a border that has the colour of the corner"
    }

    fn example(&self) -> &'static str {
        "trim=60"
    }

    fn parse(&self, raw: &str) -> Parsed {
        let tolerance_percent = match raw {
            "" | "true" => DEFAULT_PERCENT,
            "false" => return Ok(None),
            _ => whole(raw).map(|n| n.min(100)).ok_or("must be true, or a whole number from 0 to 100")?,
        };
        Ok(Some(Box::new(Border { tolerance_percent })))
    }
}

impl Step for Border {
    fn canonical(&self) -> String {
        self.tolerance_percent.to_string()
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.full_size = true;
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.trim((self.tolerance_percent * 255 / 100) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in [
            ("", Some("10")),
            ("true", Some("10")),
            ("0", Some("0")),
            ("100", Some("100")),
            ("150", Some("100")),
            ("99999999999", Some("100")),
            ("false", None),
        ] {
            assert_eq!(Trim.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in ["-1", "much", "1.5"] {
            assert!(Trim.parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn the_border_goes() {
        let mut pixels = vec![250; 6 * 5 * 3];
        for (x, y) in [(2, 1), (4, 3)] {
            pixels[(y * 6 + x) * 3] = 0;
        }
        let mut canvas = Canvas::rgb(6, 5, pixels);
        Border { tolerance_percent: 10 }.apply(&mut canvas).unwrap();
        assert_eq!(canvas.size(), (3, 3));
        assert_eq!(canvas.pixels()[0], 0);

        let mut plain = Canvas::rgb(6, 5, vec![9; 6 * 5 * 3]);
        Border { tolerance_percent: 0 }.apply(&mut plain).unwrap();
        assert_eq!(plain.size(), (6, 5));
    }
}
