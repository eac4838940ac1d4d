//! Decodes a JPEG at a half, a quarter or an eighth of its size, faster than a full decoder.
//!
//! In: the bytes of a file and the denominator. Out: planes of YCbCr, or nothing where the
//! file is of a rarer kind or damaged: libjpeg-turbo takes those, tolerantly.
//!
//! A picture of a quarter of the size needs only the four lowest of each block's 64
//! coefficients. The others are still in the way, for their codes have no fixed length, but
//! they need not be understood: a table names how many bits several codes and their values
//! take together. Of a progressive file, whole scans are skipped. What is kept goes through a
//! small inverse transform, which is a better low-pass than averaging decoded pixels.
//!
//! Invariant: no picture is made of data in which anything is wrong; memory is the planes,
//! tables of fixed size, and for progressive files the coefficients that are kept.
//!
//! Out of scope: arithmetic coding, lossless, 12 bits, RGB, CMYK, a height that follows later.

mod bits;
mod header;
mod huffman;
mod progressive;
mod sequential;
#[cfg(test)]
mod tests;
mod transform;

use super::Limits;
use super::error::ImageError;
use super::planes::Plane;
use super::planes::Planes;
use header::Frame;
use header::Reader;

/// Why no picture came of it.
enum Stop {
    /// Of a kind that is not decoded here, or damaged.
    Left,
    Refused(ImageError),
}

/// Decodes, shrunk by `denominator` (2, 4 or 8): light is `width / denominator` wide, rounded
/// up, colour smaller yet where the file subsamples it. `None`: the file is left to
/// libjpeg-turbo. `cancelled` is asked after every row of blocks.
pub fn decode(
    source: &[u8],
    denominator: u32,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Planes>, ImageError> {
    let planes = match denominator {
        2 => decode_to::<4>(source, limits, cancelled),
        4 => decode_to::<2>(source, limits, cancelled),
        8 => decode_to::<1>(source, limits, cancelled),
        _ => return Ok(None),
    };
    match planes {
        Ok(planes) => Ok(Some(planes)),
        Err(Stop::Left) => Ok(None),
        Err(Stop::Refused(error)) => Err(error),
    }
}

/// `N` samples along a side remain of a block's eight.
fn decode_to<const N: usize>(source: &[u8], limits: &Limits, cancelled: &dyn Fn() -> bool) -> Result<Planes, Stop> {
    let mut reader = Reader::new(source);
    let first = reader.next_scan().ok_or(Stop::Left)?;
    let frame = reader.frame().ok_or(Stop::Left)?;
    limits.check(frame.width, frame.height).map_err(Stop::Refused)?;
    let go_on = || if cancelled() { Err(Stop::Refused(ImageError::Cancelled)) } else { Ok(()) };
    let mut planes: Vec<Plane> = frame.components.iter().map(|part| empty_plane(&frame, part, N)).collect();
    if frame.progressive {
        progressive::decode::<N>(&frame, first, &mut reader, limits, &mut planes, &go_on)?;
    } else {
        sequential::decode::<N>(&frame, first, &mut reader, &mut planes, &go_on)?;
    }
    let mut planes = planes.into_iter();
    let luma = planes.next().ok_or(Stop::Left)?;
    Ok(Planes { luma, chroma: planes.next().zip(planes.next()).map(|(blue, red)| [blue, red]) })
}

fn empty_plane(frame: &Frame, component: &header::Component, scale: usize) -> Plane {
    let denominator = 8 / scale as u32;
    let width = (frame.width * component.across).div_ceil(frame.across * denominator);
    let height = (frame.height * component.down).div_ceil(frame.down * denominator);
    Plane { width, height, samples: vec![0; width as usize * height as usize] }
}

/// Copies a strip of finished rows into the plane, without what hangs over its edges.
fn copy_strip(strip: &[u8], stride: usize, first_row: usize, plane: &mut Plane) {
    let width = plane.width as usize;
    let rows = plane.samples.chunks_exact_mut(width).skip(first_row);
    for (row, from) in rows.zip(strip.chunks_exact(stride)) {
        if let Some(from) = from.get(..width) {
            row.copy_from_slice(from);
        }
    }
}
