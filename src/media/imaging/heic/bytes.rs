//! Reading numbers out of bytes that may end at any moment.
//!
//! In: a slice. Out: big-endian numbers and sub-slices, taken from its front.
//!
//! Invariant: nothing is read beyond the end; whoever asks for more gets `None`.

/// What is left to read.
#[derive(Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of `size` bytes, 0 to 8; of none it is 0.
    pub fn number(&mut self, size: u8) -> Option<u64> {
        Some(self.take(usize::from(size.min(8)))?.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.number(2).map(|n| n as u16)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.number(4).map(|n| n as u32)
    }

    pub fn four(&mut self) -> Option<[u8; 4]> {
        self.take(4)?.first_chunk().copied()
    }

    /// The version and flags with which a full box begins.
    pub fn version(&mut self) -> Option<(u8, u32)> {
        let number = self.u32()?;
        Some(((number >> 24) as u8, number & 0xFF_FFFF))
    }

    /// Up to a zero byte, which is taken, too.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.0.iter().position(|&byte| byte == 0)?;
        let text = self.take(len)?;
        self.take(1)?;
        Some(text)
    }
}
