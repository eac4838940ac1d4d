//! HEIC in: the still pictures of phones, HEVC in a HEIF container.
//!
//! In: the bytes of a file, and how small the result will be. Out: first what the container
//! says, then, on demand, pixels. The container is read here, in safe Rust; only the coded
//! tiles themselves go to libde265.
//!
//! Invariant: every size is held against the limits, and all sizes against each other, before a
//! decoder is started. A picture is a coded item or a grid of coded items and nothing deeper,
//! so whatever refers to whatever, work ends.
//!
//! Phones store tiles of 512 pixels. Each is decoded, shrunk onto the canvas and forgotten, so
//! that memory is a tile and the shrunk canvas, however large the photograph.
//!
//! Gain maps, depth and other companions of a picture are not looked at. Overlays and the
//! frames of image sequences are refused in words.

mod bytes;
mod hevc;
mod meta;
mod paint;
mod sps;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::Limits;
use super::canvas::Canvas;
use super::color::Profile;
use super::container::boxes;
use super::error::ImageError;
use super::orientation::Orientation;
use bytes::Bytes;
use hevc::Config;
use hevc::Picture;
use hevc::Signal;
use meta::Meta;
use paint::Part;
use paint::Target;

const MAX_TILES: usize = 1024;

/// An opened file whose container has been read.
pub struct Heic<'a> {
    meta: Meta<'a>,
    main: Layer,
    alpha: Option<Layer>,
    /// Smaller copies of the picture.
    thumbnails: Vec<Layer>,
    pub animated: bool,
    pub orientation: Orientation,
}

/// What kind of picture a file's first item is, for files whose brands do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Hevc,
    Av1,
    Other,
}

/// A picture as the container describes it: one coded item, or many in rows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    item: u32,
    tiles: Vec<u32>,
    columns: u32,
    tile: (u32, u32),
    /// Of all tiles together, less what the grid cuts off.
    full: (u32, u32),
    /// The part that is shown.
    window: Window,
    orientation: Orientation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

/// How the first item of a file is coded; `None` if its tables cannot be read.
pub fn coding(file: &[u8]) -> Option<Coding> {
    let meta = Meta::read(file).ok()?;
    let mut kind = meta.kind(meta.primary)?;
    if &kind == b"grid" {
        kind = meta.kind(*meta.refers_to(meta.primary, *b"dimg").first()?)?;
    }
    Some(match &kind {
        b"hvc1" | b"hev1" => Coding::Hevc,
        b"av01" => Coding::Av1,
        _ => Coding::Other,
    })
}

impl<'a> Heic<'a> {
    /// Reads the container.
    pub fn open(file: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        const ALPHA: [&[u8]; 2] = [b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"];
        let meta = Meta::read(file)?;
        let main = Layer::read(&meta, meta.primary, limits)?;
        let is_alpha = |item: &u32| {
            let kind = meta.property(*item, *b"auxC").and_then(|mut body| {
                body.version()?;
                body.text()
            });
            kind.is_some_and(|kind| ALPHA.contains(&kind))
        };
        let alpha = meta.referring_to(meta.primary, *b"auxl").find(is_alpha);
        let alpha =
            alpha.and_then(|item| Layer::read(&meta, item, limits).ok()).filter(|alpha| alpha.full == main.full);
        let thumbnails =
            meta.referring_to(meta.primary, *b"thmb").filter_map(|item| Layer::read(&meta, item, limits).ok());
        let thumbnails = thumbnails.filter(|small| small.is_copy_of(&main)).collect();
        let animated = boxes(file).any(|(kind, _)| kind == b"moov");
        Ok(Self { alpha, thumbnails, animated, orientation: main.orientation, main, meta })
    }

    /// Width and height as stored, before orientation.
    pub fn size(&self) -> (u32, u32) {
        (self.main.window.width, self.main.window.height)
    }

    pub fn has_alpha(&self) -> bool {
        self.alpha.is_some()
    }

    /// The EXIF block, from its TIFF header on.
    pub fn exif(&self, limits: &Limits) -> Option<Cow<'a, [u8]>> {
        let block = self.described_by(|meta, item| meta.kind(item) == Some(*b"Exif"))?;
        // The header is at an offset, as some begin with "Exif\0\0".
        let start = usize::try_from(Bytes(&block).u32()?).ok()?.checked_add(4)?;
        let block = match block {
            Cow::Borrowed(block) => Cow::Borrowed(block.get(start..)?),
            Cow::Owned(block) => Cow::Owned(block.get(start..)?.to_vec()),
        };
        (block.len() <= limits.max_exif_bytes).then_some(block)
    }

    pub fn xmp(&self, limits: &Limits) -> Option<Cow<'a, [u8]>> {
        let block = self.described_by(|meta, item| meta.content_type(item) == b"application/rdf+xml")?;
        (block.len() <= limits.max_text_bytes).then_some(block)
    }

    /// Decodes; the canvas has at least `1 / denominator` of the picture's pixels along a side.
    pub fn decode(&self, denominator: u32, limits: &Limits) -> Result<(Canvas, Profile), ImageError> {
        let wanted = (self.main.window.width.div_ceil(denominator), self.main.window.height.div_ceil(denominator));
        let suffices = |small: &&Layer| small.window.width >= wanted.0 && small.window.height >= wanted.1;
        let smallest = |small: &&Layer| u64::from(small.window.width) * u64::from(small.window.height);
        if self.alpha.is_none()
            && let Some(small) = self.thumbnails.iter().filter(suffices).min_by_key(smallest)
            // A thumbnail that is broken is no loss.
            && let Ok(done) = self.render(small, None, 1, limits)
        {
            return Ok(done);
        }
        // Shrinking would mix colours that transparency hides.
        let denominator = if self.alpha.is_some() { 1 } else { denominator };
        self.render(&self.main, self.alpha.as_ref(), self.main.shrinkable(denominator), limits)
    }

    fn render(
        &self,
        main: &Layer,
        alpha: Option<&Layer>,
        shrink: u32,
        limits: &Limits,
    ) -> Result<(Canvas, Profile), ImageError> {
        let (width, height) = (main.window.width.div_ceil(shrink), main.window.height.div_ceil(shrink));
        let channels = if alpha.is_some() { 4 } else { 3 };
        let bytes = width as usize * height as usize * channels;
        if bytes as u64 > limits.max_decoded_bytes {
            return Err(ImageError::TooLarge { width: main.window.width, height: main.window.height });
        }
        let mut pixels = vec![255; bytes];
        let mut target = Target { pixels: &mut pixels, width, channels };
        let mut seen = None;
        for (tile, part) in main.parts(main.window, shrink) {
            let picture = self.picture(main, tile, shrink > 1, limits)?;
            let signal = self.signal(main, tile).unwrap_or_else(|| picture.signal());
            seen = seen.or(Some(signal));
            paint::colors(&picture, signal, part, shrink, &mut target);
        }
        if let Some(alpha) = alpha {
            for (tile, part) in alpha.parts(main.window, 1) {
                paint::alpha(&self.picture(alpha, tile, false, limits)?, part, &mut target);
            }
        }
        let profile = self.icc(main, limits).map(Profile::Icc);
        let profile = profile.or_else(|| seen.map(|signal| Profile::CodePoints(signal.primaries, signal.transfer)));
        let canvas = if alpha.is_some() {
            let mut canvas = Canvas::rgba(width, height, pixels);
            if alpha.is_some_and(|alpha| self.meta.refers_to(main.item, *b"prem").contains(&alpha.item)) {
                canvas.unpremultiply();
            }
            canvas
        } else {
            Canvas::rgb(width, height, pixels)
        };
        Ok((canvas, profile.unwrap_or(Profile::Srgb)))
    }

    fn picture(&self, layer: &Layer, tile: u32, draft: bool, limits: &Limits) -> Result<Picture, ImageError> {
        let config =
            self.meta.property(tile, *b"hvcC").ok_or_else(|| damaged("a tile has no decoder configuration"))?;
        let config = Config::read(config, layer.tile, limits)?;
        Picture::decode(&config, &self.meta.data(tile)?, draft)
    }

    /// What the container says of a tile's colours; the stream is asked where it is silent.
    fn signal(&self, layer: &Layer, tile: u32) -> Option<Signal> {
        self.colr(layer, tile, |kind, mut body| {
            if &kind != b"nclx" {
                return None;
            }
            let mut code = || body.u16().map(|code| u8::try_from(code).unwrap_or(2));
            let (primaries, transfer, matrix) = (code()?, code()?, code()?);
            Some(Signal { primaries, transfer, matrix, full_range: body.u8()? & 0x80 != 0 })
        })
    }

    fn icc(&self, layer: &Layer, limits: &Limits) -> Option<Vec<u8>> {
        self.colr(layer, *layer.tiles.first()?, |kind, body| {
            (matches!(&kind, b"prof" | b"rICC") && body.0.len() <= limits.max_icc_bytes).then(|| body.0.to_vec())
        })
    }

    /// The first colour property of the tile, or else of the whole, that `read` can make something of.
    fn colr<T>(&self, layer: &Layer, tile: u32, read: impl Fn([u8; 4], Bytes<'a>) -> Option<T>) -> Option<T> {
        let all = self.meta.properties(tile).chain(self.meta.properties(layer.item));
        let mut bodies =
            all.filter(|(property, _)| &property.kind == b"colr").map(|(property, _)| Bytes(property.body));
        bodies.find_map(|mut body| read(body.four()?, body))
    }

    /// The bytes of the item that describes the picture and is of the wanted kind.
    fn described_by(&self, wanted: impl Fn(&Meta<'a>, u32) -> bool) -> Option<Cow<'a, [u8]>> {
        let item = self.meta.referring_to(self.main.item, *b"cdsc").find(|&item| wanted(&self.meta, item))?;
        self.meta.data(item).ok()
    }
}

impl Layer {
    fn read(meta: &Meta<'_>, item: u32, limits: &Limits) -> Result<Self, ImageError> {
        let size = |item: u32| {
            let mut body = meta.property(item, *b"ispe")?;
            body.version()?;
            Some((body.u32()?, body.u32()?))
        };
        let said = size(item).ok_or_else(|| damaged("the picture has no size"))?;
        limits.check(said.0, said.1)?;
        let kind = meta.kind(item).ok_or_else(|| damaged("the picture is not there"))?;
        let mut layer = match &kind {
            b"hvc1" | b"hev1" => Self {
                item,
                tiles: vec![item],
                columns: 1,
                tile: said,
                full: said,
                window: Window { left: 0, top: 0, width: said.0, height: said.1 },
                orientation: Orientation::UPRIGHT,
            },
            b"grid" => {
                let grid = meta.data(item)?;
                let (rows, columns, full) =
                    grid_size(Bytes(&grid)).ok_or_else(|| damaged("the grid cannot be read"))?;
                let tiles = meta.refers_to(item, *b"dimg");
                let count = rows as usize * columns as usize;
                if count > MAX_TILES {
                    return Err(ImageError::Unsupported(format!("HEIC of more than {MAX_TILES} tiles")));
                }
                if tiles.len() != count || full != said {
                    return Err(damaged("the grid contradicts its description"));
                }
                if let Some(kind) = tiles.iter().filter_map(|&tile| meta.kind(tile)).find(|&kind| !is_hevc(kind)) {
                    return Err(unsupported(kind));
                }
                let tile = tiles.first().and_then(|&tile| size(tile)).ok_or_else(|| damaged("a tile has no size"))?;
                limits.check(tile.0, tile.1)?;
                let fits = |tile: u32, count: u32, full: u32| {
                    let (tile, count, full) = (u64::from(tile), u64::from(count), u64::from(full));
                    tile * (count - 1) < full && full <= tile * count
                };
                if tiles.iter().any(|&other| size(other) != Some(tile))
                    || !fits(tile.0, columns, full.0)
                    || !fits(tile.1, rows, full.1)
                {
                    return Err(damaged("the tiles do not fit the grid"));
                }
                Self {
                    item,
                    tiles: tiles.to_vec(),
                    columns,
                    tile,
                    full,
                    window: Window { left: 0, top: 0, width: full.0, height: full.1 },
                    orientation: Orientation::UPRIGHT,
                }
            }
            _ => return Err(unsupported(kind)),
        };
        layer.transform(meta, limits)?;
        Ok(layer)
    }

    /// Takes in what the container says is to be done to the decoded picture, in its order.
    fn transform(&mut self, meta: &Meta<'_>, limits: &Limits) -> Result<(), ImageError> {
        /// What does not change pixels, or is looked at elsewhere.
        const KNOWN: [&[u8; 4]; 8] = [b"hvcC", b"ispe", b"pixi", b"colr", b"pasp", b"auxC", b"clli", b"mdcv"];
        let cannot = || damaged("a turn or cut cannot be read");
        for (property, essential) in meta.properties(self.item) {
            let mut body = Bytes(property.body);
            match &property.kind {
                b"irot" => {
                    let turns = body.u8().ok_or_else(cannot)?;
                    self.orientation = self.orientation.then(Orientation::from_heif(turns & 3, None));
                }
                b"imir" => {
                    let axis = body.u8().ok_or_else(cannot)?;
                    self.orientation = self.orientation.then(Orientation::from_heif(0, Some(axis & 1)));
                }
                b"clap" if self.orientation == Orientation::UPRIGHT => {
                    self.window = self.window.cut(body).ok_or_else(cannot)?;
                    limits.check(self.window.width, self.window.height)?;
                }
                b"clap" => return Err(ImageError::Unsupported("HEIC that is cut after it was turned".to_owned())),
                kind if essential && !KNOWN.contains(&kind) => return Err(unsupported(*kind)),
                _ => {}
            }
        }
        Ok(())
    }

    /// By how much the tiles can be shrunk, so that no pixel of the canvas has a share in two.
    fn shrinkable(&self, wanted: u32) -> u32 {
        let is_one = self.tiles.len() == 1;
        let even = |by: &u32| {
            let corner = self.window.left.is_multiple_of(*by) && self.window.top.is_multiple_of(*by);
            corner && (is_one || self.tile.0.is_multiple_of(*by) && self.tile.1.is_multiple_of(*by))
        };
        [8, 4, 2].into_iter().filter(|by| *by <= wanted).find(even).unwrap_or(1)
    }

    /// The tiles that have a part in the window, and which.
    fn parts(&self, window: Window, shrink: u32) -> impl Iterator<Item = (u32, Part)> {
        let meet = move |start: u32, len: u32, tile: u32, full: u32| {
            let (from, to) = (start.max(tile), (start + len).min(full));
            (from < to).then(|| (from - tile, to - from, (from - start) / shrink))
        };
        let in_rows = (0_u32..).zip(&self.tiles);
        in_rows.filter_map(move |(at, &tile)| {
            let (x, y) = (at % self.columns * self.tile.0, at / self.columns * self.tile.1);
            let right = x.saturating_add(self.tile.0).min(self.full.0);
            let bottom = y.saturating_add(self.tile.1).min(self.full.1);
            let (left, width, to_x) = meet(window.left, window.width, x, right)?;
            let (top, height, to_y) = meet(window.top, window.height, y, bottom)?;
            Some((tile, Part { left, top, width, height, to: (to_x, to_y) }))
        })
    }

    /// Whether this can stand in for the other one: turned alike, and of the same proportions.
    fn is_copy_of(&self, other: &Self) -> bool {
        let (small, large) = (self.window, other.window);
        let across = f64::from(large.width) / f64::from(small.width);
        let down = f64::from(large.height) / f64::from(small.height);
        let side = f64::from(small.width.min(small.height));
        // A rounded side is off by less than a pixel.
        self.orientation == other.orientation && (across / down - 1.0).abs() * side <= 1.0
    }
}

impl Window {
    /// A clean aperture: width, height, and how far its middle is from the middle, as fractions.
    fn cut(self, mut body: Bytes<'_>) -> Option<Self> {
        let mut fraction = || Some((i128::from(body.u32()? as i32), i128::from(body.u32()? as i32)));
        let (width, height, right, down) = (fraction()?, fraction()?, fraction()?, fraction()?);
        let side = |full: u32, size: (i128, i128), offset: (i128, i128)| {
            if size.1 <= 0 || offset.1 <= 0 {
                return None;
            }
            let len = u32::try_from(size.0 / size.1).ok()?;
            let start = (2 * offset.0 * size.1 + offset.1 * (i128::from(full) * size.1 - size.0))
                .div_euclid(2 * offset.1 * size.1);
            let start = u32::try_from(start).ok()?;
            (len > 0 && start.checked_add(len)? <= full).then_some((start, len))
        };
        let (left, width) = side(self.width, width, right)?;
        let (top, height) = side(self.height, height, down)?;
        Some(Self { left: self.left + left, top: self.top + top, width, height })
    }
}

/// Rows, columns and size of a grid.
fn grid_size(mut body: Bytes<'_>) -> Option<(u32, u32, (u32, u32))> {
    let (version, flags) = (body.u8()?, body.u8()?);
    let (rows, columns) = (u32::from(body.u8()?) + 1, u32::from(body.u8()?) + 1);
    let size = if flags & 1 == 0 { 2 } else { 4 };
    let full = (body.number(size)? as u32, body.number(size)? as u32);
    (version == 0).then_some((rows, columns, full))
}

fn is_hevc(kind: [u8; 4]) -> bool {
    matches!(&kind, b"hvc1" | b"hev1")
}

fn unsupported(kind: [u8; 4]) -> ImageError {
    ImageError::Unsupported(match &kind {
        b"iovl" => "HEIF that lays pictures over each other".to_owned(),
        b"iden" => "HEIF that refers to another picture".to_owned(),
        b"grid" => "HEIF with grids inside of grids".to_owned(),
        b"av01" => "AV1 in a file that calls itself HEIC".to_owned(),
        b"jpeg" => "JPEG inside of HEIF".to_owned(),
        kind => format!("HEIF with \"{}\"", kind.escape_ascii()),
    })
}

fn damaged(what: &str) -> ImageError {
    ImageError::Damaged(format!("HEIC: {what}"))
}
