//! Words of names, as people look for them: without regard to case and accents.

use std::collections::BTreeSet;

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};
use unicode_segmentation::UnicodeSegmentation as _;

/// How many words of one text count.
const MAX_WORDS: usize = 32;

/// How many characters of one word count.
const MAX_CHARS: usize = 32;

/// A text without accents and capitals, ready to be compared.
#[must_use]
pub fn fold(text: &str) -> String {
    // Decomposed, an accent is a character of its own. Some decompose into capitals.
    text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).collect()
}

/// The words of a text, folded. Scripts without spaces give one word per character.
#[must_use]
pub fn words(text: &str) -> BTreeSet<String> {
    let folded = fold(text);
    let pieces = folded.split(|c: char| !c.is_alphanumeric());
    let words = pieces.flat_map(|piece| piece.unicode_words());
    words.take(MAX_WORDS).map(|word| word.chars().take(MAX_CHARS).collect()).collect()
}

/// The words under which a user is found: those of the name and those of the user id, less the
/// server's.
#[must_use]
pub fn words_of_user(user_id: &str, display_name: Option<&str>) -> BTreeSet<String> {
    let mut all = words(display_name.unwrap_or_default());
    all.append(&mut words(localpart(user_id)));
    all
}

/// The part of a user id between `@` and the first colon.
#[must_use]
pub fn localpart(user_id: &str) -> &str {
    let name = user_id.strip_prefix('@').unwrap_or(user_id);
    name.split_once(':').map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_accents_do_not_count() {
        for (text, expected) in [
            ("Ångström", "angstrom"),
            ("ÉCOLE", "ecole"),
            ("İstanbul", "istanbul"),
            ("ﬁne ℌ", "fine h"),
            ("Ωμέγα", "ωμεγα"),
        ] {
            assert_eq!(fold(text), expected);
        }
    }

    #[test]
    fn words_end_at_whatever_is_no_letter_or_digit() {
        for (text, expected) in [
            ("Alice  O'Brien-Smith", vec!["alice", "brien", "o", "smith"]),
            ("john.doe_7=x", vec!["7", "doe", "john", "x"]),
            ("李小龍", vec!["小", "李", "龍"]),
            ("🎉 party", vec!["party"]),
            (" \u{0} ", vec![]),
        ] {
            let found = words(text);
            assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(words(&"ab ".repeat(1_000)).len(), 1);
        assert_eq!(words(&"é".repeat(1_000)).first().map(String::len), Some(MAX_CHARS));
    }

    #[test]
    fn a_user_is_found_by_name_and_id_but_not_by_server() {
        let found = words_of_user("@j.doe:example.org", Some("Jane"));
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["doe", "j", "jane"]);
    }
}
