//! Model directories: configuration, weights, tokenizer, pooling, the encoders' graphs, and encoding.

mod activation;
pub mod architecture;
pub mod batch;
mod bert;
pub mod builder;
pub mod card;
pub mod catalogue;
pub mod config;
pub mod directory;
mod distilbert;
pub mod embedder;
pub mod export;
mod gte;
pub mod imported;
pub mod layout;
mod modernbert;
pub mod module;
mod mpnet;
mod nomic;
pub mod pooling;
pub mod prompts;
mod roberta;
mod rotary;
pub mod sentence;
pub mod settings;
pub mod source;
#[cfg(test)]
pub(crate) mod testing;
pub mod tokenizer;
pub mod weights;

#[cfg(test)]
mod encoder_tests;
#[cfg(test)]
mod imported_tests;
#[cfg(test)]
mod reference_tests;
