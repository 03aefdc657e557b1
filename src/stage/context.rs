//! What a stage sees while it is keyed and while it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Allowed, Outside};
use crate::cancel::Cancel;

/// What a stage sees while its key is computed.
pub struct Surroundings<'a> {
    /// The folder of the pipeline file; relative paths in parameters start there.
    pub base: &'a Path,
    /// Where paths may lead.
    pub allowed: &'a Allowed,
    /// Where downloads are kept (ONNX Runtime, models), shared by all runs.
    pub downloads: &'a Path,
    /// Digests a file's content, without reading it again when size, mtime and inode are unchanged.
    pub digest_file: &'a (dyn Fn(&Path) -> Result<String> + Sync),
}

impl Surroundings<'_> {
    /// Resolves a path of the parameters.
    ///
    /// # Errors
    /// It leads out of the project, and that is not allowed.
    pub fn path(&self, path: &str) -> Result<PathBuf, Outside> {
        let path = self.base.join(path);
        self.allowed.check(&path).map(|()| path)
    }
}

/// What a stage sees while it runs.
pub struct Context<'a> {
    /// Port name → path of the artifact, read-only. Of a port that takes many, `PORT[LABEL]` → path, for each of them.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Port name → path to create (a file, or a folder for kinds that are folders).
    pub outputs: BTreeMap<String, PathBuf>,
    /// The folder of the pipeline file; relative paths in parameters start there.
    pub base: &'a Path,
    /// Where paths may lead.
    pub allowed: &'a Allowed,
    /// Where downloads are kept (ONNX Runtime, models), shared by all runs.
    pub downloads: &'a Path,
    /// An empty folder for this run of the stage alone, on the disk of the store; removed afterwards.
    pub scratch: &'a Path,
    /// A folder of this stage's key alone, which outlives an interruption: the same stage finds there what it left. It is there once the
    /// stage makes it, and removed when the stage has succeeded. What is kept there must not change the result.
    pub checkpoints: &'a Path,
    pub reporter: &'a dyn Reporter,
    pub cancel: &'a Cancel,
}

impl Context<'_> {
    /// The path of a required input.
    pub fn input(&self, port: &str) -> Result<&Path> {
        self.optional_input(port).with_context(|| format!("input `{port}` is not connected"))
    }

    /// The path of an optional input.
    pub fn optional_input(&self, port: &str) -> Option<&Path> {
        self.inputs.get(port).map(PathBuf::as_path)
    }

    /// The labels and paths of an input that takes many, in the order of the labels.
    pub fn inputs(&self, port: &str) -> Vec<(&str, &Path)> {
        let label = |name: &'_ str| -> Option<std::ops::Range<usize>> {
            let start = name.strip_prefix(port)?.strip_prefix('[').map(|_| port.len() + 1)?;
            name.ends_with(']').then(|| start..name.len() - 1)
        };
        let labelled = self.inputs.iter().filter_map(|(name, path)| Some((name.get(label(name)?)?, path.as_path())));
        labelled.collect()
    }

    /// Where to write an output.
    pub fn output(&self, port: &str) -> Result<&Path> {
        self.outputs.get(port).map(PathBuf::as_path).with_context(|| format!("there is no output `{port}`"))
    }

    /// Resolves a path of the parameters.
    ///
    /// # Errors
    /// It leads out of the project, and that is not allowed.
    pub fn path(&self, path: &str) -> Result<PathBuf, Outside> {
        let path = self.base.join(path);
        self.allowed.check(&path).map(|()| path)
    }

    /// Says how far the stage is.
    pub fn progress(&self, done: u64, total: u64, unit: &'static str, message: impl Into<String>) {
        self.reporter.progress(Progress { done, total, unit, message: message.into() });
    }
}

/// How far a stage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    /// 0 when it is not known.
    pub total: u64,
    /// Plural noun: `steps`, `texts`, `bytes`.
    pub unit: &'static str,
    /// Shown beside the bar: `loss 4.93  rate 1.8e-05`.
    pub message: String,
}

/// Where a stage's words go: the terminal, the run's `logs/STAGE.log` and `events.jsonl`.
pub trait Reporter: Send + Sync {
    fn progress(&self, progress: Progress);
    /// A line for the stage's log.
    fn log(&self, line: &str);
    /// A line for the log and the terminal.
    fn warn(&self, line: &str);
    /// A structured event for `events.jsonl` (a training step, an evaluation); the object gets `time` and `stage` added.
    fn event(&self, event: serde_json::Value);
}
