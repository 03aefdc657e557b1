//! Lookup tables.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::shape::{DataType, Dim};

impl Graph {
    /// Entries of `table` `[entries, width]` at `ids` `[..]` → `[.., width]`.
    pub fn lookup(&self, table: Value, ids: Value) -> Value {
        let mut shape = self.shape(ids);
        shape.push(Dim::Fixed(self.width("Gather", table)));
        self.node("Gather", "", &[table, ids], &[("axis", Attribute::Int(0))], DataType::F32, shape)
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

/// The gradient of the table as rows.
pub fn gather(_: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let rows = dy.first().copied().flatten();
    let table = rows.filter(|_| wanted[0]).map(|rows| Piece::Rows { ids: node.inputs[1], rows });
    vec![table, None]
}

#[cfg(test)]
mod tests {
    use crate::onnx::finite_differences::check_lookup;

    #[test]
    fn the_gradient_of_a_table_is_rows() {
        check_lookup(&[1, 0, 1, 3], 4, 3);
    }
}
