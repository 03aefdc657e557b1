//! Triplet loss: the positive is to be nearer to the anchor than the negative, by a margin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::distance::Distance;
use super::{BadSetting, Formula, Inputs, Labels, Needs, positive};
use crate::onnx::{Graph, Value};
use crate::train::sampling::Sampler;

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

impl Default for Triplet {
    fn default() -> Self {
        Triplet { distance: Distance::default(), margin: 5.0 }
    }
}

impl Formula for Triplet {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let [anchor, positive, negative] = batch.columns.as_slice() else { return g.scalar(0.0) };
        let near = self.distance.build(g, *anchor, *positive);
        let far = self.distance.build(g, *anchor, *negative);
        g.mean_all(g.relu(g.add(g.sub(near, far), g.scalar(self.margin as f32))))
    }

    fn needs(&self) -> Needs {
        Needs { loss: "triplet", texts: 3..=3, labels: Labels::None, sampler: Sampler::Shuffled }
    }

    fn check(&self) -> Result<(), BadSetting> {
        positive("margin", self.margin)
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

    #[test]
    fn a_margin_that_cannot_be_reached_is_warned_about() {
        let warnings = Triplet::default().warnings(384, true);
        insta::assert_snapshot!(warnings.join("\n"), @"the margin 5 cannot be reached: Euclidean distances between normalised embeddings of length 384 are at most 2.0000, so the loss never becomes 0 and no triplet is ever easy enough to be left alone; a margin well below 2.0000 would");
        assert!(Triplet { margin: 1.0, ..Triplet::default() }.warnings(384, true).is_empty());
        assert!(Triplet::default().warnings(384, false).is_empty());
        assert!(Triplet { distance: Distance::Manhattan, margin: 5.0 }.warnings(384, true).is_empty());
    }
}
