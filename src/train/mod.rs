//! Training: losses (one file each), the graph of a step, the optimizer, schedules, batches and the loop.

pub mod batches;
pub mod loss;
pub mod optimizer;
pub mod schedule;
pub mod step;
pub mod trainer;

pub use loss::Loss;
pub use trainer::{Evaluation, Settings, Trained, train};

#[cfg(test)]
mod reference_tests;
