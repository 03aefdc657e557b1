//! What a language model is asked.

use crate::artifact::RetrievedPassage;

/// The default of the system message.
pub const SYSTEM: &str = "You answer questions for the readers of a document collection. Rely only on the passages that come with the \
    question, not on what you know otherwise. Answer directly and briefly; do not speak of passages, sources or context. If the \
    answer is not in the passages, say that the documents do not tell.";

/// The default of the question's template.
pub const QUESTION: &str = "Passages from the documents:\n---------------------\n{context}\n---------------------\n\
    Answer from these passages and not from prior knowledge.\nQuestion: {query}\nAnswer: ";

/// Places of a template that are filled in.
pub const PLACES: [&str; 2] = ["{context}", "{query}"];

/// The template with its places filled. Texts are put in once and not looked at again: `{query}` inside a passage stays.
pub fn fill(template: &str, context: &str, query: &str) -> String {
    let mut text = String::new();
    let mut rest = template;
    loop {
        let next = PLACES.iter().filter_map(|place| Some((rest.find(place)?, *place))).min();
        let Some((start, place)) = next else { return text + rest };
        text += &rest[..start];
        text += if place == "{context}" { context } else { query };
        rest = &rest[start + place.len()..];
    }
}

/// The passages as one text: each under its id and title, with an empty line between them.
pub fn context(passages: &[RetrievedPassage]) -> String {
    let block = |p: &RetrievedPassage| {
        let title = if p.title.trim().is_empty() { String::new() } else { format!("title: {}\n", p.title.trim()) };
        format!("source: {}\n{title}{}", p.passage, p.text.trim())
    };
    passages.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_not_templates() {
        assert_eq!(
            fill("{context}|{query}|{other}", "a {query} {context}", "q {context}"),
            "a {query} {context}|q {context}|{other}"
        );
        assert_eq!(fill("{query}{query}", "", "ü"), "üü");
        for place in PLACES {
            assert!(QUESTION.contains(place));
        }
    }

    #[test]
    fn the_context_names_its_sources() {
        let passage = |id: &str, title: &str, text: &str| RetrievedPassage {
            passage: id.into(),
            title: title.into(),
            text: text.into(),
            score: 0.5,
        };
        insta::assert_snapshot!(context(&[passage("a.md:0", "Indexes", "First.\n"), passage("b.md:1", " ", "Second.")]), @r"
        source: a.md:0
        title: Indexes
        First.

        source: b.md:1
        Second.
        ");
    }
}
