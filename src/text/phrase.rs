//! Finding a phrase in a document of which only the chunks are at hand.

use std::ops::Range;

use super::is_space;
use crate::artifact::Chunk;

/// The text of a document put together from its chunks, runs of white space made one blank.
pub struct Whole {
    text: String,
    /// For each byte of `text` its place in the document; then the place of its end.
    places: Vec<usize>,
}

impl Whole {
    /// Puts together the `chunks` of one document, in any order. Between chunks there was nothing but white space.
    pub fn new<'a>(chunks: impl IntoIterator<Item = &'a Chunk>) -> Self {
        let mut chunks: Vec<&Chunk> = chunks.into_iter().collect();
        chunks.sort_by_key(|chunk| (chunk.start, chunk.end));
        let mut whole = Whole { text: String::new(), places: Vec::new() };
        let mut covered = 0;
        for chunk in chunks {
            if chunk.start > covered {
                whole.push(' ', covered);
            }
            for (at, c) in chunk.text.char_indices().filter(|(at, _)| chunk.start + at >= covered) {
                whole.push(if is_space(c) { ' ' } else { c }, chunk.start + at);
            }
            covered = covered.max(chunk.start + chunk.text.len());
        }
        whole.places.push(covered);
        whole
    }

    fn push(&mut self, c: char, place: usize) {
        if c == ' ' && self.text.ends_with(' ') {
            return;
        }
        self.text.push(c);
        self.places.extend((0..c.len_utf8()).map(|byte| place + byte));
    }

    /// The byte ranges of the document at which `phrase` stands, whatever white space is between its words.
    pub fn find(&self, phrase: &str) -> Vec<Range<usize>> {
        let phrase: Vec<&str> = phrase.split(is_space).filter(|word| !word.is_empty()).collect();
        let phrase = phrase.join(" ");
        if phrase.is_empty() {
            return Vec::new();
        }
        let place = |at: usize| self.places.get(at).copied();
        let range = |at: usize| Some(place(at)?..place(at + phrase.len() - 1)? + 1);
        self.text.match_indices(&phrase).filter_map(|(at, _)| range(at)).collect()
    }
}

/// Which of `chunks` hold one of the `places` wholly; if none does, which overlap one.
pub fn holding<'a>(chunks: &[&'a Chunk], places: &[Range<usize>]) -> Vec<&'a Chunk> {
    let which = |holds: fn(&Chunk, &Range<usize>) -> bool| -> Vec<&'a Chunk> {
        chunks.iter().copied().filter(|chunk| places.iter().any(|place| holds(chunk, place))).collect()
    };
    let wholly = which(|chunk, place| chunk.start <= place.start && place.end <= chunk.end);
    if wholly.is_empty() { which(|chunk, place| chunk.start < place.end && place.start < chunk.end) } else { wholly }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Größe  matters.\n\nIt always\ndid; it does.   End";

    fn chunks(ranges: &[Range<usize>]) -> Vec<Chunk> {
        let chunk = |(i, range): (usize, &Range<usize>)| Chunk {
            id: format!("d:{i}"),
            document: "d".into(),
            title: String::new(),
            start: range.start,
            end: range.end,
            text: TEXT[range.clone()].to_owned(),
        };
        ranges.iter().enumerate().map(chunk).collect()
    }

    #[test]
    fn a_phrase_is_found_across_chunks_and_white_space() {
        let chunks = chunks(&[0..17, 19..33, 29..42, 45..48]);
        let whole = Whole::new(&chunks);
        assert_eq!(whole.text, "Größe matters. It always did; it does. End");
        let found = |phrase: &str| {
            let places = whole.find(phrase);
            let refs: Vec<&Chunk> = chunks.iter().collect();
            let ids: Vec<String> = holding(&refs, &places).iter().map(|c| c.id.clone()).collect();
            (places.into_iter().map(|place| &TEXT[place]).collect::<Vec<_>>(), ids)
        };
        assert_eq!(found("Größe matters"), (vec!["Größe  matters"], vec!["d:0".into()]));
        assert_eq!(found("matters. It"), (vec!["matters.\n\nIt"], vec!["d:0".into(), "d:1".into()]));
        assert_eq!(found("did;"), (vec!["did;"], vec!["d:1".into(), "d:2".into()]));
        assert_eq!(found(" it\tdoes. "), (vec!["it does."], vec!["d:2".into()]));
        assert_eq!(found("it is").0, [""; 0]);
        assert_eq!(found(" ").0, [""; 0]);
    }
}
