//! Distillation: the model is to spread its choice over the candidates as a teacher does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::similarity::Similarity;
use super::{BadSetting, Formula, Inputs, Labels, Needs, positive};
use crate::onnx::{Graph, Value};
use crate::train::sampling::Sampler;

/// The Kullback-Leibler divergence of the softmax of the model's scores of the candidates (positive, negatives) from that of a teacher's scores, the mean over the
/// rows times the square of `temperature`, as `DistillKLDivLoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DistillKl {
    /// How embeddings are compared.
    pub similarity: Similarity,
    /// What the model's scores are divided by. Cosines lie close together: 0.05 makes a choice of them.
    pub temperature: f64,
    /// What the teacher's scores are divided by; left out, it is `temperature`.
    pub teacher_temperature: Option<f64>,
}

impl Default for DistillKl {
    fn default() -> Self {
        DistillKl { similarity: Similarity::Dot, temperature: 1.0, teacher_temperature: None }
    }
}

impl Formula for DistillKl {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let ([anchor, candidates @ ..], Some(labels)) = (batch.columns.as_slice(), batch.labels) else { return g.scalar(0.0) };
        let teacher = self.teacher_temperature.unwrap_or(self.temperature);
        let wanted = g.log_softmax(g.scale(labels, (1.0 / teacher) as f32));
        let scores = self.similarity.of_each(g, *anchor, candidates);
        let found = g.log_softmax(g.scale(scores, (1.0 / self.temperature) as f32));
        let divergence = g.sum(g.mul(g.exp(wanted), g.sub(wanted, found)), -1);
        g.scale(g.mean_all(divergence), (self.temperature * self.temperature) as f32)
    }

    fn needs(&self) -> Needs {
        Needs { loss: "distill_kl", texts: 3..=usize::MAX, labels: Labels::Scores, sampler: Sampler::Shuffled }
    }

    fn check(&self) -> Result<(), BadSetting> {
        positive("temperature", self.temperature)?;
        self.teacher_temperature.map_or(Ok(()), |teacher| positive("teacher_temperature", teacher))
    }

    fn describe(&self) -> String {
        let teacher = self.teacher_temperature.map(|t| format!(", the teacher's {t}")).unwrap_or_default();
        format!("distillation (Kullback-Leibler), {}, temperature {}{teacher}", self.similarity.name(), self.temperature)
    }
}
