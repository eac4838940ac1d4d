//! `strip`: leaves all metadata out, which is what happens anyway.
//!
//! Accepted because other services want to be told. It changes nothing, not even next to a
//! `keep`, which says what is to stay.

use super::Param;
use super::Parsed;
use super::switch;

pub struct Strip;

impl Param for Strip {
    fn name(&self) -> &'static str {
        "strip"
    }

    fn help(&self) -> &'static str {
        "bare or true: leave all metadata out, as is done anyway unless keep says otherwise"
    }

    fn example(&self) -> &'static str {
        "strip=true"
    }

    fn parse(&self, raw: &str) -> Parsed {
        match switch(raw) {
            Some(true) => Ok(None),
            _ => Err("must be true; use keep=all to keep metadata".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_nothing() {
        assert!(Strip.parse("").unwrap().is_none() && Strip.parse("true").unwrap().is_none());
        assert!(Strip.parse("false").is_err() && Strip.parse("gps").is_err());
    }
}
