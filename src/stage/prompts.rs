//! The parameter `prompts`, which several stages have.

use super::ParameterError;
use crate::model::prompts::OtherPrompts;

/// Checks the parameter.
///
/// # Errors
/// Documents have two prompts.
pub fn check(prompts: Option<&OtherPrompts>) -> Result<(), ParameterError> {
    prompts.map_or(Ok(()), OtherPrompts::check).map_err(|(field, message)| ParameterError::new(field, message))
}
