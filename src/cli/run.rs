//! `retune run`: runs a pipeline.

use std::path::{Path, PathBuf};

use clap::Args;
use indexmap::IndexMap;
use jiff::Timestamp;
use serde_json::json;

use super::console::Console;
use super::place::{Place, below_here};
use super::print::{self, Style, seconds};
use super::remote::{self, Sharing};
use super::{Failure, Global};
use crate::cancel::Cancel;
use crate::engine::{Engine, Options};
use crate::pipeline::{self, Override, Pipeline};
use crate::run::{Environment, Git, Host, Recorder, RunRecord, RunStatus, StageRecord, StageStatus};
use crate::runtime::device::Choice;
use crate::runtime::{Runtime, cache};
use crate::stage;
use crate::store::Store;

/// Which pipeline, and what is different this time.
#[derive(Args, Default)]
pub(super) struct Selected {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pub file: PathBuf,
    /// Set a value, for example `stages.tuned.with.lr=5e-5` or `params.seed=1`; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Run this stage even when it is cached or frozen; may be repeated
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Run this stage and all that come after it even when they are cached, and the rest as always; may be repeated
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
    /// Stop at this stage: look at it and at what it needs, and at nothing else; may be repeated
    #[arg(long, value_name = "STAGE", conflicts_with = "only")]
    pub until: Vec<String>,
    /// Run this stage alone, with what it needs from the store; may be repeated
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,
    /// Stages that run side by side [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

/// Runs a pipeline.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    selected: Selected,
    #[command(flatten)]
    sharing: Sharing,
}

impl Selected {
    /// Reads the pipeline.
    pub fn pipeline(&self, place: &Place) -> Result<Pipeline, Failure> {
        let overrides = self.set.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>, _>>();
        let overrides = overrides.map_err(|e| Failure::Pipeline(Box::new(e)))?;
        pipeline::load(&self.file, &overrides, &place.allowed).map_err(|e| Failure::Pipeline(Box::new(e)))
    }

    /// What is asked besides.
    pub fn options(&self) -> Options {
        let set = |names: &[String]| names.iter().cloned().collect();
        Options {
            force: set(&self.force),
            from: set(&self.from),
            only: set(&self.only),
            until: set(&self.until),
            jobs: self.jobs.unwrap_or(0).into(),
        }
    }

    /// The directory of a run that begins now, under `runs`.
    pub fn recorder(&self, pipeline: &Pipeline, runs: &Path, git: Option<Git>) -> Result<Recorder, Failure> {
        let record = self.record(pipeline, git).based(runs, &pipeline.base);
        Recorder::create(runs, record, &pipeline.resolved()).map_err(|e| Failure::Call(e.into()))
    }

    /// The record of a run that has not begun.
    fn record(&self, pipeline: &Pipeline, git: Option<Git>) -> RunRecord {
        let stage = |node: &pipeline::Node| {
            let stage = StageRecord { uses: node.kind.name.to_owned(), ..StageRecord::default() };
            (node.id.clone(), stage)
        };
        RunRecord {
            format: 1,
            id: String::new(),
            pipeline: pipeline.name.clone(),
            file: self.file.to_string_lossy().into_owned(),
            base: String::new(),
            status: RunStatus::Running,
            started: Timestamp::now(),
            finished: None,
            seconds: None,
            overrides: self.set.clone(),
            parameters: pipeline.parameters.clone(),
            environment: environment(git),
            stages: pipeline.stages.iter().map(stage).collect::<IndexMap<_, _>>(),
        }
    }
}

impl Run {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let place = Place::of_pipeline(global, &self.selected.file)?;
        let pipeline = self.selected.pipeline(&place)?;
        let store = Store::open(&place.store).map_err(|e| Failure::Call(e.into()))?;
        let remote = self.sharing.remote(&pipeline)?;
        // git looks at its work tree meanwhile.
        let base = pipeline.base.clone();
        let git = std::thread::spawn(move || Git::of(&base));
        let engine = Engine::prepare(&pipeline, &store, cache::folder(), self.selected.options());
        let engine = engine.map_err(|e| Failure::Call(e.into()))?.sharing(remote.as_ref());
        engine.check_only().map_err(|e| Failure::Call(e.into()))?;
        let recorder = self.selected.recorder(&pipeline, &place.runs, git.join().ok().flatten())?;
        let cancel = cancel_on_signal();
        let console = Console::new(pipeline.stages.iter().map(|n| n.id.as_str()), style);
        if let Some(remote) = &remote {
            remote.resume(&store);
        }
        let record = engine.run(&recorder, &console, &cancel).map_err(|e| Failure::Failed(e.into()))?;
        if let Some(remote) = &remote {
            for warning in remote::finish(remote, &cancel, style).warnings {
                recorder.event(None, json!({ "event": "warning", "message": warning }));
            }
        }
        let folder = below_here(recorder.folder());
        if global.json {
            print::json(&record)?;
        } else {
            print::text(&report(&record, &folder, style))?;
        }
        match record.status {
            RunStatus::Done => Ok(()),
            RunStatus::Interrupted => Err(Failure::Interrupted),
            RunStatus::Failed | RunStatus::Running => Err(Failure::Told),
        }
    }
}

/// What is printed at the end of a run: the tables that stages made, how it went, and where it lies.
fn report(record: &RunRecord, folder: &str, style: Style) -> String {
    let mut text = print::tables(record);
    let count = |status| record.count(status);
    let (done, cached) = (count(StageStatus::Done), count(StageStatus::Cached));
    let mut parts = vec![format!("{done} run"), format!("{cached} cached")];
    for status in [StageStatus::Fetched, StageStatus::Frozen, StageStatus::Failed, StageStatus::Skipped] {
        if count(status) > 0 {
            parts.push(format!("{} {}", count(status), status.name()));
        }
    }
    let status = print::status(record.status, style.stdout);
    let took = seconds(record.seconds.unwrap_or_default());
    text += &format!("\n{status} in {took}: {}\n{folder}\n", parts.join(", "));
    text
}

/// What a run that begins now stands in; `git` is where the pipeline lies.
pub(super) fn environment(git: Option<Git>) -> Environment {
    Environment { retune: env!("CARGO_PKG_VERSION").to_owned(), onnx_runtime: onnx_runtime(), host: Host::here(), git }
}

/// What `device: auto` computes with; nothing when ONNX Runtime cannot be had.
fn onnx_runtime() -> String {
    Runtime::choose(Choice::Auto, &cache::folder()).and_then(|runtime| runtime.identity()).unwrap_or_default()
}

/// Set by the first Ctrl-C; the second ends the program at once.
pub(super) fn cancel_on_signal() -> Cancel {
    let cancel = Cancel::default();
    let set = cancel.clone();
    // Fails only when there is a handler already, which there is not.
    let _ = ctrlc::set_handler(move || {
        if set.is_set() {
            stage::end_all_programs();
            std::process::exit(130);
        }
        eprintln!("stopping after the present step; once more stops at once");
        set.set();
    });
    cancel
}
