//! `retune plan`: says what a run would do.

use clap::Args;
use serde_json::json;

use super::place::Place;
use super::print::{self, Style, Tone, paint, seconds};
use super::run::Selected;
use super::{Failure, Global};
use crate::engine::{Engine, Planned, Verdict};
use crate::runtime::cache;
use crate::store::Store;

/// Says what a run would do.
#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    selected: Selected,
}

impl Plan {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let place = Place::of_pipeline(global, &self.selected.file)?;
        let pipeline = self.selected.pipeline(&place)?;
        let store = Store::open(&place.store).map_err(|e| Failure::Call(e.into()))?;
        let engine = Engine::prepare(&pipeline, &store, cache::folder(), self.selected.options(0));
        let planned = engine.map_err(|e| Failure::Call(e.into()))?.plan();
        if global.json {
            print::json(&json!({ "pipeline": pipeline.name, "stages": planned }))?;
            return Ok(());
        }
        print::text(&render(&planned, style.stdout))?;
        Ok(())
    }
}

fn render(planned: &[Planned], color: bool) -> String {
    let row = |p: &Planned| {
        let tone = match p.verdict {
            Verdict::Cached | Verdict::Skipped => Tone::Dim,
            Verdict::Runs => Tone::Bold,
            Verdict::Depends => Tone::Warn,
        };
        let why = match (p.verdict, p.seconds) {
            (Verdict::Cached, Some(took)) => format!("took {}", seconds(took)),
            _ => p.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        };
        vec![p.stage.clone(), paint(p.verdict.name(), tone, color), why]
    };
    let count = |verdict| planned.iter().filter(|p| p.verdict == verdict).count();
    let mut text = print::columns(&planned.iter().map(row).collect::<Vec<_>>());
    text += &format!("\n{} cached, {} run", count(Verdict::Cached), count(Verdict::Runs));
    let depends = count(Verdict::Depends);
    if depends > 0 {
        text += &format!(", {depends} depend on what these yield");
    }
    text + "\n"
}
