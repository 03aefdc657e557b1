//! What is trained of a model, and what is added to it for that.

use anyhow::Result;

use super::lora::Lora;
use super::select::Selection;
use crate::model::builder::Additions;

/// See the [module](self).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    pub train: Selection,
    /// Trained in place of the model's own weights.
    pub lora: Option<Lora>,
    /// Of what adapters begin with.
    pub seed: u64,
}

impl Choice {
    /// What is added to the encoder that has weights of these names.
    ///
    /// # Errors
    /// A target of `lora` means nothing.
    pub fn additions(&self, names: &[&str]) -> Result<Additions> {
        Ok(Additions { adapters: self.lora.as_ref().map(|lora| lora.adapters(names)).transpose()? })
    }

    /// Whether each of the weights is trained; `names` has those that were added, in the order in which the encoder uses them.
    ///
    /// # Errors
    /// A pattern of `train` means nothing, or a target of `lora` no linear layer.
    pub fn trained(&self, names: &[&str]) -> Result<Vec<bool>> {
        match &self.lora {
            Some(lora) => lora.trained(names),
            None => self.train.choose(names),
        }
    }

    /// What comes out of adapters is multiplied by this.
    pub fn scale(&self) -> f32 {
        self.lora.as_ref().map_or(0.0, Lora::scale)
    }
}
