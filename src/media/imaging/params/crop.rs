//! `crop`: cuts a part out of the picture.
//!
//! `W,H` and `W,H,gravity` fill a W x H frame: the largest part with that aspect ratio is kept
//! and shrunk to fit W x H (never enlarged). Gravity says which part: `center` (the default),
//! a compass word, `face` for the part that holds the faces, or `smart` for that which people
//! look at. The two differ in name alone where a point has been named for the picture, which
//! then counts, and where there are faces; without either, both go by detail and colour.
//!
//! `X,Y,W,H` cuts that rectangle, in pixels of the upright original. What reaches beyond the
//! picture is left out.

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Plan;
use super::Step;
use super::whole;

pub struct Crop;

/// Which part of a picture is worth keeping.
#[derive(Clone, Copy, PartialEq)]
enum Gravity {
    /// Shares of the cut-off that go to the left and to the top.
    At(&'static str, f64, f64),
    Face,
    Smart,
}

const GRAVITIES: &[Gravity] = &[
    Gravity::At("center", 0.5, 0.5),
    Gravity::At("north", 0.5, 0.0),
    Gravity::At("south", 0.5, 1.0),
    Gravity::At("west", 0.0, 0.5),
    Gravity::At("east", 1.0, 0.5),
    Gravity::At("northwest", 0.0, 0.0),
    Gravity::At("northeast", 1.0, 0.0),
    Gravity::At("southwest", 0.0, 1.0),
    Gravity::At("southeast", 1.0, 1.0),
    Gravity::Face,
    Gravity::Smart,
];

impl Gravity {
    fn word(self) -> &'static str {
        match self {
            Self::At(word, ..) => word,
            Self::Face => "face",
            Self::Smart => "smart",
        }
    }
}

struct Fill {
    width: u32,
    height: u32,
    gravity: Gravity,
}

struct Rectangle {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl Param for Crop {
    fn name(&self) -> &'static str {
        "crop"
    }

    fn help(&self) -> &'static str {
        "W,H or W,H,gravity: fill a frame of W x H, gravity being center, north, northeast …, face or smart; X,Y,W,H: cut that rectangle of the original"
    }

    fn example(&self) -> &'static str {
        "crop=160,160,smart"
    }

    fn parse(&self, raw: &str) -> Parsed {
        const WRONG: &str = "must be W,H or W,H,gravity or X,Y,W,H in whole pixels, as in 300,300,face";
        let parts: Vec<&str> = raw.split(',').map(str::trim).collect();
        let sides = |width: &str, height: &str| {
            let (width, height) = (whole(width).ok_or(WRONG)?, whole(height).ok_or(WRONG)?);
            if width == 0 || height == 0 {
                return Err("width and height must be above 0".to_owned());
            }
            Ok((width, height))
        };
        match parts.as_slice() {
            [width, height, rest @ ..] if rest.len() < 2 => {
                let (width, height) = sides(width, height)?;
                let word = rest.first().map_or("center".to_owned(), |word| word.to_ascii_lowercase());
                let word = if word == "centre" { "center" } else { &word };
                let gravity = *GRAVITIES.iter().find(|gravity| gravity.word() == word).ok_or(WRONG)?;
                let (width, height) = clamp(width, height);
                Ok(Some(Box::new(Fill { width, height, gravity })))
            }
            [x, y, width, height] => {
                let (x, y) = (whole(x).ok_or(WRONG)?, whole(y).ok_or(WRONG)?);
                let (width, height) = sides(width, height)?;
                Ok(Some(Box::new(Rectangle { x, y, width, height })))
            }
            _ => Err(WRONG.to_owned()),
        }
    }
}

/// Shrinks a frame into the general maximum, keeping its aspect ratio.
fn clamp(width: u32, height: u32) -> (u32, u32) {
    let (most_wide, most_high) = Plan::CEILING;
    let shrink = (f64::from(most_wide) / f64::from(width)).min(f64::from(most_high) / f64::from(height));
    if shrink >= 1.0 {
        return (width, height);
    }
    let side = |n: u32, most: u32| ((f64::from(n) * shrink).round() as u32).clamp(1, most);
    (side(width, most_wide), side(height, most_high))
}

impl Fill {
    /// The size of the largest part with the frame's aspect ratio.
    fn part(&self, width: f64, height: f64) -> (f64, f64) {
        let zoom = (width / f64::from(self.width)).min(height / f64::from(self.height));
        (f64::from(self.width) * zoom, f64::from(self.height) * zoom)
    }
}

impl Step for Fill {
    fn canonical(&self) -> String {
        match self.gravity.word() {
            "center" => format!("{},{}", self.width, self.height),
            word => format!("{},{},{word}", self.width, self.height),
        }
    }

    fn foresee(&self, plan: &mut Plan) {
        (plan.width, plan.height) = self.part(plan.width, plan.height);
        plan.narrow(self.width, self.height);
        plan.minds_focus |= matches!(self.gravity, Gravity::Face | Gravity::Smart);
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.settle();
        let (width, height) = canvas.size();
        let (part_width, part_height) = self.part(f64::from(width), f64::from(height));
        let (part_width, part_height) =
            ((part_width.round() as u32).clamp(1, width), (part_height.round() as u32).clamp(1, height));
        let (spare_x, spare_y) = (width - part_width, height - part_height);
        let (x, y) = match self.gravity {
            Gravity::At(_, left, top) => ((f64::from(spare_x) * left) as u32, (f64::from(spare_y) * top) as u32),
            Gravity::Face | Gravity::Smart => {
                let (x, y, ..) = canvas.chosen(|canvas| {
                    let (x, y) = match canvas.of_people(part_width, part_height)? {
                        Some(corner) => corner,
                        None => canvas.busiest(part_width, part_height)?,
                    };
                    Ok((x, y, part_width, part_height))
                })?;
                (x, y)
            }
        };
        canvas.cut(x, y, part_width, part_height);
        Ok(())
    }
}

impl Step for Rectangle {
    fn canonical(&self) -> String {
        format!("{},{},{},{}", self.x, self.y, self.width, self.height)
    }

    fn foresee(&self, plan: &mut Plan) {
        plan.source_coordinates = true;
        plan.width = f64::from(self.width).min((plan.width - f64::from(self.x)).max(1.0));
        plan.height = f64::from(self.height).min((plan.height - f64::from(self.y)).max(1.0));
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        canvas.settle();
        let (scale_x, scale_y) = canvas.scale();
        let (width, height) = canvas.size();
        let edge = |at: f64, scale: f64, most: u32| (at * scale).round().clamp(0.0, f64::from(most)) as u32;
        let left = edge(f64::from(self.x), scale_x, width - 1);
        let top = edge(f64::from(self.y), scale_y, height - 1);
        let right = edge(f64::from(self.x) + f64::from(self.width), scale_x, width).max(left + 1);
        let bottom = edge(f64::from(self.y) + f64::from(self.height), scale_y, height).max(top + 1);
        canvas.cut(left, top, right - left, bottom - top);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (raw, canonical) in [
            ("300,200", "300,200"),
            ("300,200,centre", "300,200"),
            ("300,200,Face", "300,200,face"),
            ("300,200,northEast", "300,200,northeast"),
            ("10,20,300,200", "10,20,300,200"),
            ("99999999999,99999999999", "1536,1536"),
        ] {
            assert_eq!(Crop.parse(raw).unwrap().map(|s| s.canonical()).as_deref(), Some(canonical), "{raw}");
        }
        for raw in ["", "300", "300,0", "0,0,0,10", "300,200,upwards", "-1,0,10,10", "1,2,3,4,5", "a,b", "1,2,3,face"] {
            assert!(Crop.parse(raw).is_err(), "{raw}");
        }
    }

    /// A 8 x 2 picture whose columns are numbered from 1.
    fn columns() -> Canvas {
        Canvas::rgb(8, 2, (0..16).flat_map(|i| [i % 8 + 1; 3]).collect())
    }

    #[test]
    fn gravity_chooses_the_part() {
        for (raw, first) in [("2,2", 4), ("2,2,west", 1), ("2,2,southeast", 7), ("20,20,east", 7)] {
            let mut canvas = columns();
            Crop.parse(raw).unwrap().unwrap().apply(&mut canvas).unwrap();
            assert_eq!((canvas.size(), canvas.pixels()[0]), ((2, 2), first), "{raw}");
        }
    }

    #[test]
    fn smart_finds_the_detail() {
        let mut pixels = vec![100_u8; 40 * 10 * 3];
        for y in 0..10 {
            for x in 30..38 {
                let value = if (x + y) % 2 == 0 { 255 } else { 0 };
                pixels[(y * 40 + x) * 3..][..3].fill(value);
            }
        }
        let canvas = Canvas::rgb(40, 10, pixels);
        let (x, _) = canvas.busiest(10, 10).unwrap();
        assert!((27..=30).contains(&x), "{x}");
    }

    #[test]
    fn rectangles_are_kept_inside() {
        for (raw, size, first) in [("2,0,3,1", (3, 1), 3), ("6,1,100,100", (2, 1), 7), ("100,100,5,5", (1, 1), 8)] {
            let mut canvas = columns();
            Crop.parse(raw).unwrap().unwrap().apply(&mut canvas).unwrap();
            assert_eq!((canvas.size(), canvas.pixels()[0]), (size, first), "{raw}");
        }
    }
}
