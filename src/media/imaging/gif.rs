//! The blocks of a GIF file, without decoding it.
//!
//! In: the bytes of a file. Out: whether it can be seen through, how many frames it has, how
//! long they last and how often they are played.
//!
//! Invariant: one pass over the blocks; a file that ends too early tells
//! what it told until then.

use super::animation::Motion;
use super::animation::shown_ms;

/// What the blocks say.
#[derive(Default)]
pub struct Header {
    /// Whether the first frame can be seen through.
    pub transparent: bool,
    pub motion: Motion,
    /// Whether the last frame's data end where they should.
    pub complete: bool,
}

/// Walks the blocks.
pub fn header(source: &[u8]) -> Header {
    let mut found = Header::default();
    // Without the loop extension a GIF is played once.
    found.motion.plays = 1;
    walk(source, &mut found);
    found
}

fn walk(source: &[u8], found: &mut Header) -> Option<()> {
    let color_table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut rest = source.get(13 + color_table(*source.get(10)?)..)?;
    let mut delay_ms = 0;
    loop {
        // Some writers forget the closing block.
        if rest.is_empty() {
            found.complete = found.motion.frames > 0;
        }
        match *rest.first()? {
            0x2C => {
                if found.motion.frames == 0 {
                    // What the first frame leaves uncovered is transparent, too.
                    found.transparent |= rest.get(1..9)? != [&[0; 4], source.get(6..10)?].concat();
                }
                found.motion.frames = found.motion.frames.saturating_add(1);
                found.motion.duration_ms += u64::from(shown_ms(std::mem::take(&mut delay_ms)));
                // Descriptor, local colours, code size; then the sub-blocks.
                rest = rest.get(11 + color_table(*rest.get(9)?)..)?;
            }
            0x21 => {
                match rest.get(1..)? {
                    // Graphic control: flags, delay in hundredths of a second.
                    [0xF9, 4, flags, d0, d1, ..] => {
                        found.transparent |= found.motion.frames == 0 && flags & 1 == 1;
                        delay_ms = u32::from(u16::from_le_bytes([*d0, *d1])) * 10;
                    }
                    // Browsers take the number as repetitions after the first time; 0 is for ever.
                    [0xFF, 11, b'N', b'E', b'T', b'S', b'C', b'A', b'P', b'E', b'2', b'.', b'0', 3, 1, n0, n1, ..] => {
                        let repetitions = u32::from(u16::from_le_bytes([*n0, *n1]));
                        found.motion.plays = if repetitions == 0 { 0 } else { repetitions + 1 };
                    }
                    _ => {}
                }
                rest = rest.get(2..)?;
            }
            0x3B => {
                found.complete = true;
                return Some(());
            }
            _ => {
                found.complete = found.motion.frames > 0;
                return Some(());
            }
        }
        loop {
            let length = usize::from(*rest.first()?);
            rest = rest.get(length + 1..)?;
            if length == 0 {
                break;
            }
        }
    }
}
