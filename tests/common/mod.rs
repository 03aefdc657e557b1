//! What the end-to-end tests share: a small project in a folder of its own, and the built program.
#![allow(dead_code, reason = "each test file uses a part of this")]

pub mod tiny;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A pipeline that needs no model.
pub const LIGHT: &str = r#"name: light
stages:
  docs: { uses: load, with: { path: ../docs } }
  chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: 24, chunk_overlap: 4 } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  triplets: { uses: mine, inputs: { judgements: judged }, with: { negatives: 2, seed: 7 } }
"#;

const DOCUMENTS: &[(&str, &str)] = &[
    (
        "bert.md",
        "# BERT\n\nBERT reads a sentence from both sides at once. It is trained by hiding words and guessing them.\n\n\
         A classifier on the first token sorts reviews, and fine-tuning it takes minutes on one card.\n",
    ),
    (
        "docker.md",
        "# Docker\n\nA container shares the kernel of its host and starts in milliseconds. An image is a stack of layers.\n\n\
         A volume keeps data when the container is removed, and a network joins containers by name.\n",
    ),
    (
        "rest.txt",
        "A resource is named by its address, and GET must not change it. PUT may be repeated without harm.\n\n\
         A server answers 429 when a client asks too often, and says when to come back.\n",
    ),
];

const QUERIES: &str = r#"{"_id": "q1", "text": "how is BERT trained", "keywords": ["hiding words"]}
{"_id": "q2", "text": "what keeps data of a removed container", "documents": [{"document": "docker.md", "contains": "A volume keeps data"}]}
{"_id": "q3", "text": "too many requests", "keywords": ["429"]}
"#;

/// A folder with documents, queries and a pipeline.
pub struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// With the pipeline `text`, as `pipelines/p.yaml`.
    pub fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = Project { folder };
        for (name, text) in DOCUMENTS {
            project.write(&format!("docs/{name}"), text);
        }
        project.write("queries.jsonl", QUERIES);
        project.write("pipelines/p.yaml", text);
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The program, in the project's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_retune"));
        command.current_dir(self.folder.path()).args(arguments).env_remove("RUST_BACKTRACE").env_remove("RETUNE_REMOTE");
        command
    }

    /// Runs the program to its end.
    pub fn retune(&self, arguments: &[&str]) -> Ended {
        Ended(self.command(arguments).output().unwrap())
    }

    /// Runs the pipeline and returns the run's record.
    pub fn run(&self, arguments: &[&str]) -> Value {
        let all = [&["run", "pipelines/p.yaml", "--json"], arguments].concat();
        self.retune(&all).succeeded().json()
    }

    /// The runs' directories, oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("runs")).into_iter().flatten().flatten();
        let mut runs: Vec<PathBuf> = entries.map(|e| e.path()).filter(|path| !path.ends_with("sweeps")).collect();
        runs.sort();
        runs
    }

    /// `text` without what differs between machines and times.
    pub fn anonymous(&self, text: &str) -> String {
        text.replace(&*self.folder.path().to_string_lossy(), "PROJECT")
    }
}

/// A program that has ended.
pub struct Ended(pub Output);

impl Ended {
    pub fn status(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    pub fn succeeded(self) -> Self {
        assert_eq!(self.status(), 0, "{}\n{}", self.stdout(), self.stderr());
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout()).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout(), self.stderr()))
    }
}

/// `stage: status` of each stage of a run's record, in order.
pub fn statuses(record: &Value) -> String {
    let stages = record["stages"].as_object().unwrap();
    let mut lines: Vec<String> = stages.iter().map(|(id, s)| format!("{id}: {}", s["status"].as_str().unwrap())).collect();
    lines.sort();
    lines.join(", ")
}

/// Why a stage ran.
pub fn reasons(record: &Value, stage: &str) -> String {
    let reasons = record["stages"][stage]["reasons"].as_array().cloned().unwrap_or_default();
    reasons.iter().map(|r| r.as_str().unwrap().to_owned()).collect::<Vec<_>>().join("; ")
}

/// Files below a folder, with `/` separators, sorted.
pub fn files(folder: &Path) -> Vec<String> {
    let mut files: Vec<String> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.file_type().is_file())
        .map(|e| e.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    files
}
