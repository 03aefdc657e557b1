//! The stage `evaluate`: measures retrieval with a model on judged queries.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, Port, Stage, StageKind, configure, schema};
use crate::artifact::Kind;

pub const KIND: StageKind = StageKind {
    name: "evaluate",
    version: 1,
    summary: "measures retrieval with a model on judged queries",
    inputs: &[
        Port { name: "model", kind: Kind::Model, required: true, doc: "the model to measure" },
        Port { name: "judgements", kind: Kind::Judgements, required: true, doc: "queries, corpus and judgements" },
    ],
    outputs: &[
        OutputPort { name: "metrics", kind: Kind::Metrics, file: "metrics", doc: "means and per-query values" },
        OutputPort { name: "ranking", kind: Kind::Ranking, file: "ranking.trec", doc: "the ranking as a TREC run file" },
    ],
    unkeyed: &[],
    schema: schema::<Evaluate>,
    configure: configure::<Evaluate>,
};

/// PLACEHOLDER
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {}

impl Stage for Evaluate {
    fn run(&self, _context: &Context) -> Result<Outcome> {
        anyhow::bail!("PLACEHOLDER")
    }
}
