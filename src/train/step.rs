//! One training step: the loss of a batch and the gradient of every weight in training.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::choice::Choice;
use super::data::Columns;
use super::gradcache::Parts;
use super::graphs::{self, Differentiated, Names, OfEmbeddings, Shared, Task};
use super::lora;
use super::optimizer::{Gradient, Sum};
use crate::model::batch::Batch;
use crate::model::builder::{Additions, Parameter};
use crate::model::directory::ModelDirectory;
use crate::model::sentence;
use crate::model::weights::Weights;
use crate::onnx::Operators;
use crate::runtime::trainable::{Buffers, Outputs, Parameters};

/// The weights in training, and the graphs that differentiate losses with respect to them.
pub struct Step {
    shared: Shared,
    /// Name and shape of each.
    trained: Vec<(String, Vec<usize>)>,
    /// Of all weights, in the order in which the encoder uses them.
    names: Vec<String>,
    /// What adapters are multiplied by.
    scale: f32,
    tasks: Vec<Graphs>,
    /// Which of the tasks each data set has: sets that are learnt from alike share graphs.
    task_of: Vec<usize>,
    parts: Option<Parts>,
    /// Of a batch that went through the model in parts.
    sum: Sum,
    /// Tokens that go through the model at once; 0 for those of the whole batch.
    mini_batch_tokens: usize,
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
    /// Prepares to learn from data sets, `tasks` in their order. Weights that are not chosen stay as they are. Batches of more than
    /// `mini_batch_tokens` tokens go through the model in parts (see [`super::gradcache`]), unless that is 0. The encoder is built of `operators`.
    ///
    /// # Errors
    /// The weights do not fit the configuration, what is chosen is not there, or ONNX Runtime cannot be had.
    pub fn new(
        directory: &ModelDirectory,
        weights: &Weights,
        tasks: &[Task],
        choice: &Choice,
        mini_batch_tokens: usize,
        operators: Operators,
        downloads: &Path,
    ) -> Result<Self> {
        let (own, _) = graphs::parameters(directory, Additions::NONE)?;
        sentence::check(&own, directory, weights)?;
        let additions = choice.additions(&names(&own))?;
        let (parameters, dimensions) = graphs::parameters(directory, &additions)?;
        let chosen = choice.trained(&names(&parameters))?;
        let (mut all, mut trained) = (Vec::new(), Vec::new());
        // The weights in training first: that is the order they are updated in.
        for wanted in [true, false] {
            for (parameter, _) in parameters.iter().zip(&chosen).filter(|(_, chosen)| **chosen == wanted) {
                all.push((parameter, lora::initial(&parameter.name, &parameter.shape, choice.seed)));
                trained.extend(wanted.then(|| (parameter.name.clone(), parameter.shape.clone())));
            }
        }
        let initial = all.iter().filter_map(|(parameter, adapter)| {
            let data = adapter.as_deref().or_else(|| weights.get(&parameter.name).map(|(_, data)| data))?;
            Some((parameter.name.as_str(), parameter.shape.as_slice(), data))
        });
        let shared = Shared {
            directory: directory.clone(),
            additions,
            weights: Parameters::new(initial, downloads)?,
            buffers: Buffers::default(),
            trained: trained.iter().map(|(name, _)| name.clone()).collect(),
            dimensions,
            operators,
            downloads: downloads.to_owned(),
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
        let (names, sum) = (names(&parameters).into_iter().map(str::to_owned).collect(), Sum::default());
        let scale = choice.scale();
        Ok(Step { shared, trained, names, scale, tasks: different, task_of, parts: None, sum, mini_batch_tokens })
    }

    /// The weights in training: name and shape.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.trained.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))
    }

    /// Loss and gradients of a batch of data set `set`.
    ///
    /// # Errors
    /// The batch does not fit the data set's task, or ONNX Runtime fails.
    pub fn run(&mut self, set: usize, batch: &Columns) -> Result<Run> {
        let task = *self.task_of.get(set).context("the data set of a batch is not there")?;
        let graphs = self.tasks.get_mut(task).context("the task of a data set is not there")?;
        let width = graphs.task.columns;
        ensure!(batch.texts.len() == width, "the loss wants {width} columns of texts, not {}", batch.texts.len());
        let tokens = batch.tokens();
        if self.mini_batch_tokens > 0 && tokens > self.mini_batch_tokens {
            let loss = opened(&mut graphs.of_embeddings, || OfEmbeddings::open(&graphs.task, &mut self.shared))?;
            let parts = opened(&mut self.parts, || Parts::open(&mut self.shared))?;
            // A sum that nobody took, or that an error left half-way, does not count.
            self.sum = Sum::default();
            let loss = parts.run(loss, batch, self.mini_batch_tokens, &self.shared, &mut self.sum)?;
            return Ok(Run { loss, tokens, found: Found::Sum });
        }
        let graph = opened(&mut graphs.whole, || graphs::whole(&graphs.task, &mut self.shared))?;
        let texts = Batch::new(&batch.texts.concat(), self.shared.directory.pooling);
        let mut inputs = texts.inputs();
        inputs.extend(graphs.names.inputs(batch));
        let (loss, outputs) = graph.run(&inputs)?;
        Ok(Run { loss, tokens, found: Found::Buffers { task, outputs } })
    }

    /// Hands weights and gradients, both in the order of [`Step::parameters`], to `update`. `run` must be the last one. Weights that the loss does
    /// not depend on come with a gradient without rows.
    ///
    /// # Errors
    /// An output is missing, which a graph of ours has.
    pub fn update<T>(&mut self, run: &Run, update: impl FnOnce(Vec<&mut [f32]>, &[Gradient]) -> T) -> Result<T> {
        let mut weights = self.shared.weights.values_mut();
        weights.truncate(self.trained.len());
        let (task, outputs) = match &run.found {
            Found::Sum => return Ok(self.sum.take(|gradients| update(weights, gradients))),
            Found::Buffers { task, outputs } => (*task, outputs),
        };
        let graph = self.tasks.get(task).and_then(|graphs| graphs.whole.as_ref()).context("the graph of a run is not open")?;
        Ok(update(weights, &graph.gradients(outputs, &self.shared.buffers)?))
    }

    /// The names of all weights, those of adapters among them, in the order in which the encoder uses them.
    pub fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The weights in training, in the order of [`Step::parameters`].
    pub fn values(&self) -> Vec<&[f32]> {
        self.shared.weights.iter().take(self.trained.len()).map(|(_, data)| data).collect()
    }

    /// As [`Step::values`], to be changed in place.
    pub fn values_mut(&mut self) -> Vec<&mut [f32]> {
        let mut values = self.shared.weights.values_mut();
        values.truncate(self.trained.len());
        values
    }

    /// The model's `weights` with those in training replaced by `values`, in the order of [`Step::parameters`], and adapters merged into
    /// theirs.
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

    /// [`Step::merged`] with the present values.
    pub fn weights(&self, weights: &Weights) -> Weights {
        self.merged(weights, &self.values())
    }
}

fn names(parameters: &[Parameter]) -> Vec<&str> {
    parameters.iter().map(|parameter| parameter.name.as_str()).collect()
}

/// What is in `slot`, opened first if it is empty.
fn opened<T>(slot: &mut Option<T>, open: impl FnOnce() -> Result<T>) -> Result<&mut T> {
    let value = match slot.take() {
        Some(value) => value,
        None => open()?,
    };
    Ok(slot.insert(value))
}
