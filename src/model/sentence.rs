//! The graph from token ids to embeddings, for encoding, training and export.

use anyhow::{Result, bail};

use super::builder::{Additions, Builder, Parameter};
use super::directory::ModelDirectory;
use super::layout::Layout;
use super::weights::{self, Weights};
use crate::onnx::{Dim, Graph, Value, settle};
use crate::runtime::device::Device;
use crate::runtime::precision::Precision;
use crate::shape;

/// The encoder with pooling and whatever modules follow.
pub struct SentenceEncoder {
    /// In the order in which the encoder uses them.
    pub parameters: Vec<Parameter>,
    /// `[rows, dimensions]`
    pub embeddings: Value,
}

/// Builds the graph from the inputs of [`Batch::inputs`](super::batch::Batch::inputs) to embeddings.
///
/// # Errors
/// None at present; an encoder that cannot be built has been refused when its directory was opened.
pub fn build(g: &Graph, directory: &ModelDirectory, additions: Additions) -> Result<SentenceEncoder> {
    let builder = Builder::with(g, Layout::packed(g), additions);
    let encoded = directory.config.build(&builder);
    let pooled = if directory.config.pooled { encoded } else { directory.pooling.build(&builder, encoded) };
    let embeddings = directory.modules.iter().fold(pooled, |x, module| module.build(&builder, x));
    Ok(SentenceEncoder { parameters: builder.parameters(), embeddings })
}

/// A stand-alone ONNX model from token ids to token vectors, named as transformers' exports are: what goes into `onnx/model.onnx`.
///
/// # Errors
/// A weight is missing or has another shape than the configuration says.
pub fn token_model(directory: &ModelDirectory, weights: &Weights) -> Result<Vec<u8>> {
    let g = Graph::new();
    let builder = Builder::new(&g, Layout::padded(&g));
    let token_vectors = directory.config.build(&builder);
    check(&builder.parameters(), directory, weights)?;
    g.output("last_hidden_state", g.reshape(token_vectors, shape!["rows", "seq", directory.config.hidden_size]));
    Ok(g.to_model_with(|name| weights.get(name).map(|(_, data)| data))?)
}

/// A stand-alone ONNX model from [`Batch::inputs`](super::batch::Batch::inputs) to embeddings, for `device`.
pub(super) fn embedding_model(
    directory: &ModelDirectory,
    weights: &Weights,
    precision: Precision,
    device: &Device,
) -> Result<Vec<u8>> {
    let g = Graph::with(precision.operators(device));
    let sentence = build(&g, directory, Additions::default())?;
    check(&sentence.parameters, directory, weights)?;
    g.output("embeddings", sentence.embeddings);
    settle(&g, precision.half(device), sentence.parameters.iter().map(|p| p.value), 0..0);
    Ok(g.to_model_with(|name| weights.get(name).map(|(_, data)| data))?)
}

/// Whether all weights are there, in the shapes that the configuration asks for.
///
/// # Errors
/// Names the first that is not.
pub fn check(parameters: &[Parameter], directory: &ModelDirectory, weights: &Weights) -> Result<()> {
    for parameter in parameters {
        let file = weights::file_of(&directory.weights(), &parameter.name);
        let Some((shape, _)) = weights.get(&parameter.name) else {
            bail!("`{}` has no weight `{}`, which `config.json` asks for", file.display(), parameter.name);
        };
        if shape != parameter.shape {
            bail!(
                "`{}`: weight `{}` has shape {shape:?}, but `config.json` asks for {:?}",
                file.display(),
                parameter.name,
                parameter.shape
            );
        }
    }
    Ok(())
}

/// The columns of a batch in which `columns` texts an example lie one column after the other: embeddings `[rows, dimensions]` → `columns` values `[batch, dimensions]`.
pub fn columns(g: &Graph, embeddings: Value, columns: usize) -> Vec<Value> {
    g.split(embeddings, columns, Dim::from("batch"))
}
