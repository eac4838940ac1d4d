//! What a schema is, and which of its properties can be searched.
//!
//! A property says so itself, in `filespin_properties`: `searchable` is found by field,
//! `keyword_searchable` by keyword. Only top-level text, numbers, dates and booleans can be;
//! lists and objects are kept and never searched.
//!
//! Invariant: a [`NewField`] has a name that can stand in a JSON path as it is.

use serde_json::Map;
use serde_json::Value;

use crate::error::Code;
use crate::error::Result;
use crate::support::clock::Instant;

/// The schema of those who name none.
pub const DEFAULT: i64 = 0;

/// Searchable text properties of one schema: as many as the index has columns for.
const SLOTS: usize = 16;

/// The longest name of a searchable property, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// Whether a schema is offered to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Active,
    Inactive,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Status::Active => "ACTIVE",
            Status::Inactive => "INACTIVE",
        }
    }

    pub fn from_word(word: &str) -> Option<Status> {
        [Status::Active, Status::Inactive].into_iter().find(|status| status.word() == word)
    }
}

/// What a row of `asset_schema` holds.
#[derive(Clone, Debug)]
pub struct Schema {
    pub id: i64,
    /// Language and text.
    pub name: Map<String, Value>,
    pub status: Status,
    pub schema: Value,
    /// Raised when `schema` changes.
    pub version: i64,
    pub creator_id: i64,
    pub created_at: Instant,
    pub changed_at: Instant,
}

/// A schema as it is wanted.
#[derive(Clone, Debug)]
pub struct Draft {
    pub name: Map<String, Value>,
    pub status: Status,
    pub schema: Value,
}

/// What kind of value a searchable property has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    /// `2024-12-31`; compared as the number 20241231.
    Date,
    Boolean,
}

impl Kind {
    const WORDS: [(Kind, &'static str); 4] =
        [(Kind::Text, "text"), (Kind::Number, "number"), (Kind::Date, "date"), (Kind::Boolean, "boolean")];

    pub fn word(self) -> &'static str {
        Kind::WORDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }

    pub fn from_word(word: &str) -> Option<Kind> {
        Kind::WORDS.iter().find(|(_, w)| *w == word).map(|(kind, _)| *kind)
    }
}

/// A searchable property on record.
#[derive(Clone, Debug)]
pub struct Field {
    pub id: i64,
    pub name: String,
    pub kind: Kind,
    /// Found by keyword.
    pub keyword: bool,
    /// Of text that is found by field: the column of the index.
    pub slot: Option<u32>,
    /// Found by field, as a number.
    pub ranged: bool,
}

/// A searchable property of a schema that is being saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewField {
    pub name: String,
    pub kind: Kind,
    pub keyword: bool,
    pub slot: Option<u32>,
    pub ranged: bool,
}

/// The properties of a schema that can be searched, in the order in which they stand.
pub fn searchable(schema: &Value) -> Result<Vec<NewField>> {
    let mut fields = Vec::new();
    let mut slots = 0;
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    for (name, property) in properties {
        let says = |word: &str| property.pointer(&format!("/filespin_properties/{word}")) == Some(&Value::Bool(true));
        let (by_field, keyword) = (says("searchable"), says("keyword_searchable"));
        let Some(kind) = kind(property).filter(|_| by_field || keyword) else { continue };
        if name.len() > MAX_NAME_BYTES || name.is_empty() || name.chars().any(|c| c.is_control() || "\"\\".contains(c))
        {
            return Err(Code::InvalidSchema.because(format!(
                "`{name}` cannot be searchable: its name has to have 1 to {MAX_NAME_BYTES} bytes, without quotation marks and backslashes."
            )));
        }
        let slot = (kind == Kind::Text && by_field).then(|| {
            slots += 1;
            slots
        });
        fields.push(NewField { name: name.clone(), kind, keyword, slot, ranged: by_field && kind != Kind::Text });
    }
    if slots as usize > SLOTS {
        return Err(
            Code::InvalidSchema.because(format!("At most {SLOTS} text properties of a schema can be searchable."))
        );
    }
    Ok(fields)
}

/// By what its values are indexed; `None` for lists and objects.
fn kind(property: &Value) -> Option<Kind> {
    let named = |word: &str| match word {
        "string" if property.get("format").and_then(Value::as_str) == Some("date") => Some(Kind::Date),
        "string" => Some(Kind::Text),
        "number" | "integer" => Some(Kind::Number),
        "boolean" => Some(Kind::Boolean),
        _ => None,
    };
    match property.get("type") {
        Some(Value::String(word)) => named(word),
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).find_map(named),
        _ => {
            let listed = property.get("enum").and_then(Value::as_array)?;
            listed.iter().all(Value::is_string).then_some(Kind::Text)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_searched() {
        let both = json!({"searchable": true, "keyword_searchable": true});
        let schema = json!({"type": "object", "properties": {
            "active": {"type": "boolean", "filespin_properties": both},
            "category": {"enum": ["a", "b"], "filespin_properties": {"searchable": true}},
            "day": {"type": "string", "format": "date", "filespin_properties": both},
            "hidden": {"type": "string", "filespin_properties": {"searchable": false}},
            "list": {"type": "array", "filespin_properties": both},
            "note": {"type": ["null", "string"], "filespin_properties": {"keyword_searchable": true}},
            "rating": {"type": "integer", "filespin_properties": both},
            "title": {"type": "string", "filespin_properties": both},
        }});
        let told: Vec<_> = searchable(&schema)
            .unwrap()
            .into_iter()
            .map(|f| format!("{} {} {} {:?} {}", f.name, f.kind.word(), f.keyword, f.slot, f.ranged))
            .collect();
        assert_eq!(
            told,
            [
                "active boolean true None true",
                "category text false Some(1) false",
                "day date true None true",
                "note text true None false",
                "rating number true None true",
                "title text true Some(2) false"
            ]
        );
    }

    #[test]
    fn what_cannot() {
        let both = json!({"searchable": true});
        let odd = json!({"properties": {"a\"b": {"type": "string", "filespin_properties": both}}});
        assert_eq!(searchable(&odd).unwrap_err().code, Code::InvalidSchema);
        let many: Map<_, _> =
            (0..17).map(|n| (format!("p{n}"), json!({"type": "string", "filespin_properties": both}))).collect();
        assert_eq!(searchable(&json!({"properties": many})).unwrap_err().code, Code::InvalidSchema);
        for nothing in [json!(true), json!({}), json!({"properties": 5})] {
            assert_eq!(searchable(&nothing).unwrap(), []);
        }
    }
}
