//! `rotate=N`: turns the picture clockwise by N degrees.
//!
//! Any number of degrees, taken modulo 360, negative for anticlockwise. Right angles lose
//! nothing. Other angles enlarge the picture to hold its corners; what lies outside is
//! transparent, and so becomes `bgcolor`, or white in a JPEG.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::hundredths;
use super::spell;

pub struct Rotate;

/// Hundredths of a degree, clockwise, from 1 to 35999.
struct Turn(i64);

impl Param for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn help(&self) -> &'static str {
        "degrees clockwise, as in 90, -90 or 12.5; outside right angles the corners become transparent or bgcolor"
    }

    fn example(&self) -> &'static str {
        "rotate=90"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match hundredths(raw).map(|n| n.rem_euclid(36_000)) {
            Some(0) => Ok(None),
            Some(n) => Ok(Some(Box::new(Turn(n)))),
            None => Err("must be a number of degrees, as in 90".to_owned()),
        }
    }
}

impl Step for Turn {
    fn canonical(&self) -> String {
        spell(self.0)
    }

    fn foresee(&self, plan: &mut Plan) {
        let radians = (self.0 as f64 / 100.0).to_radians();
        let (sin, cos) = (radians.sin().abs(), radians.cos().abs());
        (plan.width, plan.height) = (plan.width * cos + plan.height * sin, plan.width * sin + plan.height * cos);
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        match self.0 {
            n if n % 9_000 == 0 => canvas.quarter_turns((n / 9_000) as u8),
            n => canvas.turn(n as f64 / 100.0)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in
            [("90", Some("90")), ("-90", Some("270")), ("450", Some("90")), ("0", None), ("12.50", Some("12.5"))]
        {
            assert_eq!(Rotate.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), canonical, "{raw}");
        }
        for raw in ["", "left", "90deg", "1e9"] {
            assert!(Rotate.parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn right_angles_move_pixels_whole() {
        let mut canvas = Canvas::rgb(2, 1, vec![1, 1, 1, 2, 2, 2]);
        Turn(9_000).apply(&mut canvas).unwrap();
        assert_eq!(canvas.size(), (1, 2));
        assert_eq!(canvas.pixels(), [1, 1, 1, 2, 2, 2]);
        Turn(9_000).apply(&mut canvas).unwrap();
        assert_eq!(canvas.pixels(), [2, 2, 2, 1, 1, 1]);
    }

    #[test]
    fn other_angles_leave_transparent_corners() {
        let mut canvas = Canvas::rgb(40, 40, vec![200; 40 * 40 * 3]);
        Turn(4_500).apply(&mut canvas).unwrap();
        let (width, height) = canvas.size();
        assert!((56..=58).contains(&width) && (56..=58).contains(&height), "{width} x {height}");
        assert_eq!(canvas.pixels()[3], 0);
        let middle = ((height / 2 * width + width / 2) * 4) as usize;
        assert_eq!(canvas.pixels()[middle..middle + 4], [200, 200, 200, 255]);
    }
}
