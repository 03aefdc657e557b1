//! Running stages in the order of their edges, independent ones side by side.

use std::sync::mpsc;
use std::thread;

use anyhow::{Error, anyhow};
use serde_json::json;

use super::job::{Surrounded, Yielded};
use super::memory::MemoryWatch;
use super::plan::Verdict;
use super::{Engine, Event, Observer, PrepareError};
use crate::cancel::{Cancel, Cancelled};
use crate::run::{Recorder, RecorderError, RunRecord, RunStatus, StageRecord, StageStatus};
use crate::store::{Last, StageResult};

/// How a stage stands while the pipeline runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Finished,
    Ended,
}

type Ended = Result<(StageStatus, StageResult, Yielded), Error>;

/// The state of a run.
struct Run<'a> {
    engine: &'a Engine<'a>,
    around: Surrounded<'a>,
    states: Vec<State>,
    yielded: Vec<Option<Yielded>>,
    last: Last,
    failed: bool,
}

impl Engine<'_> {
    /// What `--only` asks for cannot be done when something it needs is not cached.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn check_only(&self) -> Result<(), PrepareError> {
        if self.options.only.is_empty() {
            return Ok(());
        }
        let missing = self.plan().into_iter().filter(|p| !self.options.only.contains(&p.stage));
        let missing = missing.filter(|p| !matches!(p.verdict, Verdict::Cached | Verdict::Skipped));
        let names: Vec<String> = missing.map(|p| format!("`{}`", p.stage)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let (names, only) = (names.join(", "), self.options.only.iter().cloned().collect::<Vec<_>>().join("`, `"));
        Err(PrepareError(vec![format!(
            "`--only` runs `{only}` alone, and needs {names} from the store, which does not have it; run without `--only`"
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
        let count = self.pipeline.stages.len();
        let mut run = Run {
            engine: self,
            around: Surrounded { recorder, observer, cancel },
            states: vec![State::Waiting; count],
            yielded: vec![None; count],
            last: self.last.clone(),
            failed: false,
        };
        recorder.event(None, json!({ "event": "run_started", "run": recorder.id() }));
        for (index, out) in self.left_out().into_iter().enumerate() {
            if out {
                run.skip(index);
            }
        }
        let jobs = if self.options.jobs > 0 { self.options.jobs } else { thread::available_parallelism().map_or(1, usize::from) };
        run.all(jobs);
        run.end()
    }
}

impl Run<'_> {
    fn all(&mut self, jobs: usize) {
        let memory = MemoryWatch::default();
        let (sender, receiver) = mpsc::channel::<(usize, Ended)>();
        thread::scope(|scope| {
            let mut running = 0;
            loop {
                while running < jobs
                    && let Some(index) = self.next()
                {
                    running += 1;
                    self.states[index] = State::Running;
                    let (sender, finished, engine, memory) = (sender.clone(), self.yielded.clone(), self.engine, &memory);
                    let Surrounded { recorder, observer, cancel } = self.around;
                    scope.spawn(move || {
                        let around = Surrounded { recorder, observer, cancel };
                        let ended = engine.job(index, &finished, &around, &|| memory.peak(scope));
                        // The receiver lives as long as the scope.
                        let _ = sender.send((index, ended));
                    });
                }
                if running == 0 {
                    break;
                }
                if let Ok((index, ended)) = receiver.recv() {
                    running -= 1;
                    self.ended(index, ended);
                }
            }
            memory.end();
        });
    }

    /// The next stage whose inputs are there.
    fn next(&self) -> Option<usize> {
        if self.failed || self.around.cancel.is_set() {
            return None;
        }
        let ready = |index: usize| {
            let inputs = &self.engine.pipeline.stages[index].inputs;
            self.states[index] == State::Waiting && inputs.iter().all(|e| self.states[e.from] == State::Finished)
        };
        (0..self.states.len()).find(|&index| ready(index))
    }

    fn ended(&mut self, index: usize, ended: Ended) {
        let id = &self.engine.pipeline.stages[index].id;
        let recorded = match ended {
            Ok((status, result, yielded)) => {
                self.last.0.insert(id.clone(), result.fingerprint.clone());
                let folder = self.around.recorder.folder().to_owned();
                let paths = yielded.0.iter().map(|(port, (_, path))| {
                    let below = path.strip_prefix(&folder).unwrap_or(path);
                    (port.clone(), below.to_string_lossy().replace('\\', "/"))
                });
                let paths = paths.collect();
                self.yielded[index] = Some(yielded);
                self.states[index] = State::Finished;
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
                })
            }
            Err(error) => {
                self.states[index] = State::Ended;
                let interrupted = self.around.cancel.is_set() && error.root_cause().is::<Cancelled>();
                let message = format!("{error:#}");
                self.around.recorder.log(id, &message);
                self.failed |= !interrupted;
                self.record(id, |stage| {
                    stage.status = if interrupted { StageStatus::Interrupted } else { StageStatus::Failed };
                    stage.error = (!interrupted).then_some(message);
                })
            }
        };
        if let Err(error) = recorded {
            // The stage's result is in the store; the run cannot say so, which is its failure.
            self.failed = true;
            self.around.observer.event(id, &Event::Warning(&error.to_string()));
        }
    }

    fn skip(&mut self, index: usize) {
        self.states[index] = State::Ended;
        let id = &self.engine.pipeline.stages[index].id;
        let _ = self.record(id, |stage| stage.status = StageStatus::Skipped);
    }

    /// Puts into the record what became of a stage, and tells it.
    fn record(&self, id: &str, change: impl FnOnce(&mut StageRecord)) -> Result<(), RecorderError> {
        let result = self.around.recorder.update_stage(id, change);
        let stage = self.around.recorder.record().stages.get(id).cloned().unwrap_or_default();
        let event = json!({ "event": "stage_ended", "status": stage.status, "seconds": stage.seconds, "error": stage.error });
        self.around.recorder.event(Some(id), event);
        self.around.observer.event(id, &Event::Ended(&stage));
        result
    }

    fn end(mut self) -> Result<RunRecord, RecorderError> {
        for index in 0..self.states.len() {
            if self.states[index] == State::Waiting {
                self.skip(index);
            }
        }
        let recorder = self.around.recorder;
        let unfinished = recorder
            .record()
            .stages
            .values()
            .any(|s| matches!(s.status, StageStatus::Interrupted | StageStatus::Skipped | StageStatus::Waiting));
        let status = match () {
            () if self.failed => RunStatus::Failed,
            () if self.around.cancel.is_set() && unfinished => RunStatus::Interrupted,
            () => RunStatus::Done,
        };
        if let Err(error) = self.engine.store.keep_last(&self.engine.pipeline.name, &self.last) {
            recorder.event(None, json!({ "event": "warning", "message": anyhow!(error).to_string() }));
        }
        recorder.event(None, json!({ "event": "run_ended", "status": status }));
        recorder.finish(status)
    }
}
