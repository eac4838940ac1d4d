//! Deep zoom on its way out: the description of a pyramid, and single tiles of it.
//!
//! The pack lies on disk as one file, whose open descriptor is remembered like that of any
//! other content; a tile is two short reads of the index and one of itself.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::assets::AssetId;
use crate::delivery::Content;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::Image;
use crate::delivery::Shown;
use crate::error::Code;
use crate::error::Result;
use crate::media::imaging::deepzoom::Pack;
use crate::settings::DEEPZOOM;

/// Names a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub level: u32,
    pub column: u32,
    pub row: u32,
}

impl Delivery {
    /// The description that a viewer asks for first, in DZI's XML, and whether everybody may see it.
    pub async fn deepzoom(&self, ground: Ground, id: AssetId) -> Result<(String, bool)> {
        let content = self.conversion(ground, id, DEEPZOOM).await?;
        let public = content.public;
        let dzi = self.cpu.run(move || Ok(Pack::open(reader(&content), content.size_bytes)?.dzi())).await?;
        Ok((dzi, public))
    }

    /// One tile.
    pub async fn tile(&self, ground: Ground, id: AssetId, tile: Tile) -> Result<Shown> {
        let content = self.conversion(ground, id, DEEPZOOM).await?;
        let public = content.public;
        let image = self.cpu.run(move || read(&content, tile)).await?;
        Ok(Shown { image: Arc::new(image), public })
    }
}

fn read(content: &Content, tile: Tile) -> Result<Image> {
    let Tile { level, column, row } = tile;
    let pack = Pack::open(reader(content), content.size_bytes)?;
    let (offset, length) =
        pack.find(level, column, row)?.ok_or_else(|| Code::NotFound.because("There is no such tile."))?;
    let mut bytes = vec![0; length as usize];
    content.source.file()?.read_exact_at(&mut bytes, offset)?;
    let etag = format!("\"{}-{level}-{column}-{row}\"", content.etag.trim_matches('"'));
    let format = pack.format();
    Ok(Image { bytes: bytes.into(), content_type: format.mime(), extension: format.extension(), etag })
}

fn reader(content: &Content) -> impl Fn(&mut [u8], u64) -> std::io::Result<()> {
    |buffer, offset| match content.source.file() {
        Ok(file) => file.read_exact_at(buffer, offset),
        Err(e) => Err(std::io::Error::other(e)),
    }
}
