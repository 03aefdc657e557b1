//! Measuring rankings: measures, conventions, and a model's ranking of judged queries.

mod measure;
mod metrics;
mod rank;
pub mod significance;

pub use measure::{Convention, Measure, Quantity};
pub use metrics::{Evaluation, score};
pub use rank::{Settings, evaluate};
