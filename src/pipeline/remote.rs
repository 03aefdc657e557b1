//! `remote:`: where the results of a pipeline are shared.

use std::path::Path;

use serde_json::Value;

use super::document::known_keys;
use super::problem::{Problem, Problems, Span};
use super::yaml::{Content, Entry, Yaml};
use crate::store::{Location, LocationError, REMOTE_FORMS};

const KEYS: &[&str] = &["url", "endpoint", "region", "allow_http", "push"];

/// Reads a text or a mapping; what is wrong goes to the problems. Null is no remote.
pub(super) fn read(entry: &Entry, base: &Path, problems: &mut Problems) -> Option<Location> {
    match &entry.value.content {
        Content::Scalar { value: Value::Null, .. } => None,
        Content::Scalar { value: Value::String(text), .. } => located(Location::parse(text, base), &entry.value, text, problems),
        Content::Mapping(fields) => mapping(entry, fields, base, problems),
        _ => {
            let message = format!("`remote` must be a text or a mapping, not {}", entry.value.describe());
            problems.push(Problem::at(entry.value.span, message).help(REMOTE_FORMS.to_owned()));
            None
        }
    }
}

fn mapping(entry: &Entry, fields: &[Entry], base: &Path, problems: &mut Problems) -> Option<Location> {
    known_keys(fields, KEYS, "keys of `remote`", problems);
    let texts = |key: &str, problems: &mut Problems| {
        let field = entry.value.entry(key)?;
        match &field.value.content {
            Content::Scalar { value: Value::String(text), .. } => Some((text.clone(), &field.value)),
            _ => {
                wrong_type(field, "a text", problems);
                None
            }
        }
    };
    let [allow_http, push] = [("allow_http", false), ("push", true)].map(|(key, default)| match entry.value.entry(key) {
        Some(Entry { value: Yaml { content: Content::Scalar { value: Value::Bool(value), .. }, .. }, .. }) => *value,
        Some(field) => {
            wrong_type(field, "`true` or `false`", problems);
            default
        }
        None => default,
    });
    if entry.value.entry("url").is_none() {
        let problem = Problem::at(entry.key_span, "`remote` does not say where it is");
        problems.push(problem.help("add `url: s3://BUCKET/PREFIX`".to_owned()));
    }
    let (url, place) = texts("url", problems)?;
    let mut location = located(Location::parse(&url, base), place, &url, problems)?;
    location.push = push;
    if let Some((endpoint, place)) = texts("endpoint", problems) {
        located(location.set_endpoint(&endpoint, allow_http), place, &endpoint, problems);
    }
    if let Some((region, place)) = texts("region", problems) {
        located(location.set_region(&region), place, &region, problems);
    }
    Some(location)
}

fn wrong_type(field: &Entry, expected: &str, problems: &mut Problems) {
    let message = format!("`{}` must be {expected}, not {}", field.key, field.value.describe());
    problems.push(Problem::at(place(&field.value, field.key_span), message).help(None));
}

/// A collection is pointed at by its key.
fn place(value: &Yaml, key: Span) -> Span {
    if matches!(value.content, Content::Scalar { .. }) { value.span } else { key }
}

fn located<T>(read: Result<T, LocationError>, place: &Yaml, text: &str, problems: &mut Problems) -> Option<T> {
    if text.contains("${") {
        let problem = Problem::at(place.span, "`remote` takes no references");
        problems.push(problem.help("give it with `--remote` or the environment variable `RETUNE_REMOTE`".to_owned()));
        return None;
    }
    read.map_err(|error| problems.push(Problem::at(place.span, error.message).help(error.help))).ok()
}
