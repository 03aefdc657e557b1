//! The settings files of a model directory.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// What is wrong with a model directory.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("`{path}` cannot be read: {source}; a model directory has `config.json`, `tokenizer.json` and `model.safetensors`")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("`{path}` is not what it should be: {message}")]
    Invalid { path: PathBuf, message: String },
    #[error("`{path}`: {message}")]
    Unsupported { path: PathBuf, message: String },
}

impl ModelError {
    pub(super) fn invalid(path: &Path, message: impl Into<String>) -> Self {
        ModelError::Invalid { path: path.to_owned(), message: message.into() }
    }

    pub(super) fn unsupported(path: &Path, message: impl Into<String>) -> Self {
        ModelError::Unsupported { path: path.to_owned(), message: message.into() }
    }
}

/// The encoder's `config.json` (the fields of `BertConfig` in transformers that change the result).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EncoderConfig {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    #[serde(default = "bert_epsilon")]
    pub layer_norm_eps: f32,
    #[serde(default = "gelu")]
    pub hidden_act: String,
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn two() -> usize {
    2
}

fn bert_epsilon() -> f32 {
    1e-12
}

fn gelu() -> String {
    "gelu".into()
}

fn absolute() -> String {
    "absolute".into()
}

impl EncoderConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// It is missing, is not JSON, lacks a field, or describes an encoder that cannot be built; the message names file and field.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let config: EncoderConfig = read_json(path)?;
        config.check().map_err(|message| ModelError::unsupported(path, message))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if !super::architecture::known().contains(&self.model_type.as_str()) {
            let known = super::architecture::known().join("`, `");
            return Err(format!("encoders of `model_type` `{}` cannot be built; known: `{known}`", self.model_type));
        }
        if self.hidden_act != "gelu" {
            return Err(format!("`hidden_act` `{}` is not supported; only `gelu` is", self.hidden_act));
        }
        if self.position_embedding_type != "absolute" {
            return Err(format!(
                "`position_embedding_type` `{}` is not supported; only `absolute` is",
                self.position_embedding_type
            ));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((name, size)) = sizes.iter().find(|(_, size)| *size == 0 || *size > 1 << 24) {
            return Err(format!("`{name}` is {size}"));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        Ok(())
    }
}

/// How token vectors become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over the tokens that are not padding.
    Mean,
    /// The first token's vector.
    Cls,
}

impl Pooling {
    /// Reads `1_Pooling/config.json`: `pooling_mode` (sentence-transformers 5.4 and later) or the older booleans.
    pub(super) fn read(path: &Path) -> Result<Self, ModelError> {
        let config: serde_json::Map<String, Value> = read_json(path)?;
        let on = |name: &str| config.get(name).and_then(Value::as_bool).unwrap_or(false);
        let modes: Vec<String> = match config.get("pooling_mode").and_then(Value::as_str) {
            Some(mode) => vec![mode.to_owned()],
            None => config.keys().filter(|k| k.starts_with("pooling_mode_") && on(k)).cloned().collect(),
        };
        match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["mean" | "pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
            ["cls" | "pooling_mode_cls_token"] => Ok(Pooling::Cls),
            [] => Err(ModelError::invalid(path, "no pooling mode is switched on")),
            _ => Err(ModelError::unsupported(
                path,
                format!("pooling `{}` is not supported; `mean` and `cls` are", modes.join(" + ")),
            )),
        }
    }

    /// sentence-transformers' name.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        }
    }
}

/// Reads a JSON file.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read(path).map_err(|source| ModelError::Unreadable { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|e| ModelError::invalid(path, e.to_string()))
}
