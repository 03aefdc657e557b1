//! The queries that moved most between two runs, from the artifacts in their directories.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::Serialize;

use super::diff::{self, Compared, measured};
use super::record::StageRecord;
use crate::artifact::{Hit, Judgements, Kind, Metrics, Ranking, ranking};
use crate::pipeline::words::did_you_mean;

/// What is preferred when no metric is named.
const USUAL: &str = "ndcg@10";

/// How the queries of one stage moved between two runs by one metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MovedQueries {
    pub from: String,
    pub to: String,
    /// The stage that measured in both runs.
    pub stage: String,
    pub metric: String,
    /// Other stages in which queries moved by this metric.
    pub also: Vec<String>,
    pub better: usize,
    pub same: usize,
    pub worse: usize,
    /// Those that moved most, first.
    pub queries: Vec<MovedQuery>,
}

/// A query in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MovedQuery {
    pub id: String,
    /// Where a run still has its judgements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub from: f64,
    pub to: f64,
    pub difference: f64,
    /// Where the first relevant passage stands in the ranking, from 1; absent where none is in it or the judgements are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_rank: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_rank: Option<usize>,
    /// Best first.
    pub from_hits: Vec<TopHit>,
    pub to_hits: Vec<TopHit>,
}

/// A passage that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopHit {
    pub passage: String,
    pub score: f32,
    /// Whether it is judged relevant, and its text, where the run still has its judgements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relevant: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// There is nothing to compare the queries by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueriesError {
    #[error("no stage of `{from}` and `{to}` measured the same queries in the same way, so none can have moved")]
    NoFigures { from: String, to: String },
    #[error("`{from}` and `{to}` have no `{metric}` of the same queries: {help}")]
    NoMetric { from: String, to: String, metric: String, help: String },
}

/// A stage that measured the same queries in both runs.
struct Measured<'a> {
    stage: &'a str,
    before: Metrics,
    after: Metrics,
}

impl MovedQueries {
    /// The `most` queries that moved most by the metric `by`, which may name its stage too; without the stage, that in which most queries
    /// moved. Each has at most `hits` hits of both runs.
    ///
    /// # Errors
    /// The runs have no such metric of the same queries.
    pub fn between(from: &Compared, to: &Compared, by: Option<&str>, most: usize, hits: usize) -> Result<Self, QueriesError> {
        let (a, b) = (from.record.id.clone(), to.record.id.clone());
        let mut after: HashMap<&str, Metrics> = measured(to).collect();
        let both: Vec<Measured> =
            measured(from).filter_map(|(stage, before)| Some(Measured { stage, before, after: after.remove(stage)? })).collect();
        let (stage, metric, also) = chosen(&both, by, &a, &b)?;
        let changes = stage.changes(&metric);
        let count = |test: fn(f64) -> bool| changes.iter().filter(|(_, a, b)| test(b - a)).count();
        let (better, same, worse) = (count(|d| d > 0.0), count(|d| d == 0.0), count(|d| d < 0.0));
        let mut moved: Vec<_> = changes.into_iter().filter(|(_, a, b)| a != b).collect();
        // Of the same size, losses first: they are what one looks for.
        moved.sort_by(|(x, a, b), (y, c, d)| {
            let (this, that) = (b - a, d - c);
            that.abs().total_cmp(&this.abs()).then(this.total_cmp(&that)).then(x.cmp(y))
        });
        let (found_from, found_to) = (Findings::of(from, stage.stage), Findings::of(to, stage.stage));
        let query = |(id, from, to): (&String, f64, f64)| MovedQuery {
            id: id.clone(),
            text: found_to.query(id).or_else(|| found_from.query(id)).map(str::to_owned),
            from,
            to,
            difference: to - from,
            from_rank: found_from.first_relevant(id),
            to_rank: found_to.first_relevant(id),
            from_hits: found_from.hits(id, hits),
            to_hits: found_to.hits(id, hits),
        };
        let queries = moved.into_iter().take(most).map(query).collect();
        Ok(MovedQueries { from: a, to: b, stage: stage.stage.to_owned(), metric, also, better, same, worse, queries })
    }
}

/// The stage and metric that are meant, and the other stages that moved.
fn chosen<'m>(
    both: &'m [Measured],
    by: Option<&str>,
    from: &str,
    to: &str,
) -> Result<(&'m Measured<'m>, String, Vec<String>), QueriesError> {
    let names: Vec<(usize, String)> = both.iter().enumerate().flat_map(|(i, m)| m.metrics().map(move |name| (i, name))).collect();
    let Some((_, first)) = names.first() else {
        return Err(QueriesError::NoFigures { from: from.to_owned(), to: to.to_owned() });
    };
    let usual = if names.iter().any(|(_, name)| name == USUAL) { USUAL } else { first };
    let by = by.unwrap_or(usual);
    let full = |index: usize, name: &str| both.get(index).map(|m| format!("{}.{name}", m.stage)).unwrap_or_default();
    let exact: Vec<&(usize, String)> = names.iter().filter(|(index, name)| full(*index, name) == by).collect();
    let meant = if exact.is_empty() { names.iter().filter(|(_, name)| name == by).collect() } else { exact };
    let candidates: Vec<(&Measured, &String, usize)> =
        meant.into_iter().filter_map(|(index, name)| both.get(*index).map(|m| (m, name, m.moved(name)))).collect();
    // The first of those with most.
    let best = candidates.iter().rev().max_by_key(|(_, _, moved)| *moved);
    let Some((stage, metric, _)) = best else {
        let mut words: Vec<String> = names.iter().flat_map(|(index, name)| [name.clone(), full(*index, name)]).collect();
        words.sort_by_key(|word| (word.contains('.'), word.clone()));
        words.dedup();
        let help = did_you_mean(by, "metrics of every query", &words.iter().map(String::as_str).collect::<Vec<_>>());
        return Err(QueriesError::NoMetric { from: from.to_owned(), to: to.to_owned(), metric: by.to_owned(), help });
    };
    let others = candidates.iter().filter(|(other, _, moved)| *moved > 0 && other.stage != stage.stage);
    Ok((stage, (*metric).clone(), others.map(|(other, ..)| other.stage.to_owned()).collect()))
}

impl Measured<'_> {
    /// The metrics that every query has in both runs.
    fn metrics(&self) -> impl Iterator<Item = String> {
        let names = self.before.per_query.values().next().map(BTreeMap::keys).into_iter().flatten();
        names.filter(|name| self.before.paired(&self.after, name).is_some()).cloned()
    }

    /// Query, value before and value after.
    fn changes(&self, metric: &str) -> Vec<(&String, f64, f64)> {
        let pairs = self.before.paired(&self.after, metric).unwrap_or_default();
        self.before.per_query.keys().zip(pairs).map(|(query, (a, b))| (query, a, b)).collect()
    }

    fn moved(&self, metric: &str) -> usize {
        self.changes(metric).iter().filter(|(_, a, b)| a != b).count()
    }
}

/// What a run found for its queries. What is no longer in its directory is left out.
struct Findings {
    ranking: Ranking,
    judgements: Option<Judgements>,
    /// The passages by their ids as rankings write them.
    passages: HashMap<String, usize>,
}

impl Findings {
    fn of(run: &Compared, stage: &str) -> Self {
        let record = run.record.stages.get(stage);
        let ranking = record.and_then(|record| output(run, record, Kind::Ranking)).and_then(|path| Ranking::read(&path).ok());
        let judgements = record.and_then(|record| judgements(run, record)).and_then(|path| Judgements::read(&path, "test").ok());
        let corpus = judgements.iter().flat_map(|j| &j.corpus).enumerate();
        let passages = corpus.map(|(index, passage)| (ranking::field(&passage.id), index)).collect();
        Findings { ranking: ranking.unwrap_or_default(), judgements, passages }
    }

    fn query(&self, id: &str) -> Option<&str> {
        self.judgements.as_ref()?.queries.iter().find(|query| query.id == id).map(|query| query.text.as_str())
    }

    fn ranked(&self, query: &str) -> &[Hit] {
        self.ranking.0.get(&ranking::field(query)).map(Vec::as_slice).unwrap_or_default()
    }

    fn hits(&self, query: &str, most: usize) -> Vec<TopHit> {
        self.ranked(query).iter().take(most).map(|hit| self.hit(query, hit)).collect()
    }

    fn first_relevant(&self, query: &str) -> Option<usize> {
        let grades = self.judgements.as_ref()?.qrels.get(query)?;
        let relevant: Vec<String> = grades.iter().filter(|(_, grade)| **grade > 0).map(|(id, _)| ranking::field(id)).collect();
        Some(self.ranked(query).iter().position(|hit| relevant.contains(&hit.passage))? + 1)
    }

    fn hit(&self, query: &str, hit: &Hit) -> TopHit {
        let judged = self.judgements.as_ref();
        let passage = judged.and_then(|j| j.corpus.get(*self.passages.get(&hit.passage)?));
        let relevant = judged.zip(passage).map(|(judged, passage)| {
            judged.qrels.get(query).and_then(|grades| grades.get(&passage.id)).is_some_and(|grade| *grade > 0)
        });
        TopHit {
            passage: passage.map_or_else(|| hit.passage.clone(), |passage| passage.id.clone()),
            score: hit.score,
            relevant,
            text: passage.map(|passage| passage.text.clone()),
        }
    }
}

/// Where the stage's output of a kind lies.
fn output(run: &Compared, stage: &StageRecord, kind: Kind) -> Option<PathBuf> {
    let port = diff::output(&stage.uses, stage.fingerprint.as_ref().map(|f| &f.parameters), kind)?;
    Some(run.folder.join(stage.paths.get(&port)?))
}

/// Where the judgements lie that the stage measured with: those whose digest went into it.
fn judgements(run: &Compared, stage: &StageRecord) -> Option<PathBuf> {
    let inputs = &stage.fingerprint.as_ref()?.inputs;
    run.record.stages.values().find_map(|stage| {
        let port = diff::output(&stage.uses, stage.fingerprint.as_ref().map(|f| &f.parameters), Kind::Judgements)?;
        let digest = &stage.outputs.get(&port)?.digest;
        inputs.values().any(|input| input == digest).then(|| Some(run.folder.join(stage.paths.get(&port)?)))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Passage, Query};
    use crate::run::RunRecord;
    use serde_json::json;
    use std::fs;

    /// A run whose stages `before` and `after` have these values of the queries `a`, `b`, `c`; the query's own passage is the first hit of a
    /// query with a value above 0.5.
    fn run(folder: &std::path::Path, id: &str, before: [f64; 3], after: [f64; 3]) -> Compared {
        let folder = folder.join(id);
        let queries = ["a", "b", "c"];
        let write = |stage: &str, values: [f64; 3]| {
            let folder = folder.join("artifacts").join(stage);
            let per_query = queries
                .iter()
                .zip(values)
                .map(|(q, v)| ((*q).to_owned(), [("ndcg@10".to_owned(), v), ("accuracy@1".to_owned(), 1.0)].into()));
            let metrics = Metrics { convention: "trec".into(), per_query: per_query.collect(), ..Metrics::default() };
            metrics.write(&folder.join("metrics"), &["ndcg@10".to_owned()]).unwrap();
            let hits = |query: &str, value: f64| {
                let order =
                    if value > 0.5 { [format!("own {query}"), "other".into()] } else { ["other".into(), format!("own {query}")] };
                order.map(|passage| Hit { passage, score: 0.5 }).to_vec()
            };
            let ranking = Ranking(queries.iter().zip(values).map(|(q, v)| ((*q).to_owned(), hits(q, v))).collect());
            ranking.write(&folder.join("ranking.trec"), "t").unwrap();
        };
        fs::create_dir_all(folder.join("artifacts/judged")).unwrap();
        write("before", before);
        write("after", after);
        let own =
            queries.iter().map(|q| Passage { id: format!("own {q}"), title: String::new(), text: format!("The answer to {q}.") });
        let judgements = Judgements {
            corpus: own.chain([Passage { id: "other".into(), title: String::new(), text: "Something else.".into() }]).collect(),
            queries: queries.iter().map(|q| Query { id: (*q).to_owned(), text: format!("what is {q}?") }).collect(),
            qrels: queries.iter().map(|q| ((*q).to_owned(), [(format!("own {q}"), 1), ("other".to_owned(), 0)].into())).collect(),
        };
        judgements.write(&folder.join("artifacts/judged/judgements")).unwrap();
        let digest = "a".repeat(64);
        let evaluate = |stage: &str| {
            json!({ "uses": "evaluate", "status": "done",
                "fingerprint": { "kind": "evaluate", "version": 1, "parameters": {}, "inputs": { "judgements": digest }, "externals": [] },
                "paths": { "metrics": format!("artifacts/{stage}/metrics"), "ranking": format!("artifacts/{stage}/ranking.trec") } })
        };
        let record: RunRecord = serde_json::from_value(json!({
            "format": 1, "id": id, "pipeline": "t", "file": "t.yaml", "status": "done", "started": "2026-11-25T00:00:00Z",
            "environment": { "retune": "", "onnx_runtime": "", "host": { "name": "", "os": "", "architecture": "", "processor": "", "cores": 1 } },
            "stages": {
                "judged": { "uses": "judge", "status": "done", "paths": { "judgements": "artifacts/judged/judgements" },
                    "outputs": { "judgements": { "digest": digest, "shape": "folder", "size": 1 } } },
                "before": evaluate("before"),
                "after": evaluate("after"),
            }
        }))
        .unwrap();
        Compared { record, folder }
    }

    #[test]
    fn queries_by_how_far_they_moved_with_their_hits() {
        let folder = tempfile::tempdir().unwrap();
        let one = run(folder.path(), "one", [0.3, 0.4, 0.5], [0.2, 0.9, 0.4]);
        let two = run(folder.path(), "two", [0.3, 0.4, 0.5], [0.7, 0.4, 0.4]);
        let moved = MovedQueries::between(&one, &two, None, 10, 1).unwrap();
        assert_eq!((moved.stage.as_str(), moved.metric.as_str(), moved.also.len()), ("after", "ndcg@10", 0));
        assert_eq!((moved.better, moved.same, moved.worse), (1, 1, 1));
        // Both moved by 0.5, up to the last digit; the loss comes first.
        let found = |q: &MovedQuery| {
            let hit =
                |hits: &[TopHit]| hits.iter().map(|h| format!("{} {:?} {:?}", h.passage, h.relevant, h.text)).collect::<String>();
            let ranks = (q.from_rank, q.to_rank);
            format!("{} {:?} {:+.1} {ranks:?}: {} | {}", q.id, q.text, q.difference, hit(&q.from_hits), hit(&q.to_hits))
        };
        insta::assert_snapshot!(moved.queries.iter().map(found).collect::<Vec<_>>().join("\n"), @r#"
        b Some("what is b?") -0.5 (Some(1), Some(2)): own b Some(true) Some("The answer to b.") | other Some(false) Some("Something else.")
        a Some("what is a?") +0.5 (Some(2), Some(1)): other Some(false) Some("Something else.") | own a Some(true) Some("The answer to a.")
        "#);
        let one_query = MovedQueries::between(&one, &two, Some("after.ndcg@10"), 1, 2).unwrap();
        assert_eq!((one_query.queries.len(), one_query.queries[0].to_hits.len()), (1, 2));
        let still = MovedQueries::between(&one, &two, Some("before.ndcg@10"), 10, 1).unwrap();
        assert_eq!((still.same, still.queries.len()), (3, 0));
        // Without the artifacts of one run, the other's say the text, and there are fewer hits.
        fs::remove_dir_all(two.folder.join("artifacts/judged")).unwrap();
        fs::remove_file(two.folder.join("artifacts/after/ranking.trec")).unwrap();
        let fewer = MovedQueries::between(&one, &two, None, 10, 1).unwrap();
        assert_eq!(fewer.queries[0].text.as_deref(), Some("what is b?"));
        assert!(fewer.queries[0].to_hits.is_empty());
    }

    #[test]
    fn a_metric_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let one = run(folder.path(), "one", [0.3, 0.4, 0.5], [0.2, 0.9, 0.4]);
        let two = run(folder.path(), "two", [0.3, 0.4, 0.6], [0.7, 0.4, 0.4]);
        assert_eq!(MovedQueries::between(&one, &two, None, 10, 1).unwrap().also, ["before"]);
        let error = |by: &str| MovedQueries::between(&one, &two, Some(by), 10, 1).unwrap_err().to_string();
        insta::assert_snapshot!(error("ndgc@10"), @"`one` and `two` have no `ndgc@10` of the same queries: did you mean `ndcg@10`?");
        insta::assert_snapshot!(error("loss"), @"`one` and `two` have no `loss` of the same queries: the metrics of every query are `accuracy@1`, `ndcg@10`, `after.accuracy@1`, `after.ndcg@10`, `before.accuracy@1` and `before.ndcg@10`");
        fs::remove_dir_all(two.folder.join("artifacts")).unwrap();
        let error = MovedQueries::between(&one, &two, None, 10, 1).unwrap_err();
        insta::assert_snapshot!(error, @"no stage of `one` and `two` measured the same queries in the same way, so none can have moved");
    }
}
