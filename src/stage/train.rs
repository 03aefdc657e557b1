//! The stage `train`: fine-tunes an embedding model.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::externals::onnx_runtime;
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Judgements, Kind, Triplet, jsonl};
use crate::evaluation::{self, Measure};
use crate::model::card::Card;
use crate::model::directory::ModelDirectory;
use crate::model::embedder::Embedder;
use crate::model::export::export;
use crate::model::weights::Weights;
use crate::retrieval::search::encode;
use crate::train::optimizer::AdamW;
use crate::train::trainer::{Observer, StepReport};
use crate::train::{Loss, Settings, Trained, train};

pub const KIND: StageKind = StageKind {
    name: "train",
    version: 1,
    summary: "fine-tunes an embedding model",
    inputs: &[
        Port { name: "model", kind: Kind::Model, required: true, many: false, doc: "the model to start from" },
        Port { name: "triplets", kind: Kind::Triplets, required: true, many: false, doc: "what to learn from" },
        Port {
            name: "eval",
            kind: Kind::Judgements,
            required: false,
            many: false,
            doc: "judged queries to choose the best checkpoint by",
        },
    ],
    outputs: &[OutputPort {
        name: "model",
        kind: Kind::Model,
        file: "model",
        doc: "the fine-tuned model, loadable by sentence-transformers",
    }],
    declared: None,
    unkeyed: &[],
    schema: schema::<Train>,
    configure: configure::<Train>,
};

/// Fine-tunes an embedding model on triplets with AdamW, a linear warm-up and a linear decay of the learning rate. With `eval`
/// connected, the model is evaluated on it during training, and the best checkpoint is kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// What is minimised.
    pub loss: Loss,
    /// Passes over the triplets.
    pub epochs: usize,
    /// Triplets a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay of AdamW; biases and layer normalization are exempt.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// Gradients whose norm is larger are scaled down to it; 0 switches this off.
    pub max_grad_norm: f64,
    /// Steps between evaluations on `eval`, besides those at the end of each epoch; 0 for these alone.
    pub eval_steps: usize,
    /// The figure by which the best checkpoint is chosen: `ndcg@10`, `mrr@10`, `recall@5`, `map@100`, …
    pub metric: Measure,
    /// Seed of the order of the triplets.
    pub seed: u64,
    /// Name of the model that is trained, for the model card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            loss: Loss::default(),
            epochs: 3,
            batch_size: 8,
            lr: 2e-5,
            weight_decay: 0.01,
            warmup_steps: 10,
            max_grad_norm: 1.0,
            eval_steps: 50,
            metric: Measure::default(),
            seed: 42,
            base_model: None,
        }
    }
}

impl Stage for Train {
    fn check(&self) -> Result<(), ParameterError> {
        let refuse = |field: &str, message: String| Err(ParameterError::new(field, message));
        if !(self.lr.is_finite() && self.lr > 0.0 && self.lr < 1.0) {
            return refuse("lr", format!("the learning rate must lie between 0 and 1, for example 2e-5, not {}", self.lr));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return refuse("weight_decay", format!("the weight decay must not be negative, but is {}", self.weight_decay));
        }
        if !(self.max_grad_norm.is_finite() && self.max_grad_norm >= 0.0) {
            return refuse(
                "max_grad_norm",
                format!("the largest gradient norm must not be negative, but is {}", self.max_grad_norm),
            );
        }
        for (field, value) in [("epochs", self.epochs), ("batch_size", self.batch_size)] {
            if value == 0 {
                return refuse(field, format!("`{field}` must be at least 1"));
            }
        }
        self.loss.formula().check().or_else(|(field, message)| refuse(&format!("loss.{field}"), message))
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        Ok(vec![onnx_runtime(surroundings)?])
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let directory = ModelDirectory::open(context.input("model")?)?;
        let initial = Weights::read(&directory.weights())?;
        let triplets: Vec<Triplet> = jsonl::read(context.input("triplets")?)?;
        if triplets.is_empty() {
            bail!("there are no triplets to learn from");
        }
        let warnings = self.loss.formula().warnings(directory.config.hidden_size, directory.normalize);
        warnings.iter().for_each(|w| context.reporter.log(w));
        let eval = context.optional_input("eval").map(|folder| Judgements::read(folder, "test")).transpose()?;
        let examples: Vec<Vec<&str>> =
            triplets.iter().map(|t| vec![t.anchor.as_str(), t.positive.as_str(), t.negative.as_str()]).collect();
        let mut watch =
            Watch { context, directory: &directory, eval, metric: &self.metric, last: String::new(), started: Instant::now() };
        let trained = train(&directory, &initial, &examples, &self.settings(), context.downloads, context.cancel, &mut watch)?;
        context.reporter.log("writing the model");
        export(&directory, &trained.weights, &self.card(&directory, &triplets, &trained), context.output("model")?)?;
        Ok(self.outcome(&trained, triplets.len(), warnings))
    }
}

impl Train {
    fn settings(&self) -> Settings {
        Settings {
            loss: self.loss.clone(),
            epochs: self.epochs,
            batch_size: self.batch_size,
            lr: self.lr,
            optimizer: AdamW { weight_decay: self.weight_decay, ..AdamW::default() },
            warmup_steps: self.warmup_steps,
            max_grad_norm: self.max_grad_norm,
            eval_steps: self.eval_steps,
            seed: self.seed,
        }
    }

    fn outcome(&self, trained: &Trained, triplets: usize, warnings: Vec<String>) -> Outcome {
        let mut metrics = BTreeMap::from([("steps".to_owned(), trained.steps as f64)]);
        if let Some(loss) = trained.losses.last() {
            metrics.insert("loss".to_owned(), *loss);
        }
        let mut summary = format!("{} steps on {triplets} triplets", trained.steps);
        if let Some(best) = trained.best.and_then(|i| trained.evaluations.get(i)) {
            metrics.insert("best_step".to_owned(), best.step as f64);
            metrics.insert(format!("eval.{}", self.metric), best.score);
            summary += &format!(", best {} {:.4} after step {}", self.metric, best.score, best.step);
        }
        Outcome { metrics, summary, warnings, table: None }
    }

    fn card(&self, directory: &ModelDirectory, triplets: &[Triplet], trained: &Trained) -> Card {
        let setting = |name: &str, value: String| (name.to_owned(), value);
        let columns = |t: &Triplet| {
            [("anchor", &t.anchor), ("positive", &t.positive), ("negative", &t.negative)]
                .map(|(n, x)| (n.to_owned(), x.clone()))
                .to_vec()
        };
        Card {
            base_model: self.base_model.clone().unwrap_or_else(|| directory.config.model_type.clone()),
            settings: vec![
                setting("loss", self.loss.formula().describe()),
                setting("epochs", self.epochs.to_string()),
                setting("batch_size", self.batch_size.to_string()),
                setting("lr", format!("{:e}", self.lr)),
                setting("weight_decay", self.weight_decay.to_string()),
                setting("warmup_steps", self.warmup_steps.to_string()),
                setting("max_grad_norm", self.max_grad_norm.to_string()),
                setting("seed", self.seed.to_string()),
            ],
            data: format!("{} triplets (anchor, positive, negative). The first of them:", triplets.len()),
            examples: triplets.iter().take(3).map(columns).collect(),
            evaluations: trained
                .evaluations
                .iter()
                .map(|e| (e.step.to_string(), e.metrics.iter().map(|(k, v)| (k.clone(), *v)).collect()))
                .collect(),
            best: trained.best,
            dimensions: directory.config.hidden_size,
            max_seq_length: directory.max_seq_length,
            pooling: directory.pooling.name().to_owned(),
            normalize: directory.normalize,
        }
    }
}

/// Reports steps, and evaluates.
struct Watch<'a> {
    context: &'a Context<'a>,
    directory: &'a ModelDirectory,
    eval: Option<Judgements>,
    metric: &'a Measure,
    /// The last evaluation, for the progress line.
    last: String,
    started: Instant,
}

impl Observer for Watch<'_> {
    fn step(&mut self, step: &StepReport) {
        let message = format!("loss {:.4}  rate {:.2e}{}", step.loss, step.lr, self.last);
        self.context.progress(step.step as u64, step.total as u64, "steps", message);
        let speed = step.tokens as f64 / step.seconds.max(1e-9);
        self.context.reporter.event(json!({ "event": "step", "step": step, "tokens_per_second": speed.round() }));
    }

    fn evaluate(&mut self, weights: &Weights, step: usize, total: usize) -> Result<Option<(BTreeMap<String, f64>, f64)>> {
        let Some(judgements) = &self.eval else { return Ok(None) };
        self.context.progress(step as u64, total as u64, "steps", "evaluating");
        let metrics = measure(self.directory, weights, judgements, self.context, self.metric, self.context.downloads)?;
        let score = metrics.get(&self.metric.to_string()).copied().unwrap_or_default();
        self.last = format!("  {} {score:.4}", self.metric);
        let line =
            format!("step {step} of {total}: {} {score:.4} after {:.0} s", self.metric, self.started.elapsed().as_secs_f64());
        self.context.reporter.log(&line);
        self.context.reporter.event(json!({ "event": "evaluation", "step": step, "metrics": metrics }));
        Ok(Some((metrics, score)))
    }
}

/// The usual figures, and the chosen one, of `weights` on judged queries.
fn measure(
    directory: &ModelDirectory,
    weights: &Weights,
    judgements: &Judgements,
    context: &Context,
    metric: &Measure,
    downloads: &Path,
) -> Result<BTreeMap<String, f64>> {
    let embedder = Embedder::with_weights(directory.clone(), weights, downloads)?;
    let queries: Vec<String> = judgements.queries.iter().map(|q| q.text.clone()).collect();
    let (queries, passages) = encode(&embedder, &judgements.corpus, &queries, context.cancel, &|_| ())?;
    let settings = evaluation::Settings::during_training(metric);
    let result = evaluation::evaluate(judgements, queries.view(), passages.view(), &settings)?;
    Ok(result.means)
}
