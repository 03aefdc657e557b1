//! The encoders that can be built, by `model_type` of their `config.json`. To add one: a file beside this and a line here.

use super::bert;
use super::builder::Builder;
use super::config::EncoderConfig;
use crate::onnx::Value;

/// Builds the encoder: token vectors `[tokens, hidden]`.
type Build = fn(&Builder, &EncoderConfig) -> Value;

const ARCHITECTURES: &[(&str, Build)] = &[("bert", bert::build)];

/// The names of the encoders.
pub fn known() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect()
}

/// Builds the encoder that `config` describes, and returns its token vectors `[tokens, hidden]`; `None` when its `model_type`
/// is not known.
pub fn build(builder: &Builder, config: &EncoderConfig) -> Option<Value> {
    let (_, build) = ARCHITECTURES.iter().find(|(name, _)| *name == config.model_type)?;
    Some(build(builder, config))
}
