//! Training: losses (one file each), data sets and samplers, the graphs of a step, the optimizer, schedules and the loop.

pub mod checkpoint;
pub mod data;
pub mod device;
mod gradcache;
pub mod graphs;
pub mod lora;
pub mod loss;
pub mod memory;
pub mod optimizer;
pub mod plan;
pub mod progress;
pub mod sampling;
pub mod schedule;
pub mod select;
pub mod step;
pub mod trainer;
pub mod treatment;

pub use loss::Loss;
pub use progress::Evaluation;
pub use trainer::{Settings, Trained, train};

#[cfg(test)]
mod imported_tests;
#[cfg(test)]
mod partial_tests;
#[cfg(test)]
mod reference_tests;
