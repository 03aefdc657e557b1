//! Why a stage runs.

use std::fmt;

use serde::Serialize;

use super::rows::Rows;
use crate::run::Change;

/// Why a stage runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// It was asked to, with `--force`.
    Forced,
    /// It is this stage or comes after it, with `--from`.
    From { stage: String },
    /// It never ran to its end in this store.
    New,
    /// Something that goes into it is not what it was the last time.
    Changed {
        #[serde(flatten)]
        change: Change,
        /// The stage that feeds the input that changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// How much of that input changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        rows: Option<Rows>,
    },
    /// Nothing changed, but what it yielded is no longer in the store.
    Lost,
    /// Nothing changed, but these objects, which it yielded, hold other bytes than they should.
    Damaged { objects: Vec<String> },
    /// What feeds this input runs, and may yield something else.
    Upstream { port: String, stage: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Forced => f.write_str("forced by `--force`"),
            Reason::New => f.write_str("it has no earlier result"),
            Reason::From { stage } => write!(f, "forced by `--from {stage}`"),
            Reason::Changed { change, from, rows } => {
                write!(f, "{change}")?;
                // A stage is often called as the port that it feeds.
                let same = |stage: &String| matches!(change, Change::Input { port } if port == stage);
                if let Some(stage) = from.as_ref().filter(|stage| !same(stage)) {
                    write!(f, " (from `{stage}`)")?;
                }
                rows.as_ref().map_or(Ok(()), |rows| write!(f, ": {rows}"))
            }
            Reason::Lost => f.write_str("its result was collected, or the store was cleared"),
            Reason::Damaged { objects } => write!(f, "its result is damaged (object {})", objects.join(", ")),
            Reason::Upstream { port, stage } => write!(f, "input `{port}` comes from `{stage}`, which runs"),
        }
    }
}
