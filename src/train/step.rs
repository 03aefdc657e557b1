//! One training step as a graph: tokens to embeddings to loss to the gradient of every weight.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::loss::Loss;
use super::optimizer::{Gradient, Rows};
use crate::model::architecture::Parameter;
use crate::model::directory::ModelDirectory;
use crate::model::sentence;
use crate::model::tokenizer::{Tokenizer, Tokens};
use crate::model::weights::Weights;
use crate::onnx::{self, Graph, differentiate};
use crate::runtime::trainable::{Outputs, Trainable};

/// Where the gradient of a weight is found after a run.
enum Place {
    /// In the in-place output of this number.
    Fixed(usize),
    /// In these outputs: entries, and their rows.
    Rows { outputs: Vec<(String, String)>, width: usize },
    /// The loss does not depend on the weight.
    Nowhere,
}

/// The graph of a step with the weights in training.
pub struct Step {
    graph: Trainable,
    tokenizer: Tokenizer,
    directory: ModelDirectory,
    parameters: Vec<Parameter>,
    places: Vec<Place>,
    columns: usize,
}

/// What one run yields; the gradients lie in the graph's buffers until the next run.
pub struct Run {
    pub loss: f32,
    /// Tokens that are not padding.
    pub tokens: usize,
    outputs: Outputs,
}

impl Step {
    /// Builds and differentiates the graph and hands it to ONNX Runtime.
    ///
    /// # Errors
    /// The weights do not fit the configuration, or ONNX Runtime cannot be had.
    pub fn new(directory: &ModelDirectory, weights: &Weights, loss: &Loss, downloads: &Path) -> Result<Self> {
        let g = Graph::new();
        let sentence = sentence::build(&g, directory)?;
        sentence::check(&sentence.encoder, directory, weights)?;
        let parameters = sentence.encoder.parameters;
        let columns = loss.formula().columns();
        let value = loss.formula().build(&g, &sentence::columns(&g, sentence.embeddings, columns));
        let gradients = differentiate(&g, value, &parameters.iter().map(|p| p.value).collect::<Vec<_>>())?;
        g.output("loss", value);
        let mut free = vec!["loss".to_owned()];
        let mut fixed = Vec::new();
        let mut places = Vec::new();
        for (parameter, gradient) in parameters.iter().zip(gradients) {
            places.push(match gradient {
                onnx::Gradient::Zero => Place::Nowhere,
                onnx::Gradient::Dense(value) => {
                    let name = format!("gradient:{}", parameter.name);
                    g.output(&name, value);
                    fixed.push((name, parameter.shape.clone()));
                    Place::Fixed(fixed.len() - 1)
                }
                onnx::Gradient::Rows(pieces) => {
                    let mut outputs = Vec::new();
                    for (i, (ids, rows)) in pieces.into_iter().enumerate() {
                        let names = (format!("ids:{}:{i}", parameter.name), format!("rows:{}:{i}", parameter.name));
                        g.output(&names.0, ids);
                        g.output(&names.1, rows);
                        free.extend([names.0.clone(), names.1.clone()]);
                        outputs.push(names);
                    }
                    Place::Rows { outputs, width: parameter.shape.last().copied().unwrap_or(1) }
                }
            });
        }
        let initial = parameters.iter().filter_map(|p| {
            let (shape, data) = weights.get(&p.name)?;
            Some((p.name.as_str(), shape, data))
        });
        let graph = Trainable::open(&g.to_model()?, initial, &fixed, free, downloads)?;
        let tokenizer = Tokenizer::open(&directory.path, directory.max_seq_length)?;
        Ok(Step { graph, tokenizer, directory: directory.clone(), parameters, places, columns })
    }

    /// The weights in training: name and shape.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.parameters.iter().map(|p| (p.name.as_str(), p.shape.as_slice()))
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Loss and gradients of a batch: `columns[c][i]` is the text of column `c` of example `i`.
    ///
    /// # Errors
    /// ONNX Runtime fails.
    pub fn run(&mut self, columns: &[Vec<&Tokens>]) -> Result<Run> {
        ensure!(columns.len() == self.columns, "the loss wants {} columns of texts, not {}", self.columns, columns.len());
        let batch = self.tokenizer.batch(&columns.concat(), self.directory.pooling);
        let outputs = self.graph.run(&batch.inputs())?;
        let loss = *outputs.floats("loss")?.1.first().context("the loss is empty")?;
        Ok(Run { loss, tokens: batch.tokens(), outputs })
    }

    /// Hands weights and gradients, both in the order of [`Step::parameters`], to `update`. Weights that the loss does not
    /// depend on come with a gradient without rows.
    ///
    /// # Errors
    /// An output is missing, which a graph of ours has.
    pub fn update<T>(&mut self, run: &Run, update: impl FnOnce(Vec<&mut [f32]>, &[Gradient]) -> T) -> Result<T> {
        let (weights, fixed) = self.graph.weights_and_outputs();
        let mut gradients = Vec::with_capacity(self.places.len());
        for (place, parameter) in self.places.iter().zip(&self.parameters) {
            gradients.push(match place {
                Place::Fixed(i) => Gradient::Dense(fixed[*i]),
                Place::Nowhere => Gradient::Rows(Rows::new(parameter.shape.last().copied().unwrap_or(1))),
                Place::Rows { outputs, width } => {
                    let mut rows = Rows::new(*width);
                    for (ids, values) in outputs {
                        rows.add(run.outputs.integers(ids)?, run.outputs.floats(values)?.1);
                    }
                    Gradient::Rows(rows)
                }
            });
        }
        Ok(update(weights, &gradients))
    }

    /// `weights` with those in training replaced by their present values.
    pub fn weights(&self, weights: &Weights) -> Weights {
        let mut present = weights.clone();
        for (name, data) in self.graph.weights() {
            if let Some(to) = present.get_mut(name) {
                to.copy_from_slice(data);
            }
        }
        present
    }
}
