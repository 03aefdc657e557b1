//! The stage `judge`: says which chunks answer which queries.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "judge",
    version: 1,
    summary: "says which chunks answer which queries",
    inputs: &[Port {
        name: "chunks",
        kind: Kind::Chunks,
        required: false,
        doc: "the corpus; left out when a BEIR folder brings its own",
    }],
    outputs: &[OutputPort {
        name: "judgements",
        kind: Kind::Judgements,
        file: "judgements",
        doc: "corpus, queries and judgements as a BEIR folder",
    }],
    unkeyed: &[],
    schema: schema::<Judge>,
    configure: configure::<Judge>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {}

impl Stage for Judge {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
