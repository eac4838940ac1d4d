//! The room as its callers see it: bytes in, facts and bytes out.
//!
//! Every input is made here by an encoder or by hand; nothing is read from disk.

use std::cell::Cell;
use std::io::Cursor;

use exif::Field;
use exif::In;
use exif::Rational;
use exif::Tag;
use exif::Value;
use exif::experimental::Writer;
use image::ColorType;
use image::codecs::bmp::BmpEncoder;
use image::codecs::gif::GifEncoder;
use proptest::prelude::Rng;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestRng;

use super::canvas::Canvas;
use super::*;

fn recipe(query: &str) -> Recipe {
    Recipe::from_canonical(query).unwrap()
}

fn make(source: &[u8], query: &str) -> Rendered {
    render(source, &recipe(query), &Limits::default(), &|| false).unwrap()
}

/// Decodes whatever was rendered, at full size.
fn pixels(bytes: &[u8]) -> Canvas {
    let limits = Limits::default();
    let mut canvas = super::whole(bytes, &limits).unwrap();
    canvas.settle();
    canvas.unpack().unwrap();
    canvas
}

fn pixel(canvas: &Canvas, x: u32, y: u32) -> Vec<u8> {
    let channels = if canvas.has_alpha() { 4 } else { 3 };
    let at = (y * canvas.size().0 + x) as usize * channels;
    canvas.pixels()[at..at + channels].to_vec()
}

fn near(a: &[u8], b: &[u8], tolerance: u8) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= tolerance)
}

/// Something like a photograph: slopes, a little texture, and a red corner at the top left.
fn photo(width: u32, height: u32) -> Canvas {
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..height {
        for x in 0..width {
            if x < width / 4 && y < height / 4 {
                pixels.extend([220, 20, 20]);
            } else {
                let texture = ((x * 7919 + y * 104_729) % 17) as u8;
                pixels.extend([(x * 150 / width) as u8 + texture, (y * 200 / height) as u8 + texture, 90 + texture]);
            }
        }
    }
    Canvas::rgb(width, height, pixels)
}

fn see_through(width: u32, height: u32) -> Canvas {
    let pixels =
        (0..width * height).flat_map(|i| if i % width < width / 2 { [0, 0, 255, 0] } else { [0, 200, 0, 255] });
    Canvas::rgba(width, height, pixels.collect())
}

fn jpeg_of(canvas: &Canvas) -> Vec<u8> {
    jpeg::encode(canvas, 92, 72).unwrap()
}

/// Puts a segment right after the start of a JPEG.
fn with_segment(jpeg: &[u8], marker: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = jpeg[..2].to_vec();
    out.extend([0xFF, marker]);
    out.extend((payload.len() as u16 + 2).to_be_bytes());
    out.extend(payload);
    out.extend(&jpeg[2..]);
    out
}

fn exif_block(fields: &[Field]) -> Vec<u8> {
    let mut writer = Writer::new();
    for field in fields {
        writer.push_field(field);
    }
    let mut block = Cursor::new(Vec::new());
    writer.write(&mut block, false).unwrap();
    block.into_inner()
}

fn field(tag: Tag, value: Value) -> Field {
    Field { tag, ifd_num: In::PRIMARY, value }
}

fn ascii(text: &str) -> Value {
    Value::Ascii(vec![text.as_bytes().to_vec()])
}

fn with_exif(jpeg: &[u8], fields: &[Field]) -> Vec<u8> {
    with_segment(jpeg, 0xE1, &[b"Exif\0\0".to_vec(), exif_block(fields)].concat())
}

fn through(write: impl FnOnce(&mut Cursor<Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    write(&mut bytes);
    bytes.into_inner()
}

/// A small picture in every format that can be decoded.
fn every_format() -> Vec<(&'static str, Vec<u8>)> {
    let photo = photo(160, 120);
    let raw = photo.pixels();
    vec![
        ("jpeg", jpeg_of(&photo)),
        ("png", png::encode(&photo, 72).unwrap()),
        ("webp", webp::encode(&photo, 80).unwrap()),
        ("webp alpha", webp::encode(&see_through(160, 120), 80).unwrap()),
        ("avif", avif::encode(&photo, 60, &Kept::default()).unwrap()),
        ("gif", through(|out| GifEncoder::new(out).encode(raw, 160, 120, ColorType::Rgb8.into()).unwrap())),
        (
            "tiff",
            through(|out| {
                ::tiff::encoder::TiffEncoder::new(out)
                    .unwrap()
                    .write_image::<::tiff::encoder::colortype::RGB8>(160, 120, raw)
                    .unwrap();
            }),
        ),
        ("bmp", through(|out| BmpEncoder::new(out).encode(raw, 160, 120, ColorType::Rgb8.into()).unwrap())),
    ]
}

#[test]
fn sizes_are_exact() {
    let sources = [
        ("wide", jpeg_of(&photo(1200, 900))),
        ("odd", jpeg_of(&photo(1001, 751))),
        ("png", png::encode(&photo(1200, 900), 72).unwrap()),
    ];
    let cases = [
        ("wide", "resize=800,600", (800, 600)),
        ("wide", "resize=400,400", (400, 300)),
        ("wide", "resize=100,", (100, 75)),
        ("wide", "resize=0,90", (120, 90)),
        ("wide", "resize=5000,5000", (1200, 900)),
        ("wide", "resize=1,1", (1, 1)),
        ("wide", "resize=100,75&dpr=2", (200, 150)),
        ("odd", "resize=200,200", (200, 150)),
        ("odd", "resize=100,100", (100, 75)),
        ("png", "resize=333,", (333, 250)),
        ("wide", "crop=300,300", (300, 300)),
        ("wide", "crop=300,300&resize=100,100", (100, 100)),
        ("wide", "crop=2000,1000,smart", (1200, 600)),
        ("wide", "crop=100,50,400,200", (400, 200)),
        ("wide", "crop=100,50,400,200&resize=200,0", (200, 100)),
        ("wide", "rotate=90&resize=400,400", (300, 400)),
        ("odd", "crop=0,0,1001,751&resize=77,", (77, 58)),
    ];
    for (name, query, size) in cases {
        let source = &sources.iter().find(|(n, _)| *n == name).unwrap().1;
        let made = make(source, query);
        assert_eq!((made.width, made.height), size, "{name} {query}");
        assert_eq!(pixels(&made.bytes).size(), size, "{name} {query}: declared, not written");
    }
}

#[test]
fn shrinking_while_decoding_loses_nothing_visible() {
    let picture = photo(1600, 1200);
    let full = pixels(&make(&png::encode(&picture, 72).unwrap(), "resize=250,250&format=png").bytes);
    let fast = pixels(&make(&jpeg::encode(&picture, 100, 72).unwrap(), "resize=250,250&format=png").bytes);
    assert_eq!(full.size(), fast.size());
    let squares = full.pixels().iter().zip(fast.pixels()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / full.pixels().len() as f64;
    // 40 dB of PSNR.
    assert!(mean < 6.5, "{mean}");
}

/// A JPEG of smooth colour, so that what differs is where it lies.
fn coloured_jpeg(width: u32, height: u32, subsampling: turbojpeg::Subsamp) -> Vec<u8> {
    let wave = |x: u32, period: f64| (127.0 + 50.0 * (f64::from(x) / period).sin()) as u8;
    let pixels: Vec<u8> = (0..width * height)
        .flat_map(|i| {
            let (x, y) = (i % width, i / width);
            [wave(x, f64::from(width) / 6.0), wave(y, f64::from(height) / 5.0), wave(x + y, f64::from(width) / 4.0)]
        })
        .collect();
    let mut compressor = turbojpeg::Compressor::new().unwrap();
    compressor.set_quality(97).unwrap();
    compressor.set_subsamp(subsampling).unwrap();
    let (width, height) = (width as usize, height as usize);
    let format = turbojpeg::PixelFormat::RGB;
    compressor
        .compress_to_vec(turbojpeg::Image { pixels: pixels.as_slice(), width, pitch: width * 3, height, format })
        .unwrap()
}

/// What `render` makes, except that planes become pixels as soon as they are there.
fn make_by_pixels(source: &[u8], query: &str, format: OutputFormat) -> Canvas {
    let limits = Limits::default();
    let source = Source::open(source, &limits).unwrap();
    let (width, height) = source.size();
    let recipe = recipe(query);
    let plan = recipe.plan(width, height, Plan::CEILING);
    let mut canvas = source.decode(&plan, &limits, &|| false).unwrap();
    canvas.unpack().unwrap();
    for step in recipe.steps() {
        step.apply(&mut canvas).unwrap();
    }
    canvas.unpack().unwrap();
    pixels(&encode::encode(&mut canvas, format, &encode::Finish::plain(100)).unwrap())
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 / (squares / a.len() as f64).max(1e-9)).log10()
}

#[test]
fn planes_and_pixels_give_the_same_picture() {
    use turbojpeg::Subsamp;
    let kinds = [Subsamp::Sub2x2, Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub1x2, Subsamp::Gray];
    let queries = [
        "",
        "resize=150,",
        "resize=151,",
        "resize=77,500",
        "resize=1,",
        "resize=100,75&flip=h",
        "resize=101,&flip=hv",
        "rotate=90&resize=99,",
        "rotate=180",
        "crop=60,61",
        "crop=60,61,northwest&rotate=270",
        "crop=33,35,151,101&resize=67,",
        "crop=33,35,151,101&flip=v",
        "rotate=10&resize=150,",
        "resize=150,&blur=1",
        "crop=100,100,smart",
    ];
    for kind in kinds {
        let sizes: &[(u32, u32)] = if kind == Subsamp::Sub2x2 { &[(240, 180), (241, 179)] } else { &[(241, 179)] };
        for &(width, height) in sizes {
            let plain = coloured_jpeg(width, height, kind);
            for query in queries {
                let expected = make_by_pixels(&plain, query, OutputFormat::Jpeg);
                let made = make(&plain, &format!("{query}&quality=100"));
                assert_eq!((made.width, made.height), expected.size(), "{kind:?} {query}");
                let likeness = psnr(pixels(&made.bytes).pixels(), expected.pixels());
                assert!(likeness > 38.0, "{kind:?} {width} {query}: {likeness}");
            }
        }
        for value in 1..=8_u16 {
            let source =
                with_exif(&coloured_jpeg(241, 179, kind), &[field(Tag::Orientation, Value::Short(vec![value]))]);
            for query in ["resize=151,", "crop=61,60"] {
                let made = make(&source, &format!("{query}&quality=100"));
                let likeness =
                    psnr(pixels(&made.bytes).pixels(), make_by_pixels(&source, query, OutputFormat::Jpeg).pixels());
                assert!(likeness > 38.0, "{kind:?} orientation {value} {query}: {likeness}");
            }
        }
    }
}

#[test]
fn planes_of_any_small_size_are_encoded() {
    use turbojpeg::Subsamp;
    for kind in [Subsamp::Sub2x2, Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub1x2, Subsamp::Gray] {
        for (width, height) in (1..=40).flat_map(|n| [(n, 1 + n / 13), (n, 41 - n)]) {
            let source = coloured_jpeg(width, height, kind);
            for query in ["format=jpg&quality=100", "format=webp&quality=100", "format=png", "resize=13,13&quality=100"]
            {
                let made = make(&source, query);
                let expected = make_by_pixels(&source, query, made.format);
                let seen = pixels(&made.bytes);
                assert_eq!(seen.size(), expected.size(), "{kind:?} {width} x {height} {query}");
                let likeness = psnr(seen.pixels(), expected.pixels());
                assert!(likeness > 25.0, "{kind:?} {width} x {height} {query}: {likeness}");
            }
        }
        for (width, height) in [(1, 1), (1, 8), (7, 1), (2, 3), (15, 16), (17, 33)] {
            let source = coloured_jpeg(width, height, kind);
            let made = make(&source, "format=avif&quality=100");
            let likeness = psnr(pixels(&made.bytes).pixels(), make_by_pixels(&source, "", made.format).pixels());
            assert!(likeness > 24.0, "{kind:?} {width} x {height} avif: {likeness}");
        }
    }
}

#[test]
fn grey_stays_grey() {
    let grey = coloured_jpeg(200, 150, turbojpeg::Subsamp::Gray);
    let colour = coloured_jpeg(200, 150, turbojpeg::Subsamp::Sub2x2);
    for (source, query) in [(&grey, "resize=100,"), (&colour, "grayscale=true&resize=100,")] {
        let jpeg = make(source, query).bytes;
        let header = turbojpeg::read_header(&jpeg).unwrap();
        assert_eq!((header.subsamp, header.width), (turbojpeg::Subsamp::Gray, 100));
        let png = make(source, &format!("{query}&format=png")).bytes;
        assert_eq!(png[25], 0, "the PNG's colour type");
        for format in ["webp", "avif", "png", "jpg"] {
            let made = pixels(&make(source, &format!("{query}&format={format}")).bytes);
            let likeness = psnr(made.pixels(), pixels(&png).pixels());
            assert!(likeness > 35.0, "{format} {likeness}");
        }
    }
    let png = make(&grey, "resize=50,&format=png").bytes;
    assert_eq!(make(&png, "resize=25,").bytes[25], 0, "a grey PNG's colour type");
}

#[test]
fn nothing_exceeds_the_maximum() {
    assert_eq!(
        {
            let made = make(&jpeg_of(&photo(3000, 1000)), "");
            (made.width, made.height)
        },
        (2048, 683)
    );
    assert_eq!(
        {
            let made = make(&jpeg_of(&photo(1000, 3000)), "dpr=4&resize=2048,1536");
            (made.width, made.height)
        },
        (512, 1536)
    );
}

#[test]
fn all_eight_orientations_end_upright() {
    let plain = jpeg_of(&photo(96, 64));
    for value in 1..=8_u16 {
        let source = with_exif(&plain, &[field(Tag::Orientation, Value::Short(vec![value]))]);
        let facts = probe(&source, &Limits::default()).unwrap();
        let upright = if value >= 5 { (64, 96) } else { (96, 64) };
        assert_eq!((facts.width, facts.height), upright, "{value}");
        let made = make(&source, "resize=48,48");
        assert_eq!((made.width, made.height), if value >= 5 { (32, 48) } else { (48, 32) }, "{value}");
        let narrow = make(&source, "resize=48,24");
        assert_eq!((narrow.width, narrow.height), if value >= 5 { (16, 24) } else { (36, 24) }, "{value}");
        // Where the red corner of the stored top left must be seen.
        let (right, bottom) = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0), (1, 1), (0, 1)][usize::from(value) - 1];
        let canvas = pixels(&made.bytes);
        let at = |far: u32, side: u32| if far == 1 { side - 3 } else { 2 };
        let seen = pixel(&canvas, at(right, made.width), at(bottom, made.height));
        assert!(near(&seen, &[220, 20, 20], 12), "{value}: {seen:?}");
        let across = pixel(&canvas, at(1 - right, made.width), at(1 - bottom, made.height));
        assert!(across[2] > 60, "{value}: {across:?}");
    }
    let words =
        probe(&with_exif(&plain, &[field(Tag::Orientation, Value::Short(vec![6]))]), &Limits::default()).unwrap();
    assert_eq!(words.orientation.as_deref(), Some("Rotate 90 CW"));
}

#[test]
fn transparency_meets_its_background() {
    let source = png::encode(&see_through(64, 32), 72).unwrap();
    let cases: [(&str, Vec<u8>, Vec<u8>); 5] = [
        ("format=jpg", vec![255, 255, 255], vec![0, 200, 0]),
        ("format=jpg&bgcolor=f00000", vec![240, 0, 0], vec![0, 200, 0]),
        ("bgcolor=f00000&resize=32,16", vec![240, 0, 0], vec![0, 200, 0]),
        ("resize=32,16", vec![0, 0, 0, 0], vec![0, 200, 0, 255]),
        ("format=webp&resize=32,16", vec![0, 0, 0, 0], vec![0, 200, 0, 255]),
    ];
    for (query, clear, solid) in cases {
        let made = make(&source, query);
        let canvas = pixels(&made.bytes);
        let left = pixel(&canvas, 2, 8);
        let right = pixel(&canvas, made.width - 3, 8);
        let ok = if clear.len() == 4 { left[3] == 0 } else { near(&left, &clear, 4) };
        assert!(ok && near(&right, &solid, 6), "{query}: {left:?} {right:?}");
    }
    assert_eq!(make(&source, "").format, OutputFormat::Png);
    assert_eq!(make(&jpeg_of(&photo(20, 20)), "").format, OutputFormat::Jpeg);
}

#[test]
fn every_format_becomes_every_format() {
    for (name, source) in every_format() {
        for format in OutputFormat::ALL {
            let made =
                render(&source, &recipe("resize=80,60").with_format(format), &Limits::default(), &|| false).unwrap();
            let facts = probe(&made.bytes, &Limits::default()).unwrap();
            assert_eq!(facts.format.mime(), format.mime(), "{name}");
            assert_eq!((facts.width, facts.height, facts.warning), (80, 60, None), "{name} to {format:?}");
            if !name.contains("alpha") {
                let seen = pixel(&pixels(&made.bytes), 5, 5);
                assert!(near(&seen[..3], &[220, 20, 20], 25), "{name} to {format:?}: {seen:?}");
            }
        }
    }
}

#[test]
fn quality_costs_bytes() {
    let source = jpeg_of(&photo(400, 300));
    for format in ["jpg", "webp", "avif"] {
        let sizes: Vec<usize> =
            [10, 50, 95].map(|q| make(&source, &format!("quality={q}&format={format}")).bytes.len()).into();
        assert!(sizes.is_sorted() && sizes[0] < sizes[2], "{format}: {sizes:?}");
    }
}

#[test]
fn a_wide_gamut_is_converted() {
    let icc = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let plain = jpeg_of(&Canvas::rgb(64, 64, [60, 200, 60].repeat(64 * 64)));
    let tagged = with_segment(&plain, 0xE2, &[b"ICC_PROFILE\0\x01\x01".to_vec(), icc.clone()].concat());
    let before = pixel(&pixels(&make(&plain, "format=png").bytes), 9, 9);
    let after = pixel(&pixels(&make(&tagged, "format=png").bytes), 9, 9);
    assert!(near(&before, &[60, 200, 60], 3), "{before:?}");
    assert!(after[0] + 20 < before[0] && after[1] > before[1] + 1, "{after:?}");

    let mut tagged = Vec::new();
    let mut info = ::png::Info::with_size(8, 8);
    info.color_type = ::png::ColorType::Rgb;
    info.bit_depth = ::png::BitDepth::Eight;
    info.icc_profile = Some(icc.into());
    let mut writer = ::png::Encoder::with_info(&mut tagged, info).unwrap().write_header().unwrap();
    writer.write_image_data(&[60, 200, 60].repeat(64)).unwrap();
    writer.finish().unwrap();
    let after = pixel(&pixels(&make(&tagged, "").bytes), 3, 3);
    assert!(after[0] < 40 && after[1] > 201, "{after:?}");
}

#[test]
fn cmyk_looks_like_itself() {
    // libjpeg writes an Adobe segment with CMYK; by custom its ink is inverted.
    let inverted: Vec<u8> =
        (0..32 * 32).flat_map(|i| if i % 32 < 16 { [255 - 255, 255, 255, 255] } else { [255, 255, 255, 55] }).collect();
    let mut compressor = turbojpeg::Compressor::new().unwrap();
    compressor.set_quality(95).unwrap();
    compressor.set_colorspace(turbojpeg::Colorspace::YCCK).unwrap();
    let image = turbojpeg::Image {
        pixels: inverted.as_slice(),
        width: 32,
        pitch: 32 * 4,
        height: 32,
        format: turbojpeg::PixelFormat::CMYK,
    };
    let source = compressor.compress_to_vec(image).unwrap();
    let canvas = pixels(&make(&source, "format=png").bytes);
    let (cyan, dark) = (pixel(&canvas, 3, 9), pixel(&canvas, 29, 9));
    assert!(near(&cyan, &[0, 255, 255], 12), "{cyan:?}");
    assert!(near(&dark, &[55, 55, 55], 12), "{dark:?}");
}

#[test]
fn unusual_pngs() {
    let encode = |color, depth, data: &[u8], palette: Option<Vec<u8>>, trns: Option<Vec<u8>>| {
        let mut bytes = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut bytes, 4, 2);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        if let Some(trns) = trns {
            encoder.set_trns(trns);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    };
    use ::png::BitDepth as Bits;
    use ::png::ColorType as Color;
    let sixteen: Vec<u8> = [0x80, 0x12, 0x40, 0x34, 0x20, 0x56].repeat(8);
    let cases = [
        (encode(Color::Rgb, Bits::Sixteen, &sixteen, None, None), vec![0x80, 0x40, 0x20], false),
        (
            encode(Color::Indexed, Bits::Two, &[0x55, 0x55], Some(vec![9, 9, 9, 10, 20, 30]), None),
            vec![10, 20, 30],
            false,
        ),
        (
            encode(Color::Indexed, Bits::Two, &[0x55, 0x55], Some(vec![9, 9, 9, 10, 20, 30]), Some(vec![255, 7])),
            vec![10, 20, 30, 7],
            true,
        ),
        (encode(Color::Grayscale, Bits::One, &[0xF0, 0xF0], None, None), vec![255, 255, 255], false),
        (encode(Color::GrayscaleAlpha, Bits::Eight, &[77, 200].repeat(8), None, None), vec![77, 77, 77, 200], true),
    ];
    for (source, expected, alpha) in cases {
        assert_eq!(probe(&source, &Limits::default()).unwrap().has_alpha, alpha);
        let seen = pixel(&pixels(&make(&source, "").bytes), 1, 1);
        assert!(near(&seen, &expected, 1), "{seen:?} {expected:?}");
    }
}

#[test]
fn animations_give_their_first_frame() {
    let frames = [[200, 10, 10, 255], [10, 200, 10, 255]]
        .map(|color| image::Frame::new(image::RgbaImage::from_pixel(20, 10, image::Rgba(color))));
    let gif = through(|out| GifEncoder::new(out).encode_frames(frames).unwrap());
    let facts = probe(&gif, &Limits::default()).unwrap();
    assert!(facts.animated && !probe(&every_format()[5].1, &Limits::default()).unwrap().animated);
    let canvas = pixels(&make(&gif, "format=png").bytes);
    assert!(near(&pixel(&canvas, 5, 5)[..3], &[200, 10, 10], 8));
}

#[test]
fn facts_of_a_photograph() {
    let degrees = |d: u32, m: u32, s: u32| {
        Value::Rational([(d, 1), (m, 1), (s, 100)].map(|(num, denom)| Rational { num, denom }).into())
    };
    let ratio = |num, denom| Value::Rational(vec![Rational { num, denom }]);
    let source = with_exif(
        &jpeg_of(&photo(40, 30)),
        &[
            field(Tag::Make, ascii("Canon")),
            field(Tag::Model, ascii("EOS R5 ")),
            field(Tag::DateTimeOriginal, ascii("2024:05:17 18:03:09")),
            field(Tag::ColorSpace, Value::Short(vec![0xFFFF])),
            field(Tag::ExposureTime, ratio(1, 125)),
            field(Tag::FNumber, ratio(28, 10)),
            field(Tag::PhotographicSensitivity, Value::Short(vec![400])),
            field(Tag::FocalLength, ratio(50, 1)),
            field(Tag::LensModel, ascii("RF50mm")),
            field(Tag::GPSLatitudeRef, ascii("S")),
            field(Tag::GPSLatitude, degrees(33, 51, 2500)),
            field(Tag::GPSLongitudeRef, ascii("E")),
            field(Tag::GPSLongitude, degrees(151, 12, 4000)),
            field(Tag::GPSAltitude, ratio(585, 10)),
        ],
    );
    let xmp = b"http://ns.adobe.com/xap/1.0/\0<x><dc:title><rdf:Alt><rdf:li>Opening</rdf:li></rdf:Alt></dc:title></x>";
    let source = with_segment(&source, 0xE1, xmp);
    let facts = probe(&source, &Limits::default()).unwrap();
    assert_eq!(facts.make.as_deref(), Some("Canon"));
    assert_eq!(facts.model.as_deref(), Some("EOS R5"));
    assert_eq!(facts.captured_at.as_deref(), Some("2024-05-17T18:03:09"));
    assert_eq!(facts.color_space.as_deref(), Some("Uncalibrated"));
    assert_eq!(facts.orientation, None);
    let gps = facts.gps.unwrap();
    assert!(
        (gps.latitude + 33.856_944).abs() < 1e-4
            && (gps.longitude - 151.211_111).abs() < 1e-4
            && gps.altitude == Some(58.5)
    );
    for (name, value) in [
        ("ExposureTime", "1/125"),
        ("FNumber", "2.8"),
        ("ISO", "400"),
        ("FocalLength", "50.0 mm"),
        ("LensModel", "RF50mm"),
        ("Title", "Opening"),
    ] {
        assert_eq!(facts.exif.get(name).map(String::as_str), Some(value), "{name}");
    }
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts);

    // None of it leaves with a rendered picture.
    for format in ["jpg", "png", "webp", "avif"] {
        let made = probe(&make(&source, &format!("format={format}")).bytes, &Limits::default()).unwrap();
        assert!(made.gps.is_none() && made.make.is_none() && made.exif.is_empty(), "{format}");
    }
}

#[test]
fn metadata_leaves_only_when_asked() {
    let degrees = |d| Value::Rational([d, 0, 0].map(|num| Rational { num, denom: 1 }).into());
    let note = Value::Undefined(vec![7; 5000], 0);
    let plain = with_exif(
        &jpeg_of(&photo(40, 30)),
        &[
            field(Tag::Make, ascii("Canon")),
            field(Tag::Orientation, Value::Short(vec![6])),
            field(Tag::Artist, ascii("Ana")),
            field(Tag::DateTimeOriginal, ascii("2024:05:17 18:03:09")),
            field(Tag::ColorSpace, Value::Short(vec![2])),
            field(Tag::MakerNote, note),
            field(Tag::GPSLatitudeRef, ascii("S")),
            field(Tag::GPSLatitude, degrees(33)),
            field(Tag::GPSLongitudeRef, ascii("E")),
            field(Tag::GPSLongitude, degrees(151)),
        ],
    );
    let packet = b"<x tiff:Orientation=\"6\" photoshop:City=\"Bern\"><dc:rights><rdf:Alt><rdf:li>(c) Ana &amp; Co</rdf:li></rdf:Alt></dc:rights></x>";
    let xmp = [b"http://ns.adobe.com/xap/1.0/\0".as_slice(), packet].concat();
    let source = with_segment(&plain, 0xE1, &xmp);
    for format in OutputFormat::ALL {
        let of = |query: &str| {
            let made = make(&source, &format!("{query}&format={}", format.extension()));
            // The picture itself must be what it would be without.
            let bare = make(&source, &format!("format={}", format.extension()));
            assert_eq!(pixels(&made.bytes).pixels(), pixels(&bare.bytes).pixels(), "{format:?} {query}");
            assert_eq!((made.width, made.height), (30, 40));
            assert_eq!(image::guess_format(&made.bytes).unwrap().to_mime_type(), format.mime());
            (probe(&made.bytes, &Limits::default()).unwrap(), made.bytes)
        };
        let (bare, _) = of("strip=true");
        assert!(bare.gps.is_none() && bare.make.is_none() && bare.exif.is_empty(), "{format:?}: {bare:?}");

        let (named, bytes) = of("keep=copyright");
        let texts: Vec<_> = named.exif.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(texts, [("Artist", "Ana"), ("Copyright", "(c) Ana & Co")], "{format:?}");
        assert!(named.gps.is_none() && named.make.is_none() && named.captured_at.is_none(), "{format:?}");
        assert!(!bytes.windows(4).any(|w| w == b"Bern"), "{format:?}");

        let (all, bytes) = of("keep=all");
        assert_eq!((all.width, all.height, all.warning), (30, 40, None), "{format:?} is not turned twice");
        assert_eq!(all.gps.map(|gps| (gps.latitude, gps.longitude)), Some((-33.0, 151.0)), "{format:?}");
        assert_eq!((all.make.as_deref(), all.color_space), (Some("Canon"), None), "{format:?}");
        assert_eq!(all.captured_at.as_deref(), Some("2024-05-17T18:03:09"), "{format:?}");
        assert_eq!(all.exif.get("City").map(String::as_str), Some("Bern"), "{format:?}");
        assert!(!bytes.windows(16).any(|w| w == [7; 16]), "{format:?}: the maker's notes");
        if format == OutputFormat::Jpeg {
            let exif = exif::Reader::new().read_from_container(&mut Cursor::new(&bytes)).unwrap();
            let turn = exif.get_field(Tag::Orientation, In::PRIMARY).unwrap();
            assert_eq!(turn.value.get_uint(0), Some(1));
        }
        if format == OutputFormat::Png {
            let mut reader = ::png::Decoder::new(Cursor::new(&bytes)).read_info().unwrap();
            let mut rows = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut rows).unwrap();
        }
    }
    // Transparency and metadata share WebP's extended header.
    let webp = make(&with_alpha_and_author(), "keep=copyright&format=webp");
    let facts = probe(&webp.bytes, &Limits::default()).unwrap();
    assert!(facts.has_alpha);
    assert_eq!(facts.exif.get("Artist").map(String::as_str), Some("Ana"));
    image::load_from_memory(&webp.bytes).unwrap();
    // Neither too much nor damaged metadata makes a picture fail.
    let long =
        with_segment(&plain, 0xE1, &[b"http://ns.adobe.com/xap/1.0/\0".as_slice(), &vec![b' '; 65_400]].concat());
    for format in OutputFormat::ALL {
        make(&long, &format!("keep=all&format={}", format.extension()));
    }
    let torn = with_segment(&jpeg_of(&photo(40, 30)), 0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x01");
    assert_eq!(make(&torn, "keep=all").bytes, make(&torn, "").bytes);
}

/// A PNG with transparency whose author stands in a text chunk.
fn with_alpha_and_author() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, 4, 2);
    encoder.set_color(::png::ColorType::Rgba);
    encoder.add_text_chunk("Author".to_owned(), "Ana".to_owned()).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[[9, 9, 9, 0], [200, 10, 10, 255]].concat().repeat(4)).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn auto_is_the_smallest_that_looks_the_same() {
    let source = jpeg_of(&photo(400, 300));
    let clear = png::encode(&see_through(200, 100), 72).unwrap();
    for format in ["jpg", "webp", "avif"] {
        let sizes: Vec<usize> = ["auto,50", "auto,70", "auto,85"]
            .map(|quality| {
                let query = format!("quality={quality}&format={format}");
                let made = make(&source, &query);
                assert_eq!((made.width, made.height), (400, 300));
                assert_eq!(made.bytes, make(&source, &query).bytes, "{format}: not the same twice");
                made.bytes.len()
            })
            .into();
        assert!(sizes.is_sorted() && sizes[0] * 5 < sizes[2] * 4, "{format}: {sizes:?}");
        let plain = make(&clear, &format!("quality=auto&format={format}"));
        assert_eq!(pixels(&plain.bytes).has_alpha(), format != "jpg", "{format}");
        // A picture too small to be judged still comes out.
        for side in [1, 7, 9] {
            let small = make(&source, &format!("quality=auto&resize={side},{side}&format={format}"));
            assert_eq!(small.width, side, "{format}");
        }
    }
    let png = make(&source, "quality=auto&format=png").bytes;
    assert_eq!(png, make(&source, "format=png").bytes);
    let asked = Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 5
    };
    assert_eq!(render(&source, &recipe("quality=auto"), &Limits::default(), &cancelled), Err(ImageError::Cancelled));
}

#[test]
fn bombs_are_refused_by_their_header() {
    let mut png = png::encode(&photo(8, 8), 72).unwrap();
    png[16..24].copy_from_slice(&[60_000_u32.to_be_bytes(), 60_000_u32.to_be_bytes()].concat());
    let mut jpeg = jpeg_of(&photo(8, 8));
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    let mut gif = every_format()[5].1.clone();
    gif[6..10].fill(0xFF);
    let mut bmp = every_format()[7].1.clone();
    bmp[18..26].copy_from_slice(&[60_000_u32.to_le_bytes(), 60_000_u32.to_le_bytes()].concat());
    for (name, source) in [("png", png), ("jpeg", jpeg), ("gif", gif), ("bmp", bmp)] {
        let refused = probe(&source, &Limits::default()).unwrap_err();
        assert!(matches!(refused, ImageError::TooLarge { .. }), "{name}: {refused:?}");
        assert!(render(&source, &recipe(""), &Limits::default(), &|| false).is_err(), "{name}");
    }
    let short = Limits { max_side: 150, ..Limits::default() };
    for (name, source) in every_format() {
        assert!(probe(&source, &short).is_err(), "{name}");
    }
    let small = Limits { max_pixels: 100, ..Limits::default() };
    for (name, source) in every_format() {
        assert!(probe(&source, &small).is_err(), "{name}");
        assert!(render(&source, &recipe(""), &small, &|| false).is_err(), "{name}");
    }
}

#[test]
fn what_is_no_picture() {
    for source in [&b""[..], b"\0", b"hello, this is a letter", b"<note xmlns='http://www.w3.org/2000/svg'/>", b"%!PS"]
    {
        assert_eq!(probe(source, &Limits::default()).unwrap_err(), ImageError::NotAnImage);
    }
    assert!(matches!(probe(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", &Limits::default()), Err(ImageError::Damaged(_))));
    assert!(matches!(probe(b"\xff\xd8\xff\xe0\0\x10JFIF", &Limits::default()), Err(ImageError::Damaged(_))));
}

#[test]
fn cancelling_stops_between_steps() {
    let source = jpeg_of(&photo(64, 64));
    let asked = Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    assert_eq!(render(&source, &recipe("blur=3"), &Limits::default(), &cancelled), Err(ImageError::Cancelled));
    assert_eq!(render(&source, &recipe(""), &Limits::default(), &|| true), Err(ImageError::Cancelled));
}

#[test]
fn a_missing_tail_is_a_warning() {
    for (name, source) in every_format().into_iter().take(3) {
        let cut = &source[..source.len() * 3 / 4];
        assert_eq!(probe(&source, &Limits::default()).unwrap().warning, None, "{name}");
        assert!(probe(cut, &Limits::default()).unwrap().warning.is_some(), "{name}");
        let made = render(cut, &recipe("format=png"), &Limits::default(), &|| false);
        assert_eq!(made.map(|m| (m.width, m.height)), Ok((160, 120)), "{name}");
    }
    let (_, avif) = &every_format()[4];
    let cut = probe(&avif[..avif.len() * 3 / 4], &Limits::default());
    assert!(cut.as_ref().map_or(true, |facts| facts.warning.is_some()), "{cut:?}");
    // A movie behind the picture is no damage; a tail of zeros is.
    let source = jpeg_of(&photo(64, 64));
    let motion = [source.clone(), b"\0\0\0\x18ftypmp42....".to_vec()].concat();
    assert_eq!(probe(&motion, &Limits::default()).unwrap().warning, None);
    let mut torn = source.clone();
    torn[source.len() / 2..].fill(0);
    assert!(probe(&torn, &Limits::default()).unwrap().warning.is_some());
}

/// Neither function may panic or hang; what they answer is their business.
fn survive(source: &[u8]) {
    let limits = Limits { max_pixels: 4_000_000, max_decoded_bytes: 64 << 20, ..Limits::default() };
    let _ = probe(source, &limits);
    let _ = render(source, &recipe("resize=40,40&format=png"), &limits, &|| false);
}

#[test]
fn truncation_never_panics() {
    for (_, source) in every_format() {
        for part in 0..16 {
            survive(&source[..source.len() * part / 16]);
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for (_, source) in every_format() {
        for _ in 0..500 {
            let mut broken = source.clone();
            for _ in 0..=rng.next_u32() % 4 {
                // Headers are where most of the trouble is.
                let reach = if rng.next_u32().is_multiple_of(2) { broken.len() } else { broken.len().min(200) };
                let at = rng.next_u32() as usize % reach;
                broken[at] = rng.next_u32() as u8;
            }
            survive(&broken);
        }
    }
}

#[test]
fn a_video_container_is_measured() {
    let number = |n: u32| n.to_be_bytes().to_vec();
    let atom = |kind: &[u8; 4], body: Vec<u8>| [number(body.len() as u32 + 8), kind.to_vec(), body].concat();
    // Version 0 headers: times, timescale 1000, 2500 ticks long; 640 x 360, turned a quarter.
    let mvhd =
        atom(b"mvhd", [number(0), number(3_800_000_000), number(0), number(1000), number(2500), vec![0; 80]].concat());
    let tkhd = atom(
        b"tkhd",
        [
            number(7),
            number(0),
            number(0),
            number(1),
            number(0),
            number(2500),
            vec![0; 52],
            number(640 << 16),
            number(360 << 16),
        ]
        .concat(),
    );
    let trak = atom(
        b"trak",
        [tkhd, atom(b"mdia", atom(b"hdlr", [number(0), number(0), b"vide".to_vec(), vec![0; 13]].concat()))].concat(),
    );
    let movie =
        [atom(b"ftyp", b"isom\0\0\0\0isom".to_vec()), atom(b"moov", [mvhd, trak].concat()), atom(b"mdat", vec![0; 64])]
            .concat();
    let facts = container::probe_video(&movie).unwrap();
    assert_eq!((facts.width, facts.height, facts.duration_seconds), (360, 640, 2.5));
    assert_eq!(facts.captured_at.as_deref().map(|t| &t[..5]), Some("2024-"));
    for cut in 0..movie.len() {
        container::probe_video(&movie[..cut]);
    }
    assert_eq!(container::probe_video(&jpeg_of(&photo(8, 8))), None);
    assert_eq!(container::probe_video(b"not a movie"), None);
}

#[test]
fn a_base_is_made_of_large_pictures_and_all_leave_an_impression() {
    let limits = Limits::default();
    let source = with_exif(&jpeg_of(&photo(400, 200)), &[field(Tag::Orientation, Value::Short(vec![6]))]);
    let large = base(&source, 100, &limits).unwrap();
    assert_eq!(large.picture.map(|p| (p.width, p.height, p.format)), Some((50, 100, OutputFormat::Jpeg)));
    let small = base(&source, 400, &limits).unwrap();
    assert_eq!(small.picture, None);
    for impression in [large.impression, small.impression] {
        assert!(!impression.thumbhash.is_empty());
        assert!((2..=5).contains(&impression.colors.len()), "{impression:?}");
        let sum: f64 = impression.colors.iter().map(|c| c.share).sum();
        assert!((0.8..=1.0).contains(&sum), "{impression:?}");
    }
}
