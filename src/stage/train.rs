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
use crate::artifact::{Example, Judgements, Kind, jsonl};
use crate::evaluation::{self, Measure};
use crate::model::card::Card;
use crate::model::directory::ModelDirectory;
use crate::model::embedder::Embedder;
use crate::model::export::export;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Weights;
use crate::retrieval::search::encode;
use crate::runtime::device::Choice;
use crate::train::data::{Data, DataSet, Sampling};
use crate::train::optimizer::AdamW;
use crate::train::sampling::{Mixing, Sampler};
use crate::train::trainer::{Observer, StepReport};
use crate::train::{Loss, Settings, Trained, train};

pub const KIND: StageKind = StageKind {
    name: "train",
    version: 2,
    summary: "fine-tunes an embedding model",
    inputs: &[
        Port { name: "model", kind: Kind::Model, required: true, many: false, doc: "the model to start from" },
        Port {
            name: "triplets",
            kind: Kind::Triplets,
            required: true,
            many: true,
            doc: "what to learn from: one data set of pairs, triplets or tuples, or several",
        },
        Port {
            name: "eval",
            kind: Kind::Judgements,
            required: false,
            many: false,
            doc: "judged queries to choose the best checkpoint by",
        },
        Port {
            name: "guide",
            kind: Kind::Model,
            required: false,
            many: false,
            doc: "the model by which the loss `gist` tells false negatives",
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

/// Fine-tunes an embedding model on examples with AdamW, a linear warm-up and a linear decay of the learning rate. With `eval`
/// connected, the model is evaluated on it during training, and the best checkpoint is kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// What is minimised.
    pub loss: Loss,
    /// Losses of data sets for which `loss` does not hold, by the names of the data sets in `inputs`:
    /// `{ graded: { name: cosent } }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, Loss>,
    /// Passes over the examples.
    pub epochs: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Tokens that go through the model at once. A batch with more goes through it in parts (GradCache): the same loss and the same gradients, but for
    /// their last digits, with the memory of a part and a second forward pass. So losses that live on large batches (`mnrl`, `gist`) have them of
    /// 1,000 and more. 0: the whole batch at once.
    pub mini_batch_tokens: usize,
    /// How data sets are cut into batches; left out, as suits the loss: `no_duplicates` for `mnrl` and `gist`, else `shuffled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// How several data sets take turns.
    pub mixing: Mixing,
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
    /// Seed of the order of the examples.
    pub seed: u64,
    /// Name of the model that is trained, for the model card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            loss: Loss::default(),
            losses: BTreeMap::new(),
            epochs: 3,
            batch_size: 8,
            mini_batch_tokens: 0,
            sampler: None,
            mixing: Mixing::default(),
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
        let all = std::iter::once(("loss".to_owned(), &self.loss));
        for (place, loss) in all.chain(self.losses.iter().map(|(name, loss)| (format!("losses.{name}"), loss))) {
            loss.formula().check().or_else(|bad| refuse(&format!("{place}.{}", bad.field), bad.message))?;
        }
        Ok(())
    }

    fn check_inputs(&self, inputs: &[&str]) -> Result<(), ParameterError> {
        let guided = std::iter::once(&self.loss).chain(self.losses.values()).any(|loss| loss.formula().is_guided());
        if guided && !inputs.contains(&"guide") {
            let message =
                "the loss `gist` asks a guide model: connect the input `guide`, or let the model guide itself with `guide: self`";
            return Err(ParameterError::new("loss", message));
        }
        if !guided && inputs.contains(&"guide") {
            return Err(ParameterError::new(
                "",
                "the input `guide` is for the loss `gist` with `guide: model`; remove the input, or use that loss",
            ));
        }
        Ok(())
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        Ok(vec![onnx_runtime(surroundings, Choice::Cpu)?])
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let directory = ModelDirectory::open(context.input("model")?)?;
        let initial = Weights::read(&directory.weights())?;
        let sets = self.data_sets(context)?;
        let mut warnings: Vec<String> = Vec::new();
        for set in &sets {
            warnings.extend(set.warnings(directory.config.hidden_size, directory.normalize));
        }
        warnings.sort();
        warnings.dedup();
        warnings.iter().for_each(|w| context.reporter.log(w));
        let sampling = Sampling { batch_size: self.batch_size, sampler: self.sampler, mixing: self.mixing };
        let mut data = Data::new(&sets, &Tokenizer::open(&directory.path, directory.max_seq_length)?, sampling)?;
        if data.is_guided() {
            guide(&mut data, context)?;
        }
        let eval = context.optional_input("eval").map(|folder| Judgements::read(folder, "test")).transpose()?;
        let mut watch =
            Watch { context, directory: &directory, eval, metric: &self.metric, last: String::new(), started: Instant::now() };
        let trained = train(&directory, &initial, &data, &self.settings(), context.downloads, context.cancel, &mut watch)?;
        context.reporter.log("writing the model");
        export(&directory, &trained.weights, &self.card(&directory, &sets, &trained), context.output("model")?)?;
        let examples = sets.iter().map(|set| set.rows.len()).sum();
        Ok(self.outcome(&trained, examples, warnings))
    }
}

impl Train {
    /// The data sets at the input `triplets`, each with its loss.
    fn data_sets(&self, context: &Context) -> Result<Vec<DataSet>> {
        let inputs = context.inputs("triplets");
        for name in self.losses.keys() {
            if !inputs.iter().any(|(label, _)| label == name) {
                let known: Vec<String> = inputs.iter().map(|(label, _)| format!("`{label}`")).collect();
                bail!("`losses` names the data set `{name}`, which is not among the inputs: there are {}", known.join(", "));
            }
        }
        let read = |(label, path): (&str, &Path)| {
            let loss = self.losses.get(label).unwrap_or(&self.loss).clone();
            let rows = jsonl::numbered::<Example>(path, &format!("data set `{label}`"))?;
            Ok(DataSet { name: label.to_owned(), rows, loss })
        };
        inputs.into_iter().map(read).collect()
    }

    fn settings(&self) -> Settings {
        Settings {
            epochs: self.epochs,
            mini_batch_tokens: self.mini_batch_tokens,
            lr: self.lr,
            optimizer: AdamW { weight_decay: self.weight_decay, ..AdamW::default() },
            warmup_steps: self.warmup_steps,
            max_grad_norm: self.max_grad_norm,
            eval_steps: self.eval_steps,
            seed: self.seed,
        }
    }

    fn outcome(&self, trained: &Trained, examples: usize, warnings: Vec<String>) -> Outcome {
        let mut metrics = BTreeMap::from([("steps".to_owned(), trained.steps as f64)]);
        if let Some(loss) = trained.losses.last() {
            metrics.insert("loss".to_owned(), *loss);
        }
        let mut summary = format!("{} steps on {examples} examples", trained.steps);
        if let Some(best) = trained.best.and_then(|i| trained.evaluations.get(i)) {
            metrics.insert("best_step".to_owned(), best.step as f64);
            metrics.insert(format!("eval.{}", self.metric), best.score);
            summary += &format!(", best {} {:.4} after step {}", self.metric, best.score, best.step);
        }
        Outcome { metrics, summary, warnings, table: None }
    }

    fn card(&self, directory: &ModelDirectory, sets: &[DataSet], trained: &Trained) -> Card {
        let setting = |name: &str, value: String| (name.to_owned(), value);
        let losses = sets.iter().map(|set| {
            let name = if sets.len() == 1 { "loss".to_owned() } else { format!("loss of {}", set.name) };
            (name, set.loss.formula().describe())
        });
        let counts: Vec<String> = sets.iter().map(|set| format!("{} of {}", set.rows.len(), set.name)).collect();
        Card {
            base_model: self.base_model.clone().unwrap_or_else(|| directory.config.model_type.clone()),
            settings: losses
                .chain([
                    setting("epochs", self.epochs.to_string()),
                    setting("batch_size", self.batch_size.to_string()),
                    setting("lr", format!("{:e}", self.lr)),
                    setting("weight_decay", self.weight_decay.to_string()),
                    setting("warmup_steps", self.warmup_steps.to_string()),
                    setting("max_grad_norm", self.max_grad_norm.to_string()),
                    setting("seed", self.seed.to_string()),
                ])
                .collect(),
            data: format!("Examples: {}. The first of them:", counts.join(", ")),
            examples: sets.iter().flat_map(|set| &set.rows).take(3).map(|(_, example)| example.columns()).collect(),
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

/// Embeds every text with the model at the input `guide`.
fn guide(data: &mut Data, context: &Context) -> Result<()> {
    let embedder = Embedder::open(context.input("guide")?, context.downloads)?;
    let total = data.texts().len() as u64;
    let progress = |n: usize| context.progress(n as u64, total, "texts", "asking the guide");
    let vectors = embedder.encode(data.texts(), context.cancel, &progress)?;
    data.guide(embedder.dimensions(), vectors.into_raw_vec_and_offset().0);
    Ok(())
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
