//! Compares training with sentence-transformers' figures: six steps of each loss.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::loss::Loss;
use super::loss::triplet::{Distance, Triplet};
use super::optimizer::{AdamW, Optimizer, clip_factor, norm};
use super::schedule::linear;
use super::step::Step;
use crate::cancel::Cancel;
use crate::model::directory::ModelDirectory;
use crate::model::embedder::Embedder;
use crate::model::testing::minilm;
use crate::model::tokenizer::Tokens;
use crate::model::weights::Weights;
use crate::runtime::testing::downloads;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    columns: Vec<Vec<String>>,
    steps: Vec<Expected>,
    probe_texts: Vec<String>,
    probe_embeddings_after: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Expected {
    rows: Vec<usize>,
    loss: f64,
    grad_norm_before_clipping: f64,
    parameter_grad_norms: Option<BTreeMap<String, f64>>,
}

fn case(name: &str) -> Case {
    let reference: Reference = serde_json::from_str(include_str!("../../tests/fixtures/training.json")).unwrap();
    reference.cases.into_iter().find(|c| c.name == name).unwrap()
}

/// The deviation relative to `expected`; a loss that is 0 must be 0 exactly.
fn relative(found: f64, expected: f64) -> f64 {
    if found == expected { 0.0 } else { (found - expected).abs() / expected.abs() }
}

/// Six steps with the reference's batches and settings.
fn follow(name: &str, loss: &Loss) {
    let case = case(name);
    let directory = ModelDirectory::open(&minilm()).unwrap();
    let initial = Weights::read(&directory.weights()).unwrap();
    let mut step = Step::new(&directory, &initial, loss, &downloads()).unwrap();
    let columns: Vec<Vec<Tokens>> = case
        .columns
        .iter()
        .map(|texts| step.tokenizer().encode(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap())
        .collect();
    let mut optimizer = Optimizer::new(AdamW::default(), step.parameters());
    let names: Vec<String> = step.parameters().map(|(n, _)| n.to_owned()).collect();
    let (mut worst_loss, mut worst_norm) = (0.0f64, 0.0f64);
    for (number, expected) in case.steps.iter().enumerate() {
        let batch: Vec<Vec<&Tokens>> = columns.iter().map(|c| expected.rows.iter().map(|&r| &c[r]).collect()).collect();
        let run = step.run(&batch).unwrap();
        let off = relative(f64::from(run.loss), expected.loss);
        worst_loss = worst_loss.max(off);
        assert!(off <= 1e-4, "{name}, step {number}: loss {} instead of {}", run.loss, expected.loss);
        let lr = 2e-5 * linear(number, 2, case.steps.len());
        let (total, norms) = step
            .update(&run, |weights, gradients| {
                let norms: Vec<f64> = gradients.iter().map(super::optimizer::Gradient::norm).collect();
                let total = norm(gradients);
                optimizer.step(lr, clip_factor(total, 1.0), weights, gradients);
                (total, norms)
            })
            .unwrap();
        let total_off = relative(total, expected.grad_norm_before_clipping);
        assert!(
            total_off <= 1e-3,
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
    let weights = step.weights(&initial);
    let embedder = Embedder::with_weights(directory, &weights, &downloads()).unwrap();
    let found = embedder.encode(&case.probe_texts, &Cancel::default(), &|_| ()).unwrap();
    let expected = case.probe_embeddings_after.iter().flatten();
    let worst_probe = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst_probe <= 2e-4, "{name}: embeddings after six steps are off by {worst_probe}");
    println!("{name}: worst loss {worst_loss:.1e}, gradient norm {worst_norm:.1e}, embeddings {worst_probe:.1e}");
}

#[test]
fn triplet_euclidean() {
    follow("triplet_euclidean_margin5", &Loss::Triplet(Triplet { distance: Distance::Euclidean, margin: 5.0 }));
}

#[test]
fn triplet_cosine() {
    follow("triplet_cosine_margin0.5", &Loss::Triplet(Triplet { distance: Distance::Cosine, margin: 0.5 }));
}

#[test]
fn triplet_manhattan() {
    follow("triplet_manhattan_margin5", &Loss::Triplet(Triplet { distance: Distance::Manhattan, margin: 5.0 }));
}
