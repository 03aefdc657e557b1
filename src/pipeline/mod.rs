//! What a pipeline is: the YAML types, positions in the file, interpolation, the typed graph.
//!
//! Reading goes through [`yaml`] (a tree with positions), [`overrides`] (`--set`), [`document`] (which keys there are),
//! [`interpolate`] (`${…}`), [`parameters`] (each stage's `with:`) and [`graph`] (edges and order). Every step collects what is
//! wrong and goes on, so that one run reports all of it.

mod document;
mod graph;
mod interpolate;
mod overrides;
mod parameters;
mod path;
mod problem;
mod resolved;
mod scalar;
mod schema;
mod words;
mod yaml;

pub use document::Variable;
pub use overrides::Override;
pub use problem::{PipelineError, Problem, Report};
pub use schema::schemas;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::interpolate::{Environment, Interpolator};
use self::problem::{Problems, Source, Span};
use crate::stage::{Configured, StageKind};

/// The keys of a pipeline.
const KEYS: &[&str] = &["name", "description", "params", "env", "stages"];
/// Bytes of a pipeline file.
const LARGEST_FILE: usize = 8 << 20;

/// A pipeline that has been read and checked: every name resolved, every parameter configured, every edge typed.
pub struct Pipeline {
    /// `name:`, else the file's stem. Letters, digits, `.`, `_` and `-`.
    pub name: String,
    pub description: Option<String>,
    /// The pipeline file.
    pub file: PathBuf,
    /// Its folder; relative paths in parameters start there.
    pub base: PathBuf,
    /// `params:` after overrides.
    pub parameters: BTreeMap<String, Value>,
    /// `env:`, in the order of the file.
    pub environment: Vec<Variable>,
    /// In an order in which every stage comes after its inputs; the file's order among stages that do not depend on each other.
    pub stages: Vec<Node>,
}

/// One stage of a pipeline.
pub struct Node {
    /// The key under `stages:`.
    pub id: String,
    pub description: Option<String>,
    pub kind: &'static StageKind,
    pub configured: Configured,
    /// In the order of the kind's ports.
    pub inputs: Vec<Edge>,
}

/// An edge: an output of one stage that is an input of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The input port of the stage that has this edge.
    pub port: &'static str,
    /// Index into [`Pipeline::stages`].
    pub from: usize,
    /// The output port of that stage.
    pub output: &'static str,
}

/// Reads and checks a pipeline file.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it.
pub fn load(file: &Path, overrides: &[Override]) -> Result<Pipeline, PipelineError> {
    let shown = file.display().to_string();
    let bytes = read(file).map_err(|(message, help)| PipelineError::one(Problem::with_file(&shown, message).help(help)))?;
    if bytes.len() > LARGEST_FILE {
        let message = format!("`{shown}` is larger than the {} MiB that a pipeline may have", LARGEST_FILE >> 20);
        return Err(PipelineError::one(Problem::with_file(&shown, message).help("is it the right file?".to_owned())));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        // The replacement character stands where the valid text ends.
        let lossy = String::from_utf8_lossy(error.as_bytes());
        let mut problems = Problems::new(vec![Source::new(&shown, &lossy)]);
        let span = Span { source: 0, start: at, end: at + '\u{fffd}'.len_utf8() };
        let message = format!("`{shown}` is not UTF-8: byte 0x{byte:02X} at offset {at}");
        problems.push(Problem::at(span, message).help("save the file as UTF-8".to_owned()));
        problems.into_error()
    })?;
    parse(&text, file, overrides)
}

/// Reads and checks the text of a pipeline file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, file: &Path, overrides: &[Override]) -> Result<Pipeline, PipelineError> {
    parse_in(text, file, overrides, &|name| std::env::var_os(name))
}

fn parse_in(text: &str, file: &Path, overrides: &[Override], environment: Environment) -> Result<Pipeline, PipelineError> {
    let mut sources = vec![Source::new(&file.display().to_string(), text)];
    sources.extend(overrides.iter().map(Override::source));
    let mut problems = Problems::new(sources);
    match build(text, file, overrides, environment, &mut problems) {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => Err(problems.into_error()),
    }
}

/// The pipeline; what is wrong goes to the problems. Nothing comes back only if there are some.
fn build(text: &str, file: &Path, overrides: &[Override], environment: Environment, problems: &mut Problems) -> Option<Pipeline> {
    let mut root = yaml::parse(text, 0, 0, problems)?;
    for (i, set) in overrides.iter().enumerate() {
        set.apply(&mut root, i + 1, problems);
    }
    let document = document::read(&root, problems)?;
    let kinds = graph::kinds(&document.stages, problems);
    let edges = graph::edges(&document.stages, &kinds, problems);
    let mut interpolator = Interpolator::new(document.params, &document.environment, environment);
    let parameters = interpolator.parameters(problems);
    let configured: Vec<Option<Configured>> = document
        .stages
        .iter()
        .zip(&kinds)
        .map(|(stage, kind)| {
            let with = match stage.with {
                Some((_, yaml)) if !yaml.is_null() => interpolator.resolve(yaml, problems).filter(Value::is_object)?,
                _ => Value::Object(Map::new()),
            };
            parameters::configure((*kind)?, stage, with, problems)
        })
        .collect();
    if !problems.is_empty() {
        return None;
    }
    let order = graph::order(&edges);
    let mut position = vec![0; order.len()];
    for (at, &index) in order.iter().enumerate() {
        *position.get_mut(index)? = at;
    }
    let mut nodes = BTreeMap::new();
    for (((stage, kind), configured), mut inputs) in document.stages.iter().zip(kinds).zip(configured).zip(edges) {
        for edge in &mut inputs {
            edge.from = *position.get(edge.from)?;
        }
        let (id, description) = (stage.id.to_owned(), stage.description.clone());
        let node = Node { id, description, kind: kind?, configured: configured?, inputs };
        nodes.insert(*position.get(nodes.len())?, node);
    }
    Some(Pipeline {
        name: document.name.unwrap_or_else(|| name_of(file)),
        description: document.description,
        file: file.to_owned(),
        base: file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
        parameters,
        environment: document.environment,
        stages: nodes.into_values().collect(),
    })
}

/// The file's stem, with `-` for what a name cannot have.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(['.', '_', '-']);
    if document::is_name(name) { name.to_owned() } else { "pipeline".into() }
}

/// At most one byte more than a pipeline may have; or what is wrong and a help.
fn read(file: &Path) -> Result<Vec<u8>, (String, Option<String>)> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => (format!("there is no file `{shown}`"), similar(file)),
        _ => (format!("`{shown}` cannot be read: {error}"), None),
    };
    if file.is_dir() {
        return Err((format!("`{shown}` is a folder"), similar(&file.join("pipeline.yaml"))));
    }
    let mut bytes = Vec::new();
    let limit = LARGEST_FILE as u64 + 1;
    File::open(file).and_then(|f| f.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(bytes)
}

/// Names the file in the same folder that may have been meant.
fn similar(file: &Path) -> Option<String> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.file_name());
    let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).filter(|n| is_yaml(n)).collect();
    names.sort();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let wrong = file.file_name()?.to_string_lossy().into_owned();
    (!words.is_empty()).then(|| words::did_you_mean(&wrong, &format!("pipelines in `{}`", folder.display()), &words))
}

fn is_yaml(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == "yaml" || e == "yml")
}

#[cfg(test)]
mod tests;
