//! What people type, as an expression of the full-text index.
//!
//! ```text
//! sunset beach            both                    "golden hour"      one after the other
//! sunset OR beach         one of them             sun*               words that begin so
//! sunset AND beach        both                    *                  anything
//! ```
//!
//! AND and OR are not mixed; words beside each other belong together, so `a b OR c` is either
//! both of the first or the last. A sign within a word parts it as a space would, but keeps
//! the parts in order: `t-shirt` is `"t shirt"`. Signs that have a meaning in other search
//! languages are refused outside quotation marks, so that nobody believes they had it here.
//!
//! Invariant: whatever is typed, what comes out is an expression that the index understands:
//! every word stands in it as a string, with nothing in it that could end it.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;

/// Signs that are taken inside quotation marks alone, wherever in a word they stand.
const QUOTED_ONLY: &str = "(){}[]^~?\\!";

/// Signs that a word may hold, but not begin with.
const NOT_IN_FRONT: &str = "+-&|:/*";

/// A word, or several in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub text: String,
    /// The last word goes on in any way.
    pub is_prefix: bool,
}

/// Alternatives, each of terms that all have to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(pub Vec<Vec<Term>>);

enum Token {
    And,
    Or,
    Anything,
    Term(Term),
}

impl Words {
    /// Reads what was typed for `what`. `None` when it is nothing, or anything.
    pub fn read(what: &str, text: &str, most: usize) -> Result<Option<Words>> {
        let wrong = |why: &str| refused(what, why);
        let mut groups: Vec<Vec<Term>> = vec![Vec::new()];
        let (mut ands, mut ors, mut count, mut anything) = (false, false, 0, false);
        let mut open = false;
        for token in tokens(what, text)? {
            match token {
                Token::And | Token::Or => {
                    if !open {
                        return Err(wrong("AND and OR stand between two words"));
                    }
                    open = false;
                    if matches!(token, Token::Or) {
                        ors = true;
                        groups.push(Vec::new());
                    } else {
                        ands = true;
                    }
                }
                Token::Anything => {
                    anything = true;
                    open = true;
                }
                Token::Term(term) => {
                    count += 1;
                    open = true;
                    if let Some(group) = groups.last_mut() {
                        group.push(term);
                    }
                }
            }
        }
        if ands && ors {
            return Err(wrong("AND and OR cannot be mixed"));
        }
        if count > most {
            return Err(wrong(&format!("at most {most} words are taken")));
        }
        if count > 0 && !open {
            return Err(wrong("AND and OR stand between two words"));
        }
        if anything {
            // Of several that all have to be there it takes nothing away; of alternatives it is the widest.
            groups = if ors { Vec::new() } else { groups };
        }
        groups.retain(|group| !group.is_empty());
        Ok((!groups.is_empty()).then_some(Words(groups)))
    }

    /// As the index takes it.
    pub fn expression(&self) -> String {
        let all = |group: &Vec<Term>| {
            let terms: Vec<String> = group.iter().map(Term::expression).collect();
            format!("({})", terms.join(" AND "))
        };
        let groups: Vec<String> = self.0.iter().map(all).collect();
        format!("({})", groups.join(" OR "))
    }

    /// The words, each once, as [`fold`] leaves them.
    pub fn folded(&self) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        for term in self.0.iter().flatten() {
            let words = fold(&term.text);
            let last = words.len().saturating_sub(1);
            for (n, word) in words.into_iter().enumerate() {
                let word = (word, term.is_prefix && n == last);
                if !found.contains(&word) {
                    found.push(word);
                }
            }
        }
        found
    }
}

impl Term {
    fn expression(&self) -> String {
        string(&self.text, self.is_prefix)
    }
}

/// A string of the index's own language.
pub fn string(text: &str, is_prefix: bool) -> String {
    format!("\"{}\"{}", text.replace('"', "\"\""), if is_prefix { "*" } else { "" })
}

/// The words of a text as the index sees them: without case and without accents.
pub fn fold(text: &str) -> Vec<String> {
    let plain: String = text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).collect();
    plain.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn refused(what: &str, why: &str) -> Error {
    Code::InvalidRequest.because(format!("{what}: {why}."))
}

fn tokens(what: &str, text: &str) -> Result<Vec<Token>> {
    if let Some(bad) = text.chars().find(|c| c.is_control() && !c.is_whitespace()) {
        return Err(refused(what, &format!("the sign U+{:04X} cannot be searched", u32::from(bad))));
    }
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let Some((phrase, after)) = quoted.split_once('"') else {
                return Err(refused(what, "a quotation mark is not closed"));
            };
            let (is_prefix, after) = after.strip_prefix('*').map_or((false, after), |after| (true, after));
            found.push(Token::Term(term(what, phrase, is_prefix)?));
            rest = after.trim_start();
            continue;
        }
        let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        found.push(match word {
            "AND" => Token::And,
            "OR" => Token::Or,
            "*" => Token::Anything,
            "&&" | "||" => return Err(refused(what, "write AND or OR")),
            _ => Token::Term(bare(what, word)?),
        });
        rest = after.trim_start();
    }
    Ok(found)
}

/// A word outside quotation marks.
fn bare(what: &str, word: &str) -> Result<Term> {
    let (stem, is_prefix) = word.strip_suffix('*').map_or((word, false), |stem| (stem, true));
    let special = stem.chars().find(|c| QUOTED_ONLY.contains(*c) || *c == '*');
    let special = special.or(stem.chars().next().filter(|c| NOT_IN_FRONT.contains(*c)));
    match special {
        Some('*') => Err(refused(what, &format!("`{word}`: * is taken at the end of a word alone"))),
        Some(sign) => Err(refused(what, &format!("`{word}`: {sign} is taken inside quotation marks alone"))),
        None => term(what, stem, is_prefix),
    }
}

fn term(what: &str, text: &str, is_prefix: bool) -> Result<Term> {
    if !text.chars().any(char::is_alphanumeric) {
        return Err(refused(what, &format!("`{text}` holds neither letter nor digit")));
    }
    Ok(Term { text: text.to_owned(), is_prefix })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<String>> {
        Ok(Words::read("keyword", text, 40)?.map(|words| words.expression()))
    }

    #[test]
    fn what_is_typed_and_what_is_asked() {
        for (typed, asked) in [
            ("sunset", r#"(("sunset"))"#),
            ("sunset beach", r#"(("sunset" AND "beach"))"#),
            ("sunset AND beach", r#"(("sunset" AND "beach"))"#),
            ("sunset OR  beach", r#"(("sunset") OR ("beach"))"#),
            ("golden hour OR beach", r#"(("golden" AND "hour") OR ("beach"))"#),
            (r#""golden hour""#, r#"(("golden hour"))"#),
            (r#""a + (b)" OR c"#, r#"(("a + (b)") OR ("c"))"#),
            ("sun*", r#"(("sun"*))"#),
            (r#""golden ho"*"#, r#"(("golden ho"*))"#),
            ("t-shirt", r#"(("t-shirt"))"#),
            ("IMG_0042.JPG", r#"(("IMG_0042.JPG"))"#),
            ("and or not near", r#"(("and" AND "or" AND "not" AND "near"))"#),
            ("NEAR NOT", r#"(("NEAR" AND "NOT"))"#),
            ("a *", r#"(("a"))"#),
            ("O'Brien;--", r#"(("O'Brien;--"))"#),
        ] {
            assert_eq!(read(typed).unwrap().as_deref(), Some(asked), "{typed}");
        }
        for nothing in ["", "  ", "*", "* OR a", "a OR *"] {
            assert_eq!(read(nothing).unwrap(), None, "{nothing:?}");
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        for (typed, why) in [
            ("a AND b OR c", "mixed"),
            ("AND", "between"),
            ("a OR", "between"),
            ("OR a", "between"),
            ("a OR OR b", "between"),
            ("\"open", "closed"),
            ("-a", "quotation marks"),
            ("+a", "quotation marks"),
            ("a && b", "AND or OR"),
            ("(a)", "quotation marks"),
            ("name:x^2", "quotation marks"),
            ("s*n", "end of a word"),
            ("*sun", "end of a word"),
            ("...", "neither"),
            ("\"\"", "neither"),
            ("a\0b", "U+0000"),
        ] {
            let error = read(typed).unwrap_err();
            assert_eq!(error.code, Code::InvalidRequest, "{typed}");
            assert!(error.detail.starts_with("keyword: ") && error.detail.contains(why), "{typed}: {}", error.detail);
        }
        assert!(read(&"a ".repeat(40)).is_ok() && read(&"a ".repeat(41)).is_err());
    }

    #[test]
    fn words_are_folded_as_the_index_folds_them() {
        assert_eq!(fold("Zoë's CAFÉ_42.jpg"), ["zoe", "s", "cafe", "42", "jpg"]);
        let words = Words::read("keyword", "Zoë OR \"golden ho\"*", 40).unwrap().unwrap();
        let folded: Vec<_> = words.folded();
        assert_eq!(folded, [("zoe".to_owned(), false), ("golden".to_owned(), false), ("ho".to_owned(), true)]);
    }

    proptest! {
        #[test]
        fn the_index_understands_all_that_is_not_refused(typed in "([a-z\"*() .:^+-]|AND |OR |NOT |NEAR\\(|é|\\PC){0,24}") {
            if let Ok(Some(asked)) = read(&typed) {
                let c = rusqlite::Connection::open_in_memory().unwrap();
                c.execute_batch("CREATE VIRTUAL TABLE t USING fts5 (a, b, content = '')").unwrap();
                let match_it = c.query_row("SELECT count(*) FROM t WHERE t MATCH ?1", [format!("{{a b}} : {asked}")], |r| r.get::<_, i64>(0));
                prop_assert!(match_it.is_ok(), "{typed:?} became {asked:?}: {match_it:?}");
            }
        }
    }
}
