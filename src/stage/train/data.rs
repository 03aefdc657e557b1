//! The data sets that a training learns from.

use std::path::Path;

use anyhow::{Result, bail};

use super::params::Train;
use crate::artifact::{Example, jsonl};
use crate::model::directory::ModelDirectory;
use crate::model::embedder::Embedder;
use crate::model::tokenizer::Tokenizer;
use crate::runtime::Runtime;
use crate::runtime::precision::Precision;
use crate::stage::Context;
use crate::train::Loss;
use crate::train::data::{Data, DataSet, Sampling};

/// The data sets at the input `triplets`, each with its loss.
pub fn read(train: &Train, context: &Context) -> Result<Vec<DataSet>> {
    let inputs = context.inputs("triplets");
    for name in train.losses.keys() {
        if !inputs.iter().any(|(label, _)| label == name) {
            let known: Vec<String> = inputs.iter().map(|(label, _)| format!("`{label}`")).collect();
            bail!("`losses` names the data set `{name}`, which is not among the inputs: there are {}", known.join(", "));
        }
    }
    let read = |(label, path): (&str, &Path)| {
        let loss: &Loss = train.losses.get(label).unwrap_or(&train.loss);
        let rows = jsonl::numbered::<Example>(path, &format!("data set `{label}`"))?;
        Ok(DataSet { name: label.to_owned(), rows, loss: loss.clone() })
    };
    inputs.into_iter().map(read).collect()
}

/// What a user should know about learning `sets` with a model, each thing once.
pub fn warnings(sets: &[DataSet], model: &ModelDirectory) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    for warning in sets.iter().flat_map(|set| set.warnings(model.dimensions(), model.normalize)) {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

/// Makes `sets` ready to be learnt from. Where a loss wants a guide, every text is embedded with the model at the input `guide`.
pub fn prepare(sets: &[DataSet], train: &Train, model: &ModelDirectory, runtime: &Runtime, context: &Context) -> Result<Data> {
    let sampling = Sampling { batch_size: train.batch_size, sampler: train.sampler, mixing: train.mixing };
    let mut data = Data::new(sets, &Tokenizer::open(&model.path, model.max_seq_length)?, &model.prompts, sampling)?;
    if data.is_guided() {
        guide(&mut data, runtime, context)?;
    }
    Ok(data)
}

/// Embeds every text with the model at the input `guide`.
fn guide(data: &mut Data, runtime: &Runtime, context: &Context) -> Result<()> {
    let embedder = Embedder::open(context.input("guide")?, Precision::Fp32, runtime)?;
    let (texts, prompts) = (data.texts(), embedder.prompts());
    let apart = prompts.query() != prompts.document();
    let total = texts.len() * if apart { 2 } else { 1 };
    let progress = |n: usize| context.progress(n as u64, total as u64, "texts", "asking the guide");
    let vectors = embedder.encode_documents(texts, context.cancel, &progress)?;
    let rest = |n: usize| progress(texts.len() + n);
    let as_queries = apart.then(|| embedder.encode_queries(texts, context.cancel, &rest)).transpose()?;
    let flat = |vectors: ndarray::Array2<f32>| vectors.into_raw_vec_and_offset().0;
    data.guide(embedder.dimensions(), flat(vectors), as_queries.map(flat));
    Ok(())
}
