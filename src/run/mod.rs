//! The record of a run: its directory, its manifest, its logs and metrics; finding runs, and comparing two.

mod catalogue;
mod diff;
mod host;
mod record;
mod recorder;

pub use catalogue::{Runs, SelectError};
pub use diff::{Change, Compared, Diff, MetricChange, StageChanges};
pub use host::{Git, Host};
pub use record::{Environment, RunRecord, RunStatus, StageRecord, StageStatus};
pub use recorder::{REFRESH, Recorder, RecorderError};
