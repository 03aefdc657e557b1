//! Operators that move elements without changing them.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::shape::{DataType, Dim, Shape, show};
use super::{dense, first};

impl Graph {
    /// To another shape with as many elements. Of the named dimensions all but one must be a dimension of a graph input.
    pub fn reshape(&self, x: Value, shape: Shape) -> Value {
        let target = self.runtime_shape(&shape);
        self.node("Reshape", "", &[x, target], &[("allowzero", Attribute::Int(0))], self.data_type(x), shape)
    }

    /// Without dimension `axis`, which must be 1.
    pub fn drop_axis(&self, x: Value, axis: usize) -> Value {
        let mut shape = self.shape(x);
        if shape.get(axis) != Some(&Dim::Fixed(1)) {
            self.broken("Reshape", format!("axis {axis} of {} is not 1", show(&shape)));
            return x;
        }
        shape.remove(axis);
        self.reshape(x, shape)
    }

    /// `x`, repeated to the shape of `like`.
    pub fn expand(&self, x: Value, like: Value) -> Value {
        let shape = self.shape(like);
        let target = self.shape_of(like);
        self.node("Expand", "", &[x, target], &[], self.data_type(x), shape)
    }

    /// Zeros of this shape.
    pub fn zeros(&self, shape: &[usize]) -> Value {
        let target = self.integers(&shape.iter().map(|&size| size as i64).collect::<Vec<_>>());
        let shape = shape.iter().map(|&size| Dim::Fixed(size)).collect();
        self.node("Expand", "", &[self.scalar(0.0), target], &[], DataType::F32, shape)
    }

    /// Without the dimensions `axes`, counted from the front, which must be 1.
    pub(in crate::onnx) fn squeeze(&self, x: Value, axes: &[usize]) -> Value {
        let kept = self.shape(x).into_iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d).collect();
        self.node("Squeeze", "", &[x, self.axes(axes)], &[], self.data_type(x), kept)
    }

    /// With new dimensions of 1 at `axes`, counted from the front of the result, in ascending order.
    pub(in crate::onnx) fn unsqueeze(&self, x: Value, axes: &[usize]) -> Value {
        let mut shape = self.shape(x);
        for &axis in axes {
            if axis > shape.len() {
                self.broken("Unsqueeze", format!("there is no axis {axis} to put into {}", show(&shape)));
                return x;
            }
            shape.insert(axis, Dim::Fixed(1));
        }
        self.node("Unsqueeze", "", &[x, self.axes(axes)], &[], self.data_type(x), shape)
    }

    fn axes(&self, axes: &[usize]) -> Value {
        self.integers(&axes.iter().map(|&a| a as i64).collect::<Vec<_>>())
    }

    /// Dimensions in the order `permutation`.
    pub fn transpose(&self, x: Value, permutation: &[usize]) -> Value {
        let shape = self.shape(x);
        let mut sorted = permutation.to_vec();
        sorted.sort_unstable();
        if sorted != (0..shape.len()).collect::<Vec<_>>() {
            self.broken("Transpose", format!("{permutation:?} is no order of the dimensions of {}", show(&shape)));
            return x;
        }
        let permuted = permutation.iter().map(|&i| shape[i].clone()).collect();
        let order = permutation.iter().map(|&i| i as i64).collect();
        self.node("Transpose", "", &[x], &[("perm", Attribute::Ints(order))], self.data_type(x), permuted)
    }

    /// `parts` equal pieces along the first dimension, which becomes `size` in each.
    pub fn split(&self, x: Value, parts: usize, size: Dim) -> Vec<Value> {
        let mut shape = self.shape(x);
        match shape.first_mut() {
            Some(first) => *first = size,
            None => self.broken("Split", "a scalar cannot be split".into()),
        }
        let attributes = [("axis", Attribute::Int(0)), ("num_outputs", Attribute::Int(parts as i64))];
        self.node_many("Split", "", &[x], &attributes, vec![(DataType::F32, shape); parts])
    }

    /// Pieces of these sizes along the last dimension.
    pub fn split_last(&self, x: Value, sizes: &[usize]) -> Vec<Value> {
        let shape = self.shape(x);
        if self.width("Split", x) != sizes.iter().sum::<usize>() {
            self.broken("Split", format!("the last dimension of {} cannot be split into {sizes:?}", show(&shape)));
        }
        let leading = &shape[..shape.len().saturating_sub(1)];
        let piece = |&size: &usize| (self.data_type(x), [leading, &[Dim::Fixed(size)]].concat());
        let lengths = self.integers(&sizes.iter().map(|&size| size as i64).collect::<Vec<_>>());
        let attributes = [("axis", Attribute::Int(shape.len() as i64 - 1))];
        self.node_many("Split", "", &[x, lengths], &attributes, sizes.iter().map(piece).collect())
    }

    /// The shape of `x` when the graph runs, `[rank]`.
    pub(in crate::onnx) fn shape_of(&self, x: Value) -> Value {
        self.node("Shape", "", &[x], &[], DataType::I64, vec![Dim::Fixed(self.rank(x))])
    }

    /// A one-dimensional integer value that says `shape` when the graph runs.
    fn runtime_shape(&self, shape: &[Dim]) -> Value {
        let mut free = None;
        let mut sizes = vec![None; shape.len()];
        let symbols: Vec<usize> = (0..shape.len()).filter(|&i| !matches!(shape[i], Dim::Fixed(_))).collect();
        for &i in symbols.iter().rev() {
            sizes[i] = match &shape[i] {
                Dim::Symbol(symbol) if symbols.len() > 1 => self.size(symbol),
                _ => None,
            };
            if sizes[i].is_none() && free.replace(i).is_some() {
                self.broken("Reshape", format!("{} has two dimensions that no graph input has", show(shape)));
            }
        }
        // One dimension may be left to ONNX, which spares looking its size up.
        if let (None, Some(&last)) = (free, symbols.last()) {
            sizes[last] = None;
        }
        if sizes.iter().all(Option::is_none) {
            let dims: Vec<i64> = shape.iter().map(|d| if let Dim::Fixed(n) = d { *n as i64 } else { -1 }).collect();
            return self.integers(&dims);
        }
        let parts: Vec<Value> = shape
            .iter()
            .zip(&sizes)
            .map(|(dim, size)| match (dim, size) {
                (_, Some(size)) => *size,
                (Dim::Fixed(n), None) => self.integers(&[*n as i64]),
                (_, None) => self.integers(&[-1]),
            })
            .collect();
        self.node("Concat", "", &parts, &[("axis", Attribute::Int(0))], DataType::I64, vec![Dim::Fixed(shape.len())])
    }
}

pub fn identity(g: &Graph, _: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| Some(first(g, dy)))
}

pub fn reshape(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let x = node.inputs[0];
    dense(wanted, |i| {
        if i != 0 {
            return None;
        }
        let shape = g.shape(x);
        // A shape with at most one named dimension is a constant; else the size is read off the value itself.
        let fixed = shape.iter().filter(|d| !matches!(d, Dim::Fixed(_))).count() <= 1;
        let target = if fixed { g.runtime_shape(&shape) } else { g.shape_of(x) };
        Some(g.node("Reshape", "", &[first(g, dy), target], &[("allowzero", Attribute::Int(0))], g.data_type(x), shape))
    })
}

pub fn squeeze(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (x, axes) = (node.inputs[0], node.inputs.get(1).copied());
    dense(wanted, |i| {
        let axes = axes.filter(|_| i == 0)?;
        Some(g.node("Unsqueeze", "", &[first(g, dy), axes], &[], DataType::F32, g.shape(x)))
    })
}

pub fn unsqueeze(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (x, axes) = (node.inputs[0], node.inputs.get(1).copied());
    dense(wanted, |i| {
        let axes = axes.filter(|_| i == 0)?;
        Some(g.node("Squeeze", "", &[first(g, dy), axes], &[], DataType::F32, g.shape(x)))
    })
}

/// dy summed over what was repeated.
pub fn expand(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |i| (i == 0).then(|| g.sum_like(first(g, dy), node.inputs[0])))
}

/// The triangle that was kept of the last two dimensions.
pub fn triangle(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |i| {
        (i == 0).then(|| {
            let inputs: Vec<Value> = std::iter::once(first(g, dy)).chain(node.inputs.iter().skip(1).copied()).collect();
            g.node("Trilu", "", &inputs, &node.attributes, DataType::F32, g.shape(node.inputs[0]))
        })
    })
}

pub fn transpose(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let permutation = node.ints("perm");
    let mut inverse = vec![0; permutation.len()];
    for (to, &from) in permutation.iter().enumerate() {
        inverse[from as usize] = to;
    }
    dense(wanted, |_| Some(g.transpose(first(g, dy), &inverse)))
}

/// The pieces' gradients put together; a piece that the loss does not see counts as zeros.
pub fn split(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let pieces: Vec<Value> = dy.iter().zip(&node.outputs).map(|(d, &y)| d.unwrap_or_else(|| g.mul(y, g.scalar(0.0)))).collect();
    let x = node.inputs[0];
    let axis = [("axis", Attribute::Int(node.int("axis", 0)))];
    dense(wanted, |i| (i == 0).then(|| g.node("Concat", "", &pieces, &axis, DataType::F32, g.shape(x))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::finite_differences::{check, run};
    use crate::shape;

    #[test]
    fn gradients() {
        check("reshape", &[&[2, 6]], |g, x| g.reshape(x[0], shape![3, 4]));
        check("drop an axis", &[&[2, 1, 3]], |g, x| g.drop_axis(x[0], 1));
        check("transpose", &[&[2, 3, 4]], |g, x| g.transpose(x[0], &[2, 0, 1]));
        check("squeeze", &[&[2, 1, 3, 1]], |g, x| g.squeeze(x[0], &[1, 3]));
        check("unsqueeze", &[&[2, 3]], |g, x| g.unsqueeze(x[0], &[0, 2]));
        check("expand", &[&[3, 1], &[2, 3, 4]], |g, x| g.mul(g.expand(x[0], x[1]), x[1]));
        check("triangle", &[&[3, 3]], |g, x| {
            g.node("Trilu", "", &[x[0]], &[("upper", Attribute::Int(0))], DataType::F32, g.shape(x[0]))
        });
        check("split", &[&[6, 2]], |g, x| {
            let parts = g.split(x[0], 3, Dim::Fixed(2));
            g.mul(parts[0], g.sub(parts[1], parts[2]))
        });
        check("split of the last dimension", &[&[2, 5]], |g, x| {
            let parts = g.split_last(x[0], &[2, 2, 1]);
            g.mul(g.mul(parts[0], parts[1]), parts[2])
        });
        check("split of which one part is used", &[&[6, 2]], |g, x| g.split(x[0], 3, Dim::Fixed(2))[1]);
    }

    #[test]
    fn named_dimensions_are_found_when_the_graph_runs() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape!["rows", "seq", 4]);
        let flat = g.reshape(x, shape!["tokens", 4]);
        let y = g.transpose(g.reshape(flat, shape!["rows", "seq", 2, 2]), &[1, 0, 2, 3]);
        g.output("y", y);
        let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let (shape, _) = run(&g, &[("x", &[2, 3, 4], &data)]).remove(0);
        assert_eq!(shape, [3, 2, 2, 2]);
    }
}
