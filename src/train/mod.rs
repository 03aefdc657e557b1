//! Training: losses (one file each), the graph of a step, the optimizer, schedules, batches and the loop.

pub mod batches;
pub mod checkpoint;
pub mod lora;
pub mod loss;
pub mod optimizer;
pub mod plan;
pub mod progress;
pub mod schedule;
pub mod select;
pub mod step;
pub mod trainer;
pub mod treatment;

pub use loss::Loss;
pub use progress::Evaluation;
pub use trainer::{Settings, Trained, train};

#[cfg(test)]
mod reference_tests;
