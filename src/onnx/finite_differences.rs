//! Compares gradient rules with finite differences, by running both on ONNX Runtime.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{DataType, Gradient, Graph, Operators, Value, differentiate};
use crate::runtime::session::{Input, Session};
use crate::runtime::testing::downloads;
use crate::shape;

/// An output: its shape and elements.
pub type Output = (Vec<usize>, Vec<f32>);

/// Runs `graph` on float inputs and returns its float outputs in order.
pub fn run(graph: &Graph, inputs: &[(&str, &[usize], &[f32])]) -> Vec<Output> {
    let mut session = Session::from_model(&graph.to_model().unwrap(), &downloads()).unwrap();
    let inputs: Vec<Input> = inputs.iter().map(|(name, shape, data)| Input::floats(name, shape, data)).collect();
    session.run(&inputs).unwrap()
}

/// Checks the gradients of `f` with respect to all its inputs, of the given shapes, at a random point.
pub fn check(what: &str, shapes: &[&[usize]], f: impl Fn(&Graph, &[Value]) -> Value) {
    check_with(Operators::Released, what, shapes, f);
}

/// As [`check`], with a graph of `operators`.
pub fn check_with(operators: Operators, what: &str, shapes: &[&[usize]], f: impl Fn(&Graph, &[Value]) -> Value) {
    let g = Graph::with(operators);
    let names: Vec<String> = (0..shapes.len()).map(|i| format!("x{i}")).collect();
    let inputs: Vec<Value> = shapes
        .iter()
        .zip(&names)
        .map(|(shape, name)| g.input(name, DataType::F32, shape.iter().map(|&d| d.into()).collect()))
        .collect();
    let y = f(&g, &inputs);
    // A random weighting of the outputs, so that no gradient cancels out.
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let sizes: Vec<usize> = g.shape(y).iter().map(|d| if let super::Dim::Fixed(n) = d { *n } else { panic!("{d}") }).collect();
    let weighting: Vec<f32> = (0..sizes.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    let loss = g.mean_all(g.mul(y, g.constant(&sizes, &weighting)));
    let gradients = differentiate(&g, loss, &inputs).unwrap();
    g.output("loss", loss);
    for (i, gradient) in gradients.iter().enumerate() {
        let Gradient::Dense(value) = gradient else { panic!("{what}: input {i}: {gradient:?}") };
        g.output(&format!("g{i}"), *value);
    }
    // Away from 0, where the kinks of abs, relu and max are.
    let mut data: Vec<Vec<f32>> = shapes
        .iter()
        .map(|s| (0..s.iter().product()).map(|_| rng.random_range(0.1..1.0f32) * if rng.random() { 1.0 } else { -1.0 }).collect())
        .collect();
    let mut session = Session::from_model(&g.to_model().unwrap(), &downloads()).unwrap();
    let mut evaluate = |data: &[Vec<f32>]| {
        let inputs: Vec<Input> = data.iter().zip(shapes).zip(&names).map(|((d, s), n)| Input::floats(n, s, d)).collect();
        session.run(&inputs).unwrap()
    };
    let outputs = evaluate(&data);
    let step = 1e-2;
    for i in 0..shapes.len() {
        assert_eq!(outputs[i + 1].0, shapes[i], "{what}: shape of gradient {i}");
        for k in 0..data[i].len() {
            let x = data[i][k];
            data[i][k] = x + step;
            let above = evaluate(&data)[0].1[0];
            data[i][k] = x - step;
            let below = evaluate(&data)[0].1[0];
            data[i][k] = x;
            let (expected, found) = ((above - below) / (2.0 * step), outputs[i + 1].1[k]);
            assert!(
                (expected - found).abs() <= 1e-4 + 2e-3 * expected.abs(),
                "{what}: input {i}[{k}]: {found} instead of {expected}"
            );
        }
    }
}

/// Checks that the rows of a lookup's gradient, added up, are the table's gradient.
pub fn check_lookup(ids: &[i64], entries: usize, width: usize) {
    let g = Graph::new();
    let table = g.input("table", DataType::F32, shape![entries, width]);
    let at = g.integers(ids);
    let y = g.lookup(table, at);
    let loss = g.mean_all(g.mul(y, y));
    let Gradient::Rows(pieces) = differentiate(&g, loss, &[table]).unwrap().remove(0) else { panic!("not rows") };
    assert_eq!(pieces.len(), 1);
    g.output("rows", pieces[0].1);
    let data: Vec<f32> = (0..entries * width).map(|i| i as f32 / 7.0).collect();
    let (shape, rows) = run(&g, &[("table", &[entries, width], &data)]).remove(0);
    assert_eq!(shape, [ids.len(), width]);
    let mut found = vec![0.0f32; data.len()];
    for (i, &id) in ids.iter().enumerate() {
        for c in 0..width {
            found[id as usize * width + c] += rows[i * width + c];
        }
    }
    for (e, row) in data.chunks(width).enumerate() {
        let count = ids.iter().filter(|&&id| id as usize == e).count() as f32;
        for (c, x) in row.iter().enumerate() {
            let expected = count * 2.0 * x / (ids.len() * width) as f32;
            assert!((found[e * width + c] - expected).abs() < 1e-6);
        }
    }
}
