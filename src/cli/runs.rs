//! `retune runs`: lists the runs.

use clap::Args;

use super::place::Place;
use super::print::{self, Style, Tone, paint, seconds};
use super::{Failure, Global};
use crate::run::{RunRecord, StageStatus};

/// Lists the runs, the latest first.
#[derive(Args)]
pub(super) struct List {
    /// How many; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

impl List {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let place = Place::here(global)?;
        let runs = place.runs();
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        let mut records = Vec::new();
        for id in runs.ids().iter().rev().take(limit) {
            match runs.read(id) {
                Ok(record) => records.push(record),
                // One damaged record must not hide the others.
                Err(error) => eprintln!("{} {error}", paint("warning:", Tone::Warn, style.stderr)),
            }
        }
        if global.json {
            print::json(&records)?;
        } else if records.is_empty() {
            eprintln!("there are no runs in `{}`; `retune run PIPELINE` makes one", place.runs.display());
        } else {
            print::text(&print::columns(&records.iter().map(|r| row(r, style.stdout)).collect::<Vec<_>>()))?;
        }
        Ok(())
    }
}

fn row(record: &RunRecord, color: bool) -> Vec<String> {
    let stages = format!("{} run, {} cached", record.count(StageStatus::Done), record.count(StageStatus::Cached));
    vec![
        record.id.clone(),
        print::status(record.status, color),
        record.seconds.map(seconds).unwrap_or_default(),
        stages,
        record.overrides.join(" "),
    ]
}
