//! The coded data of a scan as a stream of bits.
//!
//! In: the file and where a scan's data begins. Out: bits, up to 56 at a time without a
//! branch.
//!
//! Stuffing is removed in windows of 32 KiB ahead of decoding, so that the innermost loops
//! see plain bytes and never ask whether data is left: before each unit the window holds all
//! that a unit can take, or the end of the segment followed by zeros. Taking some of those is
//! noticed afterwards.
//!
//! Invariant: whatever the data, positions stay within the window (they are masked as well),
//! and a segment that was too short for its units is reported before its result is used.
#![expect(clippy::indexing_slicing, reason = "positions are masked to the window's fixed size")]

use super::header::has_ff;

const SIZE: usize = 1 << 15;
/// More than a unit takes: ten blocks of 64 codes and values of 31 bits, and what is read ahead.
const RESERVE: usize = 4096;
/// The window is filled up to here, so that the zeros behind the end fit as well.
const FULL: usize = SIZE - RESERVE;
/// Bytes of the file that are looked at together.
const STEP: usize = 32;

/// Plain bytes, without stuffing.
pub type Bytes = [u8; SIZE + STEP];

/// A position in the stream, small enough to live in registers.
#[derive(Clone, Copy, Default)]
pub struct Bits {
    /// The next bits, topmost first.
    buffer: u64,
    /// How many of them count.
    left: u64,
    /// Next byte of the window.
    at: usize,
}

impl Bits {
    /// These bits alone, the lowest `count` (0 to 32) of the word.
    pub fn of(word: u64, count: u32) -> Self {
        Self { buffer: (word << 32) << (32 - count), left: u64::from(count), at: 0 }
    }

    /// At least 56 bits are there afterwards.
    #[inline]
    pub fn refill(&mut self, bytes: &Bytes) {
        let at = self.at & (SIZE - 1);
        let left = self.left & 63;
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        self.buffer |= u64::from_be_bytes(word) >> left;
        self.at += (63 - left as usize) >> 3;
        self.left = left | 0b11_1000;
    }

    /// The next bits, 1 to 63 of them.
    #[inline]
    pub fn peek(&self, count: u32) -> usize {
        (self.buffer >> ((64 - count) & 63)) as usize
    }

    /// Drops at most as many bits as a refill has brought.
    #[inline]
    pub fn drop(&mut self, count: u32) {
        self.buffer <<= count & 63;
        self.left = self.left.wrapping_sub(u64::from(count));
    }

    /// Takes 0 to 32 bits.
    #[inline]
    pub fn take(&mut self, count: u32) -> u32 {
        let bits = (self.buffer >> 32) >> ((32 - count) & 63);
        self.drop(count);
        bits as u32
    }

    /// Takes a value in JPEG's form: the upper half of the range is positive.
    #[inline]
    pub fn take_value(&mut self, size: u32) -> i32 {
        let bits = self.take(size) as i32;
        let half = (1_i32 << size) >> 1;
        if bits < half { bits - (1 << size) + 1 } else { bits }
    }
}

/// A scan's data: segments of units, parted by restart markers.
pub struct Stream<'a> {
    window: Window<'a>,
    pub bits: Bits,
    /// Units between restart markers; 0 without such.
    restart_interval: usize,
    until_restart: usize,
    restarts: usize,
}

impl<'a> Stream<'a> {
    #[expect(clippy::large_stack_arrays, reason = "it never is on the stack: zeros come from the allocator")]
    pub fn new(source: &'a [u8], data: usize, restart_interval: usize) -> Self {
        let mut window = Window { source, next: data, bytes: Box::new([0; SIZE + STEP]), end: 0, ended: false, low: 0 };
        window.extend();
        Self { window, bits: Bits::default(), restart_interval, until_restart: restart_interval, restarts: 0 }
    }

    #[inline]
    pub fn bytes(&self) -> &Bytes {
        &self.window.bytes
    }

    /// Before each unit; tells whether a restart marker came, after which predictions begin
    /// anew. `None` if there is no data for a unit.
    #[inline]
    pub fn begin_unit(&mut self) -> Option<bool> {
        let restarts = self.restart_interval > 0 && self.until_restart == 0;
        if restarts {
            self.window.restart(&mut self.bits, self.restarts)?;
            self.restarts += 1;
            self.until_restart = self.restart_interval;
        }
        self.until_restart = self.until_restart.wrapping_sub(1);
        if self.bits.at > self.window.low {
            self.window.fill(&mut self.bits)?;
        }
        Some(restarts)
    }

    /// Checks that no more was taken than there was, and tells where unread bytes of the file
    /// begin.
    pub fn finish(&self) -> Option<usize> {
        (self.bits.at * 8 <= self.window.end * 8 + self.bits.left as usize).then_some(self.window.next)
    }
}

/// Plain bytes of the file, a stretch at a time.
struct Window<'a> {
    source: &'a [u8],
    /// Next byte of the file.
    next: usize,
    bytes: Box<Bytes>,
    /// How many bytes of the window are valid.
    end: usize,
    /// The segment ends with the window's bytes.
    ended: bool,
    /// From here on a unit needs more than the window holds.
    low: usize,
}

impl Window<'_> {
    /// Moves on to the next segment, which must follow here and carry this number (0 to 7).
    fn restart(&mut self, bits: &mut Bits, number: usize) -> Option<()> {
        // A window that ends before its segment holds more than a unit's worth of unread bytes.
        let unread = (self.end * 8 + bits.left as usize).checked_sub(bits.at * 8)?;
        let marker = self.source.get(self.next..self.next + 2)?;
        if !self.ended || unread >= 8 || marker != [0xFF, 0xD0 | (number & 7) as u8] {
            return None;
        }
        self.next += 2;
        self.end = 0;
        self.ended = false;
        self.extend();
        *bits = Bits::default();
        Some(())
    }

    #[cold]
    #[inline(never)]
    fn fill(&mut self, bits: &mut Bits) -> Option<()> {
        if self.ended || bits.at > self.end {
            return None;
        }
        self.bytes.copy_within(bits.at..self.end, 0);
        self.end -= bits.at;
        bits.at = 0;
        self.extend();
        Some(())
    }

    /// Appends bytes of the file until the window is full or the segment ends.
    fn extend(&mut self) {
        while self.end < FULL {
            let rest = self.source.get(self.next..).unwrap_or_default();
            if let Some(block) = rest.first_chunk::<STEP>() {
                self.bytes[self.end..self.end + STEP].copy_from_slice(block);
                if !has_ff(block) {
                    self.end += STEP;
                    self.next += STEP;
                    continue;
                }
            }
            let clean = rest.iter().take(STEP).take_while(|&&byte| byte != 0xFF).count();
            self.bytes[self.end..self.end + clean].copy_from_slice(&rest[..clean]);
            self.end += clean;
            self.next += clean;
            match rest.get(clean..clean + 2) {
                Some([0xFF, 0x00]) => {
                    self.bytes[self.end] = 0xFF;
                    self.end += 1;
                    self.next += 2;
                }
                Some([0xFF, 0xFF]) => self.next += 1,
                _ => {
                    self.ended = true;
                    self.bytes[self.end..self.end + RESERVE].fill(0);
                    self.low = self.end + 8;
                    return;
                }
            }
        }
        self.low = FULL - RESERVE;
    }
}
