//! Matrix products.

use super::super::differentiate::Piece;
use super::super::graph::{Attribute, Graph, Node, Value};
use super::super::proto::{MICROSOFT, OWN};
use super::super::shape::{DataType, Dim, show};
use super::{dense, first};

impl Graph {
    /// A linear layer, `x · wᵀ (+ b)`: `x` `[rows, in]`, `w` `[out, in]`, `b` `[out]` → `[rows, out]`.
    pub fn linear(&self, x: Value, w: Value, b: Option<Value>) -> Value {
        match b {
            Some(b) => self.gemm(&[x, w, b], false, true),
            None => self.gemm(&[x, w], false, true),
        }
    }

    /// `op(a) · op(b) (+ c)` for two-dimensional values, `op` being transposition where asked.
    pub(in crate::onnx) fn gemm(&self, inputs: &[Value], trans_a: bool, trans_b: bool) -> Value {
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
        let domain = if self.bf16() { OWN } else { "" };
        self.node("Gemm", domain, inputs, &attributes, DataType::F32, shape)
    }

    /// `alpha · op(a) · op(b)` over the last two dimensions; the leading dimensions broadcast.
    pub fn matmul(&self, a: Value, b: Value, trans_a: bool, trans_b: bool, alpha: f32) -> Value {
        let (x, y) = (self.shape(a), self.shape(b));
        let shape = self.batched(&x, &y, trans_a, trans_b).unwrap_or_else(|| {
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

    /// `x · w` with `x` `[.., in]` and `w` `[in, out]` → `[.., out]`.
    pub(in crate::onnx) fn times(&self, x: Value, w: Value) -> Value {
        let (mut shape, matrix) = (self.shape(x), self.shape(w));
        match (shape.last_mut(), matrix.as_slice()) {
            (Some(last), [rows, columns]) if last == rows || matches!(last, Dim::Unknown(_)) => *last = columns.clone(),
            _ => self.broken("MatMul", format!("{} and {} do not multiply", show(&self.shape(x)), show(&matrix))),
        }
        self.node("MatMul", "", &[x, w], &[], DataType::F32, shape)
    }

    /// The shape of the product of `[.., rows, inner]` and `[.., inner, columns]`.
    fn batched(&self, a: &[Dim], b: &[Dim], trans_a: bool, trans_b: bool) -> Option<Vec<Dim>> {
        let (n, m) = (a.len().checked_sub(2)?, b.len().checked_sub(2)?);
        let [rows, columns]: [Dim; 2] = product(&a[n..], &b[m..], trans_a, trans_b)?.try_into().ok()?;
        let mut shape = self.broadcast(&a[..n], &b[..m])?;
        shape.extend([rows, columns]);
        Some(shape)
    }
}

/// The shape of the product of two matrices, `None` when there is none.
fn product(a: &[Dim], b: &[Dim], trans_a: bool, trans_b: bool) -> Option<Vec<Dim>> {
    let ([a0, a1], [b0, b1]) = (a, b) else { return None };
    let (rows, inner) = if trans_a { (a1, a0) } else { (a0, a1) };
    let (inner_b, columns) = if trans_b { (b1, b0) } else { (b0, b1) };
    let unknown = |d: &Dim| matches!(d, Dim::Unknown(_));
    (inner == inner_b || unknown(inner) || unknown(inner_b)).then(|| vec![rows.clone(), columns.clone()])
}

/// For y = x·op(w) + b: dx = dy·op(w)ᵀ, dw = dyᵀ·x (or xᵀ·dy), db = Σ dy over the rows.
pub fn gemm(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    let (x, w) = (node.inputs[0], node.inputs[1]);
    let transposed = node.int("transB", 0) == 1;
    if node.int("transA", 0) == 1 {
        g.broken("Gemm", "the gradient of a transposed first factor is not written".into());
    }
    if let (OWN, true, &[dx, true, true]) = (node.domain, transposed, wanted) {
        let [dw, db] = g.weight_gradient(dy, x);
        return vec![dx.then(|| Piece::Dense(g.gemm(&[dy, w], false, false))), Some(Piece::Dense(dw)), Some(Piece::Dense(db))];
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
        let product = match (i, ta, tb) {
            (0, false, _) => g.matmul(dy, b, false, !tb, alpha),
            (0, true, _) => g.matmul(b, dy, tb, true, alpha),
            (_, _, false) => g.matmul(a, dy, !ta, false, alpha),
            (_, _, true) => g.matmul(dy, a, true, ta, alpha),
        };
        Some(g.sum_like(product, node.inputs[i]))
    })
}

/// For y = x·w: dx = dy·wᵀ, and dw = xᵀ·dy over all rows at once.
pub fn times(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    let (x, w) = (node.inputs[0], node.inputs[1]);
    let rows = |v: Value| {
        let Some(width) = g.shape(v).pop().filter(|_| g.rank(v) != 2) else { return v };
        g.reshape(v, vec![Dim::from("lines"), width])
    };
    dense(wanted, |i| {
        Some(match i {
            0 => {
                let to = [("transB", Attribute::Int(1))];
                g.node("FusedMatMul", MICROSOFT, &[dy, w], &to, DataType::F32, g.shape(x))
            }
            _ => {
                let product = [("transA", Attribute::Int(1))];
                g.node("Gemm", "", &[rows(x), rows(dy)], &product, DataType::F32, g.shape(w))
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        check("linear", &[&[2, 3], &[4, 3], &[4]], |g, x| g.linear(x[0], x[1], Some(x[2])));
        check("gemm", &[&[2, 3], &[3, 4]], |g, x| g.gemm(&[x[0], x[1]], false, false));
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            let a: &[usize] = if ta { &[2, 3, 4] } else { &[2, 4, 3] };
            let b: &[usize] = if tb { &[2, 5, 3] } else { &[2, 3, 5] };
            check(&format!("matmul {ta} {tb}"), &[a, b], |g, x| g.matmul(x[0], x[1], ta, tb, 0.7));
        }
        check("matmul of one with many", &[&[3, 4], &[2, 4, 5]], |g, x| g.matmul(x[0], x[1], false, false, 1.0));
        check("matmul, broadcast both ways", &[&[2, 1, 3, 4], &[3, 4, 2]], |g, x| g.matmul(x[0], x[1], false, false, 1.0));
        check("times", &[&[2, 3, 4], &[4, 5]], |g, x| g.times(x[0], x[1]));
        check("times of a matrix", &[&[3, 4], &[4, 5]], |g, x| g.times(x[0], x[1]));
    }
}
