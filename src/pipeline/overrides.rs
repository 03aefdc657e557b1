//! `--set PATH=VALUE`: a value given on the command line in place of the one in the file.

use serde_json::Value;

use super::path::{self, Step};
use super::problem::{PipelineError, Problem, Problems, Source, Span};
use super::words::{did_you_mean, nearest};
use super::yaml::{self, Content, Entry, Yaml};
use super::{KEYS, scalar};

/// The name by which messages call the text of an override.
const SOURCE: &str = "--set";
/// Where an override can point.
const PLACES: &str = "an override sets `stages.STAGE.with.PARAMETER`, `stages.STAGE.inputs.PORT`, `stages.STAGE.matrix.AXIS`, \
                      `params.NAME`, `matrix.AXIS` or `name`";

/// A value for one place of the pipeline, from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    argument: String,
    steps: Vec<Step>,
    /// Where the value starts in the argument.
    value: usize,
}

impl Override {
    /// Reads `PATH=VALUE`, for example `stages.tuned.with.lr=5e-5`. The value is a YAML scalar, `[…]` or `{…}`.
    ///
    /// # Errors
    /// No `=`, no path, or a path that points to nothing that can be set. The value is read with the pipeline.
    pub fn parse(argument: &str) -> Result<Self, PipelineError> {
        let error = |message: &str, end: usize| {
            let mut problems = Problems::new(vec![Source::new(SOURCE, argument)]);
            problems.push(Problem::at(Span { source: 0, start: 0, end }, message).help(PLACES.to_owned()));
            problems.into_error()
        };
        let Some((path, _)) = argument.split_once('=') else {
            return Err(error("an override is written as `PATH=VALUE`", argument.len()));
        };
        let steps = path::parse(path.trim()).map_err(|message| error(&message, path.len()))?;
        Ok(Override { argument: argument.to_owned(), steps, value: path.len() + 1 })
    }

    pub(super) fn source(&self) -> Source {
        Source::new(SOURCE, &self.argument)
    }

    /// Puts the value into the tree of the file; `source` is the number of this override's text.
    pub(super) fn apply(&self, root: &mut Yaml, source: usize, problems: &mut Problems) {
        let path_span = Span { source, start: 0, end: self.value.saturating_sub(1) };
        if let Err((message, help)) = self.addressable(root) {
            problems.push(Problem::at(path_span, message).help(help));
        } else if let Some(value) = self.read(source, problems)
            && let Err(message) = set(root, &self.steps, value, path_span)
        {
            problems.push(Problem::at(path_span, message).help(PLACES.to_owned()));
        }
    }

    /// The value: flow YAML or a quoted text if it starts like one, else a plain scalar as it stands.
    fn read(&self, source: usize, problems: &mut Problems) -> Option<Yaml> {
        let text = self.argument.get(self.value..)?;
        if text.trim_start().starts_with(['[', '{', '"', '\'']) {
            return yaml::parse(text, source, self.value, problems);
        }
        let span = Span { source, start: self.value, end: self.argument.len() };
        match scalar::resolve(text.trim()) {
            Ok(value) => Some(Yaml { span, content: Content::Scalar { value, text: text.trim().to_owned() } }),
            Err(message) => {
                problems.push(Problem::at(span, message).help("quote it to make it a text".to_owned()));
                None
            }
        }
    }

    /// That the stage or the parameter is there; else what is wrong and a help.
    fn addressable(&self, root: &Yaml) -> Result<(), (String, String)> {
        let keys: Vec<&str> = self.steps.iter().map(|s| if let Step::Key(key) = s { key.as_str() } else { "" }).collect();
        let places = || PLACES.to_owned();
        match *keys.as_slice() {
            ["remote", ..] => Err(("`remote` cannot be set".into(), "use `--remote URL` or `--no-remote`".into())),
            ["name" | "description"] | ["matrix", _, ..] => Ok(()),
            ["params", name, ..] => known(root, "params", name, "parameter"),
            ["stages", id, "with" | "inputs" | "matrix", _, ..] | ["stages", id, "uses" | "description"] => {
                known(root, "stages", id, "stage")
            }
            ["params" | "stages" | "matrix", ..] => Err((format!("`{}` cannot be set", path::join(&self.steps)), places())),
            [first, ..] => {
                let help = if root.entry("stages").is_some_and(|e| e.value.entry(first).is_some()) {
                    let rest = self.steps.get(1..).filter(|s| !s.is_empty()).map_or("PARAMETER".into(), path::join);
                    format!("did you mean `stages.{first}.with.{rest}`?")
                } else if let Some(key) = nearest(first, KEYS).filter(|key| **key != *first) {
                    format!("did you mean `{key}`?")
                } else {
                    places()
                };
                Err((format!("`{first}` cannot be set"), help))
            }
            [] => Err(("the path is empty".into(), places())),
        }
    }
}

/// That `name` is an entry of the mapping `under`.
fn known(root: &Yaml, under: &str, name: &str, what: &str) -> Result<(), (String, String)> {
    let names: Vec<&str> = match root.entry(under).map(|e| &e.value.content) {
        Some(Content::Mapping(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
        _ => Vec::new(),
    };
    if names.contains(&name) {
        return Ok(());
    }
    Err((format!("there is no {what} `{name}`"), did_you_mean(name, &format!("{what}s"), &names)))
}

/// Replaces or adds the value at a path, with mappings on the way where there is nothing yet.
fn set(mut node: &mut Yaml, steps: &[Step], value: Yaml, span: Span) -> Result<(), String> {
    for (done, step) in steps.iter().enumerate() {
        let before = || path::join(steps.get(..done).unwrap_or_default());
        if node.is_null() {
            *node = Yaml { span, content: Content::Mapping(Vec::new()) };
        }
        let found = node.describe();
        node = match (&mut node.content, step) {
            (Content::Mapping(entries), Step::Key(key)) => {
                let at = entries.iter().position(|e| e.key == *key).unwrap_or(entries.len());
                if at == entries.len() {
                    let value = Yaml { span, content: Content::Scalar { value: Value::Null, text: String::new() } };
                    entries.push(Entry { key: key.clone(), key_span: span, value });
                }
                entries.get_mut(at).map(|e| &mut e.value)
            }
            (Content::Sequence(items), Step::Index(index)) => {
                let len = items.len();
                Some(items.get_mut(*index).ok_or_else(|| format!("`{}` has {len} items, so there is no `[{index}]`", before()))?)
            }
            (_, Step::Key(key)) => return Err(format!("`{}` is {found}, so it has no key `{key}`", before())),
            (_, Step::Index(index)) => return Err(format!("`{}` is {found}, so there is no `[{index}]`", before())),
        }
        .ok_or_else(|| "the path leads nowhere".to_owned())?;
    }
    *node = value;
    Ok(())
}
