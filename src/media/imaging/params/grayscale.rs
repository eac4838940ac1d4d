//! `grayscale`: takes the colour away.
//!
//! Bare or `true`; `false` does nothing. The shade is the luma of BT.709, which is what
//! screens mean by brightness.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Step;
use super::switch;

pub struct Grayscale;

struct Shades;

impl Param for Grayscale {
    fn name(&self) -> &'static str {
        "grayscale"
    }

    fn help(&self) -> &'static str {
        "bare or true: take the colour away"
    }

    fn example(&self) -> &'static str {
        "grayscale"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match switch(raw) {
            Some(true) => Ok(Some(Box::new(Shades))),
            Some(false) => Ok(None),
            None => Err("must be true or false".to_owned()),
        }
    }
}

impl Step for Shades {
    fn canonical(&self) -> String {
        "true".to_owned()
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.grayscale()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_follow_brightness() {
        let mut canvas = Canvas::rgba(3, 1, vec![255, 0, 0, 9, 0, 255, 0, 8, 255, 255, 255, 7]);
        Grayscale.parse("").unwrap().unwrap().apply(&mut canvas).unwrap();
        assert_eq!(canvas.pixels(), [54, 54, 54, 9, 182, 182, 182, 8, 255, 255, 255, 7]);
        assert!(Grayscale.parse("maybe").is_err());
    }
}
