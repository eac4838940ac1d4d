//! PDF: one page of it, through hayro.
//!
//! In: the bytes of a file, the page, and how small the result will be. Out: pixels of just that
//! size, on white paper.
//!
//! Invariant: nothing outside the file is ever looked at, and the paper is never larger than
//! [`LARGEST_SIDE`]. What streams inside swell to is bounded by the worker's memory, and how
//! long drawing takes by its deadline: hayro counts neither. Images of a size that is beyond the
//! limits are refused where that size is written in the open.
//!
//! A page has no pixels of its own: it counts as printed at [`DOTS_PER_INCH`], or finer if that
//! is less than the largest result there is.

use hayro::PixmapSettings;
use hayro::RenderCache;
use hayro::RenderSettings;
use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_syntax::LoadPdfError;
use hayro::hayro_syntax::Pdf;
use hayro::hayro_syntax::page::Page;
use hayro::vello_cpu::color::palette::css::WHITE;

use super::Limits;
use super::canvas::Canvas;
use super::error::ImageError;

const DOTS_PER_INCH: f32 = 144.0;
const NATURAL_SIDE: f32 = 2048.0;
const LARGEST_SIDE: f32 = 4096.0;
/// The reader keeps the whole file in memory.
const LARGEST_FILE_BYTES: usize = 256 << 20;
/// A signature may stand behind a printer's preamble.
const PREAMBLE_BYTES: usize = 1024;

/// A document that has been read, and a page of it.
pub struct Document {
    pdf: Pdf,
    index: usize,
    pub width: u32,
    pub height: u32,
}

/// Whether the signature is where it may be.
pub fn is_pdf(source: &[u8]) -> bool {
    let head = source.get(..PREAMBLE_BYTES).unwrap_or(source);
    head.windows(5).any(|window| window == b"%PDF-")
}

impl Document {
    /// Reads the document's tables and looks the page up, counted from 1.
    pub fn open(source: &[u8], page: u32, limits: &Limits) -> Result<Self, ImageError> {
        if source.len() > LARGEST_FILE_BYTES {
            return Err(ImageError::Unsupported("PDF of more than 256 MiB".to_owned()));
        }
        if let Some((width, height)) = vast_image(source, limits) {
            return Err(ImageError::TooLarge { width, height });
        }
        let pdf = Pdf::new(source.to_vec()).map_err(|error| match error {
            LoadPdfError::Decryption(_) => ImageError::Unsupported("PDF that asks for a password".to_owned()),
            LoadPdfError::Invalid => ImageError::Damaged("PDF: the document's tables cannot be read".to_owned()),
        })?;
        let index = (page as usize).saturating_sub(1);
        let (count, size) = (pdf.pages().len(), pdf.pages().get(index).map(Page::render_dimensions));
        if count == 0 {
            return Err(ImageError::Damaged("PDF: there are no pages".to_owned()));
        }
        let (width, height) = size.ok_or(ImageError::NoPage(page))?;
        if !(width.is_finite() && height.is_finite() && width > 0.0 && height > 0.0) {
            return Err(ImageError::Damaged("PDF: the page has no size".to_owned()));
        }
        let longer = width.max(height);
        let scale = (longer * DOTS_PER_INCH / 72.0).clamp(NATURAL_SIDE, LARGEST_SIDE) / longer;
        let side = |length: f32| (length * scale).round().max(1.0) as u32;
        Ok(Self { index, width: side(width), height: side(height), pdf })
    }

    /// Draws the page, in as many pixels as the result will have.
    pub fn pixels(self, shrink: f64, limits: &Limits) -> Result<Canvas, ImageError> {
        let side = |length: u32| ((f64::from(length) * shrink).round() as u32).clamp(1, length);
        let (width, height) = (side(self.width), side(self.height));
        limits.check(width, height)?;
        let page = self.pdf.pages().get(self.index).ok_or_else(|| ImageError::NotRendered("no page".to_owned()))?;
        let (points_wide, points_high) = page.render_dimensions();
        // The renderer cuts what is behind the point, so a little is added.
        let scale = |pixels: u32, points: f32| (pixels as f32 + 0.01) / points;
        let paper =
            PixmapSettings { x_scale: scale(width, points_wide), y_scale: scale(height, points_high), bg_color: WHITE };
        let settings = InterpreterSettings::default();
        let pixmap = hayro::render(page, &RenderCache::new(), &settings, &RenderSettings::default(), &paper);
        let (width, height) = (u32::from(pixmap.width()), u32::from(pixmap.height()));
        // White paper lets nothing through, so premultiplied is what it was.
        let pixels = pixmap.data_as_u8_slice().as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
        Ok(Canvas::rgb(width, height, pixels))
    }
}

/// An image inside whose size is beyond the limits. Only what is written in the open is seen; the
/// worker's memory bounds the rest.
fn vast_image(source: &[u8], limits: &Limits) -> Option<(u32, u32)> {
    const WIDTH: &[u8] = b"/Width";
    /// Of a dictionary.
    const NEAR: usize = 512;
    let number_after = |bytes: &[u8], name: &[u8]| {
        let at = bytes.windows(name.len()).position(|window| window == name)?;
        let digits = bytes.get(at + name.len()..)?.trim_ascii_start();
        let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
        std::str::from_utf8(digits.get(..end)?).ok()?.parse::<u32>().ok()
    };
    source.windows(WIDTH.len()).enumerate().filter(|(_, window)| *window == WIDTH).find_map(|(at, _)| {
        let around = source.get(at.saturating_sub(NEAR)..(at + NEAR).min(source.len()))?;
        let after = source.get(at..(at + NEAR).min(source.len()))?;
        let (width, height) = (number_after(after, WIDTH)?, number_after(around, b"/Height")?);
        limits.check(width, height).is_err().then_some((width, height))
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::Rng;
    use proptest::test_runner::RngAlgorithm;
    use proptest::test_runner::TestRng;

    use super::super::OutputFormat;
    use super::super::Recipe;
    use super::super::SourceFormat;
    use super::super::probe;
    use super::super::render;
    use super::*;

    /// Two pages of 300 x 200 points, the second one turned: a red box at the bottom left, a word.
    fn document(trailer: &str) -> Vec<u8> {
        let content = "1 0 0 rg 0 0 100 100 re f 0 g BT /F 40 Tf 120 120 Td (Words) Tj ET";
        let page = "/Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 5 0 R \
                    /Resources << /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>";
        let objects = [
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            "<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 2 >>".to_owned(),
            format!("<< {page} >>"),
            format!("<< {page} /Rotate 90 >>"),
            format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
        ];
        let mut file = b"%PDF-1.4\n".to_vec();
        let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
        for (n, object) in objects.iter().enumerate() {
            let _ = writeln!(table, "{:010} 00000 n ", file.len());
            file.extend(format!("{} 0 obj\n{object}\nendobj\n", n + 1).bytes());
        }
        let start = file.len();
        let end =
            format!("trailer\n<< /Size {} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n", objects.len() + 1);
        file.extend(table.bytes().chain(end.bytes()));
        file
    }

    fn seen(source: &[u8], query: &str) -> Result<image::RgbImage, ImageError> {
        let recipe = Recipe::from_canonical(query).unwrap().with_format(OutputFormat::Png);
        let made = render(source, &recipe, &Limits::default(), &|| false)?;
        Ok(image::load_from_memory(&made.bytes).unwrap().into_rgb8())
    }

    #[test]
    fn pages_are_drawn_on_white() {
        let source = document("");
        let facts = probe(&source, &Limits::default()).unwrap();
        assert_eq!((facts.format, facts.width, facts.height), (SourceFormat::Pdf, 2048, 1365));
        assert!(!facts.has_alpha);
        let first = seen(&source, "resize=300,300").unwrap();
        assert_eq!(first.dimensions(), (300, 200));
        assert_eq!(first.get_pixel(50, 150).0, [255, 0, 0]);
        assert_eq!(first.get_pixel(50, 50).0, [255; 3]);
        // The word is set although the file brings no font.
        let dark = |picture: &image::RgbImage| picture.pixels().filter(|pixel| pixel.0 == [0; 3]).count();
        assert!((300..2500).contains(&dark(&first)), "{}", dark(&first));
        let second = seen(&source, "page=2&resize=300,300").unwrap();
        assert_eq!(second.dimensions(), (200, 300));
        assert_eq!(second.get_pixel(50, 50).0, [255, 0, 0]);
        let behind = [b"%!printer\n", &source[..]].concat();
        assert!(is_pdf(&behind));
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let beyond = seen(&document(""), "page=3").unwrap_err();
        assert_eq!(beyond, ImageError::NoPage(3));
        let locked = "/ID [<00> <00>] /Encrypt << /Filter /Standard /V 2 /R 3 /Length 128 /P -4 \
             /O <0000000000000000000000000000000000000000000000000000000000000000> \
             /U <0000000000000000000000000000000000000000000000000000000000000000> >>";
        assert!(matches!(probe(&document(locked), &Limits::default()), Err(ImageError::Unsupported(_))));
        assert!(matches!(probe(b"%PDF-1.7\nnothing", &Limits::default()), Err(ImageError::Damaged(_))));
        let png = super::super::png::encode(&Canvas::rgb(1, 1, vec![0; 3]), 72).unwrap();
        assert_eq!(seen(&png, "page=2").unwrap_err(), ImageError::NoPage(2));
        assert!(seen(&png, "page=1").is_ok());
    }

    #[test]
    fn broken_files_never_panic() {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let recipe = Recipe::from_canonical("resize=60,60&format=png").unwrap();
        let source = document("");
        for part in 0..64 {
            let _ = render(&source[..source.len() * part / 64], &recipe, &Limits::default(), &|| false);
        }
        for _ in 0..1500 {
            let mut broken = source.clone();
            for _ in 0..=rng.next_u32() % 4 {
                let (at, from) = (rng.next_u32() as usize % broken.len(), rng.next_u32() as usize % broken.len());
                broken[at] = if rng.next_u32().is_multiple_of(2) { broken[from] } else { rng.next_u32() as u8 };
            }
            let _ = render(&broken, &recipe, &Limits::default(), &|| false);
        }
    }
}
