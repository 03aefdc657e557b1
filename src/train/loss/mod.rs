//! Losses. To add one: a file here with its settings and its formula, a variant of [`Loss`] and its line in [`Loss::formula`].

pub mod triplet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::onnx::{Graph, Value};
use triplet::Triplet;

/// What a loss is made of.
pub trait Formula {
    /// The scalar to be minimised, from the embeddings of each column of a batch, all `[batch, dimensions]`.
    fn build(&self, graph: &Graph, columns: &[Value]) -> Value;

    /// The number of columns it wants (three for triplets).
    fn columns(&self) -> usize;

    /// A bad setting: the field and what to do about it.
    fn check(&self) -> Result<(), (&'static str, String)>;

    /// What a user should know about these settings, for embeddings of length `dimensions`, of norm 1 if `normalized`.
    fn warnings(&self, dimensions: usize, normalized: bool) -> Vec<String>;

    /// For the model card.
    fn describe(&self) -> String;
}

/// A loss and its settings, by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Loss {
    Triplet(Triplet),
}

impl Loss {
    /// The loss behind the name.
    pub fn formula(&self) -> &dyn Formula {
        match self {
            Loss::Triplet(triplet) => triplet,
        }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Loss::Triplet(Triplet::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_the_losses_name() {
        let read = |text: &str| serde_json::from_str::<Loss>(text).map_err(|e| e.to_string());
        let loss = read(r#"{"name": "triplet", "margin": 0.5, "distance": "cosine"}"#).unwrap();
        assert_eq!(loss, Loss::Triplet(Triplet { distance: triplet::Distance::Cosine, margin: 0.5 }));
        assert!(read(r#"{"name": "triplet", "marign": 0.5}"#).unwrap_err().contains("unknown field `marign`"));
        assert!(read(r#"{"name": "triple"}"#).unwrap_err().contains("unknown variant `triple`, expected `triplet`"));
    }
}
