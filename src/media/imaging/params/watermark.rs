//! `watermark`: lays the venue's mark over the picture.
//!
//! `true` takes placement and scale from the settings; `placement` and `placement,scale` say
//! otherwise for this picture. Which image the mark is, is never up to the caller: the server
//! settles the step with the mark of the settings before it becomes a cache key, so that a
//! new mark gives new pictures.

use serde::Deserialize;
use serde::Serialize;

use super::super::canvas::Canvas;
use super::super::error::ImageError;
use super::Param;
use super::Parsed;
use super::Step;
use super::hundredths;
use super::spell;
use super::switch;

pub struct Watermark;

/// Where a mark lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    Center,
    TopLeft,
    TopRight,
    BottomLeft,
    BottomRight,
}

impl Placement {
    pub const ALL: [Self; 5] = [Self::Center, Self::TopLeft, Self::TopRight, Self::BottomLeft, Self::BottomRight];

    pub fn word(self) -> &'static str {
        match self {
            Self::Center => "center",
            Self::TopLeft => "top-left",
            Self::TopRight => "top-right",
            Self::BottomLeft => "bottom-left",
            Self::BottomRight => "bottom-right",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|placement| placement.word().eq_ignore_ascii_case(word))
    }

    /// The corner of a mark of this size on a picture of that size.
    pub(in super::super) fn corner(self, picture: (u32, u32), mark: (u32, u32)) -> (u32, u32) {
        let (right, bottom) = (picture.0.saturating_sub(mark.0), picture.1.saturating_sub(mark.1));
        match self {
            Self::Center => (right / 2, bottom / 2),
            Self::TopLeft => (0, 0),
            Self::TopRight => (right, 0),
            Self::BottomLeft => (0, bottom),
            Self::BottomRight => (right, bottom),
        }
    }
}

/// A mark that is asked for, and, once settled, which.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mark {
    pub placement: Option<Placement>,
    /// The largest share of the picture's width and height, in hundredths.
    pub scale_percent: Option<u32>,
    /// Names the image; set by the server alone.
    pub digest: Option<String>,
}

impl Param for Watermark {
    fn name(&self) -> &'static str {
        "watermark"
    }

    fn help(&self) -> &'static str {
        "true: lay the venue's watermark over the picture, as the settings say; or placement[,scale], as in bottom-right,0.25"
    }

    fn example(&self) -> &'static str {
        "watermark=bottom-right,0.3"
    }

    fn parse(&self, raw: &str) -> Parsed {
        const WRONG: &str = "must be true, or center, top-left, top-right, bottom-left or bottom-right, and may be followed by a scale above 0 and up to 1, as in bottom-right,0.25";
        match switch(raw) {
            Some(true) => return Ok(Some(Box::new(Mark::default()))),
            Some(false) => return Ok(None),
            None => {}
        }
        let mut parts = raw.split(',').map(str::trim);
        let placement = parts.next().and_then(Placement::from_word).ok_or(WRONG)?;
        let scale =
            parts.next().map(|text| hundredths(text).filter(|n| (1..=100).contains(n)).ok_or(WRONG)).transpose()?;
        let digest = parts.next().map(str::to_owned);
        let is_digest = |text: &String| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if parts.next().is_some() || digest.as_ref().is_some_and(|text| !is_digest(text)) {
            return Err(WRONG.to_owned());
        }
        Ok(Some(Box::new(Mark { placement: Some(placement), scale_percent: scale.map(|n| n as u32), digest })))
    }
}

impl Step for Mark {
    fn canonical(&self) -> String {
        let Some(placement) = self.placement else { return "true".to_owned() };
        let mut text = placement.word().to_owned();
        if let Some(scale) = self.scale_percent {
            text.push(',');
            text.push_str(&spell(i64::from(scale)));
        }
        if let Some(digest) = &self.digest {
            text.push(',');
            text.push_str(digest);
        }
        text
    }

    fn mark(&self) -> Option<&Mark> {
        Some(self)
    }

    fn apply(&self, canvas: &mut Canvas) -> Result<(), ImageError> {
        let (Some(placement), Some(scale)) = (self.placement, self.scale_percent) else {
            return Err(ImageError::NotRendered("the watermark is not settled".to_owned()));
        };
        canvas.lay_over(placement, f64::from(scale) / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let digest = "0123456789abcdef0123456789abcdef";
        for (raw, canonical) in [
            ("", Some("true".to_owned())),
            ("1", Some("true".to_owned())),
            ("0", None),
            ("Top-Left", Some("top-left".to_owned())),
            ("bottom-right, .250", Some("bottom-right,0.25".to_owned())),
            (&format!("center,1,{digest}"), Some(format!("center,1,{digest}"))),
        ] {
            assert_eq!(Watermark.parse(raw).unwrap().map(|step| step.canonical()), canonical, "{raw}");
        }
        for raw in ["left", "center,0", "center,1.01", "center,1,abc", "center,x", "true,1", ",", "center,1,,"] {
            assert!(Watermark.parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn marks_lie_inside() {
        for (placement, corner) in Placement::ALL.into_iter().zip([(45, 20), (0, 0), (90, 0), (0, 40), (90, 40)]) {
            assert_eq!(placement.corner((100, 50), (10, 10)), corner, "{placement:?}");
            assert_eq!(placement.corner((5, 5), (10, 10)), (0, 0), "{placement:?}");
        }
    }
}
