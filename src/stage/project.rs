//! The stage `project`: draws texts under both models in two dimensions.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "project",
    version: 1,
    summary: "draws texts under both models in two dimensions",
    inputs: &[
        Port { name: "baseline", kind: Kind::Model, required: true, doc: "the baseline" },
        Port { name: "tuned", kind: Kind::Model, required: true, doc: "the fine-tuned model" },
        Port { name: "judgements", kind: Kind::Judgements, required: false, doc: "queries and passages to draw" },
    ],
    outputs: &[OutputPort {
        name: "plots",
        kind: Kind::File,
        file: "plots",
        doc: "`projection.png`, `projection.svg`, `projection.csv`",
    }],
    unkeyed: &[],
    schema: schema::<Project>,
    configure: configure::<Project>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Project {}

impl Stage for Project {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
