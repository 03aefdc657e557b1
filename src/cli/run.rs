//! `retune run`: runs a pipeline.

use std::path::{Path, PathBuf};

use clap::Args;
use indexmap::IndexMap;
use jiff::Timestamp;

use super::console::Console;
use super::place::Place;
use super::print::{self, Style, seconds};
use super::{Failure, Global};
use crate::cancel::Cancel;
use crate::engine::{Engine, Options};
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
    pub fn pipeline(&self, place: &Place) -> Result<Pipeline, Failure> {
        let overrides = self.set.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>, _>>();
        let overrides = overrides.map_err(|e| Failure::Pipeline(Box::new(e)))?;
        pipeline::load(&self.file, &overrides, &place.allowed).map_err(|e| Failure::Pipeline(Box::new(e)))
    }

    /// What is asked besides.
    pub fn options(&self, jobs: usize) -> Options {
        Options { force: self.force.iter().cloned().collect(), only: self.only.iter().cloned().collect(), jobs }
    }
}

impl Run {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let place = Place::of_pipeline(global, &self.selected.file)?;
        let pipeline = self.selected.pipeline(&place)?;
        let store = Store::open(&place.store).map_err(|e| Failure::Call(e.into()))?;
        let options = self.selected.options(self.jobs.unwrap_or(0).into());
        let engine = Engine::prepare(&pipeline, &store, cache::folder(), options).map_err(|e| Failure::Call(e.into()))?;
        engine.check_only().map_err(|e| Failure::Call(e.into()))?;
        let record = self.record(&pipeline);
        let recorder = Recorder::create(&place.runs, record, &pipeline.resolved()).map_err(|e| Failure::Call(e.into()))?;
        let cancel = cancel_on_signal();
        let console = Console::new(pipeline.stages.iter().map(|n| n.id.as_str()), style);
        let record = engine.run(&recorder, &console, &cancel).map_err(|e| Failure::Failed(e.into()))?;
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
            file: self.selected.file.to_string_lossy().into_owned(),
            status: RunStatus::Running,
            started: Timestamp::now(),
            finished: None,
            seconds: None,
            overrides: self.selected.set.clone(),
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

/// The path that is shorter to type from here.
fn below_here(folder: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| folder.strip_prefix(here).ok());
    below.unwrap_or(folder).display().to_string()
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
fn cancel_on_signal() -> Cancel {
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
