//! What people write about an asset: the rules that hold for it, whoever writes.
//!
//! In: what is there and what is said. Out: what is there then, or a refusal. Names that begin
//! with `_filespin` are the system's: what people say under them is not heard, and what stands
//! there stays. Whether data fits its schema is not judged here.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;

use crate::error::Code;
use crate::error::Result;

/// How much people may write about one asset, as JSON text, in characters.
pub const MOST_CHARACTERS: usize = 3000;

/// Names that begin so are not for people.
const RESERVED: &str = "_filespin";

/// What becomes of what was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It stays, but for what is said anew.
    #[default]
    Append,
    /// It goes.
    Replace,
}

/// What is there after `said`.
pub fn merged(there: Map<String, Value>, said: Map<String, Value>, mode: Mode) -> Result<Map<String, Value>> {
    let mut whole = there;
    if mode == Mode::Replace {
        whole.retain(|name, _| is_reserved(name));
    }
    whole.extend(said.into_iter().filter(|(name, _)| !is_reserved(name)));
    let written: BTreeMap<_, _> = whole.iter().filter(|(name, _)| !is_reserved(name)).collect();
    let text = serde_json::to_string(&written).map_err(|e| Code::Internal.from("measuring data", e))?;
    let characters = text.chars().count();
    if characters > MOST_CHARACTERS {
        return Err(Code::DataTooLarge.because(format!(
            "The data of an asset may have at most {MOST_CHARACTERS} characters as JSON; this would have {characters}."
        )));
    }
    Ok(whole)
}

fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_the_systems_is_neither_written_nor_lost() {
        let there = || map(&json!({"a": 1, "b": {"x": 1}, "_filespin_fr_count": 2}));
        let said = || map(&json!({"b": {"y": 2}, "c": null, "_filespin_fr_count": 9, "_filespin": 1}));
        let appended = merged(there(), said(), Mode::Append).unwrap();
        assert_eq!(Value::from(appended), json!({"a": 1, "b": {"y": 2}, "c": null, "_filespin_fr_count": 2}));
        let replaced = merged(there(), said(), Mode::Replace).unwrap();
        assert_eq!(Value::from(replaced), json!({"b": {"y": 2}, "c": null, "_filespin_fr_count": 2}));
    }

    #[test]
    fn there_is_a_limit_in_characters_and_the_system_does_not_count() {
        // `{"t":"…"}` takes eight more.
        let text = |n: usize| map(&json!({"t": "é".repeat(n)}));
        assert!(merged(Map::new(), text(MOST_CHARACTERS - 8), Mode::Append).is_ok());
        let refused = merged(Map::new(), text(MOST_CHARACTERS - 7), Mode::Append).unwrap_err();
        assert_eq!(refused.code, Code::DataTooLarge);
        let there = map(&json!({"_filespin_ocr": "x".repeat(9000)}));
        assert!(merged(there, text(10), Mode::Append).is_ok());
    }
}
