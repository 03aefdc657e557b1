//! Operators that put values together or take parts of them.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::shape::{DataType, Dim, show};
use super::{dense, first};

impl Graph {
    /// `values` one after the other along `axis` (negative counts from the end), which becomes `size`.
    pub fn concat(&self, values: &[Value], axis: i64, size: Dim) -> Value {
        let Some(&head) = values.first() else {
            self.broken("Concat", "there is nothing to put together".into());
            return self.scalar(0.0);
        };
        let mut shape = self.shape(head);
        let at = self.axis("Concat", axis, shape.len());
        let others = |s: &[Dim]| s.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, d)| d.clone()).collect::<Vec<_>>();
        for &value in values {
            if others(&self.shape(value)) != others(&shape) {
                let shapes: Vec<String> = values.iter().map(|&v| show(&self.shape(v))).collect();
                self.broken("Concat", format!("{} do not fit together along axis {axis}", shapes.join(", ")));
            }
        }
        if let Some(dim) = shape.get_mut(at) {
            *dim = size;
        }
        self.node("Concat", "", values, &[("axis", Attribute::Int(at as i64))], self.data_type(head), shape)
    }

    /// `count` entries of `x` from `start` on along `axis` (negative counts from the end).
    pub fn slice(&self, x: Value, axis: i64, start: usize, count: usize) -> Value {
        let mut shape = self.shape(x);
        let at = self.axis("Slice", axis, shape.len());
        match shape.get_mut(at) {
            Some(Dim::Fixed(size)) if start + count > *size => {
                self.broken("Slice", format!("entries {start} to {} of {size} along axis {axis}", start + count));
            }
            Some(dim) => *dim = Dim::Fixed(count),
            None => {}
        }
        let bound = |i: usize| self.integers(&[i as i64]);
        let inputs = [x, bound(start), bound(start + count), bound(at)];
        self.node("Slice", "", &inputs, &[], self.data_type(x), shape)
    }

    /// Pieces of a one-dimensional `x`, of these sizes, one after the other.
    pub fn pieces(&self, x: Value, sizes: &[usize]) -> Vec<Value> {
        let shape = self.shape(x);
        if shape != [Dim::Fixed(sizes.iter().sum())] {
            self.broken("Split", format!("{} does not fall into pieces of {sizes:?}", show(&shape)));
        }
        let lengths = self.integers(&sizes.iter().map(|&size| size as i64).collect::<Vec<_>>());
        let outputs = sizes.iter().map(|&size| (self.data_type(x), vec![Dim::Fixed(size)])).collect();
        self.node_many("Split", "", &[x, lengths], &[("axis", Attribute::Int(0))], outputs)
    }

    /// 0, 1, 2, … as many as `x` has entries along `axis`: int64 `[entries]`.
    pub fn numbers(&self, x: Value, axis: usize) -> Value {
        let entries = self.shape(x).get(axis).cloned().unwrap_or(Dim::Fixed(1));
        let scalar = |x: i64| self.reshape(self.integers(&[x]), Vec::new());
        let limit = self.reshape(self.size_along(x, axis), Vec::new());
        self.node("Range", "", &[scalar(0), limit, scalar(1)], &[], DataType::I64, vec![entries])
    }

    /// `axis` counted from the front; a broken graph, and 0, when there is none such.
    pub(super) fn axis(&self, op: &'static str, axis: i64, rank: usize) -> usize {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        if at < 0 || at >= rank as i64 {
            self.broken(op, format!("there is no axis {axis} among {rank}"));
            return 0;
        }
        at as usize
    }

    /// The size of `x` along `axis` when the graph runs, `[1]`.
    pub(super) fn size_along(&self, x: Value, axis: usize) -> Value {
        if let Some(Dim::Fixed(size)) = self.shape(x).get(axis) {
            return self.integers(&[*size as i64]);
        }
        let range = [("start", Attribute::Int(axis as i64)), ("end", Attribute::Int(axis as i64 + 1))];
        self.node("Shape", "", &[x], &range, DataType::I64, vec![Dim::Fixed(1)])
    }
}

/// Every piece gets its part of dy.
pub fn concat(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    let axis = g.axis("Concat", node.int("axis", 0), g.rank(dy));
    let fixed: Option<Vec<i64>> =
        node.inputs.iter().map(|&x| if let Dim::Fixed(n) = g.shape(x)[axis] { Some(n as i64) } else { None }).collect();
    let sizes = match fixed {
        Some(sizes) => g.integers(&sizes),
        None => {
            let sizes: Vec<Value> = node.inputs.iter().map(|&x| g.size_along(x, axis)).collect();
            g.node("Concat", "", &sizes, &[("axis", Attribute::Int(0))], DataType::I64, vec![Dim::Fixed(sizes.len())])
        }
    };
    let outputs = node.inputs.iter().map(|&x| (DataType::F32, g.shape(x))).collect();
    let pieces = g.node_many("Split", "", &[dy, sizes], &[("axis", Attribute::Int(axis as i64))], outputs);
    dense(wanted, |i| pieces.get(i).copied())
}

/// dy with zeros around it; where the places are known only when the graph runs, or some are left out, dy put there.
pub fn slice(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (dy, x, start, axes) = (first(g, dy), node.inputs[0], node.inputs[1], node.inputs[3]);
    let Some(axis) = g.constant_integers(axes).filter(|a| a.len() == 1).and_then(|a| a.first().copied()) else {
        g.broken("Slice", "its axis is not a constant".into());
        return Vec::new();
    };
    let axis = g.axis("Slice", axis, g.rank(x));
    let plain = node.inputs.len() < 5 && g.constant_integers(start).is_some_and(|s| s.iter().all(|&s| s >= 0));
    dense(wanted, |i| {
        if i != 0 {
            return None;
        }
        if !plain {
            let scalar = |v: Value| g.reshape(v, Vec::new());
            let size = scalar(g.size_along(x, axis));
            let one = |n: i64| scalar(g.integers(&[n]));
            let all = g.node("Range", "", &[one(0), size, one(1)], &[], DataType::I64, vec![g.unknown()]);
            let bounds: Vec<Value> = node
                .inputs
                .iter()
                .enumerate()
                .map(|(i, &v)| match i {
                    0 => all,
                    3 => g.integers(&[0]),
                    _ => v,
                })
                .collect();
            let at = g.node("Slice", "", &bounds, &[], DataType::I64, vec![g.unknown()]);
            return Some(g.add_at(x, axis, at, dy));
        }
        let behind = g.integer("Sub", g.integer("Sub", g.size_along(x, axis), start), g.size_along(dy, axis));
        // Pads of all axes, not of this one by the input `axes`: ONNX Runtime's optimizer takes these for those of all when it
        // moves a transposition across the node.
        let (rank, none) = (g.rank(x), |n: usize| g.integers(&vec![0; n]));
        let parts = [none(axis), start, none(rank - 1), behind, none(rank - 1 - axis)];
        let along = [("axis", Attribute::Int(0))];
        let pads = g.node("Concat", "", &parts, &along, DataType::I64, vec![Dim::Fixed(2 * rank)]);
        Some(g.node("Pad", "", &[dy, pads, g.scalar(0.0)], &[], DataType::F32, g.shape(x)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        check("concat", &[&[2, 3], &[2, 1]], |g, x| {
            g.mul(g.concat(x, -1, Dim::Fixed(4)), g.concat(&[x[1], x[0]], 1, Dim::Fixed(4)))
        });
        check("concat along the first axis", &[&[2, 3], &[4, 3]], |g, x| g.concat(x, 0, Dim::Fixed(6)));
        check("slice", &[&[2, 5]], |g, x| g.slice(x[0], -1, 1, 3));
        check("slice from behind", &[&[2, 5]], |g, x| {
            let at = [-1, -4, 1, -2].map(|i| g.integers(&[i]));
            g.node("Slice", "", &[x[0], at[0], at[1], at[2], at[3]], &[], DataType::F32, vec![Dim::Fixed(2), Dim::Fixed(2)])
        });
        check("slice of a transposed value", &[&[2, 3, 2, 4]], |g, x| {
            let halves = |from| g.slice(g.transpose(x[0], &[0, 2, 1, 3]), -1, from, 2);
            g.mul(halves(0), halves(2))
        });
        check("slice of the first rows", &[&[4, 2]], |g, x| g.mul(g.slice(x[0], 0, 0, 2), g.slice(x[0], 0, 2, 2)));
    }
}
