//! `retune diff`: compares two runs.

use clap::Args;

use super::place::Place;
use super::print::{self, Style, Tone, paint};
use super::{Failure, Global};
use crate::run::{Change, Diff, MetricChange};

/// Compares two runs.
#[derive(Args)]
pub(super) struct DiffRuns {
    /// A name, a unique beginning of one, a path, `latest` or `latest~N`
    #[arg(value_name = "RUN", default_value = "latest~1")]
    from: String,
    /// The run to compare with it
    #[arg(value_name = "RUN", default_value = "latest")]
    to: String,
    /// Metrics that are the same, too
    #[arg(long)]
    all: bool,
}

impl DiffRuns {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let runs = Place::here(global)?.runs();
        let read = |run: &str| runs.read(run).map_err(|e| Failure::Call(e.into()));
        let diff = Diff::of(&read(&self.from)?, &read(&self.to)?);
        if global.json {
            print::json(&diff)?;
        } else {
            print::text(&self.render(&diff, style.stdout))?;
        }
        Ok(())
    }

    fn render(&self, diff: &Diff, color: bool) -> String {
        let mut text = format!("{} → {}\n\n", diff.from, diff.to);
        let mut rows = Vec::new();
        for stage in &diff.stages {
            for change in &stage.changes {
                // What changed first explains it; that its results changed with it is no news.
                if !matches!(change, Change::Input { .. }) {
                    rows.push(vec![stage.stage.clone(), change.to_string()]);
                }
            }
        }
        if rows.is_empty() {
            text += "no stage has other parameters, code or surroundings\n";
        } else {
            text += &print::columns(&rows);
        }
        let changed: Vec<&MetricChange> = diff.metrics.iter().filter(|m| self.all || m.difference != Some(0.0)).collect();
        if diff.metrics.is_empty() {
            return text + "\nneither run has metrics\n";
        }
        if changed.is_empty() {
            return text + &format!("\nall {} metrics are the same\n", diff.metrics.len());
        }
        let header = ["metric", "from", "to", "difference", "relative"].map(|h| paint(h, Tone::Bold, color)).to_vec();
        let mut rows = vec![header];
        rows.extend(changed.iter().map(|m| row(m)));
        text += "\n";
        text += &print::columns(&rows);
        let same = diff.metrics.len() - changed.len();
        if same > 0 {
            text += &format!("\n{same} more metrics are the same; `--all` shows them\n");
        }
        text
    }
}

fn row(metric: &MetricChange) -> Vec<String> {
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
    vec![
        metric.name.clone(),
        figure(metric.from),
        figure(metric.to),
        metric.difference.map(|d| format!("{d:+.4}")).unwrap_or_default(),
        metric.percent.map(|p| format!("{p:+.1}%")).unwrap_or_default(),
    ]
}
