//! The training loop.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::checkpoint::{Checkpoints, State};
use super::data::{Batch, Data};
use super::memory;
use super::optimizer::{AdamW, Optimizer, Sum, clip_factor, norm};
use super::plan::Plan;
use super::progress::{Evaluation, Passed, Progress};
use super::schedule::{Decay, Schedule};
use super::step::{Choice, Step};
use super::treatment::Treatments;
use crate::cancel::{Cancel, Cancelled};
use crate::model::directory::ModelDirectory;
use crate::model::weights::Weights;
use crate::runtime::Runtime;
use crate::runtime::device::Device;

/// Settings of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub choice: Choice,
    pub epochs: usize,
    /// Batches whose gradients make a step.
    pub accumulation: usize,
    /// Peak learning rate.
    pub lr: f64,
    pub treatments: Treatments,
    pub decay: Decay,
    pub warmup: Warmup,
    /// 0 switches clipping off.
    pub max_grad_norm: f64,
    /// Steps between evaluations; 0 evaluates at the end of each epoch only.
    pub eval_steps: usize,
    /// Evaluations in a row without a better one after which the training ends; 0 for never.
    pub patience: usize,
    /// Steps between checkpoints; 0 for none but those of an interruption.
    pub checkpoint_steps: usize,
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            choice: Choice::default(),
            epochs: 1,
            accumulation: 1,
            lr: 2e-5,
            treatments: Treatments::default(),
            decay: Decay::default(),
            warmup: Warmup::Steps(0),
            max_grad_norm: 1.0,
            eval_steps: 0,
            patience: 0,
            checkpoint_steps: 0,
            seed: 42,
        }
    }
}

/// For how long the learning rate rises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    Steps(usize),
    /// A share of all steps, rounded up, as transformers does.
    Ratio(f64),
}

impl Warmup {
    pub fn steps(self, total: usize) -> usize {
        match self {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) => (total as f64 * ratio).ceil() as usize,
        }
    }
}

/// Where a training works.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub runtime: &'a Runtime,
    /// Whether weights, gradients and moments stay where the graphs run, and are changed there.
    pub stays: bool,
    /// Where it keeps how far it is.
    pub checkpoints: &'a Path,
    pub cancel: &'a Cancel,
}

/// What happens while a training runs.
pub trait Observer {
    /// The training goes on after so many steps.
    fn resumed(&mut self, _progress: &Progress, _total: usize) {}

    /// After every step.
    fn step(&mut self, step: &StepReport);

    /// Whether there is something to judge the weights by.
    fn evaluates(&self) -> bool {
        false
    }

    /// Judges the weights: every figure by name, and the one to choose by. `None` when there is nothing to judge by.
    ///
    /// # Errors
    /// The evaluation fails.
    fn evaluate(&mut self, weights: &Weights, step: usize, total: usize) -> Result<Option<(BTreeMap<String, f64>, f64)>>;

    /// A checkpoint was written after so many steps.
    fn saved(&mut self, _step: usize, _seconds: f64) {}

    /// A line for the log.
    fn note(&mut self, _line: &str) {}

    /// A line for the user.
    fn warn(&mut self, _line: &str) {}
}

/// One step, for logs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepReport {
    /// From 1.
    pub step: usize,
    pub total: usize,
    /// From 1.
    pub epoch: usize,
    #[serde(flatten)]
    pub passed: Passed,
    pub seconds: f64,
}

/// The result of a training.
pub struct Trained {
    /// The best weights by the evaluations, or the last ones when there were none.
    pub weights: Weights,
    pub progress: Progress,
    /// The mean loss of each epoch, of the last one as far as it went.
    pub losses: Vec<f64>,
    /// The numbers of steps after which epochs ended.
    pub epochs: Vec<usize>,
    /// The steps that there would have been without patience.
    pub planned: usize,
}

/// Trains the model of `directory` on `data`. Goes on from the last checkpoint, if there is one, and ends with the same bytes as without the interruption.
///
/// # Errors
/// The weights do not fit, ONNX Runtime fails, the loss stops being a number, or `cancel` is set: how far it is, is kept then.
pub fn train(
    directory: &ModelDirectory,
    initial: &Weights,
    data: &Data,
    settings: &Settings,
    place: Place,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    let mut step = Step::new(directory, initial, &data.tasks(), &settings.choice, place.runtime)?;
    let plan = Plan::new(data.batches(settings.seed, settings.epochs), settings.accumulation);
    let total = plan.total();
    let schedule = Schedule { decay: settings.decay, warmup: settings.warmup.steps(total), total };
    let trained: Vec<&str> = step.parameters().map(|(name, _)| name).collect();
    let treatments = settings.treatments.of(&trained, &step.names())?;
    let adamw = AdamW { weight_decay: settings.treatments.weight_decay, ..AdamW::default() };
    let mut optimizer = None;
    if place.stays {
        step.stay(adamw, &treatments)?;
    } else {
        let shapes = step.parameters().map(|(_, shape)| shape).zip(treatments);
        optimizer = Some(Optimizer::treating(adamw, shapes));
    }
    let mut training = Training {
        settings,
        initial,
        data,
        plan,
        schedule,
        step,
        optimizer,
        sum: Sum::default(),
        progress: Progress::default(),
        best: None,
        checkpoints: Checkpoints::new(place.checkpoints),
        saved: 0,
        epoch: None,
    };
    // Of what the processor has; a GPU says itself when it has too little.
    if place.runtime.device == Device::Cpu {
        let (needs, largest) = memory::needs(&training.step, data, settings, observer.evaluates())?;
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let (fixed, batch) = (gigabytes(needs.fixed), gigabytes(needs.batch));
        observer.note(&format!(
            "estimated memory: {fixed:.2} GB of gradients, moments and copies, {batch:.2} GB for the largest batch"
        ));
        memory::check(&training.step, settings, data.batch_size(), &needs, &largest)?;
    }
    training.resume(observer)?;
    let ended = training.run(place.cancel, observer);
    if ended.as_ref().is_err_and(|error| error.root_cause().is::<Cancelled>()) {
        training.save(observer);
    }
    ended.and_then(|()| training.result())
}

/// A training that is going on. Everything that changes from step to step is in `step`, `optimizer`, `progress` and `best`, which are what a
/// checkpoint holds.
struct Training<'a> {
    settings: &'a Settings,
    initial: &'a Weights,
    data: &'a Data,
    plan: Plan,
    schedule: Schedule,
    step: Step,
    /// `None` when the step has it on a device.
    optimizer: Option<Optimizer>,
    /// The gradients of the step's batches so far.
    sum: Sum,
    progress: Progress,
    /// The best weights so far.
    best: Option<Vec<Vec<f32>>>,
    checkpoints: Checkpoints,
    /// The steps of the last checkpoint.
    saved: usize,
    /// The batches of the present epoch, and its number.
    epoch: Option<(usize, Vec<Batch>)>,
}

impl Training<'_> {
    fn run(&mut self, cancel: &Cancel, observer: &mut dyn Observer) -> Result<()> {
        loop {
            self.evaluate(observer)?;
            let done = self.progress.done();
            if done == self.plan.total() || self.progress.is_exhausted(self.settings.patience) {
                return Ok(());
            }
            let every = self.settings.checkpoint_steps;
            if every > 0 && done.is_multiple_of(every) {
                self.save(observer);
            }
            cancel.check()?;
            self.advance(cancel, observer)?;
        }
    }

    /// One step.
    fn advance(&mut self, cancel: &Cancel, observer: &mut dyn Observer) -> Result<()> {
        let started = Instant::now();
        let done = self.progress.done();
        let portion = self.plan.step(done).context("the training is over")?;
        if self.epoch.as_ref().is_none_or(|(epoch, _)| *epoch != portion.epoch) {
            self.epoch = Some((portion.epoch, self.data.epoch(self.settings.seed, portion.epoch)));
        }
        let batches = self.epoch.as_ref().and_then(|(_, batches)| batches.get(portion.batches.clone()));
        let batches = batches.context("a batch is not there")?.to_vec();
        let lr = self.settings.lr * self.schedule.factor(done);
        let (mut loss, mut tokens, mut grad_norm) = (0.0, 0, 0.0);
        for (number, batch) in batches.iter().enumerate() {
            // What was summed so far is lost, and nothing else has changed.
            cancel.check().inspect_err(|_| self.forget())?;
            let (batch_loss, batch_tokens) = self.batch(batch, &mut grad_norm, (number + 1, batches.len()), lr)?;
            loss += batch_loss / batches.len() as f64;
            tokens += batch_tokens;
            if !(batch_loss.is_finite() && grad_norm.is_finite()) {
                // Half precision ran over: the same step again, with its losses scaled by less.
                if batch_loss.is_finite() && self.step.optimizer().is_some_and(|optimizer| optimizer.overflowed()) {
                    return self.advance(cancel, observer);
                }
                return self.diverged(batch, portion.epoch, portion.batches.start + number, batch_loss, grad_norm, observer);
            }
        }
        let passed = Passed { loss, lr, grad_norm, tokens };
        self.progress.steps.push(passed);
        let seconds = started.elapsed().as_secs_f64();
        observer.step(&StepReport { step: done + 1, total: self.plan.total(), epoch: portion.epoch + 1, passed, seconds });
        Ok(())
    }

    /// Loss and tokens of the batch of this number among so many of a step. With the last of them the weights move, unless something is no
    /// number.
    fn batch(&mut self, batch: &Batch, grad_norm: &mut f64, (number, of): (usize, usize), lr: f64) -> Result<(f64, usize)> {
        let count = self.progress.done() * self.settings.accumulation + number - 1;
        let run = self.step.run(batch.set, &self.data.columns(batch)?, count)?;
        let (loss, tokens) = (f64::from(run.loss), run.tokens);
        let (sum, max_norm) = (&mut self.sum, self.settings.max_grad_norm);
        let Some(optimizer) = &mut self.optimizer else {
            let optimizer = self.step.optimizer().context("there is no optimizer")?;
            *grad_norm = optimizer.norm() / of as f64;
            if number == of && loss.is_finite() && grad_norm.is_finite() {
                optimizer.step(lr, clip_factor(*grad_norm, max_norm) / of as f32)?;
            }
            return Ok((loss, tokens));
        };
        self.step.update(&run, |weights, gradients| {
            if !loss.is_finite() {
                return;
            }
            let move_weights = |gradients: &[super::optimizer::Gradient]| {
                // The gradients are those of the sum of the batches' losses, and wanted are those of the mean.
                *grad_norm = norm(gradients) / of as f64;
                if grad_norm.is_finite() {
                    optimizer.step(lr, clip_factor(*grad_norm, max_norm) / of as f32, weights, gradients);
                }
            };
            match (of, number == of) {
                (1, _) => move_weights(gradients),
                (_, false) => sum.add(gradients),
                (_, true) => {
                    sum.add(gradients);
                    sum.take(move_weights);
                }
            }
        })?;
        Ok((loss, tokens))
    }

    /// Ends a training whose loss is no number.
    fn diverged(
        &self,
        batch: &Batch,
        epoch: usize,
        number: usize,
        loss: f64,
        norm: f64,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (step, total) = (self.progress.done() + 1, self.plan.total());
        observer.note(&format!("the texts of batch {} of epoch {}, whose loss is {loss}:", number + 1, epoch + 1));
        for &row in &batch.rows {
            observer.note(&format!("{:?}", self.data.row(batch.set, row)));
        }
        let short = |text: &&str| format!("`{}`", text.chars().take(60).collect::<String>());
        let first = batch.rows.first().map(|&row| self.data.row(batch.set, row));
        let first = first.map(|texts| texts.iter().map(short).collect::<Vec<_>>().join(", "));
        bail!(
            "step {step} of {total}: the loss is {loss} and the gradient's norm {norm}; batch {} of epoch {} begins with {}, and all of its texts \
             are in the stage's log; a lower `lr` or a longer warm-up usually mend this",
            number + 1,
            epoch + 1,
            first.unwrap_or_default()
        );
    }

    /// Evaluates the weights as they are, if that is due.
    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let (done, every) = (self.progress.done(), self.settings.eval_steps);
        let due = done > 0 && (self.plan.ends_epoch(done) || (every > 0 && done.is_multiple_of(every)));
        if !due || self.progress.is_evaluated() {
            return Ok(());
        }
        let weights = self.step.weights(self.initial)?;
        let Some((metrics, score)) = observer.evaluate(&weights, done, self.plan.total())? else { return Ok(()) };
        self.progress.evaluations.push(Evaluation { step: done, metrics, score });
        if self.progress.best() == Some(self.progress.evaluations.len() - 1) {
            self.best = Some(self.step.values()?.into_iter().map(Cow::into_owned).collect());
        }
        Ok(())
    }

    /// Keeps how far it is. A full disk does not end a training for a checkpoint.
    fn save(&mut self, observer: &mut dyn Observer) {
        let done = self.progress.done();
        if done == self.saved {
            return;
        }
        let started = Instant::now();
        match self.keep() {
            Ok(()) => {
                self.saved = done;
                observer.saved(done, started.elapsed().as_secs_f64());
            }
            Err(error) => observer.warn(&format!("the checkpoint of step {done} is not kept: {error:#}; free its disk")),
        }
    }

    /// Writes a checkpoint.
    fn keep(&mut self) -> Result<()> {
        let on_device = self.step.optimizer().map(|optimizer| optimizer.moments()).transpose()?;
        self.progress.loss_scale = self.step.optimizer().and_then(|optimizer| optimizer.scale());
        let values = self.step.values()?;
        let names = self.step.parameters().map(|(name, _)| name);
        let moments: Vec<(&[f32], &[f32])> = match (&self.optimizer, &on_device) {
            (Some(optimizer), _) => optimizer.moments().collect(),
            (None, moments) => moments.iter().flatten().map(|(m, v)| (m.as_slice(), v.as_slice())).collect(),
        };
        self.checkpoints.write(&State {
            weights: names.zip(values.iter().map(Cow::as_ref)).collect(),
            moments,
            best: self.best.as_deref(),
            progress: &self.progress,
        })
    }

    /// Begins the sums of gradients anew.
    fn forget(&mut self) {
        self.sum = Sum::default();
        if let Some(optimizer) = self.step.optimizer() {
            optimizer.forget();
        }
    }

    /// Goes on from the last checkpoint, if there is one.
    fn resume(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let sizes: Vec<(&str, usize)> = self.step.parameters().map(|(name, shape)| (name, shape.iter().product())).collect();
        let Some(restored) = self.checkpoints.last(&sizes, &mut |line| observer.warn(line)) else { return Ok(()) };
        self.step.set_values(&restored.weights)?;
        self.progress = restored.progress;
        self.saved = self.progress.done();
        self.best = restored.best;
        let steps = i32::try_from(self.progress.done()).unwrap_or(i32::MAX);
        if let Some(optimizer) = &mut self.optimizer {
            for ((first, second), kept) in optimizer.resume(steps).zip(&restored.moments) {
                first.copy_from_slice(&kept.0);
                second.copy_from_slice(&kept.1);
            }
        } else if let Some(optimizer) = self.step.optimizer() {
            optimizer.resume(steps, &restored.moments, self.progress.loss_scale)?;
        }
        observer.resumed(&self.progress, self.plan.total());
        Ok(())
    }

    fn result(self) -> Result<Trained> {
        let weights = match &self.best {
            Some(best) => self.step.merged(self.initial, &best.iter().map(Vec::as_slice).collect::<Vec<_>>()),
            None => self.step.weights(self.initial)?,
        };
        let done = self.progress.done();
        let mean = |steps: std::ops::Range<usize>| {
            let passed = self.progress.steps.get(steps.start..steps.end.min(done)).filter(|passed| !passed.is_empty())?;
            Some(passed.iter().map(|step| step.loss).sum::<f64>() / passed.len() as f64)
        };
        let losses = self.plan.epochs().map_while(mean).collect();
        let epochs = self.plan.epochs().map(|steps| steps.end).filter(|end| *end <= done).collect();
        Ok(Trained { weights, losses, epochs, planned: self.plan.total(), progress: self.progress })
    }
}
