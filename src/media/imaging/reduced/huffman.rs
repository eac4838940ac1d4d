//! Tables that decode Huffman codes, the values that follow them, or several of both at once.
//!
//! In: a table as a file defines it. Out: lookups by the next bits of the stream.
//!
//! [`Values`] yields a code together with its value, wherever both fit the bits looked at.
//! [`Skips`] yields only how far as many codes as possible lead, and how many bits they and
//! their values take: for coefficients nobody wants.
//!
//! Invariant: an entry never stands for more bits than one refill brings; codes that a table
//! does not cover are looked up slowly, and those no table defines are an error.
#![expect(clippy::indexing_slicing, reason = "tables are indexed by as many bits as they have entries for")]

use super::bits::Bits;
use super::bits::Bytes;

/// The advance that stands for "the block ends here". It leads beyond any block, but so little
/// beyond that a position tells whether it was within the block before.
pub const END: u32 = 128;
/// Of an entry of [`Skips`]: nothing known. Leads farther than an end of block can.
const UNKNOWN: u16 = 0xFF00;
/// Bits looked at to skip codes.
const SKIP_BITS: u32 = 12;
/// In an entry of [`Values`]: the value is not included, or not even the code is known.
const LONG: u32 = 0x80;

/// Canonical codes, of any length.
struct Codes {
    /// For each length, the first 16-bit word that begins with no code of it or shorter.
    limits: [u32; 17],
    /// For each length, what leads from a code to its symbol's place.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Codes {
    fn new(specification: &[u8]) -> Option<Self> {
        let (counts, from) = specification.split_first_chunk::<16>()?;
        let mut codes = Self { limits: [0; 17], offsets: [0; 17], symbols: [0; 256] };
        codes.symbols.get_mut(..from.len())?.copy_from_slice(from);
        let (mut code, mut place) = (0_u32, 0_u32);
        for (&count, length) in counts.iter().zip(1..=16_usize) {
            code <<= 1;
            codes.offsets[length] = place as i32 - code as i32;
            code += u32::from(count);
            place += u32::from(count);
            // The code of ones alone is reserved.
            if count > 0 && code >= 1 << length {
                return None;
            }
            codes.limits[length] = code << (16 - length);
        }
        Some(codes)
    }

    /// The length of the code at the beginning of these 16 bits, and its symbol.
    fn find(&self, word: u32) -> Option<(u32, u8)> {
        let length = (1..=16_usize).find(|&length| word < self.limits[length])?;
        let place = (word >> (16 - length)) as i32 + self.offsets[length];
        Some((length as u32, self.symbols[place as usize & 255]))
    }

    /// Calls back for each code: its bits, its length, its symbol.
    fn for_each(&self, counts: &[u8], mut each: impl FnMut(usize, u32, u8)) {
        let mut symbols = self.symbols.iter();
        for (&count, length) in counts.iter().zip(1_u32..) {
            let first = (self.limits[length as usize] >> (16 - length)) as usize - usize::from(count);
            for (code, &symbol) in (first..).zip(symbols.by_ref().take(usize::from(count))) {
                each(code, length, symbol);
            }
        }
    }
}

/// What a code of coefficients means.
#[derive(Clone, Copy)]
pub struct Step {
    /// How many coefficients it leads on, the one with the value included; or [`END`].
    pub advance: u32,
    /// With [`END`]: how many further blocks end, in a progressive file.
    pub value: i32,
}

impl Step {
    /// Takes what follows a code.
    fn new(symbol: u8, bits: &mut Bits) -> Self {
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if is_end(symbol) {
            Self { advance: END, value: ((1 << run) | bits.take(run) as i32) - 1 }
        } else {
            Self { advance: run + 1, value: bits.take_value(size) }
        }
    }
}

/// Whether this ends one block or more.
fn is_end(symbol: u8) -> bool {
    symbol.trailing_zeros() >= 4 && symbol >> 4 < 15
}

/// Codes with their values, looked up by `2^LOG` entries.
pub struct Values<const LOG: u32> {
    /// Value, advance, and bits taken (or [`LONG`]), from the top: 16, 8 and 8 bits.
    entries: Box<[u32; 4096]>,
    codes: Codes,
}

impl<const LOG: u32> Values<LOG> {
    /// For differences between the averages of blocks.
    pub fn dc(specification: &[u8]) -> Option<Self> {
        let (counts, symbols) = specification.split_at_checked(16)?;
        if symbols.iter().any(|&size| size > 15) {
            return None;
        }
        Self::new(specification, counts)
    }

    /// For the other coefficients.
    pub fn ac(specification: &[u8]) -> Option<Self> {
        Self::new(specification, specification.get(..16)?)
    }

    fn new(specification: &[u8], counts: &[u8]) -> Option<Self> {
        const { assert!(LOG <= 12) };
        let codes = Codes::new(specification)?;
        let mut entries = Box::new([LONG; 4096]);
        codes.for_each(counts, |code, length, symbol| {
            if length > LOG {
                return;
            }
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            let free = LOG - length;
            let size = if is_end(symbol) { run } else { size };
            for (rest, entry) in entries[code << free..(code + 1) << free].iter_mut().enumerate() {
                if size <= free {
                    let step = Step::new(symbol, &mut Bits::of(rest as u64, free));
                    *entry = (step.value as u32) << 16 | step.advance << 8 | (length + size);
                }
            }
        });
        Some(Self { entries, codes })
    }

    /// Takes a code and its value, in one lookup if the entry says so. There must be `LOG` bits.
    #[inline]
    pub fn next(&self, bits: &mut Bits, bytes: &Bytes) -> Option<Step> {
        let entry = self.entries[bits.peek(LOG) & 4095];
        if entry & LONG != 0 {
            // Through a copy: a pointer that leaves this function would keep the bits in memory.
            let mut copy = *bits;
            let step = self.next_long(&mut copy, bytes);
            *bits = copy;
            return step;
        }
        bits.drop(entry & 0x7F);
        Some(Step { advance: entry >> 8 & 0xFF, value: entry as i32 >> 16 })
    }

    #[cold]
    #[inline(never)]
    fn next_long(&self, bits: &mut Bits, bytes: &Bytes) -> Option<Step> {
        let symbol = self.symbol(bits, bytes)?;
        let step = Step::new(symbol, bits);
        // The caller counts on what its refill brought.
        bits.refill(bytes);
        Some(step)
    }

    /// Takes a code without its value, and leaves at least 40 bits behind it.
    fn symbol(&self, bits: &mut Bits, bytes: &Bytes) -> Option<u8> {
        bits.refill(bytes);
        let (length, symbol) = self.codes.find(bits.peek(16) as u32)?;
        bits.drop(length);
        Some(symbol)
    }
}

/// How far several codes lead.
pub struct Skips {
    /// Coefficients in the upper byte, bits in the lower.
    entries: Box<[u16; 1 << SKIP_BITS]>,
}

impl Skips {
    pub fn new(specification: &[u8]) -> Option<Self> {
        let codes = Codes::new(specification)?;
        let mut single = Box::new([UNKNOWN; 1 << SKIP_BITS]);
        // Beside each entry, how many bits of it are the code itself.
        let mut lengths = Box::new([u8::MAX; 1 << SKIP_BITS]);
        codes.for_each(specification.get(..16)?, |code, length, symbol| {
            let (run, size) = (u16::from(symbol >> 4), u16::from(symbol & 15));
            if length > SKIP_BITS || (size == 0 && !matches!(run, 0 | 15)) {
                return;
            }
            let advance = if symbol == 0 { END as u16 } else { run + 1 };
            let free = SKIP_BITS - length;
            single[code << free..(code + 1) << free].fill(advance << 8 | (length as u16 + size));
            lengths[code << free..(code + 1) << free].fill(length as u8);
        });
        let mut entries = single.clone();
        for (index, entry) in entries.iter_mut().enumerate() {
            loop {
                let taken = u32::from(*entry & 0xFF);
                if *entry >= 64 << 8 || taken >= SKIP_BITS {
                    break;
                }
                // A code that begins within the bits looked at must end there, its value need not.
                let following = index << taken & ((1 << SKIP_BITS) - 1);
                let next = single[following];
                let too_far = (*entry >> 8) + (next >> 8 & 0x7F) > 63;
                if next == UNKNOWN || u32::from(lengths[following]) + taken > SKIP_BITS || too_far {
                    break;
                }
                *entry += next;
            }
        }
        Some(Self { entries })
    }

    /// Drops the rest of a block, whose next coefficient is `from` (1 to 63).
    #[inline]
    pub fn skip_block<const LOG: u32>(
        &self,
        shared: &mut Bits,
        bytes: &Bytes,
        values: &Values<LOG>,
        from: u32,
    ) -> Option<()> {
        let mut bits = *shared;
        let mut position = from;
        loop {
            let mut before;
            // The lower byte counts bits: at most two times 27.
            let mut sum = position << 8;
            loop {
                bits.refill(bytes);
                before = (bits, sum);
                let entry = u32::from(self.entries[bits.peek(SKIP_BITS) & ((1 << SKIP_BITS) - 1)]);
                bits.drop(entry & 0x3F);
                sum += entry & 0xFF00;
                if sum >= 64 << 8 {
                    break;
                }
                before = (bits, sum);
                let entry = u32::from(self.entries[bits.peek(SKIP_BITS) & ((1 << SKIP_BITS) - 1)]);
                bits.drop(entry & 0x3F);
                sum += entry & 0xFF00;
                if sum >= 64 << 8 {
                    break;
                }
            }
            position = sum >> 8;
            // Full exactly, or an end of block that came before the block was full.
            if position == 64 || (END..END + 64).contains(&position) {
                *shared = bits;
                return Some(());
            }
            // Either the codes led into the next block, or they are longer than the table: one
            // at a time from here.
            *shared = before.0;
            position = before.1 >> 8;
            let symbol = values.symbol(shared, bytes)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (0, 0) => return Some(()),
                (1..=14, 0) => return None,
                _ => {}
            }
            shared.drop(size);
            position += run + 1;
            if position >= 64 {
                return (position == 64).then_some(());
            }
            bits = *shared;
        }
    }
}
