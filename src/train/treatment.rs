//! What applies to which weight: weight decay and the factor of its learning rate.

use anyhow::{Result, anyhow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::optimizer::{Treatment, decays};
use super::select::{Pattern, check, layer, patterns};

/// Weights with a learning rate of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateGroup {
    /// Which weights: a name or a pattern of names, `embeddings`, `encoder.layer.0.*`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What their learning rate is multiplied by.
    pub factor: f64,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq)]
pub struct Treatments {
    pub weight_decay: f64,
    /// Weights that do not decay, in place of biases and normalizations.
    pub no_decay: Option<Vec<String>>,
    /// The first that means a weight counts.
    pub rates: Vec<RateGroup>,
    /// What the rate is multiplied by from each layer to the one before it.
    pub layer_decay: f64,
}

impl Default for Treatments {
    fn default() -> Self {
        Treatments { weight_decay: 0.01, no_decay: None, rates: Vec::new(), layer_decay: 1.0 }
    }
}

impl Treatments {
    /// The treatment of each of the weights in training; `all` names the weights of the model in the order in which it uses them.
    ///
    /// # Errors
    /// A pattern is none, or means none of the model's weights.
    pub fn of(&self, trained: &[&str], all: &[&str]) -> Result<Vec<Treatment>> {
        let read = |texts: &[String]| -> Result<Vec<Pattern>> {
            let patterns = patterns(texts).map_err(|(_, message)| anyhow!(message))?;
            check(&patterns, all)?;
            Ok(patterns)
        };
        let exempt = self.no_decay.as_deref().map(read).transpose()?;
        let groups = read(&self.rates.iter().map(|group| group.pattern.clone()).collect::<Vec<_>>())?;
        let factors: Vec<f64> = self.rates.iter().map(|group| group.factor).collect();
        let treat = |name: &&str| {
            let decays = match &exempt {
                Some(exempt) => !exempt.iter().any(|pattern| pattern.means(name)),
                None => decays(name),
            };
            let group = groups.iter().zip(&factors).find(|(pattern, _)| pattern.means(name));
            let rate = group.map_or(1.0, |(_, factor)| *factor) * self.layer_decay.powi(above(name, all));
            Treatment { decay: if decays { self.weight_decay } else { 0.0 }, rate }
        };
        Ok(trained.iter().map(treat).collect())
    }
}

/// How many layers lie above the weight: 0 in the last layer and after it, the number of layers in the embeddings.
fn above(name: &str, all: &[&str]) -> i32 {
    let layers = all.iter().filter_map(|name| layer(name)).max().map_or(0, |last| last + 1);
    let position = |name: &str| all.iter().position(|other| *other == name);
    let first = all.iter().position(|name| layer(name).is_some());
    let above = match layer(name) {
        Some(layer) => layers.saturating_sub(layer + 1),
        None if position(name) < first => layers,
        None => 0,
    };
    i32::try_from(above).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "embeddings.word_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.0.output.dense.weight",
        "encoder.layer.1.output.dense.bias",
        "dense.weight",
    ];

    #[test]
    fn each_weight_is_treated_as_told() {
        let mut treatments = Treatments { weight_decay: 0.1, layer_decay: 0.5, ..Treatments::default() };
        let of = |treatments: &Treatments| {
            let all = treatments.of(&NAMES, &NAMES).unwrap();
            all.iter().map(|t| (t.decay, t.rate)).collect::<Vec<_>>()
        };
        assert_eq!(of(&treatments), [(0.1, 0.25), (0.0, 0.25), (0.1, 0.5), (0.0, 1.0), (0.1, 1.0)]);
        treatments.layer_decay = 1.0;
        treatments.no_decay = Some(vec!["embeddings".to_owned()]);
        let group = |pattern: &str, factor| RateGroup { pattern: pattern.to_owned(), factor };
        treatments.rates = vec![group("embeddings.LayerNorm", 2.0), group("embeddings.*", 0.1)];
        assert_eq!(of(&treatments), [(0.0, 0.1), (0.0, 2.0), (0.1, 1.0), (0.1, 1.0), (0.1, 1.0)]);
        treatments.rates.push(group("embedings", 2.0));
        insta::assert_snapshot!(treatments.of(&NAMES, &NAMES).unwrap_err(), @"`embedings` means none of the model's 5 weights; did you mean `embeddings`?");
    }
}
