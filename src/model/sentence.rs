//! The graph from token ids to embeddings, for encoding, training and export.

use anyhow::{Context, Result, bail};

use super::architecture::{self, Encoder};
use super::directory::ModelDirectory;
use super::weights::Weights;
use crate::onnx::{DataType, Dim, Graph, Value};
use crate::shape;

/// The encoder with pooling and, if the model has it, normalisation.
pub struct SentenceEncoder {
    pub encoder: Encoder,
    /// `[rows, hidden]`
    pub embeddings: Value,
}

/// Builds the graph from the inputs of [`Batch::inputs`](super::tokenizer::Batch::inputs) to embeddings.
pub fn build(g: &Graph, directory: &ModelDirectory) -> Result<SentenceEncoder> {
    let encoder = encoder(g, directory)?;
    let pool = g.input("pool", DataType::F32, shape!["rows", "seq"]);
    let weights = g.reshape(pool, shape!["rows", 1, "seq"]);
    let pooled = g.drop_axis(g.matmul(weights, encoder.token_vectors, false, false, 1.0), 1);
    let embeddings = if directory.normalize { g.normalize(pooled) } else { pooled };
    Ok(SentenceEncoder { encoder, embeddings })
}

fn encoder(g: &Graph, directory: &ModelDirectory) -> Result<Encoder> {
    let kind = &directory.config.model_type;
    architecture::build(g, &directory.config).with_context(|| format!("encoders of `model_type` `{kind}` cannot be built"))
}

/// A stand-alone ONNX model from token ids to token vectors, named as transformers' exports are: what goes into `onnx/model.onnx`.
///
/// # Errors
/// A weight is missing or has another shape than the configuration says.
pub fn token_model(directory: &ModelDirectory, weights: &Weights) -> Result<Vec<u8>> {
    let g = Graph::new();
    let encoder = encoder(&g, directory)?;
    check(&encoder, directory, weights)?;
    g.output("last_hidden_state", encoder.token_vectors);
    Ok(g.to_model_with(|name| weights.get(name).map(|(_, data)| data))?)
}

/// A stand-alone ONNX model from [`Batch::inputs`](super::tokenizer::Batch::inputs) to embeddings.
pub(super) fn embedding_model(directory: &ModelDirectory, weights: &Weights) -> Result<Vec<u8>> {
    let g = Graph::new();
    let sentence = build(&g, directory)?;
    check(&sentence.encoder, directory, weights)?;
    g.output("embeddings", sentence.embeddings);
    Ok(g.to_model_with(|name| weights.get(name).map(|(_, data)| data))?)
}

/// Whether all weights are there, in the shapes that the configuration asks for.
///
/// # Errors
/// Names the first that is not.
pub fn check(encoder: &Encoder, directory: &ModelDirectory, weights: &Weights) -> Result<()> {
    let file = directory.weights();
    for parameter in &encoder.parameters {
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

/// The columns of a batch in which `columns` texts an example lie one column after the other: embeddings `[rows, hidden]` → `columns` values `[batch, hidden]`.
pub fn columns(g: &Graph, embeddings: Value, columns: usize) -> Vec<Value> {
    g.split(embeddings, columns, Dim::from("batch"))
}
