//! What a run would do.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

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
    #[serde(serialize_with = "said")]
    pub reasons: Vec<Reason>,
    /// How long it took when it was computed, in seconds, when it is cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How long it will take if it runs, in seconds, from earlier results; see [`Engine::estimate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<f64>,
}

/// Each reason with its words.
fn said<S: Serializer>(reasons: &[Reason], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Said<'a> {
        #[serde(flatten)]
        reason: &'a Reason,
        words: String,
    }
    serializer.collect_seq(reasons.iter().map(|reason| Said { reason, words: reason.to_string() }))
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
    /// Its last result is used whatever changed, as the pipeline says.
    Frozen,
    /// `--only` or `--until` leaves it out.
    Skipped,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Cached => "cached",
            Verdict::Runs => "runs",
            Verdict::Depends => "depends",
            Verdict::Frozen => "frozen",
            Verdict::Skipped => "skipped",
        }
    }
}

/// The outputs of a stage, when it is cached.
type Known = Option<BTreeMap<String, Artifact>>;

impl Engine<'_> {
    /// What a run would do now, in the order of the pipeline.
    pub fn plan(&self) -> Vec<Planned> {
        let mut known: Vec<Known> = Vec::new();
        let mut planned = Vec::new();
        for (index, out) in self.selection.left_out.iter().enumerate() {
            let (plan, outputs) =
                if *out { (self.planned(index, Verdict::Skipped, Vec::new()), None) } else { self.plan_stage(index, &known) };
            planned.push(plan);
            known.push(outputs);
        }
        planned
    }

    fn planned(&self, index: usize, verdict: Verdict, reasons: Vec<Reason>) -> Planned {
        let node = &self.pipeline.stages[index];
        Planned { stage: node.id.clone(), uses: node.kind.name.to_owned(), verdict, reasons, seconds: None, estimate: None }
    }

    fn plan_stage(&self, index: usize, known: &[Known]) -> (Planned, Known) {
        let node = &self.pipeline.stages[index];
        let (mut inputs, mut upstream) = (BTreeMap::new(), Vec::new());
        for edge in &node.inputs {
            match known[edge.from].as_ref().and_then(|outputs| outputs.get(&edge.output)) {
                Some(artifact) => {
                    inputs.insert(edge.port.clone(), artifact.digest.clone());
                }
                None => {
                    let stage = self.pipeline.stages[edge.from].id.clone();
                    upstream.push(Reason::Upstream { port: edge.port.clone(), stage });
                }
            }
        }
        if upstream.is_empty() {
            let (verdict, reasons, result) = match self.decide(index, inputs) {
                Decision::Cached(result) => (Verdict::Cached, Vec::new(), result),
                Decision::Frozen { result, reasons } => (Verdict::Frozen, reasons, result),
                Decision::Run { reasons, .. } => return (self.planned(index, Verdict::Runs, reasons), None),
            };
            let planned = self.planned(index, verdict, reasons);
            return (Planned { seconds: Some(result.seconds), ..planned }, Some(result.outputs));
        }
        if let Some(reason) = self.selection.forced.get(&index) {
            return (self.planned(index, Verdict::Runs, vec![reason.clone()]), None);
        }
        // What is known already says whether it runs in any case; the unknown inputs do not count as changes.
        let unknown = |reason: &Reason| match reason {
            Reason::Changed { change: Change::Input { port }, .. } => !inputs.contains_key(port),
            Reason::Lost => true,
            _ => false,
        };
        let mut reasons = self.reasons(node, &self.fingerprint(index, inputs.clone()));
        reasons.retain(|reason| !unknown(reason));
        let frozen = self.frozen(node);
        let verdict = match () {
            () if frozen.is_some() => Verdict::Frozen,
            () if reasons.is_empty() => Verdict::Depends,
            () => Verdict::Runs,
        };
        reasons.extend(upstream);
        (self.planned(index, verdict, reasons), frozen.map(|result| result.outputs))
    }
}
