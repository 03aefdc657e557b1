//! Externals that several stages have.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Context as StageContext, External, Surroundings};
use crate::model::embedder::Embedder;
use crate::runtime::Runtime;
use crate::runtime::device::{Choice, idle_gpu};
use crate::runtime::precision::Precision;

/// What the results of a model depend on besides the model: ONNX Runtime's version and the device that `device` means here, as others
/// compute other last digits, and what `precision` means on that device, as with `auto` machines differ.
pub fn computation(surroundings: &Surroundings, precision: Precision, device: Choice) -> Result<Vec<External>> {
    let runtime = Runtime::choose(device, surroundings.downloads)?;
    Ok(vec![
        External { name: "ONNX Runtime".into(), value: runtime.identity()? },
        External { name: "matrix products".into(), value: precision.name(&runtime.device).into() },
    ])
}

/// The model in the folder `model`, opened for encoding.
pub fn embedder(context: &StageContext, model: &Path, precision: Precision, device: Choice) -> Result<Embedder> {
    Embedder::open(model, precision, &runtime(context, device)?)
}

/// Where the models of a stage run. Says so when that leaves a GPU unused that the user may count on.
pub fn runtime(context: &StageContext, device: Choice) -> Result<Runtime> {
    if device == Choice::Auto
        && let Some(why) = idle_gpu(context.downloads)
    {
        context.reporter.warn(&format!("the GPU is not used: {why}; `device: cpu` says that this is meant"));
    }
    Runtime::choose(device, context.downloads)
}

/// A file that a parameter names.
pub fn file(surroundings: &Surroundings, path: &str) -> Result<External> {
    let digest = (surroundings.digest_file)(&surroundings.path(path)?);
    Ok(External { name: format!("file `{path}`"), value: digest.with_context(|| format!("`{path}` cannot be read"))? })
}
