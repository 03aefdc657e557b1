//! The stage `mine`: makes training triplets.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "mine",
    version: 1,
    summary: "makes training triplets",
    inputs: &[
        Port { name: "chunks", kind: Kind::Chunks, required: false, doc: "the corpus for keyword rules" },
        Port {
            name: "judgements",
            kind: Kind::Judgements,
            required: false,
            doc: "queries and judgements to take positives from",
        },
    ],
    outputs: &[OutputPort { name: "triplets", kind: Kind::Triplets, file: "triplets.jsonl", doc: "anchor, positive, negative" }],
    unkeyed: &[],
    schema: schema::<Mine>,
    configure: configure::<Mine>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mine {}

impl Stage for Mine {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
