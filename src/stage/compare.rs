//! The stage `compare`: puts baseline and fine-tuned metrics side by side.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "compare",
    version: 1,
    summary: "puts baseline and fine-tuned metrics side by side",
    inputs: &[
        Port { name: "baseline", kind: Kind::Metrics, required: true, doc: "metrics of the baseline" },
        Port { name: "tuned", kind: Kind::Metrics, required: true, doc: "metrics of the fine-tuned model" },
    ],
    outputs: &[OutputPort {
        name: "comparison",
        kind: Kind::File,
        file: "comparison",
        doc: "the table as CSV, JSON and Markdown",
    }],
    unkeyed: &[],
    schema: schema::<Compare>,
    configure: configure::<Compare>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {}

impl Stage for Compare {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
