//! HEIC from files of other makers, and from containers put together here.
//!
//! The files are in `tests/media/heic`, each made from the scene that `scene` computes, too.

use proptest::prelude::Rng;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestRng;

use super::*;
use crate::media::imaging::Recipe;
use crate::media::imaging::SourceFormat;
use crate::media::imaging::decode::Source;
use crate::media::imaging::probe;
use crate::media::imaging::render;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/media/heic/", $name)).as_slice()
    };
}

const PLAIN: &[u8] = file!("plain.heic");
const GRID: &[u8] = file!("grid.heic");
const ALPHA: &[u8] = file!("alpha.heic");
const EXIF_P3: &[u8] = file!("exif-p3.heic");

/// Slopes, a light checkerboard, and a red corner at the top left, as `make.py` has it.
fn scene(width: u32, height: u32) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let check = (x / 16 + y / 16) % 2 * 24;
            if x < width / 4 && y < height / 4 {
                pixels.extend([220, 20, 20]);
            } else {
                pixels
                    .extend([30 + x * 150 / width + check, 40 + y * 140 / height + check, 90 + check].map(|v| v as u8));
            }
        }
    }
    pixels
}

fn decoded(file: &[u8], shrink: f64) -> Canvas {
    let limits = Limits::default();
    let source = Source::open(file, &limits).unwrap();
    let (width, height) = source.size();
    let side = |length: u32| (f64::from(length) * shrink) as u32;
    let plan = Recipe::default().plan(width, height, (side(width), side(height)));
    source.decode(&plan, &limits, &|| false).unwrap()
}

/// As it is shown, at full size.
fn shown(file: &[u8]) -> Canvas {
    let mut canvas = decoded(file, 1.0);
    canvas.settle();
    canvas
}

fn opened(file: &[u8]) -> Result<(), ImageError> {
    Heic::open(file, &Limits::default()).map(|_| ())
}

/// In decibels.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (65_025.0 / (sum / a.len() as f64).max(1e-9)).log10()
}

/// The colours without transparency.
fn rgb(canvas: &Canvas) -> Vec<u8> {
    let channels = if canvas.has_alpha() { 4 } else { 3 };
    canvas.pixels().chunks_exact(channels).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

#[test]
fn every_kind_looks_like_the_scene() {
    let cases = [
        ("8 bits, 4:2:0", PLAIN, (256, 192), 41.0),
        ("limited range, BT.709", file!("limited-709.heic"), (256, 192), 41.0),
        ("4:2:2", file!("422.heic"), (256, 192), 44.0),
        ("4:4:4", file!("444.heic"), (256, 192), 48.0),
        ("10 bits", file!("10-bit.heic"), (256, 192), 41.0),
        ("transparency", ALPHA, (256, 192), 41.0),
        ("a grid with its excess cut off", GRID, (250, 180), 38.0),
        ("odd sides by a cut", file!("odd.heic"), (201, 151), 38.0),
        ("a thumbnail beside it", file!("thumbnail.heic"), (768, 576), 44.0),
    ];
    for (name, file, size, least) in cases {
        let canvas = shown(file);
        assert_eq!(canvas.size(), size, "{name}");
        let likeness = psnr(&rgb(&canvas), &scene(size.0, size.1));
        assert!(likeness > least, "{name}: {likeness} dB");
        let facts = probe(file, &Limits::default()).unwrap();
        let expected = (SourceFormat::Heic, size.0, size.1, file == ALPHA, false, None);
        let seen = (facts.format, facts.width, facts.height, facts.has_alpha, facts.animated, facts.warning);
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn gray_is_gray() {
    let green: Vec<u8> = scene(256, 192).as_chunks::<3>().0.iter().flat_map(|pixel| [pixel[1]; 3]).collect();
    assert!(psnr(shown(file!("gray.heic")).pixels(), &green) > 40.0);
}

#[test]
fn turns_of_the_container_count() {
    let turned = |moves: &dyn Fn(&mut Canvas)| {
        let mut canvas = Canvas::rgb(256, 192, scene(256, 192));
        moves(&mut canvas);
        (canvas.size(), canvas.pixels().to_vec())
    };
    let cases = [
        ("turned", file!("turned.heic"), turned(&|canvas| canvas.quarter_turns(1))),
        ("mirrored", file!("mirrored.heic"), turned(&|canvas| canvas.mirror(true, false))),
        (
            "both",
            file!("turned-mirrored.heic"),
            turned(&|canvas| {
                canvas.mirror(true, false);
                canvas.quarter_turns(1);
            }),
        ),
    ];
    for (name, file, (size, pixels)) in cases {
        let canvas = shown(file);
        assert_eq!(canvas.size(), size, "{name}");
        let likeness = psnr(canvas.pixels(), &pixels);
        assert!(likeness > 41.0, "{name}: {likeness} dB");
        let facts = probe(file, &Limits::default()).unwrap();
        assert_eq!((facts.width, facts.height), size, "{name}");
        // EXIF says how it was held, and turns nothing.
        assert!(facts.orientation.is_some(), "{name}");
    }
    // Each of the eight, put together from its moves.
    for first in 1..=8 {
        for second in 1..=8 {
            let (one, two) = (Orientation::from_exif(first), Orientation::from_exif(second));
            let pixels: Vec<u8> = (0..18).collect();
            let settle = |canvas: Canvas, orientation| {
                let mut canvas = canvas.decoded_from((1, 1), orientation, Profile::Srgb);
                canvas.settle();
                canvas
            };
            let apart = settle(settle(Canvas::rgb(3, 2, pixels.clone()), one), two);
            let joined = settle(Canvas::rgb(3, 2, pixels), one.then(two));
            assert_eq!((apart.size(), apart.pixels()), (joined.size(), joined.pixels()), "{first} {second}");
        }
    }
}

#[test]
fn transparency_is_decoded() {
    let canvas = shown(ALPHA);
    for (at, pixel) in canvas.pixels().as_chunks::<4>().0.iter().enumerate() {
        let x = at % 256;
        let expected = if x < 128 { 0 } else { 255 };
        assert!((124..132).contains(&x) || pixel[3].abs_diff(expected) < 4, "{x}: {pixel:?}");
    }
}

#[test]
fn shrinking_is_a_mean() {
    for (name, file) in
        [("whole", PLAIN), ("grid", GRID), ("cut", file!("odd.heic")), ("10 bits", file!("10-bit.heic"))]
    {
        let full = decoded(file, 1.0);
        for by in [2_u32, 4, 8] {
            let small = decoded(file, 0.99 / (f64::from(by) * 1.45));
            let (width, height) = (full.size().0.div_ceil(by), full.size().1.div_ceil(by));
            assert_eq!(small.size(), (width, height), "{name} by {by}");
            let mut mean = Vec::new();
            for y in 0..height {
                for x in 0..width {
                    for channel in 0..3 {
                        let under = (0..by * by).map(|at| {
                            let (x, y) =
                                ((x * by + at % by).min(full.size().0 - 1), (y * by + at / by).min(full.size().1 - 1));
                            u32::from(full.pixels()[((y * full.size().0 + x) * 3 + channel) as usize])
                        });
                        mean.push((under.sum::<u32>() / (by * by)) as u8);
                    }
                }
            }
            let likeness = psnr(small.pixels(), &mean);
            assert!(likeness > 38.0, "{name} by {by}: {likeness} dB");
        }
    }
}

#[test]
fn a_thumbnail_serves_what_is_small() {
    let file = file!("thumbnail.heic");
    // 192 pixels wide; the picture itself has 768.
    for (wanted, width) in [(20.0, 96), (60.0, 192), (100.0, 192), (200.0, 384)] {
        let canvas = decoded(file, wanted / 768.0);
        // The smallest denominator is 8, of which 96 pixels remain; the thumbnail is cheaper.
        let width = if width == 96 { 192 } else { width };
        assert_eq!(canvas.size().0, width, "{wanted}");
        assert!((canvas.scale().0 - f64::from(width) / 768.0).abs() < 1e-9);
    }
    let small = Canvas::rgb(192, 144, scene(192, 144));
    assert!(psnr(decoded(file, 60.0 / 768.0).pixels(), small.pixels()) > 20.0);
}

#[test]
fn metadata_and_profile_come_along() {
    let facts = probe(EXIF_P3, &Limits::default()).unwrap();
    assert_eq!((facts.make.as_deref(), facts.model.as_deref()), (Some("Cloakroom"), Some("Scene")));
    assert_eq!(facts.exif.get("Title").map(String::as_str), Some("Opening"));
    let icc = file!("display-p3.icc").to_vec();
    let limits = Limits::default();
    let (_, profile) = Heic::open(EXIF_P3, &limits).unwrap().decode(1, &limits).unwrap();
    assert_eq!(profile, Profile::Icc(icc.clone()));
    let recipe = Recipe::from_canonical("format=png").unwrap();
    let made = render(EXIF_P3, &recipe, &limits, &|| false).unwrap();
    let mut expected = scene(256, 192);
    Profile::Icc(icc).convert(&mut expected, 3);
    assert!(psnr(shown(&made.bytes).pixels(), &expected) > 40.0);
    // Without a profile, the code points of the container stand for one.
    let (_, profile) = Heic::open(PLAIN, &limits).unwrap().decode(1, &limits).unwrap();
    assert_eq!(profile, Profile::CodePoints(1, 13));
}

/// What `container` puts together.
#[derive(Clone, Default)]
struct Plan {
    items: Vec<(u32, [u8; 4], Data)>,
    properties: Vec<(&'static [u8; 4], Vec<u8>)>,
    /// Item, and numbers of properties from 1; a negative one is essential.
    uses: Vec<(u32, Vec<i8>)>,
    references: Vec<(&'static [u8; 4], u32, Vec<u32>)>,
    primary: u32,
}

#[derive(Clone)]
enum Data {
    File(Vec<u8>),
    Idat(Vec<u8>),
    /// Offset and length as they stand in the table.
    Lie(u8, u64, u64),
}

fn number(n: usize) -> Vec<u8> {
    (n as u32).to_be_bytes().to_vec()
}

fn atom(kind: &[u8], body: &[u8]) -> Vec<u8> {
    [number(body.len() + 8).as_slice(), kind, body].concat()
}

fn full_atom(kind: &[u8], version: u8, body: &[u8]) -> Vec<u8> {
    atom(kind, &[&[version, 0, 0, 0], body].concat())
}

/// Writes a file of the plan, with its `mdat` first, so that offsets are known.
fn container(plan: &Plan) -> Vec<u8> {
    let mut file = atom(b"ftyp", b"heic\0\0\0\0mif1heic");
    let (mut mdat, mut idat, mut places, mut infos) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, kind, data) in &plan.items {
        let (construction, offset, len) = match data {
            Data::File(bytes) => {
                let offset = file.len() + 8 + mdat.len();
                mdat.extend(bytes);
                (0, offset as u64, bytes.len() as u64)
            }
            Data::Idat(bytes) => {
                let offset = idat.len();
                idat.extend(bytes);
                (1, offset as u64, bytes.len() as u64)
            }
            Data::Lie(construction, offset, len) => (*construction, *offset, *len),
        };
        places.extend([number(*id as usize), vec![0, construction, 0, 0, 0, 1]].concat());
        places.extend([offset.to_be_bytes(), len.to_be_bytes()].concat());
        infos.extend(full_atom(b"infe", 3, &[&number(*id as usize), [0, 0].as_slice(), kind, b"\0"].concat()));
    }
    let properties: Vec<u8> = plan.properties.iter().flat_map(|(kind, body)| atom(*kind, body)).collect();
    let uses: Vec<u8> = plan
        .uses
        .iter()
        .flat_map(|(id, numbers)| {
            let numbers = numbers.iter().map(|&n| if n < 0 { 0x80 | n.unsigned_abs() } else { n as u8 });
            [number(*id as usize), vec![numbers.len() as u8], numbers.collect()].concat()
        })
        .collect();
    let references: Vec<u8> = plan
        .references
        .iter()
        .flat_map(|(kind, from, to)| {
            let to: Vec<u8> = to.iter().flat_map(|&to| number(to as usize)).collect();
            atom(*kind, &[number(*from as usize), ((to.len() / 4) as u16).to_be_bytes().to_vec(), to].concat())
        })
        .collect();
    let boxes = [
        full_atom(b"hdlr", 0, b"\0\0\0\0pict\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        full_atom(b"pitm", 1, &number(plan.primary as usize)),
        full_atom(b"iinf", 1, &[number(plan.items.len()), infos].concat()),
        full_atom(b"iref", 1, &references),
        atom(
            b"iprp",
            &[atom(b"ipco", &properties), full_atom(b"ipma", 1, &[number(plan.uses.len()), uses].concat())].concat(),
        ),
        atom(b"idat", &idat),
        full_atom(b"iloc", 2, &[vec![0x88, 0], number(plan.items.len()), places].concat()),
    ];
    file.extend(atom(b"mdat", &mdat));
    file.extend(full_atom(b"meta", 0, &boxes.concat()));
    file
}

/// The coded picture of a file, and the decoder's configuration for it.
fn coded(file: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let meta = Meta::read(file).unwrap();
    (meta.data(meta.primary).unwrap().into_owned(), meta.property(meta.primary, *b"hvcC").unwrap().0.to_vec())
}

fn size_of(width: u32, height: u32) -> Vec<u8> {
    [[0; 4], width.to_be_bytes(), height.to_be_bytes()].concat()
}

fn grid_of(rows: u8, columns: u8, width: u16, height: u16) -> Vec<u8> {
    [vec![0, 0, rows - 1, columns - 1], width.to_be_bytes().to_vec(), height.to_be_bytes().to_vec()].concat()
}

/// The plain picture, alone.
fn alone() -> Plan {
    let (data, config) = coded(PLAIN);
    Plan {
        items: vec![(1, *b"hvc1", Data::File(data))],
        properties: vec![(b"ispe", size_of(256, 192)), (b"hvcC", config)],
        uses: vec![(1, vec![1, -2])],
        references: vec![],
        primary: 1,
    }
}

/// The plain picture six times, three in a row, and something cut off.
fn six() -> Plan {
    let mut plan = alone();
    plan.items.push((9, *b"grid", Data::Idat(grid_of(2, 3, 700, 380))));
    plan.properties.push((b"ispe", size_of(700, 380)));
    plan.uses.push((9, vec![3]));
    plan.references.push((b"dimg", 9, vec![1; 6]));
    plan.primary = 9;
    plan
}

#[test]
fn containers_made_here() {
    let plain = shown(PLAIN);
    assert!(psnr(shown(&container(&alone())).pixels(), plain.pixels()) > 60.0);

    let inside = Plan { items: vec![(1, *b"hvc1", Data::Idat(coded(PLAIN).0))], ..alone() };
    assert!(psnr(shown(&container(&inside)).pixels(), plain.pixels()) > 60.0);

    let canvas = shown(&container(&six()));
    assert_eq!(canvas.size(), (700, 380));
    for (y, row) in canvas.pixels().chunks_exact(700 * 3).enumerate() {
        for (part, tile) in row.chunks(256 * 3).zip([256, 256, 188]) {
            let expected = &plain.pixels()[y % 192 * 256 * 3..][..tile * 3];
            assert!(psnr(part, expected) > 60.0, "{y}");
        }
    }

    // A cut that is not at the corner, then a turn.
    let mut cut = alone();
    let fraction = |n: i32, d: i32| [n.to_be_bytes(), d.to_be_bytes()].concat();
    let clap = [fraction(101, 1), fraction(51, 1), fraction(-109, 2), fraction(-81, 2)].concat();
    cut.properties.extend([(b"clap", clap), (b"irot", vec![1]), (b"imir", vec![1])]);
    cut.uses = vec![(1, vec![1, -2, -3, -4, -5])];
    let mut expected = Canvas::rgb(256, 192, plain.pixels().to_vec());
    expected.cut(23, 30, 101, 51);
    expected.quarter_turns(3);
    expected.mirror(true, false);
    let canvas = shown(&container(&cut));
    assert_eq!(canvas.size(), (51, 101));
    assert!(psnr(canvas.pixels(), expected.pixels()) > 60.0);
    // An odd corner cannot be shrunk to.
    assert_eq!(decoded(&container(&cut), 0.1).size(), (101, 51));
}

#[test]
fn brands_that_say_little() {
    let with_brand = |file: &[u8], brands: &[u8; 12]| {
        let mut file = file.to_vec();
        let size = file[3] as usize;
        file.splice(8..size, brands.iter().copied().chain(std::iter::repeat_n(0, size - 20)));
        file
    };
    let heif = with_brand(PLAIN, b"mif1\0\0\0\0miaf");
    assert_eq!(SourceFormat::sniff(&heif), Some(SourceFormat::Heic));
    assert!(probe(&heif, &Limits::default()).is_ok());
    let kind = |kind: &[u8; 4]| {
        let mut plan = alone();
        plan.items[0].1 = *kind;
        with_brand(&container(&plan), b"mif1\0\0\0\0mif1")
    };
    assert_eq!(SourceFormat::sniff(&kind(b"av01")), Some(SourceFormat::Avif));
    for (four, word) in
        [(b"jpeg", "JPEG"), (b"iovl", "lays"), (b"iden", "refers"), (b"unci", "unci"), (b"\xff\0\n\"", "xff")]
    {
        let refused = probe(&kind(four), &Limits::default());
        assert!(matches!(&refused, Err(ImageError::Unsupported(text)) if text.contains(word)), "{refused:?}");
    }
    let film = [atom(b"ftyp", b"msf1\0\0\0\0hevcmsf1"), atom(b"moov", b"")].concat();
    let refused = probe(&film, &Limits::default()).unwrap_err();
    assert!(refused.to_string().contains("sequence"), "{refused}");
}

#[test]
fn lies_are_refused_before_anything_is_decoded() {
    type Change = Box<dyn Fn(&mut Plan)>;
    let lie = |construction, offset, len| -> Change {
        Box::new(move |plan| plan.items[0].2 = Data::Lie(construction, offset, len))
    };
    let in_six = |change: fn(&mut Plan)| -> Change {
        Box::new(move |plan| {
            *plan = six();
            change(plan);
        })
    };
    let cases: Vec<(&str, Change)> = vec![
        ("data beyond the file", lie(0, 1 << 40, 10)),
        ("data of half of all there is", lie(0, 1 << 63, 1 << 63)),
        ("data that wraps around", lie(0, u64::MAX, u64::MAX)),
        ("data beyond the inner data", lie(1, 0, 10)),
        ("data of other items", lie(2, 0, 10)),
        ("no data worth the name", lie(0, 0, 4)),
        ("no size", Box::new(|plan| plan.uses[0].1 = vec![2])),
        ("no configuration", Box::new(|plan| plan.uses[0].1 = vec![1])),
        ("no properties", Box::new(|plan| plan.uses.clear())),
        ("no such item", Box::new(|plan| plan.primary = 7)),
        ("larger than coded", Box::new(|plan| plan.properties[0].1 = size_of(257, 192))),
        ("far smaller than coded", Box::new(|plan| plan.properties[0].1 = size_of(64, 64))),
        ("nothing to see", Box::new(|plan| plan.properties[0].1 = size_of(0, 192))),
        ("huge", Box::new(|plan| plan.properties[0].1 = size_of(u32::MAX, u32::MAX))),
        (
            "a cut of nothing",
            in_six(|plan| {
                plan.properties.push((b"clap", vec![0; 32]));
                plan.uses[1].1.push(4);
            }),
        ),
        (
            "an essential stranger",
            Box::new(|plan| {
                plan.properties.push((b"lsel", vec![0, 1]));
                plan.uses[0].1.push(-3);
            }),
        ),
        ("a tile too few", in_six(|plan| plan.references[0].2.truncate(5))),
        ("a tile too many", in_six(|plan| plan.references[0].2.push(1))),
        ("no tiles", in_six(|plan| plan.references.clear())),
        ("a grid of itself", in_six(|plan| plan.references[0].2 = vec![9; 6])),
        ("a tile that is not there", in_six(|plan| plan.references[0].2[3] = 5)),
        (
            "a grid larger than its tiles",
            in_six(|plan| {
                plan.items[1].2 = Data::Idat(grid_of(2, 3, 769, 380));
                plan.properties[2].1 = size_of(769, 380);
            }),
        ),
        (
            "a grid with a column to spare",
            in_six(|plan| {
                plan.items[1].2 = Data::Idat(grid_of(2, 3, 512, 380));
                plan.properties[2].1 = size_of(512, 380);
            }),
        ),
        ("a grid of another size than it says", in_six(|plan| plan.properties[2].1 = size_of(700, 381))),
        (
            "too many tiles",
            in_six(|plan| {
                plan.items[1].2 = Data::Idat(grid_of(33, 32, 700, 380));
                plan.references[0].2 = vec![1; 33 * 32];
            }),
        ),
        ("half a grid", in_six(|plan| plan.items[1].2 = Data::Idat(vec![0, 0, 1]))),
    ];
    let limits = Limits::default();
    for (name, change) in cases {
        let mut plan = alone();
        change(&mut plan);
        let file = container(&plan);
        let refused = Heic::open(&file, &limits).and_then(|heic| heic.decode(1, &limits).map(|_| ()));
        let text = refused.expect_err(name).to_string();
        assert!(text.len() > 20 && text.len() < 120 && text.is_ascii(), "{name}: {text}");
    }
    // Items that refer to each other in a ring, as thumbnails, transparency and descriptions.
    let mut ring = six();
    for kind in [b"thmb", b"auxl", b"cdsc", b"dimg"] {
        ring.references.extend([(kind, 1, vec![9]), (kind, 9, vec![9, 1])]);
    }
    assert_eq!(shown(&container(&ring)).size(), (700, 380));
    // The coded picture itself is held against the limits, and so is the canvas.
    for limits in [
        Limits { max_pixels: 256 * 192 - 1, ..Limits::default() },
        Limits { max_side: 255, ..Limits::default() },
        Limits { max_decoded_bytes: 100_000, ..Limits::default() },
    ] {
        let heic = Heic::open(PLAIN, &limits).and_then(|heic| heic.decode(1, &limits).map(|_| ()));
        assert!(matches!(heic, Err(ImageError::TooLarge { .. })), "{heic:?}");
    }
}

#[test]
fn tables_that_lie_about_their_length() {
    let file = container(&six());
    let meta = file.windows(4).position(|w| w == b"meta").unwrap();
    for kind in
        [b"meta", b"hdlr", b"pitm", b"iinf", b"infe", b"iref", b"dimg", b"iprp", b"ipco", b"ipma", b"iloc", b"hvcC"]
    {
        let at = meta + file[meta..].windows(4).position(|w| w == kind).unwrap() - 4;
        for size in [0, 1, 2, 7, 8, 9, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
            let mut broken = file.clone();
            broken[at..at + 4].copy_from_slice(&size.to_be_bytes());
            survive(&broken);
            // Counts stand right behind the version.
            broken[at..at + 4].copy_from_slice(&file[at..at + 4]);
            let end = (at + 24).min(broken.len());
            broken[at + 12..end].fill(size as u8);
            survive(&broken);
        }
    }
    // Two bytes are an item's whole place when all fields are left out.
    let places = [vec![0, 0, 0xFF, 0xFF], [vec![0, 1, 0, 0, 0xFF, 0xFF]].concat().repeat(0xFFFF)].concat();
    let at = meta + file[meta..].windows(4).position(|w| w == b"iloc").unwrap() - 4;
    let many = [&file[..at], &full_atom(b"iloc", 0, &places)].concat();
    assert!(opened(&many).is_err());
}

/// Nothing may panic or hang, and what is refused is refused in a sentence.
fn survive(file: &[u8]) {
    let limits = Limits { max_pixels: 1_000_000, max_decoded_bytes: 16 << 20, ..Limits::default() };
    let recipe = Recipe::from_canonical("resize=40,40&format=png").unwrap();
    for refused in [probe(file, &limits).map(|_| ()), render(file, &recipe, &limits, &|| false).map(|_| ())] {
        if let Err(error) = refused {
            assert!(error.to_string().len() > 20, "{error}");
        }
    }
}

#[test]
fn cut_off_anywhere() {
    for file in [PLAIN, GRID, ALPHA, EXIF_P3] {
        for len in (0..file.len()).step_by(if file.len() > 1000 { 37 } else { 1 }).chain(0..700) {
            survive(&file[..len]);
        }
        let cut = &file[..file.len() - 100];
        let facts = probe(cut, &Limits::default()).unwrap();
        assert!(facts.warning.is_some());
    }
}

#[test]
fn flipped_anywhere() {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let files = [PLAIN, GRID, ALPHA, EXIF_P3, file!("10-bit.heic"), file!("422.heic"), file!("odd.heic")];
    for file in files {
        let data = file.windows(4).position(|w| w == b"mdat").unwrap();
        for round in 0..300 {
            let mut broken = file.to_vec();
            for _ in 0..=rng.next_u32() % 4 {
                // The tables, the parameter sets, and the stream each get their share.
                let reach = if round % 2 == 0 { data } else { broken.len() };
                let at = rng.next_u32() as usize % reach;
                broken[at] = match rng.next_u32() % 4 {
                    0 => 0,
                    1 => 0xFF,
                    2 => broken[at] ^ 1 << (rng.next_u32() % 8),
                    _ => rng.next_u32() as u8,
                };
            }
            survive(&broken);
        }
    }
}

#[test]
fn a_stream_that_breaks_off_still_gives_a_picture() {
    let mut plan = alone();
    let Data::File(data) = &mut plan.items[0].2 else { unreachable!() };
    data.truncate(data.len() / 2);
    let (broken, whole) = (shown(&container(&plan)), shown(PLAIN));
    assert_eq!(broken.size(), (256, 192));
    let top = ..256 * 64 * 3;
    assert!(psnr(&broken.pixels()[top], &whole.pixels()[top]) > 60.0);
    assert!(psnr(broken.pixels(), whole.pixels()) < 30.0);
}

#[test]
fn what_a_stream_leaves_out_is_gray() {
    // Three slices, each a third of the picture. Memory that was used before must not show.
    let sliced = file!("slices.heic");
    let (data, config) = coded(sliced);
    let parsed = Config::read(Bytes(&config), (256, 192), &Limits::default()).unwrap();
    let slices: Vec<&[u8]> = parsed.slices(&data).collect();
    assert_eq!(slices.len(), 3);
    let whole = shown(sliced);
    for missing in [1, 2] {
        let kept = slices.iter().enumerate().filter(|(at, _)| *at != missing);
        let kept: Vec<u8> = kept.flat_map(|(_, slice)| [number(slice.len()), slice.to_vec()].concat()).collect();
        // A second picture in the same item is not looked at.
        let kept = [kept, data.clone()].concat();
        let plan = Plan {
            items: vec![(1, *b"hvc1", Data::File(kept))],
            properties: vec![(b"ispe", size_of(256, 192)), (b"hvcC", config.clone())],
            ..alone()
        };
        let canvas = shown(&container(&plan));
        let rows = |from: usize, to: usize| from * 256 * 3..to * 256 * 3;
        assert!(psnr(&canvas.pixels()[rows(0, 48)], &whole.pixels()[rows(0, 48)]) > 40.0);
        let gap = &canvas.pixels()[rows(missing * 64 + 8, missing * 64 + 56)];
        assert!(gap.iter().all(|value| value.abs_diff(128) < 3), "{missing}: {:?}", &gap[..9]);
    }
}

#[test]
fn ten_bits_shrink_like_eight() {
    let (ten, eight) = (decoded(file!("10-bit.heic"), 0.2), decoded(PLAIN, 0.2));
    assert_eq!(ten.size(), eight.size());
    assert!(psnr(ten.pixels(), eight.pixels()) > 40.0);
}
