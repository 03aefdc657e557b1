//! What a definition declares of a parameter: its type, which values it may have, and which it has when none is given.

use serde_json::Value;

use super::document::{id, known_keys, mapping, text, word};
use super::problem::{Problem, Problems};
use super::words::{did_you_mean, list};
use super::yaml::{Content, Entry, Yaml};

const KEYS: &[&str] = &["type", "default", "description", "choices", "minimum", "maximum"];

/// What is wrong with a value, and a help.
pub(super) type Misfit = (String, Option<String>);

/// What kind of value a parameter has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Integer,
    Number,
    Boolean,
    List,
    Mapping,
    #[default]
    Any,
}

/// The types by name, and the words for a value of each.
pub(super) const TYPES: &[(&str, Type, &str)] = &[
    ("string", Type::String, "a text"),
    ("integer", Type::Integer, "a whole number"),
    ("number", Type::Number, "a number"),
    ("boolean", Type::Boolean, "`true` or `false`"),
    ("list", Type::List, "a list"),
    ("mapping", Type::Mapping, "a mapping"),
    ("any", Type::Any, "a value"),
];

impl Type {
    fn has(self, value: &Value) -> bool {
        match self {
            Type::String => value.is_string(),
            Type::Integer => value.is_i64() || value.is_u64(),
            Type::Number => value.is_number(),
            Type::Boolean => value.is_boolean(),
            Type::List => value.is_array(),
            Type::Mapping => value.is_object(),
            Type::Any => true,
        }
    }

    fn is_numeric(self) -> bool {
        matches!(self, Type::Integer | Type::Number)
    }
}

/// A parameter that a definition declares.
pub(super) struct Param<'a> {
    pub entry: &'a Entry,
    /// Required without one.
    pub default: Option<&'a Yaml>,
    sort: Type,
    /// Empty when every value will do.
    choices: Vec<&'a Value>,
    minimum: Option<f64>,
    maximum: Option<f64>,
}

/// `NAME: { type: …, default: …, description: …, … }`.
pub(super) fn params<'a>(entry: &'a Entry, problems: &mut Problems) -> Vec<Param<'a>> {
    let entries = mapping(&entry.value, "`params`", entry.key_span, problems).unwrap_or(&[]);
    entries.iter().map(|entry| param(entry, problems)).collect()
}

fn param<'a>(entry: &'a Entry, problems: &mut Problems) -> Param<'a> {
    let Entry { key, key_span, value } = entry;
    id(key, *key_span, "a parameter's name", problems);
    let mut param = Param { entry, default: None, sort: Type::Any, choices: Vec::new(), minimum: None, maximum: None };
    match &value.content {
        Content::Mapping(fields) => known_keys(fields, KEYS, "keys of a parameter", problems),
        _ if value.is_null() => {}
        _ => {
            let message = format!("the declaration of `{key}` must be a mapping, not {}", value.describe());
            let help = format!("write `{key}: {{ default: … }}`, or `{key}: {{}}` for one that must be given");
            problems.push(Problem::at(*key_span, message).help(help));
        }
    }
    value.entry("description").and_then(|e| text(&e.value, "description", problems));
    param.sort = value.entry("type").map_or(Type::Any, |e| sort(&e.value, problems));
    param.choices = value.entry("choices").map_or_else(Vec::new, |e| choices(e, param.sort, problems));
    param.minimum = value.entry("minimum").and_then(|e| bound(e, param.sort, problems));
    param.maximum = value.entry("maximum").and_then(|e| bound(e, param.sort, problems));
    if let (Some(minimum), Some(maximum), Some(entry)) = (param.minimum, param.maximum, value.entry("minimum"))
        && minimum > maximum
    {
        let message = format!("no value of `{key}` is at least {minimum} and at most {maximum}");
        problems.push(Problem::at(entry.value.span, message).help("swap `minimum` and `maximum`".to_owned()));
    }
    param.default = value.entry("default").map(|e| &e.value);
    if let Some(default) = param.default
        && let Some(value) = plain(default)
        && let Err((message, help)) = param.check(&value)
    {
        let place = if matches!(default.content, Content::Scalar { .. }) { default.span } else { *key_span };
        problems.push(Problem::at(place, format!("the default does not fit: {message}")).help(help));
    }
    param
}

fn sort(value: &Yaml, problems: &mut Problems) -> Type {
    let Some(name) = word(value, "type", problems) else { return Type::Any };
    if let Some((_, sort, _)) = TYPES.iter().find(|(known, ..)| *known == name) {
        return *sort;
    }
    let names: Vec<&str> = TYPES.iter().map(|(name, ..)| *name).collect();
    problems.push(Problem::at(value.span, format!("there is no type `{name}`")).help(did_you_mean(name, "types", &names)));
    Type::Any
}

fn choices<'a>(entry: &'a Entry, sort: Type, problems: &mut Problems) -> Vec<&'a Value> {
    let Content::Sequence(items) = &entry.value.content else {
        let message = format!("`choices` must be a list, not {}", entry.value.describe());
        problems.push(Problem::at(entry.key_span, message).help("write `choices: [A, B]`".to_owned()));
        return Vec::new();
    };
    if items.is_empty() {
        let help = "name some, or leave `choices` out".to_owned();
        problems.push(Problem::at(entry.key_span, "there are no choices").help(help));
    }
    let mut values = Vec::new();
    for item in items {
        match &item.content {
            Content::Scalar { value, .. } if !value.is_null() && sort.has(value) => values.push(value),
            _ => {
                let wanted = if sort == Type::Any { "a text, a number or a boolean" } else { words(sort) };
                let message = format!("a choice must be {wanted}, not {}", item.describe());
                problems.push(Problem::at(item.span, message).help(None));
            }
        }
    }
    values
}

fn bound(entry: &Entry, sort: Type, problems: &mut Problems) -> Option<f64> {
    let problem = match &entry.value.content {
        _ if !sort.is_numeric() => Problem::at(entry.key_span, format!("`{}` is for numbers", entry.key))
            .help("add `type: number` or `type: integer`".to_owned()),
        Content::Scalar { value: Value::Number(bound), .. } => return bound.as_f64(),
        _ => Problem::at(entry.value.span, format!("`{}` must be a number, not {}", entry.key, entry.value.describe())),
    };
    problems.push(problem);
    None
}

/// The value as it stands; nothing if there are references in it, which are resolved later.
fn plain(yaml: &Yaml) -> Option<Value> {
    match &yaml.content {
        Content::Scalar { value: Value::String(text), .. } if text.contains("${") => None,
        Content::Scalar { value, .. } => Some(value.clone()),
        Content::Sequence(items) => items.iter().map(plain).collect::<Option<Vec<Value>>>().map(Value::Array),
        Content::Mapping(entries) => {
            let entries = entries.iter().map(|entry| Some((entry.key.clone(), plain(&entry.value)?)));
            entries.collect::<Option<_>>().map(Value::Object)
        }
    }
}

/// Whether the value depends on other parameters.
pub(super) fn has_references(yaml: &Yaml) -> bool {
    plain(yaml).is_none()
}

impl Param<'_> {
    pub fn name(&self) -> &str {
        &self.entry.key
    }

    /// Whether a value is one that the parameter may have. Nothing at all may be given where nothing is the default.
    ///
    /// # Errors
    /// What is wrong with it, and a help.
    pub fn check(&self, value: &Value) -> Result<(), Misfit> {
        let name = self.name();
        if value.is_null() && self.default.is_none_or(Yaml::is_null) {
            return match (self.sort, self.default) {
                (Type::Any, _) | (_, Some(_)) => Ok(()),
                _ => Err((format!("`{name}` must be {}, not nothing", words(self.sort)), None)),
            };
        }
        if !self.sort.has(value) {
            return Err((format!("`{name}` must be {}, not {}", words(self.sort), shown(value)), None));
        }
        if !self.choices.is_empty() && !self.choices.contains(&value) {
            return Err((format!("{} is no value of `{name}`", shown(value)), Some(self.nearest_choice(value))));
        }
        let number = value.as_f64().unwrap_or_default();
        match (self.minimum, self.maximum) {
            (Some(minimum), _) if number < minimum => Err((format!("`{name}` must be at least {minimum}, not {number}"), None)),
            (_, Some(maximum)) if number > maximum => Err((format!("`{name}` must be at most {maximum}, not {number}"), None)),
            _ => Ok(()),
        }
    }

    fn nearest_choice(&self, value: &Value) -> String {
        let choices: Vec<String> = self.choices.iter().map(|choice| bare(choice)).collect();
        let choices: Vec<&str> = choices.iter().map(String::as_str).collect();
        match value {
            Value::String(text) => did_you_mean(text, "values", &choices),
            _ => format!("the values are {}", list(&choices)),
        }
    }
}

fn words(sort: Type) -> &'static str {
    TYPES.iter().find(|(_, known, _)| *known == sort).map_or("a value", |(.., words)| words)
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::String(text) => format!("the text `{text}`"),
        Value::Bool(_) | Value::Number(_) => format!("`{value}`"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}
