//! The stage `retrieve`: sets what two models find for the same queries side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::externals::{computation, embedder};
use super::prompts;
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Hit, Judgements, Kind, Passage, Query, Retrieved, RetrievedPassage, Side, jsonl};
use crate::model::prompts::OtherPrompts;
use crate::report::markdown::{inline, one_line, shorten};
use crate::retrieval::search::search;
use crate::runtime::device::Choice;
use crate::runtime::precision::Precision;

pub const KIND: StageKind = StageKind {
    name: "retrieve",
    version: 3,
    summary: "sets what two models find for the same queries side by side",
    inputs: &[
        Port { name: "baseline", kind: Kind::Model, required: true, many: false, doc: "the baseline" },
        Port { name: "tuned", kind: Kind::Model, required: true, many: false, doc: "the fine-tuned model" },
        Port {
            name: "judgements",
            kind: Kind::Judgements,
            required: true,
            many: false,
            doc: "the corpus, and the queries unless `queries` names some",
        },
    ],
    outputs: &[
        OutputPort {
            name: "retrieved",
            kind: Kind::Retrieved,
            file: "retrieved.jsonl",
            doc: "the passages that each model finds for each query",
        },
        OutputPort { name: "side_by_side", kind: Kind::File, file: "retrieved.md", doc: "the same as Markdown, to read" },
    ],
    declared: None,
    unkeyed: &["device"],
    schema: schema::<Retrieve>,
    configure: configure::<Retrieve>,
};

/// Finds the passages nearest to each query, by cosine similarity, under two models, and sets them side by side.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retrieve {
    /// The queries, as texts; without them, the judged queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<Vec<String>>,
    /// Passages a query.
    pub top_k: usize,
    /// Characters of a passage that are shown in the Markdown; the JSON Lines hold the whole text.
    pub characters: usize,
    /// How exactly matrix products are computed when texts are encoded: with `fp32`, rankings are those of sentence-transformers to the last
    /// digit printed; `bf16` is several times as fast on processors with fast instructions for it (AMX, AVX-512 BF16 of AMD), and `auto` takes it there.
    pub precision: Precision,
    /// Where the models run: `auto` (the first GPU where CUDA can be had, else the processor), `cpu`, `cuda`, `cuda:1`.
    pub device: Choice,
    /// Prompts in the place of the models' own: `{ query: "query: ", document: "passage: " }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<OtherPrompts>,
}

impl Default for Retrieve {
    fn default() -> Self {
        Retrieve {
            queries: None,
            top_k: 3,
            characters: 200,
            precision: Precision::Fp32,
            device: Choice::default(),
            prompts: None,
        }
    }
}

impl Stage for Retrieve {
    fn check(&self) -> Result<(), ParameterError> {
        if let Some(queries) = &self.queries {
            if queries.is_empty() {
                return Err(ParameterError::new(
                    "queries",
                    "the list is empty; name a query, or leave `queries` out to use the judged ones",
                ));
            }
            if let Some(i) = queries.iter().position(|q| q.trim().is_empty()) {
                return Err(ParameterError::new(format!("queries[{i}]"), "the query is empty; write what to search for"));
            }
        }
        for (field, value) in [("top_k", self.top_k), ("characters", self.characters)] {
            if value == 0 {
                return Err(ParameterError::new(field, "it must be at least 1"));
            }
        }
        prompts::check(self.prompts.as_ref())
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        computation(surroundings, self.precision, self.device)
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let judgements = Judgements::read(context.input("judgements")?, "test")?;
        ensure!(!judgements.corpus.is_empty(), "the corpus has no passage, so nothing can be found");
        let queries = self.queries(&judgements);
        ensure!(!queries.is_empty(), "no query is judged; give `queries`");
        let baseline = self.found(Side::Baseline, &queries, &judgements.corpus, context)?;
        let tuned = self.found(Side::FineTuned, &queries, &judgements.corpus, context)?;
        let moved = baseline.iter().zip(&tuned).filter(|(a, b)| first(a) != first(b)).count();
        let text = markdown(&baseline, &tuned, self.characters)?;
        jsonl::write(context.output("retrieved")?, baseline.iter().zip(&tuned).flat_map(|(a, b)| [a, b]))?;
        let path = context.output("side_by_side")?;
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(Outcome {
            summary: format!("{} queries, top {}; {moved} with a different first passage", queries.len(), self.top_k),
            ..Outcome::default()
        })
    }
}

impl Retrieve {
    fn queries(&self, judgements: &Judgements) -> Vec<Query> {
        match &self.queries {
            Some(texts) => (1..).zip(texts).map(|(n, text)| Query { id: format!("q{n}"), text: text.clone() }).collect(),
            None => judgements.queries.clone(),
        }
    }

    /// What one model finds, a row a query.
    fn found(&self, model: Side, queries: &[Query], corpus: &[Passage], context: &Context) -> Result<Vec<Retrieved>> {
        let folder = context.input(model.port())?;
        let embedder = embedder(context, folder, self.precision, self.device)?.prompted(self.prompts.as_ref());
        let texts: Vec<String> = queries.iter().map(|q| q.text.clone()).collect();
        let total = (corpus.len() + queries.len()) as u64;
        let progress = |n: usize| context.progress(n as u64, total, "texts", format!("encoding with the {} model", model.name()));
        let hits = search(&embedder, corpus, &texts, self.top_k, context.cancel, &progress)?;
        let by_id: BTreeMap<&str, &Passage> = corpus.iter().map(|p| (p.id.as_str(), p)).collect();
        let passage = |id: &str, score: f32| {
            let passage = by_id.get(id)?;
            Some(RetrievedPassage { passage: id.to_owned(), title: passage.title.clone(), text: passage.text.clone(), score })
        };
        let row = |(query, hits): (&Query, Vec<Hit>)| Retrieved {
            query_id: query.id.clone(),
            query: query.text.clone(),
            model,
            hits: hits.iter().filter_map(|hit| passage(&hit.passage, hit.score)).collect(),
        };
        Ok(queries.iter().zip(hits).map(row).collect())
    }
}

fn first(row: &Retrieved) -> Option<&str> {
    row.hits.first().map(|hit| hit.passage.as_str())
}

/// A table a query: rank, and id, score and beginning of the passage under either model.
fn markdown(baseline: &[Retrieved], tuned: &[Retrieved], characters: usize) -> Result<String> {
    let mut text = String::from("# Retrieved passages\n");
    for (number, (before, after)) in (1..).zip(baseline.iter().zip(tuned)) {
        write!(text, "\n## {number}. {}\n\n", inline(&before.query))?;
        text += "| rank | baseline | score | passage | fine-tuned | score | passage |\n|--:|:--|--:|:--|:--|--:|:--|\n";
        for rank in 0..before.hits.len().max(after.hits.len()) {
            let (left, right) = (cells(before.hits.get(rank), characters), cells(after.hits.get(rank), characters));
            writeln!(text, "| {} | {left} | {right} |", rank + 1)?;
        }
    }
    Ok(text)
}

fn cells(hit: Option<&RetrievedPassage>, characters: usize) -> String {
    hit.map_or_else(
        || " | | ".into(),
        |hit| format!("{} | {:.4} | {}", inline(&hit.passage), hit.score, inline(&shorten(&one_line(&hit.text), characters))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::minilm;
    use crate::stage::testing::Bench;
    use serde_json::json;

    #[test]
    fn both_models_stand_side_by_side() {
        let bench = Bench::new();
        let passage = |id: &str, text: &str| Passage { id: id.into(), title: String::new(), text: text.into() };
        let judgements = Judgements {
            corpus: vec![
                passage("cats.md:0", "A cat sleeps | most\nof the day."),
                passage("db.md:0", "An index makes a query faster."),
                passage("db.md:1", "An index makes a query faster."),
            ],
            queries: vec![Query { id: "7".into(), text: "How do I speed up a query?".into() }],
            qrels: [("7".into(), [("db.md:0".into(), 1)].into())].into(),
        };
        let folder = bench.folder.path().join("judged");
        judgements.write(&folder).unwrap();
        let inputs = [("baseline", minilm()), ("tuned", minilm()), ("judgements", folder)];
        let outcome = bench.run(&KIND, json!({ "characters": 20 }), &inputs).unwrap();
        assert_eq!(outcome.summary, "1 queries, top 3; 0 with a different first passage");
        insta::assert_snapshot!(bench.read("retrieved.md"), @r"
        # Retrieved passages

        ## 1. How do I speed up a query?

        | rank | baseline | score | passage | fine-tuned | score | passage |
        |--:|:--|--:|:--|:--|--:|:--|
        | 1 | db.md:1 | 0.6037 | An index makes a que… | db.md:1 | 0.6037 | An index makes a que… |
        | 2 | db.md:0 | 0.6037 | An index makes a que… | db.md:0 | 0.6037 | An index makes a que… |
        | 3 | cats.md:0 | 0.0190 | A cat sleeps \| most… | cats.md:0 | 0.0190 | A cat sleeps \| most… |
        ");
        let rows: Vec<Retrieved> = jsonl::read(&bench.folder.path().join("retrieved.jsonl")).unwrap();
        assert_eq!(rows.iter().map(|r| r.model).collect::<Vec<_>>(), Side::BOTH);
        // Of equal scores the greater id comes first, and the text is whole.
        assert_eq!(rows[1].hits.iter().map(|h| h.passage.as_str()).collect::<Vec<_>>(), ["db.md:1", "db.md:0", "cats.md:0"]);
        assert_eq!((rows[0].query_id.as_str(), rows[0].hits[2].text.as_str()), ("7", "A cat sleeps | most\nof the day."));
        let outcome = bench.run(&KIND, json!({ "queries": ["a pet?", "a database?"], "top_k": 1 }), &inputs).unwrap();
        assert_eq!(outcome.summary, "2 queries, top 1; 0 with a different first passage");
        assert!(
            bench
                .read("retrieved.jsonl")
                .starts_with(r#"{"query_id":"q1","query":"a pet?","model":"baseline","hits":[{"passage":"cats.md:0""#)
        );
    }
}
