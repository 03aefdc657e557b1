//! The stage `mine`: makes training triplets.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use ndarray::Array2;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::externals::{computation, embedder, file};
use super::prompts;
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Chunk, Judgements, Kind, jsonl};
use crate::model::prompts::OtherPrompts;
use crate::retrieval::dense::normalized;
use crate::retrieval::mine::{Mined, Pool, Shape, by_rules, from_judgements, hardest, read};
use crate::retrieval::search::encode;
use crate::runtime::device::Choice;
use crate::runtime::precision::Precision;

pub const KIND: StageKind = StageKind {
    name: "mine",
    version: 3,
    summary: "makes training triplets",
    inputs: &[
        Port { name: "chunks", kind: Kind::Chunks, required: false, many: false, doc: "the corpus for keyword rules" },
        Port {
            name: "judgements",
            kind: Kind::Judgements,
            required: false,
            many: false,
            doc: "queries and judgements to take positives from",
        },
        Port {
            name: "model",
            kind: Kind::Model,
            required: false,
            many: false,
            doc: "the model whose mistakes `hard` negatives are, and that `scores`",
        },
    ],
    outputs: &[OutputPort { name: "triplets", kind: Kind::Triplets, file: "triplets.jsonl", doc: "anchor, positive, negative" }],
    declared: None,
    unkeyed: &["device"],
    schema: schema::<Mine>,
    configure: configure::<Mine>,
};

/// Makes triplets of a query, a text that answers it and one that does not: by keyword rules over the input `chunks`, from
/// the input `judgements` with random or hard negatives, or both, those by rules first. Texts are `title text`, as retrieval
/// embeds them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mine {
    /// A JSON Lines file of keyword rules: `{"_id": "t1", "query": "What is BERT?", "positive": "bert", "negative": "docker"}`.
    /// The positive is the first chunk that contains the one keyword, the negative the first other chunk that contains the
    /// other; case does not matter. A relative path starts at the folder of the file that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// Negatives for each relevant passage of `judgements`: passages that are not judged relevant for the query.
    pub negatives: usize,
    /// Whether they make a row each, or one row together, which the losses `mnrl`, `margin_mse` and `distill_kl` take.
    pub format: Shape,
    /// Whether to score positives and negatives by the cosine that the input `model` gives them: what `margin_mse` and `distill_kl` learn from a teacher.
    pub scores: bool,
    /// What the negatives of `judgements` are drawn from.
    pub negatives_from: NegativesFrom,
    /// `hard`: the first rank that is drawn from, counted from 0 among the passages that are not judged relevant. Above 0 it leaves
    /// out what is so near that it may be an answer nobody judged.
    pub range_min: usize,
    /// `hard`: the rank before which drawing ends.
    pub range_max: usize,
    /// Seed of the draw.
    pub seed: u64,
    /// How exactly matrix products are computed when texts are encoded: with `fp32`, rankings are those of sentence-transformers to the last
    /// digit printed; `bf16` is several times as fast on processors with fast instructions for it (AMX, AVX-512 BF16 of AMD), and `auto` takes it there.
    pub precision: Precision,
    /// Where the input `model` runs: `auto` (the first GPU where CUDA can be had, else the processor), `cpu`, `cuda`, `cuda:1`.
    pub device: Choice,
    /// `hard`: prompts in the place of the model's own: `{ query: "query: ", document: "passage: " }`. What is mined is without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<OtherPrompts>,
}

/// What negatives are drawn from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NegativesFrom {
    /// The whole corpus. Most are far from the query already, so there is little to learn from them.
    #[default]
    Random,
    /// What the input `model` ranks from `range_min` to `range_max` for the query.
    Hard,
}

impl Default for Mine {
    fn default() -> Self {
        Mine {
            rules: None,
            negatives: 1,
            format: Shape::default(),
            scores: false,
            negatives_from: NegativesFrom::default(),
            range_min: 0,
            range_max: 20,
            seed: 42,
            precision: Precision::Fp32,
            device: Choice::default(),
            prompts: None,
        }
    }
}

impl Stage for Mine {
    fn check(&self) -> Result<(), ParameterError> {
        if self.negatives == 0 {
            return Err(ParameterError::new("negatives", "a triplet needs a negative: `negatives` must be at least 1"));
        }
        if self.range_min + self.negatives > self.range_max {
            let message =
                format!("`range_max` must be at least `range_min` and `negatives` together: {}", self.range_min + self.negatives);
            return Err(ParameterError::new("range_max", message));
        }
        prompts::check(self.prompts.as_ref())
    }

    fn paths(&self) -> Vec<(String, String)> {
        self.rules.iter().map(|rules| ("rules".to_owned(), rules.clone())).collect()
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        let mut externals = self.rules.iter().map(|rules| file(surroundings, rules)).collect::<Result<Vec<_>>>()?;
        if self.negatives_from == NegativesFrom::Hard || self.scores {
            externals.extend(computation(surroundings, self.precision, self.device)?);
        }
        Ok(externals)
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let mut all = Mined::default();
        let mut queries = 0;
        let mut add = |mined: Mined| {
            all.examples.extend(mined.examples);
            all.warnings.extend(mined.warnings);
        };
        match (&self.rules, context.optional_input("chunks")) {
            (Some(name), Some(chunks)) => {
                let rules = read(&context.path(name)?, name)?;
                let chunks: Vec<Chunk> = jsonl::read(chunks)?;
                queries += rules.len();
                add(by_rules(&rules, &chunks)?);
            }
            (Some(_), None) => bail!("`rules` pick their texts from chunks: connect the input `chunks`"),
            (None, Some(_)) => {
                bail!("the input `chunks` is for keyword rules: name a file of them with `rules`, or remove the input")
            }
            (None, None) => {}
        }
        context.cancel.check()?;
        match context.optional_input("judgements") {
            Some(folder) => {
                let judgements = Judgements::read(folder, "test")?;
                queries += judgements.queries.len();
                add(self.judged(&judgements, context)?);
            }
            None if self.rules.is_none() => {
                bail!("there is nothing to mine from: connect the input `judgements`, or `chunks` with `rules`")
            }
            None => {}
        }
        if all.examples.is_empty() {
            bail!("no triplet could be made: {}", all.warnings.join("; "));
        }
        jsonl::write(context.output("triplets")?, &all.examples).context("the triplets cannot be written")?;
        let what = match self.format {
            Shape::Triplet => "triplets",
            Shape::Tuple => "rows",
        };
        let summary = format!("{} {what} from {queries} queries", all.examples.len());
        Ok(Outcome { summary, warnings: all.warnings, ..Outcome::default() })
    }
}

impl Mine {
    fn judged(&self, judgements: &Judgements, context: &Context) -> Result<Mined> {
        let hard = self.negatives_from == NegativesFrom::Hard;
        let scores = match context.optional_input("model") {
            Some(model) if hard || self.scores => Some(self.similarities(model, judgements, context)?),
            Some(_) => {
                bail!(
                    "the input `model` is for hard negatives and scores: set `negatives_from: hard` or `scores: true`, or remove the input"
                )
            }
            None if hard => bail!("hard negatives are what a model takes for answers: connect the input `model`"),
            None if self.scores => bail!("`scores` are what a model gives: connect the input `model`"),
            None => None,
        };
        let pools = scores.as_ref().filter(|_| hard).map(|s| hardest(judgements, s.view(), self.range_min..self.range_max));
        let pool = pools.as_ref().map_or(Pool::Corpus, |pools| Pool::Ranked(pools));
        let scores = scores.as_ref().filter(|_| self.scores).map(|scores| scores.view());
        Ok(from_judgements(judgements, &pool, self.negatives, self.format, scores, self.seed))
    }

    /// The cosines of queries and passages by a model, `[queries, corpus]`.
    fn similarities(&self, model: &Path, judgements: &Judgements, context: &Context) -> Result<Array2<f32>> {
        let embedder = embedder(context, model, self.precision, self.device)?.prompted(self.prompts.as_ref());
        let queries: Vec<String> = judgements.queries.iter().map(|query| query.text.clone()).collect();
        let total = (judgements.corpus.len() + queries.len()) as u64;
        let progress = |n: usize| context.progress(n as u64, total, "texts", "encoding");
        let (queries, passages) = encode(&embedder, &judgements.corpus, &queries, context.cancel, &progress)?;
        Ok(normalized(queries.view()).dot(&normalized(passages.view()).t()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::artifact::{Example, Passage, Query};
    use crate::stage::testing::{Bench, chunk, refused};

    fn bench() -> Bench {
        let bench = Bench::new();
        let texts = ["Nothing here", "BERT and GPT read", "Docker packs; bert waits", "GPT writes", "only Kafka"];
        let chunks: Vec<Chunk> = texts.iter().enumerate().map(|(i, text)| chunk(&format!("d{i}"), "T", 0, 0, text)).collect();
        bench.write_rows("chunks.jsonl", &chunks);
        let judgements = Judgements {
            corpus: chunks.iter().map(Passage::from).collect(),
            queries: vec![Query { id: "q".into(), text: "containers?".into() }],
            qrels: [("q".into(), [("d2:0".into(), 1), ("d0:0".into(), 0)].into())].into(),
        };
        judgements.write(&bench.path().join("judged")).unwrap();
        bench
    }

    const CHUNKS: (&str, &str) = ("chunks", "chunks.jsonl");
    const JUDGED: (&str, &str) = ("judgements", "judged");

    #[test]
    fn rules_pick_the_first_chunks() {
        let bench = bench();
        bench.write(
            "rules.jsonl",
            r#"{"_id":"a","query":"What is BERT?","positive":"bert","negative":"docker"}
               {"_id":"b","query":"And GPT?","positive":"Bert","negative":"gpt"}
               {"_id":"c","query":"Kafka?","positive":"kafka","negative":"only"}"#,
        );
        let outcome = bench.run_here(&KIND, json!({ "rules": "rules.jsonl" }), &[CHUNKS, JUDGED]).unwrap();
        let triplets: Vec<Example> = bench.rows("triplets.jsonl");
        let ids: Vec<_> = triplets
            .iter()
            .map(|t| (t.origin.query.as_str(), t.origin.positive.as_str(), t.origin.negatives[0].as_str()))
            .collect();
        assert_eq!(ids[..2], [("a", "d1:0", "d2:0"), ("b", "d1:0", "d3:0")]);
        assert_eq!((ids.len(), ids[2].0, ids[2].1), (3, "q", "d2:0"));
        assert_eq!((triplets[0].anchor.as_str(), triplets[0].positive.as_str()), ("What is BERT?", "T BERT and GPT read"));
        assert_eq!(outcome.summary, "3 triplets from 4 queries");
        insta::assert_snapshot!(outcome.warnings.join("\n"), @"rules without a triplet, for only the positive contains the keyword of the negative: 1 (`c`)");
        let externals = bench.externals(&KIND, json!({ "rules": "rules.jsonl" })).unwrap();
        assert_eq!(externals[0].name, "file `rules.jsonl`");
    }

    #[test]
    fn bad_rules_are_refused() {
        let error = |rules: &str| {
            let bench = bench();
            bench.write("rules.jsonl", rules);
            format!("{:#}", bench.run_here(&KIND, json!({ "rules": "rules.jsonl" }), &[CHUNKS]).unwrap_err())
        };
        let good = r#"{"_id":"a","query":"q","positive":"bert","negative":"gpt"}"#;
        insta::assert_snapshot!(error(&format!("{good}\n\n{}", good.replace("gpt", "kubernetes").replace("\"a\"", "\"b\""))), @"rules.jsonl:3: no chunk contains `kubernetes`; use a word that the documents use");
        insta::assert_snapshot!(error(&format!("{good}\n{good}")), @"rules.jsonl:2: the id `a` stands twice; give each rule its own");
        insta::assert_snapshot!(error(&good.replace("query", "text")), @"rules.jsonl:1: field `text`: unknown field `text`, expected one of `_id`, `query`, `positive`, `negative` at column 17");
        insta::assert_snapshot!(error(&good.replace("bert", " ")), @"rules.jsonl:1: field `positive` is empty");
        insta::assert_snapshot!(error("\n"), @r#"`rules.jsonl` holds no rule; write one a line: {"_id": …, "query": …, "positive": …, "negative": …}"#);
        insta::assert_snapshot!(error(&good.replace("bert", "kafka").replace("gpt", "only")), @"no triplet could be made: rules without a triplet, for only the positive contains the keyword of the negative: 1 (`a`)");
    }

    #[test]
    fn inputs_that_do_not_fit_the_parameters_are_refused() {
        let error = |parameters, inputs: &[(&str, &str)]| bench().run_here(&KIND, parameters, inputs).unwrap_err().to_string();
        insta::assert_snapshot!(error(json!({}), &[]), @"there is nothing to mine from: connect the input `judgements`, or `chunks` with `rules`");
        insta::assert_snapshot!(error(json!({}), &[CHUNKS]), @"the input `chunks` is for keyword rules: name a file of them with `rules`, or remove the input");
        insta::assert_snapshot!(error(json!({ "rules": "rules.jsonl" }), &[JUDGED]), @"`rules` pick their texts from chunks: connect the input `chunks`");
        insta::assert_snapshot!(refused(&KIND, json!({ "negatives": 0 })), @"negatives: a triplet needs a negative: `negatives` must be at least 1");
        insta::assert_snapshot!(refused(&KIND, json!({ "negatives": 3, "range_min": 4, "range_max": 6 })), @"range_max: `range_max` must be at least `range_min` and `negatives` together: 7");
        insta::assert_snapshot!(error(json!({ "scores": true }), &[JUDGED]), @"`scores` are what a model gives: connect the input `model`");
        insta::assert_snapshot!(error(json!({ "negatives_from": "hard" }), &[JUDGED]), @"hard negatives are what a model takes for answers: connect the input `model`");
        let missing = bench().externals(&KIND, json!({ "rules": "rules.jsonl" })).unwrap_err();
        insta::assert_snapshot!(missing, @"`rules.jsonl` cannot be read");
    }
}
