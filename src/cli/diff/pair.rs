//! Two runs side by side.

use std::fmt::Write as _;

use super::{DiffRuns, p_value, run_name, signed};
use crate::cli::print::{self, Tone, paint};
use crate::run::{Change, Diff, MetricChange};

impl DiffRuns {
    /// The metrics that are shown.
    fn shown<'d>(&self, diff: &'d Diff) -> Vec<&'d MetricChange> {
        diff.metrics.iter().filter(|m| self.shows(m)).collect()
    }

    pub(super) fn pair_table(&self, diff: &Diff, color: bool) -> String {
        let mut text = title(diff);
        let changes: Vec<Vec<String>> = changes(diff).map(|(stage, change)| vec![stage.to_owned(), change]).collect();
        if changes.is_empty() {
            text += "no stage has other parameters, code or surroundings\n";
        } else {
            text += &print::columns(&changes);
        }
        if diff.metrics.is_empty() {
            return text + "\nneither run has metrics\n";
        }
        let shown = self.shown(diff);
        if shown.is_empty() {
            return text + &format!("\nall {} metrics are the same\n", diff.metrics.len());
        }
        let mut rows = vec![HEADER.map(|h| paint(h, Tone::Bold, color)).to_vec()];
        rows.extend(shown.iter().map(|m| row(m)));
        text += "\n";
        text += &print::columns(&rows);
        let same = diff.metrics.len() - shown.len();
        if same > 0 {
            let _ = write!(text, "\n{same} more metrics are the same; `--all` shows them\n");
        }
        if shown.iter().any(|m| m.significance.is_some()) {
            text += "\np: paired randomization test, two-sided, Holm-corrected over these metrics; interval: bootstrap over the queries\n";
        }
        text
    }

    pub(super) fn pair_markdown(&self, diff: &Diff) -> String {
        let mut text = format!("`{}` → `{}`\n\n", diff.from, diff.to);
        for (stage, change) in changes(diff) {
            let _ = writeln!(text, "- **{stage}**: {change}");
        }
        let _ = write!(text, "\n| {} |\n|---{}|\n", HEADER.join(" | "), "|--:".repeat(HEADER.len() - 1));
        for metric in self.shown(diff) {
            let _ = writeln!(text, "| {} |", row(metric).join(" | "));
        }
        text
    }
}

const HEADER: [&str; 8] = ["metric", "from", "to", "difference", "relative", "95% interval", "p", "better/same/worse"];

fn title(diff: &Diff) -> String {
    format!("{} → {}\n\n", run_name(&diff.from, diff.from_status), run_name(&diff.to, diff.to_status))
}

/// What changed first, which explains the rest; that results changed with it is no news.
fn changes(diff: &Diff) -> impl Iterator<Item = (&str, String)> {
    diff.stages.iter().flat_map(|stage| {
        let own = stage.changes.iter().filter(|change| !matches!(change, Change::Input { .. }));
        own.map(|change| (stage.stage.as_str(), change.to_string()))
    })
}

fn row(metric: &MetricChange) -> Vec<String> {
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
    let mut cells = vec![
        metric.name.clone(),
        figure(metric.from),
        figure(metric.to),
        signed(metric.difference),
        metric.percent.map(|p| format!("{p:+.1}%")).unwrap_or_default(),
    ];
    match &metric.significance {
        Some(s) => cells.extend([
            format!("{:+.4} … {:+.4}", s.interval[0], s.interval[1]),
            p_value(s.p_holm),
            format!("{}/{}/{}", s.wins, s.ties, s.losses),
        ]),
        None => cells.extend(["", "", ""].map(str::to_owned)),
    }
    cells
}
