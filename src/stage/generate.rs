//! The stage `generate`: answers queries from the context that each model retrieves.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "generate",
    version: 1,
    summary: "answers queries from the context that each model retrieves",
    inputs: &[Port {
        name: "retrieved",
        kind: Kind::Retrieved,
        required: true,
        doc: "the queries and the context that each model retrieved",
    }],
    outputs: &[OutputPort {
        name: "answers",
        kind: Kind::Answers,
        file: "answers.jsonl",
        doc: "one answer for each query and model",
    }],
    unkeyed: &[],
    schema: schema::<Generate>,
    configure: configure::<Generate>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generate {}

impl Stage for Generate {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
