//! Externals that several stages have.

use anyhow::{Context, Result};

use super::{Context as StageContext, External, Surroundings};
use crate::runtime::Runtime;
use crate::runtime::device::{Choice, idle_gpu};
use crate::runtime::precision::Precision;

/// ONNX Runtime's version and the device that `device` means here: others compute other last digits.
pub fn onnx_runtime(surroundings: &Surroundings, device: Choice) -> Result<External> {
    let runtime = Runtime::choose(device, surroundings.downloads)?;
    Ok(External { name: "ONNX Runtime".into(), value: runtime.identity()? })
}

/// What `precision` means on the device that `device` means here: with `auto`, machines differ.
pub fn products(surroundings: &Surroundings, precision: Precision, device: Choice) -> Result<External> {
    let runtime = Runtime::choose(device, surroundings.downloads)?;
    Ok(External { name: "matrix products".into(), value: precision.name(&runtime.device).into() })
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
