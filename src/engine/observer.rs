//! What is told while a pipeline runs.

use crate::run::StageRecord;
use crate::stage::Progress;

/// Something that happened to a stage.
#[derive(Debug)]
pub enum Event<'a> {
    /// It begins, for these reasons.
    Started {
        reasons: &'a [String],
    },
    /// Another process is computing the same, and this one waits for the result.
    Waiting,
    Progress(&'a Progress),
    /// A line for its log.
    Log(&'a str),
    /// A line that people should see now.
    Warning(&'a str),
    /// It ended: done, cached, failed, interrupted or skipped.
    Ended(&'a StageRecord),
}

/// Who is told.
pub trait Observer: Send + Sync {
    /// Called from the threads of the stages.
    fn event(&self, stage: &str, event: &Event);
}
