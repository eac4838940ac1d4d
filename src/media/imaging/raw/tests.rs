//! Raw files put together here: what is taken out of them, and that no damage breaks it.

use proptest::prelude::Rng;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestRng;

use super::super::Facts;
use super::super::OutputFormat;
use super::super::Recipe;
use super::super::SourceFormat;
use super::super::canvas::Canvas;
use super::super::jpeg;
use super::super::probe;
use super::super::render;
use super::*;

/// A file being laid out: pieces are put down first, then the directories that name them.
struct Layout {
    bytes: Vec<u8>,
    big_endian: bool,
}

type Line<'a> = (u16, u16, usize, &'a [u8]);

impl Layout {
    fn new(magic: [u8; 4], big_endian: bool) -> Self {
        Self { bytes: [magic.as_slice(), &[0; 12]].concat(), big_endian }
    }

    fn short(&self, n: u16) -> [u8; 2] {
        if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn long(&self, n: usize) -> [u8; 4] {
        if self.big_endian { (n as u32).to_be_bytes() } else { (n as u32).to_le_bytes() }
    }

    fn put(&mut self, piece: &[u8]) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(2), 0);
        self.bytes.extend(piece);
        self.bytes.len() - piece.len()
    }

    /// Puts a directory; values are given in the file's byte order.
    fn directory(&mut self, lines: &[Line<'_>], next: usize) -> usize {
        let mut fields = Vec::new();
        for (tag, kind, count, value) in lines {
            let mut field = value.to_vec();
            if value.len() > 4 {
                let at = self.put(value);
                field = self.long(at).to_vec();
            }
            field.resize(4, 0);
            fields.extend([self.short(*tag), self.short(*kind)].concat());
            fields.extend(self.long(*count));
            fields.extend(field);
        }
        let count = self.short(lines.len() as u16);
        let next = self.long(next);
        self.put(&[&count[..], &fields, &next].concat())
    }

    fn done(mut self, first: usize) -> Vec<u8> {
        let first = self.long(first);
        self.bytes[4..8].copy_from_slice(&first);
        self.bytes
    }
}

fn picture(width: u32, height: u32) -> Vec<u8> {
    let red_left = (0..width * height).flat_map(|i| if i % width < width / 2 { [220, 20, 20] } else { [20, 20, 90] });
    jpeg::encode(&Canvas::rgb(width, height, red_left.collect()), 90, 72).unwrap()
}

/// A JPEG as the sensor's data are often compressed: 16383 x 99, but lossless.
fn lossless() -> Vec<u8> {
    let mut jpeg = picture(16, 16);
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 1] = 0xC3;
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0, 99, 0x3F, 0xFF]);
    jpeg
}

/// A raw file that is TIFF inside: a thumbnail, sensor data, and in the way of the maker a preview.
fn tiff_like(magic: [u8; 4], big_endian: bool, maker: &str) -> Vec<u8> {
    let mut file = Layout::new(magic, big_endian);
    if maker == "Canon" {
        file.bytes[8..12].copy_from_slice(b"CR\x02\0");
    }
    let (small, large, sensor) = (picture(32, 24), picture(160, 120), lossless());
    let (small_at, large_at, sensor_at) = (file.put(&small), file.put(&large), file.put(&sensor));
    let long = |n: usize| if big_endian { (n as u32).to_be_bytes() } else { (n as u32).to_le_bytes() };
    let short = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let ratio = [long(1), long(250)].concat();
    let notes = vec![7; 5000];
    let exif = file.directory(
        &[(0x829A, 5, 1, &ratio), (0x9003, 2, 20, b"2024:05:17 18:03:09\0"), (MAKER_NOTE, 7, notes.len(), &notes)],
        0,
    );
    let gps = file.directory(
        &[
            (1, 2, 2, b"N\0"),
            (2, 5, 3, &[long(48), long(1), long(30), long(1), long(0), long(1)].concat()),
            (3, 2, 2, b"E\0"),
            (4, 5, 3, &[long(11), long(1), long(15), long(1), long(0), long(1)].concat()),
        ],
        0,
    );
    let compression = short(match maker {
        "Nikon" => 34713,
        "Sony" => 32767,
        "Pentax" => 65535,
        _ => 7,
    });
    let sensor = file.directory(
        &[
            (COMPRESSION, 3, 1, &compression),
            (PHOTOMETRIC, 3, 1, &short(32803)),
            (STRIP_OFFSETS, 4, 1, &long(sensor_at)),
            (STRIP_LENGTHS, 4, 1, &long(sensor.len())),
        ],
        0,
    );
    let preview = file.directory(
        &[(JPEG_OFFSET, 4, 1, &long(large_at)), (JPEG_LENGTH, 4, 1, &long(large.len()))],
        if maker == "Pentax" { sensor } else { 0 },
    );
    let thumbnail =
        file.directory(&[(JPEG_OFFSET, 4, 1, &long(small_at)), (JPEG_LENGTH, 4, 1, &long(small.len()))], preview);
    let beneath = [long(sensor), long(preview)].concat();
    let make = format!("{maker}\0\0\0\0\0");
    let (orientation, version) = (short(6), [1, 4, 0, 0]);
    let xmp = b"<x><dc:title><rdf:Alt><rdf:li>Opening</rdf:li></rdf:Alt></dc:title></x>";
    let (exif, gps) = (long(exif), long(gps));
    let (strip, strip_length) = (long(large_at), long(large.len()));
    let mut lines: Vec<Line<'_>> =
        vec![(MAKE, 2, make.len(), make.as_bytes()), (0x0112, 3, 1, &orientation), (XMP, 1, xmp.len(), xmp)];
    match maker {
        "Canon" => lines.extend([(STRIP_OFFSETS, 4, 1, &strip[..]), (STRIP_LENGTHS, 4, 1, &strip_length[..])]),
        "Panasonic" => lines.push((PANASONIC_JPEG, 7, large.len(), &large)),
        "Pentax" => {}
        _ => lines.push((SUB_DIRECTORIES, 4, 2, &beneath)),
    }
    lines.extend([(EXIF_DIRECTORY, 4, 1, &exif[..]), (GPS_DIRECTORY, 4, 1, &gps[..])]);
    if maker == "Adobe" {
        lines.push((DNG_VERSION, 1, 4, &version));
    }
    let next = if matches!(maker, "Pentax" | "Canon") { thumbnail } else { 0 };
    let first = file.directory(&lines, next);
    file.done(first)
}

fn olympus() -> Vec<u8> {
    let mut file = Layout::new(*b"IIRO", false);
    let large = picture(160, 120);
    let long = |n: usize| (n as u32).to_le_bytes();
    // Offsets inside the notes count from their beginning.
    let mut notes = b"OLYMPUS\0II\x03\0\x01\0\x20\x20\x0d\0".to_vec();
    notes.extend([long(1), long(30), long(0)].concat());
    notes.extend(b"\x02\0\x01\x01\x04\0");
    notes.extend([long(1), long(60)].concat());
    notes.extend(b"\x02\x01\x04\0");
    notes.extend([long(1), long(large.len()), long(0)].concat());
    notes.resize(60, 0);
    notes.extend(&large);
    let exif = file.directory(&[(MAKER_NOTE, 7, notes.len(), &notes)], 0);
    let first =
        file.directory(&[(MAKE, 2, 8, b"OLYMPUS\0"), (0x0112, 3, 1, &[6, 0]), (EXIF_DIRECTORY, 4, 1, &long(exif))], 0);
    file.done(first)
}

fn fuji() -> Vec<u8> {
    let mut jpeg = picture(160, 120);
    let mut exif = Layout::new(*b"II*\0", false);
    let first = exif.directory(&[(MAKE, 2, 9, b"FUJIFILM\0"), (0x0112, 3, 1, &[6, 0])], 0);
    let exif = [b"Exif\0\0".as_slice(), &exif.done(first)].concat();
    let segment = [&[0xFF, 0xE1][..], &(exif.len() as u16 + 2).to_be_bytes(), &exif].concat();
    jpeg.splice(2..2, segment);
    let mut file = b"FUJIFILMCCD-RAW 0201FF383501X-T3".to_vec();
    file.resize(84, 0);
    file.extend([148_u32.to_be_bytes(), (jpeg.len() as u32).to_be_bytes()].concat());
    file.resize(148, 0);
    [file, jpeg, vec![9; 500]].concat()
}

fn canon_movie() -> Vec<u8> {
    let number = |n: usize| (n as u32).to_be_bytes().to_vec();
    let atom = |kind: &[u8; 4], body: Vec<u8>| [number(body.len() + 8), kind.to_vec(), body].concat();
    let table = |lines: &[Line<'_>]| {
        let mut table = Layout::new(*b"II*\0", false);
        let first = table.directory(lines, 0);
        table.done(first)
    };
    let (small, middle, large) = (picture(16, 12), picture(80, 60), picture(160, 120));
    let head = |jpeg: &[u8]| [number(0), number(1), number(jpeg.len()), jpeg.to_vec()].concat();
    let canon = [
        b"\x85\xc0\xb6\x87\x82\x0f\x11\xe0\x81\x11\xf4\xce\x46\x2b\x6a\x48".to_vec(),
        atom(b"CNCV", vec![0; 30]),
        atom(b"CMT1", table(&[(MAKE, 2, 6, b"Canon\0"), (0x0112, 3, 1, &[6, 0])])),
        atom(b"CMT2", table(&[(0x829A, 5, 1, &[1, 0, 0, 0, 250, 0, 0, 0]), (0x9003, 2, 20, b"2024:05:17 18:03:09\0")])),
        atom(b"THMB", head(&small)),
    ];
    let preview = [
        b"\xea\xf4\x2b\x5e\x1c\x98\x4b\x88\xb9\xfb\xb7\xdc\x40\x6e\x4d\x16".to_vec(),
        vec![0, 0, 0, 0, 0, 0, 0, 1],
        atom(b"PRVW", head(&middle)),
    ];
    let build = |at: usize| {
        let stbl = [
            atom(b"stsz", [number(0), number(large.len()), number(1)].concat()),
            atom(b"co64", [number(0), number(1), number(0), number(at)].concat()),
        ];
        let track = atom(b"trak", atom(b"mdia", atom(b"minf", atom(b"stbl", stbl.concat()))));
        [
            atom(b"ftyp", b"crx \0\0\0\x01crx isom".to_vec()),
            atom(b"moov", [atom(b"uuid", canon.concat()), track].concat()),
            atom(b"uuid", preview.concat()),
        ]
        .concat()
    };
    let before = build(0).len() + 8;
    [build(before), atom(b"mdat", large.clone())].concat()
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("Canon", tiff_like(*b"II*\0", false, "Canon")),
        ("Nikon", tiff_like(*b"MM\0*", true, "Nikon")),
        ("Sony", tiff_like(*b"II*\0", false, "Sony")),
        ("Adobe", tiff_like(*b"MM\0*", true, "Adobe")),
        ("Pentax", tiff_like(*b"MM\0*", true, "Pentax")),
        ("Panasonic", tiff_like(*b"IIU\0", false, "Panasonic")),
        ("OLYMPUS", olympus()),
        ("FUJIFILM", fuji()),
        ("Canon", canon_movie()),
    ]
}

fn facts(source: &[u8]) -> Facts {
    probe(source, &Limits::default()).unwrap()
}

#[test]
fn the_largest_picture_is_shown_upright() {
    for (maker, source) in all() {
        let facts = facts(&source);
        assert_eq!(facts.format, SourceFormat::Raw, "{maker}");
        assert_eq!((facts.width, facts.height), (120, 160), "{maker}");
        assert_eq!(facts.orientation.as_deref(), Some("Rotate 90 CW"), "{maker}");
        assert_eq!(facts.make.as_deref(), Some(maker));
        let recipe = Recipe::default().with_format(OutputFormat::Png);
        let made = render(&source, &recipe, &Limits::default(), &|| false).unwrap();
        let image = image::load_from_memory(&made.bytes).unwrap().into_rgb8();
        assert_eq!(image.dimensions(), (120, 160), "{maker}");
        // Red on the left as stored is red on top once it is turned.
        assert!(image.get_pixel(60, 10)[0] > 200 && image.get_pixel(60, 150)[0] < 60, "{maker}");
    }
}

#[test]
fn what_the_camera_says() {
    for (maker, source) in all() {
        let facts = facts(&source);
        let is_rich = !matches!(maker, "OLYMPUS" | "FUJIFILM");
        let captured = is_rich.then_some("2024-05-17T18:03:09");
        assert_eq!(facts.captured_at.as_deref(), captured, "{maker}");
        let exposure = is_rich.then_some("1/250");
        assert_eq!(facts.exif.get("ExposureTime").map(String::as_str), exposure, "{maker}");
    }
    let nikon = facts(&tiff_like(*b"MM\0*", true, "Nikon"));
    assert_eq!(nikon.gps.map(|gps| (gps.latitude, gps.longitude)), Some((48.5, 11.25)));
    assert_eq!(nikon.exif.get("Title").map(String::as_str), Some("Opening"));
}

#[test]
fn a_plain_tiff_stays_one() {
    let pixels: Vec<u8> = vec![100; 8 * 8 * 3];
    let mut plain = std::io::Cursor::new(Vec::new());
    let mut encoder = ::tiff::encoder::TiffEncoder::new(&mut plain).unwrap();
    encoder.write_image::<::tiff::encoder::colortype::RGB8>(8, 8, &pixels).unwrap();
    assert!(!is_raw(&plain.into_inner()));
    // A scanner writes its make, too.
    let mut scan = Layout::new(*b"II*\0", false);
    let first =
        scan.directory(&[(COMPRESSION, 3, 1, &[7, 0]), (PHOTOMETRIC, 3, 1, &[6, 0]), (MAKE, 2, 5, b"Epson")], 0);
    assert!(!is_raw(&scan.done(first)));
}

#[test]
fn without_a_picture_there_is_a_sentence() {
    let mut file = Layout::new(*b"II*\0", false);
    let at = file.put(&lossless());
    let strip = (at as u32).to_le_bytes();
    let first = file.directory(
        &[(STRIP_OFFSETS, 4, 1, &strip), (STRIP_LENGTHS, 4, 1, &[0xFF; 4]), (DNG_VERSION, 1, 4, &[1, 4, 0, 0])],
        0,
    );
    let refused = probe(&file.done(first), &Limits::default()).unwrap_err();
    assert_eq!(refused, ImageError::Unsupported("raw file without a preview".to_owned()));
    let short = Limits { max_side: 10, ..Limits::default() };
    for (maker, source) in all() {
        assert!(matches!(probe(&source, &short), Err(ImageError::TooLarge { .. })), "{maker}");
    }
}

#[test]
fn loops_end() {
    let mut file = Layout::new(*b"II*\0", false);
    // The directory stands at 16, is its own child and its own successor.
    let beneath = 16_u32.to_le_bytes();
    let first = file.directory(&[(MAKE, 2, 4, b"A\0\0\0"), (SUB_DIRECTORIES, 4, 1, &beneath)], 16);
    assert_eq!(first, 16);
    let file = file.done(first);
    assert_eq!(Tiff::open(&file).unwrap().directories().len(), 1);
}

#[test]
fn broken_files_never_panic() {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let limits = Limits { max_pixels: 4_000_000, max_decoded_bytes: 64 << 20, ..Limits::default() };
    for (_, source) in all() {
        for part in 0..64 {
            let _ = probe(&source[..source.len() * part / 64], &limits);
        }
        for _ in 0..2000 {
            let mut broken = source.clone();
            for _ in 0..=rng.next_u32() % 8 {
                let at = rng.next_u32() as usize % broken.len();
                broken[at] = if rng.next_u32().is_multiple_of(3) { 0xFF } else { rng.next_u32() as u8 };
            }
            let _ = probe(&broken, &limits);
        }
    }
}
