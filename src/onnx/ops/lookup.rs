//! Lookup tables.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::shape::{DataType, Dim, Shape};

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

/// The gradient of the table as rows; that of a permutation by its inverse.
pub fn gather(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let rows = dy.first().copied().flatten();
    if let (Some(dy), Some(inverse)) = (rows, g.inverse_of(node.outputs[0])) {
        return vec![wanted[0].then(|| Piece::Dense(unpermute(g, dy, inverse, g.shape(node.inputs[0])))), None];
    }
    let table = rows.filter(|_| wanted[0]).map(|rows| Piece::Rows { ids: node.inputs[1], rows });
    vec![table, None]
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
    use crate::onnx::finite_differences::check_lookup;

    #[test]
    fn the_gradient_of_a_table_is_rows() {
        check_lookup(&[1, 0, 1, 3], 4, 3);
    }
}
