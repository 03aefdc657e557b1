//! What differs between runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::record::{RunRecord, RunStatus};
use crate::artifact::{Kind, Metrics};
use crate::evaluation::significance::{Significance, compare, holm};
use crate::stage::reference::written;
use crate::stage::registry;
use crate::store::Fingerprint;

/// What differs between two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    pub from: String,
    pub from_status: RunStatus,
    pub to: String,
    pub to_status: RunStatus,
    /// Stages whose parameters, code or surroundings differ, in the order of the second run.
    pub stages: Vec<StageChanges>,
    /// Every figure that one of them has.
    pub metrics: Vec<MetricChange>,
}

/// What differs in a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageChanges {
    pub stage: String,
    pub changes: Vec<Change>,
}

/// One difference in words that fit both `plan` and `diff`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    Parameter { name: String, from: Option<Value>, to: Option<Value> },
    Kind { from: String, to: String },
    Code { kind: String, from: u32, to: u32 },
    Input { port: String },
    External { name: String, from: Option<String>, to: Option<String> },
    Added,
    Removed,
}

/// A run to be compared: its record and its directory.
pub struct Compared {
    pub record: RunRecord,
    pub folder: PathBuf,
}

/// A figure in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricChange {
    pub name: String,
    pub from: Option<f64>,
    pub to: Option<f64>,
    pub difference: Option<f64>,
    /// Relative to the first, in per cent; absent when the first is 0.
    pub percent: Option<f64>,
    /// Of a figure that is the mean over queries, when both runs have the values of the same queries and some of them differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub significance: Option<Significance>,
}

impl Diff {
    /// Compares runs with the first of them. The p values are corrected for the tests of all the comparisons.
    pub fn with(base: &Compared, others: &[Compared]) -> Vec<Self> {
        let measured_base: Vec<(&str, Metrics)> = measured(base).collect();
        let mut diffs: Vec<Diff> = others.par_iter().map(|other| Diff::of(base, &measured_base, other)).collect();
        let mut tests: Vec<&mut Significance> =
            diffs.iter_mut().flat_map(|d| &mut d.metrics).filter_map(|m| m.significance.as_mut()).collect();
        let corrected = holm(&tests.iter().map(|s| s.p).collect::<Vec<_>>());
        tests.iter_mut().zip(corrected).for_each(|(significance, p)| significance.p_holm = p);
        diffs
    }

    fn of(from: &Compared, measured_from: &[(&str, Metrics)], to: &Compared) -> Self {
        let (a, b) = (from.record.metrics(), to.record.metrics());
        let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let mut metrics: Vec<MetricChange> =
            names.into_iter().map(|name| metric(name, a.get(name).copied(), b.get(name).copied())).collect();
        let measured_to: Vec<(&str, Metrics)> = measured(to).collect();
        for (id, before) in measured_from {
            if let Some((_, after)) = measured_to.iter().find(|(other, _)| other == id) {
                let tested = |m: &mut MetricChange| m.significance = m.significance.take().or_else(|| test(id, m, before, after));
                metrics.par_iter_mut().for_each(tested);
            }
        }
        let describe = |run: &Compared| (run.record.id.clone(), run.record.status);
        let ((from_id, from_status), (to_id, to_status)) = (describe(from), describe(to));
        let stages = stages(&from.record, &to.record);
        Diff { from: from_id, from_status, to: to_id, to_status, stages, metrics }
    }
}

/// The stages that differ, in the order of the second run.
fn stages(from: &RunRecord, to: &RunRecord) -> Vec<StageChanges> {
    let mut stages = Vec::new();
    let removed = from.stages.keys().filter(|id| !to.stages.contains_key(*id));
    for id in to.stages.keys().chain(removed) {
        let changes = match (from.stages.get(id), to.stages.get(id)) {
            (None, _) => vec![Change::Added],
            (_, None) => vec![Change::Removed],
            (Some(a), Some(b)) => match (&a.fingerprint, &b.fingerprint) {
                (Some(a), Some(b)) => Change::between(a, b),
                _ => Vec::new(),
            },
        };
        if !changes.is_empty() {
            stages.push(StageChanges { stage: id.clone(), changes });
        }
    }
    stages
}

/// Stage → the metrics that it yielded, of the stages whose metrics are still in the run's directory.
pub(super) fn measured(run: &Compared) -> impl Iterator<Item = (&str, Metrics)> {
    run.record.stages.iter().filter_map(|(id, stage)| {
        let port = output(&stage.uses, stage.fingerprint.as_ref().map(|f| &f.parameters), Kind::Metrics)?;
        Some((id.as_str(), Metrics::read(&run.folder.join(stage.paths.get(&port)?)).ok()?))
    })
}

/// The first output of a kind that a stage yields.
pub(super) fn output(uses: &str, parameters: Option<&Value>, kind: Kind) -> Option<String> {
    let outputs = registry::find(uses)?.yields(parameters.unwrap_or(&Value::Null)).ok()?;
    outputs.into_iter().find(|output| output.kind == kind).map(|output| output.name)
}

/// Tests a figure of `stage` that moved on some query.
fn test(stage: &str, metric: &MetricChange, before: &Metrics, after: &Metrics) -> Option<Significance> {
    let measure = metric.name.strip_prefix(stage)?.strip_prefix('.')?;
    let pairs = before.paired(after, measure)?;
    if pairs.iter().all(|(a, b)| a == b) { None } else { compare(&pairs) }
}

fn metric(name: &str, from: Option<f64>, to: Option<f64>) -> MetricChange {
    let difference = from.zip(to).map(|(a, b)| b - a);
    let percent = from.zip(difference).filter(|(a, _)| *a != 0.0).map(|(a, d)| d / a.abs() * 100.0);
    MetricChange { name: name.to_owned(), from, to, difference, percent, significance: None }
}

impl Change {
    /// What differs between what went into a stage then and now.
    pub fn between(from: &Fingerprint, to: &Fingerprint) -> Vec<Change> {
        let mut changes = Vec::new();
        if from.kind != to.kind {
            return vec![Change::Kind { from: from.kind.clone(), to: to.kind.clone() }];
        }
        if from.version != to.version {
            changes.push(Change::Code { kind: to.kind.clone(), from: from.version, to: to.version });
        }
        let (a, b) = (flatten(&from.parameters), flatten(&to.parameters));
        for name in keys(&a, &b) {
            let (from, to) = (a.get(name).cloned(), b.get(name).cloned());
            if from != to {
                changes.push(Change::Parameter { name: name.clone(), from, to });
            }
        }
        let by_name = |f: &Fingerprint| -> BTreeMap<String, String> {
            f.externals.iter().map(|e| (e.name.clone(), e.value.clone())).collect()
        };
        let (a, b) = (by_name(from), by_name(to));
        for name in keys(&a, &b) {
            let (from, to) = (a.get(name).cloned(), b.get(name).cloned());
            if from != to {
                changes.push(Change::External { name: name.clone(), from, to });
            }
        }
        for port in keys(&from.inputs, &to.inputs) {
            if from.inputs.get(port) != to.inputs.get(port) {
                changes.push(Change::Input { port: port.clone() });
            }
        }
        changes
    }
}

fn keys<'a, T>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> BTreeSet<&'a String> {
    a.keys().chain(b.keys()).collect()
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Parameter { name, from, to } => write!(f, "parameter `{name}` {}", values(from.as_ref(), to.as_ref())),
            Change::Kind { from, to } => write!(f, "kind of stage `{from}` → `{to}`"),
            Change::Code { kind, from, to } => write!(f, "code of stage kind `{kind}` is version {to}, was {from}"),
            Change::Input { port } => write!(f, "input `{port}` changed"),
            Change::External { name, from: None, .. } => write!(f, "{name} is new"),
            Change::External { name, to: None, .. } => write!(f, "{name} is gone"),
            // A file's digest says nothing to people; a version does.
            Change::External { name, from: Some(a), to: Some(b) } if a.len() < 60 && b.len() < 60 => {
                write!(f, "{name} {a} → {b}")
            }
            Change::External { name, .. } => write!(f, "{name} changed"),
            Change::Added => f.write_str("the stage is new"),
            Change::Removed => f.write_str("the stage is gone"),
        }
    }
}

/// `2e-5 → 3e-5`.
fn values(from: Option<&Value>, to: Option<&Value>) -> String {
    let show = |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), short);
    format!("{} → {}", show(from), show(to))
}

/// A value on one line, cut when it is long.
fn short(value: &Value) -> String {
    let text = written(value);
    if text.chars().count() > 60 { text.chars().take(57).chain("…".chars()).collect() } else { text }
}

/// Every scalar by its path: `loss.margin`, `sources[0]`.
pub(super) fn flatten(value: &Value) -> BTreeMap<String, Value> {
    fn walk(path: String, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    walk(if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, into);
                }
            }
            Value::Array(values) if values.iter().any(|v| v.is_object() || v.is_array()) => {
                values.iter().enumerate().for_each(|(i, value)| walk(format!("{path}[{i}]"), value, into));
            }
            // No parameters at all have no paths.
            Value::Object(_) if path.is_empty() => {}
            other => {
                into.insert(path, other.clone());
            }
        }
    }
    let mut flat = BTreeMap::new();
    walk(String::new(), value, &mut flat);
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::External;
    use crate::store::Digest;
    use serde_json::json;

    #[test]
    fn every_change_in_words() {
        let file = |bytes: &[u8]| External { name: "file `data/a.md`".into(), value: Digest::of(bytes).to_string() };
        let runtime = |version: &str| External { name: "ONNX Runtime".into(), value: format!("{version}, CPU") };
        let old = Fingerprint {
            kind: "train".into(),
            version: 2,
            parameters: json!({ "lr": 2e-5, "loss": { "name": "triplet", "margin": 5.0 }, "seed": 42 }),
            inputs: [("model".to_owned(), Digest::of(b"a")), ("triplets".to_owned(), Digest::of(b"b"))].into(),
            externals: vec![file(b"old"), runtime("1.31.0")],
        };
        let new = Fingerprint {
            version: 3,
            parameters: json!({ "lr": 3e-5, "loss": { "name": "triplet", "margin": 1.0 }, "seed": 42, "note": "x" }),
            inputs: [("model".to_owned(), Digest::of(b"a")), ("triplets".to_owned(), Digest::of(b"c"))].into(),
            externals: vec![file(b"new"), runtime("1.32.0")],
            ..old.clone()
        };
        let words: Vec<String> = Change::between(&old, &new).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @"
        code of stage kind `train` is version 3, was 2
        parameter `loss.margin` 5.0 → 1.0
        parameter `lr` 2e-5 → 3e-5
        parameter `note` unset → x
        ONNX Runtime 1.31.0, CPU → 1.32.0, CPU
        file `data/a.md` changed
        input `triplets` changed
        ");
        assert!(Change::between(&old, &old).is_empty());
        let without = Fingerprint { parameters: json!({}), ..old.clone() };
        let fewer = Change::between(&Fingerprint { parameters: json!({ "lr": 1 }), ..old }, &without);
        assert_eq!(fewer, [Change::Parameter { name: "lr".into(), from: Some(json!(1)), to: None }]);
    }

    #[test]
    fn a_metric_from_nothing_or_from_zero() {
        let change = metric("a", Some(0.0), Some(0.5));
        assert_eq!((change.difference, change.percent), (Some(0.5), None));
        assert_eq!(metric("a", None, Some(0.5)).difference, None);
        assert_eq!(metric("a", Some(0.5), Some(0.25)).percent, Some(-50.0));
    }
}
