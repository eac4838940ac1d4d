//! `resize=W,H`: fits the picture into a box.
//!
//! Both sides are pixels. The aspect ratio is kept and nothing is ever enlarged. One side
//! may be 0 or empty: then only the other bounds. A side above the general maximum of
//! 2048 x 1536 counts as the maximum.
//!
//! This step is also taken when nobody asked, with the general maximum as the box.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::whole;

pub struct Resize;

/// A box in asked pixels; 0 leaves that side free.
struct Fit {
    width: u32,
    height: u32,
}

impl Param for Resize {
    fn name(&self) -> &'static str {
        "resize"
    }

    fn help(&self) -> &'static str {
        "W,H: fit into W x H pixels, keeping the aspect ratio and never enlarging; at most 2048,1536; one side may be 0 or empty to leave it free"
    }

    fn example(&self) -> &'static str {
        "resize=150,150"
    }

    fn parse(&self, raw: &str) -> Parsed {
        let side = |raw: &str| if raw.trim().is_empty() { Some(0) } else { whole(raw.trim()) };
        let (width, height) = raw
            .split_once(',')
            .and_then(|(width, height)| Some((side(width)?, side(height)?)))
            .ok_or("must be two whole numbers of pixels, as in 800,600")?;
        if (width, height) == (0, 0) {
            return Err("at least one side must be above 0".to_owned());
        }
        let (most_wide, most_high) = Plan::CEILING;
        Ok(Some(Box::new(Fit { width: width.min(most_wide), height: height.min(most_high) })))
    }

    fn unasked(&self) -> Option<Box<dyn Step>> {
        Some(Box::new(Fit { width: 0, height: 0 }))
    }
}

impl Step for Fit {
    fn canonical(&self) -> String {
        format!("{},{}", self.width, self.height)
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.narrow(self.width, self.height);
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.fit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let spell = |raw: &str| Resize.parse(raw).map(|step| step.map(|s| s.canonical()));
        for (raw, canonical) in [
            ("800,600", "800,600"),
            (" 800 , 600 ", "800,600"),
            ("800,0", "800,0"),
            (",600", "0,600"),
            ("800,", "800,0"),
            ("99999999999,99999999999", "2048,1536"),
            ("4000,100", "2048,100"),
            ("1,1", "1,1"),
        ] {
            assert_eq!(spell(raw).unwrap().as_deref(), Some(canonical), "{raw}");
        }
        for raw in ["", "800", "0,0", ",", "a,b", "-5,10", "800,-1", "1.5,2", "800,600,1", "800x600", "+8,6", "٣,4"] {
            assert!(spell(raw).is_err(), "{raw}");
        }
    }
}
