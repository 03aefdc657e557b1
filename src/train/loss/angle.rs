//! AnglE: CoSENT by an angle in the complex plane, which does not saturate where cosines do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cosent::ranking;
use super::{BadSetting, Formula, Inputs, Labels, Needs, positive};
use crate::onnx::{Graph, Value};
use crate::train::sampling::Sampler;

/// AnglE (Li and Li, 2023): CoSENT with the similarity `|cos + sin|`, where the two halves of an embedding are the real and imaginary parts of
/// complex numbers, as `AnglELoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Angle {
    /// What similarities are multiplied by, the reciprocal of a temperature.
    pub scale: f64,
}

impl Default for Angle {
    fn default() -> Self {
        Angle { scale: 20.0 }
    }
}

impl Formula for Angle {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let ([a, b], Some(labels)) = (batch.columns.as_slice(), batch.labels) else { return g.scalar(0.0) };
        ranking(g, g.scale(similarity(g, *a, *b), self.scale as f32), labels)
    }

    fn needs(&self) -> Needs {
        Needs { loss: "angle", texts: 2..=2, labels: Labels::Grade, sampler: Sampler::Shuffled }
    }

    fn check(&self) -> Result<(), BadSetting> {
        positive("scale", self.scale)
    }

    fn describe(&self) -> String {
        format!("AnglE, scale {}", self.scale)
    }
}

/// `|Σ aᵢbᵢ + Σ (Im aₖ·Re bₖ − Re aₖ·Im bₖ)|` of rows of norm 1 `[batch, dimensions]` → `[batch, 1]`. With an odd number of dimensions the last real part has
/// no imaginary one, which counts as 0.
fn similarity(g: &Graph, a: Value, b: Value) -> Value {
    let (a, b) = (g.normalize(a), g.normalize(b));
    let dimensions = g.last(a);
    let (imaginary, start) = (dimensions / 2, dimensions.div_ceil(2));
    let halves = |x: Value| (g.slice(x, -1, 0, imaginary), g.slice(x, -1, start, imaginary));
    let ((re_a, im_a), (re_b, im_b)) = (halves(a), halves(b));
    let cosines = g.sum(g.mul(a, b), -1);
    let sines = g.sum(g.sub(g.mul(im_a, re_b), g.mul(re_a, im_b)), -1);
    g.abs(g.add(cosines, sines))
}
