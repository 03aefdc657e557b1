//! Taking results from a remote before they are computed, and giving them to it afterwards.

use std::collections::BTreeMap;

use super::job::Surrounded;
use super::{Engine, Event};
use crate::cancel::Cancel;
use crate::store::{Artifact, Digest, Remote, StageResult};

/// What there is of a stage, without computing anything.
#[derive(Debug, Clone, PartialEq)]
pub enum Gathered {
    /// Its result is in the store.
    Stored(Box<StageResult>),
    /// Its result came from the remote.
    Fetched(Box<StageResult>),
    /// Nothing, or its inputs are not known.
    Nothing,
}

impl<'a> Engine<'a> {
    /// With a remote: what is not in the store is looked for there, and what is computed is pushed there.
    #[must_use]
    pub fn sharing(mut self, remote: Option<&'a Remote>) -> Self {
        self.remote = remote;
        self
    }
}

impl Engine<'_> {
    /// The result of a stage that is not in the store, if the remote has it.
    pub(super) fn fetched(&self, index: usize, key: &Digest, around: &Surrounded) -> Option<StageResult> {
        let (remote, node) = (self.remote?, &self.pipeline.stages[index]);
        if self.selection.forced.contains_key(&index) {
            return None;
        }
        let warn = |line: &str| {
            around.recorder.log(&node.id, &format!("warning: {line}"));
            around.observer.event(&node.id, &Event::Warning(line));
        };
        let result = self.ask(remote, index, key, around.cancel, &warn)?;
        around.recorder.log(&node.id, &format!("fetched from {}", remote.location()));
        Some(result)
    }

    fn ask(&self, remote: &Remote, index: usize, key: &Digest, cancel: &Cancel, warn: &dyn Fn(&str)) -> Option<StageResult> {
        let ports: Vec<&str> = self.pipeline.stages[index].outputs.iter().map(|port| port.name.as_str()).collect();
        remote.fetch(self.store, key, &ports, cancel, warn)
    }

    /// Gives a result that was computed to the remote.
    pub(super) fn share(&self, result: &StageResult) {
        if let Some(remote) = self.remote {
            remote.push(self.store, result);
        }
    }

    /// What there is of each stage, in the order of the pipeline: from the store, or else from the remote, if there is one. `warn` gets the
    /// stage and what is wrong in the remote.
    pub fn gather(&self, cancel: &Cancel, warn: &dyn Fn(&str, &str)) -> Vec<(&str, Gathered)> {
        let mut known: Vec<BTreeMap<String, Artifact>> = Vec::new();
        let mut gathered = Vec::new();
        for (index, node) in self.pipeline.stages.iter().enumerate() {
            let inputs = node.inputs.iter().map(|edge| {
                let artifact = known.get(edge.from)?.get(&edge.output)?;
                Some((edge.port.clone(), artifact.digest.clone()))
            });
            let found = match inputs.collect::<Option<BTreeMap<_, _>>>() {
                Some(inputs) if !cancel.is_set() => {
                    let key = self.fingerprint(index, inputs).key();
                    let warn = |line: &str| warn(&node.id, line);
                    let ask = |remote| self.ask(remote, index, &key, cancel, &warn).map(|r| Gathered::Fetched(Box::new(r)));
                    let stored = self.store.result(&key).map(|r| Gathered::Stored(Box::new(r)));
                    stored.or_else(|| self.remote.and_then(ask)).unwrap_or(Gathered::Nothing)
                }
                _ => Gathered::Nothing,
            };
            known.push(match &found {
                Gathered::Stored(result) | Gathered::Fetched(result) => result.outputs.clone(),
                Gathered::Nothing => BTreeMap::new(),
            });
            gathered.push((node.id.as_str(), found));
        }
        gathered
    }
}
