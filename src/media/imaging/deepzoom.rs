//! Deep zoom: a picture as a pyramid of tiles, in one file.
//!
//! In: a picture of any size within limits. Out: a *pack*: all tiles of all levels back to back,
//! then an index, then a trailer. And the reader of such a pack, which finds a tile with two
//! short reads, so that the server can send it without decoding anything.
//!
//! ```text
//! tile … tile │ entry … entry, 24 bytes each │ trailer, 48 bytes
//! ```
//!
//! Invariant: the picture is decoded once; each level is made from the one above it and frees
//! it; tiles are written as they are encoded. The reader trusts nothing: a pack whose parts do
//! not fit together is an error, and a place outside the tiles is never given out.
//!
//! Tiles are as DZI viewers expect them: level 0 is one pixel, each level is twice the one before,
//! rounded up, and neighbours overlap by a pixel. Transparent pictures become PNG, all others JPEG.

use std::io;
use std::io::Write;
use std::sync::Arc;

use super::Limits;
use super::canvas::Canvas;
use super::encode;
use super::encode::Finish;
use super::error::ImageError;
use super::format::OutputFormat;
use super::params::watermark::Placement;

/// With the overlap on both sides a tile is 256 pixels wide.
const TILE_SIDE: u32 = 254;
const OVERLAP: u32 = 1;
const QUALITY: u8 = 85;

const MAGIC: [u8; 8] = *b"CLKRDZ1\n";
const ENTRY_BYTES: usize = 24;
const TRAILER_BYTES: usize = 48;
/// Far beyond any picture that the limits let pass.
const LARGEST_SIDE: u32 = 1 << 24;

/// A pack that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    pub width: u32,
    pub height: u32,
    pub format: OutputFormat,
    pub tiles: u64,
}

/// A mark to lay over the picture: its file, where, and the largest share of the sides.
pub type Overlay<'a> = (&'a [u8], Placement, f64);

/// Makes the pack of a picture.
pub fn make(
    source: &[u8],
    mark: Option<Overlay<'_>>,
    limits: &Limits,
    output: &mut dyn Write,
) -> Result<Made, ImageError> {
    let mut canvas = super::whole(source, limits)?;
    canvas.settle_colour()?;
    canvas.unpack()?;
    if let Some((mark, placement, scale)) = mark {
        canvas = canvas.marked(Some(Arc::new(super::whole(mark, limits)?)));
        canvas.lay_over(placement, scale)?;
    }
    let format = if canvas.has_alpha() { OutputFormat::Png } else { OutputFormat::Jpeg };
    let shape = Shape { width: canvas.size().0, height: canvas.size().1 };
    let mut entries: Vec<Entry> = Vec::new();
    let mut offset = 0;
    for level in (0..=shape.top_level()).rev() {
        let (width, height) = shape.size(level);
        canvas.resize(width, height)?;
        let (columns, rows) = shape.tiles(level);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let tile = encode_tile(&canvas, column, row, format)?;
            output.write_all(&tile).map_err(unwritten)?;
            entries.push(Entry { level, column, row, length: tile.len() as u32, offset });
            offset += tile.len() as u64;
        }
    }
    // The reader computes where an entry is: level by level from the smallest, row by row.
    entries.sort_by_key(|entry| (entry.level, entry.row, entry.column));
    let tiles = entries.len() as u64;
    let index: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
    output.write_all(&index).map_err(unwritten)?;
    let trailer = Trailer { shape, format, index: offset, tiles };
    output.write_all(&trailer.bytes()).map_err(unwritten)?;
    Ok(Made { width: shape.width, height: shape.height, format, tiles })
}

fn encode_tile(canvas: &Canvas, column: u32, row: u32, format: OutputFormat) -> Result<Vec<u8>, ImageError> {
    let (width, height) = canvas.size();
    let span = |index: u32, side: u32| {
        let from = (index * TILE_SIDE).saturating_sub(OVERLAP);
        let to = ((index + 1) * TILE_SIDE + OVERLAP).min(side);
        (from, to - from)
    };
    let ((x, wide), (y, high)) = (span(column, width), span(row, height));
    encode::encode(&mut canvas.part((x, y, wide, high)), format, &Finish::plain(QUALITY))
}

fn unwritten(error: impl std::fmt::Display) -> ImageError {
    ImageError::NotRendered(format!("the output cannot be written: {error}"))
}

/// The geometry of a pyramid, which follows from the size of its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    width: u32,
    height: u32,
}

impl Shape {
    /// The level that has the picture's own size.
    fn top_level(self) -> u32 {
        self.width.max(self.height).next_power_of_two().trailing_zeros()
    }

    fn size(self, level: u32) -> (u32, u32) {
        let part = 1_u32 << (self.top_level() - level);
        (self.width.div_ceil(part), self.height.div_ceil(part))
    }

    /// Columns and rows.
    fn tiles(self, level: u32) -> (u32, u32) {
        let (width, height) = self.size(level);
        (width.div_ceil(TILE_SIDE), height.div_ceil(TILE_SIDE))
    }

    /// How many tiles all levels below this one have.
    fn tiles_below(self, level: u32) -> u64 {
        (0..level).map(|level| self.tiles(level)).map(|(columns, rows)| u64::from(columns) * u64::from(rows)).sum()
    }
}

struct Entry {
    level: u32,
    column: u32,
    row: u32,
    length: u32,
    offset: u64,
}

impl Entry {
    fn bytes(&self) -> Vec<u8> {
        let numbers = [self.level, self.column, self.row, self.length].map(u32::to_le_bytes).concat();
        [numbers, self.offset.to_le_bytes().to_vec()].concat()
    }

    fn read(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        Some(Self {
            level: u32_at(bytes, 0)?,
            column: u32_at(bytes, 4)?,
            row: u32_at(bytes, 8)?,
            length: u32_at(bytes, 12)?,
            offset: u64_at(bytes, 16)?,
        })
    }
}

struct Trailer {
    shape: Shape,
    format: OutputFormat,
    /// Where the index begins, which is where the tiles end.
    index: u64,
    tiles: u64,
}

impl Trailer {
    fn bytes(&self) -> Vec<u8> {
        let format = u32::from(self.format == OutputFormat::Png);
        let numbers = [self.shape.width, self.shape.height, TILE_SIDE, OVERLAP, format, 0].map(u32::to_le_bytes);
        [MAGIC.to_vec(), numbers.concat(), self.index.to_le_bytes().to_vec(), self.tiles.to_le_bytes().to_vec()]
            .concat()
    }

    /// `None` unless everything in it fits a pack of this length.
    fn read(bytes: &[u8; TRAILER_BYTES], pack_bytes: u64) -> Option<Self> {
        let shape = Shape { width: u32_at(bytes, 8)?, height: u32_at(bytes, 12)? };
        let format = match u32_at(bytes, 24)? {
            0 => OutputFormat::Jpeg,
            1 => OutputFormat::Png,
            _ => return None,
        };
        let (index, tiles) = (u64_at(bytes, 32)?, u64_at(bytes, 40)?);
        let sane = bytes.starts_with(&MAGIC)
            && (1..=LARGEST_SIDE).contains(&shape.width)
            && (1..=LARGEST_SIDE).contains(&shape.height)
            && (u32_at(bytes, 16)?, u32_at(bytes, 20)?) == (TILE_SIDE, OVERLAP);
        let whole = sane
            && shape.tiles_below(shape.top_level() + 1) == tiles
            && index.checked_add(tiles * ENTRY_BYTES as u64 + TRAILER_BYTES as u64) == Some(pack_bytes);
        whole.then_some(Self { shape, format, index, tiles })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// An opened pack. `read` fills a buffer from an offset, as a file's positioned read does.
pub struct Pack<R> {
    read: R,
    trailer: Trailer,
}

impl<R: Fn(&mut [u8], u64) -> io::Result<()>> Pack<R> {
    /// Reads the trailer of a pack of this length.
    pub fn open(read: R, pack_bytes: u64) -> io::Result<Self> {
        let mut bytes = [0; TRAILER_BYTES];
        read(&mut bytes, pack_bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(damaged)?)?;
        let trailer = Trailer::read(&bytes, pack_bytes).ok_or_else(damaged)?;
        Ok(Self { read, trailer })
    }

    /// Of the whole picture.
    pub fn size(&self) -> (u32, u32) {
        (self.trailer.shape.width, self.trailer.shape.height)
    }

    /// Of the tiles.
    pub fn format(&self) -> OutputFormat {
        self.trailer.format
    }

    /// The description that a viewer asks for first.
    pub fn dzi(&self) -> String {
        let (width, height) = self.size();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Image xmlns=\"http://schemas.microsoft.com/deepzoom/2008\" Format=\"{}\" Overlap=\"{OVERLAP}\" \
             TileSize=\"{TILE_SIDE}\"><Size Width=\"{width}\" Height=\"{height}\"/></Image>\n",
            self.format().extension()
        )
    }

    /// Offset and length of a tile; `None` if the pyramid has no such tile.
    pub fn find(&self, level: u32, column: u32, row: u32) -> io::Result<Option<(u64, u32)>> {
        let shape = self.trailer.shape;
        if level > shape.top_level() {
            return Ok(None);
        }
        let (columns, rows) = shape.tiles(level);
        if column >= columns || row >= rows {
            return Ok(None);
        }
        let number = shape.tiles_below(level) + u64::from(row) * u64::from(columns) + u64::from(column);
        let mut bytes = [0; ENTRY_BYTES];
        (self.read)(&mut bytes, self.trailer.index + number * ENTRY_BYTES as u64)?;
        let entry = Entry::read(&bytes).ok_or_else(damaged)?;
        let end = entry.offset.checked_add(u64::from(entry.length));
        let fits = (entry.level, entry.column, entry.row) == (level, column, row)
            && entry.length > 0
            && end.is_some_and(|end| end <= self.trailer.index);
        if fits { Ok(Some((entry.offset, entry.length))) } else { Err(damaged()) }
    }

    /// How many tiles there are.
    pub fn tiles(&self) -> u64 {
        self.trailer.tiles
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is not a whole pack of tiles")
}

#[cfg(test)]
mod tests {
    use super::super::jpeg;
    use super::super::png;
    use super::*;

    fn reader(pack: &[u8]) -> impl Fn(&mut [u8], u64) -> io::Result<()> {
        |buffer: &mut [u8], at: u64| {
            let from = pack.get(at as usize..).and_then(|rest| rest.get(..buffer.len()));
            buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    /// Red grows to the right, green downwards.
    fn slopes(width: u32, height: u32) -> Canvas {
        let pixels = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [(x * 255 / width) as u8, (y * 255 / height) as u8, 60]));
        Canvas::rgb(width, height, pixels.collect())
    }

    fn pack_of(source: &[u8]) -> (Vec<u8>, Made) {
        let mut pack = Vec::new();
        let made = make(source, None, &Limits::default(), &mut pack).unwrap();
        (pack, made)
    }

    fn decoded(tile: &[u8]) -> Canvas {
        let mut canvas = super::super::whole(tile, &Limits::default()).unwrap();
        canvas.unpack().unwrap();
        canvas
    }

    #[test]
    fn every_tile_shows_its_part_of_the_picture() {
        let (pack, made) = pack_of(&jpeg::encode(&slopes(700, 300), 95, 72).unwrap());
        let opened = Pack::open(reader(&pack), pack.len() as u64).unwrap();
        assert_eq!((opened.size(), opened.format(), opened.tiles()), ((700, 300), OutputFormat::Jpeg, made.tiles));
        assert!(opened.dzi().contains(r#"Format="jpg" Overlap="1" TileSize="254"><Size Width="700" Height="300"/>"#));
        // 700 = 254 + 254 + 192; 350 = 254 + 96.
        assert_eq!(made.tiles, 3 * 2 + 2 + 9);
        let mut bytes = 0;
        for level in 0..=10 {
            let part = 1 << (10 - level);
            let (width, height) = (700_u32.div_ceil(part), 300_u32.div_ceil(part));
            for row in 0..height.div_ceil(254) {
                for column in 0..width.div_ceil(254) {
                    let (offset, length) = opened.find(level, column, row).unwrap().unwrap();
                    bytes += u64::from(length);
                    let tile = decoded(&pack[offset as usize..][..length as usize]);
                    let left = (column * 254).saturating_sub(1);
                    let right = ((column + 1) * 254 + 1).min(width);
                    assert_eq!(tile.size().0, right - left, "{level} {column} {row}");
                    // The middle of the tile has the colour of its place.
                    let (x, y) = (tile.size().0 / 2, tile.size().1 / 2);
                    let at = ((y * tile.size().0 + x) * 3) as usize;
                    let expected = (f64::from(left + x) + 0.5) * 255.0 / f64::from(width);
                    let seen = f64::from(tile.pixels()[at]);
                    // A few pixels share their chroma.
                    assert!(
                        level < 4 || (seen - expected).abs() < 6.0,
                        "{level} {column} {row}: {seen}, not {expected}"
                    );
                }
            }
        }
        assert_eq!(bytes + made.tiles * 24 + 48, pack.len() as u64);
        for (level, column, row) in [(11, 0, 0), (10, 3, 0), (10, 0, 2), (0, 1, 0), (u32::MAX, 0, 0), (9, u32::MAX, 0)]
        {
            assert_eq!(opened.find(level, column, row).unwrap(), None);
        }
    }

    #[test]
    fn transparency_is_kept() {
        let canvas = Canvas::rgba(300, 20, [10, 200, 30, 90].repeat(6000));
        let (pack, made) = pack_of(&png::encode(&canvas, 72).unwrap());
        assert_eq!(made.format, OutputFormat::Png);
        let opened = Pack::open(reader(&pack), pack.len() as u64).unwrap();
        let (offset, length) = opened.find(9, 1, 0).unwrap().unwrap();
        let tile = decoded(&pack[offset as usize..][..length as usize]);
        assert_eq!((tile.size(), &tile.pixels()[..4]), ((47, 20), &[10, 200, 30, 90][..]));
        assert!(opened.dzi().contains(r#"Format="png""#));
    }

    #[test]
    fn one_pixel_is_a_pyramid() {
        let (pack, made) = pack_of(&png::encode(&Canvas::rgb(1, 1, vec![9; 3]), 72).unwrap());
        assert_eq!(made.tiles, 1);
        let opened = Pack::open(reader(&pack), pack.len() as u64).unwrap();
        assert!(opened.find(0, 0, 0).unwrap().is_some() && opened.find(1, 0, 0).unwrap().is_none());
    }

    #[test]
    fn a_broken_pack_is_noticed() {
        let (pack, _) = pack_of(&png::encode(&slopes(300, 40), 72).unwrap());
        let tail = pack.len() - 48 - 24 * 12;
        for at in (0..48).map(|n| pack.len() - 48 + n).chain(tail..pack.len() - 48) {
            for bit in [0x01, 0x80] {
                let mut broken = pack.clone();
                broken[at] ^= bit;
                let Ok(opened) = Pack::open(reader(&broken), broken.len() as u64) else { continue };
                for level in 0..10 {
                    for column in 0..2 {
                        if let Ok(Some((offset, length))) = opened.find(level, column, 0) {
                            assert!(offset + u64::from(length) <= tail as u64 + 24 * 12, "{at} {bit}");
                        }
                    }
                }
            }
        }
        for cut in [0, 10, 47, 48, pack.len() - 1] {
            assert!(Pack::open(reader(&pack[..cut]), cut as u64).is_err(), "{cut}");
        }
    }
}
