//! The record of a run: its directory, its manifest, its logs and metrics; finding, choosing, naming and removing runs, and comparing
//! them.

mod base;
mod catalogue;
mod diff;
mod field;
mod filter;
mod host;
mod queries;
mod record;
mod recorder;
mod removal;
mod summary;
mod tags;

pub use catalogue::{Runs, SelectError, is_alive};
pub use diff::{Change, Compared, Diff, MetricChange, StageChanges};
pub use field::{Fact, Field, FieldError, Found};
pub use filter::{Condition, FilterError, Sort, choose, sort};
pub use host::{Git, Host};
pub use queries::{MovedQueries, MovedQuery, QueriesError, TopHit};
pub use record::{Environment, RunRecord, RunStatus, StageRecord, StageStatus};
pub use recorder::{REFRESH, Recorder, RecorderError};
pub use removal::{RemoveError, finish as finish_removals, remove};
pub use summary::Summary;
pub use tags::{TagError, read as tags_of, tag, tags, untag};
