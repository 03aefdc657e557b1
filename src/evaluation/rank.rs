//! Ranking passages by cosine similarity, and measuring the ranking.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::measure::{Convention, Measure, Quantity};
use super::metrics::{Evaluation, score};
use crate::artifact::{Hit, Judgements};
use crate::retrieval::dense::{normalized, top};

/// Queries whose scores are held in memory at once.
const QUERIES_AT_ONCE: usize = 16;

/// What is measured and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub measures: Vec<Measure>,
    pub convention: Convention,
    /// Hits kept a query; at least the largest cut-off.
    pub depth: usize,
}

impl Settings {
    /// The usual few figures and `chosen`.
    pub fn during_training(chosen: &Measure) -> Self {
        let mut measures =
            vec![Measure::new(Quantity::Ndcg, 10), Measure::new(Quantity::Mrr, 10), Measure::new(Quantity::Recall, 5)];
        if !measures.contains(chosen) {
            measures.push(*chosen);
        }
        Settings { depth: chosen.k.max(10), measures, convention: Convention::default() }
    }
}

/// Ranks the corpus for each query by cosine similarity and measures the ranking. `queries` `[queries, dimensions]` and
/// `passages` `[corpus, dimensions]` are in the order of `judgements`.
///
/// # Errors
/// The matrices do not belong to the judgements.
pub fn evaluate(
    judgements: &Judgements,
    queries: ArrayView2<f32>,
    passages: ArrayView2<f32>,
    settings: &Settings,
) -> Result<Evaluation> {
    ensure!(
        queries.nrows() == judgements.queries.len() && passages.nrows() == judgements.corpus.len(),
        "{} and {} vectors for {} queries and {} passages",
        queries.nrows(),
        passages.nrows(),
        judgements.queries.len(),
        judgements.corpus.len()
    );
    ensure!(queries.ncols() == passages.ncols(), "vectors of length {} and {}", queries.ncols(), passages.ncols());
    let (queries, passages) = (normalized(queries), normalized(passages));
    let ids: Vec<&str> = judgements.corpus.iter().map(|p| p.id.as_str()).collect();
    let depth = settings.measures.iter().map(|m| m.k).max().unwrap_or(0).max(settings.depth);
    let blocks: Vec<(usize, Array2<f32>)> = queries
        .axis_chunks_iter(Axis(0), QUERIES_AT_ONCE)
        .enumerate()
        .map(|(i, b)| (i * QUERIES_AT_ONCE, b.to_owned()))
        .collect();
    let ranked: Vec<Vec<(String, Vec<Hit>)>> = blocks
        .par_iter()
        .map(|(start, block)| {
            let scores = block.dot(&passages.t());
            let hits = |row: ndarray::ArrayView1<f32>| top(&row.to_vec(), &ids, depth, settings.convention == Convention::Trec);
            scores.rows().into_iter().enumerate().map(|(i, row)| (judgements.queries[start + i].id.clone(), hits(row))).collect()
        })
        .collect();
    let ranking: BTreeMap<String, Vec<Hit>> = ranked.into_iter().flatten().collect();
    Ok(score(&judgements.qrels, ranking, &settings.measures, settings.convention))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Passage, Query};
    use ndarray::array;

    #[test]
    fn ranks_by_cosine_and_measures() {
        let passage = |id: &str| Passage { id: id.into(), title: String::new(), text: String::new() };
        let judgements = Judgements {
            corpus: vec![passage("a"), passage("b"), passage("c")],
            queries: vec![Query { id: "q".into(), text: String::new() }],
            qrels: [("q".into(), [("b".into(), 1)].into())].into(),
        };
        // The length of a vector does not matter.
        let passages = array![[10.0, 1.0], [0.1, 0.1], [-1.0, 0.0]];
        let settings = Settings::during_training(&"recall@1".parse().unwrap());
        let result = evaluate(&judgements, array![[1.0f32, 0.9]].view(), passages.view(), &settings).unwrap();
        let ids: Vec<&str> = result.ranking["q"].iter().map(|h| h.passage.as_str()).collect();
        assert_eq!(ids, ["b", "a", "c"]);
        assert_eq!((result.means["ndcg@10"], result.means["recall@1"]), (1.0, 1.0));
        assert!(evaluate(&judgements, array![[1.0f32, 0.9], [1.0, 1.0]].view(), passages.view(), &settings).is_err());
    }
}
