//! Online contrastive loss: contrastive loss of the hard pairs of a batch alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrastive::penalties;
use super::distance::Distance;
use super::{BadSetting, Formula, Inputs, Labels, Needs, positive};
use crate::onnx::{Graph, Value};
use crate::train::sampling::Sampler;

/// Contrastive loss of the hard pairs of each batch: texts that belong together but are further apart than the nearest of those that do not,
/// and texts that do not but are nearer than the furthest of those that do; `Σ d² + Σ relu(margin − d)²`, a sum and not a mean, as
/// `OnlineContrastiveLoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnlineContrastive {
    /// How embeddings are compared.
    pub distance: Distance,
    /// How far apart texts that do not belong together are to be.
    pub margin: f64,
}

impl Default for OnlineContrastive {
    fn default() -> Self {
        OnlineContrastive { distance: Distance::Cosine, margin: 0.5 }
    }
}

/// The pairs of a batch with one label, `[batch, 1]` each.
struct Side {
    /// Which they are.
    members: Value,
    distances: Value,
}

impl Side {
    fn new(g: &Graph, labels: Value, label: f32, distances: Value) -> Self {
        Side { members: g.equal(labels, g.scalar(label)), distances }
    }

    /// How many there are, `[1, 1]`.
    fn count(&self, g: &Graph) -> Value {
        g.sum(g.select(self.members, g.scalar(1.0), g.scalar(0.0)), 0)
    }

    /// The largest distance, −∞ if there are none.
    fn largest(&self, g: &Graph) -> Value {
        g.largest(g.select(self.members, self.distances, g.scalar(f32::NEG_INFINITY)), 0)
    }

    /// The smallest distance, ∞ if there are none.
    fn smallest(&self, g: &Graph) -> Value {
        g.neg(g.largest(g.select(self.members, g.neg(self.distances), g.scalar(f32::NEG_INFINITY)), 0))
    }

    /// The mean distance; 0 if there are none.
    fn mean(&self, g: &Graph) -> Value {
        let sum = g.sum(g.select(self.members, self.distances, g.scalar(0.0)), 0);
        g.div(sum, g.max(self.count(g), g.scalar(1.0)))
    }

    /// `bound` if `other` has pairs, else the mean of these.
    fn threshold(&self, g: &Graph, other: &Side, bound: Value) -> Value {
        g.select(g.greater(other.count(g), g.scalar(0.0)), bound, self.mean(g))
    }

    /// The sum of `penalties` of the members that are `hard`.
    fn total(&self, g: &Graph, hard: Value, penalties: Value) -> Value {
        let zero = g.scalar(0.0);
        let sum = g.sum(g.select(self.members, g.select(hard, penalties, zero), zero), 0);
        g.reshape(sum, Vec::new())
    }
}

impl Formula for OnlineContrastive {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let ([a, b], Some(labels)) = (batch.columns.as_slice(), batch.labels) else { return g.scalar(0.0) };
        let distances = self.distance.build(g, *a, *b);
        let (near, far) = penalties(g, distances, self.margin);
        // Comparisons pass no gradient on: what is hard is taken as given.
        let (same, other) = (Side::new(g, labels, 1.0, distances), Side::new(g, labels, 0.0, distances));
        let hard_same = g.greater(distances, same.threshold(g, &other, other.smallest(g)));
        let hard_other = g.greater(other.threshold(g, &same, same.largest(g)), distances);
        g.add(same.total(g, hard_same, near), other.total(g, hard_other, far))
    }

    fn needs(&self) -> Needs {
        Needs { loss: "online_contrastive", texts: 2..=2, labels: Labels::Binary, sampler: Sampler::Shuffled }
    }

    fn check(&self) -> Result<(), BadSetting> {
        positive("margin", self.margin)
    }

    fn describe(&self) -> String {
        format!("online contrastive loss, {} distance, margin {}", self.distance.name(), self.margin)
    }
}
