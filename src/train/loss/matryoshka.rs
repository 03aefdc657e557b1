//! Matryoshka: any loss, of embeddings cut short too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BadSetting, Formula, Inputs, Loss, Needs};
use crate::onnx::{Graph, Value};

/// Matryoshka representation learning (Kusupati et al., 2022): the weighted sum of another loss of the embeddings' first dimensions, normalised again, for each of
/// `dims`, so that embeddings can be cut to these lengths afterwards. As `MatryoshkaLoss` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matryoshka {
    /// The loss: `{ name: mnrl }`.
    pub loss: Box<Loss>,
    /// The lengths, in any order. The model's own length is best among them.
    pub dims: Vec<usize>,
    /// What the loss of each length counts; left out, 1 each.
    #[serde(default)]
    pub weights: Option<Vec<f64>>,
}

impl Matryoshka {
    fn weight(&self, i: usize) -> f64 {
        self.weights.as_ref().and_then(|weights| weights.get(i)).copied().unwrap_or(1.0)
    }
}

impl Formula for Matryoshka {
    fn build(&self, g: &Graph, batch: &Inputs) -> Value {
        let mut total = None;
        for (i, &dims) in self.dims.iter().enumerate() {
            let short = |&x: &Value| g.normalize(if dims == g.last(x) { x } else { g.slice(x, -1, 0, dims) });
            let columns = batch.columns.iter().map(short).collect();
            let loss = self.loss.formula().build(g, &Inputs { columns, ..batch.clone() });
            let loss = g.scale(loss, self.weight(i) as f32);
            total = Some(total.map_or(loss, |sum| g.add(sum, loss)));
        }
        total.unwrap_or_else(|| g.scalar(0.0))
    }

    fn needs(&self) -> Needs {
        self.loss.formula().needs()
    }

    fn check(&self) -> Result<(), BadSetting> {
        let refuse = |field: &str, message: String| Err(BadSetting { field: field.to_owned(), message });
        if matches!(*self.loss, Loss::Matryoshka(_)) {
            return refuse(
                "loss",
                "`matryoshka` goes around another loss, not around itself; put all lengths into one `dims`".into(),
            );
        }
        if self.dims.is_empty() {
            return refuse(
                "dims",
                "`dims` is empty; name the lengths that embeddings are cut to, for example `[384, 128, 32]`".into(),
            );
        }
        for (i, dims) in self.dims.iter().enumerate() {
            if *dims == 0 || self.dims[..i].contains(dims) {
                let why = if *dims == 0 { "is no length" } else { "stands twice" };
                return refuse(&format!("dims[{i}]"), format!("the length {dims} {why}; remove it"));
            }
        }
        if let Some(weights) = &self.weights {
            if weights.len() != self.dims.len() {
                return refuse(
                    "weights",
                    format!("there are {} weights for {} lengths; give each one of `dims` one", weights.len(), self.dims.len()),
                );
            }
            if let Some(i) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
                return refuse(&format!("weights[{i}]"), format!("a weight must not be negative, but is {}", weights[i]));
            }
        }
        self.loss.formula().check().map_err(|bad| BadSetting { field: format!("loss.{}", bad.field), message: bad.message })
    }

    fn fits(&self, dimensions: usize) -> Result<(), String> {
        match self.dims.iter().find(|&&dims| dims > dimensions) {
            Some(dims) => Err(format!(
                "embeddings of this model have {dimensions} dimensions and cannot be cut to {dims}; correct `loss.dims`"
            )),
            None => self.loss.formula().fits(dimensions),
        }
    }

    fn is_guided(&self) -> bool {
        self.loss.formula().is_guided()
    }

    fn warnings(&self, dimensions: usize, _: bool) -> Vec<String> {
        // Cut embeddings are of norm 1 in any case.
        let mut warnings = self.loss.formula().warnings(dimensions, true);
        if !self.dims.contains(&dimensions) {
            warnings.push(format!(
                "whole embeddings, of {dimensions} dimensions, are not trained; add {dimensions} to `loss.dims` to use them too"
            ));
        }
        warnings
    }

    fn describe(&self) -> String {
        let lengths: Vec<String> =
            self.dims.iter().enumerate().map(|(i, dims)| format!("{dims} (weight {})", self.weight(i))).collect();
        format!("Matryoshka of {}; lengths {}", self.loss.formula().describe(), lengths.join(", "))
    }
}
