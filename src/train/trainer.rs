//! The training loop.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::batches::shuffled;
use super::loss::Loss;
use super::optimizer::{AdamW, Optimizer, clip_factor, norm};
use super::schedule::linear;
use super::step::Step;
use crate::cancel::Cancel;
use crate::model::directory::ModelDirectory;
use crate::model::tokenizer::{Tokenizer, Tokens};
use crate::model::weights::Weights;

/// Settings of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub loss: Loss,
    pub epochs: usize,
    pub batch_size: usize,
    /// Peak learning rate.
    pub lr: f64,
    pub optimizer: AdamW,
    pub warmup_steps: usize,
    /// 0 switches clipping off.
    pub max_grad_norm: f64,
    /// Steps between evaluations; 0 evaluates at the end of each epoch only.
    pub eval_steps: usize,
    pub seed: u64,
}

/// What happens while a training runs.
pub trait Observer {
    /// After every step.
    fn step(&mut self, step: &StepReport);

    /// Judges the weights: every figure by name, and the one to choose by. `None` when there is nothing to judge by.
    ///
    /// # Errors
    /// The evaluation fails.
    fn evaluate(&mut self, weights: &Weights, step: usize, total: usize) -> Result<Option<(BTreeMap<String, f64>, f64)>>;
}

/// One step, for logs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// From 1.
    pub step: usize,
    pub total: usize,
    pub epoch: usize,
    pub loss: f32,
    pub lr: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Without padding.
    pub tokens: usize,
    pub seconds: f64,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// After this many steps.
    pub step: usize,
    pub metrics: BTreeMap<String, f64>,
    /// The figure by which the best weights are chosen.
    pub score: f64,
}

/// The result of a training.
pub struct Trained {
    /// The best weights by the evaluations, or the last ones when there were none.
    pub weights: Weights,
    pub steps: usize,
    /// The mean loss of each epoch.
    pub losses: Vec<f64>,
    pub evaluations: Vec<Evaluation>,
    /// Which of the evaluations the weights belong to.
    pub best: Option<usize>,
}

/// Trains the model of `directory` on `examples`, each with as many texts as the loss has columns.
///
/// # Errors
/// The weights do not fit, ONNX Runtime fails, the loss stops being a number, or `cancel` is set.
pub fn train(
    directory: &ModelDirectory,
    initial: &Weights,
    examples: &[Vec<&str>],
    settings: &Settings,
    downloads: &Path,
    cancel: &Cancel,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    ensure!(!examples.is_empty(), "there is nothing to train on");
    let step = Step::new(directory, initial, &settings.loss, downloads)?;
    let texts = tokenize(step.tokenizer(), examples)?;
    let optimizer = Optimizer::new(settings.optimizer, step.parameters());
    let total = examples.len().div_ceil(settings.batch_size) * settings.epochs;
    let state = State { step, optimizer, settings, initial, total, done: 0, best: None, evaluations: Vec::new() };
    state.run(examples, &texts, cancel, observer)
}

/// Each different text once.
fn tokenize<'t>(tokenizer: &Tokenizer, examples: &[Vec<&'t str>]) -> Result<HashMap<&'t str, Tokens>> {
    let mut texts: Vec<&str> = examples.concat();
    texts.sort_unstable();
    texts.dedup();
    let tokens = tokenizer.encode(&texts)?;
    Ok(texts.into_iter().zip(tokens).collect())
}

struct State<'a> {
    step: Step,
    optimizer: Optimizer,
    settings: &'a Settings,
    initial: &'a Weights,
    total: usize,
    done: usize,
    /// The best weights so far and the number of their evaluation.
    best: Option<(usize, Weights)>,
    evaluations: Vec<Evaluation>,
}

impl State<'_> {
    fn run(
        mut self,
        examples: &[Vec<&str>],
        texts: &HashMap<&str, Tokens>,
        cancel: &Cancel,
        observer: &mut dyn Observer,
    ) -> Result<Trained> {
        let mut losses = Vec::new();
        for epoch in 0..self.settings.epochs {
            let batches = shuffled(examples.len(), self.settings.batch_size, self.settings.seed, epoch);
            let mut sum = 0.0;
            for (i, batch) in batches.iter().enumerate() {
                cancel.check()?;
                let report = self.advance(epoch, batch, examples, texts)?;
                sum += f64::from(report.loss);
                observer.step(&report);
                let due = self.settings.eval_steps > 0 && self.done.is_multiple_of(self.settings.eval_steps);
                if due || i + 1 == batches.len() {
                    self.evaluate(observer)?;
                }
            }
            losses.push(sum / batches.len() as f64);
        }
        let (best, weights) = match self.best {
            Some((best, weights)) => (Some(best), weights),
            None => (None, self.step.weights(self.initial)),
        };
        Ok(Trained { weights, steps: self.done, losses, evaluations: self.evaluations, best })
    }

    fn advance(
        &mut self,
        epoch: usize,
        batch: &[usize],
        examples: &[Vec<&str>],
        texts: &HashMap<&str, Tokens>,
    ) -> Result<StepReport> {
        let started = Instant::now();
        let width = examples.first().map_or(0, Vec::len);
        let columns = (0..width)
            .map(|c| batch.iter().map(|&i| texts.get(examples[i][c]).context("a text was not tokenized")).collect())
            .collect::<Result<Vec<Vec<&Tokens>>>>()?;
        let lr = self.settings.lr * linear(self.done, self.settings.warmup_steps, self.total);
        let run = self.step.run(&columns)?;
        self.done += 1;
        let (max_norm, optimizer, loss, number) = (self.settings.max_grad_norm, &mut self.optimizer, run.loss, self.done);
        let grad_norm = self.step.update(&run, |weights, gradients| {
            let norm = norm(gradients);
            if norm.is_finite() && loss.is_finite() {
                optimizer.step(lr, clip_factor(norm, max_norm), weights, gradients);
            }
            norm
        })?;
        if !(grad_norm.is_finite() && loss.is_finite()) {
            let first: String = batch.first().and_then(|&i| examples[i].first()).map_or("", |t| t).chars().take(80).collect();
            bail!(
                "step {number} of {}: the loss is {loss} and the gradient's norm {grad_norm}; the batch begins with `{first}`; \
                 a lower `lr` or more `warmup_steps` usually mend this",
                self.total
            );
        }
        let seconds = started.elapsed().as_secs_f64();
        Ok(StepReport { step: number, total: self.total, epoch: epoch + 1, loss, lr, grad_norm, tokens: run.tokens, seconds })
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if self.evaluations.last().is_some_and(|e| e.step == self.done) {
            return Ok(());
        }
        let weights = self.step.weights(self.initial);
        let Some((metrics, score)) = observer.evaluate(&weights, self.done, self.total)? else { return Ok(()) };
        // The earlier of two equally good ones is kept.
        if self.best.as_ref().is_none_or(|(best, _)| score > self.evaluations[*best].score) {
            self.best = Some((self.evaluations.len(), weights));
        }
        self.evaluations.push(Evaluation { step: self.done, metrics, score });
        Ok(())
    }
}
