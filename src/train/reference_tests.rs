//! Compares training with sentence-transformers' figures: six steps of each loss.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::data::{Batch, Data, DataSet, Sampling};
use super::optimizer::{AdamW, Gradient, Optimizer, Treatment, clip_factor, decays, norm};
use super::sampling::Mixing;
use super::schedule::linear;
use super::step::{Choice, Run, Step};
use crate::artifact::Example;
use crate::cancel::Cancel;
use crate::model::directory::ModelDirectory;
use crate::model::embedder::Embedder;
use crate::model::testing::minilm;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Weights;
use crate::onnx::DataType;
use crate::runtime::precision::Precision;
use crate::runtime::testing::{devices, downloads};

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    columns: Vec<Vec<String>>,
    labels: Option<Vec<f64>>,
    steps: Vec<Expected>,
    probe_texts: Vec<String>,
    probe_embeddings_after: Vec<Vec<f32>>,
    /// Whether norms and embeddings are those of double precision.
    #[serde(default)]
    is_exact: bool,
}

#[derive(Deserialize)]
struct Expected {
    rows: Vec<usize>,
    loss: f64,
    grad_norm_before_clipping: f64,
    parameter_grad_norms: Option<BTreeMap<String, f64>>,
}

/// Of `training_f64.py`.
#[derive(Deserialize)]
struct Exact {
    name: String,
    steps: Vec<ExactStep>,
    probe_embeddings_after: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct ExactStep {
    grad_norm_before_clipping: f64,
    parameter_grad_norms: Option<BTreeMap<String, f64>>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str::<Reference>(include_str!("../../tests/fixtures/training.json")).unwrap().cases
}

/// The case `name`. Where its gradients are small differences of numbers near 1, so that the reference's single precision is off by
/// more than is allowed here, their norms, and where they lead, are those of double precision.
fn case(name: &str) -> Case {
    let mut case = cases().into_iter().find(|c| c.name == name).unwrap();
    let exact: Exact = serde_json::from_str(include_str!("../../tests/fixtures/training_f64.json")).unwrap();
    if exact.name == name {
        case.is_exact = true;
        case.probe_embeddings_after = exact.probe_embeddings_after;
        for (step, exact) in case.steps.iter_mut().zip(exact.steps) {
            step.grad_norm_before_clipping = exact.grad_norm_before_clipping;
            step.parameter_grad_norms = exact.parameter_grad_norms;
        }
    }
    case
}

impl Case {
    fn rows(&self) -> Vec<(usize, Example)> {
        let text = |column: usize, row: usize| self.columns[column][row].clone();
        let row = |row: usize| Example {
            anchor: text(0, row),
            positive: text(1, row),
            negatives: (2..self.columns.len()).map(|column| text(column, row)).collect(),
            labels: self.labels.iter().map(|labels| labels[row]).collect(),
            ..Example::default()
        };
        (0..self.columns[0].len()).map(|i| (i + 1, row(i))).collect()
    }
}

/// The deviation relative to `expected`; a loss that is 0 must be 0 exactly.
fn relative(found: f64, expected: f64) -> f64 {
    if found == expected { 0.0 } else { (found - expected).abs() / expected.abs() }
}

/// MiniLM, and data of `rows` that are learnt by `loss`.
fn prepared(rows: Vec<(usize, Example)>, loss: &str, batch_size: usize) -> (ModelDirectory, Weights, Data) {
    let directory = ModelDirectory::open(&minilm()).unwrap();
    let initial = Weights::read(&directory.weights()).unwrap();
    let tokenizer = Tokenizer::open(&directory.path, directory.max_seq_length).unwrap();
    let set = DataSet { name: "rows".into(), rows, loss: serde_json::from_str(loss).unwrap() };
    let sampling = Sampling { batch_size, sampler: None, mixing: Mixing::default() };
    let data = Data::new(&[set], &tokenizer, &directory.prompts, sampling).unwrap();
    (directory, initial, data)
}

/// Six steps with the reference's batches and settings.
fn follow(name: &str, loss: &str) {
    let case = case(name);
    let (directory, initial, data) = prepared(case.rows(), loss, 8);
    let mut step =
        Step::new(&directory, &initial, &data.tasks(), &Choice { precision: Precision::Fp32, ..Choice::default() }, &downloads())
            .unwrap();
    let mut optimizer = Optimizer::new(AdamW::default(), step.parameters());
    let names: Vec<String> = step.parameters().map(|(n, _)| n.to_owned()).collect();
    let (mut worst_loss, mut worst_norm) = (0.0f64, 0.0f64);
    for (number, expected) in case.steps.iter().enumerate() {
        let batch = Batch { set: 0, rows: expected.rows.clone() };
        let run = step.run(0, &data.columns(&batch).unwrap(), number).unwrap();
        let off = relative(f64::from(run.loss), expected.loss);
        worst_loss = worst_loss.max(off);
        assert!(off <= 1e-4, "{name}, step {number}: loss {} instead of {}", run.loss, expected.loss);
        let lr = 2e-5 * linear(number, 2, case.steps.len());
        let (total, norms) = step
            .update(&run, |weights, gradients| {
                let norms: Vec<f64> = gradients.iter().map(Gradient::norm).collect();
                let total = norm(gradients);
                optimizer.step(lr, clip_factor(total, 1.0), weights, gradients);
                (total, norms)
            })
            .unwrap();
        let total_off = relative(total, expected.grad_norm_before_clipping);
        worst_norm = worst_norm.max(total_off);
        // What single precision leaves of the small differences that add up to a norm near 0.
        let floor = if case.is_exact { 5e-6 / expected.grad_norm_before_clipping } else { 0.0 };
        assert!(
            total_off <= floor.max(1e-3),
            "{name}, step {number}: gradient norm {total} instead of {}",
            expected.grad_norm_before_clipping
        );
        if let Some(expected) = &expected.parameter_grad_norms {
            for (parameter, expected) in expected {
                let parameter = parameter.strip_prefix("0.model.").unwrap_or(parameter);
                let found = names.iter().position(|n| n == parameter).map_or(0.0, |i| norms[i]);
                let off = (found - expected).abs();
                assert!(
                    off <= (1e-3 * expected).max(1e-6),
                    "{name}: gradient of `{parameter}` has norm {found} instead of {expected}"
                );
                if off > 1e-6 {
                    worst_norm = worst_norm.max(off / expected);
                }
            }
        }
    }
    let weights = step.weights(&initial).unwrap();
    let embedder = Embedder::with_weights(directory, &weights, Precision::Fp32, &downloads()).unwrap();
    let found = embedder.encode(&case.probe_texts, &Cancel::default(), &|_| ()).unwrap();
    let expected = case.probe_embeddings_after.iter().flatten();
    let worst_probe = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst_probe <= 2e-4, "{name}: embeddings after six steps are off by {worst_probe}");
    println!("{name}: worst loss {worst_loss:.1e}, gradient norm {worst_norm:.1e}, embeddings {worst_probe:.1e}");
}

/// Six steps with weights, gradients and moments on each device there is: one step copies a batch in, and loss and norm out.
fn follow_on_devices(name: &str, loss: &str, mini_batch_tokens: usize, half: Option<DataType>) {
    let case = case(name);
    let (directory, initial, data) = prepared(case.rows(), loss, 8);
    for runtime in devices() {
        let choice = Choice { mini_batch_tokens, precision: Precision::Fp32, ..Choice::default() };
        let mut step = Step::new(&directory, &initial, &data.tasks(), &choice, &runtime).unwrap();
        if let Some(half) = half {
            step.multiply_in(half);
        }
        let treat = |name| Treatment { decay: if decays(name) { 0.01 } else { 0.0 }, rate: 1.0 };
        let treatments: Vec<Treatment> = step.parameters().map(|(name, _)| treat(name)).collect();
        step.stay(AdamW::default(), &treatments).unwrap();
        let (mut worst_loss, mut worst_norm) = (0.0f64, 0.0f64);
        for (number, expected) in case.steps.iter().enumerate() {
            let batch = Batch { set: 0, rows: expected.rows.clone() };
            let mut run = step.run(0, &data.columns(&batch).unwrap(), number).unwrap();
            while !step.optimizer().unwrap().norm().is_finite() && step.optimizer().unwrap().overflowed() {
                run = step.run(0, &data.columns(&batch).unwrap(), number).unwrap();
            }
            worst_loss = worst_loss.max(relative(f64::from(run.loss), expected.loss));
            let optimizer = step.optimizer().unwrap();
            let norm = optimizer.norm();
            worst_norm = worst_norm.max(relative(norm, expected.grad_norm_before_clipping));
            optimizer.step(2e-5 * linear(number, 2, case.steps.len()), clip_factor(norm, 1.0)).unwrap();
        }
        let weights = step.weights(&initial).unwrap();
        let embedder = Embedder::with_weights(directory.clone(), &weights, Precision::Fp32, &runtime).unwrap();
        let found = embedder.encode(&case.probe_texts, &Cancel::default(), &|_| ()).unwrap();
        let expected = case.probe_embeddings_after.iter().flatten();
        let worst_probe = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let device = &runtime.device;
        println!("{name} on {device}: worst loss {worst_loss:.1e}, gradient norm {worst_norm:.1e}, embeddings {worst_probe:.1e}");
        match half {
            None => assert!(worst_loss <= 1e-4 && worst_norm <= 1e-3 && worst_probe <= 2e-4),
            // A factor is off by 2^-11 at most; two dozen products lie between a text and the loss, and as many on the way back.
            Some(_) => assert!(worst_loss <= 24.0 / 2048.0 && worst_norm <= 48.0 / 2048.0 && worst_probe <= 2e-3),
        }
    }
}

#[test]
fn triplet_euclidean_on_devices() {
    follow_on_devices("triplet_euclidean_margin5", r#"{"name": "triplet"}"#, 0, None);
}

#[test]
fn mnrl_of_pairs_in_parts_on_devices() {
    follow_on_devices("mnrl_pairs_scale20", r#"{"name": "mnrl"}"#, 200, None);
}

#[test]
fn triplet_euclidean_in_half_precision_on_devices() {
    follow_on_devices("triplet_euclidean_margin5", r#"{"name": "triplet"}"#, 0, Some(DataType::F16));
}

#[test]
fn triplet_euclidean() {
    follow("triplet_euclidean_margin5", r#"{"name": "triplet"}"#);
}

#[test]
fn triplet_cosine() {
    follow("triplet_cosine_margin0.5", r#"{"name": "triplet", "distance": "cosine", "margin": 0.5}"#);
}

#[test]
fn triplet_manhattan() {
    follow("triplet_manhattan_margin5", r#"{"name": "triplet", "distance": "manhattan"}"#);
}

#[test]
fn mnrl_of_pairs() {
    follow("mnrl_pairs_scale20", r#"{"name": "mnrl"}"#);
}

#[test]
fn mnrl_of_triplets() {
    follow("mnrl_triplets_scale20", r#"{"name": "mnrl"}"#);
}

#[test]
fn mnrl_with_two_negatives() {
    follow("mnrl_two_negatives_scale50", r#"{"name": "mnrl", "scale": 50}"#);
}

#[test]
fn mnrl_symmetric() {
    follow("mnrl_symmetric", r#"{"name": "mnrl", "symmetric": true}"#);
}

#[test]
fn contrastive() {
    follow("contrastive", r#"{"name": "contrastive"}"#);
}

#[test]
fn online_contrastive() {
    follow("online_contrastive", r#"{"name": "online_contrastive"}"#);
}

#[test]
fn cosent() {
    follow("cosent", r#"{"name": "cosent"}"#);
}

#[test]
fn angle() {
    follow("angle", r#"{"name": "angle"}"#);
}

#[test]
fn margin_mse() {
    follow("margin_mse", r#"{"name": "margin_mse"}"#);
}

#[test]
fn matryoshka() {
    follow("matryoshka_mnrl_384_128_32", r#"{"name": "matryoshka", "loss": {"name": "mnrl"}, "dims": [384, 128, 32]}"#);
}

#[test]
fn every_case_is_followed() {
    let tests = include_str!("reference_tests.rs");
    for case in cases() {
        assert!(tests.contains(&format!("follow(\"{}\"", case.name)), "no test follows `{}`", case.name);
    }
}

/// Pairs without labels, texts of uneven length.
fn pairs(rows: usize) -> Vec<(usize, Example)> {
    let reference = case("mnrl_pairs_scale20");
    let text = |column: usize, i: usize| format!("{} {i}", reference.columns[column][i % reference.columns[column].len()]);
    let row = |i: usize| Example { anchor: text(0, i), positive: text(1, i), ..Example::default() };
    (0..rows).map(|i| (i + 1, row(i))).collect()
}

#[test]
fn parts_of_a_batch_give_the_gradients_of_the_whole() {
    for loss in [r#"{"name": "mnrl"}"#, r#"{"name": "matryoshka", "loss": {"name": "gist", "guide": "self"}, "dims": [384, 64]}"#]
    {
        let run = |mini_batch_tokens: usize| {
            let (directory, initial, data) = prepared(pairs(24), loss, 24);
            let choice = Choice { mini_batch_tokens, precision: Precision::Fp32, ..Choice::default() };
            let mut step = Step::new(&directory, &initial, &data.tasks(), &choice, &downloads()).unwrap();
            let names: Vec<String> = step.parameters().map(|(name, _)| name.to_owned()).collect();
            let columns = data.columns(&Batch { set: 0, rows: (0..24).collect() }).unwrap();
            assert!(columns.tokens() > 4 * 200);
            // Twice, as a sum that is used again must begin anew.
            let first = step.run(0, &columns, 0).unwrap();
            step.update(&first, |_, _| ()).unwrap();
            let run = step.run(0, &columns, 0).unwrap();
            (run.loss, names, gradients(&mut step, &run))
        };
        let ((whole, names, expected), (parts, _, found)) = (run(0), run(200));
        assert!(relative(parts.into(), whole.into()) <= 1e-5, "{loss}: {parts} instead of {whole}");
        let largest = expected.iter().map(|gradient| length(gradient)).fold(0.0, f64::max);
        let mut worst = 0.0f64;
        for ((name, expected), found) in names.iter().zip(&expected).zip(&found) {
            let difference: Vec<f32> = expected.iter().zip(found).map(|(a, b)| a - b).collect();
            // The gradients of key biases are rounding errors of 0, in the measure of the others.
            let floor = if name.ends_with("key.bias") { 1e-3 * largest } else { 1e-4 };
            let off = length(&difference) / length(expected).max(floor);
            assert!(off <= 1e-5, "{loss}: the gradient of `{name}` is off by {off:.1e}");
            worst = worst.max(off);
        }
        println!("{loss}: worst deviation of a gradient {worst:.1e}");
    }
}

/// Rounding to bf16 moves the gradient of a batch by 1.3e-2 of its length, and no weight's gradient by much more.
#[test]
fn gradients_in_bf16_are_near_those_in_single_precision() {
    let run = |precision: Precision| {
        let (directory, initial, data) = prepared(pairs(24), r#"{"name": "mnrl"}"#, 24);
        let mut step =
            Step::new(&directory, &initial, &data.tasks(), &Choice { precision, ..Choice::default() }, &downloads()).unwrap();
        let names: Vec<String> = step.parameters().map(|(name, _)| name.to_owned()).collect();
        let columns = data.columns(&Batch { set: 0, rows: (0..24).collect() }).unwrap();
        let run = step.run(0, &columns, 0).unwrap();
        (run.loss, names, gradients(&mut step, &run))
    };
    let ((exact, names, expected), (loss, _, found)) = (run(Precision::Fp32), run(Precision::Bf16));
    assert!((exact - loss).abs() <= 1e-3, "the loss is {loss} instead of {exact}");
    let difference: Vec<Vec<f32>> =
        expected.iter().zip(&found).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).collect()).collect();
    let (all, off) = (length(&expected.concat()), length(&difference.concat()));
    assert!(off <= 2.5e-2 * all, "the gradient is off by {:.1e}", off / all);
    for ((name, expected), difference) in names.iter().zip(&expected).zip(&difference) {
        let off = length(difference) / length(expected).max(1e-3 * all);
        assert!(off <= 5e-2, "the gradient of `{name}` is off by {off:.1e}");
    }
}

/// The gradients of a run, and an optimizer's step with them.
fn gradients(step: &mut Step, run: &Run) -> Vec<Vec<f32>> {
    let dense = |(weight, gradient): (&mut [f32], &Gradient)| gradient.to_dense(weight.len());
    step.update(run, |weights, gradients| weights.into_iter().zip(gradients).map(dense).collect()).unwrap()
}

fn length(v: &[f32]) -> f64 {
    v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// The most memory the process has had since the last call, in MiB.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "measures memory, so it must run alone, and takes a minute"]
fn a_batch_of_a_thousand_pairs_needs_the_memory_of_a_part() {
    let (directory, initial, data) = prepared(pairs(1024), r#"{"name": "mnrl"}"#, 1024);
    let choice = Choice { mini_batch_tokens: 2048, precision: Precision::Fp32, ..Choice::default() };
    let mut step = Step::new(&directory, &initial, &data.tasks(), &choice, &downloads()).unwrap();
    let mut peaks = Vec::new();
    for rows in [128, 128, 256, 512, 1024] {
        peak();
        let columns = data.columns(&Batch { set: 0, rows: (0..rows).collect() }).unwrap();
        let started = std::time::Instant::now();
        let run = step.run(0, &columns, 0).unwrap();
        step.update(&run, |_, _| ()).unwrap();
        peaks.push(peak());
        println!("{rows} pairs, {} tokens: {} MiB, {:.1} s", run.tokens, peaks[peaks.len() - 1], started.elapsed().as_secs_f64());
    }
    // Of 256 pairs enough parts have run for the arena to have held the largest. Embeddings and similarities of 1,024 pairs are some 30 MiB.
    assert!(peaks[4] < peaks[2] + 100, "{peaks:?}");
}
