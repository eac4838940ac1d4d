//! File names as senders give them: data for people, never a path.

use unicode_normalization::UnicodeNormalization;

/// Longer names are shortened in the middle, so that the extension stays.
const MAX_BYTES: usize = 255;

/// NFC, without control and direction-changing characters, at most 255 bytes, never empty.
pub fn clean(name: &str) -> String {
    let name: String = name.nfc().filter(|c| !c.is_control() && !is_bidi(*c)).collect();
    let name = name.trim();
    if name.is_empty() {
        return "unnamed".to_owned();
    }
    if name.len() <= MAX_BYTES {
        return name.to_owned();
    }
    let extension = match name.rsplit_once('.') {
        Some((_, extension)) if extension.len() <= 16 => format!(".{extension}"),
        _ => String::new(),
    };
    let stem = name.strip_suffix(&*extension).unwrap_or(name);
    format!("{}{extension}", stem.get(..stem.floor_char_boundary(MAX_BYTES - extension.len())).unwrap_or_default())
}

/// Characters that make `gpj.exe` read as `exe.jpg`.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_data() {
        for (given, kept) in [
            ("photo.jpg", "photo.jpg"),
            ("../../etc/passwd", "../../etc/passwd"),
            ("a\nb\r\tc\0.jpg", "abc.jpg"),
            ("Zoe\u{0308} 🎉.jpg", "Zoë 🎉.jpg"),
            ("evil\u{202e}gpj.exe", "evilgpj.exe"),
            ("", "unnamed"),
            ("\n", "unnamed"),
        ] {
            assert_eq!(clean(given), kept);
        }
    }

    #[test]
    fn long_names_keep_their_extension() {
        let long = clean(&format!("{}.jpeg", "é".repeat(400)));
        assert!(long.len() <= MAX_BYTES && long.ends_with("é.jpeg"), "{long}");
        assert_eq!(clean(&"x".repeat(400)).len(), MAX_BYTES);
    }
}
