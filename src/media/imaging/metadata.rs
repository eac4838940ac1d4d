//! What a file says about its picture: EXIF, and the basics of IPTC and XMP.
//!
//! In: unparsed blocks. Out: facts, in ExifTool's names and words where the API shows them.
//!
//! Invariant: metadata never makes a picture fail. A block that cannot be read is left out,
//! and what is read is bounded in number and length.
//!
//! A modest set: who, when, where, with what, and the captions people search for. The rest
//! stays in the original.

use exif::Exif;
use exif::In;
use exif::Reader;
use exif::Tag;
use exif::Value;

use super::Facts;
use super::Gps;
use super::decode::Source;
use super::orientation::Orientation;
use super::words;

/// Texts are cut at this many characters.
const LONGEST_TEXT: usize = 2000;

/// The tags that are passed on, by ExifTool's names.
const TEXT_TAGS: &[(&str, Tag)] = &[
    ("LensModel", Tag::LensModel),
    ("LensMake", Tag::LensMake),
    ("Software", Tag::Software),
    ("Artist", Tag::Artist),
    ("Copyright", Tag::Copyright),
    ("ImageDescription", Tag::ImageDescription),
    ("BodySerialNumber", Tag::BodySerialNumber),
    ("CameraOwnerName", Tag::CameraOwnerName),
    ("OffsetTimeOriginal", Tag::OffsetTimeOriginal),
];

/// Which way up the picture is stored.
pub fn orientation(block: Option<&[u8]>) -> Orientation {
    let number = block.and_then(read).and_then(|exif| number(&exif, Tag::Orientation));
    number.map_or(Orientation::UPRIGHT, Orientation::from_exif)
}

/// Writes what the blocks say into the facts.
pub fn describe(source: &Source<'_>, facts: &mut Facts) {
    let blocks = &source.metadata;
    if let Some(exif) = blocks.exif.as_deref().and_then(read) {
        describe_exif(&exif, facts);
    }
    let mut add = |name: &str, text: String| {
        let text = tidy(&text);
        if !text.is_empty() {
            facts.exif.entry(name.to_owned()).or_insert(text);
        }
    };
    for (name, text) in blocks.photoshop.map(words::iptc).unwrap_or_default() {
        add(name, text);
    }
    for (name, text) in blocks.xmp.as_deref().map(words::xmp).unwrap_or_default() {
        add(name, text);
    }
    for (keyword, text) in &blocks.texts {
        // The keywords that the PNG specification registers.
        if matches!(keyword.as_str(), "Title" | "Author" | "Description" | "Copyright" | "Software" | "Comment") {
            add(keyword, text.clone());
        }
    }
}

fn describe_exif(exif: &Exif, facts: &mut Facts) {
    facts.make = text(exif, Tag::Make);
    facts.model = text(exif, Tag::Model);
    facts.orientation = number(exif, Tag::Orientation)
        .filter(|n| (1..=8).contains(n))
        .map(|n| Orientation::from_exif(n).words().to_owned());
    facts.color_space = number(exif, Tag::ColorSpace).map(|n| match n {
        1 => "sRGB".to_owned(),
        2 => "Adobe RGB".to_owned(),
        0xFFFD => "Wide Gamut RGB".to_owned(),
        0xFFFE => "ICC Profile".to_owned(),
        0xFFFF => "Uncalibrated".to_owned(),
        n => format!("Unknown ({n})"),
    });
    facts.captured_at = [Tag::DateTimeOriginal, Tag::DateTimeDigitized, Tag::DateTime]
        .into_iter()
        .find_map(|tag| text(exif, tag).as_deref().and_then(iso_time));
    facts.gps = gps(exif);
    for (name, tag) in TEXT_TAGS {
        if let Some(text) = text(exif, *tag) {
            facts.exif.insert((*name).to_owned(), text);
        }
    }
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            facts.exif.insert(name.to_owned(), value);
        }
    };
    add("FNumber", ratio(exif, Tag::FNumber).map(|n| format!("{n:.1}")));
    add("ExposureTime", ratio(exif, Tag::ExposureTime).filter(|t| *t > 0.0).map(exposure));
    add("FocalLength", ratio(exif, Tag::FocalLength).map(|n| format!("{n:.1} mm")));
    add("FocalLengthIn35mmFormat", number(exif, Tag::FocalLengthIn35mmFilm).map(|n| format!("{n} mm")));
    add("ISO", number(exif, Tag::PhotographicSensitivity).map(|n| n.to_string()));
}

/// Parses a block as far as it can be read.
pub(super) fn read(block: &[u8]) -> Option<Exif> {
    // WebP and AVIF writers disagree on whether the JPEG prefix belongs to the block.
    let block = block.strip_prefix(b"Exif\0\0".as_slice()).unwrap_or(block);
    let mut reader = Reader::new();
    reader.continue_on_error(true);
    reader.read_raw(block.to_vec()).or_else(|error| error.distill_partial_result(|_| {})).ok()
}

fn number(exif: &Exif, tag: Tag) -> Option<u32> {
    exif.get_field(tag, In::PRIMARY)?.value.get_uint(0)
}

/// A tag's text on one line, if there is any.
pub(super) fn text(exif: &Exif, tag: Tag) -> Option<String> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Ascii(lines) => {
            let text = tidy(&lines.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join(" "));
            (!text.is_empty()).then_some(text)
        }
        _ => None,
    }
}

fn ratio(exif: &Exif, tag: Tag) -> Option<f64> {
    ratios(exif, tag)?.first().copied().filter(|n| n.is_finite())
}

fn ratios(exif: &Exif, tag: Tag) -> Option<Vec<f64>> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Rational(values) => Some(values.iter().map(exif::Rational::to_f64).collect()),
        _ => None,
    }
}

fn gps(exif: &Exif) -> Option<Gps> {
    let degrees = |value: Tag, reference: Tag, negative: &str, most: f64| {
        let parts = ratios(exif, value)?;
        let degrees: f64 = parts.iter().take(3).zip([1.0, 60.0, 3600.0]).map(|(part, unit)| part / unit).sum();
        let sign = if text(exif, reference).is_some_and(|r| r.eq_ignore_ascii_case(negative)) { -1.0 } else { 1.0 };
        (degrees.is_finite() && (0.0..=most).contains(&degrees)).then_some(degrees * sign)
    };
    let below_sea = number(exif, Tag::GPSAltitudeRef) == Some(1);
    Some(Gps {
        latitude: degrees(Tag::GPSLatitude, Tag::GPSLatitudeRef, "S", 90.0)?,
        longitude: degrees(Tag::GPSLongitude, Tag::GPSLongitudeRef, "W", 180.0)?,
        altitude: ratio(exif, Tag::GPSAltitude).map(|metres| if below_sea { -metres } else { metres }),
    })
}

/// ExifTool's spelling of an exposure in seconds.
fn exposure(seconds: f64) -> String {
    if seconds < 0.25001 {
        format!("1/{}", (0.5 + 1.0 / seconds) as u64)
    } else {
        let text = format!("{seconds:.1}");
        text.strip_suffix(".0").unwrap_or(&text).to_owned()
    }
}

/// "2024:05:17 18:03:09" to "2024-05-17T18:03:09"; cameras without a clock write zeros or blanks.
fn iso_time(exif: &str) -> Option<String> {
    let mut numbers = [0_u32; 6];
    let mut parts = exif.get(..19)?.split([':', ' ']);
    for number in &mut numbers {
        *number = parts.next()?.parse().ok()?;
    }
    let [year, month, day, hour, minute, second] = numbers;
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61 && year >= 1800;
    valid.then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"))
}

/// One line of bounded length without control characters.
pub(super) fn tidy(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_TEXT).collect();
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(iso_time("2024:05:17 18:03:09").as_deref(), Some("2024-05-17T18:03:09"));
        for bad in ["0000:00:00 00:00:00", "    :  :     :  :  ", "2024:13:01 00:00:00", "2024", ""] {
            assert_eq!(iso_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn exposures_read_like_a_camera() {
        for (seconds, spelled) in [(0.008, "1/125"), (0.0005, "1/2000"), (0.5, "0.5"), (2.0, "2"), (1.0 / 3.0, "0.3")] {
            assert_eq!(exposure(seconds), spelled);
        }
    }
}
