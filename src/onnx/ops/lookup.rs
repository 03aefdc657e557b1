//! Lookup tables.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::shape::{DataType, Dim, Shape};
use super::{dense, first};

impl Graph {
    /// Entries of `table` `[entries, width]` at `ids` `[..]` → `[.., width]`.
    pub fn lookup(&self, table: Value, ids: Value) -> Value {
        let mut shape = self.shape(ids);
        shape.push(Dim::Fixed(self.width("Gather", table)));
        self.node("Gather", "", &[table, ids], &[("axis", Attribute::Int(0))], DataType::F32, shape)
    }

    /// A table of `entries` entries that is 0 but for those at `ids` `[n, 1]`, each at most once, which have `rows` `[n, width]`; not differentiable.
    pub fn table(&self, entries: usize, ids: Value, rows: Value) -> Value {
        let width = self.width("ScatterND", rows);
        let zeros = self.zeros(&[entries, width]);
        self.node("ScatterND", "", &[zeros, ids, rows], &[], DataType::F32, vec![entries.into(), width.into()])
    }

    /// Entries of `integers` `[entries]` at `ids` `[..]` → `[..]`.
    pub fn pick(&self, integers: Value, ids: Value) -> Value {
        self.node("Gather", "", &[integers, ids], &[("axis", Attribute::Int(0))], DataType::I64, self.shape(ids))
    }

    /// `ids + by`, integers.
    pub fn shift(&self, ids: Value, by: i64) -> Value {
        if by == 0 { ids } else { self.integer("Add", ids, self.integers(&[by])) }
    }

    /// `a − b` for integers, with numpy's broadcasting.
    pub fn difference(&self, a: Value, b: Value) -> Value {
        self.integer("Sub", a, b)
    }

    /// Rows of `x` `[rows, width]` in another order: `from` `[..]` says which row goes where → `[.., width]`. `back`, the same
    /// the other way round, is what the gradient goes by; `keep`, of the shape of `back`, is 0 for places that no row came from.
    pub fn permute_rows(&self, x: Value, from: Value, back: Value, keep: Option<Value>) -> Value {
        let moved = self.lookup(x, from);
        self.inverse(moved, Inverse { back, keep });
        moved
    }

    /// 0, 1, 2, … as many as the dimension `symbol` of a graph input has, `[symbol]`.
    pub fn range(&self, symbol: &str) -> Value {
        let Some(size) = self.size(&symbol.into()) else {
            self.broken("Range", format!("no graph input has a dimension `{symbol}`"));
            return self.integers(&[0]);
        };
        let limit = self.reshape(size, Vec::new());
        let scalar = |x: i64| self.reshape(self.integers(&[x]), Vec::new());
        self.node("Range", "", &[scalar(0), limit, scalar(1)], &[], DataType::I64, vec![Dim::from(symbol)])
    }
}

/// The way back of a permutation of rows.
#[derive(Clone, Copy)]
pub struct Inverse {
    back: Value,
    keep: Option<Value>,
}

/// The gradient of a weight's entries as rows; that of a permutation by its inverse; else what was taken from the same place
/// is added up there.
pub fn gather(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let Some(dy) = dy.first().copied().flatten().filter(|_| wanted[0]) else { return vec![None, None] };
    let (x, ids) = (node.inputs[0], node.inputs[1]);
    if let Some(inverse) = g.inverse_of(node.outputs[0]) {
        return vec![Some(Piece::Dense(unpermute(g, dy, inverse, g.shape(x)))), None];
    }
    let axis = g.axis("Gather", node.int("axis", 0), g.rank(x));
    if axis == 0 && g.is_input(x) && g.rank(x) == 2 {
        return vec![Some(Piece::Rows { ids, rows: dy }), None];
    }
    // The places that were asked for, as one dimension.
    let flat = g.node("Reshape", "", &[ids, g.integers(&[-1])], &[], DataType::I64, vec![g.unknown()]);
    let target: Vec<Value> =
        (0..g.rank(x))
            .map(|i| {
                if i == axis { g.node("Shape", "", &[flat], &[], DataType::I64, vec![Dim::Fixed(1)]) } else { g.size_along(x, i) }
            })
            .collect();
    let along = [("axis", Attribute::Int(0))];
    let target = g.node("Concat", "", &target, &along, DataType::I64, vec![Dim::Fixed(g.rank(x))]);
    let mut shape = g.shape(x);
    shape[axis] = g.unknown();
    let rows = g.node("Reshape", "", &[dy, target], &[], DataType::F32, shape);
    vec![Some(Piece::Dense(g.add_at(x, axis, flat, rows))), None]
}

impl Graph {
    /// Zeros of the shape of `like`, with `rows` added at the places `at` `[n]` along `axis`.
    pub(super) fn add_at(&self, like: Value, axis: usize, at: Value, rows: Value) -> Value {
        let mut dims = vec![Dim::Fixed(1); self.rank(like)];
        dims[axis] = self.shape(at).first().cloned().unwrap_or(Dim::Fixed(1));
        let column = self.reshape(at, dims);
        self.add_elements(like, axis, self.expand(column, rows), rows)
    }

    /// Zeros of the shape of `like`, with each of `values` added at the place along `axis` that `at`, of their shape, says.
    fn add_elements(&self, like: Value, axis: usize, at: Value, values: Value) -> Value {
        let how = [("axis", Attribute::Int(axis as i64)), ("reduction", Attribute::Text("add"))];
        let inputs = [self.expand(self.scalar(0.0), like), at, values];
        self.node("ScatterElements", "", &inputs, &how, DataType::F32, self.shape(like))
    }
}

pub fn gather_elements(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (x, at) = (node.inputs[0], node.inputs[1]);
    let axis = g.axis("GatherElements", node.int("axis", 0), g.rank(x));
    dense(wanted, |i| (i == 0).then(|| g.add_elements(x, axis, at, first(g, dy))))
}

pub fn gather_nd(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (x, at) = (node.inputs[0], node.inputs[1]);
    if node.int("batch_dims", 0) != 0 {
        g.broken("GatherND", "the gradient with `batch_dims` is not written".into());
    }
    dense(wanted, |i| {
        (i == 0).then(|| {
            let inputs = [g.expand(g.scalar(0.0), x), at, first(g, dy)];
            g.node("ScatterND", "", &inputs, &[("reduction", Attribute::Text("add"))], DataType::F32, g.shape(x))
        })
    })
}

fn unpermute(g: &Graph, dy: Value, inverse: Inverse, shape: Shape) -> Value {
    let width = g.last(dy);
    let flat = if g.rank(dy) == 2 { dy } else { g.reshape(dy, vec![Dim::from("flat"), Dim::Fixed(width)]) };
    let mut back = g.lookup(flat, inverse.back);
    if let Some(keep) = inverse.keep {
        let mut column = g.shape(keep);
        column.push(Dim::Fixed(1));
        back = g.mul(back, g.reshape(keep, column));
    }
    if g.rank(back) == shape.len() { back } else { g.reshape(back, shape) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::finite_differences::{check, check_lookup};
    use crate::shape;

    #[test]
    fn gradients_of_what_is_no_table() {
        let take = |g: &Graph, x: Value, ids: &[i64], axis: i64, shape: Shape| {
            let x = g.scale(x, 1.0);
            g.node("Gather", "", &[x, g.integers(ids)], &[("axis", Attribute::Int(axis))], DataType::F32, shape)
        };
        check("gather", &[&[4, 3]], |g, x| take(g, x[0], &[3, 1, 1], 0, shape![3, 3]));
        check("gather, from behind", &[&[2, 4, 3]], |g, x| take(g, x[0], &[-1, 0], 1, shape![2, 2, 3]));
        check("gather elements", &[&[2, 3]], |g, x| {
            let at = g.reshape(g.integers(&[0, 2, 2, 1]), shape![2, 2]);
            g.node("GatherElements", "", &[x[0], at], &[("axis", Attribute::Int(1))], DataType::F32, shape![2, 2])
        });
        check("gather n-d", &[&[2, 3, 2]], |g, x| {
            let at = g.reshape(g.integers(&[0, 2, 0, 2, 1, 1]), shape![3, 2]);
            g.node("GatherND", "", &[x[0], at], &[], DataType::F32, shape![3, 2])
        });
    }

    #[test]
    fn the_gradient_of_a_table_is_rows() {
        check_lookup(&[1, 0, 1, 3], 4, 3);
    }
}
