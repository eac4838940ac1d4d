//! Compiling a schema and judging data by it.
//!
//! In: a JSON Schema of the 2020-12 dialect, written by whoever administers schemas. Out: a
//! validator, or a sentence about what is wrong.
//!
//! Invariant: judging takes time in proportion to schema and data. So a schema has a size and
//! a depth, patterns are of the kind that never backtracks, and a `$ref` leads to a place in
//! the same document, never back to itself, and counts as much as what it leads to. Nothing is
//! ever fetched: other documents are refused before the compiler sees them, and it is given no
//! means of reaching them.

use std::collections::HashMap;

use jsonschema::Draft;
use jsonschema::PatternOptions;
use jsonschema::Validator;
use serde_json::Map;
use serde_json::Value;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;

/// The largest schema, as text.
const MAX_BYTES: usize = 64 * 1024;

/// How deep a schema may be nested, references followed.
const MAX_DEPTH: usize = 40;

/// Values in a schema, where what is referred to counts each time.
const MAX_WEIGHT: u64 = 20_000;

/// What a compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Sentences about data that does not conform; the rest is left out.
const MOST_COMPLAINTS: usize = 5;

/// Words that lead elsewhere in ways that a `$ref` does not.
const REFUSED: [&str; 5] = ["$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor"];

/// What is to be said of data by its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Conforms,
    /// It does not, and what is wrong.
    Differs(Vec<String>),
    /// There is no such schema.
    NoSchema,
}

/// Compiles a schema after a look at its size.
pub fn compile(schema: &Value) -> Result<Validator> {
    let bytes = schema.to_string().len();
    if bytes > MAX_BYTES {
        return Err(wrong(format!("it has {bytes} bytes; at most {MAX_BYTES} are taken")));
    }
    let root = schema.as_object().ok_or_else(|| wrong("it is not an object"))?;
    Scale { document: schema, known: HashMap::new(), open: Vec::new() }.members(root, 0, true)?;
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES))
        .build(schema)
        .map_err(|e| {
            let at = e.instance_path().to_string();
            wrong(format!("{e}{}", if at.is_empty() { String::new() } else { format!(" (at {at})") }))
        })
}

/// Judges data by a compiled schema.
pub fn judge(by: &Validator, data: &Map<String, Value>) -> Verdict {
    let data = Value::Object(data.clone());
    let complaints: Vec<String> = by
        .iter_errors(&data)
        .take(MOST_COMPLAINTS)
        .map(|e| {
            let at = e.instance_path().to_string();
            format!("{}: {e}", if at.is_empty() { "/" } else { &at })
        })
        .collect();
    if complaints.is_empty() { Verdict::Conforms } else { Verdict::Differs(complaints) }
}

fn wrong(what: impl Into<String>) -> Error {
    Code::InvalidSchema.because(format!("The schema is not taken: {}.", what.into().trim_end_matches('.')))
}

/// Weighs a document, references followed.
struct Scale<'s> {
    document: &'s Value,
    /// Weight and depth of what was referred to.
    known: HashMap<&'s str, (u64, usize)>,
    /// References being followed.
    open: Vec<&'s str>,
}

impl<'s> Scale<'s> {
    /// Weight and depth of a value that stands `depth` deep.
    fn value(&mut self, value: &'s Value, depth: usize) -> Result<(u64, usize)> {
        match value {
            Value::Object(members) => self.members(members, depth, false),
            Value::Array(items) => self.all(items.iter(), depth),
            _ => Ok((1, 0)),
        }
    }

    fn members(&mut self, members: &'s Map<String, Value>, depth: usize, is_root: bool) -> Result<(u64, usize)> {
        if let Some(word) = REFUSED.iter().find(|word| members.get(**word).is_some_and(|v| !v.is_object())) {
            return Err(wrong(format!("`{word}` is not taken; use `$ref` to a place in the same schema")));
        }
        if !is_root && members.get("$id").is_some_and(Value::is_string) {
            return Err(wrong("`$id` may stand at the top alone"));
        }
        let (mut weight, mut height) = self.all(members.values(), depth)?;
        if let Some(Value::String(to)) = members.get("$ref") {
            let (more, deep) = self.referred(to, depth)?;
            weight = weight.saturating_add(more);
            height = height.max(deep + 1);
        }
        if weight > MAX_WEIGHT || depth + height > MAX_DEPTH {
            return Err(wrong(format!(
                "it is too large: at most {MAX_WEIGHT} values and {MAX_DEPTH} levels, references followed"
            )));
        }
        Ok((weight, height))
    }

    fn all(&mut self, values: impl Iterator<Item = &'s Value>, depth: usize) -> Result<(u64, usize)> {
        if depth > MAX_DEPTH {
            return Err(wrong(format!("it is nested more than {MAX_DEPTH} levels deep")));
        }
        let (mut weight, mut height) = (1u64, 0);
        for value in values {
            let (more, deep) = self.value(value, depth + 1)?;
            weight = weight.saturating_add(more);
            height = height.max(deep + 1);
        }
        Ok((weight, height))
    }

    fn referred(&mut self, to: &'s str, depth: usize) -> Result<(u64, usize)> {
        if let Some(known) = self.known.get(to) {
            return Ok(*known);
        }
        let pointer = to.strip_prefix('#').ok_or_else(|| {
            wrong(format!("`$ref` may lead to a place in the same schema alone (`#/$defs/…`), not to `{to}`"))
        })?;
        if self.open.contains(&to) {
            return Err(wrong(format!("`{to}` leads back to itself")));
        }
        let missing = || wrong(format!("`{to}` leads nowhere"));
        let decoded = percent_encoding::percent_decode_str(pointer).decode_utf8().map_err(|_| missing())?;
        let target = self.document.pointer(&decoded).ok_or_else(missing)?;
        self.open.push(to);
        let weighed = self.value(target, depth + 1)?;
        self.open.pop();
        self.known.insert(to, weighed);
        Ok(weighed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> String {
        let error = compile(schema).err().map(|e| (e.code, e.detail.into_owned()));
        let (code, detail) = error.unwrap_or_else(|| panic!("{schema} was taken"));
        assert_eq!(code, Code::InvalidSchema);
        detail
    }

    #[test]
    fn data_is_judged_as_the_dialect_says() {
        let schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "required": ["name"], "properties": {
                "name": {"type": "string", "maxLength": 5, "filespin_properties": {"searchable": true}},
                "mail": {"type": "string", "format": "email"},
                "day": {"type": "string", "format": "date"},
                "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"$ref": "#/$defs/small"}], "items": false},
                "code": {"type": "string", "pattern": "^[a-z]{3}$"}},
            "$defs": {"small": {"type": "integer", "maximum": 9}}});
        let by = compile(&schema).unwrap();
        let said = |data: Value| judge(&by, data.as_object().unwrap());
        for good in [
            json!({"name": "a"}),
            json!({"name": "a", "mail": "a@b.c", "day": "2024-12-31", "pair": ["x", 9], "code": "abc", "other": []}),
        ] {
            assert_eq!(said(good), Verdict::Conforms);
        }
        for (bad, at) in [
            (json!({}), "/: "),
            (json!({"name": "too long"}), "/name"),
            (json!({"name": "a", "mail": "nobody"}), "/mail"),
            (json!({"name": "a", "day": "31.12.2024"}), "/day"),
            (json!({"name": "a", "pair": ["x", 10]}), "/pair/1"),
            (json!({"name": "a", "pair": ["x", 1, 2]}), "/pair"),
            (json!({"name": "a", "code": "ABC"}), "/code"),
        ] {
            let Verdict::Differs(complaints) = said(bad.clone()) else { panic!("{bad} conforms") };
            assert!(complaints[0].starts_with(at), "{complaints:?}");
        }
    }

    #[test]
    fn nothing_is_fetched_and_nothing_goes_round_in_circles() {
        for to in ["https://example.com/s.json", "other.json#/a", "file:///etc/passwd", "urn:x", "/#"] {
            assert!(refused(&json!({"$ref": to})).contains("same schema"), "{to}");
        }
        assert!(refused(&json!({"$ref": "#"})).contains("itself"));
        assert!(
            refused(&json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}))
                .contains("itself")
        );
        assert!(refused(&json!({"$ref": "#/$defs/none"})).contains("nowhere"));
        refused(&json!({"properties": {"a": {"$id": "http://x/", "type": "string"}}}));
        refused(&json!({"$dynamicRef": "#x"}));
        refused(&json!({"properties": {"a": {"type": "strong"}}}));
        refused(&json!({"properties": {"a": {"pattern": "("}}}));
        refused(&json!({"properties": {"a": {"pattern": "(?=a)a"}}}));
        refused(&json!([]));
    }

    #[test]
    fn a_small_text_cannot_mean_a_large_schema() {
        let mut laughs = Map::new();
        laughs.insert("l0".into(), json!({"type": "string"}));
        for n in 1..30 {
            let before = format!("#/$defs/l{}", n - 1);
            laughs.insert(format!("l{n}"), json!({"anyOf": [{"$ref": before}, {"$ref": before}]}));
        }
        refused(&json!({"$ref": "#/$defs/l29", "$defs": laughs}));
        let deep = (0..60).fold(json!({"type": "string"}), |inner, _| json!({"not": inner}));
        refused(&deep);
        refused(&json!({"description": "x".repeat(70_000)}));
        let wide: Vec<_> = (0..30_000).collect();
        refused(&json!({"enum": wide}));
    }
}
