//! Distances between embeddings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::onnx::{Graph, Value};

/// A distance between embeddings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distance {
    /// `‖a − b‖₂`; its gradient at a = b is 0.
    #[default]
    Euclidean,
    /// `1 − cos(a, b)`.
    Cosine,
    /// `Σ |a − b|`.
    Manhattan,
}

impl Distance {
    /// Between the rows of `a` and `b` `[batch, dimensions]` → `[batch, 1]`.
    pub fn build(self, g: &Graph, a: Value, b: Value) -> Value {
        match self {
            Distance::Euclidean => g.norm(g.sub(a, b)),
            Distance::Cosine => {
                let cosine = g.sum(g.mul(g.normalize(a), g.normalize(b)), -1);
                g.sub(g.scalar(1.0), cosine)
            }
            Distance::Manhattan => g.sum(g.abs(g.sub(a, b)), -1),
        }
    }

    /// The largest distance between two vectors of length `dimensions`, if there is one.
    pub fn largest(self, dimensions: usize, normalized: bool) -> Option<f64> {
        match (self, normalized) {
            (Distance::Cosine, _) | (Distance::Euclidean, true) => Some(2.0),
            (Distance::Manhattan, true) => Some(2.0 * (dimensions as f64).sqrt()),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Distance::Euclidean => "Euclidean",
            Distance::Cosine => "cosine",
            Distance::Manhattan => "Manhattan",
        }
    }
}
