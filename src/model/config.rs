//! The settings files of a model directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::architecture::{self, Encoder};
use super::builder::Builder;
use super::imported::Imported;
use super::settings::Settings;
use crate::onnx::Value;

/// What is wrong with a model directory.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("`{path}` cannot be read: {source}; a model directory has `config.json`, `tokenizer.json` and `model.safetensors`")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("`{path}` is not what it should be: {message}")]
    Invalid { path: PathBuf, message: String },
    #[error("`{path}`: {message}")]
    Unsupported { path: PathBuf, message: String },
    /// An ONNX file that cannot be imported; the message names it.
    #[error("{message}")]
    Imported { message: String },
}

impl ModelError {
    pub(super) fn invalid(path: &Path, message: impl Into<String>) -> Self {
        ModelError::Invalid { path: path.to_owned(), message: message.into() }
    }

    pub(super) fn unsupported(path: &Path, message: impl Into<String>) -> Self {
        ModelError::Unsupported { path: path.to_owned(), message: message.into() }
    }
}

/// The encoder that `config.json` describes.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    pub model_type: String,
    /// The length of a token vector.
    pub hidden_size: usize,
    /// Tokens of the longest text that the encoder takes, the special ones included.
    pub max_tokens: usize,
    /// Whether the encoder gives one vector a text, so that there is nothing to pool.
    pub pooled: bool,
    encoder: Arc<dyn Encoder>,
}

impl EncoderConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// It is missing, is not JSON, lacks a field, or describes an encoder that cannot be built; the message names file and field.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let settings = Settings::read(path)?;
        let read = || {
            let model_type = settings.text(&["model_type"], "")?;
            if model_type.is_empty() {
                return Err("`model_type` is missing".into());
            }
            Ok((architecture::read(&model_type, &settings)?, model_type))
        };
        let (encoder, model_type) = read().map_err(|message: String| ModelError::unsupported(path, message))?;
        Ok(EncoderConfig::of(model_type, encoder.into()))
    }

    /// The encoder in the ONNX file `path`.
    ///
    /// # Errors
    /// It cannot be imported; the message names file, node and operator.
    pub fn import(path: &Path) -> Result<Self, ModelError> {
        Ok(EncoderConfig::of("imported ONNX encoder".into(), Arc::new(Imported::open(path)?)))
    }

    fn of(model_type: String, encoder: Arc<dyn Encoder>) -> Self {
        let (hidden_size, max_tokens, pooled) = (encoder.hidden_size(), encoder.max_tokens(), encoder.pooled());
        EncoderConfig { model_type, hidden_size, max_tokens, pooled, encoder }
    }

    /// Builds the encoder: token vectors `[tokens, hidden]`, or vectors of texts `[rows, hidden]` where it is `pooled`.
    pub(super) fn build(&self, b: &Builder) -> Value {
        self.encoder.build(b)
    }
}

/// Reads a JSON file.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read(path).map_err(|source| ModelError::Unreadable { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|e| ModelError::invalid(path, e.to_string()))
}
