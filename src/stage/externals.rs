//! Externals that several stages have.

use anyhow::{Context, Result};

use super::{External, Surroundings};
use crate::runtime::library;

/// ONNX Runtime's version and execution provider: another one computes other last digits.
pub fn onnx_runtime(surroundings: &Surroundings) -> Result<External> {
    Ok(External { name: "ONNX Runtime".into(), value: library::identity(surroundings.downloads)? })
}

/// A file that a parameter names.
pub fn file(surroundings: &Surroundings, path: &str) -> Result<External> {
    let digest = (surroundings.digest_file)(&surroundings.path(path)?);
    Ok(External { name: format!("file `{path}`"), value: digest.with_context(|| format!("`{path}` cannot be read"))? })
}
