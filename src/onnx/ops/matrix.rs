//! Matrix products.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::proto::MICROSOFT;
use super::super::shape::{DataType, Dim, show};
use super::{dense, first};

impl Graph {
    /// A linear layer, `x · wᵀ + b`: `x` `[rows, in]`, `w` `[out, in]`, `b` `[out]` → `[rows, out]`.
    pub fn linear(&self, x: Value, w: Value, b: Value) -> Value {
        self.gemm(&[x, w, b], false, true)
    }

    /// `op(a) · op(b) (+ c)` for two-dimensional values, `op` being transposition where asked.
    fn gemm(&self, inputs: &[Value], trans_a: bool, trans_b: bool) -> Value {
        let (a, b) = (self.shape(inputs[0]), self.shape(inputs[1]));
        let shape = match product(&a, &b, trans_a, trans_b) {
            Some(shape) if a.len() == 2 => shape,
            _ => {
                self.broken("Gemm", format!("{} and {} do not multiply (transposed: {trans_a}, {trans_b})", show(&a), show(&b)));
                a
            }
        };
        if let Some(&bias) = inputs.get(2)
            && self.shape(bias).as_slice() != &shape[shape.len().saturating_sub(1)..]
        {
            self.broken("Gemm", format!("a bias of shape {} does not fit {}", show(&self.shape(bias)), show(&shape)));
        }
        let attributes = [("transA", Attribute::Int(trans_a.into())), ("transB", Attribute::Int(trans_b.into()))];
        self.node("Gemm", "", inputs, &attributes, DataType::F32, shape)
    }

    /// `alpha · op(a) · op(b)` over the last two dimensions; the leading dimensions must be the same.
    pub fn matmul(&self, a: Value, b: Value, trans_a: bool, trans_b: bool, alpha: f32) -> Value {
        let (x, y) = (self.shape(a), self.shape(b));
        let shape = product(&x, &y, trans_a, trans_b).unwrap_or_else(|| {
            self.broken(
                "FusedMatMul",
                format!("{} and {} do not multiply (transposed: {trans_a}, {trans_b})", show(&x), show(&y)),
            );
            x
        });
        let attributes = [
            ("transA", Attribute::Int(trans_a.into())),
            ("transB", Attribute::Int(trans_b.into())),
            ("alpha", Attribute::Float(alpha)),
        ];
        self.node("FusedMatMul", MICROSOFT, &[a, b], &attributes, DataType::F32, shape)
    }
}

/// The shape of the product, `None` when there is none.
fn product(a: &[Dim], b: &[Dim], trans_a: bool, trans_b: bool) -> Option<Vec<Dim>> {
    let n = a.len().checked_sub(2)?;
    if b.len() != a.len() || a[..n] != b[..n] {
        return None;
    }
    let (rows, inner) = if trans_a { (&a[n + 1], &a[n]) } else { (&a[n], &a[n + 1]) };
    let (inner_b, columns) = if trans_b { (&b[n + 1], &b[n]) } else { (&b[n], &b[n + 1]) };
    (inner == inner_b).then(|| a[..n].iter().chain([rows, columns]).cloned().collect())
}

/// For y = x·op(w) + b: dx = dy·op(w)ᵀ, dw = dyᵀ·x (or xᵀ·dy), db = Σ dy over the rows.
pub fn gemm(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    let (x, w) = (node.inputs[0], node.inputs[1]);
    let transposed = node.int("transB", 0) == 1;
    if node.int("transA", 0) == 1 {
        g.broken("Gemm", "the gradient of a transposed first factor is not written".into());
    }
    dense(wanted, |i| {
        Some(match (i, transposed) {
            (0, _) => g.gemm(&[dy, w], false, !transposed),
            (1, true) => g.gemm(&[dy, x], true, false),
            (1, false) => g.gemm(&[x, dy], true, false),
            _ => g.sum_to(dy, &g.shape(node.inputs[i])),
        })
    })
}

/// For y = α·op(a)·op(b): d op(a) = α·dy·op(b)ᵀ and d op(b) = α·op(a)ᵀ·dy, transposed back where op transposes.
pub fn matmul(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    let (a, b) = (node.inputs[0], node.inputs[1]);
    let (ta, tb, alpha) = (node.int("transA", 0) == 1, node.int("transB", 0) == 1, node.float("alpha", 1.0));
    dense(wanted, |i| {
        Some(match (i, ta, tb) {
            (0, false, _) => g.matmul(dy, b, false, !tb, alpha),
            (0, true, _) => g.matmul(b, dy, tb, true, alpha),
            (_, _, false) => g.matmul(a, dy, !ta, false, alpha),
            (_, _, true) => g.matmul(dy, a, true, ta, alpha),
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        check("linear", &[&[2, 3], &[4, 3], &[4]], |g, x| g.linear(x[0], x[1], x[2]));
        check("gemm", &[&[2, 3], &[3, 4]], |g, x| g.gemm(&[x[0], x[1]], false, false));
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            let a: &[usize] = if ta { &[2, 3, 4] } else { &[2, 4, 3] };
            let b: &[usize] = if tb { &[2, 5, 3] } else { &[2, 3, 5] };
            check(&format!("matmul {ta} {tb}"), &[a, b], |g, x| g.matmul(x[0], x[1], ta, tb, 0.7));
        }
    }
}
