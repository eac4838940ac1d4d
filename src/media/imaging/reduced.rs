//! Where a decoder that does nothing but shrink baseline JPEGs has its place.
//!
//! In: the bytes of a file, and by how much to shrink. Out: planes, or nothing for a file that is
//! better left to libjpeg, which for now is every file.

use super::Limits;
use super::error::ImageError;
use super::planes::Planes;

/// Decodes shrunk by 2, 4 or 8; `None` leaves the file to libjpeg.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a decoder that can fail")]
pub fn decode(
    _source: &[u8],
    _denominator: u32,
    _limits: &Limits,
    _cancelled: &dyn Fn() -> bool,
) -> Result<Option<Planes>, ImageError> {
    Ok(None)
}
