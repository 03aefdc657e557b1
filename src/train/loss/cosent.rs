//! CoSENT: pairs are to be as similar in turn as their labels say.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::similarity::Similarity;
use super::{BadSetting, Formula, Inputs, Labels, Needs, positive, rows};
use crate::onnx::{Dim, Graph, Value};
use crate::shape;
use crate::train::sampling::Sampler;

/// CoSENT (Su, 2022), `log(1 + Σ exp(sᵢ − sⱼ))` over all pairs i, j of the batch whose labels are yᵢ < yⱼ, with s = `scale` · cosine, as `CoSENTLoss`
/// of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cosent {
    /// What similarities are multiplied by, the reciprocal of a temperature.
    pub scale: f64,
}

impl Default for Cosent {
    fn default() -> Self {
        Cosent { scale: 20.0 }
    }
}

impl Formula for Cosent {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let ([a, b], Some(labels)) = (batch.columns.as_slice(), batch.labels) else { return g.scalar(0.0) };
        ranking(g, g.scale(Similarity::Cosine.of_rows(g, *a, *b), self.scale as f32), labels)
    }

    fn needs(&self) -> Needs {
        Needs { loss: "cosent", texts: 2..=2, labels: Labels::Grade, sampler: Sampler::Shuffled }
    }

    fn check(&self) -> Result<(), BadSetting> {
        positive("scale", self.scale)
    }

    fn describe(&self) -> String {
        format!("CoSENT, scale {}", self.scale)
    }
}

/// `log(1 + Σ exp(sᵢ − sⱼ))` over the pairs with yᵢ < yⱼ, for `scores` s and `labels` y `[batch, 1]`.
pub(super) fn ranking(g: &Graph, scores: Value, labels: Value) -> Value {
    let across = |x: Value| g.reshape(x, vec![Dim::Fixed(1), rows(g, x)]);
    let worse = g.greater(across(labels), labels);
    let differences = g.select(worse, g.sub(scores, across(scores)), g.scalar(f32::NEG_INFINITY));
    // The 1 in the sum is the exponential of a 0, which also keeps the largest summand finite.
    let all = [g.constant(&[1], &[0.0]), g.reshape(differences, shape!["differences"])];
    g.drop_axis(g.log_sum_exp(g.concat(&all, 0, Dim::from("summands")), 0), 0)
}
