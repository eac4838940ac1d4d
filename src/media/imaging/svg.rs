//! Drawings in SVG, plain or gzipped, through resvg.
//!
//! In: the bytes of a file, and how small the result will be. Out: pixels of just that size, with
//! transparency.
//!
//! Invariant: nothing outside the file is ever looked at: no path, no address, no font of the
//! system. What a file may ask for (bytes once inflated, elements, depth, entities, references,
//! pixels of pictures inside it) is counted before it is carried out.
//!
//! A drawing has no pixels of its own, so it counts as [`NATURAL_SIDE`] pixels long if it
//! claims to be smaller, and as [`LARGEST_SIDE`] if it claims to be larger.
//!
//! Scripts, animation and foreign elements are left out by resvg. Text is set in the two fonts of
//! this directory, whatever font it asks for.

use std::borrow::Cow;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use flate2::read::GzDecoder;
use resvg::tiny_skia::Pixmap;
use resvg::tiny_skia::Transform;
use resvg::usvg;
use resvg::usvg::ImageHrefResolver;
use resvg::usvg::ImageKind;
use resvg::usvg::Tree;
use resvg::usvg::fontdb;
use resvg::usvg::roxmltree::Document;
use resvg::usvg::roxmltree::ParsingOptions;

use super::Limits;
use super::canvas;
use super::canvas::Canvas;
use super::decode::Source;
use super::error::ImageError;
use super::format::SourceFormat;

const NATURAL_SIDE: f32 = 2048.0;
const LARGEST_SIDE: f32 = 4096.0;

const LARGEST_TEXT_BYTES: usize = 8 << 20;
const MOST_NODES: u32 = 200_000;
/// Of elements inside one another.
const DEEPEST: u32 = 100;
/// Elements, and letters to be set, after every reference has been carried out.
const MOST_USED: u64 = 300_000;
/// Filter effects, an octave of noise counting as one, times the elements that are filtered.
const MOST_FILTERED: u64 = 500;
/// Of what entities may swell to.
const MOST_ENTITY_BYTES: usize = 4 << 20;
/// How much is looked at to recognise a drawing.
const PROLOG_BYTES: usize = 16 << 10;

const FAMILY: &str = "DejaVu Sans";
const FONTS: [&[u8]; 2] = [include_bytes!("fonts/DejaVuSans.ttf"), include_bytes!("fonts/DejaVuSans-Bold.ttf")];

/// A drawing that has been read.
pub struct Drawing {
    tree: Tree,
    pub width: u32,
    pub height: u32,
}

/// Whether this is a drawing: its first element is `svg`, whatever stands before it.
pub fn is_svg(source: &[u8]) -> bool {
    let Some(bytes) = inflated(source, PROLOG_BYTES) else { return false };
    let text = text(&bytes);
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    loop {
        let end = if rest.starts_with("<?") {
            "?>"
        } else if rest.starts_with("<!--") {
            "-->"
        } else if rest.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("<!doctype")) {
            // Declarations in brackets hold brackets and angles of their own, but no `]>`.
            let is_long = rest.find('[').is_some_and(|at| rest.find('>').is_none_or(|end| at < end));
            if is_long { "]>" } else { ">" }
        } else {
            break;
        };
        let Some((_, after)) = rest.split_once(end) else { return false };
        rest = after.trim_start();
    }
    let name = rest.strip_prefix('<').and_then(|tag| tag.split([' ', '\t', '\r', '\n', '>', '/']).next());
    name.is_some_and(|name| name == "svg" || name.ends_with(":svg"))
}

impl Drawing {
    /// Reads the drawing.
    pub fn open(source: &[u8], limits: &Limits) -> Result<Self, ImageError> {
        let too_much = |what: &str| ImageError::Unsupported(format!("SVG with too much {what}"));
        let bytes = inflated(source, LARGEST_TEXT_BYTES + 1).ok_or_else(|| damaged("the text cannot be inflated"))?;
        if bytes.len() > LARGEST_TEXT_BYTES {
            return Err(too_much("text"));
        }
        let text = text(&bytes);
        if !are_entities_small(&text) {
            return Err(too_much("text in entities"));
        }
        let options = ParsingOptions { allow_dtd: true, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
        let document = Document::parse_with_options(&text, options).map_err(damaged)?;
        if !is_shallow(&document) {
            return Err(too_much("nesting"));
        }
        if !are_uses_few(&document) {
            return Err(too_much("repetition"));
        }
        if filtering(&document) > MOST_FILTERED {
            return Err(too_much("filtering"));
        }
        let tree = Tree::from_xmltree(&document, &options_within(limits)).map_err(damaged)?;
        let (width, height) = (tree.size().width(), tree.size().height());
        let longer = width.max(height);
        let scale = longer.clamp(NATURAL_SIDE, LARGEST_SIDE) / longer;
        let side = |length: f32| (length * scale).round().max(1.0) as u32;
        Ok(Self { width: side(width), height: side(height), tree })
    }

    /// Draws, in as many pixels as the result will have.
    pub fn pixels(self, shrink: f64, limits: &Limits) -> Result<Canvas, ImageError> {
        let side = |length: u32| ((f64::from(length) * shrink).round() as u32).clamp(1, length);
        let (width, height) = (side(self.width), side(self.height));
        limits.check(width, height)?;
        let mut pixmap = Pixmap::new(width, height).ok_or(ImageError::TooLarge { width, height })?;
        let size = self.tree.size();
        let transform = Transform::from_scale(width as f32 / size.width(), height as f32 / size.height());
        resvg::render(&self.tree, transform, &mut pixmap.as_mut());
        let mut pixels = pixmap.take();
        canvas::unpremultiply(&mut pixels);
        Ok(Canvas::rgba(width, height, pixels))
    }
}

fn damaged(what: impl std::fmt::Display) -> ImageError {
    ImageError::Damaged(format!("SVG: {what}"))
}

/// The bytes, inflated if they are gzipped, and not more than this many of them.
fn inflated(source: &[u8], most: usize) -> Option<Cow<'_, [u8]>> {
    if !source.starts_with(b"\x1f\x8b\x08") {
        return Some(Cow::Borrowed(source.get(..most).unwrap_or(source)));
    }
    let mut bytes = Vec::new();
    let read = GzDecoder::new(source).take(most as u64).read_to_end(&mut bytes);
    // A missing tail is the parser's to complain about.
    (read.is_ok() || !bytes.is_empty()).then_some(Cow::Owned(bytes))
}

/// UTF-8, UTF-16 with its mark, or else Latin-1.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    let sixteen = |read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|unit| read(*unit)).collect();
        Cow::Owned(String::from_utf16_lossy(&units))
    };
    match bytes {
        [0xFF, 0xFE, ..] => sixteen(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => sixteen(u16::from_be_bytes),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            // Cut in the middle of a letter, as the beginning of a long file may be.
            Err(error) if error.error_len().is_none() => {
                String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default())
            }
            Err(_) => Cow::Owned(bytes.iter().map(|&b| char::from(b)).collect()),
        },
    }
}

/// Whether the entities that a file declares cannot make it swell. None may refer to another.
fn are_entities_small(text: &str) -> bool {
    let (mut rest, mut longest) = (text, 0);
    while let Some((_, after)) = rest.split_once("<!ENTITY") {
        let Some((_, quoted)) = after.split_once(['"', '\'']) else { return false };
        let quote =
            if after.find('"').is_some_and(|at| after.find('\'').is_none_or(|other| at < other)) { '"' } else { '\'' };
        let Some((value, after)) = quoted.split_once(quote) else { return false };
        if value.replace("&#", "").contains('&') {
            return false;
        }
        longest = longest.max(value.len());
        rest = after;
    }
    longest == 0 || text.matches('&').count().saturating_mul(longest) <= MOST_ENTITY_BYTES
}

fn is_shallow(document: &Document<'_>) -> bool {
    // A node comes after its parent and is numbered in that order.
    let mut depths: Vec<u32> = Vec::new();
    document.descendants().all(|node| {
        let above = node.parent().and_then(|parent| depths.get(parent.id().get_usize()));
        let depth = above.map_or(0, |depth| depth + 1);
        depths.push(depth);
        depth <= DEEPEST
    })
}

/// Whether the elements stay few when every reference is replaced by what it refers to.
fn are_uses_few(document: &Document<'_>) -> bool {
    let nodes: Vec<_> = document.descendants().collect();
    let mut named = std::collections::HashMap::new();
    for node in &nodes {
        if let Some(id) = node.attribute("id") {
            named.entry(id).or_insert(node.id().get_usize());
        }
    }
    // Everything an element pulls in: by `use`, and by the patterns, masks, markers and so on of
    // its attributes and style.
    let pulls = |node: &usvg::roxmltree::Node<'_, '_>| -> Vec<usize> {
        let mut targets = Vec::new();
        for attribute in node.attributes() {
            let value = attribute.value();
            if attribute.name() == "href" {
                targets.extend(value.trim().strip_prefix('#').and_then(|id| named.get(id)));
            }
            for reference in value.split("url(").skip(1) {
                let id = reference.split(')').next().unwrap_or_default();
                let id = id.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
                targets.extend(id.strip_prefix('#').and_then(|id| named.get(id)));
            }
        }
        targets
    };
    let edges: Vec<Vec<usize>> = nodes.iter().map(&pulls).collect();
    // Sizes settle within as many rounds as references are deep; a circle grows past the limit,
    // or slowly, and then resvg breaks it.
    let own: Vec<u64> = nodes.iter().map(weight).collect();
    let mut sizes = own.clone();
    for _ in 0..DEEPEST {
        let mut next = own.clone();
        for at in (0..nodes.len()).rev() {
            let pulled = edges.get(at).into_iter().flatten().filter_map(|target| sizes.get(*target)).sum::<u64>();
            let Some(own) = next.get_mut(at) else { return false };
            *own = own.saturating_add(pulled).min(1 << 40);
            let own = *own;
            if let Some(parent) = nodes.get(at).and_then(usvg::roxmltree::Node::parent)
                && let Some(sum) = next.get_mut(parent.id().get_usize())
            {
                *sum = sum.saturating_add(own);
            }
        }
        if next == sizes {
            break;
        }
        sizes = next;
    }
    sizes.first().is_some_and(|whole| *whole <= MOST_USED)
}

/// How often an effect is computed over some part of the drawing.
fn filtering(document: &Document<'_>) -> u64 {
    let nodes = || document.descendants().filter(usvg::roxmltree::Node::is_element);
    let octaves = |node: &usvg::roxmltree::Node<'_, '_>| {
        node.attribute("numOctaves").and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or(1.0).clamp(1.0, 1e6)
            as u64
    };
    let effects = nodes().filter(|node| node.tag_name().name().starts_with("fe"));
    let is_filtered = |node: &usvg::roxmltree::Node<'_, '_>| {
        node.has_attribute("filter") || node.attribute("style").is_some_and(|style| style.contains("filter"))
    };
    let filtered = nodes().filter(is_filtered).count() as u64;
    // Style sheets may name any number of elements.
    let filtered = if nodes().any(|node| node.tag_name().name() == "style") { filtered.max(10) } else { filtered };
    effects.map(|effect| octaves(&effect)).fold(0, u64::saturating_add).saturating_mul(filtered)
}

/// One, and one for every letter that is to be set.
fn weight(node: &usvg::roxmltree::Node<'_, '_>) -> u64 {
    let name = node.parent().map(|parent| parent.tag_name().name());
    let is_set = matches!(name, Some("text" | "tspan" | "textPath" | "tref" | "a" | "switch"));
    1 + node.text().filter(|_| node.is_text() && is_set).map_or(0, str::len) as u64
}

/// What resvg may use: two fonts, and the pictures inside the file as long as they are small.
fn options_within(limits: &Limits) -> usvg::Options<'static> {
    let mut fonts = fontdb::Database::new();
    for font in FONTS {
        fonts.load_font_source(fontdb::Source::Binary(Arc::new(font)));
    }
    fonts.set_serif_family(FAMILY);
    fonts.set_sans_serif_family(FAMILY);
    fonts.set_monospace_family(FAMILY);
    fonts.set_cursive_family(FAMILY);
    fonts.set_fantasy_family(FAMILY);
    let (limits, spent) = (limits.clone(), AtomicU64::new(0));
    usvg::Options {
        font_family: FAMILY.to_owned(),
        fontdb: Arc::new(fonts),
        image_href_resolver: ImageHrefResolver {
            resolve_data: Box::new(move |_, data, _| {
                let picture = match SourceFormat::sniff(&data)? {
                    SourceFormat::Jpeg => ImageKind::JPEG,
                    SourceFormat::Png => ImageKind::PNG,
                    SourceFormat::Gif => ImageKind::GIF,
                    SourceFormat::Webp => ImageKind::WEBP,
                    _ => return None,
                };
                let (width, height) = Source::open(&data, &limits).ok()?.size();
                let pixels = u64::from(width) * u64::from(height);
                let before = spent.fetch_add(pixels, Ordering::Relaxed);
                (before + pixels <= limits.max_pixels / 2).then(|| picture(data))
            }),
            resolve_string: Box::new(|_, _| None),
        },
        ..usvg::Options::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::Rng;
    use proptest::test_runner::RngAlgorithm;
    use proptest::test_runner::TestRng;

    use super::super::Facts;
    use super::super::OutputFormat;
    use super::super::Recipe;
    use super::super::probe;
    use super::super::render;
    use super::*;

    fn drawing(body: &str) -> String {
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' width='200' height='100'>\
             {body}</svg>"
        )
    }

    fn facts(source: impl AsRef<[u8]>) -> Result<Facts, ImageError> {
        probe(source.as_ref(), &Limits::default())
    }

    fn seen(source: impl AsRef<[u8]>, query: &str) -> image::RgbaImage {
        let recipe = Recipe::from_canonical(query).unwrap().with_format(OutputFormat::Png);
        let made = render(source.as_ref(), &recipe, &Limits::default(), &|| false).unwrap();
        image::load_from_memory(&made.bytes).unwrap().into_rgba8()
    }

    fn gzipped(text: &str) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn known_by_its_first_element() {
        for yes in [
            "<svg/>",
            "<svg>",
            "\u{feff} \n<?xml version='1.0'?><!-- <html> --><!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'x'>\n<svg\n>",
            "<!DOCTYPE svg [<!ENTITY a '>'>]><s:svg xmlns:s='x'>",
        ] {
            assert!(is_svg(yes.as_bytes()), "{yes}");
            assert!(is_svg(&gzipped(yes)), "{yes}");
            let wide: Vec<u8> =
                "\u{feff}".encode_utf16().chain(yes.encode_utf16()).flat_map(u16::to_le_bytes).collect();
            assert!(is_svg(&wide), "{yes}");
        }
        for no in
            ["<svgs/>", "<html><svg/></html>", "svg", "<!-- <svg>", "<?xml <svg>", "<!doctype svg [ <svg>", "", "<"]
        {
            assert!(!is_svg(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn drawn_in_the_size_that_is_wanted() {
        let source = drawing("<rect width='100' height='100' fill='#c81414'/>");
        let said = facts(&source).unwrap();
        assert_eq!((said.format, said.width, said.height, said.has_alpha), (SourceFormat::Svg, 2048, 1024, true));
        for (query, size) in [("", (2048, 1024)), ("resize=300,300", (300, 150)), ("crop=50,50", (50, 50))] {
            let picture = seen(&source, query);
            assert_eq!(picture.dimensions(), size, "{query}");
        }
        let picture = seen(&source, "resize=300,300");
        assert_eq!(picture.get_pixel(10, 75).0, [200, 20, 20, 255]);
        assert_eq!(picture.get_pixel(290, 75).0[3], 0);
        // The edge is sharp: it was drawn, not shrunk.
        assert_eq!((picture.get_pixel(149, 75).0[3], picture.get_pixel(150, 75).0[3]), (255, 0));
        assert_eq!(seen(gzipped(&source), "resize=300,300"), picture);
        let huge = "<svg xmlns='http://www.w3.org/2000/svg' width='1e6' height='1e3'/>";
        assert_eq!(facts(huge).map(|f| (f.width, f.height)), Ok((4096, 4)));
        let bare = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 10 40'/>";
        assert_eq!(facts(bare).map(|f| (f.width, f.height)), Ok((512, 2048)));
    }

    #[test]
    fn text_is_set() {
        for family in ["", "font-family='Helvetica'", "font-family='Nobody Knows, serif' font-weight='bold'"] {
            let source = drawing(&format!("<text x='10' y='70' font-size='60' {family}>Größe Жук</text>"));
            let dark = seen(source, "resize=200,").pixels().filter(|pixel| pixel.0[3] > 128).count();
            assert!((1500..9000).contains(&dark), "{family}: {dark}");
        }
    }

    #[test]
    fn pictures_inside_are_shown_and_nothing_outside_is_touched() {
        use base64::Engine as _;
        let png = super::super::png::encode(&Canvas::rgb(4, 4, [9, 200, 9].repeat(16)), 72).unwrap();
        let inside = base64::engine::general_purpose::STANDARD.encode(&png);
        let shown = drawing(&format!(
            "<image width='200' height='100' preserveAspectRatio='none' href='data:image/png;base64,{inside}'/>"
        ));
        assert_eq!(seen(shown, "resize=20,").get_pixel(10, 5).0, [9, 200, 9, 255]);

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.png");
        std::fs::write(&path, &png).unwrap();
        let nested = base64::engine::general_purpose::STANDARD.encode(drawing("<rect width='200' height='100'/>"));
        for address in [
            path.display().to_string(),
            format!("file://{}", path.display()),
            "http://127.0.0.1:9/x.png".to_owned(),
            format!("data:image/svg+xml;base64,{nested}"),
        ] {
            for element in ["image", "use", "feImage"] {
                let body = format!("<{element} width='200' height='100' href='{address}' xlink:href='{address}'/>");
                let empty = seen(drawing(&body), "resize=20,");
                assert!(empty.pixels().all(|pixel| pixel.0[3] == 0), "{element} {address}");
            }
        }
        let entity = format!("<!DOCTYPE svg [<!ENTITY x SYSTEM '{}'>]>{}", path.display(), drawing("<text>&x;</text>"));
        let _ = facts(entity);
    }

    #[test]
    fn bombs_are_refused() {
        let laughs = (1..10).fold("<!ENTITY e0 'ha'>".to_owned(), |all, n| {
            format!("{all}<!ENTITY e{n} '{}'>", format!("&e{};", n - 1).repeat(10))
        });
        let swollen = format!("<!ENTITY e '{}'>", "x".repeat(100_000));
        let doubled = (1..30).fold("<g id='g0'><rect width='1' height='1'/></g>".to_owned(), |all, n| {
            format!("{all}<g id='g{n}'><use xlink:href='#g{0}'/><use href='#g{0}'/></g>", n - 1)
        });
        let patterns = (1..30).fold("<pattern id='p0'/>".to_owned(), |all, n| {
            let rect = format!("<rect width='9' height='9' fill='url(#p{})'/>", n - 1).repeat(4);
            format!("{all}<pattern id='p{n}' width='9' height='9' patternUnits='userSpaceOnUse'>{rect}</pattern>")
        });
        let patterns = format!("{patterns}<rect width='9' height='9' fill='url(#p29)'/>");
        for (name, source) in [
            ("laughs", format!("<!DOCTYPE svg [{laughs}]>{}", drawing("<text>&e9;</text>"))),
            (
                "swollen",
                format!("<!DOCTYPE svg [{swollen}]>{}", drawing(&format!("<text>{}</text>", "&e;".repeat(10_000)))),
            ),
            ("deep", drawing(&format!("{}{}", "<g>".repeat(5000), "</g>".repeat(5000)))),
            ("many", drawing(&"<g/>".repeat(300_000))),
            ("letters", drawing(&format!("<text>{}</text>", "ab ".repeat(200_000)))),
            ("doubled", drawing(&doubled)),
            ("patterns", drawing(&patterns)),
            ("long", drawing(&" ".repeat(9 << 20))),
        ] {
            assert!(facts(&source).is_err(), "{name}");
            assert!(facts(gzipped(&source)).is_err(), "{name}, gzipped");
        }
        // Those of an honest program pass.
        let names = "<!DOCTYPE svg [<!ENTITY ns_svg 'http://www.w3.org/2000/svg'>]><svg xmlns='&ns_svg;' width='9' height='9'/>";
        assert!(facts(names).is_ok());
    }

    #[test]
    fn broken_files_never_panic() {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let limits = Limits { max_pixels: 4_000_000, max_decoded_bytes: 64 << 20, ..Limits::default() };
        let recipe = Recipe::from_canonical("resize=40,40&format=png").unwrap();
        let source = drawing(
            "<defs><linearGradient id='a'><stop offset='0' stop-color='red'/><stop offset='1'/></linearGradient>\
             <filter id='f'><feGaussianBlur stdDeviation='3'/></filter><clipPath id='c'><circle r='40'/></clipPath>\
             <mask id='m'><rect width='50' height='50' fill='white'/></mask></defs>\
             <style>.b{stroke:blue}</style><g transform='rotate(10) scale(2)' clip-path='url(#c)' mask='url(#m)'>\
             <path class='b' d='M10 10 L50 50 C 1 2 3 4 5 6 A 5 5 0 0 1 9 9 z' fill='url(#a)' filter='url(#f)'/></g>\
             <use href='#a'/><text x='5' y='20'>ab<tspan dx='3'>c</tspan></text>",
        );
        for (source, rounds) in [(source.clone().into_bytes(), 1500), (gzipped(&source), 300)] {
            for part in 0..32 {
                let _ = render(&source[..source.len() * part / 32], &recipe, &limits, &|| false);
            }
            for _ in 0..rounds {
                let mut broken = source.clone();
                for _ in 0..=rng.next_u32() % 4 {
                    let (at, from) = (rng.next_u32() as usize % broken.len(), rng.next_u32() as usize % broken.len());
                    broken[at] = if rng.next_u32().is_multiple_of(2) { broken[from] } else { rng.next_u32() as u8 };
                }
                let _ = render(&broken, &recipe, &limits, &|| false);
            }
        }
    }
}
