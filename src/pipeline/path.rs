//! Paths into a pipeline, as in `--set stages.tuned.with.loss.margin=1` and `${params.models[0]}`.

use std::fmt;

use super::yaml::{Content, Yaml};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Reads `a.b[0].c`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(path: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (key, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        if key.is_empty() {
            return Err(format!("the path `{path}` has an empty part"));
        }
        steps.push(Step::Key(key.to_owned()));
        let mut rest = indices;
        while !rest.is_empty() {
            let index = rest.strip_prefix('[').and_then(|r| r.split_once(']'));
            let parsed = index.and_then(|(number, after)| Some((number.parse().ok()?, after)));
            let Some((number, after)) = parsed else {
                return Err(format!("`{part}` is no part of a path; write an index as `{key}[0]`"));
            };
            steps.push(Step::Index(number));
            rest = after;
        }
    }
    Ok(steps)
}

/// Writes it back.
pub(super) fn join(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        if matches!(step, Step::Key(_)) && !path.is_empty() {
            path.push('.');
        }
        path += &step.to_string();
    }
    path
}

/// The child at `step`.
pub(super) fn child<'a>(yaml: &'a Yaml, step: &Step) -> Option<&'a Yaml> {
    match (&yaml.content, step) {
        (Content::Mapping(_), Step::Key(key)) => yaml.entry(key).map(|e| &e.value),
        (Content::Sequence(items), Step::Index(index)) => items.get(*index),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written() {
        for path in ["a", "a.b", "a[0]", "a.b[10][2].c"] {
            assert_eq!(join(&parse(path).unwrap()), path);
        }
        for path in ["", ".", "a.", "a..b", "[0]", "a[", "a[x]", "a[0]b", "a[-1]", "a[99999999999999999999999]"] {
            assert!(parse(path).is_err(), "{path}");
        }
    }
}
