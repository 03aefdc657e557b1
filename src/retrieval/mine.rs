//! Making training triplets: by keyword rules, and from judgements with random or hard negatives.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, ensure};
use ndarray::{ArrayView1, ArrayView2};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::artifact::{Chunk, Judgements, Passage, Query, Triplet, jsonl};
use crate::text::first_few;
use crate::text::keyword::{Haystack, Keyword, Match};

/// A query with the keywords of its positive and its negative: a line of the file of rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(rename = "_id")]
    pub id: String,
    pub query: String,
    /// The positive is the first chunk that contains this.
    pub positive: String,
    /// The negative is the first other chunk that contains this.
    pub negative: String,
    /// `FILE:LINE`, for messages.
    #[serde(skip)]
    pub place: String,
}

/// Triplets, and what went wrong with some.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mined {
    pub triplets: Vec<Triplet>,
    pub warnings: Vec<String>,
}

/// Reads a file of rules; messages call it `name`.
///
/// # Errors
/// The file cannot be read, holds no rule, or a line is malformed; the message is `FILE:LINE: cause`.
pub fn read(path: &Path, name: &str) -> Result<Vec<Rule>> {
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for (line, mut rule) in jsonl::numbered::<Rule>(path, name)? {
        rule.place = format!("{name}:{line}");
        let fields = [("_id", &rule.id), ("query", &rule.query), ("positive", &rule.positive), ("negative", &rule.negative)];
        for (field, text) in fields {
            ensure!(!text.trim().is_empty(), "{}: field `{field}` is empty", rule.place);
        }
        ensure!(seen.insert(rule.id.clone()), "{}: the id `{}` stands twice; give each rule its own", rule.place, rule.id);
        rules.push(rule);
    }
    ensure!(
        !rules.is_empty(),
        "`{name}` holds no rule; write one a line: {{\"_id\": …, \"query\": …, \"positive\": …, \"negative\": …}}"
    );
    Ok(rules)
}

/// A triplet a rule: the positive is the first chunk that contains the one keyword, the negative the first that contains the
/// other and is not the positive. Case does not matter.
///
/// # Errors
/// No chunk contains a keyword; the message names its place.
pub fn by_rules(rules: &[Rule], chunks: &[Chunk]) -> Result<Mined> {
    let passages: Vec<Passage> = chunks.iter().map(Passage::from).collect();
    let texts: Vec<Haystack> = chunks.iter().map(|chunk| Haystack::new(&chunk.text)).collect();
    let mut mined = Mined::default();
    let mut same = Vec::new();
    for rule in rules {
        let containing = |word: &str| -> Result<Vec<&Passage>> {
            let keyword = Keyword::new(word, Match::Substring);
            let found: Vec<&Passage> = passages.iter().zip(&texts).filter(|(_, t)| keyword.is_in(t)).map(|(p, _)| p).collect();
            ensure!(!found.is_empty(), "{}: no chunk contains `{word}`; use a word that the documents use", rule.place);
            Ok(found)
        };
        let (positives, negatives) = (containing(&rule.positive)?, containing(&rule.negative)?);
        let Some(positive) = positives.first() else { continue };
        match negatives.iter().find(|negative| negative.text != positive.text) {
            Some(negative) => mined.triplets.push(triplet(&rule.query, &rule.id, positive, negative)),
            None => same.push(format!("`{}`", rule.id)),
        }
    }
    if !same.is_empty() {
        let why = "rules without a triplet, for only the positive contains the keyword of the negative";
        mined.warnings.push(format!("{why}: {} ({})", same.len(), first_few(&same)));
    }
    Ok(mined)
}

/// What the negatives of a query are drawn from, apart from its relevant passages.
pub enum Pool<'a> {
    /// The whole corpus.
    Corpus,
    /// For each query, the passages of these numbers.
    Ranked(&'a [Vec<usize>]),
}

/// For each query and each of its relevant passages, `negatives` triplets with different passages that are drawn at random from the
/// pool and are not judged relevant for that query. What is drawn for a query depends on `seed`, the query's place in the list and
/// its pool alone.
pub fn from_judgements(judgements: &Judgements, pool: &Pool, negatives: usize, seed: u64) -> Mined {
    let mut mined = Mined::default();
    let (mut without, mut short) = (0, 0);
    for (place, query) in judgements.queries.iter().enumerate() {
        let grades = judgements.qrels.get(&query.id);
        let is_relevant = |passage: &Passage| grades.and_then(|grades| grades.get(&passage.id)).is_some_and(|&grade| grade > 0);
        let (relevant, mut others): (Vec<usize>, Vec<usize>) =
            (0..judgements.corpus.len()).partition(|&i| is_relevant(&judgements.corpus[i]));
        if let Pool::Ranked(ranked) = pool {
            others = ranked.get(place).map_or(&[][..], Vec::as_slice).iter().copied().filter(|i| !relevant.contains(i)).collect();
        }
        without += usize::from(relevant.is_empty());
        short += usize::from(!relevant.is_empty() && others.len() < negatives);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(place as u64);
        for positive in relevant.iter().filter_map(|&i| judgements.corpus.get(i)) {
            for drawn in sample(&mut rng, others.len(), negatives.min(others.len())) {
                let negative = others.get(drawn).and_then(|&i| judgements.corpus.get(i));
                mined.triplets.extend(negative.map(|negative| triplet(&query.text, &query.id, positive, negative)));
            }
        }
    }
    if without > 0 {
        mined.warnings.push(format!("queries without a relevant passage, and so without a triplet: {without}"));
    }
    if short > 0 {
        mined.warnings.push(format!(
            "queries with fewer than {negatives} passages that are not relevant, and so with fewer negatives: {short}"
        ));
    }
    mined
}

/// For each query the numbers of the passages that a model ranks at `ranks`, counted from 0 among those that are not judged
/// relevant: what the model takes for an answer and is none. `scores` `[queries, corpus]`; equal scores in the order of the corpus.
pub fn hardest(judgements: &Judgements, scores: ArrayView2<f32>, ranks: Range<usize>) -> Vec<Vec<usize>> {
    let pool = |(query, scores): (&Query, ArrayView1<f32>)| {
        let grades = judgements.qrels.get(&query.id);
        let is_relevant = |i: usize| {
            let grade = judgements.corpus.get(i).and_then(|passage| grades?.get(&passage.id));
            grade.is_some_and(|&grade| grade > 0)
        };
        let mut order: Vec<usize> = (0..scores.len()).filter(|&i| !is_relevant(i)).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        order.into_iter().skip(ranks.start).take(ranks.len()).collect()
    };
    judgements.queries.iter().zip(scores.rows()).map(pool).collect()
}

/// The texts are those that retrieval embeds.
fn triplet(query: &str, query_id: &str, positive: &Passage, negative: &Passage) -> Triplet {
    Triplet {
        anchor: query.to_owned(),
        positive: positive.embedding_text(),
        negative: negative.embedding_text(),
        query_id: query_id.to_owned(),
        positive_id: positive.id.clone(),
        negative_id: negative.id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;

    use super::*;

    fn judgements(passages: usize, relevant: &[Vec<usize>]) -> Judgements {
        let passage = |i| Passage { id: format!("p{i}"), title: format!("T{i}"), text: format!("text {i}") };
        let query = |i: usize| Query { id: format!("q{i}"), text: format!("query {i}") };
        let grades = |list: &Vec<usize>| list.iter().map(|i| (format!("p{i}"), 1)).collect();
        Judgements {
            corpus: (0..passages).map(passage).collect(),
            queries: (0..relevant.len()).map(query).collect(),
            qrels: relevant.iter().enumerate().map(|(i, list)| (format!("q{i}"), grades(list))).collect(),
        }
    }

    proptest! {
        #[test]
        fn negatives_are_different_and_never_relevant(
            passages in 1usize..12,
            relevant in prop::collection::vec(prop::collection::vec(0usize..12, 0..6), 1..5),
            negatives in 1usize..4,
            seed: u64,
        ) {
            let relevant: Vec<Vec<usize>> = relevant.into_iter().map(|l| l.into_iter().filter(|&i| i < passages).collect()).collect();
            let judged = judgements(passages, &relevant);
            let mined = from_judgements(&judged, &Pool::Corpus, negatives, seed);
            let mut expected = 0;
            for (query, grades) in &judged.qrels {
                let others = passages - grades.len();
                expected += grades.len() * negatives.min(others);
                for positive in grades.keys() {
                    let of = mined.triplets.iter().filter(|t| t.query_id == *query && t.positive_id == *positive);
                    let drawn: Vec<&String> = of.map(|t| &t.negative_id).collect();
                    prop_assert_eq!(drawn.len(), negatives.min(others));
                    prop_assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len());
                    prop_assert!(drawn.iter().all(|id| !grades.contains_key(*id)));
                }
            }
            prop_assert_eq!(mined.triplets.len(), expected);
        }
    }

    #[test]
    fn what_is_drawn_for_a_query_depends_on_no_other_query() {
        let few = from_judgements(&judgements(50, &[vec![1], vec![2, 3]]), &Pool::Corpus, 2, 42).triplets;
        let many = from_judgements(&judgements(50, &[vec![1, 4, 9, 16], vec![2, 3]]), &Pool::Corpus, 2, 42).triplets;
        assert_eq!(few[2..], many[8..]);
        let other = from_judgements(&judgements(50, &[vec![1], vec![2, 3]]), &Pool::Corpus, 2, 43).triplets;
        assert_ne!(few, other);
        assert_eq!((few[0].anchor.as_str(), few[0].positive.as_str()), ("query 0", "T1 text 1"));
        // Pinned: another draw would change every run that is on record.
        let drawn: Vec<&str> = few.iter().map(|t| t.negative_id.as_str()).collect();
        insta::assert_snapshot!(drawn.join(" "), @"p11 p34 p28 p36 p32 p10");
    }

    #[test]
    fn what_is_judged_irrelevant_is_a_negative() {
        let mut judged = judgements(2, &[vec![0, 1]]);
        judged.qrels.get_mut("q0").unwrap().insert("p1".into(), 0);
        let mined = from_judgements(&judged, &Pool::Corpus, 3, 1);
        assert_eq!(
            mined.triplets.iter().map(|t| (t.positive_id.as_str(), t.negative_id.as_str())).collect::<Vec<_>>(),
            [("p0", "p1")]
        );
        insta::assert_snapshot!(mined.warnings.join("\n"), @"queries with fewer than 3 passages that are not relevant, and so with fewer negatives: 1");
    }

    #[test]
    fn hard_negatives_are_what_a_model_ranks_high_and_is_not_relevant() {
        let judged = judgements(5, &[vec![3], vec![0]]);
        let scores = array![[0.1, 0.5, 0.4, 0.9, 0.5], [0.9, 0.1, 0.2, 0.3, 0.4]];
        assert_eq!(hardest(&judged, scores.view(), 0..2), [vec![1, 4], vec![4, 3]]);
        assert_eq!(hardest(&judged, scores.view(), 1..9), [vec![4, 2, 0], vec![3, 2, 1]]);
        let pools = hardest(&judged, scores.view(), 0..2);
        let mined = from_judgements(&judged, &Pool::Ranked(&pools), 2, 42);
        let mut negatives: Vec<&str> = mined.triplets.iter().map(|t| t.negative_id.as_str()).collect();
        negatives[..2].sort_unstable();
        negatives[2..].sort_unstable();
        assert_eq!(negatives, ["p1", "p4", "p3", "p4"]);
    }
}
