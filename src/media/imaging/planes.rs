//! A picture as a JPEG keeps it: brightness in one plane, colour in two.
//!
//! In: what a decoder found. Out: the same, for whoever scales or encodes it.
//!
//! Invariant: a plane holds width * height samples; both colour planes are of one size, and
//! their samples lie centred over the brightness samples they colour, as JFIF has it.

/// One component of a picture: 8-bit samples, rows without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    pub width: u32,
    pub height: u32,
    pub samples: Vec<u8>,
}

/// Full-range BT.601 YCbCr (JFIF's); grey without chroma.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planes {
    pub luma: Plane,
    pub chroma: Option<[Plane; 2]>,
}
