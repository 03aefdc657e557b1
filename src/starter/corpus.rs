//! What a folder of documents holds, as the pipeline's own stages see it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use crate::artifact::{Chunk, Document, jsonl};
use crate::cancel::Cancel;
use crate::stage::{Allowed, Context, Outcome, Progress, Reporter, registry};

/// The most tokens in a chunk: MiniLM reads 256, and a chunk of half of that is about one thing.
pub const CHUNK_SIZE: usize = 128;
/// The most tokens that a chunk repeats of the one before it.
pub const CHUNK_OVERLAP: usize = 16;
/// What retune writes, which is not to be read as documents.
const OWN: &[&str] = &["pipelines/**", "queries/**", "runs/**", "schemas/**", "stages/**"];

/// The documents, and how the pipeline loads them.
pub struct Corpus {
    /// The parameters of `load`, with the path as the pipeline's folder sees it.
    pub load: Value,
    pub documents: Vec<Document>,
    pub chunks: Vec<Chunk>,
    /// What was left out.
    pub notes: Vec<String>,
}

impl Corpus {
    /// Loads the documents at `path` and splits them, as a pipeline of the project `folder` will.
    ///
    /// # Errors
    /// There is nothing that can be read.
    pub fn read(folder: &Path, path: &Path) -> Result<Self> {
        let scratch = tempfile::tempdir().context("there is no room for temporary files")?;
        let shown = from_pipelines(folder, path);
        let exclude: &[&str] = if lies_in(folder, path) { OWN } else { &[] };
        let parameters = |path: &str, on_error: &str| {
            let mut load = json!({ "path": path });
            if let Some(load) = load.as_object_mut() {
                load.extend((!exclude.is_empty()).then(|| ("exclude".to_owned(), json!(exclude))));
                load.extend((on_error != "fail").then(|| ("on_error".to_owned(), json!(on_error))));
            }
            load
        };
        let here = path.to_str().ok_or_else(|| anyhow!("`{}` is not UTF-8; rename it", path.display()))?;
        let run = |on_error: &str| call("load", parameters(here, on_error), &[], scratch.path());
        // A file that cannot be read must not keep the others from being tried.
        let (on_error, outcome) = match run("fail") {
            Ok(outcome) => ("fail", outcome),
            Err(first) => ("skip", run("skip").map_err(|_| first)?),
        };
        let documents: Vec<Document> = jsonl::read(&scratch.path().join("documents.jsonl"))?;
        let chunking = json!({ "chunk_size": CHUNK_SIZE, "chunk_overlap": CHUNK_OVERLAP });
        call("chunk", chunking, &[("documents", "documents.jsonl")], scratch.path())?;
        let chunks: Vec<Chunk> = jsonl::read(&scratch.path().join("chunks.jsonl"))?;
        Ok(Corpus { load: parameters(&shown, on_error), documents, chunks, notes: outcome.warnings })
    }
}

/// Says nothing.
struct Silent;

impl Reporter for Silent {
    fn progress(&self, _: Progress) {}
    fn log(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn event(&self, _: Value) {}
}

/// Runs one stage, with its inputs and outputs in `scratch`.
fn call(kind: &str, parameters: Value, inputs: &[(&str, &str)], scratch: &Path) -> Result<Outcome> {
    let kind = registry::find(kind).with_context(|| format!("there is no kind of stage `{kind}`"))?;
    let configured = (kind.configure)(parameters)?;
    let path = |(port, file): &(&str, &str)| ((*port).to_owned(), scratch.join(file));
    let inputs: BTreeMap<String, PathBuf> = inputs.iter().map(path).collect();
    let outputs = kind.outputs.iter().map(|port| (port.name.to_owned(), scratch.join(port.file))).collect();
    let cancel = Cancel::default();
    let allowed = Allowed::anywhere();
    let (base, downloads, reporter, cancel, checkpoints) = (scratch, scratch, &Silent, &cancel, scratch);
    let context = Context { inputs, outputs, base, allowed: &allowed, downloads, scratch, checkpoints, reporter, cancel };
    configured.stage.run(&context)
}

/// Whether the project `folder` lies in `path`, or is it.
fn lies_in(folder: &Path, path: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(folder).starts_with(real(path))
}

/// `path` as the folder `pipelines` of the project sees it: relative within the project, else absolute.
fn from_pipelines(folder: &Path, path: &Path) -> String {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (folder, path) = (real(folder), real(path));
    let Ok(below) = path.strip_prefix(&folder) else { return path.display().to_string() };
    let names: Vec<String> = below
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    std::iter::once("..".to_owned()).chain(names).collect::<Vec<_>>().join("/")
}
