//! Offset paging as the contract has it: `offset` and `limit`, clamped.

/// One page of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub offset: u32,
    pub limit: u32,
}

impl Page {
    /// A page of at most `most` rows; what was not asked for takes `usual`.
    pub fn new(offset: Option<u32>, limit: Option<u32>, usual: u32, most: u32) -> Page {
        Page { offset: offset.unwrap_or(0), limit: limit.unwrap_or(usual).clamp(1, most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_clamped() {
        assert_eq!(Page::new(None, None, 30, 100), Page { offset: 0, limit: 30 });
        assert_eq!(Page::new(Some(5), Some(0), 30, 100), Page { offset: 5, limit: 1 });
        assert_eq!(Page::new(None, Some(9999), 30, 100).limit, 100);
    }
}
