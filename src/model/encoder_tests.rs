//! Compares the encoders, pooling and modules with transformers and sentence-transformers on small models. The figures are
//! written by `tests/fixtures/encoders/generate.py`; weights are filled from their names, here as there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::batch::Batch;
use super::builder::{Additions, Builder};
use super::directory::ModelDirectory;
use super::layout::Layout;
use super::pooling::Pooling;
use super::sentence::{self, token_model};
use super::tokenizer::Tokens;
use super::weights::Weights;
use crate::onnx::{DataType, Gradient, Graph, Operators, differentiate};
use crate::runtime::device::Device;
use crate::runtime::precision::Precision;
use crate::runtime::session::{Input, Session};
use crate::runtime::testing::downloads;
use crate::shape;

#[derive(Deserialize)]
struct Family {
    config: Json,
    /// Name in the file → shape.
    weights: BTreeMap<String, Vec<usize>>,
    rows: Vec<Vec<i64>>,
    /// Of which tokens of each row the vectors are given.
    tokens: Vec<Vec<usize>>,
    vectors: Vec<Vec<Vec<f64>>>,
    pooled: Vec<Vec<f64>>,
    loss: f64,
    gradients: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Chain {
    config: Json,
    modules: Vec<Json>,
    rows: Vec<Vec<i64>>,
    embeddings: Vec<Vec<f64>>,
    gradients: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Pools {
    lengths: Vec<usize>,
    hidden: usize,
    prompt: usize,
    cases: Vec<PoolCase>,
}

#[derive(Deserialize)]
struct PoolCase {
    pooling_mode: Json,
    include_prompt: bool,
    pooled: Vec<Vec<f64>>,
}

fn figures<T: for<'d> Deserialize<'d>>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders").join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The script's `fill`.
fn fill(name: &str, shape: &[usize]) -> Vec<f32> {
    let state = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let number = |i: u64| {
        let mut z = state.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let x = ((z ^ (z >> 31)) >> 11) as f64 * (-52f64).exp2() - 1.0;
        let scaled = match (shape.len(), name.ends_with("weight")) {
            (1, true) => 1.0 + 0.2 * x,
            (1, false) => 0.2 * x,
            _ if name.contains("embeddings") || name == "loss" => x,
            _ => 0.25 * x,
        };
        scaled as f32
    };
    (1..=shape.iter().product::<usize>() as u64).map(number).collect()
}

/// A directory with this configuration and filled weights.
fn directory(config: &Json, weights: &BTreeMap<String, Vec<usize>>, modules: &[Json]) -> (tempfile::TempDir, ModelDirectory) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Json| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    };
    write("config.json", config);
    if !modules.is_empty() {
        let mut listed = vec![json!({ "path": "", "type": "sentence_transformers.models.Transformer" })];
        for (number, module) in (1..).zip(modules) {
            let path = format!("{number}_{}", module["type"].as_str().unwrap().rsplit('.').next().unwrap());
            write(&format!("{path}/config.json"), &module["config"]);
            listed.push(json!({ "path": path, "type": module["type"] }));
        }
        write("modules.json", &json!(listed));
    }
    let mut filled = Weights::default();
    weights.iter().for_each(|(name, shape)| filled.insert(name, shape, fill(name, shape)));
    filled.write(&folder.path().join("model.safetensors")).unwrap();
    let opened = ModelDirectory::open(folder.path()).unwrap();
    (folder, opened)
}

fn texts(rows: &[Vec<i64>]) -> Vec<Tokens> {
    rows.iter().map(|ids| Tokens { ids: ids.clone(), ..Tokens::default() }).collect()
}

/// The largest deviation relative to the largest expected number.
fn deviation<'e>(found: impl IntoIterator<Item = f32>, expected: impl IntoIterator<Item = &'e f64>) -> f64 {
    let (mut off, mut scale) = (0.0f64, 0.0f64);
    let (mut found, mut expected) = (found.into_iter(), expected.into_iter());
    loop {
        match (found.next(), expected.next()) {
            (Some(a), Some(b)) => {
                off = off.max((f64::from(a) - b).abs());
                assert!(a.is_finite());
                scale = scale.max(b.abs());
            }
            (None, None) => return off / scale,
            _ => panic!("not as many numbers as expected"),
        }
    }
}

/// Embeddings, the loss of the script, and the norm of each weight's gradient, by name.
struct Step {
    embeddings: Vec<f32>,
    loss: f64,
    gradients: BTreeMap<String, f64>,
}

/// Forward and backward of the graph that trainings and encodings run, with these operators.
fn step(directory: &ModelDirectory, rows: &[Vec<i64>], operators: Operators) -> Step {
    let weights = Weights::read(&directory.weights()).unwrap();
    let g = Graph::with(operators);
    let sentence = sentence::build(&g, directory, Additions::default()).unwrap();
    sentence::check(&sentence.parameters, directory, &weights).unwrap();
    let size = [rows.len(), directory.dimensions()];
    let weighted = g.mul(sentence.embeddings, g.input("loss_weights", DataType::F32, shape!["rows", size[1]]));
    let loss = g.reshape(g.sum(g.sum(weighted, 0), 1), Vec::new());
    let values: Vec<_> = sentence.parameters.iter().map(|p| p.value).collect();
    let gradients = differentiate(&g, loss, &values).unwrap();
    g.output("embeddings", sentence.embeddings);
    g.output("loss", loss);
    let mut outputs = Vec::new();
    for (parameter, gradient) in sentence.parameters.iter().zip(gradients) {
        match gradient {
            Gradient::Dense(value) => outputs.push((parameter.name.clone(), None, value)),
            Gradient::Rows(pieces) => {
                for (ids, rows) in pieces {
                    outputs.push((parameter.name.clone(), Some(g.cast(ids, DataType::F32)), rows));
                }
            }
            Gradient::Zero => {}
        }
    }
    for (i, (_, ids, value)) in outputs.iter().enumerate() {
        g.output(&format!("value{i}"), *value);
        if let Some(ids) = ids {
            g.output(&format!("ids{i}"), *ids);
        }
    }
    let texts = texts(rows);
    let batch = Batch::new(&texts.iter().collect::<Vec<_>>(), &directory.pooling);
    let loss_weights = fill("loss", &size);
    let mut inputs = batch.inputs();
    inputs.push(Input::floats("loss_weights", &size, &loss_weights));
    let model = g.to_model_with(|name| weights.get(name).map(|(_, data)| data)).unwrap();
    let mut results = Session::from_model(&model, &downloads()).unwrap().run(&inputs).unwrap().into_iter().map(|(_, data)| data);
    let (embeddings, loss) = (results.next().unwrap(), f64::from(results.next().unwrap()[0]));
    let mut gradients: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, ids, _) in outputs {
        let data = results.next().unwrap();
        let (shape, all) = weights.get(&name).unwrap();
        let sum = gradients.entry(name).or_insert_with(|| vec![0.0; all.len()]);
        let width = if ids.is_some() { shape[1] } else { data.len() };
        let ids = if ids.is_some() { results.next().unwrap() } else { vec![0.0] };
        for (row, &id) in data.chunks(width).zip(&ids) {
            let to = &mut sum[id as usize * width..][..width];
            to.iter_mut().zip(row).for_each(|(s, x)| *s += f64::from(*x));
        }
    }
    let norm = |values: Vec<f64>| values.iter().map(|x| x * x).sum::<f64>().sqrt();
    Step { embeddings, loss, gradients: gradients.into_iter().map(|(name, values)| (name, norm(values))).collect() }
}

/// The largest relative deviation of the gradients' norms; weights that are not used must have none.
fn compare_gradients(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>) -> f64 {
    let largest = expected.values().copied().fold(0.0, f64::max);
    let mut worst = 0.0f64;
    for (name, &expected) in expected {
        let found = found.get(name).copied().unwrap_or(0.0);
        let off = (found - expected).abs();
        // The gradient of the keys' bias cancels out; what is left of it is rounding.
        if expected > 1e-6 * largest {
            worst = worst.max(off / expected);
        } else {
            assert!(off <= 1e-6 * largest, "`{name}`: {found} instead of {expected}");
        }
    }
    worst
}

/// Token vectors of the graph that is exported, which has padding.
fn padded(directory: &ModelDirectory, rows: &[Vec<i64>]) -> (Vec<usize>, Vec<f32>) {
    let seq = rows.iter().map(Vec::len).max().unwrap();
    let shape = [rows.len(), seq];
    let spread = |value: &dyn Fn(i64) -> i64, padding: i64| -> Vec<i64> {
        rows.iter().flat_map(|row| (0..seq).map(move |i| row.get(i).copied())).map(|id| id.map_or(padding, value)).collect()
    };
    let (ids, mask, types) = (spread(&|id| id, 1), spread(&|_| 1, 0), spread(&|_| 0, 0));
    let model = token_model(directory, &Weights::read(&directory.weights()).unwrap()).unwrap();
    let inputs = [
        Input::integers("input_ids", &shape, &ids),
        Input::integers("attention_mask", &shape, &mask),
        Input::integers("token_type_ids", &shape, &types),
    ];
    Session::from_model(&model, &downloads()).unwrap().run(&inputs).unwrap().remove(0)
}

/// Compares an encoder in both layouts, and the one without padding with either kind of operators.
fn follow(name: &str) {
    let family: Family = figures(name);
    let (_folder, directory) = directory(&family.config, &family.weights, &[]);
    let (shape, vectors) = padded(&directory, &family.rows);
    assert_eq!(shape, [family.rows.len(), family.rows.iter().map(Vec::len).max().unwrap(), directory.config.hidden_size]);
    let vector = |row: usize, token: usize| vectors[(row * shape[1] + token) * shape[2]..][..shape[2]].to_vec();
    let shown =
        family.tokens.iter().enumerate().flat_map(|(row, tokens)| tokens.iter().flat_map(move |&token| vector(row, token)));
    let tokens = deviation(shown.collect::<Vec<_>>(), family.vectors.iter().flatten().flatten());
    assert!(tokens <= 2e-6, "{name}: {tokens}");
    for operators in [Operators::Released, Operators::Own { bf16: false }] {
        let step = step(&directory, &family.rows, operators);
        let pooled = deviation(step.embeddings, family.pooled.iter().flatten());
        let gradients = compare_gradients(&step.gradients, &family.gradients);
        let loss = (step.loss - family.loss).abs() / family.loss.abs();
        println!(
            "{name}, {operators:?}: token vectors {tokens:.1e}, embeddings {pooled:.1e}, loss {loss:.1e}, gradients {gradients:.1e}"
        );
        assert!(pooled <= 2e-6 && loss <= 1e-5 && gradients <= 3e-5, "{name}, {operators:?}");
    }
}

/// Embeddings by the graph that encoding runs, on the processor; the one for `device` may be built of other operators.
fn encode(directory: &ModelDirectory, rows: &[Vec<i64>], precision: Precision, device: &Device) -> Vec<f32> {
    let weights = Weights::read(&directory.weights()).unwrap();
    let model = sentence::embedding_model(directory, &weights, precision, device).unwrap();
    let texts = texts(rows);
    let batch = Batch::new(&texts.iter().collect::<Vec<_>>(), &directory.pooling);
    Session::from_model(&model, &downloads()).unwrap().run(&batch.inputs()).unwrap().remove(0).1
}

/// Absolute and rotary positions, and a bias by distance.
#[test]
fn encoding_with_operators_of_our_own_gives_the_vectors_of_released_ones() {
    let gpu = Device::Cuda { number: 0, name: String::new(), capability: (9, 0) };
    for name in ["bert", "nomic_bert", "mpnet"] {
        let family: Family = figures(name);
        let (_folder, directory) = directory(&family.config, &family.weights, &[]);
        let released = encode(&directory, &family.rows, Precision::Fp32, &gpu);
        let own = encode(&directory, &family.rows, Precision::Fp32, &Device::Cpu);
        let off = deviation(own, &released.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        assert!(off <= 1e-6, "{name}: {off}");
        let width = directory.dimensions();
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        for (precision, device, most) in [(Precision::Bf16, &Device::Cpu, 1e-4), (Precision::Fp16, &gpu, 1e-6)] {
            let rounded = encode(&directory, &family.rows, precision, device);
            let rows = rounded.chunks(width).zip(released.chunks(width));
            let distance = rows.map(|(a, b)| 1.0 - product(a, b) / (product(a, a) * product(b, b)).sqrt()).fold(0.0, f64::max);
            println!("{name}: fp32 off by {off:.1e}, {precision:?} at a cosine distance of {distance:.1e}");
            assert!(distance > 1e-10 && distance <= most, "{name}, {precision:?}: {distance}");
        }
    }
}

#[test]
fn bert() {
    follow("bert");
}

#[test]
fn distilbert() {
    follow("distilbert");
}

#[test]
fn roberta() {
    follow("roberta");
}

#[test]
fn xlm_roberta() {
    follow("xlm-roberta");
}

#[test]
fn mpnet() {
    follow("mpnet");
}

#[test]
fn modernbert_with_texts_longer_than_the_window() {
    follow("modernbert");
}

#[test]
fn nomic() {
    follow("nomic_bert");
}

#[test]
fn gte() {
    follow("gte");
}

#[test]
fn gte_with_stretched_positions() {
    follow("new");
}

#[test]
fn pooling_is_that_of_sentence_transformers() {
    let pools: Pools = figures("pooling");
    let tokens: usize = pools.lengths.iter().sum();
    let vectors = fill("tokens", &[tokens, pools.hidden]);
    let texts: Vec<Tokens> =
        pools.lengths.iter().map(|&n| Tokens { ids: vec![0; n], prompt: pools.prompt, truncated: false }).collect();
    for case in pools.cases {
        let config = json!({ "pooling_mode": case.pooling_mode, "include_prompt": case.include_prompt });
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("c"), config.to_string()).unwrap();
        let pooling = Pooling::read(&folder.path().join("c")).unwrap();
        let g = Graph::new();
        let builder = Builder::new(&g, Layout::packed(&g));
        let vector = g.input("vectors", DataType::F32, shape!["tokens", pools.hidden]);
        g.output("pooled", pooling.build(&builder, vector));
        let batch = Batch::new(&texts.iter().collect::<Vec<_>>(), &pooling);
        let mut inputs = batch.inputs();
        inputs.push(Input::floats("vectors", &[tokens, pools.hidden], &vectors));
        let (_, found) = Session::from_model(&g.to_model().unwrap(), &downloads()).unwrap().run(&inputs).unwrap().remove(0);
        let off = deviation(found, case.pooled.iter().flatten());
        assert!(off <= 1e-6, "{config}: {off}");
    }
}

#[test]
fn modules_behind_pooling_are_those_of_sentence_transformers() {
    let (chain, bert): (Chain, Family) = (figures("modules"), figures("bert"));
    let mut weights = bert.weights;
    weights.extend([
        ("2_Dense.linear.weight".to_owned(), vec![24, 64]),
        ("2_Dense.linear.bias".to_owned(), vec![24]),
        ("3_Dense.linear.weight".to_owned(), vec![24, 24]),
        ("4_LayerNorm.norm.weight".to_owned(), vec![24]),
        ("4_LayerNorm.norm.bias".to_owned(), vec![24]),
        ("5_Dense.linear.weight".to_owned(), vec![12, 24]),
        ("5_Dense.linear.bias".to_owned(), vec![12]),
        ("5_Dense.residual.weight".to_owned(), vec![12, 24]),
    ]);
    let (_folder, directory) = directory(&chain.config, &weights, &chain.modules);
    assert_eq!((directory.dimensions(), directory.normalize), (12, true));
    let step = step(&directory, &chain.rows, Operators::default());
    let embeddings = deviation(step.embeddings, chain.embeddings.iter().flatten());
    let gradients = compare_gradients(&step.gradients, &chain.gradients);
    println!("modules: embeddings {embeddings:.1e}, gradients {gradients:.1e}");
    assert!(embeddings <= 2e-6 && gradients <= 3e-5);
}
