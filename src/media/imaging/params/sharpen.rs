//! `sharpen`: makes edges crisper.
//!
//! Bare, `true`, or a strength, clamped to 0 … 100 (50 when not given), applied to the result as an
//! unsharp mask of one pixel. 0 and `false` do nothing.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Step;
use super::whole;

const DEFAULT_PERCENT: u32 = 50;

pub struct Sharpen;

struct Crisp {
    percent: u32,
}

impl Param for Sharpen {
    fn name(&self) -> &'static str {
        "sharpen"
    }

    fn help(&self) -> &'static str {
        "bare, true, or a strength from 0 to 100: make the edges of the result crisper"
    }

    fn example(&self) -> &'static str {
        "sharpen=80"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match raw {
            "" | "true" => Ok(Some(Box::new(Crisp { percent: DEFAULT_PERCENT }))),
            "false" | "0" => Ok(None),
            _ => match whole(raw) {
                Some(0) => Ok(None),
                Some(percent) => Ok(Some(Box::new(Crisp { percent: percent.min(100) }))),
                None => Err("must be true, or a whole number from 0 to 100".to_owned()),
            },
        }
    }
}

impl Step for Crisp {
    fn canonical(&self) -> String {
        self.percent.to_string()
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.sharpen(self.percent as f32 / 50.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_overshoots_and_a_plain_stays() {
        let mut canvas = Canvas::rgb(20, 4, (0..80).flat_map(|i| [if i % 20 < 10 { 80 } else { 160 }; 3]).collect());
        Sharpen.parse("").unwrap().unwrap().apply(&mut canvas).unwrap();
        let row: Vec<u8> = canvas.pixels()[..60].iter().step_by(3).copied().collect();
        assert_eq!((row[0], row[19]), (80, 160));
        assert!(row[9] < 75 && row[10] > 165, "{row:?}");
        assert_eq!(Sharpen.parse("101").unwrap().map(|step| step.canonical()).as_deref(), Some("100"));
        for raw in ["-3", "very"] {
            assert!(Sharpen.parse(raw).is_err(), "{raw}");
        }
    }
}
