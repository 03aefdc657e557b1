//! The parameters of the stage `train`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::evaluation::Measure;
use crate::model::builder::Dropout;
use crate::model::prompts::OtherPrompts;
use crate::runtime::device::Choice as DeviceChoice;
use crate::runtime::precision::Precision;
use crate::stage::{ParameterError, prompts};
use crate::train::lora::Lora;
use crate::train::sampling::{Mixing, Sampler};
use crate::train::schedule::Decay;
use crate::train::select::{Pattern, Selection};
use crate::train::step::Choice;
use crate::train::trainer::Warmup;
use crate::train::treatment::{RateGroup, Treatments};
use crate::train::{Loss, Settings};

/// Fine-tunes an embedding model on examples with AdamW. With `eval` connected, the model is evaluated on it during training, and the best
/// weights are kept. An interrupted training goes on where it was, and ends with the same bytes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// What is minimised.
    pub loss: Loss,
    /// Losses of data sets that `loss` is not for, by the names of the data sets among the inputs: `{ graded: { name: cosent } }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, Loss>,
    /// Passes over the examples.
    pub epochs: usize,
    /// Examples a batch.
    pub batch_size: usize,
    /// Tokens that go through the model at once. A batch of more goes through it in parts (GradCache): loss and gradients are the same but for their last
    /// digits, and the memory is that of a part, for a second forward pass. With it, `mnrl` and `gist` can compare thousands of
    /// examples with each other. 0: the whole batch at once.
    pub mini_batch_tokens: usize,
    /// How a data set is cut into batches. Left out, as its loss is best served: `no_duplicates` for `mnrl` and `gist`, else `shuffled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// How several data sets are mixed.
    pub mixing: Mixing,
    /// Batches whose gradients are averaged for a step: as much memory as one batch, and for losses that do not compare the texts of a batch
    /// with each other the same gradient as of one that is so many times larger.
    pub accumulation: usize,
    /// How exactly matrix products are computed: `auto` is `bf16` on processors with fast instructions for it, else `fp32`.
    pub precision: Precision,
    /// Peak learning rate.
    pub lr: f64,
    /// How the learning rate goes on after the warm-up.
    pub schedule: Decay,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// The same as a share of all steps, in place of `warmup_steps`: `0.1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
    /// Weights with a learning rate of their own: `[{ match: embeddings, factor: 0.1 }]`. The first that means a weight counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lr_groups: Vec<RateGroup>,
    /// What the learning rate is multiplied by from each layer to the one before it; 1 for the same in all.
    pub layer_decay: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Names or patterns of names of weights without weight decay, in place of biases and normalizations: `["*.bias", "*LayerNorm*"]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_decay: Option<Vec<String>>,
    /// Gradients whose norm is larger are scaled down to it; 0 switches this off.
    pub max_grad_norm: f64,
    /// The share of values that dropout leaves out at random, wherever the model has dropout; left out, as the model's configuration says
    /// (`hidden_dropout_prob`, `attention_probs_dropout_prob`, 0.1 in most). 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f32>,
    /// Which weights are trained: `all`, `{ last_layers: 2 }`, `{ except: [embeddings] }`, `{ only: ["encoder.layer.5.*"] }`. The others
    /// cost no backward work.
    pub train: Selection,
    /// Trains low-rank adapters beside linear layers instead of the weights, and merges them at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Steps between evaluations on `eval`, besides those at the end of each epoch; 0 for these alone.
    pub eval_steps: usize,
    /// The figure by which the best weights are chosen: `ndcg@10`, `mrr@10`, `recall@5`, `map@100`, …
    pub metric: Measure,
    /// Evaluations in a row without a better one after which the training ends; 0 for never.
    pub patience: usize,
    /// Steps between checkpoints, from which an interrupted training goes on; 0 for none but when it is interrupted with Ctrl-C. Does not change
    /// the result.
    pub checkpoint_steps: usize,
    /// Where the model runs: `auto` (the first GPU where CUDA can be had, else the processor), `cpu`, `cuda`, `cuda:1`.
    pub device: DeviceChoice,
    /// Prompts in the place of the model's own: `{ query: "query: ", document: "passage: " }`. The first text of an example is taken
    /// for a query, the others for documents. The fine-tuned model keeps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<OtherPrompts>,
    /// Seed of the order of the examples, of dropout, and of what adapters begin with.
    pub seed: u64,
    /// Name of the model that is trained, for the model card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            loss: Loss::default(),
            losses: BTreeMap::new(),
            epochs: 3,
            batch_size: 8,
            mini_batch_tokens: 0,
            precision: Precision::Auto,
            sampler: None,
            mixing: Mixing::default(),
            accumulation: 1,
            lr: 2e-5,
            schedule: Decay::default(),
            warmup_steps: 10,
            warmup_ratio: None,
            lr_groups: Vec::new(),
            layer_decay: 1.0,
            weight_decay: 0.01,
            no_decay: None,
            max_grad_norm: 1.0,
            dropout: None,
            train: Selection::default(),
            lora: None,
            eval_steps: 50,
            metric: Measure::default(),
            patience: 0,
            checkpoint_steps: 100,
            device: DeviceChoice::default(),
            prompts: None,
            seed: 42,
            base_model: None,
        }
    }
}

fn refuse(field: &str, message: impl Into<String>) -> Result<(), ParameterError> {
    Err(ParameterError::new(field, message))
}

impl Train {
    /// The first parameter that is out of its range.
    pub fn check_ranges(&self) -> Result<(), ParameterError> {
        if !(self.lr.is_finite() && self.lr > 0.0 && self.lr < 1.0) {
            return refuse("lr", format!("the learning rate must lie between 0 and 1, for example 2e-5, not {}", self.lr));
        }
        for (field, what, value) in [
            ("weight_decay", "the weight decay", self.weight_decay),
            ("max_grad_norm", "the largest gradient norm", self.max_grad_norm),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(field, format!("{what} must not be negative, but is {value}"));
            }
        }
        for (field, value) in [("epochs", self.epochs), ("batch_size", self.batch_size), ("accumulation", self.accumulation)] {
            if value == 0 {
                return refuse(field, format!("`{field}` must be at least 1"));
            }
        }
        if let Some(ratio) = self.warmup_ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
            return refuse("warmup_ratio", format!("the share of warm-up steps must lie between 0 and 1, not {ratio}"));
        }
        if !(self.layer_decay > 0.0 && self.layer_decay <= 1.0) {
            return refuse("layer_decay", format!("`layer_decay` must be above 0 and at most 1, not {}", self.layer_decay));
        }
        if let Some(share) = self.dropout.filter(|share| !(0.0..1.0).contains(share)) {
            return refuse("dropout", format!("the share that is left out must be at least 0 and below 1, not {share}"));
        }
        self.check_choice()?;
        prompts::check(self.prompts.as_ref())?;
        for (place, loss) in self.all_losses() {
            loss.formula().check().or_else(|bad| refuse(&format!("{place}.{}", bad.field), bad.message))?;
        }
        Ok(())
    }

    /// Every loss, and the parameter that it is.
    pub fn all_losses(&self) -> impl Iterator<Item = (String, &Loss)> {
        let others = self.losses.iter().map(|(name, loss)| (format!("losses.{name}"), loss));
        std::iter::once(("loss".to_owned(), &self.loss)).chain(others)
    }

    /// Patterns, and what excludes each other.
    fn check_choice(&self) -> Result<(), ParameterError> {
        for (at, RateGroup { pattern, factor }) in self.lr_groups.iter().enumerate() {
            if !(factor.is_finite() && *factor >= 0.0) {
                return refuse(&format!("lr_groups[{at}].factor"), format!("a factor must not be negative, but is {factor}"));
            }
            Pattern::parse(pattern).map(|_| ()).or_else(|message| refuse(&format!("lr_groups[{at}].match"), message))?;
        }
        let (field, texts) = match &self.train {
            Selection::Except(texts) => ("train.except", texts.as_slice()),
            Selection::Only(texts) => ("train.only", texts.as_slice()),
            Selection::All | Selection::LastLayers(_) => ("", &[][..]),
        };
        let exempt = self.no_decay.iter().flatten().enumerate().map(|(at, text)| ("no_decay", at, text));
        for (field, at, text) in texts.iter().enumerate().map(|(at, text)| (field, at, text)).chain(exempt) {
            Pattern::parse(text).map(|_| ()).or_else(|message| refuse(&format!("{field}[{at}]"), message))?;
        }
        let Some(lora) = &self.lora else { return Ok(()) };
        if self.train != Selection::All {
            return refuse("train", "`train` and `lora` exclude each other: with `lora`, adapters alone are trained");
        }
        lora.check().or_else(|(field, message)| refuse(&format!("lora.{field}"), message))
    }

    pub fn settings(&self) -> Settings {
        Settings {
            choice: Choice {
                train: self.train.clone(),
                lora: self.lora.clone(),
                dropout: self.dropout.map_or(Dropout::Model, Dropout::Share),
                seed: self.seed,
                mini_batch_tokens: self.mini_batch_tokens,
                precision: self.precision,
            },
            epochs: self.epochs,
            accumulation: self.accumulation,
            lr: self.lr,
            treatments: Treatments {
                weight_decay: self.weight_decay,
                no_decay: self.no_decay.clone(),
                rates: self.lr_groups.clone(),
                layer_decay: self.layer_decay,
            },
            decay: self.schedule,
            warmup: self.warmup_ratio.map_or(Warmup::Steps(self.warmup_steps), Warmup::Ratio),
            max_grad_norm: self.max_grad_norm,
            eval_steps: self.eval_steps,
            patience: self.patience,
            checkpoint_steps: self.checkpoint_steps,
            seed: self.seed,
        }
    }

    /// What a reader of the model card should know: the usual settings, and others that are not as usual.
    pub fn described(&self) -> Vec<(String, String)> {
        let usual = Train::default();
        let setting = |name: &str, value: String| (name.to_owned(), value);
        let mut settings = vec![
            setting("epochs", self.epochs.to_string()),
            setting("batch_size", self.batch_size.to_string()),
            setting("lr", format!("{:e}", self.lr)),
            setting("schedule", self.schedule.name().to_owned()),
            match self.warmup_ratio {
                Some(ratio) => setting("warmup_ratio", ratio.to_string()),
                None => setting("warmup_steps", self.warmup_steps.to_string()),
            },
            setting("weight_decay", self.weight_decay.to_string()),
            setting("max_grad_norm", self.max_grad_norm.to_string()),
            setting("seed", self.seed.to_string()),
        ];
        let mut unusual = |is: bool, name: &str, value: String| settings.extend(is.then(|| setting(name, value)));
        unusual(self.sampler.is_some(), "sampler", json(&self.sampler));
        unusual(self.mixing != usual.mixing, "mixing", json(&self.mixing));
        unusual(self.mini_batch_tokens != usual.mini_batch_tokens, "mini_batch_tokens", self.mini_batch_tokens.to_string());
        unusual(self.accumulation != usual.accumulation, "accumulation", self.accumulation.to_string());
        if let Some(share) = self.dropout {
            unusual(true, "dropout", share.to_string());
        }
        unusual(self.train != usual.train, "train", json(&self.train));
        if let Some(lora) = &self.lora {
            unusual(true, "lora", json(lora));
        }
        unusual(self.layer_decay < usual.layer_decay, "layer_decay", self.layer_decay.to_string());
        unusual(!self.lr_groups.is_empty(), "lr_groups", json(&self.lr_groups));
        unusual(self.no_decay.is_some(), "no_decay", json(&self.no_decay));
        unusual(self.patience != usual.patience, "patience", self.patience.to_string());
        settings
    }
}

/// A setting as it is written.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::stage::testing::refused;
    use crate::stage::train::KIND;

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |parameters| refused(&KIND, parameters);
        insta::assert_snapshot!(refused(json!({ "lr": 2 })), @"lr: the learning rate must lie between 0 and 1, for example 2e-5, not 2");
        insta::assert_snapshot!(refused(json!({ "weight_decay": -1 })), @"weight_decay: the weight decay must not be negative, but is -1");
        insta::assert_snapshot!(refused(json!({ "accumulation": 0 })), @"accumulation: `accumulation` must be at least 1");
        insta::assert_snapshot!(refused(json!({ "warmup_ratio": 10 })), @"warmup_ratio: the share of warm-up steps must lie between 0 and 1, not 10");
        insta::assert_snapshot!(refused(json!({ "schedule": "polynomial" })), @"schedule: unknown variant `polynomial`, expected one of `linear`, `cosine`, `constant`");
        insta::assert_snapshot!(refused(json!({ "layer_decay": 0 })), @"layer_decay: `layer_decay` must be above 0 and at most 1, not 0");
        insta::assert_snapshot!(refused(json!({ "dropout": 1 })), @"dropout: the share that is left out must be at least 0 and below 1, not 1");
        insta::assert_snapshot!(refused(json!({ "train": "none" })), @"train: unknown variant `none`, expected one of `all`, `last_layers`, `except`, `only`");
        insta::assert_snapshot!(refused(json!({ "train": { "except": ["a", "b["] } })), @"train.except[1]: `b[` is no pattern of names: unclosed character class; missing ']'");
        insta::assert_snapshot!(refused(json!({ "lr_groups": [{ "match": "embeddings", "factor": -1 }] })), @"lr_groups[0].factor: a factor must not be negative, but is -1");
        insta::assert_snapshot!(refused(json!({ "lr_groups": [{ "match": "", "factor": 1 }] })), @"lr_groups[0].match: a pattern of names is empty; write one as `encoder.layer.5.*`");
        insta::assert_snapshot!(refused(json!({ "lora": { "rank": 0 } })), @"lora.rank: the rank must be at least 1");
        insta::assert_snapshot!(refused(json!({ "loss": { "name": "mnrl", "scale": 0 } })), @"loss.scale: `scale` must be above 0, not 0");
        insta::assert_snapshot!(refused(json!({ "losses": { "a": { "name": "triplet", "margin": -1 } } })), @"losses.a.margin: `margin` must be above 0, not -1");
        insta::assert_snapshot!(refused(json!({ "lora": {}, "train": { "last_layers": 1 } })), @"train: `train` and `lora` exclude each other: with `lora`, adapters alone are trained");
    }
}
