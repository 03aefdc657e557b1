//! `retune rm`: removes runs.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::place::Place;
use super::print::{self, Style};
use super::runs::Chosen;
use super::{Failure, Global};
use crate::run::{self, RemoveError, Runs};

/// Removes runs. What their stages yielded stays in the store.
#[derive(Args)]
pub(super) struct Remove {
    /// A name, a tag, a unique beginning of a name, a path, `latest` or `latest~N`
    #[arg(value_name = "RUN", required_unless_present = "conditions", conflicts_with = "conditions")]
    named: Vec<String>,
    #[command(flatten)]
    chosen: Chosen,
    /// Remove runs that have a tag, too
    #[arg(long)]
    force: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Remove {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let runs = Place::here(global)?.runs();
        let folders = self.folders(&runs, style)?;
        // Nothing is removed when something must not be.
        for folder in &folders {
            self.check(folder)?;
        }
        let mut removed = Vec::new();
        if !self.dry_run {
            run::finish_removals(&runs).map_err(|e| Failure::Failed(e.into()))?;
        }
        for folder in &folders {
            if !self.dry_run {
                run::remove(folder).map_err(|e| Failure::Failed(e.into()))?;
            }
            let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !global.json {
                print::text(&format!("{} {id}\n", if self.dry_run { "would remove" } else { "removed" }))?;
            }
            removed.push(id);
        }
        if global.json {
            print::json(&json!({ "removed": removed, "dry_run": self.dry_run }))?;
        } else if removed.is_empty() {
            eprintln!("no run fits");
        }
        Ok(())
    }

    /// The directories of the runs, each once.
    fn folders(&self, runs: &Runs, style: Style) -> Result<Vec<PathBuf>, Failure> {
        let mut folders: Vec<PathBuf> = if self.named.is_empty() {
            let chosen = self.chosen.of(runs, usize::MAX, style)?;
            chosen.into_iter().map(|run| runs.folder().join(run.id)).collect()
        } else {
            let selected: Result<_, _> = self.named.iter().map(|run| runs.select(run)).collect();
            selected.map_err(|e| Failure::Call(e.into()))?
        };
        folders.sort();
        folders.dedup();
        Ok(folders)
    }

    fn check(&self, folder: &std::path::Path) -> Result<(), Failure> {
        let name = || folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if run::is_alive(folder) {
            return Err(Failure::Call(RemoveError::Running(name()).into()));
        }
        let tags = if self.force { Vec::new() } else { run::tags_of(folder).map_err(|e| Failure::Call(e.into()))? };
        if tags.is_empty() {
            return Ok(());
        }
        let hint = if self.named.is_empty() {
            "`--force` removes it too, and `--where tag=` leaves out runs with tags"
        } else {
            "`--force` removes it"
        };
        Err(Failure::Call(anyhow!("`{}` is tagged `{}`; nothing is removed; {hint}", name(), tags.join("`, `"))))
    }
}
