//! Running stages in the order of their edges, independent ones side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use anyhow::{Error, anyhow};
use serde_json::json;

use super::decide::Decision;
use super::job::{Due, Placed, Surrounded, Worker};
use super::memory::MemoryWatch;
use super::plan::Verdict;
use super::{Engine, Event, Observer, PrepareError, Reason};
use crate::cancel::{Cancel, Cancelled};
use crate::run::{REFRESH, Recorder, RecorderError, RunRecord, RunStatus, StageRecord, StageStatus};
use crate::store::{Fingerprint, StageResult};

/// Stages that have computed and wait for the disk, beside those that compute: a flush takes milliseconds however little there is
/// to flush, and many at once take hardly longer than one.
const MOST_WAITING: usize = 16;

/// How a stage stands while the pipeline runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Ended,
}

type Ended = Result<(StageStatus, StageResult, Placed), Error>;

/// What the threads of the stages tell.
enum Message {
    Computed,
    Ended {
        index: usize,
        /// Whether it was told that it had computed.
        computed: bool,
        ended: Box<Ended>,
    },
}

/// The state of a run.
struct Run<'a> {
    engine: &'a Engine<'a>,
    around: Surrounded<'a>,
    states: Vec<State>,
    /// Stages whose inputs are there; those that stand first in the file come first.
    ready: BTreeSet<usize>,
    /// By stage: how many of its inputs are not there yet.
    lacks: Vec<usize>,
    /// By stage: the stages that it feeds, once an edge.
    feeds: Vec<Vec<usize>>,
    placed: Vec<Option<Placed>>,
    /// What went into the stages, where it is not what it was the last time.
    changed: BTreeMap<String, Fingerprint>,
    failed: bool,
}

impl Engine<'_> {
    /// What `--only` asks for cannot be done when something it needs is not cached.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn check_only(&self) -> Result<(), PrepareError> {
        let only = &self.selection.only;
        if only.is_empty() {
            return Ok(());
        }
        let planned = self.plan();
        let missing = planned.iter().enumerate().filter(|(index, _)| !only.contains(index));
        let missing = missing.filter(|(_, p)| matches!(p.verdict, Verdict::Runs | Verdict::Depends));
        let names: Vec<String> = missing.map(|(_, p)| format!("`{}`", p.stage)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let only: Vec<&str> = only.iter().filter_map(|index| Some(planned.get(*index)?.stage.as_str())).collect();
        Err(PrepareError(vec![format!(
            "`--only` runs `{}` alone, and needs {} from the store, which does not have it; run without `--only`",
            only.join("`, `"),
            names.join(", ")
        )]))
    }

    /// Runs what is not cached. What runs when a stage fails or `cancel` is set is waited for, so that nothing that is finished is lost,
    /// and nothing new begins.
    ///
    /// # Errors
    /// The run's directory cannot be written. A stage that fails is in the record.
    pub fn run(&self, recorder: &Recorder, observer: &dyn Observer, cancel: &Cancel) -> Result<RunRecord, RecorderError> {
        // A store that cannot be written still gives what it has; whoever has to write into it says so.
        let runs = recorder.folder().parent().unwrap_or(recorder.folder());
        let _ = self.store.begin().and_then(|()| self.store.note_runs(runs));
        let stages = &self.pipeline.stages;
        let mut feeds = vec![Vec::new(); stages.len()];
        for (index, node) in stages.iter().enumerate() {
            node.inputs.iter().for_each(|edge| feeds[edge.from].push(index));
        }
        let lacks: Vec<usize> = stages.iter().map(|node| node.inputs.len()).collect();
        let ready = (0..stages.len()).filter(|&index| lacks[index] == 0 && !self.selection.left_out[index]).collect();
        let mut run = Run {
            engine: self,
            around: Surrounded { recorder, observer, cancel },
            states: vec![State::Waiting; stages.len()],
            ready,
            lacks,
            feeds,
            placed: vec![None; stages.len()],
            changed: BTreeMap::new(),
            failed: false,
        };
        recorder.event(None, json!({ "event": "run_started", "run": recorder.id() }));
        for (index, _) in self.selection.left_out.iter().enumerate().filter(|(_, out)| **out) {
            run.skip(index);
        }
        run.all();
        run.end()
    }
}

impl Run<'_> {
    fn all(&mut self) {
        let memory = MemoryWatch::default();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            // Stages that compute, and threads, which are those and the stages that wait for the disk.
            let (mut computing, mut threads) = (0, 0);
            loop {
                while computing < self.engine.jobs
                    && threads < self.engine.jobs + MOST_WAITING
                    && let Some(index) = self.next()
                {
                    let Some(due) = self.look(index) else { continue };
                    (computing, threads) = (computing + 1, threads + 1);
                    let (sender, engine, memory, around) = (sender.clone(), self.engine, &memory, self.around);
                    scope.spawn(move || {
                        let told = std::cell::Cell::new(false);
                        // The receiver lives as long as the scope.
                        let tell = |message| drop(sender.send(message));
                        let computed = || {
                            told.set(true);
                            tell(Message::Computed);
                        };
                        let worker = Worker { peak: &|| memory.peak(scope), computed: &computed };
                        let ended = Box::new(engine.job(due, &around, &worker));
                        tell(Message::Ended { index, computed: told.get(), ended });
                    });
                }
                if threads == 0 {
                    break;
                }
                match receiver.recv_timeout(REFRESH) {
                    Ok(Message::Computed) => computing -= 1,
                    Ok(Message::Ended { index, computed, ended }) => {
                        (computing, threads) = (computing - usize::from(!computed), threads - 1);
                        self.ended(index, *ended);
                    }
                    Err(RecvTimeoutError::Timeout) => self.refresh(),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            memory.end();
        });
    }

    /// The next stage whose inputs are there.
    fn next(&mut self) -> Option<usize> {
        if self.failed || self.around.cancel.is_set() { None } else { self.ready.pop_first() }
    }

    /// Ends a stage if the store has its result; else says what it takes to compute it.
    fn look(&mut self, index: usize) -> Option<Due> {
        self.states[index] = State::Running;
        let ended = match self.decided(index) {
            Ok((Decision::Run { fingerprint, reasons }, inputs)) => return Some(Due { index, fingerprint, reasons, inputs }),
            Ok((Decision::Cached(result), _)) => self.taken(index, StageStatus::Cached, *result),
            Ok((Decision::Frozen { result, reasons }, _)) => {
                let reasons = reasons.iter().map(Reason::to_string).collect();
                self.around.recorder.update_stage(&self.engine.pipeline.stages[index].id, |stage| stage.reasons = reasons);
                self.taken(index, StageStatus::Frozen, *result)
            }
            Err(error) => Err(error),
        };
        self.ended(index, ended);
        None
    }

    fn decided(&self, index: usize) -> Result<(Decision, Placed), Error> {
        let inputs = self.engine.inputs(index, &self.placed)?;
        let digests = inputs.iter().map(|(port, (artifact, _))| (port.clone(), artifact.digest.clone())).collect();
        Ok((self.engine.decide(index, digests), inputs))
    }

    fn taken(&self, index: usize, status: StageStatus, result: StageResult) -> Ended {
        let placed = self.engine.place(index, &result, self.around.recorder)?;
        Ok((status, result, placed))
    }

    fn ended(&mut self, index: usize, ended: Ended) {
        self.states[index] = State::Ended;
        let id = &self.engine.pipeline.stages[index].id;
        match ended {
            Ok((status, result, placed)) => {
                if self.engine.last.0.get(id) != Some(&result.fingerprint) {
                    self.changed.insert(id.clone(), result.fingerprint.clone());
                }
                for &fed in &self.feeds[index] {
                    self.lacks[fed] -= 1;
                    if self.lacks[fed] == 0 && !self.engine.selection.left_out[fed] {
                        self.ready.insert(fed);
                    }
                }
                let folder = self.around.recorder.folder();
                let paths = placed.iter().map(|(port, (_, path))| {
                    let below = path.strip_prefix(folder).unwrap_or(path);
                    (port.clone(), below.to_string_lossy().replace('\\', "/"))
                });
                let paths = paths.collect();
                self.placed[index] = Some(placed);
                self.record(id, |stage| {
                    stage.status = status;
                    stage.key = Some(result.fingerprint.key());
                    stage.fingerprint = Some(result.fingerprint);
                    stage.outputs = result.outputs;
                    stage.paths = paths;
                    stage.outcome = Some(result.outcome);
                    stage.seconds = Some(result.seconds);
                    stage.peak_memory = result.peak_memory;
                    stage.computed_by = Some(result.run);
                });
            }
            Err(error) => {
                let interrupted = self.around.cancel.is_set() && error.root_cause().is::<Cancelled>();
                let message = format!("{error:#}");
                self.around.recorder.log(id, &message);
                self.failed |= !interrupted;
                self.record(id, |stage| {
                    stage.status = if interrupted { StageStatus::Interrupted } else { StageStatus::Failed };
                    stage.error = (!interrupted).then_some(message);
                });
            }
        }
        self.refresh();
    }

    fn skip(&mut self, index: usize) {
        self.states[index] = State::Ended;
        self.record(&self.engine.pipeline.stages[index].id, |stage| stage.status = StageStatus::Skipped);
    }

    /// Puts into the record what became of a stage, and tells it.
    fn record(&self, id: &str, change: impl FnOnce(&mut StageRecord)) {
        let Surrounded { recorder, observer, .. } = self.around;
        let mut stage = recorder.record().stages.get(id).cloned().unwrap_or_default();
        change(&mut stage);
        let event = json!({ "event": "stage_ended", "status": stage.status, "seconds": stage.seconds, "error": stage.error });
        recorder.event(Some(id), event);
        observer.event(id, &Event::Ended(&stage));
        recorder.update_stage(id, |recorded| *recorded = stage);
    }

    /// Keeps `run.json` up to date.
    fn refresh(&mut self) {
        if let Err(error) = self.around.recorder.refresh() {
            // The results are in the store; the run cannot say so, which is its failure.
            self.failed = true;
            self.around.observer.event("", &Event::Warning(&error.to_string()));
        }
    }

    fn end(mut self) -> Result<RunRecord, RecorderError> {
        for index in 0..self.states.len() {
            if self.states[index] == State::Waiting {
                self.skip(index);
            }
        }
        let Surrounded { recorder, cancel, .. } = self.around;
        let unfinished = recorder
            .record()
            .stages
            .values()
            .any(|s| matches!(s.status, StageStatus::Interrupted | StageStatus::Skipped | StageStatus::Waiting));
        let status = match () {
            () if self.failed => RunStatus::Failed,
            () if cancel.is_set() && unfinished => RunStatus::Interrupted,
            () => RunStatus::Done,
        };
        if !self.changed.is_empty() {
            let mut last = self.engine.last.clone();
            last.0.append(&mut self.changed);
            if let Err(error) = self.engine.store.keep_last(&self.engine.pipeline.name, &last) {
                recorder.event(None, json!({ "event": "warning", "message": anyhow!(error).to_string() }));
            }
        }
        recorder.event(None, json!({ "event": "run_ended", "status": status }));
        recorder.finish(status)
    }
}
