//! The golden set: one scene in every format, and what every parameter makes of it.
//!
//! In: `inputs/`, written by other people's programs. Out: nothing but agreement with `expected/`, which other
//! programs made by the same operations. Sizes must be equal; how far colours may be apart is in the tables.
//! `make.py` makes both folders. Everything runs in this process: a decoder that crashes fails everything, loudly.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the steps that the tests share fail by panicking, too"
)]

mod picture;

use std::fs;
use std::path::PathBuf;

use cloakroom::media::imaging::Facts;
use cloakroom::media::imaging::ImageError;
use cloakroom::media::imaging::Limits;
use cloakroom::media::imaging::Recipe;
use cloakroom::media::imaging::Rendered;
use cloakroom::media::imaging::SourceFormat;
use cloakroom::media::imaging::probe;
use cloakroom::media::imaging::render;

use picture::Apart;
use picture::Picture;

/// Beginnings of the names of inputs that are refused today. Whoever teaches us such a format takes its line out;
/// a test fails until that is done.
const NOT_YET: &[&str] = &["pnm_", "tga_", "qoi_", "jp2_"];

// How far apart: on average, at the worst place.
const SAME: Apart = Apart { mean: 0.1, most: 1.0 };
const NEAR: Apart = Apart { mean: 1.0, most: 5.0 };
/// After lossy compression of good quality.
const LIKE: Apart = Apart { mean: 1.2, most: 8.0 };
/// After chroma of half the size, or few colours.
const ROUGH: Apart = Apart { mean: 2.0, most: 22.0 };
/// After compression that may be seen.
const POOR: Apart = Apart { mean: 4.0, most: 45.0 };

/// Input, what it must look like, and how nearly.
#[rustfmt::skip]
const INPUTS: &[(&str, &str, Apart)] = &[
    ("jpeg_420.jpg", "scene", ROUGH),
    ("jpeg_422.jpg", "scene", ROUGH),
    ("jpeg_440.jpg", "scene", ROUGH),
    ("jpeg_444.jpg", "scene", LIKE),
    ("jpeg_progressive.jpg", "scene", ROUGH),
    ("jpeg_restart.jpg", "scene", ROUGH),
    ("jpeg_arithmetic.jpg", "scene", ROUGH),
    ("jpeg_optimised.jpg", "scene", ROUGH),
    ("jpeg_rgb.jpg", "scene", LIKE),
    ("jpeg_grey.jpg", "grey", LIKE),
    ("jpeg_cmyk.jpg", "scene", LIKE),
    ("jpeg_ycck.jpg", "scene", LIKE),
    ("jpeg_p3.jpg", "scene", LIKE),
    ("jpeg_adobe_rgb.jpg", "scene", LIKE),
    ("jpeg_gps.jpg", "scene", ROUGH),
    ("jpeg_turned_1.jpg", "scene", LIKE),
    ("jpeg_turned_2.jpg", "scene", LIKE),
    ("jpeg_turned_3.jpg", "scene", LIKE),
    ("jpeg_turned_4.jpg", "scene", LIKE),
    ("jpeg_turned_5.jpg", "scene", LIKE),
    ("jpeg_turned_6.jpg", "scene", LIKE),
    ("jpeg_turned_7.jpg", "scene", LIKE),
    ("jpeg_turned_8.jpg", "scene", LIKE),
    ("png_8.png", "scene", SAME),
    ("png_16.png", "scene", NEAR),
    ("png_interlaced.png", "scene", SAME),
    ("png_palette.png", "scene", LIKE),
    ("png_palette_alpha.png", "hard", LIKE),
    ("png_grey.png", "grey", SAME),
    ("png_grey_16.png", "grey", NEAR),
    ("png_alpha.png", "alpha", SAME),
    ("png_alpha_16.png", "alpha", NEAR),
    ("png_trns.png", "hard", SAME),
    ("png_p3.png", "scene", NEAR),
    ("png_animated.png", "scene", SAME),
    ("gif_still.gif", "scene", LIKE),
    ("gif_interlaced.gif", "scene", LIKE),
    ("gif_transparent.gif", "hard", LIKE),
    ("gif_animated.gif", "scene", ROUGH),
    ("webp_lossy.webp", "scene", ROUGH),
    ("webp_lossless.webp", "scene", SAME),
    ("webp_alpha.webp", "alpha", ROUGH),
    ("webp_alpha_lossless.webp", "alpha", SAME),
    ("webp_animated.webp", "scene", ROUGH),
    ("avif_444.avif", "scene", LIKE),
    ("avif_420.avif", "scene", ROUGH),
    ("avif_10bit.avif", "scene", LIKE),
    ("avif_alpha.avif", "alpha", LIKE),
    ("avif_lossless.avif", "scene", SAME),
    ("avif_turned.avif", "scene", LIKE),
    ("heic_420.heic", "scene", ROUGH),
    ("heic_444.heic", "scene", LIKE),
    ("heic_10bit.heic", "scene", ROUGH),
    ("heic_alpha.heic", "alpha", LIKE),
    ("jxl_lossy.jxl", "scene", ROUGH),
    ("jxl_lossless.jxl", "scene", SAME),
    ("jxl_alpha.jxl", "alpha", ROUGH),
    ("jxl_of_jpeg.jxl", "scene", ROUGH),
    ("jxl_16.jxl", "scene", ROUGH),
    ("tiff_plain.tif", "scene", SAME),
    ("tiff_lzw.tif", "scene", SAME),
    ("tiff_deflate.tif", "scene", SAME),
    ("tiff_packbits.tif", "scene", SAME),
    ("tiff_jpeg.tif", "scene", ROUGH),
    ("tiff_16.tif", "scene", NEAR),
    ("tiff_cmyk.tif", "scene", LIKE),
    ("tiff_grey.tif", "grey", SAME),
    ("tiff_palette.tif", "scene", LIKE),
    ("tiff_alpha.tif", "alpha", NEAR),
    ("tiff_pages.tif", "scene", SAME),
    ("tiff_big_endian.tif", "scene", SAME),
    ("tiff_tiles.tif", "scene", SAME),
    ("tiff_planes.tif", "scene", SAME),
    ("tiff_big.tif", "scene", SAME),
    ("tiff_predictor.tif", "scene", SAME),
    ("tiff_ycbcr_jpeg.tif", "scene", ROUGH),
    ("tiff_fax4.tif", "fax", SAME),
    ("bmp_24.bmp", "scene", SAME),
    ("bmp_palette.bmp", "scene", LIKE),
    ("bmp_rle.bmp", "scene", LIKE),
    ("bmp_alpha.bmp", "alpha_half", NEAR),
    ("ico_bmp.ico", "hard_half", NEAR),
    ("ico_png.ico", "alpha", SAME),
    ("psd_rle.psd", "scene", SAME),
    ("psd_grey.psd", "grey", SAME),
    ("psd_cmyk.psd", "scene_three_quarters", ROUGH),
    ("svg_drawing.svg", "drawing", ROUGH),
    ("pdf_image.pdf", "scene", LIKE),
    ("pdf_drawing.pdf", "drawing", LIKE),
    ("pdf_pages.pdf", "scene", ROUGH),
    ("pnm_rgb.ppm", "scene", SAME),
    ("pnm_grey.pgm", "grey", SAME),
    ("pnm_text.ppm", "scene_half", SAME),
    ("tga_rle.tga", "scene", SAME),
    ("tga_alpha.tga", "alpha_three_quarters", NEAR),
    ("qoi_rgb.qoi", "scene", SAME),
    ("jp2_boxed.jp2", "scene", LIKE),
    ("jp2_bare.j2k", "scene", LIKE),
    ("raw_bayer.dng", "scene", ROUGH),
];

/// Input, recipe, what must come out, and how nearly. PNG comes out where the recipe names no format.
#[rustfmt::skip]
const RECIPES: &[(&str, &str, &str, Apart)] = &[
    ("photo.jpg", "resize=200,200", "resize_200", NEAR),
    ("photo.jpg", "resize=240,", "resize_width", NEAR),
    ("photo.jpg", "resize=,100", "resize_height", NEAR),
    ("photo.jpg", "resize=24,24", "resize_tiny", NEAR),
    ("png_8.png", "resize=500,500", "scene", SAME),
    ("photo.jpg", "crop=100,100", "crop_center", NEAR),
    ("photo.jpg", "crop=100,100,centre", "crop_center", NEAR),
    // There is no face in the scene.
    ("photo.jpg", "crop=120,40,center", "crop_middle_wide", NEAR),
    ("photo.jpg", "crop=120,40,north", "crop_north", NEAR),
    ("photo.jpg", "crop=120,40,northwest", "crop_north", NEAR),
    ("photo.jpg", "crop=120,40,northeast", "crop_north", NEAR),
    ("photo.jpg", "crop=120,40,south", "crop_south", NEAR),
    ("photo.jpg", "crop=50,100,west", "crop_west", NEAR),
    ("photo.jpg", "crop=50,100,southwest", "crop_west", NEAR),
    ("photo.jpg", "crop=50,100,east", "crop_east", NEAR),
    ("photo.jpg", "crop=50,100,southeast", "crop_east", NEAR),
    ("photo.jpg", "crop=100,50,200,120", "crop_rectangle", NEAR),
    ("photo.jpg", "crop=100,50,400,300&resize=100,100", "crop_rectangle_resized", NEAR),
    ("photo.jpg", "crop=700,400,500,500", "crop_rectangle_outside", NEAR),
    ("bordered.png", "trim", "scene", SAME),
    ("bordered.png", "trim=2", "scene", SAME),
    ("bordered.png", "trim&resize=48,48", "trim_resize", NEAR),
    ("bordered.png", "trim&rotate=180&flip=v", "trim_rotate_flip", SAME),
    ("png_8.png", "rotate=90", "rotate_90", SAME),
    ("png_8.png", "rotate=180", "rotate_180", SAME),
    ("png_8.png", "rotate=-90", "rotate_270", SAME),
    ("png_8.png", "rotate=450", "rotate_90", SAME),
    ("png_8.png", "rotate=33", "rotate_33", LIKE),
    ("png_8.png", "rotate=-12.5", "rotate_minus_12", LIKE),
    ("png_8.png", "rotate=33&bgcolor=336699", "rotate_33_filled", LIKE),
    ("png_8.png", "rotate=33&resize=60,60&bgcolor=fff", "rotate_33_resized", ROUGH),
    ("png_8.png", "flip=h", "flip_h", SAME),
    ("png_8.png", "flip=v", "flip_v", SAME),
    ("png_8.png", "flip=hv", "flip_hv", SAME),
    ("png_alpha.png", "bgcolor=f00000", "bgcolor_red", NEAR),
    ("png_alpha.png", "bgcolor=f00000&format=jpg", "bgcolor_red", ROUGH),
    ("png_alpha.png", "format=jpg", "bgcolor_white", ROUGH),
    ("png_alpha.png", "resize=48,48&bgcolor=0f0", "bgcolor_resized", NEAR),
    ("png_alpha.png", "resize=48,48", "alpha_resized", NEAR),
    ("png_8.png", "blur=2", "blur_2", NEAR),
    ("png_8.png", "blur=8", "blur_8", NEAR),
    ("png_8.png", "sharpen", "sharpen_50", NEAR),
    ("png_8.png", "sharpen=100", "sharpen_100", NEAR),
    ("png_8.png", "grayscale", "grey", NEAR),
    ("photo.jpg", "resize=50,50&dpr=2", "dpr_2", NEAR),
    ("photo.jpg", "crop=40,40&dpr=1.5", "dpr_crop", LIKE),
    ("photo.jpg", "resize=200,200&format=jpg", "resize_200", ROUGH),
    ("photo.jpg", "resize=200,200&format=jpg&quality=30", "resize_200", POOR),
    ("photo.jpg", "resize=200,200&format=webp", "resize_200", ROUGH),
    ("photo.jpg", "resize=200,200&format=webp&quality=50", "resize_200", POOR),
    ("photo.jpg", "resize=200,200&format=avif", "resize_200", ROUGH),
    ("photo.jpg", "resize=200,200&format=avif&quality=50", "resize_200", POOR),
    ("png_alpha.png", "format=webp", "alpha", ROUGH),
    ("png_alpha.png", "format=avif", "alpha", ROUGH),
    ("photo.jpg", "grayscale&crop=60,60,south&rotate=90", "rotate_crop_grey", LIKE),
    ("photo.jpg", "blur=1&resize=96,96&flip=h", "flip_resize_blur", LIKE),
    ("photo.jpg", "crop=120,120,west&sharpen=20", "crop_sharpen", LIKE),
    ("photo.jpg", "crop=120,120,west&sharpen=20&format=webp&quality=80", "crop_sharpen", ROUGH),
];

#[test]
fn every_format_shows_the_same_scene() {
    let cases = INPUTS.iter().filter(|(input, ..)| !is_not_yet(input));
    agree(cases.map(|(input, expected, tolerance)| (*input, "resize=96,96&format=png", *expected, *tolerance)));
}

#[test]
fn every_parameter_does_what_it_says() {
    agree(RECIPES.iter().copied());
}

#[test]
fn what_is_not_decoded_yet_is_refused_in_words() {
    for (input, ..) in INPUTS.iter().filter(|(input, ..)| is_not_yet(input)) {
        // Its beginning may be that of a format that is understood, and what follows may not be.
        if let Ok(made) = make(input, "resize=96,96&format=png") {
            let (width, height) = (made.width, made.height);
            panic!("{input} is understood now ({width} x {height}): take it out of NOT_YET");
        }
    }
    for beginning in NOT_YET {
        assert!(INPUTS.iter().any(|(input, ..)| input.starts_with(beginning)), "NOT_YET: {beginning} names nothing");
    }
}

#[test]
fn every_file_has_its_case() {
    let known = INPUTS.iter().map(|(input, ..)| *input).chain(RECIPES.iter().map(|(input, ..)| *input));
    let known: Vec<&str> = known.collect();
    for entry in fs::read_dir(folder().join("inputs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&&*name), "{name} stands in no table");
    }
}

#[test]
fn the_facts_agree_with_the_picture() {
    for (input, expected, _) in INPUTS.iter().filter(|(input, ..)| !is_not_yet(input)) {
        let facts = facts_of(input).unwrap_or_else(|e| panic!("{input}: {e}"));
        let picture = Picture::of(&read("expected", &format!("{expected}.png")));
        // A drawing has the size at which it can be drawn, whatever it says of itself.
        if !matches!(facts.format, SourceFormat::Svg | SourceFormat::Pdf) {
            assert_eq!((facts.width as usize, facts.height as usize), picture.size(), "{input}");
        }
        assert_eq!(facts.warning, None, "{input}");
        assert_eq!(facts.animated, input.contains("_animated"), "{input} is animated");
        let transparent = ["alpha", "hard"].iter().any(|word| expected.starts_with(word));
        if facts.format != SourceFormat::Svg {
            assert_eq!(facts.has_alpha, transparent, "{input} has transparency");
        }
    }
}

#[test]
fn a_place_and_a_person_are_known_and_never_passed_on() {
    let facts = facts_of("jpeg_gps.jpg").unwrap();
    let gps = facts.gps.expect("the place is in the file");
    assert!((gps.latitude - 48.137_154).abs() < 1e-4 && (gps.longitude - 11.576_124).abs() < 1e-4, "{gps:?}");
    for format in ["jpg", "png", "webp", "avif"] {
        let made = make("jpeg_gps.jpg", &format!("format={format}")).unwrap();
        for word in ["Gold", "GPS", "Exif", "xpacket", "8BIM"] {
            let found = made.bytes.windows(word.len()).any(|window| window == word.as_bytes());
            // An AVIF may name a box of that kind without having one; ours does not.
            assert!(!found, "{format}: {word} came through");
        }
    }
}

/// Makes every case before it complains, so that one run shows all that is wrong.
fn agree<'a>(cases: impl Iterator<Item = (&'a str, &'a str, &'a str, Apart)>) {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (input, recipe, expected, tolerance) in cases {
        count += 1;
        let named = recipe.split('&').any(|pair| pair.starts_with("format="));
        let recipe = if named { recipe.to_owned() } else { format!("{recipe}&format=png") };
        let made = match make(input, &recipe) {
            Ok(made) => made,
            Err(e) => {
                wrong.push(format!("{input}?{recipe}: {e}"));
                continue;
            }
        };
        let (ours, theirs) = (Picture::of(&made.bytes), Picture::of(&read("expected", &format!("{expected}.png"))));
        assert_eq!((made.width as usize, made.height as usize), ours.size(), "{input}?{recipe}: said and made");
        if ours.size() != theirs.size() {
            wrong.push(format!("{input}?{recipe}: {:?} instead of {:?}", ours.size(), theirs.size()));
            continue;
        }
        let apart = ours.apart(&theirs);
        eprintln!("{input}?{recipe}: {apart}");
        if apart.mean > tolerance.mean || apart.most > tolerance.most {
            wrong.push(format!("{input}?{recipe}: {apart} from {expected}; allowed {tolerance}"));
        }
    }
    assert!(count > 0 && wrong.is_empty(), "{} of {count} disagree:\n{}", wrong.len(), wrong.join("\n"));
}

fn make(input: &str, recipe: &str) -> Result<Rendered, ImageError> {
    // A bare name counts as switched on, as in a URL.
    let pairs = recipe.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let recipe = Recipe::parse(pairs).unwrap_or_else(|e| panic!("{recipe}: {e}"));
    render(&read("inputs", input), &recipe, &Limits::default(), &|| false)
}

fn facts_of(input: &str) -> Result<Facts, ImageError> {
    probe(&read("inputs", input), &Limits::default())
}

fn is_not_yet(input: &str) -> bool {
    NOT_YET.iter().any(|beginning| input.starts_with(beginning))
}

fn read(kind: &str, name: &str) -> Vec<u8> {
    let path = folder().join(kind).join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}
