//! `retune run`: runs a pipeline.

use std::path::{Path, PathBuf};

use clap::Args;
use indexmap::IndexMap;
use jiff::Timestamp;

use super::console::Console;
use super::place::{Place, below_here};
use super::print::{self, Style, seconds};
use super::{Failure, Global};
use crate::cancel::Cancel;
use crate::engine::{Engine, Observer, Options};
use crate::pipeline::{self, Override, Pipeline};
use crate::run::{Environment, Git, Host, Recorder, RunRecord, RunStatus, StageRecord, StageStatus};
use crate::runtime::{cache, library};
use crate::stage;
use crate::store::Store;

/// Which pipeline, and what is different this time.
#[derive(Args)]
pub(super) struct Selected {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pub file: PathBuf,
    /// Set a value, for example `stages.tuned.with.lr=5e-5` or `params.seed=1`; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Run this stage even when it is cached; may be repeated
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Run this stage alone, with what it needs from the store; may be repeated
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,
}

/// Runs a pipeline.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    selected: Selected,
    /// Stages that run side by side [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl Selected {
    /// Reads the pipeline.
    pub fn pipeline(&self) -> Result<Pipeline, Failure> {
        let overrides = self.set.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>, _>>();
        let overrides = overrides.map_err(|e| Failure::Pipeline(Box::new(e)))?;
        pipeline::load(&self.file, &overrides).map_err(|e| Failure::Pipeline(Box::new(e)))
    }

    /// What is asked besides.
    pub fn options(&self, jobs: usize) -> Options {
        Options { force: self.force.iter().cloned().collect(), only: self.only.iter().cloned().collect(), jobs }
    }

    /// Runs a pipeline that has been read and prepared, in a new directory under `runs`; its record and that directory.
    pub fn run(
        &self,
        pipeline: &Pipeline,
        engine: &Engine,
        runs: &Path,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<(RunRecord, PathBuf), Failure> {
        let recorder = Recorder::create(runs, self.record(pipeline), &pipeline.resolved());
        let recorder = recorder.map_err(|e| Failure::Call(e.into()))?;
        let record = engine.run(&recorder, observer, cancel).map_err(|e| Failure::Failed(e.into()))?;
        Ok((record, recorder.folder().to_owned()))
    }

    /// The record of a run that has not begun.
    fn record(&self, pipeline: &Pipeline) -> RunRecord {
        let stage = |node: &pipeline::Node| {
            let stage = StageRecord { uses: node.kind.name.to_owned(), ..StageRecord::default() };
            (node.id.clone(), stage)
        };
        RunRecord {
            format: 1,
            id: String::new(),
            pipeline: pipeline.name.clone(),
            file: self.file.to_string_lossy().into_owned(),
            status: RunStatus::Running,
            started: Timestamp::now(),
            finished: None,
            seconds: None,
            overrides: self.set.clone(),
            parameters: pipeline.parameters.clone(),
            environment: Environment {
                retune: env!("CARGO_PKG_VERSION").to_owned(),
                onnx_runtime: library::identity(&cache::folder()).unwrap_or_default(),
                host: Host::here(),
                git: Git::of(&pipeline.base),
            },
            stages: pipeline.stages.iter().map(stage).collect::<IndexMap<_, _>>(),
        }
    }
}

impl Run {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let pipeline = self.selected.pipeline()?;
        let place = Place::of_pipeline(global, &self.selected.file)?;
        let store = Store::open(&place.store).map_err(|e| Failure::Call(e.into()))?;
        let options = self.selected.options(self.jobs.unwrap_or(0).into());
        let engine = Engine::prepare(&pipeline, &store, cache::folder(), options).map_err(|e| Failure::Call(e.into()))?;
        engine.check_only().map_err(|e| Failure::Call(e.into()))?;
        let cancel = cancel_on_signal();
        let console = Console::new(pipeline.stages.iter().map(|n| n.id.as_str()), style);
        let (record, folder) = self.selected.run(&pipeline, &engine, &place.runs, &console, &cancel)?;
        let folder = below_here(&folder);
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
    let (failed, skipped) = (count(StageStatus::Failed), count(StageStatus::Skipped));
    let mut parts = vec![format!("{done} run"), format!("{cached} cached")];
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    if skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    let status = print::status(record.status, style.stdout);
    let took = seconds(record.seconds.unwrap_or_default());
    text += &format!("\n{status} in {took}: {}\n{folder}\n", parts.join(", "));
    text
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
