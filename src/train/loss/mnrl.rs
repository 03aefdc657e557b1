//! Multiple negatives ranking: the positive is to be the nearest among the positives and negatives of the whole batch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choice::cross_entropy;
use super::similarity::Similarity;
use super::{BadSetting, Formula, Inputs, Labels, Needs, positive};
use crate::onnx::{Dim, Graph, Value};
use crate::train::sampling::Sampler;

/// Multiple negatives ranking (InfoNCE): the mean cross-entropy of choosing each anchor's positive among all positives and negatives of the batch, by
/// `scale · similarity`, as `MultipleNegativesRankingLoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mnrl {
    /// How embeddings are compared.
    pub similarity: Similarity,
    /// What similarities are multiplied by, the reciprocal of a temperature. 20 suits cosines; with dot products of embeddings that are not of
    /// norm 1 begin with 1.
    pub scale: f64,
    /// Whether each positive has to find its anchor among the anchors of the batch as well; the mean of both directions then
    /// (`MultipleNegativesSymmetricRankingLoss`).
    pub symmetric: bool,
}

impl Default for Mnrl {
    fn default() -> Self {
        Mnrl { similarity: Similarity::Cosine, scale: 20.0, symmetric: false }
    }
}

impl Formula for Mnrl {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let columns: Vec<Value> = batch.columns.iter().map(|&x| self.similarity.prepare(g, x)).collect();
        let [anchors, candidates @ ..] = columns.as_slice() else { return g.scalar(0.0) };
        let [positives, ..] = candidates else { return g.scalar(0.0) };
        let scale = self.scale as f32;
        let all = if let [one] = candidates { *one } else { g.concat(candidates, 0, Dim::from("candidates")) };
        let forwards = cross_entropy(g, g.matmul(*anchors, all, false, true, scale));
        if !self.symmetric {
            return forwards;
        }
        let backwards = cross_entropy(g, g.matmul(*positives, *anchors, false, true, scale));
        g.scale(g.add(forwards, backwards), 0.5)
    }

    fn needs(&self) -> Needs {
        Needs { loss: "mnrl", texts: 2..=usize::MAX, labels: Labels::None, sampler: Sampler::NoDuplicates }
    }

    fn check(&self) -> Result<(), BadSetting> {
        positive("scale", self.scale)
    }

    fn describe(&self) -> String {
        let symmetric = if self.symmetric { ", both directions" } else { "" };
        format!("multiple negatives ranking, {}, scale {}{symmetric}", self.similarity.name(), self.scale)
    }
}
