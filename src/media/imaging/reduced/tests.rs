//! Held against coefficients as libjpeg-turbo decodes them, transformed by the textbook's
//! formula in double precision: two ways that share no code.
#![expect(unsafe_code, reason = "calls libjpeg-turbo, which makes the files and reads their coefficients")]

use std::ffi::c_int;
use std::ffi::c_short;
use std::ffi::c_void;
use std::ptr;

use turbojpeg::raw;

use super::super::Limits;
use super::super::error::ImageError;
use super::super::planes::Plane;
use super::super::planes::Planes;
use super::decode;

/// A small generator of numbers that look random, the same ones every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}

/// Gradients with some noise on top, `noise` from 0 to 255.
fn pixels(width: usize, height: usize, noise: usize, dice: &mut Dice) -> Vec<u8> {
    let (slope, tilt) = (dice.roll(9), dice.roll(9));
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let smooth = 128.0 + 100.0 * ((x * slope + y * tilt) as f64 / 40.0 + channel as f64).sin();
                pixels.push((smooth as usize + dice.roll(noise + 1)).min(255) as u8);
            }
        }
    }
    pixels
}

const QUALITY: raw::TJPARAM = raw::TJPARAM_TJPARAM_QUALITY;
const SAMPLING: raw::TJPARAM = raw::TJPARAM_TJPARAM_SUBSAMP;
const PROGRESSIVE: raw::TJPARAM = raw::TJPARAM_TJPARAM_PROGRESSIVE;
const RESTART_BLOCKS: raw::TJPARAM = raw::TJPARAM_TJPARAM_RESTARTBLOCKS;
const RESTART_ROWS: raw::TJPARAM = raw::TJPARAM_TJPARAM_RESTARTROWS;
const SAMPLINGS: [raw::TJSAMP; 7] = [
    raw::TJSAMP_TJSAMP_444,
    raw::TJSAMP_TJSAMP_422,
    raw::TJSAMP_TJSAMP_420,
    raw::TJSAMP_TJSAMP_GRAY,
    raw::TJSAMP_TJSAMP_440,
    raw::TJSAMP_TJSAMP_411,
    raw::TJSAMP_TJSAMP_441,
];

fn encode(pixels: &[u8], width: usize, settings: &[(raw::TJPARAM, i32)]) -> Vec<u8> {
    let height = pixels.len() / 3 / width;
    let (mut bytes, mut len) = (ptr::null_mut(), 0);
    // SAFETY: the pixels are width * height of three bytes; the output is copied and freed.
    unsafe {
        let turbo = raw::tj3Init(raw::TJINIT_TJINIT_COMPRESS as c_int);
        for &(parameter, value) in settings {
            assert_eq!(raw::tj3Set(turbo, parameter as c_int, value), 0);
        }
        let (width, height) = (width as c_int, height as c_int);
        let layout = raw::TJPF_TJPF_RGB as c_int;
        let result = raw::tj3Compress8(turbo, pixels.as_ptr(), width, 0, height, layout, &raw mut bytes, &raw mut len);
        assert_eq!(result, 0, "{:?}", std::ffi::CStr::from_ptr(raw::tj3GetErrorStr(turbo)));
        let encoded = std::slice::from_raw_parts(bytes, len as usize).to_vec();
        raw::tj3Free(bytes.cast());
        raw::tj3Destroy(turbo);
        encoded
    }
}

/// A component's quantised coefficients, block by block.
#[derive(Default)]
struct Blocks {
    across: usize,
    rows: Vec<Vec<[i16; 64]>>,
}

/// Reads the coefficients; `None` if libjpeg-turbo complains.
fn coefficients(source: &[u8]) -> Option<Vec<Blocks>> {
    unsafe extern "C" fn collect(
        coefficients: *mut c_short,
        array: raw::tjregion,
        _plane: raw::tjregion,
        component: c_int,
        _transform: c_int,
        transform: *mut raw::tjtransform,
    ) -> c_int {
        // SAFETY: libjpeg-turbo hands over a row of whole blocks, and `data` as it was set below.
        let (blocks, all) = unsafe {
            let all = &mut *(*transform).data.cast::<Vec<Blocks>>();
            (std::slice::from_raw_parts(coefficients, (array.w * array.h) as usize), all)
        };
        all.resize_with(all.len().max(component as usize + 1), Blocks::default);
        let component = &mut all[component as usize];
        component.across = array.w as usize / 8;
        component.rows.push(blocks.as_chunks::<64>().0.to_vec());
        0
    }
    let mut all: Vec<Blocks> = Vec::new();
    let mut transform = raw::tjtransform {
        r: raw::tjregion { x: 0, y: 0, w: 0, h: 0 },
        op: raw::TJXOP_TJXOP_NONE as c_int,
        options: raw::TJXOPT_NOOUTPUT as c_int,
        data: (&raw mut all).cast::<c_void>(),
        customFilter: Some(collect),
    };
    let (mut bytes, mut len) = (ptr::null_mut(), 0);
    // SAFETY: one transform, one output (which is not written), the source is a whole slice.
    let result = unsafe {
        let turbo = raw::tj3Init(raw::TJINIT_TJINIT_TRANSFORM as c_int);
        let source_len = source.len() as raw::size_t;
        let result =
            raw::tj3Transform(turbo, source.as_ptr(), source_len, 1, &raw mut bytes, &raw mut len, &raw mut transform);
        raw::tj3Free(bytes.cast());
        raw::tj3Destroy(turbo);
        result
    };
    (result == 0).then_some(all)
}

/// Factors across and down, and the number of the quantisation table.
type Sampling = (usize, usize, usize);

/// The quantisation tables of a file that defines each once, in natural order, and for each
/// component its sampling factors and table.
fn tables(source: &[u8]) -> (Vec<[f64; 64]>, Vec<Sampling>) {
    let mut tables = vec![[0.0; 64]; 4];
    let mut at = 2;
    loop {
        let len = usize::from(u16::from_be_bytes([source[at + 2], source[at + 3]]));
        let segment = &source[at + 4..at + 2 + len];
        match source[at + 1] {
            0xDB => {
                for table in segment.as_chunks::<65>().0 {
                    // Along the diagonals, up and down by turns.
                    let mut order: Vec<(usize, usize)> = (0..64).map(|i| (i / 8, i % 8)).collect();
                    order.sort_by_key(|&(y, x)| (x + y, if (x + y) % 2 == 0 { x } else { y }));
                    for (&step, (y, x)) in table[1..].iter().zip(order) {
                        tables[usize::from(table[0])][y * 8 + x] = f64::from(step);
                    }
                }
            }
            0xC0..=0xC2 => {
                let components = segment[6..].as_chunks::<3>().0.iter();
                let components =
                    components.map(|c| (usize::from(c[1] >> 4), usize::from(c[1] & 15), usize::from(c[2])));
                return (tables, components.collect());
            }
            _ => {}
        }
        at += 2 + len;
    }
}

/// What the picture should be, unrounded.
fn expected(source: &[u8], width: usize, height: usize, denominator: usize) -> Vec<(usize, usize, Vec<f64>)> {
    let n = 8 / denominator;
    let (tables, components) = tables(source);
    let (across, down) = (components[0].0, components[0].1);
    let weight = |u: usize| if u == 0 { 0.5_f64.sqrt() } else { 1.0 };
    let wave =
        |x: usize, u: usize| weight(u) * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / (2 * n) as f64).cos();
    let mut planes = Vec::new();
    for (blocks, (h, v, table)) in coefficients(source).expect("coefficients").iter().zip(components) {
        let (wide, high) = ((width * h).div_ceil(across * denominator), (height * v).div_ceil(down * denominator));
        let mut samples = Vec::new();
        for y in 0..high {
            for x in 0..wide {
                let block = &blocks.rows[y / n][x / n];
                let mut sum = 0.0;
                for (row, column) in (0..n).flat_map(|row| (0..n).map(move |column| (row, column))) {
                    let value = f64::from(block[row * 8 + column]) * tables[table][row * 8 + column];
                    sum += value * wave(y % n, row) * wave(x % n, column);
                }
                samples.push((sum / 4.0 + 128.0).clamp(0.0, 255.0));
            }
        }
        planes.push((wide, high, samples));
    }
    planes
}

fn list(planes: Planes) -> Vec<Plane> {
    std::iter::once(planes.luma).chain(planes.chroma.into_iter().flatten()).collect()
}

fn decoded(source: &[u8], denominator: usize) -> Option<Planes> {
    decode(source, denominator as u32, &Limits::default(), &|| false).expect("no error")
}

/// Holds all three scales of a file against the reference.
fn check(source: &[u8], width: usize, height: usize, what: &str) {
    for denominator in [2, 4, 8] {
        let planes = decoded(source, denominator).unwrap_or_else(|| panic!("{what}: refused at 1/{denominator}"));
        let planes = list(planes);
        let expected = expected(source, width, height, denominator);
        assert_eq!(planes.len(), expected.len(), "{what}");
        for (plane, (wide, high, samples)) in planes.iter().zip(expected) {
            assert_eq!((plane.width as usize, plane.height as usize), (wide, high), "{what}");
            assert_eq!(plane.samples.len(), samples.len(), "{what}");
            for (at, (&is, should)) in plane.samples.iter().zip(samples).enumerate() {
                let off = (f64::from(is) - should).abs();
                assert!(off < 0.501, "{what}, 1/{denominator}, {} {}: {is}, not {should}", at % wide, at / wide);
            }
        }
    }
}

/// Whatever the bytes are, the result is nothing or a picture of the right size.
fn check_any(source: &[u8], width: u32, height: u32) -> usize {
    let limits = Limits { max_pixels: 1 << 20, ..Limits::default() };
    let mut pictures = 0;
    for denominator in [2, 4, 8] {
        if let Ok(Some(planes)) = decode(source, denominator, &limits, &|| false) {
            pictures += 1;
            for plane in list(planes) {
                assert_eq!(plane.samples.len(), (plane.width * plane.height) as usize);
                // A flipped bit may have hit the size.
                if width > 0 {
                    assert!(plane.width <= width.div_ceil(denominator) && plane.height <= height.div_ceil(denominator));
                }
            }
        }
    }
    pictures
}

#[test]
fn every_kind_of_file_is_decoded_to_what_its_coefficients_say() {
    let mut dice = Dice(1);
    for round in 0..210 {
        let (width, height) = (1 + dice.roll(70), 1 + dice.roll(70));
        let noise = dice.pick(&[0, 3, 60, 255]);
        let settings = [
            (QUALITY, 1 + dice.roll(100) as i32),
            (SAMPLING, SAMPLINGS[round % 7]),
            (PROGRESSIVE, dice.roll(2) as i32),
            (raw::TJPARAM_TJPARAM_OPTIMIZE, dice.roll(2) as i32),
            dice.pick(&[(RESTART_BLOCKS, 0), (RESTART_BLOCKS, 1), (RESTART_BLOCKS, 3), (RESTART_ROWS, 1)]),
        ];
        let source = encode(&pixels(width, height, noise, &mut dice), width, &settings);
        check(&source, width, height, &format!("{width} x {height}, noise {noise}, {settings:?}"));
    }
}

#[test]
fn every_small_size_and_quality_comes_out_right() {
    let mut dice = Dice(2);
    for side in 1..=70 {
        for (width, height) in [(side, 71 - side), (side, 1), (1, side)] {
            let sampling = dice.pick(&SAMPLINGS);
            let settings = [(QUALITY, side as i32), (SAMPLING, sampling), (PROGRESSIVE, (side % 2) as i32)];
            let source = encode(&pixels(width, height, 40, &mut dice), width, &settings);
            check(&source, width, height, &format!("{width} x {height}, {settings:?}"));
        }
    }
}

#[test]
fn data_of_many_windows_is_read_through() {
    let mut dice = Dice(3);
    let (width, height) = (401, 303);
    let pixels = pixels(width, height, 255, &mut dice);
    for sampling in [raw::TJSAMP_TJSAMP_444, raw::TJSAMP_TJSAMP_420, raw::TJSAMP_TJSAMP_GRAY] {
        for settings in [[(PROGRESSIVE, 0), (RESTART_ROWS, 0)], [(PROGRESSIVE, 1), (RESTART_BLOCKS, 5)]] {
            for quality in [100, 97, 85] {
                let all = [settings[0], settings[1], (SAMPLING, sampling), (QUALITY, quality)];
                let source = encode(&pixels, width, &all);
                assert!(source.len() > 40_000);
                check(&source, width, height, &format!("{all:?}"));
            }
        }
    }
}

/// Segments of a file up to its first scan, that scan's header and data.
fn taken_apart(source: &[u8]) -> (Vec<(u8, Vec<u8>)>, Vec<u8>) {
    let mut segments = Vec::new();
    let mut at = 2;
    loop {
        let len = usize::from(u16::from_be_bytes([source[at + 2], source[at + 3]]));
        if source[at + 1] == 0xDA {
            return (segments, source[at + 2 + len..source.len() - 2].to_vec());
        }
        segments.push((source[at + 1], source[at + 4..at + 2 + len].to_vec()));
        at += 2 + len;
    }
}

fn put_segment(out: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    out.extend([0xFF, 0xFF, marker]);
    out.extend((payload.len() as u16 + 2).to_be_bytes());
    out.extend(payload);
}

#[test]
fn components_in_scans_of_their_own_are_put_together() {
    let mut dice = Dice(4);
    for (width, height) in [(61_usize, 45_usize), (64, 64), (1, 1), (17, 33)] {
        // Three grey files become light and colour of one.
        let half = (width.div_ceil(2), height.div_ceil(2));
        let mut file = vec![0xFF, 0xD8];
        let mut scans = Vec::new();
        for (index, (wide, high)) in [(width, height), half, half].into_iter().enumerate() {
            let settings = [(QUALITY, 90), (SAMPLING, raw::TJSAMP_TJSAMP_GRAY), (RESTART_BLOCKS, index as i32 * 2)];
            let grey = encode(&pixels(wide, high, 60, &mut dice), wide, &settings);
            let (segments, data) = taken_apart(&grey);
            if index == 0 {
                for (marker, payload) in segments.iter().filter(|(marker, _)| matches!(marker, 0xDB | 0xC4)) {
                    put_segment(&mut file, *marker, payload);
                }
            }
            scans.push(data);
        }
        let [h1, h0] = (height as u16).to_be_bytes();
        let [w1, w0] = (width as u16).to_be_bytes();
        put_segment(&mut file, 0xC0, &[8, h1, h0, w1, w0, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0]);
        for (index, data) in scans.iter().enumerate() {
            put_segment(&mut file, 0xDD, &[0, index as u8 * 2]);
            put_segment(&mut file, 0xDA, &[1, index as u8 + 1, 0, 0, 63, 0]);
            file.extend(data);
        }
        file.extend([0xFF, 0xD9]);
        // libjpeg's own reader of tables wants no fill bytes.
        let mut plain = file.clone();
        while let Some(at) = plain.windows(2).position(|pair| pair == [0xFF, 0xFF]) {
            plain.remove(at);
        }
        check(&plain, width, height, &format!("{width} x {height}"));
        for denominator in [2, 4, 8] {
            assert_eq!(decoded(&file, denominator), decoded(&plain, denominator));
        }
    }
}

#[test]
fn scans_above_what_is_kept_are_not_looked_at() {
    let mut dice = Dice(5);
    let settings = [(QUALITY, 90), (SAMPLING, raw::TJSAMP_TJSAMP_420), (PROGRESSIVE, 1)];
    let mut source = encode(&pixels(100, 80, 60, &mut dice), 100, &settings);
    let whole = decoded(&source, 8).unwrap();
    let first_data = source.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap() + 14;
    let mut markers = source.windows(2).enumerate().filter(|(_, pair)| *pair == [0xFF, 0xDA]).map(|(at, _)| at);
    let second = markers.nth(1).unwrap();
    assert!(first_data < second);
    for byte in &mut source[second + 10..second + 14] {
        *byte ^= 0x55;
    }
    assert_eq!(decoded(&source, 8), Some(whole));
}

#[test]
fn foreign_kinds_are_left_alone() {
    let mut dice = Dice(6);
    let pixels = pixels(40, 30, 30, &mut dice);
    let plain = encode(&pixels, 40, &[(QUALITY, 80), (SAMPLING, raw::TJSAMP_TJSAMP_420)]);
    let with = |parameter, value| encode(&pixels, 40, &[(QUALITY, 80), (SAMPLING, 0), (parameter, value)]);
    let space = raw::TJPARAM_TJPARAM_COLORSPACE;
    let at = plain.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    let patched = |offset: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[at + offset] = value;
        bytes
    };
    for (what, source) in [
        ("arithmetic", with(raw::TJPARAM_TJPARAM_ARITHMETIC, 1)),
        ("lossless", with(raw::TJPARAM_TJPARAM_LOSSLESS, 1)),
        ("RGB", with(space, raw::TJCS_TJCS_RGB as i32)),
        ("12 bits", patched(4, 12)),
        ("lines defined later", patched(6, 0)),
        ("hierarchical", patched(1, 0xC5)),
        ("colour larger than light", patched(14, 0x22)),
        ("colours of two sizes", patched(17, 0x21)),
        ("nothing", Vec::new()),
        ("no JPEG", b"GIF89a".to_vec()),
    ] {
        assert_eq!(check_any(&source, 0, 0), 0, "{what}");
    }
    assert_eq!(check_any(&plain, 40, 30), 3);
    assert_eq!(decoded(&plain, 1), None);
}

#[test]
fn limits_come_first_and_a_lost_interest_ends_it() {
    let mut dice = Dice(7);
    let pixels = pixels(200, 100, 30, &mut dice);
    for progressive in [0, 1] {
        let source = encode(&pixels, 200, &[(QUALITY, 80), (SAMPLING, 2), (PROGRESSIVE, progressive)]);
        let limits = Limits { max_pixels: 19_999, ..Limits::default() };
        let too_large = ImageError::TooLarge { width: 200, height: 100 };
        assert_eq!(decode(&source, 4, &limits, &|| false), Err(too_large));
        let asked = std::cell::Cell::new(0);
        let later = || asked.replace(asked.get() + 1) == 5;
        assert_eq!(decode(&source, 4, &Limits::default(), &later), Err(ImageError::Cancelled));
        assert_eq!(asked.get(), 6);
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let mut dice = Dice(8);
    let pixels = pixels(50, 40, 90, &mut dice);
    for settings in [[(PROGRESSIVE, 0), (RESTART_BLOCKS, 0)], [(PROGRESSIVE, 0), (RESTART_BLOCKS, 2)]] {
        let source = encode(&pixels, 50, &[settings[0], settings[1], (QUALITY, 85), (SAMPLING, 2)]);
        for len in 0..source.len() - 2 {
            assert_eq!(check_any(&source[..len], 50, 40), 0, "{len} of {}", source.len());
        }
    }
    // Of a progressive file, what is missing may not be needed; what is needed may not be missing.
    let source = encode(&pixels, 50, &[(PROGRESSIVE, 1), (QUALITY, 85), (SAMPLING, 2)]);
    let whole: Vec<_> = [2, 4, 8].iter().map(|&denominator| decoded(&source, denominator).unwrap()).collect();
    for len in 0..source.len() {
        for (&denominator, whole) in [2, 4, 8].iter().zip(&whole) {
            let cut = decoded(&source[..len], denominator);
            assert!(cut.is_none_or(|cut| cut == *whole), "{len} of {}", source.len());
        }
    }
}

#[test]
fn flipped_bits_do_no_harm() {
    let mut dice = Dice(9);
    let mut pictures = 0;
    for round in 0..60 {
        let (width, height) = (1 + dice.roll(60), 1 + dice.roll(60));
        let settings = [
            (QUALITY, dice.pick(&[30, 85, 98])),
            (SAMPLING, dice.pick(&SAMPLINGS)),
            (PROGRESSIVE, round % 2),
            (RESTART_BLOCKS, dice.pick(&[0, 0, 2])),
        ];
        let source = encode(&pixels(width, height, 60, &mut dice), width, &settings);
        for _ in 0..100 {
            let mut flipped = source.clone();
            for _ in 0..=dice.roll(3) {
                let at = dice.roll(flipped.len());
                flipped[at] ^= 1 << dice.roll(8);
            }
            pictures += check_any(&flipped, 0, 0);
        }
    }
    assert!(pictures > 1000, "the flips must not all hit the header: {pictures}");
}
