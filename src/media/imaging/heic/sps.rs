//! What an HEVC stream says about the size and shape of its pictures.
//!
//! In: a sequence parameter set, as it lies in the container. Out: the few fields that decide
//! how much memory a picture takes (ITU-T H.265 §7.3.2.2).
//!
//! Invariant: reading stops at the end of the bytes, and numbers too large to be true are
//! refused. The decoder sees no parameter set that has not been read here before.

/// The size and shape of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    /// As coded: whole blocks.
    pub coded: (u32, u32),
    /// As shown, after the stream's own cropping.
    pub shown: (u32, u32),
    /// 0 gray, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma: u8,
    pub bits: u8,
}

impl Sps {
    /// Reads a unit, its two bytes of header included.
    pub fn read(unit: &[u8]) -> Option<Self> {
        let mut bits = Bits { bytes: unit.get(2..)?, at: 0, zeros: 0, left: 0, byte: 0 };
        bits.skip(4)?;
        let sub_layers = bits.number(3)?;
        bits.skip(1)?;
        // Profile, tier and level, and those of the sub-layers.
        bits.skip(96)?;
        let present: Vec<_> = (0..sub_layers).map(|_| bits.number(2)).collect::<Option<_>>()?;
        if sub_layers > 0 {
            bits.skip(2 * (8 - sub_layers))?;
        }
        for flags in present {
            bits.skip((flags >> 1) * 88 + (flags & 1) * 8)?;
        }
        bits.golomb()?;
        let chroma = bits.golomb()?;
        let is_separate = chroma == 3 && bits.number(1)? == 1;
        let (width, height) = (bits.golomb()?, bits.golomb()?);
        let cut = if bits.number(1)? == 1 {
            [bits.golomb()?, bits.golomb()?, bits.golomb()?, bits.golomb()?]
        } else {
            [0; 4]
        };
        let (luma_bits, chroma_bits) = (bits.golomb()?, bits.golomb()?);
        let (wide, high) = (if matches!(chroma, 1 | 2) { 2 } else { 1 }, if chroma == 1 { 2 } else { 1 });
        let [left, right, top, bottom] = cut;
        let shown = (
            width.checked_sub(left.checked_add(right)?.checked_mul(wide)?)?,
            height.checked_sub(top.checked_add(bottom)?.checked_mul(high)?)?,
        );
        let same_depth = chroma == 0 || luma_bits == chroma_bits;
        let sane = chroma <= 3 && !is_separate && same_depth && luma_bits <= 8 && shown.0 > 0 && shown.1 > 0;
        sane.then_some(Self { coded: (width, height), shown, chroma: chroma as u8, bits: luma_bits as u8 + 8 })
    }

    /// What a decoder takes for a picture, by and large: the samples twice, for the last filter
    /// reads a copy, and its notes on every block.
    pub fn working_bytes(&self) -> u64 {
        let samples_in_four = [4, 6, 8, 12].get(usize::from(self.chroma)).copied().unwrap_or(12);
        let bytes_in_four = samples_in_four * if self.bits > 8 { 2 } else { 1 };
        u64::from(self.coded.0) * u64::from(self.coded.1) * (2 * bytes_in_four + 8) / 4
    }
}

/// The bits of a unit, without the bytes that keep start codes out of it.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    zeros: u8,
    left: u8,
    byte: u8,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            let mut byte = *self.bytes.get(self.at)?;
            self.at += 1;
            if self.zeros >= 2 && byte == 3 {
                byte = *self.bytes.get(self.at)?;
                self.at += 1;
                self.zeros = 0;
            }
            self.zeros = if byte == 0 { (self.zeros + 1).min(2) } else { 0 };
            (self.byte, self.left) = (byte, 8);
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        (0..bits).try_for_each(|_| self.bit().map(|_| ()))
    }

    fn number(&mut self, bits: u32) -> Option<u32> {
        (0..bits).try_fold(0, |n, _| Some(n << 1 | self.bit()?))
    }

    /// An unsigned Exp-Golomb number of at most 20 bits, which is far above any honest size.
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 20 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.number(zeros)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_escapes() {
        // 1 | 010 | 011 | 00100 | …: 0, 1, 2, 3.
        let mut bits = Bits { bytes: &[0b1010_0110, 0b0100_0000], at: 0, zeros: 0, left: 0, byte: 0 };
        assert_eq!([bits.golomb(), bits.golomb(), bits.golomb(), bits.golomb()], [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(bits.golomb(), None);
        // The 3 after two zeros is no part of the number.
        let mut bits = Bits { bytes: &[0, 0, 3, 1], at: 0, zeros: 0, left: 0, byte: 0 };
        assert_eq!(bits.number(24), Some(1));
    }

    #[test]
    fn whatever_is_read_ends() {
        for byte in 0..=255 {
            for len in 0..64 {
                let _ = Sps::read(&vec![byte; len]);
            }
        }
    }
}
