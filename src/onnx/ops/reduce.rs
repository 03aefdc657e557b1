//! Sums, means and norms. All reductions keep the reduced dimensions as 1; [`Graph::drop_axis`] removes them.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::shape::{DataType, Dim};
use super::{dense, first};

impl Graph {
    /// Sum over `axis` (negative counts from the end), which becomes 1.
    pub fn sum(&self, x: Value, axis: i64) -> Value {
        self.reduce("ReduceSum", x, &[axis])
    }

    /// Mean over `axis` (negative counts from the end), which becomes 1.
    pub fn mean(&self, x: Value, axis: i64) -> Value {
        self.reduce("ReduceMean", x, &[axis])
    }

    /// The mean of all elements, a scalar.
    pub fn mean_all(&self, x: Value) -> Value {
        let axes: Vec<i64> = (0..self.rank(x) as i64).collect();
        if axes.is_empty() {
            return x;
        }
        self.reshape(self.reduce("ReduceMean", x, &axes), Vec::new())
    }

    /// Euclidean norm over the last axis, which becomes 1. Where it is 0 its gradient is 0 (the subgradient of `torch.linalg.vector_norm`).
    pub fn norm(&self, x: Value) -> Value {
        let squares = self.sum(self.mul(x, x), -1);
        let positive = self.greater(squares, self.scalar(0.0));
        let root = self.sqrt(self.select(positive, squares, self.scalar(1.0)));
        self.select(positive, root, self.scalar(0.0))
    }

    /// `x / max(‖x‖₂, 1e-12)` over the last axis, as `torch.nn.functional.normalize`.
    pub fn normalize(&self, x: Value) -> Value {
        self.div(x, self.max(self.norm(x), self.scalar(1e-12)))
    }

    fn reduce(&self, op: &'static str, x: Value, axes: &[i64]) -> Value {
        let mut shape = self.shape(x);
        let rank = shape.len() as i64;
        for &axis in axes {
            match shape.get_mut(if axis < 0 { axis + rank } else { axis } as usize) {
                Some(dim) => *dim = Dim::Fixed(1),
                None => self.broken(op, format!("there is no axis {axis}")),
            }
        }
        let axes = self.integers(axes);
        self.node(op, "", &[x, axes], &[("keepdims", Attribute::Int(1))], DataType::F32, shape)
    }

    /// `x` summed over the dimensions that `target` does not have or has as 1: the reverse of broadcasting.
    pub(super) fn sum_to(&self, x: Value, target: &[Dim]) -> Value {
        let shape = self.shape(x);
        let extra = shape.len().saturating_sub(target.len());
        let axes: Vec<i64> = (0..shape.len())
            .filter(|&i| i < extra || (target[i - extra] == Dim::Fixed(1) && shape[i] != Dim::Fixed(1)))
            .map(|i| i as i64)
            .collect();
        let summed = if axes.is_empty() { x } else { self.reduce("ReduceSum", x, &axes) };
        if extra == 0 { summed } else { self.reshape(summed, target.to_vec()) }
    }

    /// `x` repeated to the shape of `like`.
    fn expand_like(&self, x: Value, like: Value) -> Value {
        let shape = self.shape_of(like);
        self.node("Expand", "", &[x, shape], &[], DataType::F32, self.shape(like))
    }
}

pub fn sum(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |i| if i == 0 { Some(g.expand_like(first(g, dy), node.inputs[0])) } else { None })
}

/// dy divided by the number of elements that went into each mean.
pub fn mean(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let size = |v| g.cast(g.node("Size", "", &[v], &[], DataType::I64, Vec::new()), DataType::F32);
    dense(wanted, |i| {
        if i != 0 {
            return None;
        }
        let count = g.div(size(node.inputs[0]), size(node.outputs[0]));
        Some(g.expand_like(g.div(first(g, dy), count), node.inputs[0]))
    })
}

#[cfg(test)]
mod tests {
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        check("sum", &[&[2, 3]], |g, x| g.sum(x[0], -1));
        check("sum over the first axis", &[&[2, 3]], |g, x| g.sum(x[0], 0));
        check("mean", &[&[2, 3, 4]], |g, x| g.mean(x[0], 1));
        check("mean of all", &[&[2, 3]], |g, x| g.mean_all(g.mul(x[0], x[0])));
        check("norm", &[&[3, 4]], |g, x| g.norm(x[0]));
        check("normalize", &[&[3, 4]], |g, x| g.normalize(x[0]));
    }

    #[test]
    fn the_norm_of_zero_has_a_zero_gradient() {
        check("norm of a difference that is zero", &[&[3, 4]], |g, x| g.norm(g.sub(x[0], x[0])));
    }
}
