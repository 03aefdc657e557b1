use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retune_kernels::{Isa, Precision};

use super::*;
use crate::onnx::finite_differences::run;
use crate::onnx::{Attention, DataType, Dropout, Gradient, differentiate};
use crate::shape;

const TOKENS: usize = 40;
const WIDTH: usize = 64;

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A layer of an encoder, and all its gradients. `keep` makes what GELU gives an output; before a normalization there is dropout, with `drop`.
fn block(keep: bool, drop: bool) -> (Graph, Vec<(&'static str, Vec<usize>)>) {
    let g = Graph::with(Operators::Own { bf16: true });
    let shapes = vec![
        ("x", vec![TOKENS, WIDTH]),
        ("q", vec![WIDTH, WIDTH]),
        ("k", vec![WIDTH, WIDTH]),
        ("v", vec![WIDTH, WIDTH]),
        ("o", vec![WIDTH, WIDTH]),
        ("w1", vec![2 * WIDTH, WIDTH]),
        ("b1", vec![2 * WIDTH]),
        ("w2", vec![WIDTH, 2 * WIDTH]),
        ("b2", vec![WIDTH]),
        ("scale", vec![WIDTH]),
        ("shift", vec![WIDTH]),
    ];
    let input =
        |(name, shape): &(&'static str, Vec<usize>)| g.input(name, DataType::F32, shape.iter().map(|&d| d.into()).collect());
    let inputs: Vec<Value> = shapes.iter().map(input).collect();
    let [x, q, k, v, o, w1, b1, w2, b2, scale, shift] = inputs[..] else { panic!("eleven inputs") };
    let how = Attention { heads: 2, scale: 0.2, window: None, bias: None, dropout: None };
    let starts = g.integers(&[0, 7, TOKENS as i64]);
    let attended = g.attention([g.linear(x, q, None), g.linear(x, k, None), g.linear(x, v, None)], starts, &how);
    let seed = g.integers(&[7]);
    let dropped = |x, site| if drop { g.dropout(x, Dropout { seed, site, probability: 0.3 }) } else { x };
    let x1 = g.add_layer_norm(dropped(g.linear(attended, o, None), 1), x, scale, shift, 1e-5);
    let wide = g.gelu(g.linear(x1, w1, Some(b1)));
    let y = g.add_layer_norm(dropped(g.linear(wide, w2, Some(b2)), 2), x1, scale, shift, 1e-5);
    let loss = g.mean_all(g.mul(y, g.constant(&[TOKENS, WIDTH], &numbers(TOKENS * WIDTH, 99))));
    for (i, gradient) in differentiate(&g, loss, &inputs).unwrap().into_iter().enumerate() {
        let Gradient::Dense(value) = gradient else { panic!("{gradient:?}") };
        g.output(&format!("d{}", shapes[i].0), value);
    }
    if keep {
        g.output("wide", wide);
    }
    g.output("y", y);
    (g, shapes)
}

fn count(g: &Graph, op: &str) -> usize {
    g.nodes().iter().filter(|node| node.op == op && node.domain == OWN).count()
}

fn length(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum::<f32>().sqrt()
}

fn outputs(g: &Graph, shapes: &[(&'static str, Vec<usize>)]) -> Vec<Vec<f32>> {
    let data: Vec<Vec<f32>> = shapes.iter().enumerate().map(|(i, (_, shape))| numbers(shape.iter().product(), i)).collect();
    let inputs: Vec<(&str, &[usize], &[f32])> =
        shapes.iter().zip(&data).map(|((name, shape), data)| (*name, &shape[..], &data[..])).collect();
    run(g, &inputs).into_iter().map(|(_, data)| data).collect()
}

#[test]
fn a_block_stays_the_same() {
    for drop in [false, true] {
        let (plain, shapes) = block(false, drop);
        let (fused, _) = block(false, drop);
        fuse(&fused);
        for (op, times) in [
            ("GemmGelu", 1),
            ("GemmScaleBf16", 1),
            ("GemmSum", 1),
            ("GemmLayerNormalization", 2),
            ("GemmLayerNormalizationGrad", 1),
            ("AttentionGradBf16", 1),
            ("Gelu", 0),
            ("GeluGrad", 0),
            // The last normalization's gradient comes from the loss.
            ("Dropout", usize::from(drop)),
        ] {
            assert_eq!(count(&fused, op), times, "{op}, dropout: {drop}");
        }
        assert!(fused.nodes().len() < plain.nodes().len());
        for ((name, expected), found) in
            shapes.iter().map(|s| s.0).chain(["y"]).zip(outputs(&plain, &shapes)).zip(outputs(&fused, &shapes))
        {
            let difference: Vec<f32> = expected.iter().zip(&found).map(|(a, b)| a - b).collect();
            // What is rounded besides factors: the slope of GELU, what was attended to where its gradient reads it, the summands of biases; to 8 bits.
            // Where products are in fp32, nothing is rounded in the one and all values between products in the other.
            let bound = if Isa::best().fastest() == Precision::Bf16 { 2e-2 } else { 5e-2 };
            let off = length(&difference) / length(&expected);
            assert!(off <= bound, "{name} is off by {off:.1e}, dropout: {drop}");
        }
    }
}

/// An output of the graph is there in single precision, whatever reads it besides.
#[test]
fn outputs_stay() {
    let (g, shapes) = block(true, false);
    fuse(&g);
    assert_eq!((count(&g, "GemmGelu"), count(&g, "Gelu"), count(&g, "GeluGrad")), (0, 1, 1));
    assert!(g.outputs().iter().all(|&value| g.data_type(value) == DataType::F32));
    let wide = &outputs(&g, &shapes)[shapes.len()];
    assert_eq!(wide.len(), TOKENS * 2 * WIDTH);
}

#[test]
fn other_operators_stay() {
    for operators in [Operators::Released, Operators::Own { bf16: false }] {
        let g = Graph::with(operators);
        let x = g.input("x", DataType::F32, shape!["n", 8]);
        let w = g.input("w", DataType::F32, shape![8, 8]);
        g.output("y", g.linear(g.gelu(g.linear(x, w, None)), w, None));
        let before = g.nodes().len();
        fuse(&g);
        assert_eq!(g.nodes().len(), before);
        assert_eq!(count(&g, "GemmGelu"), 0);
    }
}
