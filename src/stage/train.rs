//! The stage `train`: fine-tunes an embedding model.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "train",
    version: 1,
    summary: "fine-tunes an embedding model",
    inputs: &[
        Port { name: "model", kind: Kind::Model, required: true, doc: "the model to start from" },
        Port { name: "triplets", kind: Kind::Triplets, required: true, doc: "what to learn from" },
        Port { name: "eval", kind: Kind::Judgements, required: false, doc: "judged queries to evaluate on during training" },
    ],
    outputs: &[OutputPort {
        name: "model",
        kind: Kind::Model,
        file: "model",
        doc: "the fine-tuned model, loadable by sentence-transformers",
    }],
    unkeyed: &[],
    schema: schema::<Train>,
    configure: configure::<Train>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {}

impl Stage for Train {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
