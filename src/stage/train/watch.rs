//! What is told while a training runs, and the evaluations in between.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::artifact::Judgements;
use crate::evaluation::{self, Measure};
use crate::model::directory::ModelDirectory;
use crate::model::embedder::Embedder;
use crate::model::weights::Weights;
use crate::retrieval::search::encode;
use crate::runtime::Runtime;
use crate::runtime::precision::Precision;
use crate::stage::Context;
use crate::train::progress::Progress;
use crate::train::trainer::{Observer, StepReport};

/// Reports steps, and evaluates.
pub struct Watch<'a> {
    context: &'a Context<'a>,
    directory: &'a ModelDirectory,
    eval: Option<Judgements>,
    metric: &'a Measure,
    runtime: &'a Runtime,
    /// The last evaluation, for the progress line.
    last: String,
    started: Instant,
}

impl<'a> Watch<'a> {
    pub fn new(
        context: &'a Context,
        directory: &'a ModelDirectory,
        eval: Option<Judgements>,
        metric: &'a Measure,
        runtime: &'a Runtime,
    ) -> Self {
        Watch { context, directory, eval, metric, runtime, last: String::new(), started: Instant::now() }
    }
}

impl Observer for Watch<'_> {
    fn resumed(&mut self, progress: &Progress, total: usize) {
        let done = progress.done();
        if let Some(evaluation) = progress.evaluations.last() {
            self.last = format!("  {} {:.4}", self.metric, evaluation.score);
        }
        self.context.reporter.log(&format!("resumed at step {done} of {total}"));
        self.context.reporter.event(json!({ "event": "resumed", "step": done, "total": total }));
        self.context.progress(done as u64, total as u64, "steps", "resumed");
    }

    fn step(&mut self, step: &StepReport) {
        let speed = step.passed.tokens as f64 / step.seconds.max(1e-9);
        let (loss, lr) = (step.passed.loss, step.passed.lr);
        let message = format!("loss {loss:.4}  rate {lr:.2e}  {speed:.0} tokens/s{}", self.last);
        self.context.progress(step.step as u64, step.total as u64, "steps", message);
        self.context.reporter.event(json!({ "event": "step", "step": step, "tokens_per_second": speed.round() }));
    }

    fn evaluates(&self) -> bool {
        self.eval.is_some()
    }

    fn evaluate(&mut self, weights: &Weights, step: usize, total: usize) -> Result<Option<(BTreeMap<String, f64>, f64)>> {
        let Some(judgements) = &self.eval else { return Ok(None) };
        self.context.progress(step as u64, total as u64, "steps", "evaluating");
        let metrics = measure(self.directory, weights, judgements, self.context, self.metric, self.runtime)?;
        let score = metrics.get(&self.metric.to_string()).copied().unwrap_or_default();
        self.last = format!("  {} {score:.4}", self.metric);
        let line =
            format!("step {step} of {total}: {} {score:.4} after {:.0} s", self.metric, self.started.elapsed().as_secs_f64());
        self.context.reporter.log(&line);
        self.context.reporter.event(json!({ "event": "evaluation", "step": step, "metrics": metrics }));
        Ok(Some((metrics, score)))
    }

    fn saved(&mut self, step: usize, seconds: f64) {
        self.context.reporter.event(json!({ "event": "checkpoint", "step": step, "seconds": seconds }));
    }

    fn note(&mut self, line: &str) {
        self.context.reporter.log(line);
    }

    fn warn(&mut self, line: &str) {
        self.context.reporter.warn(line);
    }
}

/// The usual figures, and the chosen one, of `weights` on judged queries.
fn measure(
    directory: &ModelDirectory,
    weights: &Weights,
    judgements: &Judgements,
    context: &Context,
    metric: &Measure,
    runtime: &Runtime,
) -> Result<BTreeMap<String, f64>> {
    let embedder = Embedder::with_weights(directory.clone(), weights, Precision::Fp32, runtime)?;
    let queries: Vec<String> = judgements.queries.iter().map(|q| q.text.clone()).collect();
    let (queries, passages) = encode(&embedder, &judgements.corpus, &queries, context.cancel, &|_| ())?;
    let settings = evaluation::Settings::during_training(metric);
    let result = evaluation::evaluate(judgements, queries.view(), passages.view(), &settings)?;
    Ok(result.means)
}
