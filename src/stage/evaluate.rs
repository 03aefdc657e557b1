//! The stage `evaluate`: measures retrieval with a model on judged queries.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::externals::{computation, embedder};
use super::prompts;
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Judgements, Kind, Metrics, Passage, Ranking};
use crate::evaluation::{Convention, Evaluation, Measure, Quantity, Settings, evaluate};
use crate::model::embedder::Embedder;
use crate::model::prompts::OtherPrompts;
use crate::retrieval::search::encode;
use crate::runtime::device::Choice;
use crate::runtime::precision::Precision;

pub const KIND: StageKind = StageKind {
    name: "evaluate",
    version: 3,
    summary: "measures retrieval with a model on judged queries",
    inputs: &[
        Port { name: "model", kind: Kind::Model, required: true, many: false, doc: "the model to measure" },
        Port { name: "judgements", kind: Kind::Judgements, required: true, many: false, doc: "queries, corpus and judgements" },
    ],
    outputs: &[
        OutputPort { name: "metrics", kind: Kind::Metrics, file: "metrics", doc: "means and per-query values" },
        OutputPort { name: "ranking", kind: Kind::Ranking, file: "ranking.trec", doc: "the ranking as a TREC run file" },
    ],
    declared: None,
    unkeyed: &["device"],
    schema: schema::<Evaluate>,
    configure: configure::<Evaluate>,
};

/// Ranks the corpus for every judged query by cosine similarity of the model's embeddings, and measures the ranking.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluate {
    /// Whose definitions hold where they differ (ties, gains, average precision).
    pub convention: Convention,
    /// Cut-offs of accuracy.
    pub accuracy_at: Vec<usize>,
    /// Cut-offs of precision and recall.
    pub precision_recall_at: Vec<usize>,
    /// Cut-offs of the reciprocal rank.
    pub mrr_at: Vec<usize>,
    /// Cut-offs of the discounted cumulative gain.
    pub ndcg_at: Vec<usize>,
    /// Cut-offs of the average precision.
    pub map_at: Vec<usize>,
    /// Hits a query in the run file.
    pub depth: usize,
    /// How exactly matrix products are computed when texts are encoded: with `fp32`, rankings are those of sentence-transformers to the last
    /// digit printed; `bf16` is several times as fast on processors with fast instructions for it (AMX, AVX-512 BF16 of AMD), and `auto` takes it there.
    pub precision: Precision,
    /// Where the model runs: `auto` (the first GPU where CUDA can be had, else the processor), `cpu`, `cuda`, `cuda:1`.
    pub device: Choice,
    /// Prompts in the place of the model's own: `{ query: "query: ", document: "passage: " }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<OtherPrompts>,
}

impl Default for Evaluate {
    fn default() -> Self {
        Evaluate {
            convention: Convention::default(),
            accuracy_at: vec![1, 3, 5, 10],
            precision_recall_at: vec![1, 3, 5, 10],
            mrr_at: vec![10],
            ndcg_at: vec![10],
            map_at: vec![100],
            depth: 100,
            precision: Precision::Fp32,
            device: Choice::default(),
            prompts: None,
        }
    }
}

impl Evaluate {
    fn measures(&self) -> Vec<Measure> {
        let lists = [
            (Quantity::Accuracy, &self.accuracy_at),
            (Quantity::Precision, &self.precision_recall_at),
            (Quantity::Recall, &self.precision_recall_at),
            (Quantity::Mrr, &self.mrr_at),
            (Quantity::Ndcg, &self.ndcg_at),
            (Quantity::Map, &self.map_at),
        ];
        lists.iter().flat_map(|(quantity, at)| at.iter().map(|&k| Measure::new(*quantity, k))).collect()
    }

    fn artifact(&self, judgements: &Judgements, result: &Evaluation) -> Metrics {
        let named = |values: &Vec<f64>| result.measures.iter().map(Measure::to_string).zip(values.iter().copied()).collect();
        Metrics {
            convention: self.convention.name().into(),
            similarity: "cosine".into(),
            queries: result.per_query.len(),
            passages: judgements.corpus.len(),
            left_out: result.left_out.clone(),
            means: result.means.clone(),
            per_query: result.per_query.iter().map(|(q, v)| (q.clone(), named(v))).collect(),
        }
    }
}

impl Stage for Evaluate {
    fn check(&self) -> Result<(), ParameterError> {
        let lists = [
            ("accuracy_at", &self.accuracy_at),
            ("precision_recall_at", &self.precision_recall_at),
            ("mrr_at", &self.mrr_at),
            ("ndcg_at", &self.ndcg_at),
            ("map_at", &self.map_at),
        ];
        if let Some((field, _)) = lists.iter().find(|(_, at)| at.contains(&0)) {
            return Err(ParameterError::new(*field, "a cut-off must be at least 1"));
        }
        if self.measures().is_empty() {
            return Err(ParameterError::new("ndcg_at", "there is nothing to measure: give at least one cut-off"));
        }
        prompts::check(self.prompts.as_ref())
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        computation(surroundings, self.precision, self.device)
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let judgements = Judgements::read(context.input("judgements")?, "test")?;
        if judgements.queries.is_empty() {
            bail!("no query is judged, so there is nothing to measure");
        }
        let model = context.input("model")?;
        let embedder = embedder(context, model, self.precision, self.device)?.prompted(self.prompts.as_ref());
        let queries: Vec<String> = judgements.queries.iter().map(|q| q.text.clone()).collect();
        let total = (queries.len() + judgements.corpus.len()) as u64;
        let progress = |n: usize| context.progress(n as u64, total, "texts", "encoding");
        let (query_vectors, passage_vectors) = encode(&embedder, &judgements.corpus, &queries, context.cancel, &progress)?;
        let settings = Settings { measures: self.measures(), convention: self.convention, depth: self.depth };
        let result = evaluate(&judgements, query_vectors.view(), passage_vectors.view(), &settings)?;
        let names: Vec<String> = result.measures.iter().map(Measure::to_string).collect();
        self.artifact(&judgements, &result).write(context.output("metrics")?, &names)?;
        Ranking(result.ranking.clone()).write(context.output("ranking")?, "retune")?;
        Ok(Outcome {
            metrics: result.means.clone(),
            summary: format!("{} queries over {} passages", result.per_query.len(), judgements.corpus.len()),
            warnings: warnings(&embedder, &judgements.corpus, &result.left_out)?,
            table: None,
        })
    }
}

/// What the figures do not say by themselves.
fn warnings(embedder: &Embedder, passages: &[Passage], left_out: &[String]) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let texts: Vec<String> = passages.iter().map(Passage::embedding_text).collect();
    let cut = embedder.truncated(&texts)?;
    if cut > 0 {
        warnings.push(format!(
            "{cut} of {} passages are longer than the model's {} tokens and are cut: what stands after that cannot be found; \
             a smaller `chunk_size` mends this",
            passages.len(),
            embedder.max_seq_length()
        ));
    }
    if !left_out.is_empty() {
        warnings.push(format!("{} queries have no relevant passage and are left out of the means", left_out.len()));
    }
    Ok(warnings)
}
