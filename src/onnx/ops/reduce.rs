//! Sums, means and norms. All reductions keep the reduced dimensions as 1; [`Graph::drop_axis`] removes them.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::shape::{DataType, Dim, show};
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

    /// The largest over `axis` (negative counts from the end), which becomes 1. Equal largest ones share the gradient, as in
    /// `torch.amax`.
    pub fn largest(&self, x: Value, axis: i64) -> Value {
        self.reduce("ReduceMax", x, &[axis])
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
        self.norm_over(x, &[-1])
    }

    /// As [`Graph::norm`], over any axes.
    pub(in crate::onnx) fn norm_over(&self, x: Value, axes: &[i64]) -> Value {
        let squares = self.reduce("ReduceSum", self.mul(x, x), axes);
        let positive = self.greater(squares, self.scalar(0.0));
        let root = self.sqrt(self.select(positive, squares, self.scalar(1.0)));
        self.select(positive, root, self.scalar(0.0))
    }

    /// `x / max(‖x‖₂, 1e-12)` over the last axis, as `torch.nn.functional.normalize`.
    pub fn normalize(&self, x: Value) -> Value {
        self.div(x, self.max(self.norm(x), self.scalar(1e-12)))
    }

    pub(in crate::onnx) fn reduce(&self, op: &'static str, x: Value, axes: &[i64]) -> Value {
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
        if shape.iter().skip(extra).zip(target).any(|(x, to)| x != to && *to != Dim::Fixed(1)) {
            self.broken("ReduceSum", format!("{} cannot be summed to {}", show(&shape), show(target)));
        }
        let axes: Vec<i64> = (0..shape.len())
            .filter(|&i| i < extra || (target[i - extra] == Dim::Fixed(1) && shape[i] != Dim::Fixed(1)))
            .map(|i| i as i64)
            .collect();
        let summed = if axes.is_empty() { x } else { self.reduce("ReduceSum", x, &axes) };
        if extra == 0 { summed } else { self.reshape(summed, target.to_vec()) }
    }

    /// As [`Graph::sum_to`], to the shape of `like`; which dimensions to sum is found out when the graph runs where it cannot be
    /// told before.
    pub(super) fn sum_like(&self, x: Value, like: Value) -> Value {
        let (shape, target) = (self.shape(x), self.shape(like));
        let extra = shape.len().saturating_sub(target.len());
        let certain = |(x, to): (&Dim, &Dim)| x == to || *to == Dim::Fixed(1);
        if shape.iter().skip(extra).zip(&target).all(certain) {
            // A shape with two sizes that no graph input has cannot be built, but read off.
            let readable = extra == 0 || target.iter().filter(|d| matches!(d, Dim::Unknown(_))).count() == 0;
            if readable {
                return self.sum_to(x, &target);
            }
        }
        let ones = self.integers(&vec![1; extra]);
        let along = [("axis", Attribute::Int(0))];
        let rank = vec![Dim::Fixed(shape.len())];
        let wide = self.node("Concat", "", &[ones, self.shape_of(like)], &along, DataType::I64, rank.clone());
        let same = self.node("Equal", "", &[self.shape_of(x), wide], &[], DataType::Bool, rank.clone());
        let differs = self.node("Not", "", &[same], &[], DataType::Bool, rank);
        let at = self.node("NonZero", "", &[differs], &[], DataType::I64, vec![Dim::Fixed(1), self.unknown()]);
        let axes = self.node("Squeeze", "", &[at, self.integers(&[0])], &[], DataType::I64, vec![self.unknown()]);
        let how = [("keepdims", Attribute::Int(1)), ("noop_with_empty_axes", Attribute::Int(1))];
        let summed = self.node("ReduceSum", "", &[x, axes], &how, DataType::F32, shape.iter().map(|_| self.unknown()).collect());
        self.node("Reshape", "", &[summed, self.shape_of(like)], &[("allowzero", Attribute::Int(0))], DataType::F32, target)
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

/// dy to those that are the largest, in equal shares.
pub fn max(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (x, y) = (node.inputs[0], node.outputs[0]);
    dense(wanted, |i| {
        (i == 0).then(|| {
            let chosen = g.cast(g.equal(x, y), DataType::F32);
            let count =
                g.node("ReduceSum", "", &[chosen, node.inputs[1]], &[("keepdims", Attribute::Int(1))], DataType::F32, g.shape(y));
            g.mul(chosen, g.div(first(g, dy), count))
        })
    })
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
    use super::*;
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        check("sum", &[&[2, 3]], |g, x| g.sum(x[0], -1));
        check("sum over the first axis", &[&[2, 3]], |g, x| g.sum(x[0], 0));
        check("largest", &[&[3, 4]], |g, x| g.largest(x[0], -1));
        check("largest over the first axis", &[&[3, 4]], |g, x| g.largest(x[0], 0));
        check("mean", &[&[2, 3, 4]], |g, x| g.mean(x[0], 1));
        check("mean of all", &[&[2, 3]], |g, x| g.mean_all(g.mul(x[0], x[0])));
        check("norm", &[&[3, 4]], |g, x| g.norm(x[0]));
        check("normalize", &[&[3, 4]], |g, x| g.normalize(x[0]));
    }

    /// Sizes that only the running graph knows: here all of them, by the way of a reshape whose target is computed.
    #[test]
    fn what_was_broadcast_is_found_out_when_the_graph_runs() {
        let hide = |g: &Graph, x: Value| {
            let (target, shape) = (g.shape_of(x), g.shape(x).iter().map(|_| g.unknown()).collect());
            g.node("Reshape", "", &[x, target], &[], DataType::F32, shape)
        };
        let show = |g: &Graph, x: Value, shape: &[usize]| g.reshape(x, shape.iter().map(|&d| Dim::Fixed(d)).collect());
        let cases: [(&[usize], &[usize]); 4] = [(&[2, 3], &[3]), (&[2, 3], &[1, 3]), (&[2, 3], &[2, 3]), (&[2, 3], &[2, 1])];
        for (a, b) in cases {
            check(&format!("{a:?} by {b:?}"), &[a, b], |g, x| show(g, g.mul(hide(g, x[0]), hide(g, x[1])), &[2, 3]));
        }
    }

    #[test]
    fn the_norm_of_zero_has_a_zero_gradient() {
        check("norm of a difference that is zero", &[&[3, 4]], |g, x| g.norm(g.sub(x[0], x[0])));
    }
}
