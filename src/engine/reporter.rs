//! Where the words of a running stage go.

use serde_json::Value;

use super::{Event, Observer};
use crate::run::Recorder;
use crate::stage::{Progress, Reporter};

/// Passes a stage's words on to the run's directory and to the observer.
pub(super) struct StageReporter<'a> {
    pub stage: &'a str,
    pub recorder: &'a Recorder,
    pub observer: &'a dyn Observer,
}

impl Reporter for StageReporter<'_> {
    fn progress(&self, progress: Progress) {
        self.observer.event(self.stage, &Event::Progress(&progress));
    }

    fn log(&self, line: &str) {
        self.recorder.log(self.stage, line);
        self.observer.event(self.stage, &Event::Log(line));
    }

    fn warn(&self, line: &str) {
        self.recorder.log(self.stage, &format!("warning: {line}"));
        self.observer.event(self.stage, &Event::Warning(line));
    }

    fn event(&self, event: Value) {
        self.recorder.event(Some(self.stage), event);
    }
}
