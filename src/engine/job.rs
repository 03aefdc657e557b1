//! One stage, from its inputs to its outputs in the store.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use serde_json::json;

use super::memory::Peak;
use super::mend::explained;
use super::reporter::StageReporter;
use super::{Engine, Event, Observer, Reason};
use crate::cancel::{Cancel, Cancelled};
use crate::pipeline::Edge;
use crate::run::{Recorder, StageStatus};
use crate::stage::{Context, Outcome};
use crate::store::{Artifact, Digest, Fingerprint, StageResult};

/// What a job needs besides the engine.
#[derive(Clone, Copy)]
pub(super) struct Surrounded<'a> {
    pub recorder: &'a Recorder,
    pub observer: &'a dyn Observer,
    pub cancel: &'a Cancel,
}

/// What a job tells the scheduler, and has from it.
pub(super) struct Worker<'a> {
    /// Starts watching the memory.
    pub peak: &'a dyn Fn() -> Peak,
    /// Called when the stage has computed: what is left is waiting for the disk, beside which another stage may compute.
    pub computed: &'a dyn Fn(),
}

/// Port → artifact, and where the run has it.
pub(super) type Placed = BTreeMap<String, (Artifact, PathBuf)>;

/// A stage that has to be computed.
pub(super) struct Due {
    pub index: usize,
    pub fingerprint: Fingerprint,
    pub reasons: Vec<Reason>,
    pub inputs: Placed,
}

/// Where a stage reads, and where it writes besides its outputs.
struct Places<'a> {
    inputs: BTreeMap<String, PathBuf>,
    scratch: &'a Path,
    checkpoints: &'a Path,
}

/// The digests of what comes in.
pub(super) fn digests_of(inputs: &Placed) -> BTreeMap<String, Digest> {
    inputs.iter().map(|(port, (artifact, _))| (port.clone(), artifact.digest.clone())).collect()
}

impl Engine<'_> {
    /// What feeds a stage; `finished` has what each stage before it yielded.
    pub(super) fn inputs(&self, index: usize, finished: &[Option<Placed>]) -> Result<Placed> {
        let input = |edge: &Edge| {
            let found = finished.get(edge.from).and_then(|placed| placed.as_ref()?.get(&edge.output));
            Ok((edge.port.clone(), found.context("an input is missing")?.clone()))
        };
        self.pipeline.stages[index].inputs.iter().map(input).collect()
    }

    /// Runs a stage, unless another process has meanwhile.
    pub(super) fn job(&self, due: Due, around: &Surrounded, worker: &Worker) -> Result<(StageStatus, StageResult, Placed)> {
        let Due { index, fingerprint, reasons, inputs } = due;
        let sound = self.sound(index, inputs.clone(), around, worker.peak)?;
        let fingerprint = if sound == inputs { fingerprint } else { self.fingerprint(index, digests_of(&sound)) };
        let (status, result) = self.compute(Due { index, fingerprint, reasons, inputs: sound }, around, worker)?;
        let placed = self.place(index, &result, around.recorder)?;
        Ok((status, result, placed))
    }

    /// Makes a stage's outputs appear in the run's directory.
    pub(super) fn place(&self, index: usize, result: &StageResult, recorder: &Recorder) -> Result<Placed> {
        let node = &self.pipeline.stages[index];
        let mut placed = BTreeMap::new();
        for port in &node.outputs {
            let artifact = result.outputs.get(&port.name).with_context(|| format!("there is no output `{}`", port.name))?;
            let target = recorder.artifact(&node.id, &port.file);
            self.store.link(artifact, &target)?;
            placed.insert(port.name.clone(), (artifact.clone(), target));
        }
        Ok(placed)
    }

    pub(super) fn compute(&self, due: Due, around: &Surrounded, worker: &Worker) -> Result<(StageStatus, StageResult)> {
        let Due { index, fingerprint, reasons, inputs } = due;
        let node = &self.pipeline.stages[index];
        let key = fingerprint.key();
        let waiting = || around.observer.event(&node.id, &Event::Waiting);
        let _lease = self.store.lease(&key, around.cancel, &waiting)?.ok_or(Cancelled)?;
        if !self.selection.forced.contains_key(&index)
            && let Some(result) = self.store.result(&key)
        {
            return Ok((StageStatus::Cached, result));
        }
        if let Some(result) = self.fetched(index, &key, around) {
            return Ok((StageStatus::Fetched, result));
        }
        around.cancel.check()?;
        self.put_aside(&node.id, &self.store.damage(&key), around)?;
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        around.recorder.event(Some(&node.id), json!({ "event": "stage_started", "reasons": reasons, "key": key }));
        around.recorder.log(&node.id, &format!("runs: {}", reasons.join("; ")));
        around.observer.event(&node.id, &Event::Started { reasons: &reasons });
        around.recorder.update_stage(&node.id, |stage| {
            stage.status = StageStatus::Running;
            stage.reasons = reasons;
            stage.key = Some(key.clone());
            stage.fingerprint = Some(fingerprint.clone());
        });
        let (started, peak) = (Instant::now(), (worker.peak)());
        let scratch = self.store.scratch()?;
        if self.selection.forced.contains_key(&index) {
            // What is forced begins anew.
            self.store.remove_checkpoints(&key);
        }
        let places = Places {
            inputs: inputs.into_iter().map(|(port, (_, path))| (port, path)).collect(),
            scratch: scratch.path(),
            checkpoints: &self.store.checkpoints(&key),
        };
        let (outcome, written) = self.call(index, places, around).map_err(explained)?;
        let (seconds, peak_memory) = (started.elapsed().as_secs_f64(), peak.bytes());
        (worker.computed)();
        let (finished, run) = (Timestamp::now(), around.recorder.id());
        let result = |outputs| StageResult { fingerprint, outputs, outcome, seconds, peak_memory, finished, run };
        let result = self.store.commit(&written, result)?;
        self.store.remove_checkpoints(&key);
        self.share(&result);
        Ok((StageStatus::Done, result))
    }

    /// Calls the stage; returns where it wrote its outputs.
    fn call(&self, index: usize, places: Places, around: &Surrounded) -> Result<(Outcome, BTreeMap<String, PathBuf>)> {
        let node = &self.pipeline.stages[index];
        let (own, written) = (places.scratch.join("own"), places.scratch.join("outputs"));
        for folder in [&own, &written] {
            fs::create_dir_all(folder).with_context(|| format!("`{}` cannot be written", folder.display()))?;
        }
        let outputs: BTreeMap<String, PathBuf> =
            node.outputs.iter().map(|port| (port.name.clone(), written.join(&port.file))).collect();
        let reporter = StageReporter { stage: &node.id, recorder: around.recorder, observer: around.observer };
        let context = Context {
            inputs: places.inputs,
            outputs: outputs.clone(),
            base: &self.pipeline.base,
            allowed: &self.pipeline.allowed,
            downloads: &self.downloads,
            scratch: &own,
            checkpoints: places.checkpoints,
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
