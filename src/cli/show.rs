//! `retune show`: shows a run.

use std::fmt::Write as _;

use clap::Args;

use super::place::Place;
use super::print::{self, Style, Tone, bytes, paint, seconds};
use super::runs::Listed;
use super::{Failure, Global};
use crate::run::{self, Compared, RunRecord, StageRecord, StageStatus};

/// Shows a run.
#[derive(Args)]
pub(super) struct Show {
    /// A name, a tag, a unique beginning of a name, a path, `latest` or `latest~N`
    #[arg(value_name = "RUN", default_value = "latest")]
    run: String,
}

impl Show {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let runs = Place::here(global)?.runs();
        let Compared { record, folder } = runs.compared(&self.run).map_err(|e| Failure::Call(e.into()))?;
        let tags = run::tags_of(&folder).map_err(|e| Failure::Call(e.into()))?;
        if global.json {
            print::json(&Listed { record, tags })?;
        } else {
            print::text(&render(&record, &tags, &folder.display().to_string(), style.stdout))?;
        }
        Ok(())
    }
}

fn render(record: &RunRecord, tags: &[String], folder: &str, color: bool) -> String {
    let mut text = format!("{}\n", paint(&record.id, Tone::Bold, color));
    let environment = &record.environment;
    let mut facts = vec![
        ("status", record.status.name().to_owned()),
        ("tags", tags.join(", ")),
        ("pipeline", record.file.clone()),
        ("started", record.started.to_string()),
        ("took", record.seconds.map(seconds).unwrap_or_default()),
        ("set", record.overrides.join(" ")),
        ("retune", environment.retune.clone()),
        ("ONNX Runtime", environment.onnx_runtime.clone()),
        ("host", format!("{}, {} cores, {}", environment.host.name, environment.host.cores, environment.host.processor)),
        ("folder", folder.to_owned()),
    ];
    if let Some(git) = &environment.git {
        let dirty = if git.dirty { ", with changes" } else { "" };
        facts.push(("git", format!("{}{dirty}", git.commit.chars().take(12).collect::<String>())));
    }
    facts.retain(|(_, value)| !value.is_empty());
    text += &print::columns(&facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>());
    text += "\n";
    text += &print::columns(&record.stages.iter().map(|(id, stage)| row(id, stage, color)).collect::<Vec<_>>());
    for stage in record.stages.values() {
        if let Some(error) = &stage.error {
            let _ = write!(text, "\n{} {error}\n", paint("error:", Tone::Bad, color));
        }
    }
    text + &print::tables(record)
}

fn row(id: &str, stage: &StageRecord, color: bool) -> Vec<String> {
    let tone = match stage.status {
        StageStatus::Done | StageStatus::Fetched => Tone::Good,
        StageStatus::Failed => Tone::Bad,
        StageStatus::Interrupted | StageStatus::Running => Tone::Warn,
        StageStatus::Cached | StageStatus::Frozen | StageStatus::Skipped | StageStatus::Waiting => Tone::Dim,
    };
    vec![
        id.to_owned(),
        paint(stage.status.name(), tone, color),
        stage.seconds.map(seconds).unwrap_or_default(),
        stage.peak_memory.map(bytes).unwrap_or_default(),
        match stage.reasons.as_slice() {
            [] => stage.outcome.as_ref().map(|o| o.summary.clone()).unwrap_or_default(),
            reasons => reasons.join("; "),
        },
    ]
}
