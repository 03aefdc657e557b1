//! One training step: the loss of a batch and the gradient of every weight in training.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};

use super::data::Columns;
use super::device;
use super::gradcache::{Parts, Summing};
use super::graphs::{self, Differentiated, Names, OfEmbeddings, Shared, Size, Task, Weight};
use super::lora::{self, Lora};
use super::optimizer::{AdamW, Gradient, Sum, Treatment};
use super::select::Selection;
use crate::model::batch::Batch;
use crate::model::builder::{Dropout, Parameter};
use crate::model::directory::ModelDirectory;
use crate::model::sentence;
use crate::model::weights::Weights;
use crate::onnx::{DataType, Graph, Operators};
use crate::runtime::Runtime;
use crate::runtime::precision::Precision;
use crate::runtime::trainable::{Buffers, Outputs, Parameters};

/// What is trained of a model, and how.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    pub train: Selection,
    /// In place of the model's own weights.
    pub lora: Option<Lora>,
    pub dropout: Dropout,
    /// Of what adapters begin with, and of what dropout leaves out.
    pub seed: u64,
    /// Tokens that go through the model at once: batches of more go through it in parts (see [`super::gradcache`]). 0 for those of the whole batch.
    pub mini_batch_tokens: usize,
    pub precision: Precision,
}

/// The weights in training, and the graphs that differentiate losses with respect to them.
pub struct Step {
    shared: Shared,
    /// What adapters are multiplied by.
    scale: f32,
    tasks: Vec<Graphs>,
    /// Which of the tasks each data set has: sets that are learnt from alike share graphs.
    task_of: Vec<usize>,
    parts: Option<Parts>,
    /// When weights, gradients and moments lie on a device.
    device: Option<device::Optimizer>,
    /// Of a batch that went through the model in parts.
    sum: Sum,
    /// Whether there is something in it.
    is_summed: bool,
    /// Tokens that go through the model at once; 0 for those of the whole batch.
    mini_batch_tokens: usize,
    seed: u64,
}

/// The graphs of one task, opened when they are wanted first.
struct Graphs {
    task: Task,
    names: Names,
    whole: Option<Differentiated>,
    of_embeddings: Option<OfEmbeddings>,
}

/// What a run yields.
pub struct Run {
    pub loss: f32,
    /// Tokens of all texts.
    pub tokens: usize,
    found: Found,
}

/// Where the gradients lie.
enum Found {
    /// In the buffers, and in outputs of the graph of this task.
    Buffers { task: usize, outputs: Outputs },
    /// In [`Step::sum`].
    Sum,
}

impl Step {
    /// Prepares to learn from data sets, `tasks` in their order.
    ///
    /// # Errors
    /// The weights do not fit the configuration, what is chosen is not there, or ONNX Runtime cannot be had.
    pub fn new(
        directory: &ModelDirectory,
        weights: &Weights,
        tasks: &[Task],
        choice: &Choice,
        runtime: impl Into<Runtime>,
    ) -> Result<Self> {
        let runtime = runtime.into();
        let targets = choice.lora.as_ref().map(Lora::targets).transpose()?;
        choice.precision.check(&runtime.device)?;
        let operators = choice.precision.operators(&runtime.device);
        let g = Graph::with(operators);
        let sentence = graphs::sentence(&g, directory, targets.as_ref(), choice.dropout)?;
        let dimensions = g.last(sentence.embeddings);
        let adapters: Vec<Option<Vec<f32>>> =
            sentence.parameters.iter().map(|p| lora::initial(&p.name, &p.shape, choice.seed)).collect();
        let own = sentence.parameters.iter().zip(&adapters).filter(|(_, adapter)| adapter.is_none()).map(|(p, _)| p.clone());
        sentence::check(&own.collect::<Vec<_>>(), directory, weights)?;
        let names: Vec<&str> = sentence.parameters.iter().map(|p| p.name.as_str()).collect();
        let trained = match &targets {
            Some(targets) => {
                targets.check(&names)?;
                adapters.iter().map(Option::is_some).collect()
            }
            None => choice.train.choose(&names)?,
        };
        let initial = sentence.parameters.iter().zip(&adapters).filter_map(|(p, adapter)| {
            let data = adapter.as_deref().or_else(|| weights.get(&p.name).map(|(_, data)| data))?;
            Some((p.name.as_str(), p.shape.as_slice(), data))
        });
        let values = Parameters::new(initial, &runtime)?;
        let weight = |(p, is_trained): (&Parameter, bool)| Weight { name: p.name.clone(), shape: p.shape.clone(), is_trained };
        let shared = Shared {
            directory: directory.clone(),
            targets,
            dropout: choice.dropout,
            weights: sentence.parameters.iter().zip(trained).map(weight).collect(),
            values,
            buffers: Buffers::default(),
            dimensions,
            operators,
            half: choice.precision.half(&runtime.device),
            runtime,
            stays: false,
        };
        let mut different: Vec<Graphs> = Vec::new();
        let mut task_of = Vec::new();
        for task in tasks {
            let known = different.iter().position(|graphs| graphs.task == *task);
            task_of.push(known.unwrap_or(different.len()));
            if known.is_none() {
                different.push(Graphs { task: task.clone(), names: Names::new(task), whole: None, of_embeddings: None });
            }
        }
        let scale = choice.lora.as_ref().map_or(0.0, |lora| (lora.alpha / lora.rank as f64) as f32);
        let mini_batch_tokens = choice.mini_batch_tokens;
        Ok(Step {
            shared,
            scale,
            tasks: different,
            task_of,
            parts: None,
            device: None,
            sum: Sum::default(),
            is_summed: false,
            mini_batch_tokens,
            seed: choice.seed,
        })
    }

    /// The weights in training: name and shape.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.shared.weights.iter().filter(|w| w.is_trained).map(|w| (w.name.as_str(), w.shape.as_slice()))
    }

    /// The names of all weights of the graph, in the order in which the encoder uses them.
    pub fn names(&self) -> Vec<&str> {
        self.shared.weights.iter().map(|w| w.name.as_str()).collect()
    }

    /// The weights in training, in the order of [`Step::parameters`]; copied when they lie on a device.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn values(&self) -> Result<Vec<Cow<'_, [f32]>>> {
        let trained = self.shared.weights.iter().filter(|weight| weight.is_trained);
        trained.map(|weight| self.shared.values.tensor(&weight.name)?.read()).collect()
    }

    /// Puts other values in place of those of the weights in training, in the order of [`Step::parameters`].
    ///
    /// # Errors
    /// They do not fit, or the device does not answer.
    pub fn set_values(&mut self, values: &[Vec<f32>]) -> Result<()> {
        let trained = self.shared.weights.iter().filter(|weight| weight.is_trained);
        trained.zip(values).try_for_each(|(weight, data)| self.shared.values.tensor_mut(&weight.name)?.write(data))
    }

    /// From now on the graphs, which are of released operators alone, leave the gradients where they run, and so do the moments of an AdamW that moves the weights there, each treated as
    /// told. [`Step::run`] adds gradients up, and [`Step::optimizer`] moves the weights, in place of [`Step::update`].
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn stay(&mut self, settings: AdamW, treatments: &[Treatment]) -> Result<()> {
        let trained = self.shared.weights.iter().filter(|weight| weight.is_trained).zip(treatments);
        let weights = trained.map(|(weight, treatment)| (weight.name.as_str(), weight.shape.as_slice(), *treatment));
        let optimizer = device::Optimizer::new(settings, weights, &mut self.shared.values, &self.shared.runtime)?;
        self.device = Some(if self.shared.half == Some(DataType::F16) { optimizer.scaling_losses() } else { optimizer });
        self.shared.stays = true;
        self.shared.operators = Operators::Released;
        Ok(())
    }

    /// Computes products in a type of half the width, as GPUs do, on any device.
    #[cfg(test)]
    pub fn multiply_in(&mut self, half: DataType) {
        self.shared.half = Some(half);
    }

    /// The optimizer on the device, after [`Step::stay`].
    pub fn optimizer(&mut self) -> Option<&mut device::Optimizer> {
        self.device.as_mut()
    }

    /// Loss and gradients of a batch of data set `set`. What dropout leaves out follows from the seed and `number`, another one for each batch.
    ///
    /// # Errors
    /// The batch does not fit the data set's task, or ONNX Runtime fails.
    pub fn run(&mut self, set: usize, batch: &Columns, number: usize) -> Result<Run> {
        let seed = dropout_seed(self.seed, number);
        let task = *self.task_of.get(set).context("the data set of a batch is not there")?;
        let graphs = self.tasks.get_mut(task).context("the task of a data set is not there")?;
        let width = graphs.task.columns;
        ensure!(batch.texts.len() == width, "the loss wants {width} columns of texts, not {}", batch.texts.len());
        let tokens = batch.tokens();
        if self.mini_batch_tokens > 0 && tokens > self.mini_batch_tokens {
            let loss = opened(&mut graphs.of_embeddings, || OfEmbeddings::open(&graphs.task, &mut self.shared))?;
            let parts = opened(&mut self.parts, || Parts::open(&mut self.shared))?;
            // A sum that nobody took, or that an error left half-way, does not count.
            if std::mem::replace(&mut self.is_summed, true) {
                self.sum = Sum::default();
            }
            let sum = match &mut self.device {
                Some(optimizer) => Summing::Device(optimizer),
                None => Summing::Memory(&mut self.sum),
            };
            let loss = parts.run(loss, batch, self.mini_batch_tokens, seed, &self.shared, sum)?;
            return Ok(Run { loss, tokens, found: Found::Sum });
        }
        let graph = opened(&mut graphs.whole, || graphs::whole(&graphs.task, &mut self.shared))?;
        let texts = Batch::new(&batch.texts.concat(), &self.shared.directory.pooling).seeded(seed);
        let mut inputs = texts.inputs();
        inputs.extend(graphs.names.inputs(batch));
        let scale = self.device.as_ref().map_or(1.0, device::Optimizer::loss_scale);
        let (loss, outputs) = graph.run(inputs, &scale)?;
        if let Some(optimizer) = &mut self.device {
            graph.add_to(optimizer, &outputs, &self.shared.buffers)?;
        }
        Ok(Run { loss, tokens, found: Found::Buffers { task, outputs } })
    }

    /// Hands weights and gradients, both in the order of [`Step::parameters`], to `update`. `run` must be the last one. Weights that the loss does
    /// not depend on come with a gradient without rows.
    ///
    /// # Errors
    /// An output is missing, which a graph of ours has.
    pub fn update<T>(&mut self, run: &Run, update: impl FnOnce(Vec<&mut [f32]>, &[Gradient]) -> T) -> Result<T> {
        let weights = values_mut(&mut self.shared.values, &self.shared.weights);
        let (task, outputs) = match &run.found {
            Found::Sum => {
                self.is_summed = false;
                return Ok(self.sum.take(|gradients| update(weights, gradients)));
            }
            Found::Buffers { task, outputs } => (*task, outputs),
        };
        let graph = self.tasks.get(task).and_then(|graphs| graphs.whole.as_ref()).context("the graph of a run is not open")?;
        Ok(update(weights, &graph.gradients(outputs, &self.shared.buffers)?))
    }

    /// The elements of all weights, and of those in training.
    pub fn sizes(&self) -> (usize, usize) {
        let size = |weight: &Weight| weight.shape.iter().product::<usize>();
        let weights = &self.shared.weights;
        (weights.iter().map(size).sum(), weights.iter().filter(|weight| weight.is_trained).map(size).sum())
    }

    /// The nodes of the graph of data set `set`.
    #[cfg(test)]
    pub fn nodes(&self, set: usize) -> Result<usize> {
        Ok(graphs::outline(self.task(set)?, &self.shared)?.count())
    }

    /// The bytes that the values of a batch of data set `set` take at most, when it goes through the model as a whole.
    ///
    /// # Errors
    /// There is no such data set, or its graph cannot be built.
    pub fn peak(&self, set: usize, size: &Size) -> Result<u64> {
        graphs::peak(self.task(set)?, &self.shared, size)
    }

    /// What data set `set` is learnt by.
    fn task(&self, set: usize) -> Result<&Task> {
        let graphs = self.task_of.get(set).and_then(|&task| self.tasks.get(task));
        graphs.map(|graphs| &graphs.task).context("the task of a data set is not there")
    }

    /// The model's `weights` with those in training replaced by `values`, in the order of [`Step::parameters`], and adapters merged.
    pub fn merged(&self, weights: &Weights, values: &[&[f32]]) -> Weights {
        let mut merged = weights.clone();
        let named: Vec<(&str, &[f32])> = self.parameters().map(|(name, _)| name).zip(values.iter().copied()).collect();
        for (name, data) in &named {
            if let Some(to) = merged.get_mut(name) {
                to.copy_from_slice(data);
            }
        }
        lora::merge(&mut merged, &named, self.scale);
        merged
    }

    /// `weights` with those in training replaced by their present values.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn weights(&self, weights: &Weights) -> Result<Weights> {
        let values = self.values()?;
        Ok(self.merged(weights, &values.iter().map(Cow::as_ref).collect::<Vec<_>>()))
    }
}

/// The values of those of `weights` that are trained.
fn values_mut<'a>(values: &'a mut Parameters, weights: &[Weight]) -> Vec<&'a mut [f32]> {
    values.values_mut().into_iter().zip(weights).filter(|(_, weight)| weight.is_trained).map(|(data, _)| data).collect()
}

/// The seed of dropout of batch `number`.
fn dropout_seed(seed: u64, number: usize) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dropout").update(&seed.to_le_bytes()).update(&(number as u64).to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    i64::from_le_bytes(bytes)
}

/// What is in `slot`, opened first if it is empty.
fn opened<T>(slot: &mut Option<T>, open: impl FnOnce() -> Result<T>) -> Result<&mut T> {
    let value = match slot.take() {
        Some(value) => value,
        None => open()?,
    };
    Ok(slot.insert(value))
}
