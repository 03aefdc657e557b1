//! What `run.json` holds.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host::{Git, Host};
use crate::stage::Outcome;
use crate::store::{Artifact, Digest, Fingerprint};

/// The record of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// Version of this file's form.
    pub format: u32,
    /// The name of the run's directory.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file as it was given.
    pub file: String,
    /// The folder of the pipeline file, where the relative paths of `pipeline.lock.yaml` start: from the run's directory, with `/`,
    /// where both lie in one project, else absolute.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base: String,
    pub status: RunStatus,
    #[schemars(with = "String")]
    pub started: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub finished: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Values given with `--set`, as they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// The pipeline's `params` after overrides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    pub environment: Environment,
    /// Stage → what happened to it, in the order of the pipeline.
    #[schemars(with = "BTreeMap<String, StageRecord>")]
    pub stages: IndexMap<String, StageRecord>,
}

/// What the run ran on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// The version of retune.
    pub retune: String,
    /// The version of ONNX Runtime and its execution provider.
    pub onnx_runtime: String,
    pub host: Host,
    /// The state of the git work tree that the pipeline lies in, when it lies in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Git>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    Running,
    Done,
    Failed,
    Interrupted,
}

/// How a stage of a run stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StageStatus {
    /// Its turn has not come.
    #[default]
    Waiting,
    Running,
    /// It ran in this run.
    Done,
    /// Its result was in the store.
    Cached,
    /// Its result came from the remote.
    Fetched,
    /// Its last result was used, whatever changed since, as the pipeline says.
    Frozen,
    Failed,
    Interrupted,
    /// It was not asked for, or something it needs failed.
    Skipped,
}

/// What happened to a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageRecord {
    /// The kind of stage.
    pub uses: String,
    pub status: StageStatus,
    /// Why it ran, or would have if it were not frozen: each cause in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Everything that decides what it yields; known once its inputs are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// The digest of the fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Output port → artifact.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Artifact>,
    /// Output port → path below the run's directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// How long computing it took, in this run or in the one it is cached from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The largest memory of the process while it was computed, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// The run that computed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed_by: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl RunRecord {
    /// `STAGE.NAME` → figure, of all stages that have any.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let stages = self.stages.iter().filter_map(|(id, s)| Some((id, s.outcome.as_ref()?)));
        stages.flat_map(|(id, o)| o.metrics.iter().map(move |(name, value)| (format!("{id}.{name}"), *value))).collect()
    }

    /// How many stages stand so.
    pub fn count(&self, status: StageStatus) -> usize {
        self.stages.values().filter(|s| s.status == status).count()
    }
}

impl RunStatus {
    pub const ALL: [RunStatus; 4] = [RunStatus::Running, RunStatus::Done, RunStatus::Failed, RunStatus::Interrupted];

    pub fn name(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Done => "done",
            RunStatus::Failed => "failed",
            RunStatus::Interrupted => "interrupted",
        }
    }
}

impl StageStatus {
    pub fn name(self) -> &'static str {
        match self {
            StageStatus::Waiting => "waiting",
            StageStatus::Running => "running",
            StageStatus::Done => "done",
            StageStatus::Cached => "cached",
            StageStatus::Fetched => "fetched",
            StageStatus::Frozen => "frozen",
            StageStatus::Failed => "failed",
            StageStatus::Interrupted => "interrupted",
            StageStatus::Skipped => "skipped",
        }
    }
}
