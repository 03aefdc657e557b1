//! Losses. To add one: a file here with its settings and its formula, a variant of [`Loss`] and its line in [`Loss::formula`].

pub mod angle;
mod choice;
pub mod contrastive;
pub mod cosent;
pub mod distance;
pub mod distill_kl;
pub mod gist;
pub mod margin_mse;
pub mod matryoshka;
pub mod mnrl;
pub mod needs;
pub mod online_contrastive;
pub mod similarity;
pub mod triplet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::onnx::{Dim, Graph, Value};
pub use needs::{Labels, Needs};

/// The values that a loss is computed from.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The embeddings of each column of texts (anchors, positives, negatives), all `[batch, dimensions]`.
    pub columns: Vec<Value>,
    /// `[batch, labels a row]`; there where the loss wants labels.
    pub labels: Option<Value>,
    /// Of each column the vectors of the guide model, `[batch, dimensions of the guide]`; none where there is no guide.
    pub guides: Vec<Value>,
}

/// A setting that cannot be used: the field (`margin`, `loss.scale`) and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSetting {
    pub field: String,
    pub message: String,
}

/// What a loss is made of.
pub trait Formula {
    /// The scalar to be minimised. The columns are as many as [`Formula::needs`] allows.
    fn build(&self, graph: &Graph, batch: &Inputs) -> Value;

    /// What it wants of the data.
    fn needs(&self) -> Needs;

    /// Whether the settings can be used.
    fn check(&self) -> Result<(), BadSetting>;

    /// Whether the settings fit embeddings of length `dimensions`; if not, why.
    fn fits(&self, _dimensions: usize) -> Result<(), String> {
        Ok(())
    }

    /// Whether it wants the vectors of a guide model.
    fn is_guided(&self) -> bool {
        false
    }

    /// What a user should know about these settings, for embeddings of length `dimensions`, of norm 1 if `normalized`.
    fn warnings(&self, _dimensions: usize, _normalized: bool) -> Vec<String> {
        Vec::new()
    }

    /// For the model card.
    fn describe(&self) -> String;
}

/// A loss and its settings, by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Loss {
    Triplet(triplet::Triplet),
    Mnrl(mnrl::Mnrl),
    Gist(gist::Gist),
    Contrastive(contrastive::Contrastive),
    OnlineContrastive(online_contrastive::OnlineContrastive),
    Cosent(cosent::Cosent),
    Angle(angle::Angle),
    MarginMse(margin_mse::MarginMse),
    DistillKl(distill_kl::DistillKl),
    Matryoshka(matryoshka::Matryoshka),
}

impl Loss {
    /// The loss behind the name.
    pub fn formula(&self) -> &dyn Formula {
        match self {
            Loss::Triplet(loss) => loss,
            Loss::Mnrl(loss) => loss,
            Loss::Gist(loss) => loss,
            Loss::Contrastive(loss) => loss,
            Loss::OnlineContrastive(loss) => loss,
            Loss::Cosent(loss) => loss,
            Loss::Angle(loss) => loss,
            Loss::MarginMse(loss) => loss,
            Loss::DistillKl(loss) => loss,
            Loss::Matryoshka(loss) => loss,
        }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Loss::Triplet(triplet::Triplet::default())
    }
}

/// The number of rows of `x`.
fn rows(g: &Graph, x: Value) -> Dim {
    g.shape(x).into_iter().next().unwrap_or(Dim::Fixed(1))
}

/// Refuses a setting that is not above 0.
fn positive(field: &str, value: f64) -> Result<(), BadSetting> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(BadSetting { field: field.to_owned(), message: format!("`{field}` must be above 0, not {value}") })
}

#[cfg(test)]
mod tests;
