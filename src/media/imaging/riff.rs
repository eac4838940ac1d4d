//! The chunks of a WebP file.
//!
//! In: the bytes of a file. Out: its colour profile and metadata blocks, what moves, and
//! whether the file is as long as it says.
//!
//! Invariant: blocks above their caps are skipped, lengths are never trusted.

use super::Limits;
use super::animation::Motion;
use super::animation::shown_ms;

/// What the chunks hold.
#[derive(Default)]
pub struct Chunks {
    pub icc: Option<Vec<u8>>,
    pub exif: Option<Vec<u8>>,
    pub xmp: Option<Vec<u8>>,
    pub motion: Motion,
    pub complete: bool,
}

/// Walks the chunks.
pub fn read(source: &[u8], limits: &Limits) -> Chunks {
    let mut found = Chunks::default();
    let declared = source.get(4..).and_then(|b| b.first_chunk()).map_or(0, |n| u32::from_le_bytes(*n) as usize);
    found.complete = source.len() >= declared.saturating_add(8);
    let mut rest = source.get(12..).unwrap_or_default();
    while let Some((kind, after)) = rest.split_first_chunk::<4>() {
        let Some((length, after)) = after.split_first_chunk::<4>() else { break };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(data) = after.get(..length) else { break };
        let keep = |most: usize| (length <= most).then(|| data.to_vec());
        match kind {
            b"ICCP" => found.icc = keep(limits.max_icc_bytes),
            b"EXIF" => found.exif = keep(limits.max_exif_bytes),
            b"XMP " => found.xmp = keep(limits.max_text_bytes),
            // Background colour, then how often.
            b"ANIM" => {
                if let [_, _, _, _, n0, n1, ..] = data {
                    found.motion.plays = u32::from(u16::from_le_bytes([*n0, *n1]));
                }
            }
            // Place and size in four times 24 bits, then the duration.
            b"ANMF" => {
                if let Some(&[d0, d1, d2]) = data.get(12..15) {
                    found.motion.frames = found.motion.frames.saturating_add(1);
                    found.motion.duration_ms += u64::from(shown_ms(u32::from_le_bytes([d0, d1, d2, 0])));
                }
            }
            _ => {}
        }
        // Chunks are padded to even lengths.
        rest = after.get(length + length % 2..).unwrap_or_default();
    }
    found
}
