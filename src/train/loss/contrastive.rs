//! Contrastive loss: texts that belong together are to be near each other, others at least a margin apart.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::distance::Distance;
use super::{BadSetting, Formula, Inputs, Labels, Needs, positive};
use crate::onnx::{Graph, Value};
use crate::train::sampling::Sampler;

/// Contrastive loss (Hadsell, Chopra and LeCun, 2006), `mean ½ (y·d² + (1 − y)·relu(margin − d)²)` for pairs at distance d with label y, as
/// `ContrastiveLoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Contrastive {
    /// How embeddings are compared.
    pub distance: Distance,
    /// How far apart texts that do not belong together are to be.
    pub margin: f64,
}

impl Default for Contrastive {
    fn default() -> Self {
        Contrastive { distance: Distance::Cosine, margin: 0.5 }
    }
}

impl Formula for Contrastive {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let ([a, b], Some(label)) = (batch.columns.as_slice(), batch.labels) else { return g.scalar(0.0) };
        let distance = self.distance.build(g, *a, *b);
        let (near, far) = penalties(g, distance, self.margin);
        let other = g.sub(g.scalar(1.0), label);
        g.scale(g.mean_all(g.add(g.mul(label, near), g.mul(other, far))), 0.5)
    }

    fn needs(&self) -> Needs {
        Needs { loss: "contrastive", texts: 2..=2, labels: Labels::Binary, sampler: Sampler::Shuffled }
    }

    fn check(&self) -> Result<(), BadSetting> {
        positive("margin", self.margin)
    }

    fn describe(&self) -> String {
        format!("contrastive loss, {} distance, margin {}", self.distance.name(), self.margin)
    }
}

/// What a pair at `distance` costs if its texts belong together (`d²`), and if they do not (`relu(margin − d)²`).
pub(super) fn penalties(g: &Graph, distance: Value, margin: f64) -> (Value, Value) {
    let short = g.relu(g.sub(g.scalar(margin as f32), distance));
    (g.mul(distance, distance), g.mul(short, short))
}
