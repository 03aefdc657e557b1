//! What a stage is about to read is checked, and what turns out damaged is computed again.

use std::io;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Error, Result, anyhow};

use super::job::{Due, Placed, Surrounded, Worker, digests_of};
use super::memory::Peak;
use super::{Engine, Event, Reason};
use crate::run::StageStatus;
use crate::store::Digest;

/// One stage at a time is mended: of two that found the same damage, the second finds it mended.
static MENDING: Mutex<()> = Mutex::new(());

impl Engine<'_> {
    /// Reads what a stage is about to use, unless this process has before. What is damaged is put aside, the stage that makes it runs
    /// again, once, and the inputs are those that it yields then.
    pub(super) fn sound(&self, index: usize, inputs: Placed, around: &Surrounded, peak: &dyn Fn() -> Peak) -> Result<Placed> {
        if inputs.values().all(|(artifact, _)| self.store.unsound(artifact).is_empty()) {
            return Ok(inputs);
        }
        let _one = MENDING.lock().unwrap_or_else(PoisonError::into_inner);
        self.mended(index, inputs, around, peak)
    }

    fn mended(&self, index: usize, mut inputs: Placed, around: &Surrounded, peak: &dyn Fn() -> Peak) -> Result<Placed> {
        for edge in &self.pipeline.stages[index].inputs {
            let Some((artifact, _)) = inputs.get(&edge.port) else { continue };
            let damaged = self.store.unsound(artifact);
            if damaged.is_empty() {
                continue;
            }
            let mut placed = self.again(edge.from, &damaged, around, peak)?;
            let input = placed.remove(&edge.output).context("an input is missing")?;
            if let Some(object) = self.store.unsound(&input.0).first() {
                let (stage, object) = (&self.pipeline.stages[edge.from].id, object.short());
                return Err(anyhow!(
                    "object {object} of `{stage}` is damaged again right after it was made; look after the disk"
                ));
            }
            inputs.insert(edge.port.clone(), input);
        }
        Ok(inputs)
    }

    /// Runs a stage again whose result was used in this run already.
    fn again(&self, index: usize, damaged: &[Digest], around: &Surrounded, peak: &dyn Fn() -> Peak) -> Result<Placed> {
        let node = &self.pipeline.stages[index];
        self.put_aside(&node.id, damaged, around)?;
        let mut inputs = Placed::new();
        for edge in &node.inputs {
            let from = &self.pipeline.stages[edge.from];
            let port = from.outputs.iter().find(|port| port.name == edge.output).context("an input is missing")?;
            let record = around.recorder.record();
            let artifact = record.stages.get(&from.id).and_then(|stage| stage.outputs.get(&edge.output));
            let artifact = artifact.context("an input is missing")?.clone();
            inputs.insert(edge.port.clone(), (artifact, around.recorder.artifact(&from.id, &port.file)));
        }
        let inputs = self.mended(index, inputs, around, peak)?;
        let fingerprint = self.fingerprint(index, digests_of(&inputs));
        let reasons = vec![Reason::Damaged { objects: damaged.iter().map(|object| object.short().to_owned()).collect() }];
        // The place that the scheduler counts is that of the stage that waits for this one.
        let worker = Worker { peak, computed: &|| () };
        let (status, result) = self.compute(Due { index, fingerprint, reasons, inputs }, around, &worker)?;
        let placed = self.place(index, &result, around.recorder)?;
        // Another process may have been faster.
        let status = if status == StageStatus::Cached { status } else { StageStatus::Done };
        around.recorder.update_stage(&node.id, |stage| {
            stage.status = status;
            stage.key = Some(result.fingerprint.key());
            stage.fingerprint = Some(result.fingerprint);
            stage.outputs = result.outputs;
            stage.outcome = Some(result.outcome);
            stage.seconds = Some(result.seconds);
            stage.peak_memory = result.peak_memory;
            stage.computed_by = Some(result.run);
        });
        let stage = around.recorder.record().stages.get(&node.id).cloned().unwrap_or_default();
        around.observer.event(&node.id, &Event::Ended(&stage));
        Ok(placed)
    }

    /// Puts damaged objects of a stage aside, and tells of each.
    pub(super) fn put_aside(&self, stage: &str, damaged: &[Digest], around: &Surrounded) -> Result<()> {
        for object in damaged {
            let words = match self.store.quarantine(object)? {
                Some(path) => format!("object {} of its result was damaged, and is `{}` now", object.short(), path.display()),
                None => format!("object {} of its result is missing", object.short()),
            };
            around.recorder.log(stage, &format!("warning: {words}"));
            around.observer.event(stage, &Event::Warning(&words));
        }
        Ok(())
    }
}

/// Says what to do when a stage failed because the disk is full.
pub(super) fn explained(error: Error) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let words = kinds.filter_map(|kind| match kind {
        StorageFull | QuotaExceeded => Some("the disk is full; `retune gc` says what can go"),
        FileTooLarge => Some("a file would be larger than the system lets this process write; raise the limit (`ulimit -f`)"),
        _ => None,
    });
    match words.last() {
        Some(words) => error.context(words),
        None => error,
    }
}
