//! Colour: from whatever the source means to sRGB.
//!
//! In: 8-bit pixels and the profile they came with (ICC bytes, or the code points of an AVIF).
//! Out: the same pixels in sRGB; for CMYK, RGB.
//!
//! Invariant: a profile that cannot be used leaves the colours as they are. A slightly wrong
//! colour is better than no picture.
//!
//! Conversion happens after the resize: it costs by the pixel, and a result has few.
#![expect(clippy::indexing_slicing, reason = "pixel arithmetic on fixed-size chunks")]

use moxcms::Chromaticity;
use moxcms::CicpColorPrimaries;
use moxcms::CicpProfile;
use moxcms::ColorPrimaries;
use moxcms::ColorProfile;
use moxcms::DataColorSpace;
use moxcms::Layout;
use moxcms::MatrixCoefficients;
use moxcms::ToneReprCurve;
use moxcms::TransferCharacteristics;
use moxcms::TransformOptions;
use moxcms::XyY;
use moxcms::Xyzd;

/// What the numbers of a picture mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Profile {
    Srgb,
    Icc(Vec<u8>),
    /// Code points of ITU-T H.273: primaries and transfer.
    CodePoints(u8, u8),
    /// Light is the number raised to this; and where on the chromaticity diagram white, red,
    /// green and blue lie, if not where sRGB has them.
    Gamma(f32, Option<[(f32, f32); 4]>),
}

impl Profile {
    /// Of embedded ICC bytes, if there are any.
    pub fn from_icc(icc: Option<Vec<u8>>) -> Self {
        match icc {
            Some(icc) if !icc.is_empty() => Self::Icc(icc),
            _ => Self::Srgb,
        }
    }

    /// Whether the numbers already mean what they would in sRGB. Most profiles in photographs say
    /// just that.
    pub(super) fn is_srgb(&self) -> bool {
        match self {
            Self::Srgb => true,
            Self::Icc(icc) => ColorProfile::new_from_slice(icc).is_ok_and(|profile| equals_srgb(&profile)),
            Self::CodePoints(primaries, transfer) => from_code_points(*primaries, *transfer).is_none(),
            Self::Gamma(..) => false,
        }
    }

    /// Of a PNG's gamma and chromaticities. What is near enough to sRGB is sRGB: most writers
    /// mean it by 1/2.2.
    pub fn from_gamma(encoding: f32, chromaticities: Option<[(f32, f32); 4]>) -> Self {
        const SRGB: [(f32, f32); 4] = [(0.3127, 0.329), (0.64, 0.33), (0.3, 0.6), (0.15, 0.06)];
        let near = |a: f32, b: f32| (a - b).abs() < 0.01;
        let sane = |(x, y): &(f32, f32)| (0.0..=1.0).contains(x) && (0.01..=1.0).contains(y);
        let chromaticities = chromaticities
            .filter(|points| points.iter().all(sane))
            .filter(|points| !points.iter().zip(SRGB).all(|(a, b)| near(a.0, b.0) && near(a.1, b.1)));
        if !(0.1..=5.0).contains(&encoding) {
            return Self::Srgb;
        }
        let exponent = 1.0 / encoding;
        if chromaticities.is_none() && (exponent / 2.2 - 1.0).abs() < 0.05 {
            return Self::Srgb;
        }
        Self::Gamma(exponent, chromaticities)
    }

    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Srgb)
    }

    /// Converts RGB or RGBA pixels in place.
    pub(super) fn convert(&self, pixels: &mut Vec<u8>, channels: usize) {
        let profile = match self {
            Self::Srgb => return,
            Self::Icc(icc) => ColorProfile::new_from_slice(icc).ok(),
            Self::CodePoints(primaries, transfer) => from_code_points(*primaries, *transfer),
            Self::Gamma(exponent, chromaticities) => Some(from_exponent(*exponent, *chromaticities)),
        };
        let converted = profile.and_then(|profile| match profile.color_space {
            DataColorSpace::Rgb => transformed(&profile, pixels, channels),
            DataColorSpace::Gray => through_gray(&profile, pixels, channels),
            _ => None,
        });
        if let Some(converted) = converted {
            *pixels = converted;
        }
    }
}

/// Whether a profile's primaries and curves are those of sRGB, to less than half a step of 8 bits.
fn equals_srgb(profile: &ColorProfile) -> bool {
    const PRIMARIES: f64 = 0.003;
    const CURVE: f32 = 0.002;
    if profile.color_space != DataColorSpace::Rgb
        || profile.lut_a_to_b_perceptual.is_some()
        || profile.lut_a_to_b_colorimetric.is_some()
    {
        return false;
    }
    let srgb = ColorProfile::new_srgb();
    let near =
        |a: Xyzd, b: Xyzd| [(a.x, b.x), (a.y, b.y), (a.z, b.z)].into_iter().all(|(a, b)| (a - b).abs() < PRIMARIES);
    let curve = |curve: &Option<ToneReprCurve>| curve.as_ref().and_then(|curve| curve.make_linear_evaluator().ok());
    near(profile.red_colorant, srgb.red_colorant)
        && near(profile.green_colorant, srgb.green_colorant)
        && near(profile.blue_colorant, srgb.blue_colorant)
        && [
            (&profile.red_trc, &srgb.red_trc),
            (&profile.green_trc, &srgb.green_trc),
            (&profile.blue_trc, &srgb.blue_trc),
        ]
        .into_iter()
        .all(|(theirs, ours)| match (curve(theirs), curve(ours)) {
            (Some(theirs), Some(ours)) => (0..=32)
                .map(|step| step as f32 / 32.0)
                .all(|at| (theirs.evaluate_value(at) - ours.evaluate_value(at)).abs() < CURVE),
            _ => false,
        })
}

/// CMYK (0 = no ink) to RGB, through the profile if it is a usable one.
pub(super) fn cmyk_to_rgb(cmyk: &[u8], icc: Option<&[u8]>) -> Vec<u8> {
    let profile = icc.and_then(|icc| ColorProfile::new_from_slice(icc).ok());
    if let Some(profile) = profile.filter(|profile| profile.color_space == DataColorSpace::Cmyk) {
        let mut rgb = vec![0; cmyk.len() / 4 * 3];
        let transform = profile.create_transform_8bit(
            Layout::Rgba,
            &ColorProfile::new_srgb(),
            Layout::Rgb,
            TransformOptions::default(),
        );
        if transform.is_ok_and(|transform| transform.transform(cmyk, &mut rgb).is_ok()) {
            return rgb;
        }
    }
    cmyk.as_chunks::<4>()
        .0
        .iter()
        .flat_map(|ink| {
            let light = |ink: u8, black: u8| ((u32::from(255 - ink) * u32::from(255 - black) + 127) / 255) as u8;
            [light(ink[0], ink[3]), light(ink[1], ink[3]), light(ink[2], ink[3])]
        })
        .collect()
}

fn transformed(profile: &ColorProfile, pixels: &[u8], channels: usize) -> Option<Vec<u8>> {
    let layout = if channels == 4 { Layout::Rgba } else { Layout::Rgb };
    let transform =
        profile.create_transform_8bit(layout, &ColorProfile::new_srgb(), layout, TransformOptions::default()).ok()?;
    let mut converted = vec![0; pixels.len()];
    transform.transform(pixels, &mut converted).ok()?;
    if channels == 4 {
        for (to, from) in converted.as_chunks_mut::<4>().0.iter_mut().zip(pixels.as_chunks::<4>().0) {
            to[3] = from[3];
        }
    }
    Some(converted)
}

/// Gray pictures were widened to RGB when they were decoded, so 256 shades cover them all.
fn through_gray(profile: &ColorProfile, pixels: &[u8], channels: usize) -> Option<Vec<u8>> {
    let shades: Vec<u8> = (0..=255).collect();
    let mut table = vec![0; 256 * 3];
    let transform = profile
        .create_transform_8bit(Layout::Gray, &ColorProfile::new_srgb(), Layout::Rgb, TransformOptions::default())
        .ok()?;
    transform.transform(&shades, &mut table).ok()?;
    let mut converted = pixels.to_vec();
    for pixel in converted.chunks_exact_mut(channels) {
        let at = usize::from(pixel[0]) * 3;
        pixel[..3].copy_from_slice(&table[at..at + 3]);
    }
    Some(converted)
}

fn from_exponent(exponent: f32, chromaticities: Option<[(f32, f32); 4]>) -> ColorProfile {
    let mut profile = ColorProfile::new_srgb();
    profile.cicp = None;
    let curve = Some(ToneReprCurve::Parametric(vec![exponent]));
    (profile.red_trc, profile.green_trc, profile.blue_trc) = (curve.clone(), curve.clone(), curve);
    if let Some([white, red, green, blue]) = chromaticities {
        let at = |(x, y): (f32, f32)| Chromaticity { x, y };
        let primaries = ColorPrimaries { red: at(red), green: at(green), blue: at(blue) };
        profile.update_rgb_colorimetry(XyY::new(f64::from(white.0), f64::from(white.1), 1.0), primaries);
    }
    profile
}

/// The number of sRGB that stands for this much light; both from 0 to 1.
pub(super) fn srgb_from_light(light: f64) -> f64 {
    if light <= 0.003_130_8 { light * 12.92 } else { 1.055 * light.min(1.0).powf(1.0 / 2.4) - 0.055 }
}

/// The light that a number of sRGB stands for; both from 0 to 1.
pub(super) fn light_from_srgb(number: f64) -> f64 {
    if number <= 0.040_45 { number / 12.92 } else { ((number + 0.055) / 1.055).powf(2.4) }
}

/// Of luma and chroma as JPEG has them.
pub(super) fn rgb_from_ycc([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(luma) << 16, i32::from(blue) - 128, i32::from(red) - 128);
    let shade = |n: i32| ((n + (1 << 15)) >> 16).clamp(0, 255) as u8;
    [shade(y + 91_881 * cr), shade(y - 22_554 * cb - 46_802 * cr), shade(y + 116_130 * cb)]
}

/// White under D50, as XYZ.
const D50: [f32; 3] = [0.9642, 1.0, 0.8251];
/// XYZ under D50 to linear sRGB, and back; adapted by Bradford.
const LIGHT_FROM_XYZ: [[f32; 3]; 3] =
    [[3.133_856, -1.616_867, -0.490_615], [-0.978_768, 1.916_142, 0.033_454], [0.071_945, -0.228_991, 1.405_243]];
const XYZ_FROM_LIGHT: [[f32; 3]; 3] =
    [[0.436_075, 0.385_065, 0.143_080], [0.222_504, 0.716_879, 0.060_617], [0.013_932, 0.097_105, 0.714_173]];

/// Of L* (0 to 100), a* and b* under D50, as print knows them.
pub(super) fn rgb_from_lab(lab: [f32; 3]) -> [u8; 3] {
    let axis = |f: f32| if f > 6.0 / 29.0 { f * f * f } else { (f - 4.0 / 29.0) * 108.0 / 841.0 };
    let middle = (lab[0] + 16.0) / 116.0;
    let xyz = [D50[0] * axis(middle + lab[1] / 500.0), axis(middle), D50[2] * axis(middle - lab[2] / 200.0)];
    LIGHT_FROM_XYZ.map(|row| {
        let light = dot(row, xyz).max(0.0);
        (srgb_from_light(f64::from(light)) * 255.0).round().clamp(0.0, 255.0) as u8
    })
}

/// L*, a* and b* under D50 of an sRGB colour.
pub(super) fn lab_from_rgb(rgb: [u8; 3]) -> [f32; 3] {
    let axis = |t: f32| if t > 216.0 / 24_389.0 { t.cbrt() } else { t * 841.0 / 108.0 + 4.0 / 29.0 };
    let light = rgb.map(|n| light_from_srgb(f64::from(n) / 255.0) as f32);
    let xyz = XYZ_FROM_LIGHT.map(|row| dot(row, light));
    let [right, middle, left] = [0, 1, 2].map(|n| axis(xyz[n] / D50[n]));
    [116.0 * middle - 16.0, 500.0 * (right - middle), 200.0 * (middle - left)]
}

fn dot(row: [f32; 3], column: [f32; 3]) -> f32 {
    row.iter().zip(column).map(|(a, b)| a * b).sum()
}

/// A profile for code points that differ from sRGB in a way worth converting.
fn from_code_points(primaries: u8, transfer: u8) -> Option<ColorProfile> {
    const SRGB_PRIMARIES: u8 = 1;
    const UNSPECIFIED: u8 = 2;
    if matches!(primaries, SRGB_PRIMARIES | UNSPECIFIED) {
        return None;
    }
    let color_primaries = CicpColorPrimaries::try_from(primaries).ok()?;
    let transfer_characteristics = TransferCharacteristics::try_from(transfer).unwrap_or(TransferCharacteristics::Srgb);
    Some(ColorProfile::new_from_cicp(CicpProfile {
        color_primaries,
        transfer_characteristics,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_p3_moves_outwards() {
        // A P3 green of 200 is a stronger green than an sRGB green of 200, so the numbers of
        // the other channels go down and its own goes up.
        let icc = ColorProfile::new_display_p3().encode().unwrap();
        let mut pixels = vec![60, 200, 60, 128, 128, 128];
        Profile::Icc(icc.clone()).convert(&mut pixels, 3);
        assert!(pixels[1] > 200 && pixels[0] < 60, "{pixels:?}");
        assert!(pixels[3..].iter().all(|v| v.abs_diff(128) <= 1), "{pixels:?}");

        let mut pixels = vec![60, 200, 60, 17];
        Profile::Icc(icc).convert(&mut pixels, 4);
        assert!(pixels[1] > 200 && pixels[3] == 17, "{pixels:?}");

        let mut pixels = vec![60, 200, 60];
        Profile::CodePoints(12, 13).convert(&mut pixels, 3);
        assert!(pixels[1] > 200 && pixels[0] < 60, "{pixels:?}");
    }

    #[test]
    fn only_srgb_is_srgb() {
        let icc = |profile: ColorProfile| Profile::Icc(profile.encode().unwrap());
        assert!(icc(ColorProfile::new_srgb()).is_srgb());
        // Older profiles spell the curve out as a table.
        let mut spelled = ColorProfile::new_srgb();
        let curve = spelled.red_trc.as_ref().unwrap().make_linear_evaluator().unwrap();
        let table: Vec<u16> = (0..1024).map(|n| (curve.evaluate_value(n as f32 / 1023.0) * 65_535.0) as u16).collect();
        for curve in [&mut spelled.red_trc, &mut spelled.green_trc, &mut spelled.blue_trc] {
            *curve = Some(ToneReprCurve::Lut(table.clone()));
        }
        assert!(icc(spelled.clone()).is_srgb());
        spelled.green_trc = Some(ToneReprCurve::Parametric(vec![2.2]));
        assert!(!icc(spelled).is_srgb());
        for other in
            [ColorProfile::new_display_p3(), ColorProfile::new_adobe_rgb(), ColorProfile::new_gray_with_gamma(2.2)]
        {
            assert!(!icc(other).is_srgb());
        }
        assert!(Profile::CodePoints(1, 13).is_srgb() && !Profile::CodePoints(12, 13).is_srgb());
    }

    #[test]
    fn gamma_and_chromaticities_are_heeded() {
        let mut pixels = vec![128; 3];
        Profile::from_gamma(1.0, None).convert(&mut pixels, 3);
        assert!(pixels.iter().all(|v| v.abs_diff(188) <= 2), "{pixels:?}");
        // As old Macs wrote them.
        let mut pixels = vec![128; 3];
        Profile::from_gamma(0.555_56, None).convert(&mut pixels, 3);
        assert!(pixels.iter().all(|v| v.abs_diff(146) <= 3), "{pixels:?}");
        // P3's primaries: the same direction as its profile.
        let p3 = [(0.3127, 0.329), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)];
        let mut pixels = vec![60, 200, 60, 128, 128, 128];
        Profile::from_gamma(0.454_55, Some(p3)).convert(&mut pixels, 3);
        assert!(pixels[1] > 200 && pixels[0] < 60, "{pixels:?}");
        assert!(pixels[3..].iter().all(|v| v.abs_diff(128) <= 2), "{pixels:?}");
    }

    #[test]
    fn lab_and_back() {
        for rgb in [[0, 0, 0], [255, 255, 255], [200, 30, 90], [3, 250, 128], [119, 119, 119]] {
            let back = rgb_from_lab(lab_from_rgb(rgb));
            assert!(back.iter().zip(rgb).all(|(a, b)| a.abs_diff(b) <= 1), "{rgb:?} {back:?}");
        }
        let [l, a, b] = lab_from_rgb([255, 0, 0]);
        assert!((l - 54.3).abs() < 0.2 && (a - 80.8).abs() < 0.5 && (b - 69.9).abs() < 0.5, "{l} {a} {b}");
    }

    #[test]
    fn srgb_and_nonsense_leave_colours_alone() {
        let before = vec![10, 90, 200, 255, 0, 127];
        for profile in [
            Profile::Icc(ColorProfile::new_srgb().encode().unwrap()),
            Profile::Icc(b"nonsense".to_vec()),
            Profile::CodePoints(1, 13),
        ] {
            let mut pixels = before.clone();
            profile.convert(&mut pixels, 3);
            assert!(pixels.iter().zip(&before).all(|(a, b)| a.abs_diff(*b) <= 1), "{pixels:?}");
        }
    }

    #[test]
    fn gray_profiles_bend_the_shades() {
        let mut pixels = vec![128; 3];
        Profile::Icc(ColorProfile::new_gray_with_gamma(1.0).encode().unwrap()).convert(&mut pixels, 3);
        assert!(pixels[0] > 170 && pixels[0] == pixels[1], "{pixels:?}");
    }

    #[test]
    fn ink_covers_light() {
        assert_eq!(cmyk_to_rgb(&[0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255], None), [255, 255, 255, 0, 255, 255, 0, 0, 0]);
    }
}
