//! The stage `model`: fetches an embedding model.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "model",
    version: 1,
    summary: "fetches an embedding model",
    inputs: &[],
    outputs: &[OutputPort { name: "model", kind: Kind::Model, file: "model", doc: "a sentence-transformers directory" }],
    unkeyed: &[],
    schema: schema::<Model>,
    configure: configure::<Model>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {}

impl Stage for Model {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
