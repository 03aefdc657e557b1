//! Softmax and layer normalization over the last dimension.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::shape::{DataType, Dim};
use super::{dense, first};

impl Graph {
    /// Softmax over the last dimension.
    pub fn softmax(&self, x: Value) -> Value {
        self.node("Softmax", "", &[x], &[("axis", Attribute::Int(-1))], DataType::F32, self.shape(x))
    }

    /// The logarithm of [`Graph::softmax`], exact where that is tiny.
    pub fn log_softmax(&self, x: Value) -> Value {
        self.node("LogSoftmax", "", &[x], &[("axis", Attribute::Int(-1))], DataType::F32, self.shape(x))
    }

    /// `log Σ eˣ` over `axis` (negative counts from the end), which becomes 1; without overflow.
    pub fn log_sum_exp(&self, x: Value, axis: i64) -> Value {
        let largest = self.stop_gradient(self.largest(x, axis));
        self.add(self.log(self.sum(self.exp(self.sub(x, largest)), axis)), largest)
    }

    /// `(x − mean) / √(variance + epsilon) · scale + bias` over the last dimension; `scale` and `bias` `[width]`.
    pub fn layer_norm(&self, x: Value, scale: Value, bias: Value, epsilon: f32) -> Value {
        self.layer_norm_of(x, scale, Some(bias), epsilon)
    }

    /// As [`Graph::layer_norm`], with or without a bias.
    pub fn layer_norm_of(&self, x: Value, scale: Value, bias: Option<Value>, epsilon: f32) -> Value {
        let width = self.width("LayerNormalization", x);
        let inputs: Vec<Value> = [x, scale].into_iter().chain(bias).collect();
        for &weight in &inputs[1..] {
            if self.shape(weight) != [Dim::Fixed(width)] {
                self.broken("LayerNormalization", format!("scale and bias must have shape [{width}]"));
            }
        }
        let shape = self.shape(x);
        let mut statistic = shape.clone();
        if let Some(last) = statistic.last_mut() {
            *last = Dim::Fixed(1);
        }
        let outputs = vec![(DataType::F32, shape), (DataType::F32, statistic.clone()), (DataType::F32, statistic)];
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        self.node_many("LayerNormalization", "", &inputs, &attributes, outputs)[0]
    }
}

/// y·(dy − Σ dy·y).
pub fn softmax(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let y = node.outputs[0];
    dense(wanted, |_| {
        let weighted = g.mul(first(g, dy), y);
        Some(g.sub(weighted, g.mul(y, g.sum(weighted, node.int("axis", -1)))))
    })
}

/// dy − softmax·Σ dy.
pub fn log_softmax(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (dy, axis) = (first(g, dy), node.int("axis", -1));
    dense(wanted, |_| Some(g.sub(dy, g.mul(g.exp(node.outputs[0]), g.sum(dy, axis)))))
}

/// With x̂ = (x − mean)·r and d = dy·scale: dx = r·(d − mean(d) − x̂·mean(d·x̂)), dscale = Σ dy·x̂, dbias = Σ dy.
/// Uses the node's own outputs `Mean` and `InvStdDev` (r); gradients into these two do not occur.
pub fn layer_norm(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    let (x, scale, mean, inverse) = (node.inputs[0], node.inputs[1], node.outputs[1], node.outputs[2]);
    if g.own() {
        return g.layer_norm_gradient(x, scale, [mean, inverse], dy).map(|v| Some(Piece::Dense(v))).into();
    }
    let normalized = g.mul(g.sub(x, mean), inverse);
    dense(wanted, |i| {
        Some(match i {
            0 => {
                let d = g.mul(dy, scale);
                let along = g.mul(normalized, g.mean(g.mul(d, normalized), -1));
                g.mul(g.sub(g.sub(d, g.mean(d, -1)), along), inverse)
            }
            1 => g.sum_to(g.mul(dy, normalized), &g.shape(scale)),
            _ => g.sum_to(dy, &g.shape(node.inputs[2])),
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        check("softmax", &[&[2, 3, 4]], |g, x| g.softmax(x[0]));
        check("log softmax", &[&[2, 3, 4]], |g, x| g.log_softmax(x[0]));
        check("log sum exp", &[&[3, 4]], |g, x| g.log_sum_exp(x[0], -1));
        check("log sum exp over the first axis", &[&[3, 4]], |g, x| g.log_sum_exp(x[0], 0));
        check("layer norm", &[&[3, 5], &[5], &[5]], |g, x| g.layer_norm(x[0], x[1], x[2], 1e-5));
        check("layer norm without bias", &[&[3, 5], &[5]], |g, x| g.layer_norm_of(x[0], x[1], None, 1e-5));
    }
}
