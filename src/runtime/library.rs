//! Finding ONNX Runtime's shared library, and fetching it once when it is nowhere.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// A shared library on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    pub path: PathBuf,
}

/// Finds the library: `ORT_DYLIB_PATH`, `downloads/onnxruntime/…`, the system; else fetches it with the user's package client.
pub fn locate(_downloads: &Path) -> Result<Library> {
    if let Some(p) = std::env::var_os("ORT_DYLIB_PATH") {
        return Ok(Library { path: p.into() });
    }
    anyhow::bail!("PLACEHOLDER")
}

/// What goes into stage keys: the version of ONNX Runtime that [`locate`] would yield, without fetching or loading it when it is pinned.
pub fn identity(_downloads: &Path) -> Result<String> {
    anyhow::bail!("PLACEHOLDER")
}
