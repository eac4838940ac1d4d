//! A span of days as words of the index.
//!
//! Each asset is indexed under its day, and under the day without its last 5 and 10 bits. A
//! span is covered from both ends towards the middle by the largest of these that fit, so any
//! span is at most some 180 words, and together with other words it is found without walking
//! what lies outside of it. The ends are whole days: whoever wants more looks at the instant.

use std::fmt::Write;

/// The last day that is told apart: in the year 2134.
const LAST: i64 = 60_000;

/// Days by 1, by 32 and by 1024, and what their words begin with.
const LEVELS: [(u32, char); 3] = [(0, 'd'), (5, 'e'), (10, 'h')];

/// Milliseconds of a day.
pub const DAY: i64 = 86_400_000;

/// The words of all days from one to another, both included, as alternatives.
pub fn expression(from_day: i64, to_day: i64) -> String {
    let (mut from, to) = (from_day.clamp(0, LAST), to_day.clamp(0, LAST));
    let mut words = String::from("(");
    while from <= to {
        let fits = |bits: u32| from & ((1 << bits) - 1) == 0 && from + (1 << bits) - 1 <= to;
        let (bits, letter) = LEVELS.into_iter().rev().find(|(bits, _)| fits(*bits)).unwrap_or(LEVELS[0]);
        let glue = if words.len() > 1 { " OR " } else { "" };
        let _ = write!(words, "{glue}\"{letter}{}\"", from >> bits);
        from += 1 << bits;
    }
    if words.len() == 1 {
        // From later to earlier: no day.
        words.push_str("\"dnone\"");
    }
    words.push(')');
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_in_words() {
        for (from, to, words) in [
            (20_000, 20_000, "(\"d20000\")"),
            (31, 64, "(\"d31\" OR \"e1\" OR \"d64\")"),
            (1024, 2047, "(\"h1\")"),
            (5, 4, "(\"dnone\")"),
        ] {
            assert_eq!(expression(from, to), words);
        }
    }

    proptest! {
        #[test]
        fn a_span_holds_its_days_and_no_others(from in 0i64..5000, length in 0i64..3000, day in 0i64..9000) {
            let words = expression(from, from + length);
            prop_assert!(words.matches("OR").count() < 190);
            let own = [format!("\"d{day}\""), format!("\"e{}\"", day >> 5), format!("\"h{}\"", day >> 10)];
            let hits = own.iter().filter(|word| words.contains(*word)).count();
            prop_assert_eq!(hits, usize::from((from..=from + length).contains(&day)), "{}", words);
        }
    }
}
