//! Splitting a text into chunks of whole sentences, as LlamaIndex's `SentenceSplitter` (0.14) does: the text is divided into
//! pieces that fit (paragraphs, else sentences, else clauses, else words, else characters), and pieces are joined greedily.
//! Pieces follow each other without a gap, so a chunk is a range of the text's bytes.

mod pieces;
pub mod sentences;

use std::collections::VecDeque;
use std::ops::Range;

use anyhow::Result;

use super::is_space;
use pieces::Piece;

/// Counts the tokens of a text.
pub type Count<'a> = dyn Fn(&str) -> Result<usize> + Sync + 'a;

/// How to split.
pub struct Splitter<'a> {
    /// The most tokens in a chunk, counted as the sum over its pieces.
    pub chunk_size: usize,
    /// The most tokens of whole pieces that a chunk repeats from the end of the one before it.
    pub chunk_overlap: usize,
    /// What stands between words; not empty.
    pub separator: &'a str,
    /// What stands between paragraphs; not empty.
    pub paragraph_separator: &'a str,
    pub count: &'a Count<'a>,
}

impl Splitter<'_> {
    /// The byte ranges of the chunks of `text`, in order, without the white space around each. Blank texts have none.
    ///
    /// # Errors
    /// A single character has more tokens than a chunk may have, or counting fails.
    pub fn split(&self, text: &str) -> Result<Vec<Range<usize>>> {
        let chunks = self.join(self.pieces(text)?);
        Ok(chunks.into_iter().map(|range| trimmed(text, range)).filter(|range| !range.is_empty()).collect())
    }

    /// Joins pieces greedily into chunks.
    fn join(&self, pieces: Vec<Piece>) -> Vec<Range<usize>> {
        let mut chunks = Vec::new();
        let mut chunk = Open::default();
        for piece in pieces {
            if chunk.new > 0 && chunk.tokens + piece.tokens > self.chunk_size {
                chunks.extend(chunk.range());
                chunk.keep_overlap(self.chunk_overlap);
            }
            // What was repeated gives way to what is new.
            while chunk.tokens + piece.tokens > self.chunk_size && chunk.pop_front() {}
            chunk.push(piece);
        }
        if chunk.new > 0 {
            chunks.extend(chunk.range());
        }
        chunks
    }
}

/// The chunk that is being filled.
#[derive(Default)]
struct Open {
    pieces: VecDeque<Piece>,
    tokens: usize,
    /// How many of the pieces are not repeated from the chunk before.
    new: usize,
}

impl Open {
    fn range(&self) -> Option<Range<usize>> {
        Some(self.pieces.front()?.range.start..self.pieces.back()?.range.end)
    }

    fn push(&mut self, piece: Piece) {
        self.tokens += piece.tokens;
        self.new += 1;
        self.pieces.push_back(piece);
    }

    /// Whether there was a piece to drop.
    fn pop_front(&mut self) -> bool {
        let piece = self.pieces.pop_front();
        self.tokens -= piece.as_ref().map_or(0, |p| p.tokens);
        piece.is_some()
    }

    /// Keeps as many of the last pieces as have at most `limit` tokens together.
    fn keep_overlap(&mut self, limit: usize) {
        while self.tokens > limit && self.pop_front() {}
        self.new = 0;
    }
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let whole = text.get(range.clone()).unwrap_or_default();
    let start = range.start + (whole.len() - whole.trim_start_matches(is_space).len());
    let end = start + whole.trim_matches(is_space).len();
    start..end
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use regex::Regex;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Reference {
        texts: BTreeMap<String, String>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        chunk_size: usize,
        chunk_overlap: usize,
        text: String,
        chunks: Vec<String>,
    }

    /// The reference's tokenizer, `\w+|[^\w\s]` with Python's idea of `\w`.
    fn words() -> impl Fn(&str) -> Result<usize> + Sync {
        let word = Regex::new(r"[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]").unwrap();
        move |text| Ok(word.find_iter(text).count())
    }

    fn splitter<'a>(chunk_size: usize, chunk_overlap: usize, count: &'a Count<'a>) -> Splitter<'a> {
        Splitter { chunk_size, chunk_overlap, separator: " ", paragraph_separator: "\n\n\n", count }
    }

    #[test]
    fn chunks_are_those_of_llama_index() {
        let reference: Reference = serde_json::from_str(include_str!("../../../tests/fixtures/splitter.json")).unwrap();
        assert!(reference.cases.len() >= 24);
        let count = words();
        for case in &reference.cases {
            let text = &reference.texts[&case.text];
            let chunks = splitter(case.chunk_size, case.chunk_overlap, &count).split(text).unwrap();
            let chunks: Vec<&str> = chunks.into_iter().map(|range| &text[range]).collect();
            assert_eq!(chunks, case.chunks, "{} at {} and {}", case.text, case.chunk_size, case.chunk_overlap);
        }
    }

    #[test]
    fn a_character_larger_than_a_chunk_is_refused() {
        let bytes = |text: &str| Ok(text.len());
        let error = splitter(3, 0, &bytes).split("ab 🚀 cd").unwrap_err();
        insta::assert_snapshot!(error, @"the character `🚀` alone has 4 tokens, more than `chunk_size` 3; raise `chunk_size`");
        assert!(splitter(3, 0, &bytes).split(" \n\u{2003} ").unwrap().is_empty());
    }

    /// Texts with the marks, brackets and blanks that the rules are about.
    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => "[a-zA-Z]{1,6}",
            2 => "[ \n]{1,4}",
            2 => "[.?!,;:)\"'\\]-]{1,3}",
            1 => prop::sample::select(vec!["。", "？", "1.", "J.", "\u{a0}", "\u{1c}", "é\u{301}", "🚀", "”"]).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..80).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn chunks_cover_the_text_in_order_and_fit(text in texts(), size in 1usize..20, overlap in 0usize..20) {
            let (count, overlap) = (|text: &str| Ok(text.chars().count()), overlap.min(size));
            let chunks = splitter(size, overlap, &count).split(&text).unwrap();
            let mut covered = 0;
            let mut last = 0..0;
            for chunk in chunks {
                let piece = text.get(chunk.clone()).expect("a chunk starts and ends between characters");
                prop_assert!(piece.chars().count() <= size);
                prop_assert!(!piece.is_empty() && piece.trim_matches(is_space) == piece);
                prop_assert!(chunk.start >= last.start && chunk.end >= last.end);
                prop_assert!(text[covered.min(chunk.start)..chunk.start].chars().all(is_space));
                (covered, last) = (covered.max(chunk.end), chunk);
            }
            prop_assert!(text[covered..].chars().all(is_space));
        }
    }
}
