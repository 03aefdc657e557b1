//! `retune plan`: says what a run would do.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::graph;
use super::place::Place;
use super::print::{self, Style, Tone, paint, seconds};
use super::run::Selected;
use super::{Failure, Global};
use crate::engine::{Engine, Estimate, Planned, Reason, Verdict};
use crate::runtime::cache;
use crate::store::Store;

/// Of a stage, so many causes are printed.
const MOST_CAUSES: usize = 2;

/// Says what a run would do.
#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    selected: Selected,
    /// Draw the stages and what feeds them: as text, for Graphviz, or for Mermaid
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    graph: Option<Form>,
}

/// How the graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Dot,
    Mermaid,
}

impl Plan {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let place = Place::of_pipeline(global, &self.selected.file)?;
        let pipeline = self.selected.pipeline(&place)?;
        let store = Store::open(&place.store).map_err(|e| Failure::Call(e.into()))?;
        let engine = Engine::prepare(&pipeline, &store, cache::folder(), self.selected.options());
        let engine = engine.map_err(|e| Failure::Call(e.into()))?;
        let mut planned = engine.plan();
        if let Some(form) = self.graph.filter(|_| !global.json) {
            print::text(&match form {
                Form::Text => graph::text(&pipeline, &planned, style.stdout),
                Form::Dot => graph::dot(&pipeline, &planned),
                Form::Mermaid => graph::mermaid(&pipeline, &planned),
            })?;
            return Ok(());
        }
        let estimate = engine.estimate(&mut planned);
        if global.json {
            let edges = graph::edges(&pipeline);
            print::json(&json!({ "pipeline": pipeline.name, "stages": planned, "edges": edges, "estimate": estimate }))?;
            return Ok(());
        }
        print::text(&render(&planned, &estimate, style.stdout))?;
        Ok(())
    }
}

/// The tone of a verdict.
pub(super) fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Cached | Verdict::Skipped => Tone::Dim,
        Verdict::Runs => Tone::Bold,
        Verdict::Depends | Verdict::Frozen => Tone::Warn,
    }
}

/// Why, in words; nothing for a stage that is cached.
pub(super) fn why(planned: &Planned) -> String {
    // What feeds a stage is of interest only when nothing else says that it runs.
    let (feeds, own): (Vec<&Reason>, Vec<&Reason>) =
        planned.reasons.iter().partition(|reason| matches!(reason, Reason::Upstream { .. }));
    let reasons = if own.is_empty() { feeds } else { own };
    let causes = reasons.iter().take(MOST_CAUSES).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let more = reasons.len().saturating_sub(MOST_CAUSES);
    let causes = if more > 0 { format!("{causes}; and {more} more") } else { causes };
    if planned.verdict == Verdict::Frozen { format!("used although {causes}") } else { causes }
}

fn render(planned: &[Planned], estimate: &Estimate, color: bool) -> String {
    let row = |p: &Planned| {
        let time = p.estimate.map(about).or(p.seconds.map(|took| format!("took {}", seconds(took)))).unwrap_or_default();
        vec![p.stage.clone(), paint(p.verdict.name(), tone(p.verdict), color), time, why(p)]
    };
    let mut rows: Vec<Vec<String>> = planned.iter().map(row).collect();
    if rows.iter().all(|row| row[2].is_empty()) {
        rows.iter_mut().for_each(|row| drop(row.remove(2)));
    }
    let count = |verdict| planned.iter().filter(|p| p.verdict == verdict).count();
    let mut text = print::columns(&rows);
    text += &format!("\n{} cached, {} run", count(Verdict::Cached), count(Verdict::Runs));
    for (verdict, words) in
        [(Verdict::Depends, "depend on what these yield"), (Verdict::Frozen, "frozen"), (Verdict::Skipped, "skipped")]
    {
        if count(verdict) > 0 {
            text += &format!(", {} {words}", count(verdict));
        }
    }
    text + &total(planned, estimate) + "\n"
}

/// How long all of it takes; nothing when nothing runs.
fn total(planned: &[Planned], estimate: &Estimate) -> String {
    let runs = planned.iter().filter(|p| matches!(p.verdict, Verdict::Runs | Verdict::Depends));
    let (running, known) = (runs.clone().count(), runs.filter(|p| p.estimate.is_some()).count());
    if running == 0 {
        return String::new();
    }
    if known == 0 {
        return "; how long that takes is not known yet".into();
    }
    let depends = planned.iter().any(|p| p.verdict == Verdict::Depends);
    let mut text = match (about(estimate.least), about(estimate.most)) {
        (least, most) if depends && least != most => format!("; at least {least}, and {most} if all that depends runs"),
        (_, most) => format!("; {most}"),
    };
    if estimate.unknown > 0 {
        let stages = if estimate.unknown == 1 { "1 stage".into() } else { format!("{} stages", estimate.unknown) };
        text += &format!(", and {stages} of which no time is known");
    }
    text
}

/// `about 4 min`: no more digits than an estimate has.
fn about(duration: f64) -> String {
    let minutes = (duration / 60.0).round() as u64;
    match minutes {
        _ if duration < 0.95 => "under 1 s".into(),
        _ if duration < 59.5 => format!("about {duration:.0} s"),
        0..60 => format!("about {minutes} min"),
        _ => format!("about {} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_estimates() {
        let stage = |stage: &str, verdict, reasons, estimate| Planned {
            stage: stage.into(),
            uses: "train".into(),
            verdict,
            reasons,
            seconds: Some(3.2).filter(|_| verdict == Verdict::Cached),
            estimate,
        };
        let upstream = Reason::Upstream { port: "model".into(), stage: "tuned".into() };
        let mut planned = vec![
            stage("base", Verdict::Cached, vec![], None),
            stage("tuned[lr=3e-5]", Verdict::Runs, vec![Reason::Forced, Reason::New, Reason::Lost], Some(250.0)),
            stage("score", Verdict::Depends, vec![upstream], Some(12.3)),
            stage("plot", Verdict::Runs, vec![Reason::New], None),
        ];
        let estimate = Estimate { least: 250.0, most: 3800.0, unknown: 1 };
        insta::assert_snapshot!(render(&planned, &estimate, false), @"
        base            cached   took 3.2 s
        tuned[lr=3e-5]  runs     about 4 min  forced by `--force`; it has no earlier result; and 1 more
        score           depends  about 12 s   input `model` comes from `tuned`, which runs
        plot            runs                  it has no earlier result

        1 cached, 2 run, 1 depend on what these yield; at least about 4 min, and about 1 h 3 min if all that depends runs, and 1 stage of which no time is known
        ");
        planned.truncate(1);
        insta::assert_snapshot!(render(&planned, &estimate, false), @"
        base  cached  took 3.2 s

        1 cached, 0 run
        ");
    }
}
