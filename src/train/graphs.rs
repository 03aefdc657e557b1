//! The graphs of a training: from tokens to embeddings to a loss to the gradient of every weight, whole or in parts. All of them share
//! the weights and the buffers that gradients are written into.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result, anyhow, ensure};

use super::data::Columns;
use super::device::{self, Form, Gather};
use super::lora::Targets;
use super::loss::{self, Loss};
use super::optimizer::{Gradient, Rows};
use crate::model::batch::Batch;
use crate::model::builder::{Additions, Dropout, Parameter};
use crate::model::directory::ModelDirectory;
use crate::model::sentence::{self, SentenceEncoder};
use crate::onnx::{self, DataType, Graph, Operators, Value, differentiate, settle};
use crate::runtime::Runtime;
use crate::runtime::session::Input;
use crate::runtime::trainable::{Buffers, Outputs, Parameters, Trainable};
use crate::shape;

const LOSS: &str = "loss";
const LOSS_SCALE: &str = "loss scale";
const LABELS: &str = "labels";
const EMBEDDINGS: &str = "embeddings";
const UPSTREAM: &str = "upstream";

/// What a graph with a loss is built for.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub loss: Loss,
    /// Texts a row.
    pub columns: usize,
    /// Labels a row that the loss looks at.
    pub labels: usize,
    /// The length of the guide's vectors, if there is a guide.
    pub guide: Option<usize>,
}

/// A weight of the encoder, or of an adapter beside one of its layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    pub name: String,
    pub shape: Vec<usize>,
    pub is_trained: bool,
}

/// What all graphs have in common.
pub struct Shared {
    pub directory: ModelDirectory,
    /// Which layers have adapters.
    pub targets: Option<Targets>,
    pub dropout: Dropout,
    /// In the order in which the encoder uses them.
    pub weights: Vec<Weight>,
    /// Their values.
    pub values: Parameters,
    pub buffers: Buffers,
    /// The length of an embedding.
    pub dimensions: usize,
    /// What the encoder is built of.
    pub operators: Operators,
    pub runtime: Runtime,
    /// Whether gradients stay on the device, for [`device::Optimizer`].
    pub stays: bool,
    /// The type of half the width that products are computed in, if any.
    pub half: Option<DataType>,
}

impl Shared {
    /// A graph for the encoder.
    fn graph(&self) -> Graph {
        Graph::with(self.operators)
    }

    /// From tokens to embeddings.
    fn sentence(&self, g: &Graph) -> Result<SentenceEncoder> {
        sentence(g, &self.directory, self.targets.as_ref(), self.dropout)
    }

    /// Those of a graph's `parameters` that are trained.
    fn trained<'a>(&self, parameters: &'a [Parameter]) -> Vec<&'a Parameter> {
        parameters.iter().zip(&self.weights).filter(|(_, weight)| weight.is_trained).map(|(parameter, _)| parameter).collect()
    }

    fn open(&mut self, g: &Graph, free: Vec<String>) -> Result<Trainable> {
        Trainable::open(&g.to_model()?, &self.values, &mut self.buffers, free, &self.runtime)
    }
}

/// From tokens to embeddings, with adapters beside the layers of `targets`, and dropout.
pub fn sentence(g: &Graph, directory: &ModelDirectory, targets: Option<&Targets>, dropout: Dropout) -> Result<SentenceEncoder> {
    let adapters = |layer: &str| targets.and_then(|targets| targets.of(layer));
    sentence::build(g, directory, Additions { adapters: Some(&adapters), dropout })
}

/// Where the gradient of a weight is found after a run.
enum Place {
    /// In the buffer of this name.
    Dense(String),
    /// In these outputs: entries, and their rows.
    Rows { outputs: Vec<(String, String)>, width: usize },
    /// The loss does not depend on the weight.
    Nowhere { width: usize },
}

/// A graph that ends in the gradients of the weights in training.
pub struct Differentiated {
    graph: Trainable,
    places: Vec<Place>,
    /// What adds its gradients up on the device.
    gather: Option<Gather>,
}

impl Differentiated {
    /// Differentiates `value` and hands the graph to ONNX Runtime. Products of the nodes `exact` stay in single precision.
    fn open(g: &Graph, value: Value, exact: Range<usize>, parameters: &[Parameter], shared: &mut Shared) -> Result<Self> {
        let trained = shared.trained(parameters);
        let scaled =
            if shared.half == Some(DataType::F16) { g.mul(value, g.input(LOSS_SCALE, DataType::F32, Vec::new())) } else { value };
        let gradients = differentiate(g, scaled, &trained.iter().map(|p| p.value).collect::<Vec<_>>())?;
        g.output(LOSS, value);
        let mut free = vec![LOSS.to_owned()];
        let mut places = Vec::new();
        // Tables that are added up, as of tokens and of positions, have the same rows.
        let mut known: HashMap<Value, String> = HashMap::new();
        for (parameter, gradient) in trained.iter().zip(gradients) {
            let width = parameter.shape.last().copied().unwrap_or(1);
            places.push(match gradient {
                onnx::Gradient::Zero => Place::Nowhere { width },
                onnx::Gradient::Dense(value) => {
                    let name = format!("gradient:{}", parameter.name);
                    g.output(&name, value);
                    shared.buffers.add(&name, &parameter.shape, &shared.runtime)?;
                    Place::Dense(name)
                }
                onnx::Gradient::Rows(pieces) => {
                    let mut outputs = Vec::new();
                    for (i, (ids, rows)) in pieces.into_iter().enumerate() {
                        let mut name = |what: &str, value: Value| {
                            let new = || {
                                let name = format!("{what}:{}:{i}", parameter.name);
                                g.output(&name, value);
                                free.push(name.clone());
                                name
                            };
                            known.entry(value).or_insert_with(new).clone()
                        };
                        outputs.push((name("ids", ids), name("rows", rows)));
                    }
                    Place::Rows { outputs, width }
                }
            });
        }
        settle(g, shared.half, parameters.iter().map(|p| p.value), exact);
        let rows = places.iter().filter_map(|place| if let Place::Rows { outputs, .. } = place { Some(outputs) } else { None });
        let kept = if shared.stays { rows.flatten().map(|(_, rows)| rows.clone()).collect() } else { Vec::new() };
        let graph = shared.open(g, free)?.keeping(kept);
        Ok(Differentiated { graph, places, gather: None })
    }

    /// The value that was differentiated, and the outputs that hold gradients until the next run of a graph.
    /// The gradients are those of the value times `scale`, where it is differentiated in half precision.
    pub fn run<'a>(&mut self, mut inputs: Vec<Input<'a>>, scale: &'a f32) -> Result<(f32, Outputs)> {
        inputs.push(Input::floats(LOSS_SCALE, &[], std::slice::from_ref(scale)));
        let outputs = self.graph.run(&inputs)?;
        let value = *outputs.floats(LOSS)?.first().context("the loss is empty")?;
        Ok((value, outputs))
    }

    /// Adds the gradients of a run to the sums of an optimizer on the device.
    pub fn add_to(&mut self, optimizer: &mut device::Optimizer, outputs: &Outputs, buffers: &Buffers) -> Result<()> {
        let form = |place: &Place| match place {
            Place::Dense(name) => Form::Dense(name.clone()),
            Place::Rows { outputs, .. } => Form::Rows(outputs.clone()),
            Place::Nowhere { .. } => Form::Nowhere,
        };
        let gather = match self.gather.take() {
            Some(gather) => gather,
            None => optimizer.gather(&self.places.iter().map(form).collect::<Vec<_>>(), buffers)?,
        };
        optimizer.add(self.gather.insert(gather), outputs)
    }

    /// The gradients after a run, of the weights in training in their order. Of weights that the loss does not depend on they have no rows.
    pub fn gradients<'a>(&self, outputs: &Outputs, buffers: &'a Buffers) -> Result<Vec<Gradient<'a>>> {
        let gradient = |place: &Place| match place {
            Place::Dense(name) => Ok(Gradient::Dense(buffers.get(name)?)),
            Place::Nowhere { width } => Ok(Gradient::Rows(Rows::new(*width))),
            Place::Rows { outputs: names, width } => {
                let mut rows = Rows::new(*width);
                for (ids, values) in names {
                    rows.add(outputs.integers(ids)?, outputs.floats(values)?);
                }
                Ok(Gradient::Rows(rows))
            }
        };
        self.places.iter().map(gradient).collect()
    }
}

/// From tokens to the gradients of a loss in one graph.
pub fn whole(task: &Task, shared: &mut Shared) -> Result<Differentiated> {
    let (g, parameters, value, of_loss) = with_loss(task, shared)?;
    Differentiated::open(&g, value, of_loss, &parameters, shared)
}

/// From tokens to a loss: the graph, the weights it asks for, the loss, and the nodes that it adds to the encoder's.
fn with_loss(task: &Task, shared: &Shared) -> Result<(Graph, Vec<Parameter>, Value, Range<usize>)> {
    let g = shared.graph();
    let sentence = shared.sentence(&g)?;
    let encoder = g.count();
    let columns = sentence::columns(&g, sentence.embeddings, task.columns);
    let value = loss(&g, task, columns)?;
    let of_loss = encoder..g.count();
    Ok((g, sentence.parameters, value, of_loss))
}

/// How much there is in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: usize,
    pub texts: usize,
    /// Tokens of the longest text.
    pub longest: usize,
    /// Of all texts.
    pub tokens: usize,
}

impl Size {
    /// With so many times as many rows.
    pub fn times(&self, share: f64) -> Self {
        let part = |count: usize| ((count as f64 * share).ceil() as usize).max(1);
        Size { rows: part(self.rows), texts: part(self.texts), longest: self.longest, tokens: part(self.tokens) }
    }

    /// The size of a symbol of the graphs.
    fn of(&self, symbol: &str) -> usize {
        match symbol {
            "rows" => self.texts,
            "batch" => self.rows,
            "seq" => self.longest,
            "places" => self.texts * self.longest,
            "starts" => self.texts + 1,
            _ => self.tokens,
        }
    }
}

/// The bytes that the values of the graph of [`whole`] take at most, besides weights and their gradients.
pub fn peak(task: &Task, shared: &Shared, size: &Size) -> Result<u64> {
    let g = outline(task, shared)?;
    let size = |symbol: &str| size.of(symbol);
    // An input of the run before stays bound until that of the next takes its place.
    Ok(g.peak(&size) + 2 * g.given(&size))
}

/// The graph of [`whole`] that nothing runs.
pub fn outline(task: &Task, shared: &Shared) -> Result<Graph> {
    let (g, parameters, value, _) = with_loss(task, shared)?;
    let trained: Vec<Value> = shared.trained(&parameters).into_iter().map(|p| p.value).collect();
    for gradient in differentiate(&g, value, &trained)? {
        match gradient {
            onnx::Gradient::Dense(value) => g.output("gradient", value),
            onnx::Gradient::Rows(pieces) => pieces.into_iter().for_each(|(_, rows)| g.output("rows", rows)),
            onnx::Gradient::Zero => {}
        }
    }
    settle(&g, None, std::iter::empty(), 0..0);
    Ok(g)
}

/// From tokens to embeddings.
pub fn forward(shared: &mut Shared) -> Result<Trainable> {
    let g = shared.graph();
    let sentence = shared.sentence(&g)?;
    g.output(EMBEDDINGS, sentence.embeddings);
    settle(&g, shared.half, sentence.parameters.iter().map(|p| p.value), 0..0);
    shared.open(&g, vec![EMBEDDINGS.to_owned()])
}

/// The embeddings of a batch `[texts, dimensions]` by a graph of [`forward`].
pub fn embed(graph: &mut Trainable, batch: &Batch) -> Result<Vec<f32>> {
    Ok(graph.run(&batch.inputs())?.floats(EMBEDDINGS)?.to_vec())
}

/// From tokens and the gradients of a loss with respect to the embeddings to those with respect to the weights.
pub fn backward(shared: &mut Shared) -> Result<Differentiated> {
    let g = shared.graph();
    let sentence = shared.sentence(&g)?;
    let upstream = g.input(UPSTREAM, DataType::F32, g.shape(sentence.embeddings));
    // The gradient of this sum is the chain rule.
    let along = g.sum(g.sum(g.mul(sentence.embeddings, upstream), -1), 0);
    Differentiated::open(&g, g.reshape(along, Vec::new()), 0..0, &sentence.parameters, shared)
}

/// The inputs of a graph of [`backward`]; `upstream` is `[texts, dimensions]`.
pub fn backward_inputs<'a>(batch: &'a Batch, upstream: &'a [f32], dimensions: usize) -> Vec<Input<'a>> {
    let mut inputs = batch.inputs();
    inputs.push(Input::floats(UPSTREAM, &[batch.rows(), dimensions], upstream));
    inputs
}

/// A loss of embeddings that are given.
pub struct OfEmbeddings {
    graph: Trainable,
    names: Names,
    columns: Vec<String>,
    gradients: Vec<String>,
}

impl OfEmbeddings {
    pub fn open(task: &Task, shared: &mut Shared) -> Result<Self> {
        let g = Graph::new();
        let columns: Vec<String> = (0..task.columns).map(|c| format!("column:{c}")).collect();
        let gradients: Vec<String> = (0..task.columns).map(|c| format!("gradient of column:{c}")).collect();
        let values: Vec<Value> =
            columns.iter().map(|name| g.input(name, DataType::F32, shape!["batch", shared.dimensions])).collect();
        let value = loss(&g, task, values.clone())?;
        let mut free = vec![LOSS.to_owned()];
        for ((gradient, name), &value) in differentiate(&g, value, &values)?.into_iter().zip(&gradients).zip(&values) {
            let gradient = match gradient {
                onnx::Gradient::Dense(gradient) => gradient,
                _ => g.scale(value, 0.0),
            };
            g.output(name, gradient);
            free.push(name.clone());
        }
        g.output(LOSS, value);
        let graph = shared.open(&g, free)?;
        Ok(OfEmbeddings { graph, names: Names::new(task), columns, gradients })
    }

    /// The loss, and its gradients with respect to each column of `embeddings`, all `[rows, dimensions]`.
    pub fn run(&mut self, batch: &Columns, embeddings: &[Vec<f32>], dimensions: usize) -> Result<(f32, Vec<Vec<f32>>)> {
        let rows = batch.rows();
        let mut inputs = self.names.inputs(batch);
        inputs.extend(self.columns.iter().zip(embeddings).map(|(name, data)| Input::floats(name, &[rows, dimensions], data)));
        let outputs = self.graph.run(&inputs)?;
        let gradients = self.gradients.iter().map(|name| Ok(outputs.floats(name)?.to_vec())).collect::<Result<_>>()?;
        Ok((*outputs.floats(LOSS)?.first().context("the loss is empty")?, gradients))
    }
}

/// The names of a loss's graph inputs.
pub struct Names {
    guides: Vec<String>,
}

impl Names {
    pub fn new(task: &Task) -> Self {
        let guides = task.guide.map_or(0, |_| task.columns);
        Names { guides: (0..guides).map(|c| format!("guide:{c}")).collect() }
    }

    /// Labels and the vectors of a guide.
    pub fn inputs<'a>(&'a self, batch: &'a Columns) -> Vec<Input<'a>> {
        let rows = batch.rows();
        let matrix = |name: &'a str, data: &'a [f32]| Input::floats(name, &[rows, data.len() / rows.max(1)], data);
        let mut inputs = vec![matrix(LABELS, &batch.labels)];
        inputs.extend(self.guides.iter().zip(&batch.guides).map(|(name, data)| matrix(name, data)));
        inputs
    }
}

/// The loss of `columns`, with the graph inputs that [`Names`] names.
fn loss(g: &Graph, task: &Task, columns: Vec<Value>) -> Result<Value> {
    let formula = task.loss.formula();
    let needs = formula.needs();
    ensure!(needs.texts.contains(&columns.len()), "the loss `{}` cannot be computed of {} columns", needs.loss, columns.len());
    ensure!(!needs.labels.are_wanted() || task.labels > 0, "the loss `{}` cannot be computed without labels", needs.loss);
    ensure!(!formula.is_guided() || task.guide.is_some(), "the loss `{}` cannot be computed without a guide", needs.loss);
    formula.fits(columns.first().map_or(0, |&column| g.last(column))).map_err(|problem| anyhow!("{problem}"))?;
    let labels = needs.labels.are_wanted().then(|| g.input(LABELS, DataType::F32, shape!["batch", task.labels]));
    let names = Names::new(task);
    let guides = match task.guide {
        Some(length) if formula.is_guided() => {
            names.guides.iter().map(|name| g.input(name, DataType::F32, shape!["batch", length])).collect()
        }
        _ => Vec::new(),
    };
    Ok(formula.build(g, &loss::Inputs { columns, labels, guides }))
}
