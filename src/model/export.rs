//! Writing a model directory that sentence-transformers 3 to 6 and text-embeddings-inference load as it is: the files and keys
//! that any of them reads.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value, json};

use super::card::Card;
use super::directory::ModelDirectory;
use super::imported;
use super::prompts::Prompts;
use super::sentence::token_model;
use super::source::files;
use super::weights::Weights;

/// The folder of the pooling's configuration.
const POOLING: &str = "1_Pooling";

/// Writes the model of `source` with other `weights` into the empty or missing folder `target`.
///
/// # Errors
/// A file of `source` cannot be read, or `target` cannot be written.
pub fn export(source: &ModelDirectory, weights: &Weights, card: &Card, target: &Path) -> Result<()> {
    let folder = |path: &Path| fs::create_dir_all(path).with_context(|| format!("`{}` cannot be written", path.display()));
    folder(target)?;
    // Tokenizer files and whatever else the model came with; what is known better is written anew below.
    for file in files(&source.path)? {
        let to = target.join(&file);
        if file.ends_with("model.safetensors")
            || imported::files(&source.path).contains(&file)
            || to.extension().is_some_and(|e| e == "md")
        {
            continue;
        }
        folder(to.parent().unwrap_or(target))?;
        let text = fs::read(source.path.join(&file)).with_context(|| format!("`{}` cannot be read", file.display()))?;
        write(&to, &text)?;
    }
    folder(&target.join("onnx"))?;
    write_json(&target.join("config.json"), &encoder_config(source)?)?;
    write_json(&target.join("modules.json"), &modules(source))?;
    folder(&target.join(POOLING))?;
    write_json(&target.join(POOLING).join("config.json"), &source.pooling.config(source.config.hidden_size))?;
    for module in &source.modules {
        folder(&target.join(&module.folder))?;
        write_json(&target.join(&module.folder).join("config.json"), &module.config())?;
    }
    let limits = json!({ "max_seq_length": source.max_seq_length, "do_lower_case": false });
    write_json(&target.join("sentence_bert_config.json"), &limits)?;
    write_json(&target.join("config_sentence_transformers.json"), &sentence_transformers(source, &source.prompts)?)?;
    write_json(&target.join("tokenizer_config.json"), &tokenizer_config(source)?)?;
    let file = target.join("model.safetensors");
    let onnx = match imported::locate(&source.path) {
        // Of an encoder that was imported there is but the one form.
        Some(original) => {
            weights.write_modules(&file)?;
            imported::with_weights(&original, weights)?
        }
        None => {
            weights.write(&file)?;
            token_model(source, weights)?
        }
    };
    write(&target.join("onnx/model.onnx"), &onnx)?;
    write(&target.join("README.md"), card.render().as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("`{}` cannot be written", path.display()))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write(path, format!("{value:#}\n").as_bytes())
}

/// A JSON object of the source, empty when the file is missing.
fn object(source: &ModelDirectory, name: &str) -> Result<Map<String, Value>> {
    let path = source.path.join(name);
    if !path.exists() {
        return Ok(Map::new());
    }
    let text = fs::read(&path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| anyhow!("`{}` is not what it should be: {e}", path.display()))
}

/// The encoder's own configuration, with the type of the weights that are written.
fn encoder_config(source: &ModelDirectory) -> Result<Value> {
    let mut config = object(source, "config.json")?;
    config.insert("torch_dtype".into(), "float32".into());
    Ok(Value::Object(config))
}

fn modules(source: &ModelDirectory) -> Value {
    let listed = [("", "Transformer"), (POOLING, "Pooling")];
    let modules = listed.into_iter().chain(source.modules.iter().map(|module| (module.folder.as_str(), module.name())));
    let entry = |(i, (path, kind)): (usize, (&str, &str))| json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") });
    Value::Array(modules.enumerate().map(entry).collect())
}

/// `config_sentence_transformers.json`: the source's own with `prompts`, completed by what later releases expect.
///
/// # Errors
/// The source's own is no JSON object.
pub fn sentence_transformers(source: &ModelDirectory, prompts: &Prompts) -> Result<Value> {
    let mut config = object(source, "config_sentence_transformers.json")?;
    config.insert("prompts".into(), json!(prompts.complete()));
    config.insert("default_prompt_name".into(), json!(prompts.default_name()));
    for (key, value) in [
        ("model_type", json!("SentenceTransformer")),
        ("__version__", json!({ "sentence_transformers": "3.0.0" })),
        ("similarity_fn_name", json!("cosine")),
    ] {
        config.entry(key).or_insert(value);
    }
    Ok(Value::Object(config))
}

/// `model_max_length` is what sentence-transformers 6 takes as the maximum sequence length.
fn tokenizer_config(source: &ModelDirectory) -> Result<Value> {
    let mut config = object(source, "tokenizer_config.json")?;
    config.insert("model_max_length".into(), source.max_seq_length.into());
    Ok(Value::Object(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::model::embedder::Embedder;
    use crate::model::testing::minilm;
    use crate::runtime::precision::Precision;
    use crate::runtime::testing::downloads;

    #[test]
    fn what_is_exported_is_the_same_model() {
        let source = ModelDirectory::open(&minilm()).unwrap();
        let weights = Weights::read(&source.weights()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        export(&source, &weights, &Card::default(), &target).unwrap();
        let again = ModelDirectory::open(&target).unwrap();
        assert_eq!(
            (&again.pooling, &again.modules, again.max_seq_length),
            (&source.pooling, &source.modules, source.max_seq_length)
        );
        assert_eq!(Weights::read(&again.weights()).unwrap(), weights);
        let texts = ["what is a hard negative?".to_owned()];
        let embed = |path: &Path| {
            Embedder::open(path, Precision::Fp32, &downloads()).unwrap().encode(&texts, &Cancel::default(), &|_| ()).unwrap()
        };
        assert_eq!(embed(&target), embed(&source.path));
        for file in ["onnx/model.onnx", "README.md", "tokenizer.json", "special_tokens_map.json", "1_Pooling/config.json"] {
            assert!(target.join(file).exists(), "{file}");
        }
    }
}
