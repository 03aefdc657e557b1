//! A stage's `with:` as its parameters, and what is wrong with them in the file's terms.

use serde_json::Value;

use super::document::Stage;
use super::path::{self, Step};
use super::problem::{Problem, Problems, Span};
use super::words::{did_you_mean, list, nearest};
use super::yaml::{Content, Yaml};
use crate::stage::{Configured, ParameterError, StageKind};

/// How many problems of one stage are looked for.
const MOST_PROBLEMS: usize = 20;

/// Configures a stage from the resolved values of its `with:`. A wrong parameter is reported and left out to find the next.
pub(super) fn configure(kind: &StageKind, stage: &Stage, mut with: Value, problems: &mut Problems) -> Option<Configured> {
    let mut removed: Vec<String> = Vec::new();
    let inputs: Vec<&str> = stage.inputs.iter().map(|input| input.port).collect();
    for _ in 0..MOST_PROBLEMS {
        let configured = (kind.configure)(with.clone());
        let error = match configured.and_then(|c| c.stage.check_inputs(&inputs).map(|()| c)) {
            Ok(configured) => return removed.is_empty().then_some(configured),
            Err(error) => error,
        };
        let wrong = Wrong::new(&error, stage.with.map(|(_, yaml)| yaml));
        // An error without a place, or at a place that was emptied, may be a consequence.
        let consequence = wrong.key().is_none_or(|key| removed.contains(&key));
        let meant = |missing: &str| removed.iter().any(|key| nearest(key, &[missing]).is_some());
        if !removed.is_empty() && consequence || matches!(&wrong.complaint, Complaint::Missing(key) if meant(key)) {
            return None;
        }
        problems.push(wrong.problem(kind, stage, problems));
        match wrong.key().filter(|key| take(&mut with, key)) {
            Some(key) => removed.push(key),
            None => return None,
        }
    }
    None
}

/// Removes a key of the mapping; whether it was there.
fn take(with: &mut Value, key: &str) -> bool {
    with.as_object_mut().is_some_and(|map| map.remove(key).is_some())
}

/// A [`ParameterError`], taken apart.
struct Wrong {
    /// The path to the wrong value, or to where a value is missing.
    steps: Vec<Step>,
    complaint: Complaint,
    /// The longest part of the path that stands in the file.
    span: Option<Span>,
}

enum Complaint {
    Unknown { key: String, expected: Vec<String> },
    Missing(String),
    Variant { word: String, expected: Vec<String> },
    Placeholder { word: String, expected: Vec<String> },
    Type { found: String, expected: String },
    Other(String),
}

impl Wrong {
    fn new(error: &ParameterError, with: Option<&Yaml>) -> Self {
        let complaint = Complaint::read(&error.message);
        let mut steps = if error.field.is_empty() { Vec::new() } else { path::parse(&error.field).unwrap_or_default() };
        if let Complaint::Unknown { key, .. } | Complaint::Missing(key) = &complaint {
            let step = Step::Key(key.clone());
            if steps.last() != Some(&step) {
                steps.push(step);
            }
        }
        let mut wrong = Wrong { steps, complaint, span: None };
        wrong.deepen(with);
        wrong.span = with.and_then(|with| wrong.find(with));
        wrong
    }

    /// Serde loses the path inside of what a `name` chooses; the wrong word is then looked for there.
    fn deepen(&mut self, with: Option<&Yaml>) {
        let Complaint::Variant { word, .. } = &self.complaint else { return };
        let node = with.and_then(|with| self.steps.iter().try_fold(with, |node, step| path::child(node, step)));
        if let Some(Yaml { content: Content::Mapping(entries), .. }) = node {
            let is_word = |yaml: &Yaml| matches!(&yaml.content, Content::Scalar { text, .. } if text == word);
            let key = entries.iter().find(|entry| is_word(&entry.value)).map(|entry| entry.key.clone());
            self.steps.extend(key.map(Step::Key));
        }
    }

    /// Where it stands. The caret goes below a key when the key is wrong, and below the value when that is.
    fn find(&self, with: &Yaml) -> Option<Span> {
        let (mut node, mut span) = (with, None);
        for step in &self.steps {
            let Some(next) = path::child(node, step) else { break };
            let key = match step {
                Step::Key(key) => node.entry(key).map(|e| e.key_span),
                Step::Index(_) => None,
            };
            let value_shows =
                matches!(next.content, Content::Scalar { .. }) && !matches!(self.complaint, Complaint::Unknown { .. });
            span = if value_shows && !next.is_null() { Some(next.span) } else { key.or(Some(next.span)) };
            node = next;
        }
        span
    }

    /// Whether the wrong value itself has the word, and not only what it refers to.
    fn is_written(&self, word: &str, stage: &Stage) -> bool {
        let value = stage.with.and_then(|(_, with)| self.steps.iter().try_fold(with, |node, step| path::child(node, step)));
        matches!(value.map(|yaml| &yaml.content), Some(Content::Scalar { value: Value::String(text), .. }) if text.contains(word))
    }

    /// The top-level parameter that is wrong.
    fn key(&self) -> Option<String> {
        match self.steps.first() {
            Some(Step::Key(key)) => Some(key.clone()),
            _ => None,
        }
    }

    fn problem(&self, kind: &StageKind, stage: &Stage, problems: &Problems) -> Problem {
        let span = self.span.or(stage.with.map(|(key, _)| key)).or(stage.uses.map(|(_, span)| span)).unwrap_or(stage.id_span);
        let span = match &self.complaint {
            Complaint::Placeholder { word, .. } if self.is_written(word, stage) => problems.part(span, word),
            _ => span,
        };
        let name = path::join(&self.steps);
        let of = format!("of stage `{}`", stage.id);
        let (message, help) = match &self.complaint {
            Complaint::Unknown { key, expected } => {
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                let owner = path::join(self.steps.split_last().map_or(&[], |(_, before)| before));
                let (what, unknown) = if owner.is_empty() {
                    (format!("parameters of `{}`", kind.name), format!("unknown parameter `{key}` {of}"))
                } else {
                    (format!("keys of `{owner}`"), format!("unknown key `{key}` in `{owner}` {of}"))
                };
                (unknown, Some(did_you_mean(key, &what, &expected)))
            }
            Complaint::Missing(_) => {
                let help =
                    if stage.with.is_some() { format!("add `{name}: …`") } else { format!("add `with: {{ {name}: … }}`") };
                (format!("the parameter `{name}` {of} is missing"), Some(help))
            }
            Complaint::Variant { word, expected } => {
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                (format!("`{word}` is no value of `{name}`"), Some(did_you_mean(word, "values", &expected)))
            }
            Complaint::Placeholder { word, expected } => {
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                (format!("`{word}` in `{name}` {of} names nothing"), Some(did_you_mean(word, "placeholders", &expected)))
            }
            Complaint::Type { found, expected } if name.is_empty() => (format!("`with` must be {expected}, not {found}"), None),
            Complaint::Type { found, expected } => (format!("`{name}` must be {expected}, not {found}"), None),
            Complaint::Other(message) if self.steps.is_empty() => {
                (format!("the parameters {of} cannot be used: {message}"), None)
            }
            Complaint::Other(message) => (message.clone(), None),
        };
        let problem = Problem::at(span, message).help(help);
        match stage.uses {
            // What a pipeline that extends another one says of a stage, and the stage itself, stand in two files.
            Some((_, uses)) if uses.source != span.source => problem.also(uses, &format!("the stage uses `{}`", kind.name)),
            _ => problem,
        }
    }
}

impl Complaint {
    /// Takes serde's words apart.
    fn read(message: &str) -> Self {
        let after = |start: &str| message.strip_prefix(start);
        if let Some((key, rest)) = after("unknown field `").and_then(|r| r.split_once('`')) {
            Complaint::Unknown { key: key.to_owned(), expected: quoted(rest) }
        } else if let Some(key) = after("missing field `").and_then(|r| r.split_once('`')) {
            Complaint::Missing(key.0.to_owned())
        } else if let Some((word, rest)) = after("unknown variant `").and_then(|r| r.split_once("`, ")) {
            Complaint::Variant { word: word.to_owned(), expected: quoted(rest) }
        } else if let Some((word, rest)) = after("unknown placeholder `").and_then(|r| r.split_once('`')) {
            Complaint::Placeholder { word: word.to_owned(), expected: quoted(rest) }
        } else if let Some((found, expected)) =
            after("invalid type: ").or_else(|| after("invalid value: ")).and_then(|r| r.rsplit_once(", expected "))
        {
            Complaint::Type { found: translate_found(found), expected: translate_expected(expected) }
        } else {
            Complaint::Other(message.to_owned())
        }
    }
}

/// The words between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// `string "abc"` as "the text `abc`".
fn translate_found(found: &str) -> String {
    if let Some(text) = found.strip_prefix("string \"").and_then(|r| r.strip_suffix('"')) {
        return format!("the text `{text}`");
    }
    match found.split_once(" `") {
        Some(("integer" | "floating point" | "boolean", value)) => format!("`{value}"),
        _ => match found {
            "null" | "unit value" => "nothing".into(),
            "map" => "a mapping".into(),
            "sequence" => "a list".into(),
            other => other.into(),
        },
    }
}

fn translate_expected(expected: &str) -> String {
    match expected {
        "f64" | "f32" => "a number".into(),
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number that is not negative".into(),
        "isize" | "i64" | "i32" => "a whole number".into(),
        "a string" | "string" => "a text".into(),
        "a boolean" => "`true` or `false`".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping".into(),
        other if other.starts_with("struct ") || other.starts_with("internally tagged enum ") => "a mapping".into(),
        other if other.starts_with('`') => {
            format!("one of {}", list(&quoted(other).iter().map(String::as_str).collect::<Vec<_>>()))
        }
        other => other.into(),
    }
}
