//! Axes: `PATH=VALUES` as it stands behind `--over`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SweepError;
use super::points::MOST_POINTS;
use crate::pipeline::{self, Listed, PipelineError, Settable};

/// A parameter that differs between the points of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Axis {
    /// What it is called in tables: the path as it was given.
    pub name: String,
    /// The path as `--set` takes it.
    pub path: String,
    /// Whether it repeats the same experiment, as a seed does: points that differ in nothing else are reported as mean and standard
    /// deviation.
    #[serde(default)]
    pub repeats: bool,
    #[serde(flatten)]
    pub choices: Choices,
}

/// What an axis takes its values from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choices {
    /// One of these.
    Values(Vec<Value>),
    /// A number between two, each as likely as the other; rounded to four digits.
    Uniform([f64; 2]),
    /// A number between two, each order of magnitude as likely as the other; rounded to four digits.
    Log([f64; 2]),
}

/// Why an axis cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AxisError {
    #[error(transparent)]
    Sweep(#[from] SweepError),
    #[error("{0}")]
    Values(Box<PipelineError>),
}

impl Axis {
    /// Reads `PATH=VALUES`. `repeats` are the axes that repeat besides those whose last word is `seed`.
    ///
    /// # Errors
    /// The path means nothing in the pipeline, or the values cannot be read.
    pub fn parse(argument: &str, settable: &Settable) -> Result<Self, AxisError> {
        let Some((name, values)) = argument.split_once('=') else {
            return Err(wrong(argument, "write `PATH=VALUE,VALUE`, for example `lr=1e-5,3e-5`"));
        };
        let path = settable.path(name.trim()).map_err(|message| wrong(argument, &message))?;
        let choices = match distribution(values.trim()) {
            Some(choices) => choices.map_err(|message| wrong(argument, &message))?,
            None => {
                let listed = pipeline::values(argument, name.len() + 1, "--over").map_err(|e| AxisError::Values(Box::new(e)))?;
                Choices::Values(expanded(listed).map_err(|message| wrong(argument, &message))?)
            }
        };
        let repeats = path.rsplit('.').next() == Some("seed");
        Ok(Axis { name: name.trim().to_owned(), path, repeats, choices })
    }

    /// Whether `name` names it.
    pub fn is(&self, name: &str) -> bool {
        self.name == name || self.path == name
    }
}

fn wrong(argument: &str, message: &str) -> AxisError {
    SweepError(format!("`--over {argument}`: {message}")).into()
}

/// `log(LOW,HIGH)` or `uniform(LOW,HIGH)`; `None` for something else.
fn distribution(text: &str) -> Option<Result<Choices, String>> {
    let (name, rest) = text.split_once('(')?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphabetic()) {
        return None;
    }
    let bounds = rest.strip_suffix(')').and_then(|inner| inner.split_once(','));
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let bounds = bounds.and_then(|(low, high)| Some([number(low)?, number(high)?])).filter(|[low, high]| low < high);
    Some(match (name, bounds) {
        ("log", Some([low, _])) if low <= 0.0 => Err("the bounds of `log` must be above 0".to_owned()),
        ("log", Some(bounds)) => Ok(Choices::Log(bounds)),
        ("uniform", Some(bounds)) => Ok(Choices::Uniform(bounds)),
        ("log" | "uniform", None) => Err(format!("write two numbers, the smaller one first: `{name}(0.1,1)`")),
        _ => Err(format!("there is no `{name}(…)`; draw from `log(LOW,HIGH)`, `uniform(LOW,HIGH)`, or a list of values `a,b,c`")),
    })
}

/// The values with ranges written out.
fn expanded(listed: Vec<Listed>) -> Result<Vec<Value>, String> {
    let mut values: Vec<Value> = Vec::new();
    for item in listed {
        match item.plain.as_deref().and_then(range) {
            Some(range) => values.extend(range?.map(Value::from)),
            None if item.plain.as_deref() == Some("") => return Err("a value is missing between two commas".to_owned()),
            None => values.push(item.value),
        }
        if values.len() > MOST_POINTS {
            return Err(format!("that is more than the {MOST_POINTS} points that a sweep may have; give fewer values"));
        }
    }
    if values.is_empty() {
        return Err("there are no values; write for example `1e-5,3e-5`".to_owned());
    }
    match values.iter().enumerate().find(|(i, value)| values.iter().take(*i).any(|before| before == *value)) {
        Some((_, twice)) => Err(format!("the value `{twice}` stands twice; remove one")),
        None => Ok(values),
    }
}

/// `FIRST..LAST` or `FIRST..LAST..STEP`, both ends included; `None` for something else.
fn range(text: &str) -> Option<Result<Box<dyn Iterator<Item = i64>>, String>> {
    let parts = text.split("..").map(|part| part.trim().parse::<i64>()).collect::<Result<Vec<_>, _>>().ok()?;
    let (first, last, step) = match *parts.as_slice() {
        [first, last] => (first, last, 1),
        [first, last, step] => (first, last, step),
        _ => return None,
    };
    let step = usize::try_from(step).ok().filter(|&step| step > 0);
    let Some(step) = step.filter(|_| first <= last) else {
        return Some(Err(format!("`{text}` holds nothing; write `FIRST..LAST` or `FIRST..LAST..STEP`, the smaller end first")));
    };
    let count = first.abs_diff(last) / step as u64;
    if count >= MOST_POINTS as u64 {
        return Some(Err(format!(
            "`{text}` holds {} values, and a sweep may have {MOST_POINTS} points",
            count.saturating_add(1)
        )));
    }
    Some(Ok(Box::new((first..=last).step_by(step))))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn parse(argument: &str) -> Result<Axis, AxisError> {
        let text = "params: { seed: 1 }\nstages:\n  docs: { uses: load, with: { path: docs } }\n  chunks: { uses: chunk, inputs: { documents: docs } }\n";
        let pipeline = pipeline::parse(text, Path::new("a.yaml"), &[], &crate::stage::Allowed::anywhere())
            .map_err(|e| e.to_string())
            .unwrap();
        Axis::parse(argument, &pipeline.settable)
    }

    #[test]
    fn lists_ranges_and_distributions() {
        let values = |argument: &str| match parse(argument).map_err(|e| e.to_string()).unwrap().choices {
            Choices::Values(values) => json!(values),
            other => json!(other),
        };
        assert_eq!(values("chunk_size=64,128"), json!([64, 128]));
        assert_eq!(values("chunk_size=1..4,9"), json!([1, 2, 3, 4, 9]));
        assert_eq!(values("chunk_size=-4..10..5"), json!([-4, 1, 6]));
        assert_eq!(values("separator=a..b,'1..2'"), json!(["a..b", "1..2"]));
        assert_eq!(values("chunk_size=log(1e-6, 1e-3)"), json!({"log": [1e-6, 1e-3]}));
        assert_eq!(values("chunk_size=uniform(0,1)"), json!({"uniform": [0.0, 1.0]}));
        let seed = parse("seed=1..3").unwrap();
        assert_eq!((seed.path.as_str(), seed.repeats), ("params.seed", true));
        assert!(!parse("chunks.chunk_size=1").unwrap().repeats);
    }

    #[test]
    fn what_is_no_axis_is_explained() {
        let arguments = [
            "chunk_size",
            "chunk_sise=1",
            "chunk_size=",
            "chunk_size=1,,2",
            "chunk_size=1,2,1",
            "chunk_size=1..3,2",
            "chunk_size=5..1",
            "chunk_size=1..5..0",
            "chunk_size=0..10000",
            "chunk_size=-9223372036854775808..9223372036854775807",
            "chunk_size=0..9999,10000",
            "chunk_size=log(0,1)",
            "chunk_size=uniform(1)",
            "chunk_size=choice(1,2)",
            "separator={a: 1",
        ];
        let messages: Vec<String> = arguments.iter().map(|argument| parse(argument).unwrap_err().to_string()).collect();
        insta::assert_snapshot!(messages.join("\n"), @"
        `--over chunk_size`: write `PATH=VALUE,VALUE`, for example `lr=1e-5,3e-5`
        `--over chunk_sise=1`: the pipeline has no stage or parameter `chunk_sise`; did you mean `chunk_size`?
        `--over chunk_size=`: there are no values; write for example `1e-5,3e-5`
        --over:1:14: this is not YAML: while parsing a node, did not find expected node content
        `--over chunk_size=1,2,1`: the value `1` stands twice; remove one
        `--over chunk_size=1..3,2`: the value `2` stands twice; remove one
        `--over chunk_size=5..1`: `5..1` holds nothing; write `FIRST..LAST` or `FIRST..LAST..STEP`, the smaller end first
        `--over chunk_size=1..5..0`: `1..5..0` holds nothing; write `FIRST..LAST` or `FIRST..LAST..STEP`, the smaller end first
        `--over chunk_size=0..10000`: `0..10000` holds 10001 values, and a sweep may have 10000 points
        `--over chunk_size=-9223372036854775808..9223372036854775807`: `-9223372036854775808..9223372036854775807` holds 18446744073709551615 values, and a sweep may have 10000 points
        `--over chunk_size=0..9999,10000`: that is more than the 10000 points that a sweep may have; give fewer values
        `--over chunk_size=log(0,1)`: the bounds of `log` must be above 0
        `--over chunk_size=uniform(1)`: write two numbers, the smaller one first: `uniform(0.1,1)`
        `--over chunk_size=choice(1,2)`: there is no `choice(…)`; draw from `log(LOW,HIGH)`, `uniform(LOW,HIGH)`, or a list of values `a,b,c`
        --over:1:16: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
        ");
    }
}
