//! Operators of retune's own, which run on the processor (`runtime::operators`): one pass where ONNX's need several.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::proto::OWN;
use super::super::shape::{DataType, Dim, Shape};
use super::first;

/// What attention is to do, besides what its inputs say.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub heads: usize,
    /// What the products of queries and keys are multiplied by.
    pub scale: f32,
    /// Tokens further apart do not see each other.
    pub window: Option<usize>,
    /// Added to the scores by how far key and query lie apart: `[heads, 2 · span − 1]`, number key − query + span − 1.
    pub bias: Option<Value>,
    /// Of the probabilities.
    pub dropout: Option<Dropout>,
}

/// Leaves a share of elements out and multiplies the others accordingly. What is left out follows from seed and site and from
/// where an element stands.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// int64 `[1]`, another one in each step.
    pub seed: Value,
    /// Another one in each place.
    pub site: u32,
    pub probability: f32,
}

impl Graph {
    /// Scaled dot-product attention of all heads within each text, without padding: queries, keys and values
    /// `[tokens, heads · width]`, text i having the tokens `starts[i]..starts[i + 1]`.
    pub fn attention(&self, [query, key, value]: [Value; 3], starts: Value, how: &Attention) -> Value {
        let (shape, heads) = (self.shape(query), how.heads);
        if self.shape(key) != shape || self.shape(value) != shape || !self.last(query).is_multiple_of(heads.max(1)) {
            self.broken("Attention", format!("queries, keys and values must have one shape, whose width {heads} heads share"));
        }
        let tokens = shape.first().cloned().unwrap_or(Dim::Fixed(0));
        let attributes = [
            ("heads", Attribute::Int(heads as i64)),
            ("scale", Attribute::Float(how.scale)),
            ("window", Attribute::Int(how.window.map_or(-1, |w| w as i64))),
            ("site", Attribute::Int(how.dropout.map_or(0, |d| d.site.into()))),
            ("dropout", Attribute::Float(how.dropout.map_or(0.0, |d| d.probability))),
            ("bf16", Attribute::Int(self.bf16().into())),
        ];
        let seed = how.dropout.map_or_else(|| self.integers(&[0]), |d| d.seed);
        let inputs: Vec<Value> = [query, key, value, starts, seed].into_iter().chain(how.bias).collect();
        // The second output, the logarithm of the sum of exponentials `[heads, tokens]`, is what the gradient needs.
        let outputs = vec![(DataType::F32, shape), (DataType::F32, vec![Dim::Fixed(heads), tokens])];
        self.node_many("Attention", OWN, &inputs, &attributes, outputs)[0]
    }

    /// A share of the elements of `x` set to 0, and the others multiplied accordingly.
    pub fn dropout(&self, x: Value, how: Dropout) -> Value {
        if !self.own() {
            return self.released_dropout(x, how);
        }
        let attributes = [("site", Attribute::Int(how.site.into())), ("probability", Attribute::Float(how.probability))];
        self.node("Dropout", OWN, &[x, how.seed], &attributes, DataType::F32, self.shape(x))
    }

    /// Layer normalization of `a + b` over the last dimension.
    pub fn add_layer_norm(&self, a: Value, b: Value, scale: Value, bias: Value, epsilon: f32) -> Value {
        if !self.own() || self.rank(a) != 2 || self.shape(a) != self.shape(b) {
            return self.layer_norm(self.add(a, b), scale, bias, epsilon);
        }
        let shape = self.shape(a);
        let statistic = vec![shape.first().cloned().unwrap_or(Dim::Fixed(1)), Dim::Fixed(1)];
        // y, a + b, its mean and the inverse of its standard deviation.
        let shapes = [shape.clone(), shape, statistic.clone(), statistic];
        let outputs = shapes.into_iter().map(|s| (DataType::F32, s)).collect();
        let attributes = [("epsilon", Attribute::Float(epsilon))];
        self.node_many("AddLayerNormalization", OWN, &[a, b, scale, bias], &attributes, outputs)[0]
    }

    /// The gradients of x, scale and bias of a layer normalization, from its input, its statistics and the gradient of its output.
    pub(super) fn layer_norm_gradient(&self, x: Value, scale: Value, statistics: [Value; 2], dy: Value) -> [Value; 3] {
        let shapes = [self.shape(x), self.shape(scale), self.shape(scale)];
        let outputs = shapes.into_iter().map(|s| (DataType::F32, s)).collect();
        let inputs = [x, scale, statistics[0], statistics[1], dy];
        let gradients = self.node_many("LayerNormalizationGrad", OWN, &inputs, &[], outputs);
        [gradients[0], gradients[1], gradients[2]]
    }

    /// The gradients of a linear layer's weight `[out, in]` and bias `[out]`, from `dy` `[tokens, out]` and `x` `[tokens, in]`.
    pub(super) fn weight_gradient(&self, dy: Value, x: Value) -> [Value; 2] {
        let (to, from) = (Dim::Fixed(self.last(dy)), Dim::Fixed(self.last(x)));
        let outputs = vec![(DataType::F32, vec![to.clone(), from]), (DataType::F32, vec![to])];
        let gradients = self.node_many("LinearWeightGrad", OWN, &[dy, x], &[], outputs);
        [gradients[0], gradients[1]]
    }

    /// `dy` times the derivative of GELU at `x`.
    pub(super) fn gelu_gradient(&self, x: Value, dy: Value) -> Value {
        self.node("GeluGrad", OWN, &[x, dy], &[], DataType::F32, self.shape(x))
    }
}

/// Recomputes the probabilities from the logarithm of their sum (Dao et al., "FlashAttention", 2022).
pub fn attention(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (given, bias) = node.inputs.split_at(5);
    let inputs: Vec<Value> =
        given.iter().chain(&node.outputs).copied().chain([first(g, dy)]).chain(bias.iter().copied()).collect();
    let shape: Shape = g.shape(node.inputs[0]);
    // Without a bias, its gradient has no elements.
    let of_bias = bias.first().map_or_else(|| vec![Dim::Fixed(0)], |&bias| g.shape(bias));
    let outputs = [shape.clone(), shape.clone(), shape, of_bias].map(|shape| (DataType::F32, shape));
    let gradients = g.node_many("AttentionGrad", OWN, &inputs, &node.attributes, outputs.into());
    let piece = |i: usize| match i {
        0..3 => gradients.get(i).copied(),
        5 => gradients.get(3).copied(),
        _ => None,
    };
    wanted.iter().enumerate().map(|(i, &wanted)| piece(i).filter(|_| wanted).map(Piece::Dense)).collect()
}

/// The same elements are left out of the gradient.
pub fn dropout(g: &Graph, node: &Node, dy: &[Option<Value>], _: &[bool]) -> Vec<Option<Piece>> {
    let inputs = [first(g, dy), node.inputs[1]];
    let dx = g.node("Dropout", OWN, &inputs, &node.attributes, DataType::F32, g.shape(node.inputs[0]));
    vec![Some(Piece::Dense(dx)), None]
}

pub fn add_layer_norm(g: &Graph, node: &Node, dy: &[Option<Value>], _: &[bool]) -> Vec<Option<Piece>> {
    let (scale, out) = (node.inputs[2], &node.outputs);
    let [dx, dscale, dbias] = g.layer_norm_gradient(out[1], scale, [out[2], out[3]], first(g, dy));
    [dx, dx, dscale, dbias].map(|v| Some(Piece::Dense(v))).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::finite_differences::{check_with, run};
    use crate::onnx::{Gradient, Operators, differentiate};
    use crate::runtime::session::{Input, Session};
    use crate::runtime::testing::downloads;
    use crate::shape;

    const OWN: Operators = Operators::Own { bf16: false };

    #[test]
    fn gradients() {
        let plain = Attention { heads: 2, scale: 0.7, window: None, bias: None, dropout: None };
        let qkv: &[&[usize]] = &[&[7, 6], &[7, 6], &[7, 6]];
        check_with(OWN, "attention", qkv, |g, x| g.attention([x[0], x[1], x[2]], g.integers(&[0, 3, 3, 7]), &plain));
        check_with(OWN, "attention with a window", qkv, |g, x| {
            g.attention([x[0], x[1], x[2]], g.integers(&[0, 2, 7]), &Attention { window: Some(1), ..plain })
        });
        check_with(OWN, "attention with a bias", &[&[7, 6], &[7, 6], &[7, 6], &[2, 9]], |g, x| {
            g.attention([x[0], x[1], x[2]], g.integers(&[0, 2, 7]), &Attention { bias: Some(x[3]), ..plain })
        });
        check_with(OWN, "attention with dropout", qkv, |g, x| {
            let dropout = Some(Dropout { seed: g.integers(&[5]), site: 3, probability: 0.3 });
            g.attention([x[0], x[1], x[2]], g.integers(&[0, 7]), &Attention { dropout, ..plain })
        });
        check_with(OWN, "layer norm of a sum", &[&[3, 5], &[3, 5], &[5], &[5]], |g, x| {
            g.add_layer_norm(x[0], x[1], x[2], x[3], 1e-5)
        });
        check_with(OWN, "layer norm", &[&[3, 5], &[5], &[5]], |g, x| g.layer_norm(x[0], x[1], x[2], 1e-5));
        check_with(OWN, "gelu", &[&[9]], |g, x| g.gelu(g.scale(x[0], 2.0)));
    }

    /// Factors of few bits are not rounded, so that products of them are exact.
    #[test]
    fn products_of_rounded_factors() {
        let numbers = |n: usize| (0..n).map(|i| (i * 7 % 17) as f32 - 8.0).collect::<Vec<f32>>();
        let (x, w, b) = (numbers(5 * 40), numbers(3 * 40), numbers(3));
        let outputs = [true, false].map(|bf16| {
            let g = Graph::with(Operators::Own { bf16 });
            let input = |name, shape| g.input(name, DataType::F32, shape);
            let values = [input("x", shape![5, 40]), input("w", shape![3, 40]), input("b", shape![3])];
            let y = g.linear(values[0], values[1], Some(values[2]));
            let loss = g.mean_all(g.scale(y, 15.0));
            g.output("y", y);
            for (i, gradient) in crate::onnx::differentiate(&g, loss, &values).unwrap().into_iter().enumerate() {
                let crate::onnx::Gradient::Dense(value) = gradient else { panic!("{gradient:?}") };
                g.output(&format!("g{i}"), value);
            }
            run(&g, &[("x", &[5, 40], &x), ("w", &[3, 40], &w), ("b", &[3], &b)])
        });
        assert_eq!(outputs[0], outputs[1]);
    }

    /// A weight in the file is packed once, and what only the gradient needs is neither named nor computed.
    #[test]
    fn constant_weights_and_outputs_left_out_change_nothing() {
        let numbers = |n: usize, seed: usize| (0..n).map(|i| ((i * 31 + seed) % 101) as f32 / 37.0 - 1.4).collect::<Vec<f32>>();
        let (x, w, b) = (numbers(5 * 40, 1), numbers(40 * 40, 2), numbers(40, 3));
        let data = [("w", [40, 40].as_slice(), &w), ("b", &[40], &b)];
        let run = |is_constant: bool, is_read: bool| {
            let g = Graph::with(Operators::Own { bf16: true });
            let input = |name, shape| g.input(name, DataType::F32, shape);
            let [x_in, w_in, b_in] = [input("x", shape!["n", 40]), input("w", shape![40, 40]), input("b", shape![40])];
            let y = g.linear(x_in, w_in, Some(b_in));
            let attended = g.attention(
                [y, y, x_in],
                g.integers(&[0, 2, 5]),
                &Attention { heads: 2, scale: 0.3, window: None, bias: None, dropout: None },
            );
            g.output("y", g.add_layer_norm(attended, x_in, b_in, b_in, 1e-5));
            if is_read {
                let others = |node: &Node| node.outputs.iter().skip(1).copied().collect::<Vec<_>>();
                let others: Vec<Value> = g.nodes().iter().flat_map(others).collect();
                assert_eq!(others.len(), 4);
                others.into_iter().for_each(|value| g.output(&format!("{value:?}"), value));
            }
            let constant = |name: &str| data.iter().find(|(n, ..)| is_constant && *n == name).map(|(_, _, data)| data.as_slice());
            let given = data.iter().filter(|_| !is_constant).map(|(name, shape, data)| Input::floats(name, shape, data));
            let inputs: Vec<Input> = given.chain([Input::floats("x", &[5, 40], &x)]).collect();
            let mut session = Session::from_model(&g.to_model_with(constant).unwrap(), &downloads()).unwrap();
            let outputs = session.run(&inputs).unwrap();
            assert_eq!(outputs, session.run(&inputs).unwrap());
            (outputs.len(), outputs[0].clone())
        };
        let (count, expected) = run(false, true);
        assert_eq!(count, 5);
        for is_constant in [false, true] {
            assert_eq!(run(is_constant, false), (1, expected.clone()));
        }
    }

    #[test]
    fn the_gradient_of_dropout_leaves_out_the_same_elements() {
        let g = Graph::with(Operators::Own { bf16: false });
        let x = g.input("x", DataType::F32, shape!["n", 64]);
        let seed = g.input("seed", DataType::I64, shape![1]);
        let y = g.dropout(x, Dropout { seed, site: 3, probability: 0.25 });
        let loss = g.mean_all(y);
        let Gradient::Dense(dx) = differentiate(&g, loss, &[x]).unwrap()[0].clone() else { panic!("it is dense") };
        g.output("y", y);
        g.output("dx", dx);
        let mut session = Session::from_model(&g.to_model().unwrap(), &downloads()).unwrap();
        let ones = vec![1.0; 50 * 64];
        let mut run = |seed: i64| {
            let seed = [seed];
            let inputs = [Input::floats("x", &[50, 64], &ones), Input::integers("seed", &[1], &seed)];
            session.run(&inputs).unwrap().into_iter().map(|(_, data)| data).collect::<Vec<_>>()
        };
        let found = run(7);
        assert!(found[0].iter().all(|&y| y == 0.0 || (y - 4.0 / 3.0).abs() < 1e-6));
        let kept = found[0].iter().filter(|&&y| y > 0.0).count() as f64 / ones.len() as f64;
        assert!((kept - 0.75).abs() < 0.03, "{kept}");
        let scale = 1.0 / ones.len() as f32;
        assert!(found[0].iter().zip(&found[1]).all(|(y, dx)| (y * scale - dx).abs() < 1e-9));
        assert_eq!(run(7), found);
        assert_ne!(run(8), found);
    }
}
