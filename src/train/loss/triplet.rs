//! Triplet loss: the positive is to be nearer to the anchor than the negative, by a margin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Formula;
use crate::onnx::{Graph, Value};

/// Triplet loss, `mean relu(d(anchor, positive) − d(anchor, negative) + margin)`, as `TripletLoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Triplet {
    /// How embeddings are compared.
    pub distance: Distance,
    /// By how much the positive is to be nearer than the negative. Embeddings of norm 1 are at most 2 apart (Euclidean,
    /// cosine): with a larger margin the loss never reaches 0, and every triplet pulls at every step.
    pub margin: f64,
}

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

impl Default for Triplet {
    fn default() -> Self {
        Triplet { distance: Distance::default(), margin: 5.0 }
    }
}

impl Distance {
    /// Between the rows of `a` and `b` `[batch, dimensions]` → `[batch, 1]`.
    fn build(self, g: &Graph, a: Value, b: Value) -> Value {
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
    fn largest(self, dimensions: usize, normalized: bool) -> Option<f64> {
        match (self, normalized) {
            (Distance::Cosine, _) | (Distance::Euclidean, true) => Some(2.0),
            (Distance::Manhattan, true) => Some(2.0 * (dimensions as f64).sqrt()),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Distance::Euclidean => "Euclidean",
            Distance::Cosine => "cosine",
            Distance::Manhattan => "Manhattan",
        }
    }
}

impl Formula for Triplet {
    fn build(&self, g: &Graph, columns: &[Value]) -> Value {
        let [anchor, positive, negative] = columns else { return g.scalar(0.0) };
        let near = self.distance.build(g, *anchor, *positive);
        let far = self.distance.build(g, *anchor, *negative);
        g.mean_all(g.relu(g.add(g.sub(near, far), g.scalar(self.margin as f32))))
    }

    fn columns(&self) -> usize {
        3
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.margin.is_finite() && self.margin > 0.0 {
            Ok(())
        } else {
            Err(("margin", format!("the margin must be above 0, not {}", self.margin)))
        }
    }

    fn warnings(&self, dimensions: usize, normalized: bool) -> Vec<String> {
        match self.distance.largest(dimensions, normalized) {
            Some(largest) if self.margin >= largest => vec![format!(
                "the margin {} cannot be reached: {} distances between {}embeddings of length {dimensions} are at most {largest:.4}, so \
                 the loss never becomes 0 and no triplet is ever easy enough to be left alone; a margin well below {largest:.4} would",
                self.margin,
                self.distance.name(),
                if normalized { "normalised " } else { "" },
            )],
            _ => Vec::new(),
        }
    }

    fn describe(&self) -> String {
        format!("triplet loss, {} distance, margin {}", self.distance.name(), self.margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        for (distance, margin) in [(Distance::Euclidean, 0.3), (Distance::Cosine, 0.5), (Distance::Manhattan, 5.0)] {
            let loss = Triplet { distance, margin };
            check(distance.name(), &[&[3, 4], &[3, 4], &[3, 4]], |g, x| loss.build(g, x));
        }
    }

    #[test]
    fn a_margin_that_cannot_be_reached_is_warned_about() {
        let warnings = Triplet::default().warnings(384, true);
        insta::assert_snapshot!(warnings.join("\n"), @"the margin 5 cannot be reached: Euclidean distances between normalised embeddings of length 384 are at most 2.0000, so the loss never becomes 0 and no triplet is ever easy enough to be left alone; a margin well below 2.0000 would");
        assert!(Triplet { margin: 1.0, ..Triplet::default() }.warnings(384, true).is_empty());
        assert!(Triplet::default().warnings(384, false).is_empty());
        assert!(Triplet { distance: Distance::Manhattan, margin: 5.0 }.warnings(384, true).is_empty());
    }

    #[test]
    fn a_margin_must_be_positive() {
        assert!(Triplet { margin: 0.0, ..Triplet::default() }.check().is_err());
        assert!(Triplet { margin: f64::NAN, ..Triplet::default() }.check().is_err());
    }
}
