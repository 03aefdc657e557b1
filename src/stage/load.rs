//! The stage `load`: reads a folder of documents.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "load",
    version: 1,
    summary: "reads a folder of documents",
    inputs: &[],
    outputs: &[OutputPort {
        name: "documents",
        kind: Kind::Documents,
        file: "documents.jsonl",
        doc: "the documents, in path order",
    }],
    unkeyed: &[],
    schema: schema::<Load>,
    configure: configure::<Load>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {}

impl Stage for Load {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
