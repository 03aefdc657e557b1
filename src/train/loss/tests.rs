//! What all losses have in common: settings by name, gradients, and figures of sentence-transformers.

use serde::Deserialize;

use super::*;
use crate::onnx::finite_differences::check;
use crate::onnx::{DataType, Gradient, differentiate};
use crate::runtime::session::{Input, Session};
use crate::runtime::testing::downloads;
use crate::shape;

fn read(text: &str) -> Result<Loss, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

#[test]
fn settings_are_read_by_the_losses_name() {
    let loss = read(r#"{"name": "triplet", "margin": 0.5, "distance": "cosine"}"#).unwrap();
    assert_eq!(loss, Loss::Triplet(triplet::Triplet { distance: distance::Distance::Cosine, margin: 0.5 }));
    assert!(read(r#"{"name": "triplet", "marign": 0.5}"#).unwrap_err().contains("unknown field `marign`"));
    assert!(read(r#"{"name": "triple"}"#).unwrap_err().contains("unknown variant `triple`, expected one of `triplet`, `mnrl`"));
    let loss = read(r#"{"name": "matryoshka", "loss": {"name": "mnrl", "scale": 50}, "dims": [64, 32]}"#).unwrap();
    let Loss::Matryoshka(matryoshka) = &loss else { panic!("{loss:?}") };
    assert_eq!(*matryoshka.loss, Loss::Mnrl(mnrl::Mnrl { scale: 50.0, ..Default::default() }));
    assert_eq!(read(&serde_json::to_string(&loss).unwrap()).unwrap(), loss);
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let error = |text: &str| {
        let bad = read(text).unwrap().formula().check().unwrap_err();
        format!("{}: {}", bad.field, bad.message)
    };
    insta::assert_snapshot!(error(r#"{"name": "triplet", "margin": 0}"#), @"margin: `margin` must be above 0, not 0");
    insta::assert_snapshot!(error(r#"{"name": "mnrl", "scale": -1}"#), @"scale: `scale` must be above 0, not -1");
    insta::assert_snapshot!(error(r#"{"name": "gist", "margin": -1}"#), @"margin: `margin` must not be negative, but is -1");
    insta::assert_snapshot!(error(r#"{"name": "matryoshka", "loss": {"name": "cosent", "scale": 0}, "dims": [3]}"#), @"loss.scale: `scale` must be above 0, not 0");
    insta::assert_snapshot!(error(r#"{"name": "matryoshka", "loss": {"name": "cosent"}, "dims": []}"#), @"dims: `dims` is empty; name the lengths that embeddings are cut to, for example `[384, 128, 32]`");
    insta::assert_snapshot!(error(r#"{"name": "matryoshka", "loss": {"name": "cosent"}, "dims": [8, 0]}"#), @"dims[1]: the length 0 is no length; remove it");
    insta::assert_snapshot!(error(r#"{"name": "matryoshka", "loss": {"name": "cosent"}, "dims": [8, 4], "weights": [1]}"#), @"weights: there are 1 weights for 2 lengths; give each one of `dims` one");
    insta::assert_snapshot!(error(r#"{"name": "matryoshka", "loss": {"name": "matryoshka", "loss": {"name": "cosent"}, "dims": [8]}, "dims": [8]}"#), @"loss: `matryoshka` goes around another loss, not around itself; put all lengths into one `dims`");
}

/// Compares the gradients of a loss with finite differences: four rows of `columns` texts, with `labels` and vectors of a guide.
fn differentiates(settings: &str, columns: usize, labels: &[f32]) {
    let loss = read(settings).unwrap();
    let shapes = vec![&[4usize, 6][..]; columns];
    check(settings, &shapes, |g, x| {
        let labels = (!labels.is_empty()).then(|| g.constant(&[4, labels.len() / 4], labels));
        let guides = if loss.formula().is_guided() { (0..columns).map(|c| guide(g, c)).collect() } else { Vec::new() };
        loss.formula().build(g, &Inputs { columns: x.to_vec(), labels, guides })
    });
}

/// Any vectors, the same at each call.
fn guide(g: &Graph, column: usize) -> Value {
    let data: Vec<f32> = (0..20).map(|i| ((i * 7 + column * 3) % 11) as f32 - 4.5).collect();
    g.constant(&[4, 5], &data)
}

#[test]
fn gradients() {
    for distance in ["euclidean", "cosine", "manhattan"] {
        differentiates(&format!(r#"{{"name": "triplet", "distance": "{distance}", "margin": 0.7}}"#), 3, &[]);
        differentiates(
            &format!(r#"{{"name": "contrastive", "distance": "{distance}", "margin": 1.3}}"#),
            2,
            &[1.0, 0.0, 0.0, 1.0],
        );
        differentiates(
            &format!(r#"{{"name": "online_contrastive", "distance": "{distance}", "margin": 1.3}}"#),
            2,
            &[1.0, 0.0, 0.0, 1.0],
        );
    }
    differentiates(r#"{"name": "mnrl", "scale": 2}"#, 2, &[]);
    differentiates(r#"{"name": "mnrl", "scale": 2}"#, 4, &[]);
    differentiates(r#"{"name": "mnrl", "scale": 1, "similarity": "dot", "symmetric": true}"#, 3, &[]);
    differentiates(r#"{"name": "gist", "temperature": 0.5}"#, 3, &[]);
    differentiates(r#"{"name": "gist", "temperature": 0.5, "margin": 0.1, "contrast_anchors": false}"#, 2, &[]);
    differentiates(r#"{"name": "cosent", "scale": 2}"#, 2, &[0.1, 0.8, 0.8, 0.3]);
    differentiates(r#"{"name": "angle", "scale": 2}"#, 2, &[0.1, 0.8, 0.8, 0.3]);
    differentiates(r#"{"name": "margin_mse"}"#, 3, &[0.1, 0.8, 0.8, 0.3]);
    differentiates(r#"{"name": "margin_mse", "similarity": "cosine"}"#, 4, &[0.1, 0.8, 0.8, 0.3, -0.3, 0.0, 0.4, 0.5]);
    differentiates(r#"{"name": "margin_mse"}"#, 3, &[0.1, 0.8, 0.8, 0.3, -0.3, 0.0, 0.4, 0.5]);
    differentiates(r#"{"name": "distill_kl", "temperature": 2}"#, 3, &[0.1, 0.8, 0.8, 0.3, -0.3, 0.0, 0.4, 0.5]);
    differentiates(
        r#"{"name": "matryoshka", "loss": {"name": "mnrl", "scale": 2}, "dims": [6, 2], "weights": [1, 0.5]}"#,
        2,
        &[],
    );
}

/// Figures of sentence-transformers in double precision, written by tests/fixtures/losses.py.
#[derive(Deserialize)]
struct Figures {
    formulas: Vec<Figure>,
}

#[derive(Deserialize)]
struct Figure {
    loss: Loss,
    columns: Vec<Vec<Vec<f32>>>,
    guides: Vec<Vec<Vec<f32>>>,
    labels: Option<Vec<Vec<f32>>>,
    value: f64,
    gradients: Vec<Vec<Vec<f64>>>,
}

impl Figure {
    /// The loss and its gradients, computed with sizes that are known only when the graph runs, as in training.
    fn compute(&self) -> Vec<Vec<f32>> {
        let g = Graph::new();
        let matrix = |name: String, rows: &[Vec<f32>]| (name, rows[0].len(), rows.concat());
        let numbered = |name: &'static str, all: &[Vec<Vec<f32>>]| {
            all.iter().enumerate().map(|(i, rows)| matrix(format!("{name}{i}"), rows)).collect::<Vec<_>>()
        };
        let (columns, guides) = (numbered("column", &self.columns), numbered("guide", &self.guides));
        let labels = self.labels.as_ref().map(|rows| matrix("labels".into(), rows));
        let value = |(name, width, _): &(String, usize, Vec<f32>)| g.input(name, DataType::F32, shape!["batch", *width]);
        let inputs = Inputs {
            columns: columns.iter().map(value).collect(),
            labels: labels.as_ref().map(value),
            guides: guides.iter().map(value).collect(),
        };
        let loss = self.loss.formula().build(&g, &inputs);
        let gradients = differentiate(&g, loss, &inputs.columns).unwrap();
        g.output("loss", loss);
        for (i, gradient) in gradients.iter().enumerate() {
            let Gradient::Dense(gradient) = gradient else { panic!("{gradient:?}") };
            g.output(&format!("gradient{i}"), *gradient);
        }
        let mut session = Session::from_model(&g.to_model().unwrap(), &downloads()).unwrap();
        let data = columns.iter().chain(&labels).chain(&guides);
        let data: Vec<Input> = data.map(|(name, width, data)| Input::floats(name, &[data.len() / width, *width], data)).collect();
        session.run(&data).unwrap().into_iter().map(|(_, data)| data).collect()
    }
}

#[test]
fn formulas_follow_sentence_transformers() {
    let figures: Figures = serde_json::from_str(include_str!("../../../tests/fixtures/losses.json")).unwrap();
    assert_eq!(figures.formulas.len(), 20);
    let mut worst = 0.0f64;
    for figure in &figures.formulas {
        let found = figure.compute();
        let off = |found: f32, expected: f64, scale: f64| (f64::from(found) - expected).abs() / scale.max(1e-3);
        let value = off(found[0][0], figure.value, figure.value.abs());
        let expected: Vec<f64> = figure.gradients.iter().flatten().flatten().copied().collect();
        let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        let gradients = found[1..].concat();
        assert_eq!(gradients.len(), expected.len());
        let gradient = gradients.iter().zip(&expected).map(|(f, e)| off(*f, *e, largest)).fold(0.0, f64::max);
        let what = figure.loss.formula().describe();
        assert!(value <= 1e-5, "{what}: {} instead of {}", found[0][0], figure.value);
        // Cosines carry an error of 6e-8, which the loss multiplies: at a temperature of 0.01 by 100.
        let bound = if what.contains("temperature 0.01") { 3e-5 } else { 1e-5 };
        assert!(gradient <= bound, "{what}: a gradient is off by {gradient:.1e} of the largest");
        worst = worst.max(value).max(gradient);
    }
    println!("worst deviation {worst:.1e}");
}
