//! What a pipeline is: the YAML types, positions in the file, interpolation, the typed graph.
//!
//! Reading goes through [`yaml`] (a tree with positions), [`extend`] (what it extends), [`overrides`] (`--set`), [`library`] (the
//! definitions that stages use), [`document`] and [`definition`] (which keys there are), [`expand`] (the stages of definitions at their
//! places), [`graph`] (edges), [`fan_out`] (the combinations of a [`matrix`]), [`interpolate`] (`${…}`), [`parameters`] (each stage's
//! `with:`) and [`remote`]. Every step collects what is wrong and goes on, so that one run reports all of it.

mod combination;
mod configure;
mod declaration;
mod definition;
mod document;
mod expand;
mod extend;
mod fan_out;
mod file;
mod graph;
mod interpolate;
mod label;
mod library;
mod link;
mod matrix;
mod nodes;
mod order;
mod overrides;
mod parameters;
mod path;
mod paths;
mod problem;
mod remote;
mod resolved;
mod scalar;
mod schema;
mod selector;
mod settable;
mod values;
pub(crate) mod words;
mod yaml;

pub use crate::stage::Output;
pub use document::Variable;
pub use overrides::Override;
pub use problem::{PipelineError, Place, Problem, Report};
pub use schema::schemas;
pub use settable::Settable;
pub use values::{Listed, values};
pub use words::did_you_mean;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::file::Unreadable;
use self::interpolate::{Budget, Environment, Interpolator, Names};
use self::library::Library;
use self::link::Files;
use self::paths::Paths;
use self::problem::{Problems, Source};
use crate::stage::{Allowed, Configured, StageKind};
use crate::store::Location;

/// The keys of a pipeline.
const KEYS: &[&str] = &["name", "description", "extends", "params", "env", "matrix", "remote", "stages"];

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
    /// `remote:`. No part of what the pipeline is: it is neither in a key nor in the lock file.
    pub remote: Option<Location>,
    /// In an order in which every stage comes after its inputs; the file's order among stages that do not depend on each other.
    pub stages: Vec<Node>,
    /// What can be set, by short names.
    pub settable: Settable,
}

/// One stage of a pipeline.
pub struct Node {
    /// The key under `stages:`; `OUTER/INNER` for the stage `INNER` of the definition that the stage `OUTER` uses; `NAME[AXIS=LABEL,…]`
    /// for each combination of a matrix.
    pub id: String,
    pub description: Option<String>,
    pub kind: &'static StageKind,
    pub configured: Configured,
    /// In the order of the kind's ports, or of the file where the user declares them.
    pub inputs: Vec<Edge>,
    pub outputs: Vec<Output>,
    /// Its last result is used, whatever changed.
    pub freeze: bool,
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
    let feeds = graph::feeds(&expanded, problems);
    let mut budget = Budget::default();
    let names = Names::pipeline(&document, environment);
    let parameters = Interpolator::new(names, &mut budget).parameters(problems);
    let instances = fan_out::fan_out(&document, &expanded, &feeds, names, &mut budget, Paths::new(&files, allowed), problems);
    let base = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let remote = root.entry("remote").and_then(|entry| remote::read(entry, base, problems));
    let settable = Settable::of(&document, &library, &definitions);
    let stages = nodes::nodes(instances, &expanded, problems)?;
    Some(Pipeline {
        name: document.name.clone().unwrap_or_else(|| name_of(file)),
        description: document.description.clone(),
        file: file.to_owned(),
        base: base.to_owned(),
        allowed: allowed.clone(),
        parameters,
        environment: document.environment.clone(),
        remote,
        stages,
        settable,
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
