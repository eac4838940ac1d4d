//! Which way up a picture is stored.
//!
//! In: the number 1 to 8 of the EXIF tag, or the turn and mirror of an AVIF or HEIC container. Out: the
//! pixel moves that set the picture upright, and the words ExifTool uses.
//!
//! Invariant: an unknown number means upright; a wrong guess would be worse than none.

/// The EXIF orientation, 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation(u8);

impl Orientation {
    pub const UPRIGHT: Self = Self(1);

    /// Of an EXIF value; anything unknown is upright.
    pub fn from_exif(value: u32) -> Self {
        match value {
            2..=8 => Self(value as u8),
            _ => Self::UPRIGHT,
        }
    }

    /// Of a HEIF's (AVIF or HEIC) `irot` (quarter turns anticlockwise) followed by its `imir`
    /// (0 = top and bottom swapped, 1 = left and right swapped).
    pub fn from_heif(quarter_turns: u8, mirror: Option<u8>) -> Self {
        // A mirror after a half turn is the other mirror; after a quarter turn, a diagonal one.
        Self(match (quarter_turns % 4, mirror) {
            (0, None) => 1,
            (1, None) => 8,
            (2, None) => 3,
            (_, None) => 6,
            (0, Some(1)) | (2, Some(0)) => 2,
            (0 | 2, Some(_)) => 4,
            (1, Some(0)) | (3, Some(1)) => 5,
            (_, Some(_)) => 7,
        })
    }

    /// Both, one after the other.
    pub fn then(self, next: Self) -> Self {
        let ((mirrored, turns), (mirrored_next, turns_next)) = (self.moves(), next.moves());
        // A mirror turns what was done before it around.
        let turns = if mirrored_next { 4 - turns } else { turns } + turns_next;
        Self(match (mirrored != mirrored_next, turns % 4) {
            (false, 0) => 1,
            (false, 1) => 6,
            (false, 2) => 3,
            (false, _) => 8,
            (true, 0) => 2,
            (true, 1) => 7,
            (true, 2) => 4,
            (true, _) => 5,
        })
    }

    /// Whether setting upright swaps width and height.
    pub fn swaps(self) -> bool {
        self.0 >= 5
    }

    /// The same size, upright.
    pub fn upright(self, width: u32, height: u32) -> (u32, u32) {
        if self.swaps() { (height, width) } else { (width, height) }
    }

    /// How to set upright: clockwise quarter turns, after mirroring left to right or not.
    pub(super) fn moves(self) -> (bool, u8) {
        match self.0 {
            2 => (true, 0),
            3 => (false, 2),
            4 => (true, 2),
            5 => (true, 3),
            6 => (false, 1),
            7 => (true, 1),
            8 => (false, 3),
            _ => (false, 0),
        }
    }

    /// Whether setting upright runs through the stored columns, and through the stored rows, from
    /// the far end.
    pub(super) fn reverses(self) -> (bool, bool) {
        (matches!(self.0, 2 | 3 | 7 | 8), matches!(self.0, 3 | 4 | 6 | 7))
    }

    /// ExifTool's words.
    pub fn words(self) -> &'static str {
        match self.0 {
            2 => "Mirror horizontal",
            3 => "Rotate 180",
            4 => "Mirror vertical",
            5 => "Mirror horizontal and rotate 270 CW",
            6 => "Rotate 90 CW",
            7 => "Mirror horizontal and rotate 90 CW",
            8 => "Rotate 270 CW",
            _ => "Horizontal (normal)",
        }
    }
}
