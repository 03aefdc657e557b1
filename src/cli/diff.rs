//! `retune diff`: compares two runs.

use std::fmt::Write as _;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::place::Place;
use super::print::{self, Style, Tone, paint};
use super::{Failure, Global};
use crate::run::{Change, Diff, MetricChange, RunStatus};

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
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// End with status 3 when a metric's difference is on the wrong side: `ndcg@10<-0.01`, `tuned.loss>0.1`; may be repeated
    #[arg(long, value_name = "METRIC<NUMBER", value_parser = Limit::parse)]
    fail_if: Vec<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
    Markdown,
}

/// A bound on the difference of a metric.
#[derive(Debug, Clone, PartialEq)]
struct Limit {
    /// With its stage, or the name alone for every stage that has it.
    metric: String,
    below: bool,
    bound: f64,
}

impl Limit {
    fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or("write `METRIC<NUMBER` or `METRIC>NUMBER`, for example `ndcg@10<-0.01`")?;
        let (metric, bound) = (text[..at].trim(), text[at + 1..].trim());
        match bound.parse::<f64>() {
            Ok(bound) if bound.is_finite() && !metric.is_empty() => {
                Ok(Limit { metric: metric.to_owned(), below: text[at..].starts_with('<'), bound })
            }
            _ => Err(format!("`{text}` has no metric or no number; write for example `ndcg@10<-0.01`")),
        }
    }

    fn concerns(&self, metric: &MetricChange) -> bool {
        metric.name == self.metric || metric.name.strip_suffix(&self.metric).is_some_and(|stage| stage.ends_with('.'))
    }

    fn broken(&self, metric: &MetricChange) -> bool {
        metric.difference.is_some_and(|d| if self.below { d < self.bound } else { d > self.bound })
    }
}

impl DiffRuns {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let runs = Place::here(global)?.runs();
        let read = |run: &str| runs.compared(run).map_err(|e| Failure::Call(e.into()));
        let diff = Diff::of(&read(&self.from)?, &read(&self.to)?);
        let format = if global.json { Format::Json } else { self.format };
        match format {
            Format::Json => print::json(&diff)?,
            Format::Table => print::text(&self.render(&diff, style.stdout))?,
            Format::Csv => print::text(&self.csv(&diff).map_err(Failure::Failed)?)?,
            Format::Markdown => print::text(&self.markdown(&diff))?,
        }
        self.check(&diff)
    }

    /// Whether a difference is on the wrong side of a bound.
    fn check(&self, diff: &Diff) -> Result<(), Failure> {
        let mut broken = Vec::new();
        for limit in &self.fail_if {
            let concerned: Vec<&MetricChange> = diff.metrics.iter().filter(|m| limit.concerns(m)).collect();
            if concerned.is_empty() {
                return Err(Failure::Call(anyhow!("`--fail-if`: neither run has a metric `{}`", limit.metric)));
            }
            let sign = if limit.below { '<' } else { '>' };
            let wrong = concerned.into_iter().filter(|m| limit.broken(m));
            broken.extend(wrong.map(|m| format!("{} {} {sign} {}", m.name, signed(m.difference), limit.bound)));
        }
        if broken.is_empty() { Ok(()) } else { Err(Failure::Regressed(anyhow!("{}", broken.join(", ")))) }
    }

    /// The metrics that are shown.
    fn shown<'d>(&self, diff: &'d Diff) -> Vec<&'d MetricChange> {
        diff.metrics.iter().filter(|m| self.all || m.difference != Some(0.0) || m.significance.is_some()).collect()
    }

    fn render(&self, diff: &Diff, color: bool) -> String {
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

    fn csv(&self, diff: &Diff) -> anyhow::Result<String> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let head = ["metric", "from", "to", "difference", "percent", "low", "high", "p", "p_holm", "wins", "ties", "losses"];
        csv.write_record(head)?;
        for m in self.shown(diff) {
            let figure = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
            let mut cells = vec![m.name.clone(), figure(m.from), figure(m.to), figure(m.difference), figure(m.percent)];
            let s = m.significance.as_ref();
            cells.extend([s.map(|s| s.interval[0]), s.map(|s| s.interval[1]), s.map(|s| s.p), s.map(|s| s.p_holm)].map(figure));
            let count = |value: Option<usize>| value.map(|v| v.to_string()).unwrap_or_default();
            cells.extend([s.map(|s| s.wins), s.map(|s| s.ties), s.map(|s| s.losses)].map(count));
            csv.write_record(cells)?;
        }
        Ok(String::from_utf8(csv.into_inner()?)?)
    }

    fn markdown(&self, diff: &Diff) -> String {
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
    let name = |id: &str, status: RunStatus| match status {
        RunStatus::Done => id.to_owned(),
        other => format!("{id} ({})", other.name()),
    };
    format!("{} → {}\n\n", name(&diff.from, diff.from_status), name(&diff.to, diff.to_status))
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
            if s.p_holm < 0.001 { "<0.001".to_owned() } else { format!("{:.3}", s.p_holm) },
            format!("{}/{}/{}", s.wins, s.ties, s.losses),
        ]),
        None => cells.extend(["", "", ""].map(str::to_owned)),
    }
    cells
}

fn signed(difference: Option<f64>) -> String {
    difference.map(|d| format!("{d:+.4}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_checked() {
        let limit = Limit::parse("ndcg@10<-0.01").unwrap();
        assert_eq!(limit, Limit { metric: "ndcg@10".into(), below: true, bound: -0.01 });
        let metric = |name: &str, difference: f64| MetricChange {
            name: name.into(),
            from: Some(0.5),
            to: Some(0.5 + difference),
            difference: Some(difference),
            percent: None,
            significance: None,
        };
        assert!(limit.concerns(&metric("after.ndcg@10", 0.0)) && !limit.concerns(&metric("after.xndcg@10", 0.0)));
        assert!(limit.broken(&metric("after.ndcg@10", -0.02)) && !limit.broken(&metric("after.ndcg@10", -0.005)));
        assert!(Limit::parse("tuned.loss > 0.1").unwrap().broken(&metric("tuned.loss", 0.2)));
        for bad in ["ndcg@10", "<1", "a<b", "a<inf"] {
            assert!(Limit::parse(bad).is_err(), "{bad}");
        }
    }
}
