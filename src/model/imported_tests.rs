//! Model directories of which the encoder is an ONNX file.

use std::path::Path;

use super::directory::ModelDirectory;
use super::imported::{files, locate};
use super::weights::Weights;

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imported").join(name)
}

/// A directory with a fixture as `onnx/model.onnx`.
fn directory(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("onnx")).unwrap();
    std::fs::copy(fixture(name), folder.path().join("onnx/model.onnx")).unwrap();
    folder
}

#[test]
fn weights_are_called_as_the_layers_are() {
    let folder = directory("bert-dynamo.onnx");
    let model = ModelDirectory::open(folder.path()).unwrap();
    assert_eq!((model.config.hidden_size, model.dimensions(), model.max_seq_length), (8, 8, 512));
    let weights = Weights::read(&model.weights()).unwrap();
    for name in
        ["embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight", "encoder.layer.0.output.dense.bias"]
    {
        assert!(weights.get(name).is_some(), "{name}: {:?}", weights.names().collect::<Vec<_>>());
    }
    assert_eq!(weights.names().count(), 21);
}

/// ModernBERT's layers have no biases to tell their names by; a safetensors file beside the model does.
#[test]
fn equal_numbers_beside_the_file_give_names() {
    let folder = directory("modernbert-dynamo.onnx");
    let names = |folder: &Path| Weights::read(&folder.join("onnx/model.onnx")).unwrap();
    let weights = names(folder.path());
    let anonymous = weights.names().find(|name| name.starts_with("val_")).unwrap();
    let (shape, data) = weights.get(anonymous).unwrap();
    let turned = (0..data.len()).map(|i| data[i % shape[0] * shape[1] + i / shape[0]]).collect();
    let mut stored = Weights::default();
    stored.insert("layers.0.attn.Wqkv.weight", &[shape[1], shape[0]], turned);
    stored.write(&folder.path().join("model.safetensors")).unwrap();
    let again = names(folder.path());
    assert_eq!(again.get("layers.0.attn.Wqkv.weight"), weights.get(anonymous));
    assert_eq!(again.get(anonymous), None);
}

#[test]
fn an_encoder_that_can_be_built_is_not_imported() {
    let folder = directory("bert-trace.onnx");
    let locate = || locate(folder.path()).is_some();
    assert!(locate());
    assert_eq!(files(folder.path()), [Path::new("onnx/model.onnx")]);
    std::fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(!locate());
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    assert!(!locate());
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "of_tomorrow"}"#).unwrap();
    assert!(locate());
}

#[test]
fn what_cannot_be_imported_is_named() {
    let folder = directory("bert-trace.onnx");
    std::fs::write(folder.path().join("onnx/model.onnx"), "no model").unwrap();
    let message =
        ModelDirectory::open(folder.path()).unwrap_err().to_string().replace(&folder.path().display().to_string(), "DIR");
    insta::assert_snapshot!(message, @"`DIR/onnx/model.onnx` is no intact ONNX file (failed to decode Protobuf message: invalid wire type value: 6); get the file again, it may have been cut off while it was fetched");
}
