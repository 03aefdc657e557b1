//! Exported encoders against PyTorch's figures, and files that are not what they should be.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::Deserialize;

use super::*;
use crate::onnx::{Gradient, differentiate};
use crate::runtime::session::{Input, Session};
use crate::runtime::testing::downloads;
use crate::shape;

/// `tests/fixtures/imported/gradients.json`: see the script beside it.
#[derive(Deserialize)]
struct Reference {
    input_ids: Vec<Vec<i64>>,
    attention_mask: Vec<Vec<i64>>,
    weighting: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    file: String,
    loss: f64,
    gradients: indexmap::IndexMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    norm: f64,
    first: Vec<f32>,
    shape: Vec<usize>,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imported").join(name)
}

/// A weight's shape and gradient.
struct Found {
    shape: Vec<usize>,
    gradient: Vec<f32>,
}

impl Found {
    fn norm(&self) -> f64 {
        self.gradient.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    }

    /// Exports keep the weights of linear layers transposed.
    fn transposed(self) -> Found {
        let [rows, columns] = self.shape[..] else { panic!("{:?}", self.shape) };
        let gradient = (0..rows * columns).map(|i| self.gradient[i % rows * columns + i / rows]).collect();
        Found { shape: vec![columns, rows], gradient }
    }
}

/// Loss and gradients of every weight by name, in the order of use.
fn gradients(file: &OnnxFile, reference: &Reference) -> (f32, indexmap::IndexMap<String, Found>) {
    let g = Graph::new();
    let input = |name| g.input(name, DataType::I64, shape!["rows", "seq"]);
    let inputs = [("input_ids", input("input_ids")), ("attention_mask", input("attention_mask"))];
    let weights = file.weights("last_hidden_state").unwrap();
    let parameters: HashMap<&str, Value> = weights
        .iter()
        .map(|(name, t)| (name.as_str(), g.input(name, DataType::F32, t.dims.iter().map(|&d| d.into()).collect())))
        .collect();
    let hidden = file.import(&g, &inputs, "last_hidden_state", &|name, _| parameters.get(name).copied()).unwrap();
    let weighting = g.input("weighting", DataType::F32, g.shape(hidden));
    let mask = g.unsqueeze(g.cast(inputs[1].1, DataType::F32), &[2]);
    let loss = g.mean_all(g.mul(g.mul(hidden, weighting), mask));
    let wanted: Vec<Value> = weights.iter().map(|(name, _)| parameters[name.as_str()]).collect();
    let pieces = differentiate(&g, loss, &wanted).unwrap();
    g.output("loss", loss);
    for (i, piece) in pieces.iter().enumerate() {
        match piece {
            Gradient::Dense(value) => g.output(&format!("gradient:{i}"), *value),
            Gradient::Rows(rows) => {
                for (k, (ids, values)) in rows.iter().enumerate() {
                    g.output(&format!("ids:{i}:{k}"), g.cast(*ids, DataType::F32));
                    g.output(&format!("rows:{i}:{k}"), *values);
                }
            }
            Gradient::Zero => {}
        }
    }
    let mut session = Session::from_model(&g.to_model().unwrap(), &downloads()).unwrap();
    let shape = [reference.input_ids.len(), reference.input_ids[0].len()];
    let (ids, mask) = (reference.input_ids.concat(), reference.attention_mask.concat());
    let wide = [shape[0], shape[1], reference.weighting.len() / ids.len()];
    let mut feed = vec![Input::integers("input_ids", &shape, &ids), Input::integers("attention_mask", &shape, &mask)];
    feed.push(Input::floats("weighting", &wide, &reference.weighting));
    for (name, tensor) in &weights {
        let Data::Floats(data) = &tensor.data else { panic!("{name}") };
        feed.push(Input::floats(name, &tensor.dims, data));
    }
    let mut outputs = session.run(&feed).unwrap().into_iter();
    let loss = outputs.next().unwrap().1[0];
    let mut found = indexmap::IndexMap::new();
    for ((name, tensor), piece) in weights.iter().zip(&pieces) {
        let gradient = match piece {
            Gradient::Dense(_) => outputs.next().unwrap().1,
            Gradient::Rows(rows) => {
                let mut sum = vec![0.0; tensor.dims.iter().product()];
                for _ in rows {
                    let (ids, values) = (outputs.next().unwrap().1, outputs.next().unwrap().1);
                    for (id, row) in ids.iter().zip(values.chunks(tensor.dims[1])) {
                        row.iter().enumerate().for_each(|(c, x)| sum[*id as usize * tensor.dims[1] + c] += x);
                    }
                }
                sum
            }
            Gradient::Zero => vec![0.0; tensor.dims.iter().product()],
        };
        found.insert(name.clone(), Found { shape: tensor.dims.clone(), gradient });
    }
    (loss, found)
}

/// Weights for which no name is found are taken in the order of use, as linear layers are used in the order in which they are
/// defined.
#[test]
fn gradients_are_those_of_pytorch() {
    let reference: Reference = serde_json::from_str(&std::fs::read_to_string(fixture("gradients.json")).unwrap()).unwrap();
    for case in &reference.cases {
        let mut file = OnnxFile::read(&fixture(&case.file)).unwrap();
        file.name_layers("last_hidden_state");
        let (loss, mut found) = gradients(&file, &reference);
        let off = (f64::from(loss) - case.loss).abs() / case.loss.abs();
        assert!(off < 1e-4, "{}: loss {loss} instead of {}", case.file, case.loss);
        let mut anonymous: Vec<Found> = Vec::new();
        let mut named = BTreeMap::new();
        for (name, weight) in found.drain(..) {
            if case.gradients.contains_key(&name) { drop(named.insert(name, weight)) } else { anonymous.push(weight) }
        }
        let mut anonymous = anonymous.into_iter();
        let (mut worst, mut count) = (0.0f64, 0);
        for (name, expected) in &case.gradients {
            let found = named.remove(name).or_else(|| anonymous.next());
            let found = found.unwrap_or_else(|| panic!("{}: {name} is no weight", case.file));
            let is_table = name.contains("embeddings") || name.contains("relative");
            let found = if expected.shape.len() == 2 && !is_table { found.transposed() } else { found };
            assert_eq!(found.shape, expected.shape, "{}: {name}", case.file);
            let off = (found.norm() - expected.norm).abs() / expected.norm.max(1e-3);
            assert!(off < 1e-3, "{}: gradient of {name} has norm {} instead of {}", case.file, found.norm(), expected.norm);
            for (a, b) in found.gradient.iter().zip(&expected.first) {
                assert!((a - b).abs() < 1e-6 + 1e-3 * expected.norm as f32, "{}: {name}: {a} instead of {b}", case.file);
            }
            worst = worst.max(off);
            count += 1;
        }
        assert_eq!(anonymous.count(), 0, "{}: more weights than the model has", case.file);
        println!("{}: {count} weights, worst norm {worst:.1e}", case.file);
    }
}
