//! How the token vectors of a text become one vector.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::builder::Builder;
use super::config::{ModelError, read_json};
use crate::onnx::{DataType, Dim, Value as GraphValue};
use crate::shape;

/// One way of pooling, with the names that sentence-transformers gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The first token's vector.
    Cls,
    /// The largest of each component.
    Max,
    Mean,
    /// The sum divided by the root of the number of tokens.
    MeanSqrtLenTokens,
    /// The mean with weights 1, 2, 3, … along the text.
    WeightedMean,
    /// The last token's vector.
    LastToken,
}

/// In the order in which sentence-transformers sets them side by side: the mode, its name, the older boolean, and the graph input.
const MODES: [(Mode, &str, &str, &str); 6] = [
    (Mode::Cls, "cls", "pooling_mode_cls_token", "pool_cls"),
    (Mode::Max, "max", "pooling_mode_max_tokens", "pool_max"),
    (Mode::Mean, "mean", "pooling_mode_mean_tokens", "pool_mean"),
    (Mode::MeanSqrtLenTokens, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", "pool_mean_sqrt_len_tokens"),
    (Mode::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens", "pool_weightedmean"),
    (Mode::LastToken, "lasttoken", "pooling_mode_lasttoken", "pool_lasttoken"),
];

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    /// What stands side by side in the vector.
    modes: Vec<Mode>,
    /// Whether the tokens of a prompt count.
    include_prompt: bool,
}

impl Default for Pooling {
    /// The mean, which is what an encoder without modules gets.
    fn default() -> Self {
        Pooling { modes: vec![Mode::Mean], include_prompt: true }
    }
}

impl Pooling {
    /// Reads `1_Pooling/config.json`: `pooling_mode` (sentence-transformers 5.4 and later) or the older booleans.
    ///
    /// # Errors
    /// The file is missing or wrong, or names no way of pooling that is known.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let config: Map<String, Value> = read_json(path)?;
        Pooling::from_config(&config).map_err(|message| ModelError::invalid(path, message))
    }

    fn from_config(config: &Map<String, Value>) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("`pooling_mode` names {value}"));
        let on = |name: &str| config.get(name).and_then(Value::as_bool).unwrap_or(false);
        let names: Vec<String> = match config.get("pooling_mode") {
            Some(Value::Array(names)) => names.iter().map(text).collect::<Result<_, _>>()?,
            Some(name) => vec![text(name)?],
            None => MODES.iter().filter(|(_, _, older, _)| on(older)).map(|(_, name, ..)| (*name).to_owned()).collect(),
        };
        if names.is_empty() {
            return Err("no pooling mode is switched on".into());
        }
        let mode = |name: &String| {
            let known = MODES.iter().map(|(_, name, ..)| *name).collect::<Vec<_>>().join("`, `");
            let found = MODES.iter().find(|(_, known, ..)| known == name).map(|(mode, ..)| *mode);
            found.ok_or_else(|| format!("pooling `{name}` is not supported; known: `{known}`"))
        };
        let include_prompt = config.get("include_prompt").and_then(Value::as_bool).unwrap_or(true);
        Ok(Pooling { modes: names.iter().map(mode).collect::<Result<_, _>>()?, include_prompt })
    }

    /// Its `config.json` for token vectors of this length, with `pooling_mode` and the older booleans both.
    pub fn config(&self, hidden: usize) -> Value {
        let names: Vec<&str> = self.modes.iter().map(|mode| mode.entry().1).collect();
        let mut config = Map::from_iter([
            ("word_embedding_dimension".to_owned(), json!(hidden)),
            ("pooling_mode".to_owned(), if let [name] = names[..] { json!(name) } else { json!(names) }),
            ("include_prompt".to_owned(), json!(self.include_prompt)),
        ]);
        config.extend(MODES.iter().map(|(mode, _, older, _)| ((*older).to_owned(), json!(self.modes.contains(mode)))));
        Value::Object(config)
    }

    /// For people: `mean`, `mean + max`.
    pub fn name(&self) -> String {
        self.modes.iter().map(|mode| mode.entry().1).collect::<Vec<_>>().join(" + ")
    }

    /// How many vectors stand side by side.
    pub fn width(&self) -> usize {
        self.modes.len()
    }

    /// Token vectors `[tokens, hidden]` → `[rows, hidden · width]`.
    pub(super) fn build(&self, b: &Builder, tokens: GraphValue) -> GraphValue {
        let (g, hidden) = (b.g, b.g.last(tokens));
        let pooled: Vec<GraphValue> = self
            .modes
            .iter()
            .map(|mode| {
                let input = mode.entry().3;
                if *mode == Mode::Max {
                    let counts = g.input(input, DataType::F32, shape!["rows", "seq", 1]);
                    let spread = b.layout.spread(g, tokens, hidden);
                    let counted = g.select(g.greater(counts, g.scalar(0.0)), spread, g.scalar(f32::MIN));
                    g.drop_axis(g.largest(counted, 1), 1)
                } else {
                    g.matmul(g.input(input, DataType::F32, shape!["rows", "tokens"]), tokens, false, false, 1.0)
                }
            })
            .collect();
        match pooled[..] {
            [one] => one,
            _ => g.concat(&pooled, -1, Dim::Fixed(hidden * pooled.len())),
        }
    }

    /// The graph inputs for texts of these lengths, each with the tokens of its prompt: name, shape, values.
    pub(super) fn inputs(&self, texts: &[(usize, usize)], seq: usize) -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
        let (rows, tokens) = (texts.len(), texts.iter().map(|(length, _)| length).sum::<usize>());
        let mut inputs = Vec::with_capacity(self.modes.len());
        for mode in &self.modes {
            let padded = *mode == Mode::Max;
            let (shape, stride) = if padded { (vec![rows, seq, 1], seq) } else { (vec![rows, tokens], tokens) };
            let mut values = vec![0.0; rows * stride];
            let mut at = 0;
            for (row, &(length, prompt)) in texts.iter().enumerate() {
                // Of a text that is nothing but prompt, the last token counts.
                let skipped = if self.include_prompt { 0 } else { prompt.min(length.saturating_sub(1)) };
                let start = row * stride + if padded { 0 } else { at };
                mode.weigh(skipped, &mut values[start..start + length]);
                at += length;
            }
            inputs.push((mode.entry().3, shape, values));
        }
        inputs
    }
}

impl Mode {
    fn entry(self) -> (Mode, &'static str, &'static str, &'static str) {
        MODES.into_iter().find(|(mode, ..)| *mode == self).unwrap_or(MODES[2])
    }

    /// The weight of each token of a text of which the first `skipped` do not count.
    fn weigh(self, skipped: usize, weights: &mut [f32]) {
        let count = (weights.len() - skipped) as f32;
        let counted = weights.iter_mut().enumerate().skip(skipped);
        match self {
            Mode::Cls => counted.take(1).for_each(|(_, w)| *w = 1.0),
            Mode::LastToken => counted.last().into_iter().for_each(|(_, w)| *w = 1.0),
            Mode::Max => counted.for_each(|(_, w)| *w = 1.0),
            Mode::Mean => counted.for_each(|(_, w)| *w = 1.0 / count),
            Mode::MeanSqrtLenTokens => counted.for_each(|(_, w)| *w = 1.0 / count.sqrt()),
            Mode::WeightedMean => {
                let sum: usize = (skipped + 1..=skipped + count as usize).sum();
                counted.for_each(|(i, w)| *w = (i + 1) as f32 / sum as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: Value) -> Result<Pooling, String> {
        Pooling::from_config(config.as_object().unwrap())
    }

    #[test]
    fn every_way_is_read_and_written_as_it_was() {
        for (mode, name, older, _) in MODES {
            let pooling = Pooling { modes: vec![mode], include_prompt: false };
            assert_eq!(read(json!({ "pooling_mode": name, "include_prompt": false })), Ok(pooling.clone()));
            assert_eq!(read(json!({ older: true, "pooling_mode_other": false, "include_prompt": false })), Ok(pooling.clone()));
            assert_eq!(read(pooling.config(8)), Ok(pooling));
        }
        let both = Pooling { modes: vec![Mode::Cls, Mode::Mean], include_prompt: true };
        assert_eq!(read(json!({ "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true })), Ok(both.clone()));
        assert_eq!((both.name().as_str(), read(both.config(8))), ("cls + mean", Ok(both.clone())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        insta::assert_snapshot!(read(json!({})).unwrap_err(), @"no pooling mode is switched on");
        insta::assert_snapshot!(read(json!({ "pooling_mode": "median" })).unwrap_err(), @"pooling `median` is not supported; known: `cls`, `max`, `mean`, `mean_sqrt_len_tokens`, `weightedmean`, `lasttoken`");
        insta::assert_snapshot!(read(json!({ "pooling_mode": [3] })).unwrap_err(), @"`pooling_mode` names 3");
    }

    #[test]
    fn an_empty_text_weighs_nothing() {
        let pooling = Pooling { include_prompt: false, ..Pooling::default() };
        assert_eq!(pooling.inputs(&[(0, 3), (2, 9)], 2)[0].2, [0.0, 0.0, 0.0, 1.0]);
    }
}
