//! Looking for a word in texts, whatever its case.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a text contains a keyword.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// The keyword may be part of a word: `api` is in `rapid`.
    #[default]
    Substring,
    /// No letter or digit may stand beside the keyword: `api` is in `REST-API`, not in `rapid`.
    Word,
}

/// A text in which keywords are looked for.
pub struct Haystack(String);

impl Haystack {
    pub fn new(text: &str) -> Self {
        Haystack(text.to_lowercase())
    }
}

/// A keyword and how it is looked for; case does not matter.
pub struct Keyword {
    lower: String,
    how: Match,
}

impl Keyword {
    pub fn new(keyword: &str, how: Match) -> Self {
        Keyword { lower: keyword.to_lowercase(), how }
    }

    /// Whether the keyword is in the text. An empty keyword is nowhere.
    pub fn is_in(&self, text: &Haystack) -> bool {
        match self.how {
            _ if self.lower.is_empty() => false,
            Match::Substring => text.0.contains(&self.lower),
            Match::Word => self.stands_alone(&text.0),
        }
    }

    fn stands_alone(&self, text: &str) -> bool {
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let mut from = 0;
        while let Some(at) = text[from..].find(&self.lower).map(|found| from + found) {
            let (before, after) = (&text[..at], &text[at + self.lower.len()..]);
            if !part_of_word(before.chars().next_back()) && !part_of_word(after.chars().next()) {
                return true;
            }
            // Matches may overlap: go on at the next character.
            from = at + text[at..].chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_substrings() {
        let contains = |text: &str, keyword: &str, how| Keyword::new(keyword, how).is_in(&Haystack::new(text));
        let text = "Rapid prototyping of a REST-API in ÖSTERREICH, x+x+x";
        assert!(contains(text, "Api", Match::Substring) && contains(text, "api", Match::Word));
        assert!(contains(text, "rap", Match::Substring) && !contains(text, "rap", Match::Word));
        assert!(contains(text, "österreich", Match::Word));
        assert!(contains(text, "x+x", Match::Word) && !contains(text, "", Match::Substring));
        assert!(!contains("aaa", "aa", Match::Word) && contains("éé é", "é", Match::Word));
    }
}
