//! Answers without a language model: the retrieved sentences nearest to the query, quoted.

use std::collections::BTreeSet;

use anyhow::Result;
use ndarray::{ArrayView1, ArrayView2};

use crate::artifact::RetrievedPassage;
use crate::cancel::Cancel;
use crate::model::embedder::Embedder;
use crate::report::markdown::one_line;
use crate::retrieval::dense::normalized;

/// A sentence of a retrieved passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The passage's id.
    pub passage: String,
    pub text: String,
}

/// Chooses for each query the `count` sentences of its passages that are nearest to it by cosine similarity; they stay in the
/// order of the passages. `progress` is told how many of how many texts are encoded.
///
/// # Errors
/// The model cannot encode, or `cancel` is set.
pub fn answers(
    embedder: &Embedder,
    questions: &[(&str, &[RetrievedPassage])],
    count: usize,
    cancel: &Cancel,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<Vec<Sentence>>> {
    let candidates: Vec<Vec<Sentence>> = questions.iter().map(|(_, passages)| distinct(passages)).collect();
    let queries: Vec<String> = questions.iter().map(|(query, _)| (*query).to_owned()).collect();
    let texts: Vec<String> = candidates.iter().flatten().map(|s| s.text.clone()).collect();
    let all = queries.len() + texts.len();
    let vectors = normalized(embedder.encode_documents(&texts, cancel, &|n| progress(n, all))?.view());
    let queries = normalized(embedder.encode_queries(&queries, cancel, &|n| progress(texts.len() + n, all))?.view());
    let mut start = 0;
    let mut chosen = Vec::new();
    for (query, sentences) in candidates.into_iter().enumerate() {
        let rows = vectors.slice(ndarray::s![start..start + sentences.len(), ..]);
        start += sentences.len();
        let nearest = nearest(queries.row(query), rows, count);
        chosen.push(sentences.into_iter().enumerate().filter(|(i, _)| nearest.contains(i)).map(|(_, s)| s).collect());
    }
    Ok(chosen)
}

/// The sentences of the passages in order. One that stands twice, as in chunks that overlap, is taken where it comes first.
fn distinct(passages: &[RetrievedPassage]) -> Vec<Sentence> {
    let mut seen = BTreeSet::new();
    let all = passages.iter().flat_map(|p| {
        let of = |text| Sentence { passage: p.passage.clone(), text };
        sentences(&p.text).into_iter().map(of)
    });
    all.filter(|s| seen.insert(s.text.clone())).collect()
}

/// Rows of the `count` vectors nearest to `query`; of equally near ones the earlier.
fn nearest(query: ArrayView1<f32>, rows: ArrayView2<f32>, count: usize) -> BTreeSet<usize> {
    let scores = rows.dot(&query);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.into_iter().take(count).collect()
}

/// Splits a text at empty lines and after `.`, `!` and `?` that white space and no lower-case letter follow. Pieces of one or two
/// words and lines that begin with `#`, which are headings and not answers, are left out unless there is nothing else.
fn sentences(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut paragraph = String::new();
    for line in text.lines().chain([""]) {
        let heading = line.starts_with('#');
        if heading || line.trim().is_empty() {
            split(&one_line(&paragraph), &mut all);
            paragraph.clear();
        }
        if heading {
            all.push(one_line(line));
        } else {
            paragraph += line;
            paragraph.push('\n');
        }
    }
    let long = |s: &String| s.split(' ').count() > 2 && !s.starts_with('#');
    if all.iter().any(long) {
        all.retain(long);
    }
    all
}

/// Appends the sentences of a paragraph, whose white space is single blanks.
fn split(paragraph: &str, to: &mut Vec<String>) {
    let mut start = 0;
    for (blank, _) in paragraph.match_indices(' ') {
        let ended = paragraph[..blank].trim_end_matches(['"', '\'', ')', '”', '’']).ends_with(['.', '!', '?']);
        let goes_on = paragraph[blank + 1..].starts_with(char::is_lowercase);
        if ended && !goes_on {
            to.push(paragraph[start..blank].to_owned());
            start = blank + 1;
        }
    }
    if start < paragraph.len() {
        to.push(paragraph[start..].to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn text_is_cut_into_sentences() {
        let text = "Indexes\n\nAn index helps, e.g. to sort. It costs \"space.\" Is it\nworth it? Version 1.5 says so!\n\nNo final stop here";
        assert_eq!(
            sentences(text),
            [
                "An index helps, e.g. to sort.",
                "It costs \"space.\"",
                "Is it worth it?",
                "Version 1.5 says so!",
                "No final stop here"
            ]
        );
        assert_eq!(sentences("Indexes"), ["Indexes"]);
        assert_eq!(sentences("## What an index costs\nAn index costs space."), ["An index costs space."]);
        assert_eq!(sentences("## What an index costs"), ["## What an index costs"]);
        assert!(sentences(" \n\t").is_empty());
    }

    proptest! {
        #[test]
        fn splitting_loses_no_word(text in "[a-zA-Zü.!?\" \n]{0,80}") {
            let mut all = Vec::new();
            split(&one_line(&text), &mut all);
            prop_assert_eq!(all.join(" "), one_line(&text));
        }
    }

    #[test]
    fn the_nearest_are_chosen_and_of_equal_ones_the_first() {
        let rows = array![[0.0f32, 1.0], [1.0, 0.0], [0.6, 0.8], [1.0, 0.0]];
        let chosen = |count| nearest(array![1.0f32, 0.0].view(), rows.view(), count).into_iter().collect::<Vec<_>>();
        assert_eq!(chosen(1), [1]);
        assert_eq!(chosen(3), [1, 2, 3]);
        assert_eq!(chosen(9), [0, 1, 2, 3]);
    }

    #[test]
    fn a_sentence_of_overlapping_chunks_is_quoted_once() {
        let passage =
            |id: &str, text: &str| RetrievedPassage { passage: id.into(), title: String::new(), text: text.into(), score: 0.0 };
        let all = distinct(&[passage("a:0", "One is here. Two is here."), passage("a:1", "Two is here. Three is here.")]);
        let found: Vec<(&str, &str)> = all.iter().map(|s| (s.passage.as_str(), s.text.as_str())).collect();
        assert_eq!(found, [("a:0", "One is here."), ("a:0", "Two is here."), ("a:1", "Three is here.")]);
    }
}
