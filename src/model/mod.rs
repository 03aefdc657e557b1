//! Model directories: configuration, weights, tokenizer, pooling, the encoders' graphs, and encoding.

pub mod architecture;
mod bert;
pub mod card;
pub mod catalogue;
pub mod config;
pub mod directory;
pub mod embedder;
pub mod export;
pub mod sentence;
pub mod source;
#[cfg(test)]
pub(crate) mod testing;
pub mod tokenizer;
pub mod weights;

#[cfg(test)]
mod reference_tests;
