//! The part of a run's record that lists and filters need. Reading skips the rest, which is most of it.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::diff::{flatten, output};
use super::host::Git;
use super::record::{RunStatus, StageStatus};
use crate::artifact::Kind;
use crate::store::Digest;

/// A run in short.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// The name of its directory.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    pub status: RunStatus,
    pub started: Timestamp,
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Values given with `--set`, as they were given.
    #[serde(default)]
    pub overrides: Vec<String>,
    #[serde(skip)]
    pub tags: Vec<String>,
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
    environment: Environment,
    pub(super) stages: IndexMap<String, Stage>,
}

#[derive(Debug, Clone, Deserialize)]
struct Environment {
    #[serde(default)]
    git: Option<Git>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Stage {
    uses: String,
    status: StageStatus,
    #[serde(default)]
    fingerprint: Option<Fingerprint>,
    #[serde(default)]
    outputs: BTreeMap<String, Artifact>,
    #[serde(default)]
    pub(super) outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Deserialize)]
struct Fingerprint {
    parameters: Value,
    inputs: BTreeMap<String, Digest>,
}

#[derive(Debug, Clone, Deserialize)]
struct Artifact {
    digest: Digest,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Outcome {
    #[serde(default)]
    pub(super) metrics: BTreeMap<String, f64>,
}

impl Summary {
    /// The commit of the work tree that the pipeline lay in.
    pub fn commit(&self) -> Option<&str> {
        self.environment.git.as_ref().map(|git| git.commit.as_str())
    }

    /// How many stages stand so.
    pub fn count(&self, status: StageStatus) -> usize {
        self.stages.values().filter(|s| s.status == status).count()
    }

    /// The pipeline's parameters by their paths.
    pub fn own_parameters(&self) -> BTreeMap<String, Value> {
        let maps = self.parameters.iter().map(|(name, value)| (name.clone(), value.clone()));
        flatten(&Value::Object(maps.collect()))
    }

    /// Stage, path and value of every parameter of the stages.
    pub fn stage_parameters(&self) -> impl Iterator<Item = (&str, String, Value)> {
        self.stages.iter().flat_map(|(id, stage)| {
            let flat = stage.fingerprint.as_ref().map(|f| flatten(&f.parameters)).unwrap_or_default();
            flat.into_iter().map(move |(path, value)| (id.as_str(), path, value))
        })
    }

    /// The value of a parameter of a stage.
    pub fn stage_parameter(&self, stage: &str, path: &str) -> Option<Value> {
        let stage = self.stages.get(stage)?;
        flatten(&stage.fingerprint.as_ref()?.parameters).remove(path)
    }

    /// The names of the stages, in the order of the pipeline.
    pub fn stages(&self) -> impl Iterator<Item = &str> {
        self.stages.keys().map(String::as_str)
    }

    /// Stage, name and figure of every metric.
    pub fn metrics(&self) -> impl Iterator<Item = (&str, &str, f64)> {
        self.stages.iter().flat_map(|(id, stage)| {
            let metrics = stage.outcome.iter().flat_map(|o| &o.metrics);
            metrics.map(move |(name, value)| (id.as_str(), name.as_str(), *value))
        })
    }

    /// Whether the stage measures: it yields metrics as an artifact, and does not only compute with those of others.
    pub fn measures(&self, stage: &str) -> bool {
        self.stages.get(stage).is_some_and(|stage| stage.output(Kind::Metrics).is_some())
    }

    /// Whether the stage works on a model that this run trained: one that a stage made from another model.
    pub fn uses_trained_model(&self, stage: &str) -> bool {
        let Some(stage) = self.stages.get(stage) else { return false };
        let models: Vec<(&Stage, &Digest)> = self.stages.values().filter_map(|s| Some((s, s.model()?))).collect();
        let trained = |maker: &Stage| models.iter().any(|(_, model)| maker.has_input(model));
        models.iter().any(|(maker, model)| stage.has_input(model) && trained(maker))
    }
}

impl Stage {
    fn output(&self, kind: Kind) -> Option<String> {
        output(&self.uses, self.fingerprint.as_ref().map(|f| &f.parameters), kind)
    }

    /// The model that it yields.
    fn model(&self) -> Option<&Digest> {
        self.outputs.get(&self.output(Kind::Model)?).map(|artifact| &artifact.digest)
    }

    fn has_input(&self, digest: &Digest) -> bool {
        self.fingerprint.as_ref().is_some_and(|f| f.inputs.values().any(|input| input == digest))
    }
}
