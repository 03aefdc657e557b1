//! Whether a stage is cached, and if not, why not.

use std::collections::BTreeMap;

use super::{Engine, Reason};
use crate::pipeline::Node;
use crate::run::Change;
use crate::store::{Digest, Fingerprint, StageResult};

/// What is to be done with a stage whose inputs are known.
pub(super) enum Decision {
    Cached(Box<StageResult>),
    Run { fingerprint: Fingerprint, reasons: Vec<Reason> },
}

impl Engine<'_> {
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
        if self.options.force.contains(&node.id) {
            return Decision::Run { fingerprint, reasons: vec![Reason::Forced] };
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

    /// Why a stage that is not cached runs.
    pub(super) fn reasons(&self, node: &Node, fingerprint: &Fingerprint) -> Vec<Reason> {
        let Some(last) = self.last.0.get(&node.id) else { return vec![Reason::New] };
        let changes = Change::between(last, fingerprint);
        if changes.is_empty() {
            return vec![Reason::Lost];
        }
        let feeds = self.feeds(node);
        let from = |change: &Change| match change {
            Change::Input { port } => feeds.get(port.as_str()).map(|stage| (*stage).to_owned()),
            _ => None,
        };
        changes.into_iter().map(|change| Reason::Changed { from: from(&change), change }).collect()
    }
}
