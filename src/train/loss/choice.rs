//! Choosing the right one among candidates.

use crate::onnx::{Dim, Graph, Value};

/// The cross-entropy of choosing candidate i for row i by `scores` `[batch, candidates]`, the mean over the rows. Everything is computed from one matrix,
/// in which the gradients of a right choice cancel out before they are multiplied with embeddings: afterwards only their rounding errors would be left.
pub fn cross_entropy(g: &Graph, scores: Value) -> Value {
    let chosen = own(g, g.log_softmax(scores), own_columns(g, scores));
    g.neg(g.mean_all(chosen))
}

/// Where a row of `scores` meets the candidate of its number: a boolean of its shape.
pub fn own_columns(g: &Graph, scores: Value) -> Value {
    let number = |axis: usize| {
        let mut shape = vec![Dim::Fixed(1); 2];
        shape[axis] = g.shape(scores).get(axis).cloned().unwrap_or(Dim::Fixed(1));
        g.reshape(g.numbers(scores, axis), shape)
    };
    g.equal(number(0), number(1))
}

/// The entries of `x` `[batch, candidates]` at `columns`, one a row → `[batch, 1]`.
pub fn own(g: &Graph, x: Value, columns: Value) -> Value {
    g.sum(g.select(columns, x, g.scalar(0.0)), -1)
}
