//! `blur=N`: softens the picture.
//!
//! N is the radius of the softening (the standard deviation) in pixels of the result, from
//! 0 to 100. 0 does nothing.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Step;
use super::hundredths;
use super::spell;

pub struct Blur;

struct Soften(i64);

impl Param for Blur {
    fn name(&self) -> &'static str {
        "blur"
    }

    fn help(&self) -> &'static str {
        "a number from 0 to 100: soften with this radius, in pixels of the result"
    }

    fn example(&self) -> &'static str {
        "blur=6"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match hundredths(raw) {
            Some(0) => Ok(None),
            Some(n) if n > 0 => Ok(Some(Box::new(Soften(n.min(10_000))))),
            _ => Err("must be a number from 0 to 100".to_owned()),
        }
    }
}

impl Step for Soften {
    fn canonical(&self) -> String {
        spell(self.0)
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.blur(self.0 as f64 / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_becomes_a_slope() {
        let mut canvas = Canvas::rgb(40, 4, (0..160).flat_map(|i| [if i % 40 < 20 { 0 } else { 240 }; 3]).collect());
        Blur.parse("3").unwrap().unwrap().apply(&mut canvas).unwrap();
        let row: Vec<u8> = canvas.pixels()[..120].iter().step_by(3).copied().collect();
        assert!(row.windows(2).all(|w| w[0] <= w[1]), "{row:?}");
        assert!(row[0] < 5 && row[39] > 235 && (80..160).contains(&row[20]), "{row:?}");
        assert!(Blur.parse("0").unwrap().is_none() && Blur.parse("-1").is_err() && Blur.parse("x").is_err());
        assert_eq!(Blur.parse("900").unwrap().map(|s| s.canonical()).as_deref(), Some("100"));
    }
}
