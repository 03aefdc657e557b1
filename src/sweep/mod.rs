//! Sweeps: one run for each combination of values, what became of each, and which is best. Knows which points there are, not how they are
//! run; `cli` runs them.

mod axis;
mod points;
mod record;
mod summary;

pub use axis::{Axis, AxisError, Choices};
pub use points::points;
pub use record::{PointRecord, PointStatus, Random, Sweep, SweepRecord, open, show};
pub use summary::{Asked, Figure, Group, Ranked, Summary, label};

/// A sweep that cannot be made, found or shown, and the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SweepError(pub String);
