//! Making training examples: by keyword rules, and from judgements with random or hard negatives.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, ensure};
use ndarray::{ArrayView1, ArrayView2};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifact::example::Origin;
use crate::artifact::{Chunk, Example, Judgements, Passage, Query, jsonl};
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

/// Examples, and what went wrong with some.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mined {
    pub examples: Vec<Example>,
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
            Some(negative) => mined.examples.push(example(&rule.query, &rule.id, positive, &[negative])),
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

/// What becomes of the negatives of a passage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A row for each: anchor, positive, negative.
    #[default]
    Triplet,
    /// One row for all of them: anchor, positive, and as many negatives as `negatives` says. A passage with fewer is left out.
    Tuple,
}

/// For each query and each of its relevant passages, `negatives` different passages that are drawn at random from the pool and are not
/// judged relevant for that query. What is drawn for a query depends on `seed`, the query's place in the list and its pool alone. With `scores`
/// `[queries, corpus]`, rows have those of their positive and their negatives.
pub fn from_judgements(
    judgements: &Judgements,
    pool: &Pool,
    negatives: usize,
    shape: Shape,
    scores: Option<ArrayView2<f32>>,
    seed: u64,
) -> Mined {
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
        for positive in relevant {
            let drawn = sample(&mut rng, others.len(), negatives.min(others.len())).into_iter();
            let drawn: Vec<usize> = drawn.filter_map(|i| others.get(i).copied()).collect();
            let row = |negatives: &[usize]| {
                let passages: Vec<&Passage> = negatives.iter().map(|&i| &judgements.corpus[i]).collect();
                let texts = std::iter::once(&positive).chain(negatives);
                let labels = scores.iter().flat_map(|scores| texts.clone().map(|&i| f64::from(scores[[place, i]]))).collect();
                Example { labels, ..example(&query.text, &query.id, &judgements.corpus[positive], &passages) }
            };
            match shape {
                Shape::Triplet => mined.examples.extend(drawn.iter().map(|&negative| row(&[negative]))),
                Shape::Tuple if drawn.len() == negatives => mined.examples.push(row(&drawn)),
                Shape::Tuple => {}
            }
        }
    }
    if without > 0 {
        mined.warnings.push(format!("queries without a relevant passage, and so without a triplet: {without}"));
    }
    if short > 0 {
        let so = match shape {
            Shape::Triplet => "with fewer negatives",
            Shape::Tuple => "without a row",
        };
        let why = format!("queries with fewer than {negatives} passages that are not relevant, and so {so}: {short}");
        mined.warnings.push(why);
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

/// For each query and each of its relevant passages a pair, without negatives.
pub fn pairs(judgements: &Judgements) -> Mined {
    let passages: HashMap<&str, &Passage> = judgements.corpus.iter().map(|passage| (passage.id.as_str(), passage)).collect();
    let mut mined = Mined::default();
    let mut without = 0;
    for query in &judgements.queries {
        let grades = judgements.qrels.get(&query.id).into_iter().flatten();
        let relevant = grades.filter(|&(_, &grade)| grade > 0).filter_map(|(id, _)| passages.get(id.as_str()));
        let before = mined.examples.len();
        mined.examples.extend(relevant.map(|positive| example(&query.text, &query.id, positive, &[])));
        without += usize::from(mined.examples.len() == before);
    }
    if without > 0 {
        mined.warnings.push(format!("queries without a relevant passage, and so without a pair: {without}"));
    }
    mined
}

/// The texts are those that retrieval embeds.
fn example(query: &str, query_id: &str, positive: &Passage, negatives: &[&Passage]) -> Example {
    Example {
        anchor: query.to_owned(),
        positive: positive.embedding_text(),
        negatives: negatives.iter().map(|negative| negative.embedding_text()).collect(),
        labels: Vec::new(),
        origin: Origin {
            query: query_id.to_owned(),
            positive: positive.id.clone(),
            negatives: negatives.iter().map(|negative| negative.id.clone()).collect(),
        },
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
            let mined = from_judgements(&judged, &Pool::Corpus, negatives, Shape::Triplet, None, seed);
            let mut expected = 0;
            for (query, grades) in &judged.qrels {
                let others = passages - grades.len();
                expected += grades.len() * negatives.min(others);
                for positive in grades.keys() {
                    let of = mined.examples.iter().filter(|t| t.origin.query == *query && t.origin.positive == *positive);
                    let drawn: Vec<&String> = of.map(|t| &t.origin.negatives[0]).collect();
                    prop_assert_eq!(drawn.len(), negatives.min(others));
                    prop_assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len());
                    prop_assert!(drawn.iter().all(|id| !grades.contains_key(*id)));
                }
            }
            prop_assert_eq!(mined.examples.len(), expected);
        }
    }

    #[test]
    fn what_is_drawn_for_a_query_depends_on_no_other_query() {
        let few = from_judgements(&judgements(50, &[vec![1], vec![2, 3]]), &Pool::Corpus, 2, Shape::Triplet, None, 42).examples;
        let many = from_judgements(&judgements(50, &[vec![1, 4, 9, 16], vec![2, 3]]), &Pool::Corpus, 2, Shape::Triplet, None, 42)
            .examples;
        assert_eq!(few[2..], many[8..]);
        let other = from_judgements(&judgements(50, &[vec![1], vec![2, 3]]), &Pool::Corpus, 2, Shape::Triplet, None, 43).examples;
        assert_ne!(few, other);
        assert_eq!((few[0].anchor.as_str(), few[0].positive.as_str()), ("query 0", "T1 text 1"));
        // Pinned: another draw would change every run that is on record.
        let drawn: Vec<&str> = few.iter().map(|t| t.origin.negatives[0].as_str()).collect();
        insta::assert_snapshot!(drawn.join(" "), @"p11 p34 p28 p36 p32 p10");
    }

    #[test]
    fn what_is_judged_irrelevant_is_a_negative() {
        let mut judged = judgements(2, &[vec![0, 1]]);
        judged.qrels.get_mut("q0").unwrap().insert("p1".into(), 0);
        let mined = from_judgements(&judged, &Pool::Corpus, 3, Shape::Triplet, None, 1);
        assert_eq!(
            mined.examples.iter().map(|t| (t.origin.positive.as_str(), t.origin.negatives[0].as_str())).collect::<Vec<_>>(),
            [("p0", "p1")]
        );
        insta::assert_snapshot!(mined.warnings.join("\n"), @"queries with fewer than 3 passages that are not relevant, and so with fewer negatives: 1");
    }

    #[test]
    fn a_tuple_has_all_negatives_in_one_row() {
        let judged = judgements(4, &[vec![1], vec![0, 1, 2]]);
        let mined = from_judgements(&judged, &Pool::Corpus, 2, Shape::Tuple, None, 42);
        let [row] = mined.examples.as_slice() else { panic!("{mined:?}") };
        assert_eq!((row.origin.query.as_str(), row.negatives.len()), ("q0", 2));
        insta::assert_snapshot!(mined.warnings.join("\n"), @"queries with fewer than 2 passages that are not relevant, and so without a row: 1");
        let triplets = from_judgements(&judged, &Pool::Corpus, 2, Shape::Triplet, None, 42).examples;
        let drawn: Vec<&String> = triplets[..2].iter().map(|t| &t.origin.negatives[0]).collect();
        assert_eq!(row.origin.negatives.iter().collect::<Vec<_>>(), drawn);
    }

    #[test]
    fn every_relevant_passage_makes_a_pair() {
        let mut judged = judgements(4, &[vec![1, 3], vec![], vec![0]]);
        judged.qrels.get_mut("q0").unwrap().insert("p2".into(), 0);
        let mined = pairs(&judged);
        let texts: Vec<Vec<&str>> = mined.examples.iter().map(|e| e.texts().collect()).collect();
        assert_eq!(texts, [["query 0", "T1 text 1"], ["query 0", "T3 text 3"], ["query 2", "T0 text 0"]]);
        insta::assert_snapshot!(mined.warnings.join("\n"), @"queries without a relevant passage, and so without a pair: 1");
    }

    #[test]
    fn hard_negatives_are_what_a_model_ranks_high_and_is_not_relevant() {
        let judged = judgements(5, &[vec![3], vec![0]]);
        let scores = array![[0.1, 0.5, 0.4, 0.9, 0.5], [0.9, 0.1, 0.2, 0.3, 0.4]];
        assert_eq!(hardest(&judged, scores.view(), 0..2), [vec![1, 4], vec![4, 3]]);
        assert_eq!(hardest(&judged, scores.view(), 1..9), [vec![4, 2, 0], vec![3, 2, 1]]);
        let scored = from_judgements(&judged, &Pool::Corpus, 4, Shape::Tuple, Some(scores.view()), 42).examples;
        let ids = |e: &Example| [std::slice::from_ref(&e.origin.positive), e.origin.negatives.as_slice()].concat();
        let expected = |q: usize| ids(&scored[q]).iter().map(|id| f64::from(scores[[q, id[1..].parse().unwrap()]])).collect();
        assert_eq!([&scored[0].labels, &scored[1].labels], [&expected(0), &expected(1)] as [&Vec<f64>; 2]);
        let pools = hardest(&judged, scores.view(), 0..2);
        let mined = from_judgements(&judged, &Pool::Ranked(&pools), 2, Shape::Triplet, None, 42);
        let mut negatives: Vec<&str> = mined.examples.iter().map(|t| t.origin.negatives[0].as_str()).collect();
        negatives[..2].sort_unstable();
        negatives[2..].sort_unstable();
        assert_eq!(negatives, ["p1", "p4", "p3", "p4"]);
    }
}
