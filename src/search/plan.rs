//! From what is asked to what is looked up.
//!
//! In: [`Criteria`] as they came. Out: a [`Plan`]: one expression over the full-text index for
//! all that is a word, ranges for what is a number; or a sentence about what is not understood.
//!
//! A field takes, by its kind:
//!
//! ```text
//! text      words, as in keyword             rust OR iron · "red wine" · blu*
//! number    one, or a range                  5 · 3..7 · ..7 · >=3 · <3 · [3 TO 7] · {"start": 3, "end": 7}
//! date      a day, a beginning, a range      2024-12-31 · 2024-12* · 2024-01-01..2024-06-30
//! boolean   true or false
//! ```
//!
//! Up to five of these can stand with OR between them.

use serde_json::Map;
use serde_json::Value;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::schemas;
use crate::schemas::Field;
use crate::schemas::Kind;
use crate::search::By;
use crate::search::Criteria;
use crate::search::Sort;
use crate::search::span;
use crate::search::words;
use crate::search::words::Words;
use crate::support::id;

/// Words of a keyword, and of a file name.
const MOST_WORDS: usize = 40;
/// Words of one field, and alternatives of anything else.
const MOST_ALTERNATIVES: usize = 5;
/// Content types.
const MOST_TYPES: usize = 10;
/// Fields of a schema that are asked for at once.
const MOST_FIELDS: usize = 20;

/// The registered families of content types.
const FAMILIES: [&str; 9] = ["application", "audio", "font", "image", "message", "model", "multipart", "text", "video"];

/// What is looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Over the full-text index.
    pub text: Option<String>,
    /// Milliseconds since 1970, both included.
    pub uploaded: Option<(i64, i64)>,
    /// Bytes, both included.
    pub size: Option<(i64, i64)>,
    pub numbers: Vec<Numbers>,
    pub trashed: bool,
    /// The newest asset of the moment.
    pub newest: i64,
    pub sort: Vec<Sort>,
    /// The words of the keyword, for ranking; true for those that only begin a word.
    pub keyword: Vec<(String, bool)>,
}

/// Alternatives for the value of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    pub field_id: i64,
    /// Both ends included.
    pub ranges: Vec<(f64, f64)>,
}

impl Plan {
    pub fn new(c: &Conn, criteria: &Criteria, newest: i64) -> Result<Plan> {
        let mut plan = Plan { trashed: criteria.trashed, newest, sort: criteria.sort.clone(), ..Plan::default() };
        let mut legs = Vec::new();
        if let Some(text) = &criteria.keyword
            && let Some(words) = Words::read("keyword", text, MOST_WORDS)?
        {
            legs.push(format!("{{name words}} : {}", words.expression()));
            plan.keyword = words.folded();
        }
        if let Some(text) = &criteria.file_name
            && let Some(words) = Words::read("file_name", text, MOST_WORDS)?
        {
            legs.push(format!("name : {}", words.expression()));
        }
        legs.extend(criteria.content_type.as_deref().map(types).transpose()?.flatten());
        legs.extend(criteria.creator.map(|creator| {
            // Nobody has a number below zero.
            if creator < 0 { "facets : \"cnone\"".to_owned() } else { format!("facets : \"c{creator}\"") }
        }));
        if let Some(asked) = &criteria.schema {
            let known = schemas::store::fields(c, asked.schema)?;
            if schemas::store::version(c, asked.schema)?.is_none() {
                return Err(wrong(format!("schema_criteria: there is no schema {}", asked.schema)));
            }
            fields(&asked.fields, &known, asked.schema, &mut legs, &mut plan.numbers)?;
            // A number is of one schema's field anyway, and a word looked up for each of a few is dear.
            if plan.numbers.is_empty() {
                legs.push(format!("facets : \"s{}\"", asked.schema.max(0)));
            }
        }
        plan.uploaded = criteria.uploaded.map(|(from, to)| {
            // The contract counts in whole seconds: the last one is in it to its end.
            let end = |at: i64| if at % 1000 == 0 { at.saturating_add(999) } else { at };
            (from.map_or(i64::MIN, |at| at.0), to.map_or(i64::MAX, |at| end(at.0)))
        });
        plan.size = criteria.size_bytes.map(|(from, to)| {
            let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            (from.map_or(0, bytes), to.map_or(i64::MAX, bytes))
        });
        if let Some((from, to)) = plan.uploaded
            && !legs.is_empty()
        {
            legs.push(format!("facets : {}", span::expression(from.div_euclid(span::DAY), to.div_euclid(span::DAY))));
        }
        plan.text =
            (!legs.is_empty()).then(|| legs.iter().map(|leg| format!("({leg})")).collect::<Vec<_>>().join(" AND "));
        Ok(plan)
    }

    /// Whether hits are wanted in another order than that of their arrival, which is what is walked.
    pub fn is_sorted(&self) -> bool {
        self.sort.first().is_some_and(|sort| sort.by != By::Uploaded)
    }

    /// Whether the walk begins with the oldest.
    pub fn oldest_first(&self) -> bool {
        self.sort.first().is_some_and(|sort| sort.by == By::Uploaded && !sort.descending)
    }

    pub fn by_relevance(&self) -> bool {
        self.sort.first().is_some_and(|sort| sort.by == By::Relevance)
    }

    /// Whether everything is wanted.
    pub fn is_open(&self) -> bool {
        self.text.is_none() && self.uploaded.is_none() && self.size.is_none() && self.numbers.is_empty()
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Code::InvalidRequest.because(format!("{}.", what.into().trim_end_matches('.')))
}

/// `image* OR video/mp4`, as words of the index.
fn types(text: &str) -> Result<Option<String>> {
    let mut words = Vec::new();
    for pattern in text.split(" OR ").map(str::trim) {
        let taken = |c: char| c.is_ascii_alphanumeric() || "/.+-_;= ".contains(c);
        let (stem, is_prefix) = pattern.strip_suffix('*').map_or((pattern, false), |stem| (stem, true));
        if !stem.chars().all(taken) || stem.len() > 200 || (stem.is_empty() && !is_prefix) {
            return Err(wrong(format!(
                "content_type: `{pattern}` is neither a type, such as image/jpeg, nor the beginning of one, such as image*"
            )));
        }
        let stem = stem.to_ascii_lowercase();
        match stem.trim_end_matches('/') {
            "" => return Ok(None),
            family if is_prefix && !family.contains('/') => {
                let begun =
                    FAMILIES.iter().filter(|f| if stem.ends_with('/') { **f == family } else { f.starts_with(family) });
                words.extend(begun.map(|family| format!("\"k{family}\"")));
                if !FAMILIES.contains(&family) {
                    // One that nobody has registered.
                    words.push(format!("\"k{}\"", family.replace(|c: char| !c.is_ascii_alphanumeric(), "")));
                }
            }
            _ => words.push(words::string(&format!("t{}", id::hex(stem.as_bytes())), is_prefix)),
        }
    }
    if words.len() > MOST_TYPES + FAMILIES.len() {
        return Err(wrong(format!("content_type: at most {MOST_TYPES} are taken")));
    }
    Ok(Some(format!("facets : ({})", words.join(" OR "))))
}

fn fields(
    asked: &Map<String, Value>,
    known: &[Field],
    schema: i64,
    legs: &mut Vec<String>,
    numbers: &mut Vec<Numbers>,
) -> Result<()> {
    if asked.len() > MOST_FIELDS {
        return Err(wrong(format!("schema_criteria: at most {MOST_FIELDS} fields are taken")));
    }
    for (name, value) in asked {
        let what = format!("schema_criteria.{name}");
        let field = known.iter().find(|f| f.name == *name && (f.slot.is_some() || f.ranged));
        let field = field.ok_or_else(|| wrong(format!("{what}: no searchable field of schema {schema}")))?;
        if let Some(slot) = field.slot {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(wrong(format!("{what}: a text is asked for by words"))),
            };
            if let Some(words) = Words::read(&what, &text, MOST_ALTERNATIVES)? {
                legs.push(format!("f{slot} : {}", words.expression()));
            }
            continue;
        }
        let ranges = match value {
            Value::String(text) => alternatives(&what, field.kind, text)?,
            Value::Object(range) => {
                let end = |name: &str| match range.get(name) {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::String(text)) => one(&what, field.kind, text).map(Some),
                    Some(Value::Number(number)) => Ok(number.as_f64()),
                    Some(_) => Err(wrong(format!("{what}.{name}: a number or a text"))),
                };
                vec![(end("start")?.unwrap_or(f64::MIN), end("end")?.unwrap_or(f64::MAX))]
            }
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default();
                vec![(number, number)]
            }
            Value::Bool(yes) => vec![(f64::from(u8::from(*yes)), f64::from(u8::from(*yes)))],
            _ => return Err(wrong(format!("{what}: neither a value nor a range"))),
        };
        numbers.push(Numbers { field_id: field.id, ranges });
    }
    Ok(())
}

/// `3..7 OR 9`
fn alternatives(what: &str, kind: Kind, text: &str) -> Result<Vec<(f64, f64)>> {
    let parts: Vec<&str> = text.split(" OR ").map(str::trim).collect();
    if parts.len() > MOST_ALTERNATIVES {
        return Err(wrong(format!("{what}: at most {MOST_ALTERNATIVES} alternatives are taken")));
    }
    parts.into_iter().map(|part| range(what, kind, part)).collect()
}

fn range(what: &str, kind: Kind, text: &str) -> Result<(f64, f64)> {
    let end = |text: &str, open: f64| match text.trim() {
        "" | "*" => Ok(open),
        text => one(what, kind, text),
    };
    if text == "*" {
        return Ok((f64::MIN, f64::MAX));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let (from, to) =
            inner.split_once(" TO ").ok_or_else(|| wrong(format!("{what}: a range is written [3 TO 7]")))?;
        return Ok((end(from, f64::MIN)?, end(to, f64::MAX)?));
    }
    if let Some((from, to)) = text.split_once("..") {
        return Ok((end(from, f64::MIN)?, end(to, f64::MAX)?));
    }
    for (sign, is_upper, is_in) in [(">=", false, true), ("<=", true, true), (">", false, false), ("<", true, false)] {
        if let Some(bound) = text.strip_prefix(sign) {
            let bound = one(what, kind, bound.trim())?;
            return Ok(match (is_upper, is_in) {
                (false, true) => (bound, f64::MAX),
                (false, false) => (bound.next_up(), f64::MAX),
                (true, true) => (f64::MIN, bound),
                (true, false) => (f64::MIN, bound.next_down()),
            });
        }
    }
    if kind == Kind::Date
        && let Some(beginning) = text.strip_suffix('*')
    {
        let digits: String = beginning.chars().filter(|c| *c != '-').collect();
        let whole = digits.parse::<u32>().ok().filter(|_| digits.len() <= 8);
        let begun = whole.ok_or_else(|| wrong(format!("{what}: `{text}` is not the beginning of a date")))?;
        let scale = 10f64.powi(8 - digits.len() as i32);
        return Ok((f64::from(begun) * scale, (f64::from(begun) + 1.0) * scale - 1.0));
    }
    let value = one(what, kind, text)?;
    Ok((value, value))
}

fn one(what: &str, kind: Kind, text: &str) -> Result<f64> {
    let read = match kind {
        Kind::Number => text.parse::<f64>().ok().filter(|number| number.is_finite()),
        Kind::Boolean => match text {
            "true" | "1" => Some(1.0),
            "false" | "0" => Some(0.0),
            _ => None,
        },
        Kind::Date => {
            let is_date = text.len() == 10
                && text.bytes().enumerate().all(|(n, b)| if n == 4 || n == 7 { b == b'-' } else { b.is_ascii_digit() });
            if is_date { text.replace('-', "").parse().ok() } else { None }
        }
        Kind::Text => None,
    };
    let wanted = match kind {
        Kind::Number => "a number such as 5, or a range such as 3..7, >=3 or [3 TO 7]",
        Kind::Boolean => "true or false",
        Kind::Date => {
            "a date such as 2024-12-31, its beginning such as 2024-12*, or a range such as 2024-01-01..2024-06-30"
        }
        Kind::Text => "words",
    };
    read.ok_or_else(|| wrong(format!("{what}: `{text}` is not {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_they_are_written() {
        let read = |kind, text: &str| alternatives("f", kind, text).unwrap();
        let number = |text| read(Kind::Number, text);
        assert_eq!(number("5"), [(5.0, 5.0)]);
        assert_eq!(number("-1.5..2e3"), [(-1.5, 2000.0)]);
        assert_eq!(number("..7"), [(f64::MIN, 7.0)]);
        assert_eq!(number("3.."), [(3.0, f64::MAX)]);
        assert_eq!(number("[3 TO 7]"), [(3.0, 7.0)]);
        assert_eq!(number("[* TO 7]"), [(f64::MIN, 7.0)]);
        assert_eq!(number(">= 3"), [(3.0, f64::MAX)]);
        assert!(number("<3")[0].1 < 3.0 && number(">3")[0].0 > 3.0);
        assert_eq!(number("1 OR 3..4"), [(1.0, 1.0), (3.0, 4.0)]);
        assert_eq!(read(Kind::Date, "2024-12-31"), [(20_241_231.0, 20_241_231.0)]);
        assert_eq!(read(Kind::Date, "2024-12*"), [(20_241_200.0, 20_241_299.0)]);
        assert_eq!(read(Kind::Date, "2024-01-01..2024-06-30"), [(20_240_101.0, 20_240_630.0)]);
        assert_eq!(read(Kind::Boolean, "true"), [(1.0, 1.0)]);
        for (kind, bad) in [
            (Kind::Number, "five"),
            (Kind::Number, "[3-7]"),
            (Kind::Number, "NaN"),
            (Kind::Number, "1..x"),
            (Kind::Number, "inf"),
            (Kind::Date, "31.12.2024"),
            (Kind::Date, "é024-12-31"),
            (Kind::Date, "x*"),
            (Kind::Boolean, "yes"),
            (Kind::Number, "1 OR 2 OR 3 OR 4 OR 5 OR 6"),
        ] {
            assert_eq!(alternatives("f", kind, bad).unwrap_err().code, Code::InvalidRequest, "{bad}");
        }
    }

    #[test]
    fn types_as_words() {
        for (text, words) in [
            ("image*", r#"facets : ("kimage")"#),
            ("image/*", r#"facets : ("kimage")"#),
            ("video/mp4", r#"facets : ("t766964656f2f6d7034")"#),
            ("image/j*", r#"facets : ("t696d6167652f6a"*)"#),
        ] {
            assert_eq!(types(text).unwrap().as_deref(), Some(words), "{text}");
        }
        assert_eq!(types("*").unwrap(), None);
        for bad in ["", "image\"", "(x)", "a OR ", "image/* OR \0"] {
            assert!(types(bad).is_err(), "{bad:?}");
        }
    }
}
