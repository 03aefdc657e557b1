//! Externals that several stages have.

use anyhow::Result;

use super::{External, Surroundings};
use crate::runtime::library;

/// ONNX Runtime's version and execution provider: another one computes other last digits.
pub fn onnx_runtime(surroundings: &Surroundings) -> Result<External> {
    Ok(External { name: "ONNX Runtime".into(), value: library::identity(surroundings.downloads)? })
}
