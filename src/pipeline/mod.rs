//! What a pipeline is: the YAML types, positions in the file, interpolation, the typed graph.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::stage::{Configured, StageKind};

/// A pipeline that has been read and checked: every name resolved, every parameter configured, every edge typed.
pub struct Pipeline {
    /// `name:`, else the file's stem.
    pub name: String,
    /// The pipeline file.
    pub file: PathBuf,
    /// Its folder; relative paths in parameters start there.
    pub base: PathBuf,
    /// `params:` after overrides.
    pub parameters: BTreeMap<String, Value>,
    /// In an order in which every stage comes after its inputs; the file's order among stages that do not depend on each other.
    pub stages: Vec<Node>,
}

/// One stage of a pipeline.
pub struct Node {
    /// The key under `stages:`.
    pub id: String,
    pub kind: &'static StageKind,
    pub configured: Configured,
    /// In the order of the kind's ports.
    pub inputs: Vec<Edge>,
}

/// An edge: an output of one stage that is an input of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The input port of the stage that has this edge.
    pub port: &'static str,
    /// Index into [`Pipeline::stages`].
    pub from: usize,
    /// The output port of that stage.
    pub output: &'static str,
}
#[derive(Debug)]
pub struct PipelineError;
impl PipelineError {
    pub fn to_json(&self) -> Value {
        Value::Null
    }
    pub fn render(&self, _c: bool) -> String {
        String::new()
    }
}
pub struct Override;
impl Override {
    pub fn parse(_t: &str) -> Result<Override, PipelineError> {
        Ok(Override)
    }
}
pub fn load(_f: &std::path::Path, _o: &[Override]) -> Result<Pipeline, PipelineError> {
    Err(PipelineError)
}
impl Pipeline {
    pub fn resolved(&self) -> String {
        String::new()
    }
}
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![]
}
