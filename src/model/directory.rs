//! A sentence-transformers model directory.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::{EncoderConfig, ModelError, Pooling, read_json};

/// What a directory says about its model, without the weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelDirectory {
    pub path: PathBuf,
    pub config: EncoderConfig,
    pub pooling: Pooling,
    /// Whether embeddings are scaled to norm 1.
    pub normalize: bool,
    /// Texts are cut after this many tokens, the special ones included.
    pub max_seq_length: usize,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl ModelDirectory {
    /// Reads `modules.json`, `config.json`, `sentence_bert_config.json` and the pooling's configuration.
    ///
    /// # Errors
    /// A file is missing or wrong, or describes something that is not supported; the message names it.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let config = EncoderConfig::read(&path.join("config.json"))?;
        let modules_file = path.join("modules.json");
        // A plain encoder without modules is pooled by the mean, as sentence-transformers does.
        let modules: Vec<Module> = if modules_file.exists() { read_json(&modules_file)? } else { Vec::new() };
        let (mut pooling, mut normalize) = (Pooling::Mean, false);
        for module in &modules {
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => pooling = Pooling::read(&folder(path, &module.path, &modules_file)?.join("config.json"))?,
                "Normalize" => normalize = true,
                other => {
                    let message = format!("module `{other}` is not supported; `Transformer`, `Pooling` and `Normalize` are");
                    return Err(ModelError::unsupported(&modules_file, message));
                }
            }
        }
        let max_seq_length = max_seq_length(path, &config)?;
        Ok(ModelDirectory { path: path.to_owned(), config, pooling, normalize, max_seq_length })
    }

    /// The file with the weights.
    pub fn weights(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }
}

/// The folder of a module, which must lie inside the directory.
fn folder(base: &Path, module: &str, file: &Path) -> Result<PathBuf, ModelError> {
    let inside = Path::new(module).components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if inside {
        Ok(base.join(module))
    } else {
        Err(ModelError::invalid(file, format!("module path `{module}` leaves the directory")))
    }
}

/// `sentence_bert_config.json`, else `model_max_length` of the tokenizer (which may be absurdly large), else the number of positions.
fn max_seq_length(path: &Path, config: &EncoderConfig) -> Result<usize, ModelError> {
    #[derive(Deserialize)]
    struct Limit {
        #[serde(alias = "model_max_length")]
        max_seq_length: Option<f64>,
    }
    for name in ["sentence_bert_config.json", "tokenizer_config.json"] {
        let file = path.join(name);
        if !file.exists() {
            continue;
        }
        if let Some(limit) = read_json::<Limit>(&file)?.max_seq_length {
            if limit.is_nan() || limit < 3.0 {
                return Err(ModelError::invalid(
                    &file,
                    format!("a maximum sequence length of {limit} leaves no room for a text"),
                ));
            }
            return Ok((limit as usize).min(config.max_position_embeddings));
        }
    }
    Ok(config.max_position_embeddings)
}
