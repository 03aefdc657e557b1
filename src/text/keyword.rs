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

/// Texts in which keywords are looked for.
pub struct Haystack(String);

impl Haystack {
    pub fn new(text: &str) -> Self {
        Haystack(text.to_lowercase())
    }

    /// Whether `keyword` is in the text; case does not matter. An empty keyword is nowhere.
    pub fn contains(&self, keyword: &str, how: Match) -> bool {
        let keyword = keyword.to_lowercase();
        if keyword.is_empty() {
            return false;
        }
        match how {
            Match::Substring => self.0.contains(&keyword),
            Match::Word => self.stands_alone(&keyword),
        }
    }

    fn stands_alone(&self, keyword: &str) -> bool {
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let mut from = 0;
        while let Some(at) = self.0[from..].find(keyword).map(|found| from + found) {
            let (before, after) = (&self.0[..at], &self.0[at + keyword.len()..]);
            if !part_of_word(before.chars().next_back()) && !part_of_word(after.chars().next()) {
                return true;
            }
            // Matches may overlap: go on at the next character.
            from = at + self.0[at..].chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_substrings() {
        let text = Haystack::new("Rapid prototyping of a REST-API in ÖSTERREICH, x+x+x");
        assert!(text.contains("Api", Match::Substring) && text.contains("api", Match::Word));
        assert!(text.contains("rap", Match::Substring) && !text.contains("rap", Match::Word));
        assert!(text.contains("österreich", Match::Word));
        assert!(text.contains("x+x", Match::Word) && !text.contains("", Match::Substring));
        assert!(!Haystack::new("aaa").contains("aa", Match::Word) && Haystack::new("éé é").contains("é", Match::Word));
    }
}
