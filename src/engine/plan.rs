//! What a run would do.

use std::collections::BTreeMap;

use serde::Serialize;

use super::decide::Decision;
use super::{Engine, Reason};
use crate::run::Change;
use crate::store::Artifact;

/// What would happen to a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planned {
    pub stage: String,
    /// The kind of stage.
    pub uses: String,
    pub verdict: Verdict,
    pub reasons: Vec<Reason>,
    /// How long it took when it was computed, in seconds, when it is cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// What would happen to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Its result is in the store.
    Cached,
    /// It runs.
    Runs,
    /// It runs unless what feeds it yields the same bytes as before.
    Depends,
    /// `--only` leaves it out.
    Skipped,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Cached => "cached",
            Verdict::Runs => "runs",
            Verdict::Depends => "depends",
            Verdict::Skipped => "skipped",
        }
    }
}

impl Engine<'_> {
    /// What a run would do now, in the order of the pipeline.
    pub fn plan(&self) -> Vec<Planned> {
        let left_out = self.left_out();
        let mut known: Vec<Option<BTreeMap<String, Artifact>>> = Vec::new();
        let mut planned = Vec::new();
        for (index, node) in self.pipeline.stages.iter().enumerate() {
            let (verdict, reasons, seconds, outputs) =
                if left_out[index] { (Verdict::Skipped, Vec::new(), None, None) } else { self.plan_stage(index, &known) };
            planned.push(Planned { stage: node.id.clone(), uses: node.kind.name.to_owned(), verdict, reasons, seconds });
            known.push(outputs);
        }
        planned
    }

    fn plan_stage(
        &self,
        index: usize,
        known: &[Option<BTreeMap<String, Artifact>>],
    ) -> (Verdict, Vec<Reason>, Option<f64>, Option<BTreeMap<String, Artifact>>) {
        let node = &self.pipeline.stages[index];
        let (mut inputs, mut upstream) = (BTreeMap::new(), Vec::new());
        for edge in &node.inputs {
            match known[edge.from].as_ref().and_then(|outputs| outputs.get(edge.output)) {
                Some(artifact) => {
                    inputs.insert(edge.port.to_owned(), artifact.digest.clone());
                }
                None => {
                    let stage = self.pipeline.stages[edge.from].id.clone();
                    upstream.push(Reason::Upstream { port: edge.port.to_owned(), stage });
                }
            }
        }
        if upstream.is_empty() {
            return match self.decide(index, inputs) {
                Decision::Cached(result) => (Verdict::Cached, Vec::new(), Some(result.seconds), Some(result.outputs)),
                Decision::Run { reasons, .. } => (Verdict::Runs, reasons, None, None),
            };
        }
        if self.options.force.contains(&node.id) {
            return (Verdict::Runs, vec![Reason::Forced], None, None);
        }
        // What is known already says whether it runs in any case; the unknown inputs do not count as changes.
        let unknown = |reason: &Reason| match reason {
            Reason::Changed { change: Change::Input { port }, .. } => !inputs.contains_key(port),
            Reason::Lost => true,
            _ => false,
        };
        let mut reasons = self.reasons(node, &self.fingerprint(index, inputs.clone()));
        reasons.retain(|reason| !unknown(reason));
        let verdict = if reasons.is_empty() { Verdict::Depends } else { Verdict::Runs };
        reasons.extend(upstream);
        (verdict, reasons, None, None)
    }
}
