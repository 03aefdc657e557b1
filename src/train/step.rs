//! One training step: the loss of a batch and the gradient of every weight in training.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::data::Columns;
use super::gradcache::Parts;
use super::graphs::{self, Differentiated, Names, OfEmbeddings, Shared, Task};
use super::optimizer::{Gradient, Sum};
use crate::model::batch::Batch;
use crate::model::directory::ModelDirectory;
use crate::model::sentence;
use crate::model::weights::Weights;
use crate::runtime::trainable::{Buffers, Outputs, Parameters};

/// The weights in training, and the graphs that differentiate losses with respect to them.
pub struct Step {
    shared: Shared,
    /// Name and shape of each.
    trained: Vec<(String, Vec<usize>)>,
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
    /// Prepares to learn from data sets, `tasks` in their order. Weights whose name `is_trained` refuses stay as they are. Batches of more than
    /// `mini_batch_tokens` tokens go through the model in parts (see [`super::gradcache`]), unless that is 0.
    ///
    /// # Errors
    /// The weights do not fit the configuration, none is trained, or ONNX Runtime cannot be had.
    pub fn new(
        directory: &ModelDirectory,
        weights: &Weights,
        tasks: &[Task],
        is_trained: &dyn Fn(&str) -> bool,
        mini_batch_tokens: usize,
        downloads: &Path,
    ) -> Result<Self> {
        let (parameters, dimensions) = graphs::parameters(directory)?;
        sentence::check(&parameters, directory, weights)?;
        let trained: Vec<(String, Vec<usize>)> =
            parameters.iter().filter(|p| is_trained(&p.name)).map(|p| (p.name.clone(), p.shape.clone())).collect();
        ensure!(!trained.is_empty(), "no weight is left to be trained");
        // The weights in training first: that is the order they are updated in.
        let names =
            trained.iter().map(|(name, _)| name).chain(parameters.iter().map(|p| &p.name).filter(|name| !is_trained(name)));
        let initial = names.filter_map(|name| {
            let (shape, data) = weights.get(name)?;
            Some((name.as_str(), shape, data))
        });
        let shared = Shared {
            directory: directory.clone(),
            weights: Parameters::new(initial, downloads)?,
            buffers: Buffers::default(),
            trained: trained.iter().map(|(name, _)| name.clone()).collect(),
            dimensions,
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
        Ok(Step { shared, trained, tasks: different, task_of, parts: None, sum: Sum::default(), mini_batch_tokens })
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

    /// `weights` with those in training replaced by their present values.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn weights(&self, weights: &Weights) -> Result<Weights> {
        let mut present = weights.clone();
        for (name, data) in self.shared.weights.values()?.into_iter().take(self.trained.len()) {
            if let Some(to) = present.get_mut(name) {
                to.copy_from_slice(&data);
            }
        }
        Ok(present)
    }
}

/// What is in `slot`, opened first if it is empty.
fn opened<T>(slot: &mut Option<T>, open: impl FnOnce() -> Result<T>) -> Result<&mut T> {
    let value = match slot.take() {
        Some(value) => value,
        None => open()?,
    };
    Ok(slot.insert(value))
}
