//! Dividing a text into pieces that fit into a chunk.

use std::ops::Range;

use anyhow::{Result, bail};

use super::{Splitter, sentences};

/// A range of the text and its number of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub range: Range<usize>,
    pub tokens: usize,
}

/// A long word full of full stops loses but its last sentence at each division. Once that has meant reading this many bytes,
/// it is divided at its marks; LlamaIndex fails on such texts, for they nest too deep.
const REREAD: usize = 16 << 20;

/// Marks that end a clause.
const CLAUSE: [char; 6] = [',', '.', ';', '。', '？', '！'];

impl Splitter<'_> {
    /// Pieces of at most `chunk_size` tokens that make up the whole text.
    pub(super) fn pieces(&self, text: &str) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        // Texts that are still to be divided, the next one last; a stack, for how deep a text nests is not ours to say.
        let mut rest = vec![(0..text.len(), 0)];
        while let Some((range, depth)) = rest.pop() {
            let part = &text[range.clone()];
            let tokens = (self.count)(part)?;
            if tokens <= self.chunk_size {
                pieces.push(Piece { range, tokens });
                continue;
            }
            let parts = self.divide(part, depth < 8 || part.len().saturating_mul(depth) < REREAD);
            if parts.len() < 2 {
                bail!(
                    "the character `{part}` alone has {tokens} tokens, more than `chunk_size` {}; raise `chunk_size`",
                    self.chunk_size
                );
            }
            let mut end = range.end;
            for part in parts.iter().rev() {
                rest.push((end - part.len()..end, depth + 1));
                end -= part.len();
            }
        }
        Ok(pieces)
    }

    /// Divides at the coarsest boundary that there is; at sentences only when `by_sentence`.
    fn divide<'t>(&self, text: &'t str, by_sentence: bool) -> Vec<&'t str> {
        let ways: [&dyn Fn() -> Vec<&'t str>; 4] = [
            &|| separated(text, self.paragraph_separator),
            &|| if by_sentence { sentences::sentences(text) } else { Vec::new() },
            &|| text.split_inclusive(CLAUSE).collect(),
            &|| separated(text, self.separator),
        ];
        ways.iter().map(|way| way()).find(|parts| parts.len() > 1).unwrap_or_else(|| characters(text))
    }
}

/// Parts between separators; each separator goes to the part that follows it.
fn separated<'t>(text: &'t str, separator: &str) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut rest = 0;
    for (at, _) in text.match_indices(separator) {
        parts.push(&text[rest..at]);
        rest = at;
    }
    parts.push(&text[rest..]);
    parts.retain(|part| !part.is_empty());
    parts
}

fn characters(text: &str) -> Vec<&str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_go_to_the_part_after_them() {
        assert_eq!(separated("a  b", " "), ["a", " ", " b"]);
        assert_eq!(separated(" a ", " "), [" a", " "]);
        assert_eq!(separated("", " "), [""; 0]);
        assert_eq!("a,,b.c".split_inclusive(CLAUSE).collect::<Vec<_>>(), ["a,", ",", "b.", "c"]);
    }
}
