//! The tables of a HEIF file: its items, their properties, their places and relations.
//!
//! In: the bytes of a file. Out: [`Meta`], which finds what belongs to an item (ISO/IEC
//! 14496-12 §8.11 and 23008-12).
//!
//! Invariant: every number is held against the bytes that are there and against the bounds
//! below, so that neither time nor memory grows faster than the file; references are kept as
//! they are and followed nowhere, so that rings among them are harmless.
//!
//! It knows nothing of pictures: what the items mean is the neighbour's business.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::bytes::Bytes;
use crate::media::imaging::container::boxes;
use crate::media::imaging::error::ImageError;

const MAX_ITEMS: usize = 10_000;
const MAX_PROPERTIES: usize = 65_535;
/// Of all items together: pieces, references, and uses of properties.
const MAX_ENTRIES: usize = 200_000;

/// What the `meta` box of a file says.
pub struct Meta<'a> {
    file: &'a [u8],
    idat: &'a [u8],
    pub primary: u32,
    items: BTreeMap<u32, Item<'a>>,
    properties: Vec<Property<'a>>,
    references: Vec<Reference>,
}

/// A property's box.
#[derive(Clone, Copy)]
pub struct Property<'a> {
    pub kind: [u8; 4],
    pub body: &'a [u8],
}

struct Item<'a> {
    kind: [u8; 4],
    content_type: &'a [u8],
    is_protected: bool,
    is_compressed: bool,
    /// Numbers of properties, from 1, and whether the item cannot be understood without.
    properties: Vec<(u16, bool)>,
    construction: u16,
    is_elsewhere: bool,
    pieces: Vec<Piece>,
}

struct Piece {
    offset: u64,
    /// 0 is as much as there is.
    len: u64,
}

struct Reference {
    kind: [u8; 4],
    from: u32,
    to: Vec<u32>,
}

impl<'a> Meta<'a> {
    /// Reads the tables; without a `meta` box for pictures there is nothing to see.
    pub fn read(file: &'a [u8]) -> Result<Self, ImageError> {
        let Some(body) = boxes(file).find_map(|(kind, body)| (kind == b"meta").then(|| body.get(4..)).flatten()) else {
            let is_film = boxes(file).any(|(kind, _)| kind == b"moov");
            return Err(if is_film {
                ImageError::Unsupported("HEIC image sequence without a still picture".to_owned())
            } else {
                ImageError::Damaged("HEIC: the table of contents is missing".to_owned())
            });
        };
        let find = |wanted: &[u8; 4]| boxes(body).find(|(kind, _)| *kind == wanted).map(|(_, body)| Bytes(body));
        let table = |what: &str| ImageError::Damaged(format!("HEIC: the table of {what} cannot be read"));
        if find(b"hdlr").is_some_and(|handler| handler.0.get(8..12) != Some(b"pict")) {
            return Err(ImageError::Unsupported("HEIF that describes no pictures".to_owned()));
        }
        let mut meta = Self {
            file,
            idat: find(b"idat").map_or(&[], |idat| idat.0),
            primary: 0,
            items: BTreeMap::new(),
            properties: Vec::new(),
            references: Vec::new(),
        };
        meta.primary = find(b"pitm").and_then(primary).ok_or_else(|| table("pictures"))?;
        find(b"iinf").and_then(|body| meta.read_items(body)).ok_or_else(|| table("items"))?;
        find(b"iloc").and_then(|body| meta.read_places(body)).ok_or_else(|| table("places"))?;
        if let Some(body) = find(b"iref") {
            meta.read_references(body).ok_or_else(|| table("references"))?;
        }
        find(b"iprp").and_then(|body| meta.read_properties(body)).ok_or_else(|| table("properties"))?;
        Ok(meta)
    }

    /// The four letters of an item's kind.
    pub fn kind(&self, item: u32) -> Option<[u8; 4]> {
        self.items.get(&item).map(|item| item.kind)
    }

    /// What an item's bytes are called, if they are described by a media type.
    pub fn content_type(&self, item: u32) -> &'a [u8] {
        self.items.get(&item).map_or(&[], |item| item.content_type)
    }

    /// An item's properties in their order, each with its being essential.
    pub fn properties(&self, item: u32) -> impl Iterator<Item = (Property<'a>, bool)> {
        let listed = self.items.get(&item).map_or(&[][..], |item| &item.properties);
        listed.iter().filter_map(|&(number, essential)| {
            let property = self.properties.get(usize::from(number).checked_sub(1)?)?;
            Some((*property, essential))
        })
    }

    /// The first property of this kind.
    pub fn property(&self, item: u32, kind: [u8; 4]) -> Option<Bytes<'a>> {
        self.properties(item).find(|(property, _)| property.kind == kind).map(|(property, _)| Bytes(property.body))
    }

    /// The items that this one refers to.
    pub fn refers_to(&self, from: u32, kind: [u8; 4]) -> &[u32] {
        let found = self.references.iter().find(|reference| reference.from == from && reference.kind == kind);
        found.map_or(&[], |reference| &reference.to)
    }

    /// The items that refer to this one.
    pub fn referring_to(&self, to: u32, kind: [u8; 4]) -> impl Iterator<Item = u32> {
        let those =
            self.references.iter().filter(move |reference| reference.kind == kind && reference.to.contains(&to));
        those.map(|reference| reference.from)
    }

    /// An item's bytes, put together if they lie in pieces.
    pub fn data(&self, item: u32) -> Result<Cow<'a, [u8]>, ImageError> {
        let missing = || ImageError::Damaged("HEIC: a part of the picture is missing".to_owned());
        let item = self.items.get(&item).ok_or_else(missing)?;
        if item.is_protected || item.is_compressed || item.is_elsewhere {
            return Err(ImageError::Unsupported("HEIC with encrypted, compressed or outside parts".to_owned()));
        }
        let whole = match item.construction {
            0 => self.file,
            1 => self.idat,
            _ => return Err(ImageError::Unsupported("HEIC with parts made of other parts".to_owned())),
        };
        let slice = |piece: &Piece| {
            let rest = whole.get(usize::try_from(piece.offset).ok()?..)?;
            if piece.len == 0 { Some(rest) } else { rest.get(..usize::try_from(piece.len).ok()?) }
        };
        if let [piece] = item.pieces.as_slice() {
            return slice(piece).map(Cow::Borrowed).ok_or_else(missing);
        }
        let mut data = Vec::new();
        for piece in &item.pieces {
            let slice = slice(piece).ok_or_else(missing)?;
            // Pieces may lie over each other, so their sum needs a bound of its own.
            if data.len() + slice.len() > self.file.len() {
                return Err(missing());
            }
            data.extend_from_slice(slice);
        }
        Ok(Cow::Owned(data))
    }

    fn read_items(&mut self, mut body: Bytes<'a>) -> Option<()> {
        let (version, _) = body.version()?;
        body.number(if version == 0 { 2 } else { 4 })?;
        for (kind, entry) in boxes(body.0) {
            let mut entry = Bytes(entry);
            let (version, _) = entry.version()?;
            if kind != b"infe" || version < 2 {
                continue;
            }
            let id = entry.number(if version == 2 { 2 } else { 4 })? as u32;
            let is_protected = entry.u16()? != 0;
            let kind = entry.four()?;
            let mut item = Item {
                kind,
                content_type: &[],
                is_protected,
                is_compressed: false,
                properties: Vec::new(),
                construction: 0,
                is_elsewhere: false,
                pieces: Vec::new(),
            };
            if &kind == b"mime" {
                entry.text()?;
                item.content_type = entry.text()?;
                item.is_compressed = entry.text().is_some_and(|encoding| !encoding.is_empty());
            }
            self.items.insert(id, item);
            if self.items.len() > MAX_ITEMS {
                return None;
            }
        }
        Some(())
    }

    fn read_places(&mut self, mut body: Bytes<'a>) -> Option<()> {
        let (version, _) = body.version()?;
        let (sizes, more_sizes) = (body.u8()?, body.u8()?);
        let (offset_size, len_size, base_size) = (sizes >> 4, sizes & 15, more_sizes >> 4);
        let index_size = if version == 0 { 0 } else { more_sizes & 15 };
        let count = body.number(if version < 2 { 2 } else { 4 })?;
        let mut entries = 0;
        for _ in 0..count {
            let id = body.number(if version < 2 { 2 } else { 4 })? as u32;
            let construction = if version == 0 { 0 } else { body.u16()? & 15 };
            let is_elsewhere = body.u16()? != 0;
            let base = body.number(base_size)?;
            let mut pieces = Vec::new();
            for _ in 0..body.u16()? {
                body.number(index_size)?;
                let offset = base.checked_add(body.number(offset_size)?)?;
                pieces.push(Piece { offset, len: body.number(len_size)? });
                entries += 1;
                if entries > MAX_ENTRIES {
                    return None;
                }
            }
            if let Some(item) = self.items.get_mut(&id) {
                (item.construction, item.is_elsewhere, item.pieces) = (construction, is_elsewhere, pieces);
            }
        }
        Some(())
    }

    fn read_references(&mut self, mut body: Bytes<'a>) -> Option<()> {
        let (version, _) = body.version()?;
        let id_size = if version == 0 { 2 } else { 4 };
        let mut entries = 0;
        for (kind, reference) in boxes(body.0) {
            let mut reference = Bytes(reference);
            let from = reference.number(id_size)? as u32;
            let count = reference.u16()?;
            entries += usize::from(count) + 1;
            if entries > MAX_ENTRIES {
                return None;
            }
            let to = (0..count).map(|_| reference.number(id_size).map(|id| id as u32)).collect::<Option<_>>()?;
            self.references.push(Reference { kind: *kind, from, to });
        }
        Some(())
    }

    fn read_properties(&mut self, body: Bytes<'a>) -> Option<()> {
        let (_, container) = boxes(body.0).find(|(kind, _)| *kind == b"ipco")?;
        self.properties = boxes(container).take(MAX_PROPERTIES).map(|(&kind, body)| Property { kind, body }).collect();
        let mut entries = 0;
        for (_, uses) in boxes(body.0).filter(|(kind, _)| *kind == b"ipma") {
            let mut uses = Bytes(uses);
            let (version, flags) = uses.version()?;
            for _ in 0..uses.u32()? {
                let id = uses.number(if version == 0 { 2 } else { 4 })? as u32;
                for _ in 0..uses.u8()? {
                    let (number, essential) = if flags & 1 == 0 {
                        let entry = uses.u8()?;
                        (u16::from(entry & 0x7F), entry & 0x80 != 0)
                    } else {
                        let entry = uses.u16()?;
                        (entry & 0x7FFF, entry & 0x8000 != 0)
                    };
                    entries += 1;
                    if entries > MAX_ENTRIES {
                        return None;
                    }
                    if let Some(item) = self.items.get_mut(&id) {
                        item.properties.push((number, essential));
                    }
                }
            }
        }
        Some(())
    }
}

fn primary(mut body: Bytes<'_>) -> Option<u32> {
    let (version, _) = body.version()?;
    body.number(if version == 0 { 2 } else { 4 }).map(|id| id as u32)
}
