//! The stage `chunk`: splits documents into chunks of whole sentences.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "chunk",
    version: 1,
    summary: "splits documents into chunks of whole sentences",
    inputs: &[Port { name: "documents", kind: Kind::Documents, required: true, doc: "what to split" }],
    outputs: &[OutputPort { name: "chunks", kind: Kind::Chunks, file: "chunks.jsonl", doc: "the chunks, in document order" }],
    unkeyed: &[],
    schema: schema::<Chunk>,
    configure: configure::<Chunk>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chunk {}

impl Stage for Chunk {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
