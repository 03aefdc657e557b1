//! MarginMSE: the model is to score positives above negatives by as much as a teacher does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::similarity::Similarity;
use super::{BadSetting, Formula, Inputs, Labels, Needs};
use crate::onnx::{Graph, Value};
use crate::train::sampling::Sampler;

/// MarginMSE (Hofstätter et al., 2020): the mean square of what the model's margin `s(anchor, positive) − s(anchor, negative)` lacks of the teacher's, over all
/// rows and negatives, as `MarginMSELoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MarginMse {
    /// How embeddings are compared. The teacher's scores must be of the same scale: for cosines margins lie between −2 and 2.
    pub similarity: Similarity,
}

impl Default for MarginMse {
    fn default() -> Self {
        MarginMse { similarity: Similarity::Dot }
    }
}

impl Formula for MarginMse {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let ([anchor, positive, negatives @ ..], Some(labels)) = (batch.columns.as_slice(), batch.labels) else {
            return g.scalar(0.0);
        };
        let margins = g.sub(self.similarity.of_rows(g, *anchor, *positive), self.similarity.of_each(g, *anchor, negatives));
        let wanted = if g.last(labels) > negatives.len() {
            g.sub(g.slice(labels, -1, 0, 1), g.slice(labels, -1, 1, negatives.len()))
        } else {
            labels
        };
        let off = g.sub(margins, wanted);
        g.mean_all(g.mul(off, off))
    }

    fn needs(&self) -> Needs {
        Needs { loss: "margin_mse", texts: 3..=usize::MAX, labels: Labels::Margins, sampler: Sampler::Shuffled }
    }

    fn check(&self) -> Result<(), BadSetting> {
        Ok(())
    }

    fn describe(&self) -> String {
        format!("MarginMSE, {}", self.similarity.name())
    }
}
