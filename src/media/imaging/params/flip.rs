//! `flip=h|v|hv`: mirrors the picture.
//!
//! `h` swaps left and right, `v` swaps top and bottom, `hv` does both. `none` does nothing.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Step;

pub struct Flip;

struct Mirror {
    across: bool,
    down: bool,
}

impl Param for Flip {
    fn name(&self) -> &'static str {
        "flip"
    }

    fn help(&self) -> &'static str {
        "h, v or hv: mirror left to right, top to bottom, or both"
    }

    fn example(&self) -> &'static str {
        "flip=h"
    }

    fn parse(&self, raw: &str) -> Parsed {
        let (across, down) = match raw.to_ascii_lowercase().as_str() {
            "h" | "horizontal" => (true, false),
            "v" | "vertical" => (false, true),
            "hv" | "vh" | "both" => (true, true),
            "none" => return Ok(None),
            _ => return Err("must be h, v or hv".to_owned()),
        };
        Ok(Some(Box::new(Mirror { across, down })))
    }
}

impl Step for Mirror {
    fn canonical(&self) -> String {
        match (self.across, self.down) {
            (true, true) => "hv",
            (true, false) => "h",
            _ => "v",
        }
        .to_owned()
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.mirror(self.across, self.down);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors() {
        for (raw, expected) in [("h", [2, 1, 4, 3]), ("v", [3, 4, 1, 2]), ("VH", [4, 3, 2, 1])] {
            let pixels = [1, 2, 3, 4].into_iter().flat_map(|p| [p; 3]).collect();
            let mut canvas = Canvas::rgb(2, 2, pixels);
            Flip.parse(raw).unwrap().unwrap().apply(&mut canvas).unwrap();
            let seen: Vec<u8> = canvas.pixels().iter().step_by(3).copied().collect();
            assert_eq!(seen, expected, "{raw}");
        }
        assert!(Flip.parse("none").unwrap().is_none());
        assert!(Flip.parse("x").is_err() && Flip.parse("").is_err());
    }
}
