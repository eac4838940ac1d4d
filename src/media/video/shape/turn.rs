//! Sets frames upright: turned by quarters, mirrored, or both.
//!
//! In: a plane as it was stored. Out: the same samples as they are to be seen.
//!
//! Blocks of samples are moved rather than rows: a turned row is a column, and writing
//! columns of a large plane would miss the cache at every sample.
#![expect(clippy::indexing_slicing, reason = "moving samples; every index is derived from the planes' sizes")]

/// Samples along the side of a block.
const BLOCK: usize = 16;

/// What sets a film upright: rows and columns exchanged first, then mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    exchange: bool,
    mirror_across: bool,
    mirror_down: bool,
}

impl Turn {
    pub const NONE: Self = Self::new(false, false, false);
    /// A quarter, clockwise.
    pub const RIGHT: Self = Self::new(true, true, false);
    pub const HALF: Self = Self::new(false, true, true);
    /// A quarter, counter-clockwise.
    pub const LEFT: Self = Self::new(true, false, true);
    /// Left and right exchanged.
    pub const MIRROR: Self = Self::new(false, true, false);
    /// Top and bottom exchanged.
    pub const FLIP: Self = Self::new(false, false, true);
    /// Mirrored at the diagonal from the top left.
    pub const DIAGONAL: Self = Self::new(true, false, false);
    /// Mirrored at the diagonal from the top right.
    pub const OTHER_DIAGONAL: Self = Self::new(true, true, true);

    const fn new(exchange: bool, mirror_across: bool, mirror_down: bool) -> Self {
        Self { exchange, mirror_across, mirror_down }
    }

    /// The turn that a film's `image-orientation` tag asks for.
    #[cfg(test)]
    pub fn from_tag(tag: &str) -> Option<Self> {
        Some(match tag {
            "rotate-0" => Self::NONE,
            "rotate-90" => Self::RIGHT,
            "rotate-180" => Self::HALF,
            "rotate-270" => Self::LEFT,
            "flip-rotate-0" => Self::MIRROR,
            "flip-rotate-90" => Self::OTHER_DIAGONAL,
            "flip-rotate-180" => Self::FLIP,
            "flip-rotate-270" => Self::DIAGONAL,
            _ => return None,
        })
    }

    /// Width and height change places.
    pub fn transposes(self) -> bool {
        self.exchange
    }

    /// A size or a place in the upright picture, in that of the frame as it was stored, or the
    /// other way round.
    pub(super) fn exchanged<T>(self, (across, down): (T, T)) -> (T, T) {
        if self.exchange { (down, across) } else { (across, down) }
    }

    /// Whether a frame's columns, as they were stored, end up in reverse; and its rows.
    pub(super) fn reversed(self) -> (bool, bool) {
        self.exchanged((self.mirror_across, self.mirror_down))
    }

    /// Writes a plane of `size`, without padding, turned to `target`, whose rows are `stride`
    /// apart.
    pub(super) fn apply(self, source: &[u8], size: (usize, usize), target: &mut [u8], stride: usize) {
        let (width, height) = size;
        let (wide, high) = self.exchanged(size);
        if !self.exchange {
            for (y, row) in target.chunks_mut(stride).take(high).enumerate() {
                let from = if self.mirror_down { height - 1 - y } else { y };
                let (row, from) = (&mut row[..wide], &source[from * width..][..width]);
                row.copy_from_slice(from);
                if self.mirror_across {
                    row.reverse();
                }
            }
            return;
        }
        for (band, rows) in target.chunks_mut(stride * BLOCK).take(high.div_ceil(BLOCK)).enumerate() {
            for left in (0..wide).step_by(BLOCK) {
                let right = (left + BLOCK).min(wide);
                for (y, row) in rows.chunks_mut(stride).enumerate().map(|(y, row)| (band * BLOCK + y, row)) {
                    if y >= high {
                        break;
                    }
                    let column = if self.mirror_down { high - 1 - y } else { y };
                    for (x, sample) in row[left..right].iter_mut().enumerate().map(|(x, s)| (left + x, s)) {
                        let from = if self.mirror_across { wide - 1 - x } else { x };
                        *sample = source[from * width + column];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn() {
        // 1 2 3
        // 4 5 6
        let stored = [1, 2, 3, 4, 5, 6];
        for (turn, seen) in [
            (Turn::NONE, [1, 2, 3, 4, 5, 6]),
            (Turn::RIGHT, [4, 1, 5, 2, 6, 3]),
            (Turn::HALF, [6, 5, 4, 3, 2, 1]),
            (Turn::LEFT, [3, 6, 2, 5, 1, 4]),
            (Turn::MIRROR, [3, 2, 1, 6, 5, 4]),
            (Turn::FLIP, [4, 5, 6, 1, 2, 3]),
            (Turn::DIAGONAL, [1, 4, 2, 5, 3, 6]),
            (Turn::OTHER_DIAGONAL, [6, 3, 5, 2, 4, 1]),
        ] {
            let (wide, high) = turn.exchanged((3, 2));
            let stride = 5;
            let mut target = vec![0; stride * high];
            turn.apply(&stored, (3, 2), &mut target, stride);
            let found: Vec<u8> = target.chunks(stride).flat_map(|row| row[..wide].to_vec()).collect();
            assert_eq!(found, seen, "{turn:?}");
            assert!(target.chunks(stride).all(|row| row[wide..].iter().all(|&s| s == 0)), "{turn:?} leaves padding");
        }
    }

    #[test]
    fn blocks_meet() {
        let (width, height) = (37, 41);
        let stored: Vec<u8> = (0..width * height).map(|i| (i % 251) as u8).collect();
        for turn in [Turn::RIGHT, Turn::LEFT, Turn::DIAGONAL, Turn::OTHER_DIAGONAL] {
            let mut seen = vec![0; width * height];
            turn.apply(&stored, (width, height), &mut seen, height);
            let (columns, rows) = turn.reversed();
            for y in 0..height {
                for x in 0..width {
                    let across = if rows { height - 1 - y } else { y };
                    let down = if columns { width - 1 - x } else { x };
                    assert_eq!(seen[down * height + across], stored[y * width + x], "{turn:?} {x} {y}");
                }
            }
        }
    }
}
