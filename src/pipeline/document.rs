//! The file's structure: which keys there are at which level, before any name is resolved.

use std::collections::HashSet;

use serde_json::Value;

use super::problem::{Problem, Problems, Span};
use super::words::did_you_mean;
use super::yaml::{Content, Entry, Yaml};
use super::{KEYS, label, selector};

/// Stages of one pipeline.
pub(super) const MOST_STAGES: usize = 10_000;
/// Characters of a name or an id.
pub(super) const LONGEST_NAME: usize = 100;
/// Bytes of the name of a stage with its combination.
pub(super) const LONGEST_ID: usize = 500;
/// Bytes of a part of it, which is the name of a folder.
const LONGEST_PART: usize = 250;
const STAGE_KEYS: &[&str] = &["uses", "matrix", "inputs", "with", "freeze", "description"];
const MINIMAL: &str = "a minimal pipeline is\n\nstages:\n  base:\n    uses: model\n    with: { source: all-MiniLM-L6-v2 }";

/// The file as it is written.
pub(super) struct Document<'a> {
    pub name: Option<String>,
    pub description: Option<String>,
    pub params: &'a [Entry],
    pub environment: Vec<Variable>,
    /// The key `matrix` with its value.
    pub matrix: Option<&'a Entry>,
    pub stages: Vec<Stage<'a>>,
}

/// An environment variable that the pipeline declares under `env:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    pub name: String,
    /// What `${env.NAME}` is when the variable is not set; its type is the type of the value.
    pub default: Option<Value>,
    /// The value must never be stored: it cannot be put into a parameter, and stages read it by its name.
    pub secret: bool,
}

/// One stage as it is written.
#[derive(Clone)]
pub(super) struct Stage<'a> {
    pub id: String,
    pub id_span: Span,
    pub description: Option<String>,
    pub description_span: Span,
    pub uses: Option<(&'a str, Span)>,
    /// The key `matrix`, if there is one, with its value.
    pub matrix: Option<&'a Entry>,
    pub inputs: Vec<Edge<'a>>,
    /// The key `with`, if there is one, and its value.
    pub with: Option<(Span, &'a Yaml)>,
    /// Its last result is used, whatever changed.
    pub freeze: bool,
}

/// `port: source`: an input of a stage, or an output of a definition.
#[derive(Clone)]
pub(super) struct Edge<'a> {
    pub port: &'a str,
    pub port_span: Span,
    /// Several of a list or a mapping; none when it is no word, which is a problem already.
    pub sources: Vec<Source<'a>>,
    /// They are written as a list or a mapping.
    pub is_several: bool,
}

impl<'a> Edge<'a> {
    /// A source of a list or a mapping, which only an input that takes many can have.
    pub fn several(&self) -> Option<&Source<'a>> {
        self.sources.last().filter(|_| self.is_several)
    }
}

/// What an edge comes from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// `stage` or `stage.output`.
    pub name: &'a str,
    /// What tells it from the others of an input that takes many: the key in a mapping, else the name.
    pub label: &'a str,
    pub span: Span,
}

/// Reads the structure; nothing when there are no stages to look at.
pub(super) fn read<'a>(root: &'a Yaml, problems: &mut Problems) -> Option<Document<'a>> {
    if root.is_null() {
        problems.push(Problem::at(root.span, "the pipeline is empty").help(MINIMAL.to_owned()));
        return None;
    }
    let entries = mapping(root, "a pipeline", root.span, problems)?;
    known_keys(entries, KEYS, "keys of a pipeline", problems);
    let value = |key: &str| root.entry(key).map(|e| &e.value);
    let document = Document {
        name: value("name").and_then(|v| name(v, problems)),
        description: value("description").and_then(|v| text(v, "description", problems)).map(str::to_owned),
        params: root.entry("params").map_or(&[], |e| params(e, problems)),
        environment: root.entry("env").map_or_else(Vec::new, |e| environment(e, problems)),
        matrix: root.entry("matrix"),
        stages: root.entry("stages").map_or_else(Vec::new, |e| stages(e, MINIMAL, problems)),
    };
    if value("stages").is_none() {
        problems.push(Problem::at(root.span, "the pipeline has no `stages`").help(MINIMAL.to_owned()));
    }
    Some(document)
}

fn name(value: &Yaml, problems: &mut Problems) -> Option<String> {
    let name = word(value, "name", problems)?;
    if !is_name(name) {
        let message = format!("`{name}` cannot be a name");
        let help = format!("use letters, digits, `.`, `_` and `-`, with a letter or digit first, at most {LONGEST_NAME}");
        problems.push(Problem::at(value.span, message).help(help));
        return None;
    }
    Some(name.to_owned())
}

/// Whether a pipeline may have this name: it becomes a part of the names of folders.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn params<'a>(entry: &'a Entry, problems: &mut Problems) -> &'a [Entry] {
    let entries = mapping(&entry.value, "`params`", entry.key_span, problems).unwrap_or(&[]);
    for entry in entries {
        id(&entry.key, entry.key_span, "a parameter's name", problems);
    }
    entries
}

fn environment(entry: &Entry, problems: &mut Problems) -> Vec<Variable> {
    let mut variables: Vec<Variable> = Vec::new();
    match &entry.value.content {
        Content::Sequence(items) => {
            for item in items {
                let Some(name) = word(item, "the name of an environment variable", problems) else { continue };
                variable_name(name, item.span, problems);
                variables.push(Variable { name: name.to_owned(), default: None, secret: false });
            }
        }
        Content::Mapping(entries) => {
            for entry in entries {
                variable_name(&entry.key, entry.key_span, problems);
                variables.push(variable(entry, problems));
            }
        }
        Content::Scalar { .. } if entry.value.is_null() => {}
        Content::Scalar { .. } => {
            let message = format!("`env` must be a list or a mapping, not {}", entry.value.describe());
            problems.push(
                Problem::at(entry.value.span, message).help("write `env: [NAME]` or `env: { NAME: { default: … } }`".to_owned()),
            );
        }
    }
    variables
}

fn variable(entry: &Entry, problems: &mut Problems) -> Variable {
    let mut variable = Variable { name: entry.key.clone(), default: None, secret: false };
    let what = format!("the declaration of `{}`", entry.key);
    let fields = mapping(&entry.value, &what, entry.key_span, problems).unwrap_or(&[]);
    known_keys(fields, &["default", "secret"], "keys of an environment variable", problems);
    for field in fields {
        match (field.key.as_str(), &field.value.content) {
            ("default", Content::Scalar { value, .. }) if !value.is_null() => variable.default = Some(value.clone()),
            ("default", _) => {
                let message = format!("a default must be a text, a number or a boolean, not {}", field.value.describe());
                problems.push(Problem::at(field.key_span, message).help("leave `default` out if there is none".to_owned()));
            }
            ("secret", Content::Scalar { value: Value::Bool(secret), .. }) => variable.secret = *secret,
            ("secret", _) => {
                let message = format!("`secret` must be `true` or `false`, not {}", field.value.describe());
                problems.push(Problem::at(field.value.span, message).help(None));
            }
            _ => {}
        }
    }
    if let (true, Some(default)) = (variable.secret, entry.value.entry("default")) {
        let message = "a secret has no default: it would be stored in this file";
        problems.push(Problem::at(default.key_span, message).help("remove `default`".to_owned()));
        variable.default = None;
    }
    variable
}

fn variable_name(name: &str, span: Span, problems: &mut Problems) {
    let is_one = !name.starts_with(|c: char| c.is_ascii_digit())
        && name.len() <= LONGEST_NAME
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_one {
        let message = format!("`{name}` cannot be the name of an environment variable");
        problems.push(Problem::at(span, message).help("use letters, digits and `_`".to_owned()));
    }
}

/// The stages of a file; `minimal` is what helps when there are none.
pub(super) fn stages<'a>(entry: &'a Entry, minimal: &str, problems: &mut Problems) -> Vec<Stage<'a>> {
    let entries = match mapping(&entry.value, "`stages`", entry.key_span, problems) {
        Some([]) => {
            problems.push(Problem::at(entry.key_span, "there are no stages").help(minimal.to_owned()));
            return Vec::new();
        }
        Some(entries) => entries,
        None => return Vec::new(),
    };
    if let Some(first) = entries.get(MOST_STAGES) {
        let message = format!("a pipeline may have at most {MOST_STAGES} stages");
        problems.push(Problem::at(first.key_span, message).help("split it into several pipelines".to_owned()));
        return Vec::new();
    }
    let ids: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    for entry in entries {
        // The artifacts of `a/b` lie in the folder of `a`.
        if let Some((outer, _)) =
            entry.key.match_indices('/').map(|(at, _)| entry.key.split_at(at)).find(|(id, _)| ids.contains(id))
        {
            let message = format!("stage `{}` would lie inside of stage `{outer}`", entry.key);
            problems.push(Problem::at(entry.key_span, message).help("rename one of them".to_owned()));
        }
    }
    entries.iter().map(|entry| stage(entry, problems)).collect()
}

fn stage<'a>(entry: &'a Entry, problems: &mut Problems) -> Stage<'a> {
    stage_id(&entry.key, entry.key_span, problems);
    let body = &entry.value;
    let fields = mapping(body, &format!("stage `{}`", entry.key), entry.key_span, problems).unwrap_or(&[]);
    known_keys(fields, STAGE_KEYS, "keys of a stage", problems);
    let value = |key: &str| body.entry(key).map(|e| &e.value);
    if (matches!(body.content, Content::Mapping(_)) || body.is_null()) && value("uses").is_none() {
        let message = format!("stage `{}` does not say which kind of stage it is", entry.key);
        problems.push(Problem::at(entry.key_span, message).help("add `uses: KIND`".to_owned()));
    }
    Stage {
        id: entry.key.clone(),
        id_span: entry.key_span,
        description: value("description").and_then(|v| text(v, "description", problems)).map(str::to_owned),
        description_span: value("description").map_or(entry.key_span, |v| v.span),
        uses: value("uses").and_then(|v| Some((word(v, "uses", problems)?, v.span))),
        matrix: body.entry("matrix"),
        inputs: body.entry("inputs").map_or_else(Vec::new, |e| edges(e, "input", problems)),
        with: body.entry("with").map(|e| {
            mapping(&e.value, "`with`", e.key_span, problems);
            (e.key_span, &e.value)
        }),
        freeze: value("freeze").is_some_and(|v| flag(v, "freeze", problems)),
    }
}

/// The entries of `inputs` or `outputs`; `what` is the word for one.
pub(super) fn edges<'a>(entry: &'a Entry, what: &str, problems: &mut Problems) -> Vec<Edge<'a>> {
    let mut edges = Vec::new();
    let entries = mapping(&entry.value, &format!("`{}`", entry.key), entry.key_span, problems);
    for Entry { key, key_span, value } in entries.unwrap_or(&[]) {
        let named: Vec<(Option<&str>, &Yaml)> = match &value.content {
            Content::Sequence(items) => items.iter().map(|item| (None, item)).collect(),
            Content::Mapping(entries) => entries.iter().map(|e| (Some(e.key.as_str()), &e.value)).collect(),
            Content::Scalar { .. } => vec![(None, value)],
        };
        let mut sources = Vec::new();
        for &(label, source) in &named {
            match &source.content {
                Content::Scalar { text, .. } if !text.is_empty() => {
                    sources.push(Source { name: text, label: label.unwrap_or(text), span: source.span })
                }
                _ => {
                    let message = format!("{what} `{key}` must name a stage, not {}", source.describe());
                    let help = format!("write `{key}: STAGE` or `{key}: STAGE.OUTPUT`");
                    problems.push(Problem::at(*key_span, message).help(help));
                }
            }
        }
        if named.is_empty() {
            let help = format!("write `{key}: [STAGE, STAGE.OUTPUT]`, or leave it out");
            problems.push(Problem::at(*key_span, format!("{what} `{key}` names no stage")).help(help));
        }
        let is_several = !matches!(value.content, Content::Scalar { .. });
        edges.push(Edge { port: key, port_span: *key_span, sources, is_several });
    }
    edges
}

/// The entries of a mapping; null is an empty one. What else it is goes to the problems, at `place` if it takes many lines.
pub(super) fn mapping<'a>(value: &'a Yaml, what: &str, place: Span, problems: &mut Problems) -> Option<&'a [Entry]> {
    match &value.content {
        Content::Mapping(entries) => Some(entries),
        Content::Scalar { value: Value::Null, .. } => Some(&[]),
        content => {
            let place = if matches!(content, Content::Scalar { .. }) { value.span } else { place };
            let message = format!("{what} must be a mapping, not {}", value.describe());
            problems.push(Problem::at(place, message).help("write `key: value` pairs, indented or in `{ … }`".to_owned()));
            None
        }
    }
}

pub(super) fn known_keys(entries: &[Entry], known: &[&str], what: &str, problems: &mut Problems) {
    for entry in entries.iter().filter(|e| !known.contains(&e.key.as_str())) {
        let help = did_you_mean(&entry.key, what, known);
        problems.push(Problem::at(entry.key_span, format!("unknown key `{}`", entry.key)).help(help));
    }
}

/// A scalar by how it is written, so that an id may look like a number.
pub(super) fn word<'a>(value: &'a Yaml, what: &str, problems: &mut Problems) -> Option<&'a str> {
    match &value.content {
        Content::Scalar { text, .. } if !text.is_empty() => Some(text),
        _ => {
            problems.push(Problem::at(value.span, format!("`{what}` must be a word, not {}", value.describe())).help(None));
            None
        }
    }
}

pub(super) fn text<'a>(value: &'a Yaml, what: &str, problems: &mut Problems) -> Option<&'a str> {
    match &value.content {
        Content::Scalar { value: Value::String(text), .. } => Some(text),
        Content::Scalar { value: Value::Null, .. } => None,
        _ => {
            let message = format!("`{what}` must be a text, not {}", value.describe());
            problems.push(Problem::at(value.span, message).help("quote it".to_owned()));
            None
        }
    }
}

fn flag(value: &Yaml, what: &str, problems: &mut Problems) -> bool {
    let Content::Scalar { value: Value::Bool(flag), .. } = value.content else {
        let message = format!("`{what}` must be `true` or `false`, not {}", value.describe());
        problems.push(Problem::at(value.span, message).help(None));
        return false;
    };
    flag
}

pub(super) fn id(id: &str, span: Span, what: &str, problems: &mut Problems) {
    if !is_id(id) {
        let message = format!("`{id}` cannot be {what}");
        problems.push(Problem::at(span, message).help(format!("use letters, digits, `_` and `-`, at most {LONGEST_NAME}")));
    }
}

/// A stage inside of a definition is called `OUTER/INNER`, one of a matrix `NAME[AXIS=LABEL]`, and pipelines that are written out have
/// such names.
fn stage_id(id: &str, span: Span, problems: &mut Problems) {
    let is_label = |c: char| label::is_plain(c) || matches!(c, '=' | ',');
    let is_part = |part: &str| match selector::brackets(part) {
        Some((name, label)) => is_id(name) && !label.is_empty() && part.len() <= LONGEST_PART && label.chars().all(is_label),
        None => is_id(part),
    };
    let longest = if id.contains('[') { LONGEST_ID } else { LONGEST_NAME };
    if id.len() > longest || !id.split('/').all(is_part) {
        let message = format!("`{id}` cannot be a stage's name");
        problems.push(Problem::at(span, message).help(format!("use letters, digits, `_` and `-`, at most {LONGEST_NAME}")));
    }
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= LONGEST_NAME && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}
