//! Whether a stage is cached, and if not, why not.

use std::collections::BTreeMap;

use super::{Engine, Reason};
use crate::pipeline::Node;
use crate::run::Change;
use crate::store::{Digest, Fingerprint, StageResult};

/// What is to be done with a stage whose inputs are known.
pub(super) enum Decision {
    Cached(Box<StageResult>),
    /// Its last result is used although it would run, for these reasons.
    Frozen {
        result: Box<StageResult>,
        reasons: Vec<Reason>,
    },
    Run {
        fingerprint: Fingerprint,
        reasons: Vec<Reason>,
    },
}

impl Engine<'_> {
    /// Each stage with what decides its result besides the results of others.
    pub fn given(&self) -> impl Iterator<Item = (&str, Fingerprint)> {
        let stages = self.pipeline.stages.iter().enumerate();
        stages.map(|(index, node)| (node.id.as_str(), self.fingerprint(index, BTreeMap::new())))
    }

    /// What goes into a stage, with the inputs that are known.
    pub(super) fn fingerprint(&self, index: usize, inputs: BTreeMap<String, Digest>) -> Fingerprint {
        let node = &self.pipeline.stages[index];
        Fingerprint {
            kind: node.kind.name.to_owned(),
            version: node.kind.version,
            parameters: Self::keyed(node),
            inputs,
            externals: self.externals[index].clone(),
        }
    }

    /// Looks a stage with known inputs up in the store.
    pub(super) fn decide(&self, index: usize, inputs: BTreeMap<String, Digest>) -> Decision {
        let node = &self.pipeline.stages[index];
        let fingerprint = self.fingerprint(index, inputs);
        if let Some(reason) = self.selection.forced.get(&index) {
            return Decision::Run { fingerprint, reasons: vec![reason.clone()] };
        }
        if let Some(result) = self.frozen(node) {
            let result = Box::new(result);
            let reasons = self.changes(node, &result.fingerprint, &fingerprint);
            return if reasons.is_empty() { Decision::Cached(result) } else { Decision::Frozen { result, reasons } };
        }
        if let Some(result) = self.store.result(&fingerprint.key()) {
            return Decision::Cached(Box::new(result));
        }
        let damaged = self.store.damage(&fingerprint.key());
        if !damaged.is_empty() {
            let objects = damaged.iter().map(|object| object.short().to_owned()).collect();
            return Decision::Run { fingerprint, reasons: vec![Reason::Damaged { objects }] };
        }
        let reasons = self.reasons(node, &fingerprint);
        Decision::Run { fingerprint, reasons }
    }

    /// What a frozen stage yielded the last time.
    pub(super) fn frozen(&self, node: &Node) -> Option<StageResult> {
        let last = self.last.0.get(&node.id).filter(|_| node.freeze)?;
        self.store.result(&last.key())
    }

    /// Why a stage that is not cached runs.
    pub(super) fn reasons(&self, node: &Node, fingerprint: &Fingerprint) -> Vec<Reason> {
        let Some(last) = self.last.0.get(&node.id) else { return vec![Reason::New] };
        let reasons = self.changes(node, last, fingerprint);
        if reasons.is_empty() { vec![Reason::Lost] } else { reasons }
    }

    /// What differs between what went into a stage the last time and now.
    fn changes(&self, node: &Node, last: &Fingerprint, now: &Fingerprint) -> Vec<Reason> {
        let feeds = self.feeds(node);
        let reason = |change: Change| match &change {
            Change::Input { port } => {
                let from = feeds.get(port.as_str()).map(|stage| (*stage).to_owned());
                let rows = self.rows(node, port, last.inputs.get(port), now.inputs.get(port));
                Reason::Changed { change, from, rows }
            }
            _ => Reason::Changed { change, from: None, rows: None },
        };
        Change::between(last, now).into_iter().map(reason).collect()
    }
}
