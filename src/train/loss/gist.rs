//! GIST: multiple negatives ranking without the negatives that a guide takes for answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choice::{cross_entropy, own, own_columns};
use super::similarity::Similarity;
use super::{BadSetting, Formula, Inputs, Labels, Needs, positive};
use crate::onnx::{Dim, Graph, Value};
use crate::train::sampling::Sampler;

/// GIST (Solatorio, 2024): multiple negatives ranking in which a negative does not count for an anchor if a guide finds it more similar than the anchor's positive,
/// less a margin: it is probably an answer that nobody marked. As `GISTEmbedLoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gist {
    /// Who says which negatives are false.
    pub guide: Guide,
    /// What cosines are divided by.
    pub temperature: f64,
    /// What `margin` is a part of.
    pub margin_strategy: MarginStrategy,
    /// By how much less similar than the positive a negative must be to count. Above 0, ever more negatives are left out.
    pub margin: f64,
    /// Whether the other anchors are negatives as well.
    pub contrast_anchors: bool,
    /// Whether each positive has to be apart from the other positives as well.
    pub contrast_positives: bool,
}

/// Who says which negatives are false.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Guide {
    /// The model at the input `guide`.
    #[default]
    Model,
    /// The model in training itself.
    #[serde(rename = "self")]
    Itself,
}

/// How similar a negative may be to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MarginStrategy {
    /// Up to the positive's similarity less `margin`.
    #[default]
    Absolute,
    /// Up to the positive's similarity less `margin` times its magnitude.
    Relative,
}

impl Default for Gist {
    fn default() -> Self {
        Gist {
            guide: Guide::default(),
            temperature: 0.01,
            margin_strategy: MarginStrategy::default(),
            margin: 0.0,
            contrast_anchors: true,
            contrast_positives: true,
        }
    }
}

impl Formula for Gist {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let prepare = |columns: &[Value]| columns.iter().map(|&x| Similarity::Cosine.prepare(g, x)).collect::<Vec<_>>();
        let columns = prepare(&batch.columns);
        // Guides are only compared, and comparisons pass no gradient on: the model as its own guide learns nothing from that.
        let guides = if self.guide == Guide::Itself { columns.clone() } else { prepare(&batch.guides) };
        let ([anchor, positive, negatives @ ..], [guide_anchor, guide_positive, guide_negatives @ ..]) =
            (columns.as_slice(), guides.as_slice())
        else {
            return g.scalar(0.0);
        };
        let products = |a: Value, b: Value| g.matmul(a, b, false, true, 1.0);
        let guided = products(*guide_anchor, *guide_positive);
        let itself = own_columns(g, guided);
        let limit = self.limit(g, own(g, guided, itself));
        let masked = |scores: Value, guided: Value| g.select(g.greater(guided, limit), g.scalar(f32::NEG_INFINITY), scores);
        let scores = products(*anchor, *positive);
        let mut all = vec![g.select(itself, scores, masked(scores, guided))];
        let apart = |x: Value, guide: Value| {
            g.select(itself, g.scalar(f32::NEG_INFINITY), masked(products(x, x), products(guide, guide)))
        };
        if self.contrast_anchors {
            all.push(apart(*anchor, *guide_anchor));
        }
        if self.contrast_positives {
            all.push(apart(*positive, *guide_positive));
        }
        for (&negative, &guide) in negatives.iter().zip(guide_negatives) {
            all.push(masked(products(*anchor, negative), products(*guide_anchor, guide)));
        }
        let all = g.concat(&all, 1, Dim::from("candidates"));
        cross_entropy(g, g.scale(all, (1.0 / self.temperature) as f32))
    }

    fn needs(&self) -> Needs {
        Needs { loss: "gist", texts: 2..=usize::MAX, labels: Labels::None, sampler: Sampler::NoDuplicates }
    }

    fn check(&self) -> Result<(), BadSetting> {
        positive("temperature", self.temperature)?;
        if self.margin.is_finite() && self.margin >= 0.0 {
            return Ok(());
        }
        Err(BadSetting { field: "margin".into(), message: format!("`margin` must not be negative, but is {}", self.margin) })
    }

    fn is_guided(&self) -> bool {
        self.guide == Guide::Model
    }

    fn describe(&self) -> String {
        let guide = match self.guide {
            Guide::Model => "guided by another model",
            Guide::Itself => "guided by itself",
        };
        format!("GIST, {guide}, temperature {}, margin {}", self.temperature, self.margin)
    }
}

impl Gist {
    /// How similar a negative may be, by the guide's similarity of the positives `[batch, 1]`.
    fn limit(&self, g: &Graph, positive: Value) -> Value {
        let margin = g.scalar(self.margin as f32);
        match self.margin_strategy {
            MarginStrategy::Absolute => g.sub(positive, margin),
            MarginStrategy::Relative => g.sub(positive, g.mul(g.abs(positive), margin)),
        }
    }
}
