//! One training step as a graph: tokens to embeddings to loss to the gradient of every weight.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::lora::{self, Lora};
use super::loss::Loss;
use super::optimizer::{Gradient, Rows};
use super::select::Selection;
use crate::model::batch::Batch;
use crate::model::builder::{Additions, Parameter};
use crate::model::directory::ModelDirectory;
use crate::model::sentence;
use crate::model::tokenizer::{Tokenizer, Tokens};
use crate::model::weights::Weights;
use crate::onnx::{self, Graph, differentiate};
use crate::runtime::trainable::{self, Outputs, Trainable};

/// Where the gradient of a weight is found after a run.
enum Place {
    /// In the in-place output of this number.
    Fixed(usize),
    /// In these outputs: entries, and their rows.
    Rows { outputs: Vec<(String, String)>, width: usize },
    /// The loss does not depend on the weight.
    Nowhere,
}

/// What is trained of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    pub train: Selection,
    /// In place of the model's own weights.
    pub lora: Option<Lora>,
    /// Of what adapters begin with.
    pub seed: u64,
}

/// The graph of a step with the weights in training.
pub struct Step {
    graph: Trainable,
    weights: trainable::Parameters,
    tokenizer: Tokenizer,
    directory: ModelDirectory,
    /// All weights of the graph, and whether they are trained.
    parameters: Vec<(Parameter, bool)>,
    /// Of those that are trained.
    places: Vec<Place>,
    columns: usize,
    /// What adapters are multiplied by.
    scale: f32,
}

/// What one run yields; the gradients lie in the graph's buffers until the next run.
pub struct Run {
    pub loss: f32,
    /// Tokens of all texts.
    pub tokens: usize,
    outputs: Outputs,
}

impl Step {
    /// Builds and differentiates the graph and hands it to ONNX Runtime. All weights are trained.
    ///
    /// # Errors
    /// The weights do not fit the configuration, or ONNX Runtime cannot be had.
    pub fn new(directory: &ModelDirectory, weights: &Weights, loss: &Loss, downloads: &Path) -> Result<Self> {
        Step::choosing(directory, weights, loss, &Choice::default(), downloads)
    }

    /// As [`Step::new`], of a part of the weights: the others are not differentiated.
    ///
    /// # Errors
    /// As [`Step::new`]; what is chosen is not there.
    pub fn choosing(
        directory: &ModelDirectory,
        weights: &Weights,
        loss: &Loss,
        choice: &Choice,
        downloads: &Path,
    ) -> Result<Self> {
        let g = Graph::new();
        let targets = choice.lora.as_ref().map(Lora::targets).transpose()?;
        let of = |layer: &str| targets.as_ref().and_then(|targets| targets.of(layer));
        let sentence = sentence::build(&g, directory, Additions { adapters: Some(&of) })?;
        let own = |p: &&Parameter| lora::initial(&p.name, &p.shape, choice.seed).is_none();
        let parameters = sentence.parameters;
        sentence::check(&parameters.iter().filter(own).cloned().collect::<Vec<_>>(), directory, weights)?;
        let names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
        let trained = match &targets {
            Some(targets) => {
                targets.check(&names)?;
                parameters.iter().map(|p| !own(&p)).collect()
            }
            None => choice.train.choose(&names)?,
        };
        let parameters: Vec<(Parameter, bool)> = parameters.into_iter().zip(trained).collect();
        let columns = loss.formula().columns();
        let value = loss.formula().build(&g, &sentence::columns(&g, sentence.embeddings, columns));
        let learned: Vec<&Parameter> = parameters.iter().filter(|(_, trained)| *trained).map(|(p, _)| p).collect();
        let gradients = differentiate(&g, value, &learned.iter().map(|p| p.value).collect::<Vec<_>>())?;
        g.output("loss", value);
        let mut free = vec!["loss".to_owned()];
        let mut fixed = Vec::new();
        let mut places = Vec::new();
        for (parameter, gradient) in learned.iter().zip(gradients) {
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
        let adapters: Vec<Option<Vec<f32>>> =
            parameters.iter().map(|(p, _)| lora::initial(&p.name, &p.shape, choice.seed)).collect();
        let initial = parameters.iter().zip(&adapters).filter_map(|((p, _), adapter)| {
            let data = adapter.as_deref().or_else(|| weights.get(&p.name).map(|(_, data)| data))?;
            Some((p.name.as_str(), p.shape.as_slice(), data))
        });
        let weights = trainable::Parameters::new(initial, downloads)?;
        let graph = Trainable::open(&g.to_model()?, &weights, &fixed, free, downloads)?;
        let tokenizer = Tokenizer::open(&directory.path, directory.max_seq_length)?;
        let scale = choice.lora.as_ref().map_or(0.0, |lora| (lora.alpha / lora.rank as f64) as f32);
        Ok(Step { graph, weights, tokenizer, directory: directory.clone(), parameters, places, columns, scale })
    }

    /// The weights in training: name and shape.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.parameters.iter().filter(|(_, trained)| *trained).map(|(p, _)| (p.name.as_str(), p.shape.as_slice()))
    }

    /// The names of all weights of the graph, in the order in which the encoder uses them.
    pub fn names(&self) -> Vec<&str> {
        self.parameters.iter().map(|(p, _)| p.name.as_str()).collect()
    }

    /// The weights in training, in the order of [`Step::parameters`].
    pub fn values(&self) -> Vec<&[f32]> {
        let all = self.weights.iter().zip(&self.parameters);
        all.filter(|(_, (_, trained))| *trained).map(|((_, data), _)| data).collect()
    }

    /// As [`Step::values`], to be changed in place.
    pub fn values_mut(&mut self) -> Vec<&mut [f32]> {
        let all = self.weights.values_mut().into_iter().zip(&self.parameters);
        all.filter(|(_, (_, trained))| *trained).map(|(data, _)| data).collect()
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
        let batch = Batch::new(&columns.concat(), self.directory.pooling);
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
        let fixed = self.graph.fixed();
        let learned = self.parameters.iter().filter(|(_, trained)| *trained);
        let mut gradients = Vec::with_capacity(self.places.len());
        for (place, (parameter, _)) in self.places.iter().zip(learned) {
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
        let all = self.weights.values_mut().into_iter().zip(&self.parameters);
        Ok(update(all.filter(|(_, (_, trained))| *trained).map(|(data, _)| data).collect(), &gradients))
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
    pub fn weights(&self, weights: &Weights) -> Weights {
        self.merged(weights, &self.values())
    }
}
