//! The measures of one ranking.

use std::collections::BTreeMap;

use super::measure::{Convention, Measure, Quantity};
use crate::artifact::Hit;

/// The figures of a ranking.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    pub measures: Vec<Measure>,
    /// Measure → mean over the queries.
    pub means: BTreeMap<String, f64>,
    /// Query id → the measures' values in their order.
    pub per_query: BTreeMap<String, Vec<f64>>,
    /// Queries that were left out of the means for want of relevant passages.
    pub left_out: Vec<String>,
    /// Query id → hits, best first.
    pub ranking: BTreeMap<String, Vec<Hit>>,
}

/// Brings hits into the convention's order: by score, descending, as 32-bit floats; equal ones by id.
pub(super) fn sort(hits: &mut [Hit], convention: Convention) {
    hits.sort_by(|a, b| {
        b.score.total_cmp(&a.score).then_with(|| match convention {
            Convention::Trec => b.passage.cmp(&a.passage),
            Convention::SentenceTransformers => a.passage.cmp(&b.passage),
        })
    });
}

/// Measures hits of each query against grades of relevance (query → passage → grade; above 0 is relevant). Queries of `ranking`
/// that are not judged do not count.
pub fn score(
    qrels: &BTreeMap<String, BTreeMap<String, i32>>,
    mut ranking: BTreeMap<String, Vec<Hit>>,
    measures: &[Measure],
    convention: Convention,
) -> Evaluation {
    let (mut per_query, mut left_out) = (BTreeMap::new(), Vec::new());
    for (query, hits) in &mut ranking {
        sort(hits, convention);
        let Some(grades) = qrels.get(query) else { continue };
        if convention == Convention::SentenceTransformers && grades.values().all(|&g| g <= 0) {
            left_out.push(query.clone());
            continue;
        }
        let judged = Judged::new(hits, grades, convention);
        per_query.insert(query.clone(), measures.iter().map(|m| judged.value(*m)).collect::<Vec<f64>>());
    }
    let mean = |i: usize| per_query.values().map(|v: &Vec<f64>| v[i]).sum::<f64>() / (per_query.len().max(1) as f64);
    let means = measures.iter().enumerate().map(|(i, m)| (m.to_string(), mean(i))).collect();
    Evaluation { measures: measures.to_vec(), means, per_query, left_out, ranking }
}

/// One query's hits with what is known about them.
struct Judged {
    /// The gain of each hit, best hit first; 0 for what is not relevant.
    gains: Vec<f64>,
    /// The gains of all relevant passages, largest first.
    ideal: Vec<f64>,
    convention: Convention,
}

impl Judged {
    fn new(hits: &[Hit], grades: &BTreeMap<String, i32>, convention: Convention) -> Self {
        let gain = |grade: i32| match convention {
            _ if grade <= 0 => 0.0,
            Convention::Trec => f64::from(grade),
            Convention::SentenceTransformers => 1.0,
        };
        let mut ideal: Vec<f64> = grades.values().map(|&g| gain(g)).filter(|&g| g > 0.0).collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        let gains = hits.iter().map(|h| grades.get(&h.passage).map_or(0.0, |&g| gain(g))).collect();
        Judged { gains, ideal, convention }
    }

    fn value(&self, measure: Measure) -> f64 {
        let k = measure.k;
        let top = &self.gains[..k.min(self.gains.len())];
        let hits = top.iter().filter(|&&g| g > 0.0).count() as f64;
        let relevant = self.ideal.len() as f64;
        match measure.quantity {
            Quantity::Accuracy => f64::from(hits > 0.0),
            Quantity::Precision => hits / k as f64,
            Quantity::Recall => ratio(hits, relevant),
            Quantity::Mrr => top.iter().position(|&g| g > 0.0).map_or(0.0, |rank| 1.0 / (rank + 1) as f64),
            Quantity::Ndcg => ratio(discounted(top), discounted(&self.ideal[..k.min(self.ideal.len())])),
            Quantity::Map => {
                let possible = match self.convention {
                    Convention::Trec => relevant,
                    Convention::SentenceTransformers => relevant.min(k as f64),
                };
                ratio(precisions(top), possible)
            }
        }
    }
}

/// The sum of the precisions at the relevant hits.
fn precisions(gains: &[f64]) -> f64 {
    let (mut seen, mut sum) = (0.0, 0.0);
    for (rank, gain) in gains.iter().enumerate() {
        if *gain > 0.0 {
            seen += 1.0;
            sum += seen / (rank + 1) as f64;
        }
    }
    sum
}

/// Σ gain / log2(rank + 1), ranks from 1 (Järvelin and Kekäläinen, 2002).
fn discounted(gains: &[f64]) -> f64 {
    gains.iter().enumerate().map(|(i, gain)| gain / ((i + 2) as f64).log2()).sum()
}

/// 0 when there is nothing to divide by.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Reference {
        qrels: BTreeMap<String, BTreeMap<String, i32>>,
        run: BTreeMap<String, BTreeMap<String, f64>>,
        per_query: BTreeMap<String, BTreeMap<String, f64>>,
    }

    fn ranking(run: &BTreeMap<String, BTreeMap<String, f64>>) -> BTreeMap<String, Vec<Hit>> {
        let hits = |h: &BTreeMap<String, f64>| h.iter().map(|(p, s)| Hit { passage: p.clone(), score: *s as f32 }).collect();
        run.iter().map(|(q, h)| (q.clone(), hits(h))).collect()
    }

    #[test]
    fn figures_are_those_of_trec_eval() {
        let reference: Reference = serde_json::from_str(include_str!("../../tests/fixtures/metrics.json")).unwrap();
        // trec_eval's reciprocal rank and average precision have no cut-off; 1000 is beyond every ranking here.
        let names =
            [("ndcg_cut_", "ndcg"), ("map_cut_", "map"), ("recall_", "recall"), ("P_", "precision"), ("success_", "accuracy")];
        let ours = |name: &str| match name {
            "map" => Some("map@1000".to_owned()),
            "recip_rank" => Some("mrr@1000".to_owned()),
            _ => names.iter().find_map(|(theirs, ours)| Some(format!("{ours}@{}", name.strip_prefix(theirs)?))),
        };
        let mut compared = 0;
        for (query, expected) in &reference.per_query {
            for (name, value) in expected {
                let Some(measure) = ours(name).map(|m| m.parse().unwrap()) else { continue };
                let found = score(&reference.qrels, ranking(&reference.run), &[measure], Convention::Trec);
                let found = found.per_query[query][0];
                assert!((found - value).abs() < 1e-6, "{query} {name}: {found} instead of {value}");
                compared += 1;
            }
        }
        assert_eq!(compared, reference.per_query.len() * 20);
        let all = score(&reference.qrels, ranking(&reference.run), &[Measure::default()], Convention::Trec);
        assert_eq!(all.per_query.len(), reference.per_query.len());
    }

    fn one(hits: &[(&str, f32)], grades: &[(&str, i32)], measure: &str, convention: Convention) -> Evaluation {
        let hits = hits.iter().map(|(p, s)| Hit { passage: (*p).into(), score: *s }).collect();
        let grades = grades.iter().map(|(p, g)| ((*p).into(), *g)).collect();
        score(&[("q".into(), grades)].into(), [("q".into(), hits)].into(), &[measure.parse().unwrap()], convention)
    }

    #[test]
    fn ties_and_average_precision_depend_on_the_convention() {
        let (trec, st) = (Convention::Trec, Convention::SentenceTransformers);
        let tied = [("a", 0.5), ("b", 0.5)];
        assert_eq!(one(&tied, &[("a", 1)], "mrr@10", trec).means["mrr@10"], 0.5);
        assert_eq!(one(&tied, &[("a", 1)], "mrr@10", st).means["mrr@10"], 1.0);
        let grades = [("a", 1), ("b", 1), ("c", 1)];
        let hits = [("a", 0.9), ("b", 0.8)];
        assert_eq!(one(&hits, &grades, "map@2", trec).means["map@2"], 2.0 / 3.0);
        assert_eq!(one(&hits, &grades, "map@2", st).means["map@2"], 1.0);
    }

    #[test]
    fn a_query_without_relevant_passages() {
        let trec = one(&[("a", 0.5)], &[("a", 0)], "ndcg@10", Convention::Trec);
        assert_eq!((trec.means["ndcg@10"], trec.left_out.len()), (0.0, 0));
        let st = one(&[("a", 0.5)], &[("a", 0)], "ndcg@10", Convention::SentenceTransformers);
        assert_eq!((st.per_query.len(), st.left_out.len()), (0, 1));
    }
}
