//! Running one stage in a test.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use super::{Allowed, Context, External, Outcome, Progress, Reporter, StageKind, Surroundings};
use crate::artifact::{Chunk, jsonl};
use crate::cancel::Cancel;
use crate::runtime::testing::downloads;

/// A folder with a stage's outputs, and what it logged.
pub struct Bench {
    pub folder: TempDir,
    pub cancel: Cancel,
    pub allowed: Allowed,
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
        Bench { folder: TempDir::new().unwrap(), cancel: Cancel::default(), allowed: Allowed::anywhere(), log: Lines::default() }
    }

    /// What a stage of `kind` sees.
    pub fn context(&self, kind: &StageKind, inputs: &[(&str, PathBuf)]) -> Context<'_> {
        let root = self.folder.path();
        Context {
            inputs: inputs.iter().map(|(port, path)| ((*port).to_owned(), path.clone())).collect(),
            outputs: kind.outputs.iter().map(|port| (port.name.to_owned(), root.join(port.file))).collect(),
            base: root,
            allowed: &self.allowed,
            downloads: Box::leak(downloads().into_boxed_path()),
            scratch: root,
            checkpoints: Box::leak(root.join("checkpoints").into_boxed_path()),
            reporter: &self.log,
            cancel: &self.cancel,
        }
    }

    /// Configures and runs a stage.
    pub fn run(&self, kind: &StageKind, parameters: Value, inputs: &[(&str, PathBuf)]) -> Result<Outcome> {
        (kind.configure)(parameters)?.stage.run(&self.context(kind, inputs))
    }

    /// Configures and runs a stage; inputs are named by files of the folder.
    pub fn run_here(&self, kind: &StageKind, parameters: Value, inputs: &[(&str, &str)]) -> Result<Outcome> {
        let inputs: Vec<_> = inputs.iter().map(|(port, name)| (*port, self.path().join(name))).collect();
        self.run(kind, parameters, &inputs)
    }

    /// The externals of a stage; the "digest" of a file is its size.
    pub fn externals(&self, kind: &StageKind, parameters: Value) -> Result<Vec<External>> {
        let digest = |path: &Path| Ok(format!("{} bytes", std::fs::metadata(path)?.len()));
        let surroundings =
            Surroundings { base: self.path(), allowed: &self.allowed, downloads: self.path(), digest_file: &digest };
        (kind.configure)(parameters)?.stage.externals(&surroundings)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file.
    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path().join(file), text).unwrap();
    }

    /// Writes a JSON Lines file.
    pub fn write_rows<T: Serialize>(&self, file: &str, rows: &[T]) {
        jsonl::write(&self.path().join(file), rows).unwrap();
    }

    /// The rows of an output.
    pub fn rows<T: DeserializeOwned>(&self, file: &str) -> Vec<T> {
        jsonl::read(&self.path().join(file)).unwrap()
    }

    /// The text of an output.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    pub fn logged(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }
}

/// The chunk of `document` that starts at byte `start`.
pub fn chunk(document: &str, title: &str, number: usize, start: usize, text: &str) -> Chunk {
    Chunk {
        id: format!("{document}:{number}"),
        document: document.into(),
        title: title.into(),
        start,
        end: start + text.len(),
        text: text.into(),
    }
}

/// The message, with its field, with which `kind` refuses `parameters`.
pub fn refused(kind: &StageKind, parameters: Value) -> String {
    let error = (kind.configure)(parameters).err().unwrap();
    format!("{}: {error}", error.field)
}
