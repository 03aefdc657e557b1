//! Similarities of embeddings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::onnx::{Dim, Graph, Value};

/// A similarity of embeddings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// `cos(a, b)`.
    #[default]
    Cosine,
    /// `a · b`.
    Dot,
}

impl Similarity {
    /// `x` `[.., dimensions]` such that the dot product of two of these is the similarity.
    pub fn prepare(self, g: &Graph, x: Value) -> Value {
        match self {
            Similarity::Cosine => g.normalize(x),
            Similarity::Dot => x,
        }
    }

    /// Of the rows of `a` and `b` `[batch, dimensions]` → `[batch, 1]`.
    pub fn of_rows(self, g: &Graph, a: Value, b: Value) -> Value {
        g.sum(g.mul(self.prepare(g, a), self.prepare(g, b)), -1)
    }

    /// Of the rows of `a` and those of each of `others` `[batch, dimensions]` → `[batch, others]`.
    pub fn of_each(self, g: &Graph, a: Value, others: &[Value]) -> Value {
        let scores: Vec<Value> = others.iter().map(|&other| self.of_rows(g, a, other)).collect();
        beside(g, &scores)
    }

    pub fn name(self) -> &'static str {
        match self {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "dot product",
        }
    }
}

/// Columns `[batch, 1]` side by side.
pub fn beside(g: &Graph, columns: &[Value]) -> Value {
    match columns {
        [one] => *one,
        several => g.concat(several, 1, Dim::Fixed(several.len())),
    }
}
