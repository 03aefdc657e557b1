//! What a pipeline is: the YAML types, positions in the file, interpolation, the typed graph.
//!
//! Reading goes through [`yaml`] (a tree with positions), [`extend`] (what it extends), [`overrides`] (`--set`), [`library`] (the
//! definitions that stages use),
//! [`document`] and [`definition`] (which keys there are), [`expand`] (the stages of definitions at their places), [`graph`] (edges
//! and order), [`interpolate`] (`${…}`) and [`parameters`] (each stage's `with:`). Every step collects what is wrong and goes on,
//! so that one run reports all of it.

mod configure;
mod declaration;
mod definition;
mod document;
mod expand;
mod extend;
mod file;
mod graph;
mod interpolate;
mod library;
mod link;
mod overrides;
mod parameters;
mod path;
mod paths;
mod problem;
mod resolved;
mod scalar;
mod schema;
mod words;
mod yaml;

pub use crate::stage::Output;
pub use document::Variable;
pub use overrides::Override;
pub use problem::{PipelineError, Place, Problem, Report};
pub use schema::schemas;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::expand::{Body, Member};
use self::file::Unreadable;
use self::interpolate::Environment;
use self::library::Library;
use self::link::Files;
use self::paths::Paths;
use self::problem::{Problems, Source};
use crate::stage::{Allowed, Configured, StageKind};

/// The keys of a pipeline.
const KEYS: &[&str] = &["name", "description", "extends", "params", "env", "stages"];

/// A pipeline that has been read and checked: every name resolved, every parameter configured, every edge typed.
pub struct Pipeline {
    /// `name:`, else the file's stem. Letters, digits, `.`, `_` and `-`.
    pub name: String,
    pub description: Option<String>,
    /// The pipeline file.
    pub file: PathBuf,
    /// Its folder; relative paths in parameters start there.
    pub base: PathBuf,
    /// Where the paths of its stages may lead.
    pub allowed: Allowed,
    /// `params:` after overrides.
    pub parameters: BTreeMap<String, Value>,
    /// `env:`, in the order of the file.
    pub environment: Vec<Variable>,
    /// In an order in which every stage comes after its inputs; the file's order among stages that do not depend on each other.
    pub stages: Vec<Node>,
}

/// One stage of a pipeline.
pub struct Node {
    /// The key under `stages:`; `OUTER/INNER` for the stage `INNER` of the definition that the stage `OUTER` uses.
    pub id: String,
    pub description: Option<String>,
    pub kind: &'static StageKind,
    pub configured: Configured,
    /// In the order of the kind's ports, or of the file where the user declares them.
    pub inputs: Vec<Edge>,
    pub outputs: Vec<Output>,
}

/// An edge: an output of one stage that is an input of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The input port of the stage that has this edge; `PORT[LABEL]` for one of those of a port that takes many.
    pub port: String,
    /// Index into [`Pipeline::stages`].
    pub from: usize,
    /// The output port of that stage.
    pub output: String,
}

/// Reads and checks a pipeline file, whose paths may lead into the `allowed` folders.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it.
pub fn load(file: &Path, overrides: &[Override], allowed: &Allowed) -> Result<Pipeline, PipelineError> {
    let shown = file.display().to_string();
    let text = file::read(file, &shown, "pipelines").map_err(|error| match error {
        Unreadable::Whole(message, help) => PipelineError::one(Problem::with_file(&shown, message).help(help)),
        Unreadable::NotUtf8(lossy, at, message) => {
            let mut problems = Problems::new(Vec::new());
            file::not_utf8(&shown, &lossy, at, &message, &mut problems);
            problems.into_error()
        }
    })?;
    parse(&text, file, overrides, allowed)
}

/// Reads and checks the text of a pipeline file, whose paths may lead into the `allowed` folders.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, file: &Path, overrides: &[Override], allowed: &Allowed) -> Result<Pipeline, PipelineError> {
    parse_in(text, file, overrides, allowed, &|name| std::env::var_os(name))
}

fn parse_in(
    text: &str,
    file: &Path,
    overrides: &[Override],
    allowed: &Allowed,
    environment: Environment,
) -> Result<Pipeline, PipelineError> {
    let mut sources = vec![Source::new(&file.display().to_string(), text)];
    sources.extend(overrides.iter().map(Override::source));
    let mut problems = Problems::new(sources);
    match build(text, file, overrides, allowed, environment, &mut problems) {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => Err(problems.into_error()),
    }
}

/// The pipeline; what is wrong goes to the problems. Nothing comes back only if there are some.
fn build(
    text: &str,
    file: &Path,
    overrides: &[Override],
    allowed: &Allowed,
    environment: Environment,
    problems: &mut Problems,
) -> Option<Pipeline> {
    let mut files = Files::new(file, allowed);
    let root = yaml::parse(text, 0, 0, problems)?;
    let mut root = extend::extend(root, &mut files, problems)?;
    for (i, set) in overrides.iter().enumerate() {
        set.apply(&mut root, i + 1, problems);
    }
    let library = Library::read(&root, file, &mut files, problems);
    let document = document::read(&root, problems)?;
    let definitions = library.definitions(problems);
    let expanded = expand::expand(&document.stages, &library, &definitions, problems);
    let edges = graph::edges(&expanded, problems);
    let (parameters, configured) =
        configure::configure(&document, &expanded, environment, &mut Paths::new(&files, allowed), problems);
    if !problems.is_empty() {
        return None;
    }
    let order = graph::order(&edges);
    let mut position = vec![0; order.len()];
    for (at, &index) in order.iter().enumerate() {
        *position.get_mut(index)? = at;
    }
    let mut nodes = BTreeMap::new();
    for ((member, configured), mut inputs) in expanded.members.into_iter().filter(Member::is_node).zip(configured).zip(edges) {
        let Body::Kind(kind) = member.body else { continue };
        for edge in &mut inputs {
            edge.from = *position.get(edge.from)?;
        }
        let (id, description) = (member.stage.id, member.stage.description);
        let outputs = member.outputs?;
        nodes.insert(*position.get(nodes.len())?, Node { id, description, kind, configured, inputs, outputs });
    }
    Some(Pipeline {
        name: document.name.unwrap_or_else(|| name_of(file)),
        description: document.description,
        file: file.to_owned(),
        base: file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
        allowed: allowed.clone(),
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

#[cfg(test)]
mod tests;
