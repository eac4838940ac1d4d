//! `bgcolor=RRGGBB`: fills what is transparent with a colour.
//!
//! Six or three hexadecimal digits without `#`. The result has no transparency left. A JPEG
//! made from a transparent picture without this parameter is filled with white.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;

pub struct Bgcolor;

struct Fill([u8; 3]);

impl Param for Bgcolor {
    fn name(&self) -> &'static str {
        "bgcolor"
    }

    fn help(&self) -> &'static str {
        "RRGGBB or RGB, hexadecimal without #: the colour that fills what is transparent"
    }

    fn example(&self) -> &'static str {
        "rotate=20&bgcolor=ffd700"
    }

    fn parse(&self, raw: &str) -> Parsed {
        let digits: Option<Vec<u8>> = raw.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        match digits.as_deref() {
            Some(&[r, g, b]) => Ok(Some(Box::new(Fill([r * 17, g * 17, b * 17])))),
            Some(&[r1, r0, g1, g0, b1, b0]) => Ok(Some(Box::new(Fill([r1 * 16 + r0, g1 * 16 + g0, b1 * 16 + b0])))),
            _ => Err("must be six or three hexadecimal digits, as in f00000".to_owned()),
        }
    }
}

impl Step for Fill {
    fn canonical(&self) -> String {
        let [r, g, b] = self.0;
        format!("{r:02x}{g:02x}{b:02x}")
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.background = Some(self.0);
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.flatten(self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in [("f00000", "f00000"), ("FFAA00", "ffaa00"), ("f0a", "ff00aa")] {
            assert_eq!(Bgcolor.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), Some(canonical), "{raw}");
        }
        for raw in ["", "#f00000", "f0000", "gggggg", "red", "f00000ff", "é00"] {
            assert!(Bgcolor.parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn transparency_becomes_the_colour() {
        let mut canvas = Canvas::rgba(2, 1, vec![10, 20, 30, 0, 200, 100, 0, 128]);
        Fill([0, 0, 255]).apply(&mut canvas).unwrap();
        assert_eq!(canvas.pixels(), [0, 0, 255, 100, 50, 127]);
    }
}
