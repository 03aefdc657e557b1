//! Answers from retrieved passages: prompts, a client for language models, and answers quoted from the passages themselves.

pub mod chat;
#[cfg(test)]
mod chat_tests;
pub mod endpoint;
pub mod extract;
pub mod prompt;
pub mod secret;
#[cfg(test)]
pub(crate) mod testing;
