//! The encoders that can be built, by `model_type` of their `config.json`. To add one: a file beside this and a line here.

use std::fmt::Debug;

use super::builder::Builder;
use super::settings::Settings;
use super::{bert, distilbert, gte, modernbert, mpnet, nomic, roberta};
use crate::onnx::Value;

/// An encoder as its `config.json` describes it.
pub trait Encoder: Debug + Send + Sync {
    /// The length of a token vector.
    fn hidden_size(&self) -> usize;

    /// Tokens of the longest text it takes, the special ones included.
    fn max_tokens(&self) -> usize;

    /// Whether it gives one vector a text, `[rows, hidden]`, instead of token vectors.
    fn pooled(&self) -> bool {
        false
    }

    /// Builds it: token vectors `[tokens, hidden]`.
    fn build(&self, b: &Builder) -> Value;
}

/// Reads an encoder's own settings. An error says what is wrong with which field.
type Read = fn(&Settings) -> Result<Box<dyn Encoder>, String>;

const ARCHITECTURES: &[(&str, Read)] = &[
    ("bert", bert::read),
    ("camembert", roberta::read),
    ("distilbert", distilbert::read),
    ("gte", gte::read),
    ("modernbert", modernbert::read),
    ("mpnet", mpnet::read),
    ("new", gte::read),
    ("nomic_bert", nomic::read),
    ("roberta", roberta::read),
    ("xlm-roberta", roberta::read),
];

/// Whether encoders of this `model_type` can be built.
pub fn knows(model_type: &str) -> bool {
    ARCHITECTURES.iter().any(|(name, _)| *name == model_type)
}

/// The encoder that `settings` describe.
///
/// # Errors
/// It is of no kind that can be built, or a field is missing, wrong or not supported; the message names it.
pub fn read(model_type: &str, settings: &Settings) -> Result<Box<dyn Encoder>, String> {
    let Some((_, read)) = ARCHITECTURES.iter().find(|(name, _)| *name == model_type) else {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
        return Err(format!("encoders of `model_type` `{model_type}` cannot be built; known: `{}`", known.join("`, `")));
    };
    read(settings)
}
