//! The fuzz targets, all in one program; `FUZZ_TARGET` says which.
//!
//! In: bytes that libFuzzer makes up. Out: nothing, or a crash with the input that caused it.
//!
//! A target named after a source format (`jpeg`, `png`, `heic` …, as `SourceFormat` spells it) takes only inputs
//! that are recognised as that format, so that mutation digs into one decoder. Besides there are:
//! `recipe`, whose canonical spelling must be stable; `metadata`, which puts the bytes where a JPEG keeps its EXIF,
//! XMP and IPTC; `container` for films; and `reduced`, which holds our way of shrinking a JPEG against libjpeg-turbo's.
//!
//! Limits are lower than in service: a machine that explores must not wait for a hundred megapixels.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the targets use what strangers' bytes can reach")]

#[path = "../../src/media/mod.rs"]
mod media;

use std::sync::OnceLock;

use libfuzzer_sys::Corpus;
use libfuzzer_sys::fuzz_target;

use crate::media::imaging::Limits;
use crate::media::imaging::Recipe;
use crate::media::imaging::SourceFormat;
use crate::media::imaging::base;
use crate::media::imaging::container;
use crate::media::imaging::probe;
use crate::media::imaging::render;

fuzz_target!(|data: &[u8]| -> Corpus {
    static TARGET: OnceLock<String> = OnceLock::new();
    match TARGET.get_or_init(|| std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names the target")).as_str() {
        "recipe" => recipe(data),
        "metadata" => metadata(data),
        "container" => {
            container::probe_video(data);
            Corpus::Keep
        }
        "reduced" => reduced(data),
        format => picture(data, format),
    }
});

/// What the recipes below ask for, by the length of the input: the input itself stays a file as it is found.
const RECIPES: &[&str] = &[
    "resize=64,64&format=jpg",
    "resize=20,&format=png",
    "format=png",
    "crop=3,5,40,30&rotate=33&format=jpg",
    "crop=30,20,smart&flip=h&format=webp&quality=20",
    "trim=10&blur=1&sharpen=30&resize=31,17&format=jpg",
];

fn limits() -> Limits {
    Limits { max_pixels: 1_000_000, max_decoded_bytes: 32 << 20, ..Limits::default() }
}

fn picture(data: &[u8], format: &str) -> Corpus {
    let Some(found) = SourceFormat::sniff(data) else { return Corpus::Reject };
    if !format!("{found:?}").eq_ignore_ascii_case(format) {
        return Corpus::Reject;
    }
    let limits = limits();
    let facts = probe(data, &limits);
    let query = RECIPES[data.len() % RECIPES.len()];
    let recipe = Recipe::from_canonical(query).expect(query);
    let made = render(data, &recipe, &limits, &|| false);
    if let Ok(made) = &made {
        let facts = facts.expect("what can be rendered can be probed");
        assert!(u64::from(facts.width) * u64::from(facts.height) <= limits.max_pixels, "{facts:?}");
        assert!(made.width > 0 && made.height > 0 && made.width <= 2048 && made.height <= 1536, "{made:?}");
        assert!(SourceFormat::sniff(&made.bytes).is_some(), "the output is no picture");
    }
    if data.len() % 7 == 0 {
        let _ = base(data, 256, &limits);
    }
    Corpus::Keep
}

fn recipe(data: &[u8]) -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    let pairs = text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Ok(recipe) = Recipe::parse(pairs) else { return Corpus::Keep };
    let canonical = recipe.canonical();
    let again = Recipe::from_canonical(&canonical).expect("a canonical text is a recipe");
    assert_eq!(again.canonical(), canonical, "the canonical text is not stable");
    assert_eq!((again.max_output(), again.format()), (recipe.max_output(), recipe.format()));
    assert_eq!(again.needs_original(), recipe.needs_original());
    let (width, height) = recipe.max_output().unwrap_or((1, 1));
    assert!((1..=2048).contains(&width) && (1..=1536).contains(&height), "{canonical}: {width} x {height}");
    assert!(canonical.len() < 4096 && !canonical.contains(['#', '?', '\n']), "{canonical}");
    Corpus::Keep
}

/// A black JPEG of 8 × 8 pixels, without its first two bytes.
const JPEG_TAIL: &[u8] = include_bytes!("seeds/black.jpg");

fn metadata(data: &[u8]) -> Corpus {
    let Some((kind, payload)) = data.split_first() else { return Corpus::Reject };
    let (marker, magic): (u8, &[u8]) = match kind % 4 {
        0 => (0xe1, b"Exif\0\0"),
        1 => (0xe1, b"http://ns.adobe.com/xap/1.0/\0"),
        2 => (0xed, b"Photoshop 3.0\0"),
        _ => (0xe2, b"ICC_PROFILE\0\x01\x01"),
    };
    let Ok(length) = u16::try_from(2 + magic.len() + payload.len()) else { return Corpus::Reject };
    let mut file = vec![0xff, 0xd8, 0xff, marker];
    file.extend(length.to_be_bytes());
    file.extend(magic);
    file.extend(payload);
    file.extend(&JPEG_TAIL[2..]);
    let _ = probe(&file, &limits()).expect("strange metadata must not spoil a picture");
    let recipe = Recipe::from_canonical("resize=4,4&format=png").expect("a recipe");
    let _ = render(&file, &recipe, &limits(), &|| false);
    Corpus::Keep
}

/// Shrinking a JPEG by a power of two while it is decoded, beside libjpeg-turbo's own way of doing it. Only for files
/// that libjpeg-turbo finds no fault with: what a damaged one shows is anybody's choice.
fn reduced(data: &[u8]) -> Corpus {
    let limits = limits();
    // A profile may say that everything is brighter.
    let has_profile = data.windows(11).any(|window| window == b"ICC_PROFILE");
    // Arithmetic coding has no check of its own: libjpeg-turbo decodes a damaged file differently at each scale.
    let is_arithmetic = data.windows(2).any(|window| matches!(window, [0xff, 0xc9..=0xcb | 0xcd..=0xcf]));
    if SourceFormat::sniff(data) != Some(SourceFormat::Jpeg) || has_profile || is_arithmetic {
        return Corpus::Reject;
    }
    let Ok(head) = turbojpeg::read_header(data) else { return Corpus::Reject };
    let denominator = [8, 4, 2][data.len() % 3];
    if (head.width * head.height) as u64 > limits.max_pixels || head.width.min(head.height) < 8 * denominator {
        return Corpus::Reject;
    }
    let Ok(facts) = probe(data, &limits) else { return Corpus::Keep };
    if facts.orientation.as_deref().is_some_and(|word| word != "Horizontal (normal)") {
        return Corpus::Keep;
    }
    let Some(theirs) = theirs_at(data, denominator) else { return Corpus::Keep };
    // Grey, so that the way of enlarging chroma does not count, and a profile hardly.
    let query = format!("resize={},{}&grayscale=true&format=png", theirs.width, theirs.height);
    let recipe = Recipe::from_canonical(&query).expect("a recipe");
    let made = render(data, &recipe, &limits, &|| false).expect("libjpeg-turbo has no trouble with it");
    let ours = image::load_from_memory(&made.bytes).expect("our own PNG").to_luma8();
    if (ours.width() as usize, ours.height() as usize) != (theirs.width, theirs.height) {
        return Corpus::Keep;
    }
    let theirs_mean = mean(&theirs.pixels);
    // Coefficients out of all proportion are cut off sooner or later, as the size has it, by libjpeg-turbo itself.
    let agrees = |scale| theirs_at(data, scale).is_some_and(|other| (mean(&other.pixels) - theirs_mean).abs() < 3.0);
    let is_sound = [1, 2, 4, 8].into_iter().all(agrees);
    if !is_sound {
        return Corpus::Keep;
    }
    let ours_mean = ours.as_raw().iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / ours.len() as f64;
    assert!((ours_mean - theirs_mean).abs() < 12.0, "1/{denominator}: {ours_mean} instead of {theirs_mean} on average");
    Corpus::Keep
}

/// How bright an RGB picture is.
fn mean(pixels: &[u8]) -> f64 {
    pixels.chunks_exact(3).map(luma).sum::<f64>() / (pixels.len() / 3) as f64
}

fn luma(pixel: &[u8]) -> f64 {
    0.2126 * f64::from(pixel[0]) + 0.7152 * f64::from(pixel[1]) + 0.0722 * f64::from(pixel[2])
}

/// What libjpeg-turbo makes of it, if without a word of complaint.
fn theirs_at(data: &[u8], denominator: usize) -> Option<turbojpeg::Image<Vec<u8>>> {
    let mut decompressor = turbojpeg::Decompressor::new().ok()?;
    let header = decompressor.read_header(data).ok()?;
    if !matches!(header.colorspace, turbojpeg::Colorspace::YCbCr | turbojpeg::Colorspace::Gray) {
        return None;
    }
    let factor = turbojpeg::ScalingFactor::new(1, denominator);
    decompressor.set_scaling_factor(factor).ok()?;
    let (width, height) = (factor.scale(header.width), factor.scale(header.height));
    let mut image = turbojpeg::Image {
        pixels: vec![0; 3 * width * height],
        width,
        pitch: 3 * width,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    decompressor.decompress(data, image.as_deref_mut()).ok()?;
    Some(image)
}
