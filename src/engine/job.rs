//! One stage, from its inputs to its outputs in the store.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;

use super::decide::Decision;
use super::memory::Peak;
use super::reporter::StageReporter;
use super::{Engine, Event, Observer};
use crate::cancel::{Cancel, Cancelled};
use crate::run::{Recorder, StageStatus};
use crate::stage::{Context, Outcome};
use crate::store::{Artifact, Fingerprint, StageResult};

/// What a job needs besides the engine.
pub(super) struct Surrounded<'a> {
    pub recorder: &'a Recorder,
    pub observer: &'a dyn Observer,
    pub cancel: &'a Cancel,
}

/// The outputs of a stage: what is in the store, and where the run has it.
#[derive(Debug, Clone)]
pub(super) struct Yielded(pub BTreeMap<String, (Artifact, PathBuf)>);

impl Engine<'_> {
    /// Takes a stage's result from the store, or runs it. `finished` has what each stage before it yielded.
    pub(super) fn job(
        &self,
        index: usize,
        finished: &[Option<Yielded>],
        around: &Surrounded,
        peak: &dyn Fn() -> Peak,
    ) -> Result<(StageStatus, StageResult, Yielded)> {
        let node = &self.pipeline.stages[index];
        let mut inputs = BTreeMap::new();
        for edge in &node.inputs {
            let found = finished[edge.from].as_ref().and_then(|y| y.0.get(&edge.output));
            inputs.insert(edge.port.clone(), found.context("an input is missing")?.clone());
        }
        let digests = inputs.iter().map(|(port, (artifact, _))| (port.clone(), artifact.digest.clone())).collect();
        let (status, result) = match self.decide(index, digests) {
            Decision::Cached(result) => (StageStatus::Cached, *result),
            Decision::Run { fingerprint, reasons } => {
                let paths = inputs.into_iter().map(|(port, (_, path))| (port, path)).collect();
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                self.compute(index, fingerprint, reasons, paths, around, peak)?
            }
        };
        let mut yielded = BTreeMap::new();
        for port in &node.outputs {
            let artifact = result.outputs.get(&port.name).with_context(|| format!("there is no output `{}`", port.name))?;
            let target = around.recorder.artifact(&node.id, &port.file);
            self.store.link(artifact, &target)?;
            yielded.insert(port.name.clone(), (artifact.clone(), target));
        }
        Ok((status, result, Yielded(yielded)))
    }

    fn compute(
        &self,
        index: usize,
        fingerprint: Fingerprint,
        reasons: Vec<String>,
        inputs: BTreeMap<String, PathBuf>,
        around: &Surrounded,
        peak: &dyn Fn() -> Peak,
    ) -> Result<(StageStatus, StageResult)> {
        let node = &self.pipeline.stages[index];
        let key = fingerprint.key();
        let waiting = || around.observer.event(&node.id, &Event::Waiting);
        let _lock = self.store.lock(&key, around.cancel, &waiting)?.ok_or(Cancelled)?;
        if !self.options.force.contains(&node.id)
            && let Some(result) = self.store.result(&key)
        {
            return Ok((StageStatus::Cached, result));
        }
        around.cancel.check()?;
        around.recorder.update_stage(&node.id, |stage| {
            stage.status = StageStatus::Running;
            stage.reasons.clone_from(&reasons);
            stage.key = Some(key);
            stage.fingerprint = Some(fingerprint.clone());
        })?;
        around.recorder.log(&node.id, &format!("runs: {}", reasons.join("; ")));
        around.observer.event(&node.id, &Event::Started { reasons: &reasons });
        let (started, peak) = (Instant::now(), peak());
        let scratch = self.store.scratch()?;
        let (outcome, written) = self.call(index, inputs, scratch.path(), around)?;
        let mut outputs = BTreeMap::new();
        for (port, path) in written {
            outputs.insert(port, self.store.put(&path)?);
        }
        let result = StageResult {
            fingerprint,
            outputs,
            outcome,
            seconds: started.elapsed().as_secs_f64(),
            peak_memory: peak.bytes(),
            finished: Timestamp::now(),
            run: around.recorder.id(),
        };
        self.store.keep(&result)?;
        Ok((StageStatus::Done, result))
    }

    /// Calls the stage; returns where it wrote its outputs.
    fn call(
        &self,
        index: usize,
        inputs: BTreeMap<String, PathBuf>,
        scratch: &std::path::Path,
        around: &Surrounded,
    ) -> Result<(Outcome, BTreeMap<String, PathBuf>)> {
        let node = &self.pipeline.stages[index];
        let (own, written) = (scratch.join("own"), scratch.join("outputs"));
        for folder in [&own, &written] {
            fs::create_dir_all(folder).with_context(|| format!("`{}` cannot be written", folder.display()))?;
        }
        let outputs: BTreeMap<String, PathBuf> =
            node.outputs.iter().map(|port| (port.name.clone(), written.join(&port.file))).collect();
        let reporter = StageReporter { stage: &node.id, recorder: around.recorder, observer: around.observer };
        let context = Context {
            inputs,
            outputs: outputs.clone(),
            base: &self.pipeline.base,
            allowed: &self.pipeline.allowed,
            downloads: &self.downloads,
            scratch: &own,
            reporter: &reporter,
            cancel: around.cancel,
        };
        // A stage that panics must not take the results of the others with it.
        let called = catch_unwind(AssertUnwindSafe(|| node.configured.stage.run(&context)));
        let outcome = called.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default();
            Err(anyhow!("the stage broke down ({text}); this is a mistake in retune, please report it"))
        })?;
        Ok((outcome, outputs))
    }
}
