//! The stage `retrieve`: shows the top chunks of two models side by side.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "retrieve",
    version: 1,
    summary: "shows the top chunks of two models side by side",
    inputs: &[
        Port { name: "baseline", kind: Kind::Model, required: true, doc: "the baseline" },
        Port { name: "tuned", kind: Kind::Model, required: true, doc: "the fine-tuned model" },
        Port {
            name: "judgements",
            kind: Kind::Judgements,
            required: true,
            doc: "the corpus, and the queries unless `queries` names some",
        },
    ],
    outputs: &[OutputPort {
        name: "retrieved",
        kind: Kind::File,
        file: "retrieved",
        doc: "side by side as Markdown and JSON Lines",
    }],
    unkeyed: &[],
    schema: schema::<Retrieve>,
    configure: configure::<Retrieve>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retrieve {}

impl Stage for Retrieve {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
