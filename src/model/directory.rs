//! A sentence-transformers model directory.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::{EncoderConfig, ModelError, read_json};
use super::imported;
use super::module::{Kind, Module};
use super::pooling::Pooling;
use super::prompts::Prompts;

/// What a directory says about its model, without the weights.
#[derive(Debug, Clone)]
pub struct ModelDirectory {
    pub path: PathBuf,
    pub config: EncoderConfig,
    pub pooling: Pooling,
    /// What follows pooling, in order.
    pub modules: Vec<Module>,
    /// Whether embeddings are scaled to norm 1 in the end.
    pub normalize: bool,
    pub prompts: Prompts,
    /// Texts are cut after this many tokens, the special ones included.
    pub max_seq_length: usize,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl ModelDirectory {
    /// Reads `modules.json`, `config.json`, `sentence_bert_config.json`, `config_sentence_transformers.json` and the modules' configurations.
    ///
    /// # Errors
    /// A file is missing or wrong, or describes something that is not supported; the message names it.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let config = match imported::locate(path) {
            Some(file) => EncoderConfig::import(&file)?,
            None => EncoderConfig::read(&path.join("config.json"))?,
        };
        let (pooling, modules) = modules(path, config.hidden_size)?;
        let normalize = modules.last().is_some_and(|module| module.kind == Kind::Normalize);
        let prompts = Prompts::read(&path.join("config_sentence_transformers.json"))?;
        let max_seq_length = max_seq_length(path, &config)?;
        Ok(ModelDirectory { path: path.to_owned(), config, pooling, modules, normalize, prompts, max_seq_length })
    }

    /// The file with the encoder's weights. Those of modules lie in the modules' folders.
    pub fn weights(&self) -> PathBuf {
        imported::locate(&self.path).unwrap_or_else(|| self.path.join("model.safetensors"))
    }

    /// The length of an embedding.
    pub fn dimensions(&self) -> usize {
        let width = if self.config.pooled { 1 } else { self.pooling.width() };
        let pooled = self.config.hidden_size * width;
        self.modules.iter().fold(pooled, |width, module| module.width(width).unwrap_or(width))
    }
}

/// What `modules.json` lists. A plain encoder without it is pooled by the mean, as sentence-transformers does.
fn modules(path: &Path, hidden: usize) -> Result<(Pooling, Vec<Module>), ModelError> {
    let file = path.join("modules.json");
    if !file.exists() {
        return Ok((Pooling::default(), Vec::new()));
    }
    let (mut pooling, mut modules) = (None, Vec::new());
    for (place, entry) in read_json::<Vec<Entry>>(&file)?.iter().enumerate() {
        let kind = entry.kind.rsplit('.').next().unwrap_or_default();
        // The encoder's folder may be left out, another module's must not lie upon it.
        let inside = if entry.path.is_empty() { format!("{place}_{kind}") } else { entry.path.clone() };
        let folder = folder(path, &inside, &file)?;
        match kind {
            "Transformer" if place == 0 && entry.path.is_empty() => {}
            "Transformer" if place == 0 => {
                let message =
                    format!("the encoder lies in `{}`; only one that lies in the directory itself is supported", entry.path);
                return Err(ModelError::unsupported(&file, message));
            }
            "Pooling" if pooling.is_none() && modules.is_empty() => pooling = Some(Pooling::read(&folder.join("config.json"))?),
            "Transformer" | "Pooling" => {
                let message =
                    format!("module {place}, `{kind}`, is out of order: an encoder, pooling, and then the others are supported");
                return Err(ModelError::unsupported(&file, message));
            }
            _ => modules.extend(Module::read(kind, path, &inside, &file)?),
        }
    }
    let pooling = pooling.unwrap_or_default();
    let mut width = hidden * pooling.width();
    for module in &modules {
        width = module.width(width).ok_or_else(|| {
            let message = format!("`{}` does not take vectors of length {width}, which is what comes before it", module.folder);
            ModelError::invalid(&file, message)
        })?;
    }
    Ok((pooling, modules))
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
            return Ok((limit as usize).min(config.max_tokens));
        }
    }
    Ok(config.max_tokens)
}
