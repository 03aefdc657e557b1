//! `${params.x}`, `${env.X}` and `${matrix.x}` in texts, `$${` for a `${` that is meant as it stands.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::combination::{self, Choice};
use super::document::{Document, Stage, Variable};
use super::path::{self, Step};
use super::problem::{Problem, Problems, Span};
use super::scalar;
use super::words::{did_you_mean, nearest};
use super::yaml::{Content, DEEPEST, Entry, MOST_VALUES, Yaml};

/// Values that interpolation may make: more than a file has, for the combinations of a matrix.
const MOST_MADE: usize = 2 * MOST_VALUES;
/// Bytes of text that interpolation may make.
const MOST_TEXT: usize = 32 << 20;

/// How much interpolation may still make, over all files of a pipeline.
pub(super) struct Budget {
    values: usize,
    text: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { values: MOST_MADE, text: MOST_TEXT }
    }
}

/// How the process sees an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What references can name in one file.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub params: &'a [Entry],
    /// What `env` declares; absent in a definition, which sees its parameters only.
    pub variables: Option<&'a [Variable]>,
    pub environment: Environment<'a>,
    pub matrix: Combination<'a>,
}

impl<'a> Names<'a> {
    /// What references can name in the pipeline's own file, outside of a matrix.
    pub fn pipeline(document: &'a Document, environment: Environment<'a>) -> Self {
        let (params, variables) = (document.params, Some(document.environment.as_slice()));
        Names { params, variables, environment, matrix: Combination::Of(&[], &[]) }
    }
}

/// What `${matrix.…}` refers to.
#[derive(Clone, Copy)]
pub(super) enum Combination<'a> {
    /// The axes of the stage, and their values.
    Of(&'a [Rc<str>], &'a [Option<Rc<Choice>>]),
    /// It could not be told, which is a problem already.
    Unknown,
}

impl Names<'_> {
    /// What is written where a value begins: behind a reference to a parameter, the value of that.
    pub fn written<'b>(&'b self, mut yaml: &'b Yaml) -> &'b Yaml {
        for _ in 0..DEEPEST {
            let Content::Scalar { value: Value::String(text), .. } = &yaml.content else { break };
            let reference = text.strip_prefix("${").and_then(|rest| rest.split_once('}'));
            let steps = reference.and_then(|(reference, _)| path::parse(reference.trim()).ok()).unwrap_or_default();
            let [Step::Key(root), Step::Key(name), inner @ ..] = steps.as_slice() else { break };
            let param = self.params.iter().find(|entry| root == "params" && entry.key == *name).map(|entry| &entry.value);
            match param.and_then(|param| inner.iter().try_fold(param, |node, step| path::child(node, step))) {
                Some(value) => yaml = value,
                None => break,
            }
        }
        yaml
    }
}

/// Resolves the values of one file.
pub(super) struct Interpolator<'a> {
    names: Names<'a>,
    budget: &'a mut Budget,
    /// The references that are being followed.
    following: Vec<String>,
    /// Circles that were found already.
    circles: HashSet<BTreeSet<String>>,
    depth: usize,
}

impl<'a> Interpolator<'a> {
    pub fn new(names: Names<'a>, budget: &'a mut Budget) -> Self {
        Interpolator { names, budget, following: Vec::new(), circles: HashSet::new(), depth: 0 }
    }

    /// Every parameter, as far as it has no problem.
    pub fn parameters(&mut self, problems: &mut Problems) -> BTreeMap<String, Value> {
        let params = self.names.params;
        let resolved = params.iter().filter_map(|entry| {
            let path = vec![Step::Key(entry.key.clone())];
            Some((entry.key.clone(), self.follow(&path, entry.value.span, problems)?))
        });
        resolved.collect()
    }

    /// The value with every reference replaced; nothing when there was a problem.
    pub fn resolve(&mut self, yaml: &Yaml, problems: &mut Problems) -> Option<Value> {
        if !self.spend(1, 0, yaml.span, problems) {
            return None;
        }
        self.depth += 1;
        let value = match &yaml.content {
            Content::Scalar { value: Value::String(text), .. } => self.text(text, yaml.span, problems),
            Content::Scalar { value, .. } => Some(value.clone()),
            Content::Sequence(items) => {
                // Every item is looked at, so that all problems are found.
                let items: Vec<Option<Value>> = items.iter().map(|item| self.resolve(item, problems)).collect();
                items.into_iter().collect::<Option<Vec<Value>>>().map(Value::Array)
            }
            Content::Mapping(entries) => {
                let entries: Vec<Option<(String, Value)>> =
                    entries.iter().map(|e| Some((e.key.clone(), self.resolve(&e.value, problems)?))).collect();
                entries.into_iter().collect::<Option<Map<String, Value>>>().map(Value::Object)
            }
        };
        self.depth -= 1;
        value
    }

    /// A stage's description, in which `${matrix.…}` alone is a reference, and only where there is a matrix.
    pub fn description(&mut self, stage: &Stage, problems: &mut Problems) -> Option<String> {
        let text = stage.description.as_ref()?;
        let (mut whole, mut rest) = (String::new(), text.as_str());
        while let Some(at) = rest.find("${matrix.").filter(|_| !self.axes().is_empty()) {
            let (before, reference) = rest.split_at(at);
            let Some((reference, after)) = reference.strip_prefix("${").and_then(|r| r.split_once('}')) else { break };
            let span = stage.description_span;
            let value = self.reference(reference, span, problems)?;
            whole += before;
            whole += &as_text(&value, reference, span, problems)?;
            rest = after;
        }
        Some(whole + rest)
    }

    fn text(&mut self, text: &str, span: Span, problems: &mut Problems) -> Option<Value> {
        if !text.contains("${") {
            return self.spend(0, text.len(), span, problems).then(|| Value::String(text.to_owned()));
        }
        let pieces = match split(text) {
            Ok(pieces) => pieces,
            Err(rest) => {
                let place = problems.narrow(span, rest);
                let help = "close it with `}`; write `$${` for a `${` that is meant as it stands".to_owned();
                problems.push(Problem::at(place, "this `${` is not closed").help(help));
                return None;
            }
        };
        if let [Piece::Reference(path)] = pieces.as_slice() {
            return self.reference(path, span, problems);
        }
        let mut whole = Some(String::new());
        for piece in pieces {
            let part = match piece {
                Piece::Text(part) => Some(part),
                Piece::Reference(path) => {
                    self.reference(path, span, problems).and_then(|value| as_text(&value, path, span, problems))
                }
            };
            let len = part.as_ref().map_or(0, String::len);
            whole = if self.spend(0, len, span, problems) { whole.zip(part).map(|(whole, part)| whole + &part) } else { None };
        }
        whole.map(Value::String)
    }

    fn reference(&mut self, reference: &str, span: Span, problems: &mut Problems) -> Option<Value> {
        let place = problems.narrow(span, &format!("${{{reference}}}"));
        let steps = match path::parse(reference.trim()) {
            Ok(steps) => steps,
            Err(message) => {
                problems.push(Problem::at(place, message).help(format!("write {}", self.forms())));
                return None;
            }
        };
        match steps.as_slice() {
            [Step::Key(root), path @ ..] if root == "params" && !path.is_empty() => self.follow(path, place, problems),
            [Step::Key(root), Step::Key(name)] if root == "env" => self.variable(name, place, problems),
            [Step::Key(root), Step::Key(axis), path @ ..] if root == "matrix" => self.choice(axis, path, place, problems),
            [Step::Key(root), ..] => {
                problems.push(self.unknown_root(root, reference.trim(), place));
                None
            }
            _ => None,
        }
    }

    fn unknown_root(&self, root: &str, reference: &str, place: Span) -> Problem {
        let help = if self.names.params.iter().any(|e| e.key == root) {
            format!("did you mean `${{params.{reference}}}`?")
        } else if self.names.variables.into_iter().flatten().any(|v| v.name == root) {
            format!("did you mean `${{env.{reference}}}`?")
        } else if self.axes().contains(&root) {
            format!("did you mean `${{matrix.{reference}}}`?")
        } else if let Some(near) = nearest(root, &["params", "env", "matrix"]).filter(|near| *near != root) {
            format!("did you mean `{near}`?")
        } else {
            format!("write {}", self.forms())
        };
        Problem::at(place, format!("`{reference}` names nothing")).help(help)
    }

    /// How a reference is written.
    fn forms(&self) -> &'static str {
        match (self.names.variables.is_some(), self.axes().is_empty()) {
            (true, true) => "`${params.NAME}` or `${env.NAME}`",
            (true, false) => "`${params.NAME}`, `${env.NAME}` or `${matrix.NAME}`",
            (false, true) => "`${params.NAME}`",
            (false, false) => "`${params.NAME}` or `${matrix.NAME}`",
        }
    }

    fn axes(&self) -> Vec<&'a str> {
        match self.names.matrix {
            Combination::Of(axes, _) => axes.iter().map(|axis| &**axis).collect(),
            Combination::Unknown => Vec::new(),
        }
    }

    /// The value of an axis, or what is in it at a path.
    fn choice(&mut self, axis: &str, path: &[Step], place: Span, problems: &mut Problems) -> Option<Value> {
        let (axes, row) = match self.names.matrix {
            Combination::Of(axes, row) if !axes.is_empty() => (axes, row),
            Combination::Unknown => return None,
            Combination::Of(..) => {
                let help = format!("give the stage a `matrix: {{ {axis}: [ … ] }}`, or take an input from a stage that has one");
                problems.push(Problem::at(place, "there is no matrix here").help(help));
                return None;
            }
        };
        let Some(at) = axes.iter().position(|name| **name == *axis) else {
            let message = format!("the matrix has no axis `{axis}`");
            problems.push(Problem::at(place, message).help(did_you_mean(axis, "axes", &self.axes())));
            return None;
        };
        let Some(choice) = row.get(at).and_then(Option::as_ref) else {
            let message = format!("the combination `{}` has no `{axis}`", combination::label(axes, row));
            let help = format!("give `{axis}` to the other combinations too, with `include`");
            problems.push(Problem::at(place, message).help(help));
            return None;
        };
        let mut value = &choice.value;
        for step in path {
            let inner = match step {
                Step::Key(key) => value.get(key),
                Step::Index(index) => value.get(index),
            };
            let Some(inner) = inner else {
                let keys: Vec<&str> = value.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
                let message = format!("the value `{}` of axis `{axis}` has no `{}`", choice.label, path::join(path));
                let help = (!keys.is_empty()).then(|| did_you_mean(&step.to_string(), "keys", &keys));
                problems.push(Problem::at(place, message).help(help));
                return None;
            };
            value = inner;
        }
        let (values, text) = size(value);
        self.spend(values, text, place, problems).then(|| value.clone())
    }

    /// The value at a path under `params`.
    fn follow(&mut self, path: &[Step], place: Span, problems: &mut Problems) -> Option<Value> {
        let name = path::join(path);
        if let Some(first) = self.following.iter().position(|n| *n == name) {
            let circle = self.following.get(first..).unwrap_or_default();
            if self.circles.insert(circle.iter().cloned().collect()) {
                let names: Vec<String> = circle.iter().chain([&name]).map(|n| format!("`{n}`")).collect();
                let message = format!("parameters refer to each other in a circle: {}", names.join(" → "));
                problems.push(Problem::at(place, message).help("give one of them a value of its own".to_owned()));
            }
            return None;
        }
        self.following.push(name);
        self.depth += 1;
        let value = self.descend(path, place, problems);
        self.depth -= 1;
        self.following.pop();
        value
    }

    fn descend(&mut self, path: &[Step], place: Span, problems: &mut Problems) -> Option<Value> {
        let (first, rest) = path.split_first()?;
        let Some(mut node) =
            self.names.params.iter().find(|e| matches!(first, Step::Key(key) if e.key == *key)).map(|e| &e.value)
        else {
            let names: Vec<&str> = self.names.params.iter().map(|e| e.key.as_str()).collect();
            let first = first.to_string();
            let help = did_you_mean(&first, "parameters", &names);
            problems.push(Problem::at(place, format!("there is no parameter `{first}`")).help(help));
            return None;
        };
        for (i, step) in rest.iter().enumerate() {
            let left = rest.get(i..).unwrap_or_default();
            match path::child(node, step) {
                Some(child) => node = child,
                // What stands here may be a reference to something that has the rest.
                None if matches!(&node.content, Content::Scalar { value: Value::String(text), .. } if text.contains("${")) => {
                    let value = self.resolve(node, problems)?;
                    return inside(value, left).or_else(|| self.missing(path, left, &[], place, problems));
                }
                None => {
                    let names: Vec<&str> = match &node.content {
                        Content::Mapping(entries) => entries.iter().map(|e| e.key.as_str()).collect(),
                        _ => Vec::new(),
                    };
                    return self.missing(path, left, &names, place, problems);
                }
            }
        }
        self.resolve(node, problems)
    }

    fn missing(&self, path: &[Step], left: &[Step], names: &[&str], place: Span, problems: &mut Problems) -> Option<Value> {
        let parent = path::join(path.get(..path.len() - left.len()).unwrap_or_default());
        let step = left.first().map(Step::to_string).unwrap_or_default();
        let help = (!names.is_empty()).then(|| did_you_mean(&step, &format!("keys of `{parent}`"), names));
        problems.push(Problem::at(place, format!("the parameter `{parent}` has no `{step}`")).help(help));
        None
    }

    fn variable(&self, name: &str, place: Span, problems: &mut Problems) -> Option<Value> {
        let problem = |message: String, help: String| Problem::at(place, message).help(help);
        let Some(variables) = self.names.variables else {
            let help = format!("declare a parameter, and let the pipeline give it `${{env.{name}}}`");
            problems.push(problem("a definition has no `env`".into(), help));
            return None;
        };
        let Some(variable) = variables.iter().find(|v| v.name == name) else {
            let names: Vec<&str> = variables.iter().map(|v| v.name.as_str()).collect();
            let help = match nearest(name, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it: `env: [{name}]`"),
            };
            problems.push(problem(format!("the environment variable `{name}` is not declared under `env`"), help));
            return None;
        };
        if variable.secret {
            let help = "secrets are never stored: give the stage the variable's name, and it reads the value when it runs";
            problems.push(problem(format!("the secret `{name}` cannot be put into a value"), help.into()));
            return None;
        }
        let text = match (self.names.environment)(name).map(OsString::into_string) {
            Some(Ok(text)) => text,
            Some(Err(_)) => {
                problems
                    .push(problem(format!("the environment variable `{name}` is not UTF-8"), "set it to a readable text".into()));
                return None;
            }
            None if variable.default.is_some() => return variable.default.clone(),
            None => {
                let help = format!("set it, or give it a default: `env: {{ {name}: {{ default: … }} }}`");
                problems.push(problem(format!("the environment variable `{name}` is not set"), help));
                return None;
            }
        };
        let value = typed(&text, variable.default.as_ref());
        if value.is_none() {
            let help = "it must be of the same type as its default under `env`".into();
            problems.push(problem(format!("the environment variable `{name}` has the value `{text}`"), help));
        }
        value
    }

    /// Whether so much more may be made.
    fn spend(&mut self, values: usize, text: usize, span: Span, problems: &mut Problems) -> bool {
        let message = if problems.is_full() {
            return false;
        } else if self.depth > DEEPEST {
            format!("parameters refer to each other, or nest, more than {DEEPEST} deep")
        } else {
            match (self.budget.values.checked_sub(values), self.budget.text.checked_sub(text)) {
                (Some(values), Some(text)) => {
                    *self.budget = Budget { values, text };
                    return true;
                }
                _ => format!("references make more than {MOST_MADE} values or {} MiB of text", MOST_TEXT >> 20),
            }
        };
        problems.push(Problem::at(span, message).help("refer to less".to_owned()));
        false
    }
}

/// How many values there are in one, itself included, and how much text.
fn size(value: &Value) -> (usize, usize) {
    let sum = |sizes: &mut dyn Iterator<Item = (usize, usize)>| sizes.fold((1, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    match value {
        Value::String(text) => (1, text.len()),
        Value::Array(items) => sum(&mut items.iter().map(size)),
        Value::Object(map) => sum(&mut map.iter().map(|(key, value)| (size(value).0, size(value).1 + key.len()))),
        Value::Null | Value::Bool(_) | Value::Number(_) => (1, 0),
    }
}

/// The axes that the texts of a value refer to.
pub(super) fn axes_of(yaml: &Yaml, axes: &mut BTreeSet<String>) {
    match &yaml.content {
        Content::Scalar { value: Value::String(text), .. } => {
            for piece in split(text).unwrap_or_default() {
                if let Piece::Reference(reference) = piece
                    && let Ok(steps) = path::parse(reference.trim())
                    && let [Step::Key(root), Step::Key(axis), ..] = steps.as_slice()
                    && root == "matrix"
                {
                    axes.insert(axis.clone());
                }
            }
        }
        Content::Scalar { .. } => {}
        Content::Sequence(items) => items.iter().for_each(|item| axes_of(item, axes)),
        Content::Mapping(entries) => entries.iter().for_each(|entry| axes_of(&entry.value, axes)),
    }
}

/// A variable's text as a value of the type of its default; a text without one.
fn typed(text: &str, default: Option<&Value>) -> Option<Value> {
    match default {
        Some(Value::Number(_)) => scalar::resolve(text).ok().filter(Value::is_number),
        Some(Value::Bool(_)) => scalar::resolve(text).ok().filter(Value::is_boolean),
        _ => Some(Value::String(text.to_owned())),
    }
}

/// A value as a part of a text.
fn as_text(value: &Value, path: &str, span: Span, problems: &mut Problems) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let what = if value.is_array() {
                "a list"
            } else if value.is_object() {
                "a mapping"
            } else {
                "nothing"
            };
            let place = problems.narrow(span, &format!("${{{path}}}"));
            let message = format!("`{}` is {what} and cannot be a part of a text", path.trim());
            problems.push(Problem::at(place, message).help("let the reference be the whole value".to_owned()));
            None
        }
    }
}

fn inside(value: Value, steps: &[Step]) -> Option<Value> {
    steps.iter().try_fold(value, |value, step| match (value, step) {
        (Value::Object(mut map), Step::Key(key)) => map.remove(key),
        (Value::Array(items), Step::Index(index)) => items.into_iter().nth(*index),
        _ => None,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(String),
    Reference(&'a str),
}

/// Texts and references in turn; the rest from an unclosed `${` on as the error.
fn split(text: &str) -> Result<Vec<Piece<'_>>, &str> {
    let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            literal += before;
            literal += "${";
            rest = reference.get(2..).unwrap_or_default();
            continue;
        }
        literal += before;
        let (path, after) = reference.strip_prefix("${").and_then(|r| r.split_once('}')).ok_or(reference)?;
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Reference(path));
        rest = after;
    }
    literal += rest;
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}

/// The text that is read as `text`.
pub(super) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

/// The tree that is resolved to `value`, which is what `written` is resolved to; each part stands where it was written.
pub(super) fn literal(value: Value, written: &Yaml, names: &Names) -> Yaml {
    let written = names.written(written);
    let span = written.span;
    let content = match value {
        Value::Array(items) => {
            let part = |at: usize| path::child(written, &Step::Index(at)).unwrap_or(written);
            Content::Sequence(items.into_iter().enumerate().map(|(at, item)| literal(item, part(at), names)).collect())
        }
        Value::Object(map) => {
            let part = |key: &str| path::child(written, &Step::Key(key.to_owned())).unwrap_or(written);
            let entry = |(key, value): (String, Value)| {
                let value = literal(value, part(&key), names);
                Entry { key, key_span: span, value }
            };
            Content::Mapping(map.into_iter().map(entry).collect())
        }
        Value::String(text) => {
            let text = escape(&text);
            Content::Scalar { value: Value::String(text.clone()), text }
        }
        value => Content::Scalar { text: value.to_string(), value },
    };
    Yaml { span, content }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_told_from_text() {
        let text = |t: &str| Piece::Text(t.into());
        for (written, pieces) in [
            ("", vec![]),
            ("a", vec![text("a")]),
            ("${a}", vec![Piece::Reference("a")]),
            ("x${a}${b}y", vec![text("x"), Piece::Reference("a"), Piece::Reference("b"), text("y")]),
            ("$${a}", vec![text("${a}")]),
            ("$$${a}", vec![text("$${a}")]),
            ("$ {a} $a", vec![text("$ {a} $a")]),
        ] {
            assert_eq!(split(written).unwrap(), pieces, "{written}");
        }
        assert_eq!(split("a ${b"), Err("${b"));
    }

    proptest! {
        #[test]
        fn an_escaped_text_is_read_as_the_text(text in "[$a{}é]{0,12}") {
            let escaped = escape(&text);
            let pieces = split(&escaped).unwrap();
            prop_assert_eq!(pieces, if text.is_empty() { vec![] } else { vec![Piece::Text(text)] });
        }
    }
}
