//! Settings of add-ons: the section `addons`. This box runs none; what programs of the vendor
//! write there is kept for them, in the shape that their documentation gives it.

use serde_json::Map;
use serde_json::Value;

use crate::error::Code;
use crate::error::Result;

const MOST_ADDONS: usize = 32;
const LONGEST_NAME: usize = 64;
const MOST_BYTES: usize = 64 * 1024;

/// By add-on: its settings as they were given.
pub type Addons = Map<String, Value>;

/// Itself, if it is not too much.
pub fn checked(addons: Addons) -> Result<Addons> {
    let plain = |name: &String| {
        (1..=LONGEST_NAME).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if addons.len() > MOST_ADDONS || !addons.keys().all(plain) {
        return Err(Code::InvalidRequest.because(format!(
            "addons: at most {MOST_ADDONS}, each under a name of up to {LONGEST_NAME} letters, digits, `_` and `-`"
        )));
    }
    let size = serde_json::to_string(&addons).map_or(usize::MAX, |text| text.len());
    if size > MOST_BYTES {
        return Err(Code::InvalidRequest.because(format!("addons: at most {MOST_BYTES} bytes in all")));
    }
    Ok(addons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_little_is_kept() {
        let of = |name: String, value: Value| checked(Map::from_iter([(name, value)]));
        assert!(of("AUTO_TAGS".into(), json!({"enabled": true})).is_ok());
        assert!(of(String::new(), json!({})).is_err());
        assert!(of("a b".into(), json!({})).is_err());
        assert!(of("A".into(), json!("x".repeat(MOST_BYTES))).is_err());
        assert!(checked((0..33).map(|n| (format!("A{n}"), json!({}))).collect()).is_err());
    }
}
