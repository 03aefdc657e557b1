//! retune fine-tunes text-embedding models for retrieval from one YAML pipeline. See `docs/` for the topics and `README.md` for
//! the way in. The library exists for the program and its tests; it promises no stable interface.

pub mod artifact;
pub mod cancel;
pub mod cli;
pub mod engine;
pub mod evaluation;
pub mod generation;
pub mod model;
pub mod onnx;
pub mod pipeline;
pub mod report;
pub mod retrieval;
pub mod run;
pub mod runtime;
pub mod schemas;
pub mod stage;
pub mod starter;
pub mod store;
pub mod sweep;
pub mod text;
pub mod train;
