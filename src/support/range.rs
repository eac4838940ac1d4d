//! Byte ranges as RFC 9110 §14 has them.
//!
//! In goes the text of a `Range` header and the length of the content; out comes what to
//! send: all of it, some half-open ranges of bytes, or a refusal. [`Multipart`] frames
//! several ranges as `multipart/byteranges` and knows its exact length beforehand.
//!
//! Invariant: every range given out is non-empty, lies inside the content, and touches no
//! other of the same answer; so an answer never carries a byte twice, and its size is
//! bounded by the content's however the header was written.
//!
//! A header that is malformed, of another unit or greedy (`MAX_RANGES`) is ignored, as §14.2
//! allows. Ranges keep the order they were asked in.

use std::fmt;
use std::ops::Range;

/// The most parts an answer may have.
const MAX_RANGES: usize = 16;

/// The most ranges a header may list before merging; merging is quadratic.
const MAX_LISTED: usize = 256;

/// What to send for a `Range` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// All of it, as 200.
    Full,
    /// These bytes, as 206; never empty.
    Satisfiable(Vec<Range<u64>>),
    /// Nothing of what was asked exists: 416, with [`unsatisfied`].
    Unsatisfiable,
}

/// Reads a `Range` header for a content of `len` bytes.
pub fn parse(header: &str, len: u64) -> Ranges {
    let Some(specs) = specs(header) else { return Ranges::Full };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for range in specs.into_iter().filter_map(|spec| spec.resolve(len)) {
        join(&mut ranges, range);
    }
    match ranges.len() {
        0 => Ranges::Unsatisfiable,
        1..=MAX_RANGES => Ranges::Satisfiable(ranges),
        _ => Ranges::Full,
    }
}

/// Whether `If-Range` lets the range through; if not, the whole content is sent.
///
/// The comparison is strong (§13.1.5): a weak tag on either side never matches, and a date
/// matches only as the very text that we say in `Last-Modified`.
pub fn if_range_holds(header: &str, etag: Option<&str>, last_modified: Option<&str>) -> bool {
    let header = header.trim_matches([' ', '\t']);
    if header.starts_with('"') {
        header.len() >= 2 && header.ends_with('"') && etag == Some(header)
    } else {
        !header.starts_with("W/") && last_modified == Some(header)
    }
}

/// The `Content-Range` of one range of a content of `len` bytes.
pub fn content_range(range: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", range.start, range.end.saturating_sub(1))
}

/// The `Content-Range` of a refusal.
pub fn unsatisfied(len: u64) -> String {
    format!("bytes */{len}")
}

/// Several ranges of one content, framed as `multipart/byteranges`.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    content_type: String,
    len: u64,
    ranges: Vec<Range<u64>>,
}

/// What comes next in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Send this text.
    Text(String),
    /// Send these bytes of the content.
    Bytes(Range<u64>),
}

impl Multipart {
    /// `boundary` is random and of letters and digits, so that no content can hold it.
    pub fn new(ranges: Vec<Range<u64>>, len: u64, content_type: &str, boundary: impl fmt::Display) -> Multipart {
        Multipart { boundary: boundary.to_string(), content_type: content_type.to_owned(), len, ranges }
    }

    /// The `Content-Type` of the answer.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The exact number of bytes of the body.
    pub fn content_length(&self) -> u64 {
        let size_bytes = |piece| match piece {
            Piece::Text(text) => text.len() as u64,
            Piece::Bytes(range) => range.end - range.start,
        };
        self.pieces().map(size_bytes).sum()
    }

    /// The body, piece by piece.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let parts = self.ranges.iter().enumerate().flat_map(|(n, range)| {
            let head = format!(
                "{}--{}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
                if n == 0 { "" } else { "\r\n" },
                self.boundary,
                self.content_type,
                content_range(range, self.len),
            );
            [Piece::Text(head), Piece::Bytes(range.clone())]
        });
        parts.chain([Piece::Text(format!("\r\n--{}--\r\n", self.boundary))])
    }
}

/// One element of the header's list.
enum Spec {
    /// `first-last` or `first-`.
    From(u64, Option<u64>),
    /// `-count`: that many bytes at the end.
    Last(u64),
}

impl Spec {
    fn parse(text: &str) -> Option<Spec> {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", count) => Some(Spec::Last(number(count)?)),
            (first, "") => Some(Spec::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Spec::From(first, Some(last)))
            }
        }
    }

    fn resolve(&self, len: u64) -> Option<Range<u64>> {
        let range = match *self {
            Spec::From(first, last) => first..last.map_or(len, |last| last.saturating_add(1).min(len)),
            Spec::Last(count) => len.saturating_sub(count)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

/// The list of a well-formed `bytes=` header; empty elements do not count (§5.6.1.2).
fn specs(header: &str) -> Option<Vec<Spec>> {
    let (unit, list) = header.split_once('=')?;
    if !unit.trim_matches([' ', '\t']).eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for element in list.split(',').map(|e| e.trim_matches([' ', '\t'])).filter(|e| !e.is_empty()) {
        if specs.len() == MAX_LISTED {
            return None;
        }
        specs.push(Spec::parse(element)?);
    }
    (!specs.is_empty()).then_some(specs)
}

/// Digits alone; a number too large for us is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Adds a range; all that it touches or overlaps becomes one, in the place of the earliest.
fn join(ranges: &mut Vec<Range<u64>>, mut new: Range<u64>) {
    let (mut place, mut kept) = (None, 0);
    // One pass is enough: those already here do not touch each other, so growing by one of
    // them cannot make the new one touch another.
    ranges.retain(|old| {
        let apart = old.end < new.start || new.end < old.start;
        if apart {
            kept += 1;
        } else {
            new = old.start.min(new.start)..old.end.max(new.end);
            place.get_or_insert(kept);
        }
        apart
    });
    ranges.insert(place.unwrap_or(ranges.len()), new);
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_and_what_they_ask_for() {
        let check = |header: &str, len: u64, want: &[Range<u64>]| {
            assert_eq!(parse(header, len), Ranges::Satisfiable(want.to_vec()), "{header} of {len}");
        };
        check("bytes=0-499", 10_000, &[0..500]);
        check("bytes=500-999", 10_000, &[500..1000]);
        check("bytes=-500", 10_000, &[9500..10_000]);
        check("bytes=9500-", 10_000, &[9500..10_000]);
        check("bytes=0-0,-1", 10_000, &[0..1, 9999..10_000]);
        check("bytes= 0-999, 4500-5499, -1000", 10_000, &[0..1000, 4500..5500, 9000..10_000]);
        check("bytes=500-600,601-999", 10_000, &[500..1000]);
        check("bytes=500-700,601-999", 10_000, &[500..1000]);
        check("bytes=0-", 5, &[0..5]);
        check("bytes=-9", 5, &[0..5]);
        check("bytes=3-99999999999999999999999999", 5, &[3..5]);
        check("bytes=0-18446744073709551615", 5, &[0..5]);
        check("BYTES=0-1", 5, &[0..2]);
        check("bytes=,0-1,,\t3-3 ,", 5, &[0..2, 3..4]);
        check("bytes=4-4,0-0", 5, &[4..5, 0..1]);
        check("bytes=9-10,2-2", 5, &[2..3]);
        check("bytes=6-6,0-0,3-3,1-5", 9, &[0..7]);
        check("bytes=8-8,6-6,0-0,2-3,1-5", 9, &[8..9, 0..7]);
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1-0",
            "bytes=0-1,5-4",
            "bytes=+1-2",
            "bytes=1 - 2",
            "bytes=0x1-2",
            "bytes=--1",
            "bytes=1-2-3",
            "bytes=1.0-2",
            "items=0-1",
            "bytes 0-1",
            "bytes=0-1;1-2",
            "bytes=٣-٤",
            "=0-1",
        ] {
            assert_eq!(parse(header, 10), Ranges::Full, "{header}");
        }
    }

    #[test]
    fn what_lies_outside_is_refused() {
        for (header, len) in
            [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)]
        {
            assert_eq!(parse(header, len), Ranges::Unsatisfiable, "{header} of {len}");
        }
        assert_eq!(unsatisfied(10), "bytes */10");
    }

    #[test]
    fn greed_gets_the_whole() {
        let list = |count: u64, step: u64| {
            let specs: Vec<_> = (0..count).map(|n| format!("{0}-{0}", n * step)).collect();
            format!("bytes={}", specs.join(","))
        };
        assert!(matches!(parse(&list(16, 2), 1000), Ranges::Satisfiable(r) if r.len() == 16));
        assert_eq!(parse(&list(17, 2), 1000), Ranges::Full);
        assert_eq!(parse(&list(200, 1), 1000), Ranges::Satisfiable(vec![0..200]));
        assert_eq!(parse(&list(10_000, 2), 100_000), Ranges::Full);
        assert_eq!(parse(&format!("bytes={}", "0-,".repeat(5000)), 1000), Ranges::Full);
    }

    #[test]
    fn if_range_is_compared_strongly() {
        let date = "Sat, 29 Oct 1994 19:43:31 GMT";
        for (header, etag, modified, holds) in [
            (r#""abc""#, Some(r#""abc""#), None, true),
            (r#" "abc" "#, Some(r#""abc""#), None, true),
            (r#""abc""#, Some(r#""abd""#), None, false),
            (r#""abc""#, None, Some(r#""abc""#), false),
            (r#"W/"abc""#, Some(r#"W/"abc""#), Some(date), false),
            (r#""abc""#, Some(r#"W/"abc""#), None, false),
            (r#"""#, Some(r#"""#), None, false),
            (date, Some(r#""abc""#), Some(date), true),
            (date, Some(r#""abc""#), None, false),
            ("Sat, 29 Oct 1994 19:43:32 GMT", None, Some(date), false),
            ("", None, None, false),
        ] {
            assert_eq!(if_range_holds(header, etag, modified), holds, "{header} {etag:?} {modified:?}");
        }
    }

    fn body_of(multipart: &Multipart, content: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for piece in multipart.pieces() {
            match piece {
                Piece::Text(text) => body.extend(text.bytes()),
                Piece::Bytes(range) => body.extend(&content[range.start as usize..range.end as usize]),
            }
        }
        body
    }

    #[test]
    fn parts_are_framed_as_the_rfc_shows() {
        let multipart = Multipart::new(vec![0..2, 7..9], 10, "text/plain", "SEP");
        let body = body_of(&multipart, b"0123456789");
        let want = "--SEP\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
                    \r\n--SEP\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-8/10\r\n\r\n78\r\n--SEP--\r\n";
        assert_eq!(String::from_utf8(body).unwrap(), want);
        assert_eq!(multipart.content_length(), want.len() as u64);
        assert_eq!(multipart.content_type(), "multipart/byteranges; boundary=SEP");
    }

    fn spec() -> impl Strategy<Value = String> {
        let edge = || prop_oneof![4 => 0u64..300, 1 => any::<u64>()];
        prop_oneof![
            (edge(), edge()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            edge().prop_map(|a| format!("{a}-")),
            edge().prop_map(|a| format!("-{a}")),
        ]
    }

    /// The bytes asked for, worked out one by one.
    fn asked(header: &str, len: u64) -> Vec<bool> {
        let mut bytes = vec![false; len as usize];
        for spec in header.trim_start_matches("bytes=").split(',') {
            let (first, last) = spec.split_once('-').unwrap();
            for at in 0..len {
                let wanted = match (first.parse::<u64>(), last.parse::<u64>()) {
                    (Ok(first), Ok(last)) => first <= at && at <= last,
                    (Ok(first), Err(_)) => first <= at,
                    (Err(_), Ok(count)) => len - at <= count,
                    _ => unreachable!(),
                };
                bytes[at as usize] |= wanted;
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn ranges_stay_inside_apart_and_exact(specs in prop::collection::vec(spec(), 1..12), len in 0u64..260) {
            let header = format!("bytes={}", specs.join(","));
            let asked = asked(&header, len);
            match parse(&header, len) {
                Ranges::Full => prop_assert!(false, "well formed and modest, yet ignored"),
                Ranges::Unsatisfiable => prop_assert!(asked.iter().all(|&b| !b)),
                Ranges::Satisfiable(ranges) => {
                    let mut sent = vec![0; len as usize];
                    for range in &ranges {
                        prop_assert!(range.start < range.end && range.end <= len);
                        for at in range.clone() { sent[at as usize] += 1; }
                    }
                    prop_assert_eq!(sent, asked.iter().map(|&b| i32::from(b)).collect::<Vec<_>>());
                    for (n, a) in ranges.iter().enumerate() {
                        for b in &ranges[n + 1..] { prop_assert!(a.end < b.start || b.end < a.start); }
                    }
                    let content: Vec<u8> = (0..len).map(|n| n as u8).collect();
                    let multipart = Multipart::new(ranges, len, "image/jpeg", "0123456789abcdef");
                    prop_assert_eq!(multipart.content_length(), body_of(&multipart, &content).len() as u64);
                }
            }
        }

        #[test]
        fn no_text_breaks_it(header in "(bytes=)?[ -~\\t]{0,60}", len in any::<u64>()) {
            if let Ranges::Satisfiable(ranges) = parse(&header, len) {
                prop_assert!(!ranges.is_empty() && ranges.len() <= MAX_RANGES);
                prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= len));
            }
        }

        #[test]
        fn huge_contents_do_not_overflow(a in any::<u64>(), b in any::<u64>(), len in any::<u64>()) {
            for header in [format!("bytes={a}-{b}"), format!("bytes={a}-"), format!("bytes=-{b}")] {
                if let Ranges::Satisfiable(ranges) = parse(&header, len) {
                    prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= len));
                }
            }
        }
    }
}
