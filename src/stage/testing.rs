//! Running one stage in a test.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;

use super::{Context, Outcome, Progress, Reporter, StageKind};
use crate::cancel::Cancel;
use crate::runtime::testing::downloads;

/// A folder with a stage's outputs, and what it logged.
pub struct Bench {
    pub folder: TempDir,
    pub cancel: Cancel,
    log: Lines,
}

#[derive(Default)]
struct Lines(Mutex<String>);

impl Reporter for Lines {
    fn progress(&self, _: Progress) {}

    fn log(&self, line: &str) {
        *self.0.lock().unwrap() += &format!("{line}\n");
    }

    fn warn(&self, line: &str) {
        self.log(line);
    }

    fn event(&self, _: Value) {}
}

impl Bench {
    pub fn new() -> Self {
        Bench { folder: TempDir::new().unwrap(), cancel: Cancel::default(), log: Lines::default() }
    }

    /// What a stage of `kind` sees.
    pub fn context(&self, kind: &StageKind, inputs: &[(&str, PathBuf)]) -> Context<'_> {
        let root = self.folder.path();
        Context {
            inputs: inputs.iter().map(|(port, path)| ((*port).to_owned(), path.clone())).collect(),
            outputs: kind.outputs.iter().map(|port| (port.name.to_owned(), root.join(port.file))).collect(),
            base: root,
            downloads: Box::leak(downloads().into_boxed_path()),
            scratch: root,
            reporter: &self.log,
            cancel: &self.cancel,
        }
    }

    /// Configures and runs a stage.
    pub fn run(&self, kind: &StageKind, parameters: Value, inputs: &[(&str, PathBuf)]) -> Result<Outcome> {
        (kind.configure)(parameters)?.stage.run(&self.context(kind, inputs))
    }

    /// The text of an output.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    pub fn logged(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }
}
