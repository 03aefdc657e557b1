//! `retune diff`: compares runs.

mod many;
mod pair;
mod queries;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use rayon::prelude::*;

use super::place::Place;
use super::print::{self, Style};
use super::{Failure, Global};
use crate::run::{Compared, Diff, MetricChange, MovedQueries, RunStatus};

/// Compares runs with the first of them.
#[derive(Args)]
pub(super) struct DiffRuns {
    /// Two runs or more: each a name, a tag, a unique beginning of a name, a path, `latest` or `latest~N` [default: `latest~1 latest`;
    /// for one run, it and `latest`]
    #[arg(value_name = "RUN")]
    named: Vec<String>,
    /// Metrics that are the same, too
    #[arg(long)]
    all: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// End with status 3 when a metric's difference to the first run is on the wrong side: `ndcg@10<-0.01`, `tuned.loss>0.1`; may be
    /// repeated
    #[arg(long, value_name = "METRIC<NUMBER", value_parser = Limit::parse)]
    fail_if: Vec<Limit>,
    /// List the N queries that moved most instead, with the texts and the best hits of both runs; 10 without N
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", value_parser = count)]
    queries: Option<usize>,
    /// The metric that queries move by, with its stage or without [default: `ndcg@10`, or the first that both runs have of every query]
    #[arg(long, value_name = "METRIC", requires = "queries")]
    by: Option<String>,
    /// The best hits that are listed of each query
    #[arg(long, value_name = "N", default_value_t = 3, requires = "queries")]
    hits: usize,
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is no number of queries; name the runs first, or write `--queries=10`"))
}

/// A run as it is called in a table.
struct Column {
    /// As it was asked for.
    name: String,
    id: String,
    status: RunStatus,
    /// In the order of the pipeline.
    stages: Vec<String>,
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
        let names = match self.named.as_slice() {
            [] => vec!["latest~1", "latest"],
            [one] => vec![one.as_str(), "latest"],
            more => more.iter().map(String::as_str).collect(),
        };
        let compared: Result<Vec<Compared>, _> = names.par_iter().map(|name| runs.compared(name)).collect();
        let compared = compared.map_err(|e| Failure::Call(e.into()))?;
        let Some((base, others)) = compared.split_first() else { return Ok(()) };
        // Queries need no tests, which take longest, unless a bound asks for the differences.
        let diffs = if self.queries.is_none() || !self.fail_if.is_empty() { Diff::with(base, others) } else { Vec::new() };
        match self.queries {
            Some(most) => {
                let by = self.by.as_deref();
                let moved: Result<Vec<_>, _> =
                    others.iter().map(|other| MovedQueries::between(base, other, by, most, self.hits)).collect();
                self.print_queries(&moved.map_err(|e| Failure::Call(e.into()))?, global, style)?;
            }
            None => {
                let columns: Vec<Column> = names.iter().zip(&compared).map(|(name, run)| Column::of(name, run)).collect();
                self.print(&diffs, &columns, global, style)?;
            }
        }
        self.check(&diffs)
    }

    /// `--json` and `--format json` are the same.
    fn format(&self, global: &Global) -> Format {
        if global.json { Format::Json } else { self.format }
    }

    fn print(&self, diffs: &[Diff], columns: &[Column], global: &Global, style: Style) -> Result<(), Failure> {
        match (self.format(global), diffs) {
            (Format::Json, [diff]) => print::json(diff)?,
            (Format::Json, diffs) => print::json(&diffs)?,
            (Format::Csv, diffs) => print::text(&self.csv(diffs))?,
            (Format::Table, [diff]) => print::text(&self.pair_table(diff, style.stdout))?,
            (Format::Table, diffs) => print::text(&self.many_table(diffs, columns, style.stdout))?,
            (Format::Markdown, [diff]) => print::text(&self.pair_markdown(diff))?,
            (Format::Markdown, diffs) => print::text(&self.many_markdown(diffs, columns))?,
        }
        Ok(())
    }

    fn print_queries(&self, moved: &[MovedQueries], global: &Global, style: Style) -> Result<(), Failure> {
        match (self.format(global), moved) {
            (Format::Json, [moved]) => print::json(moved)?,
            (Format::Json, moved) => print::json(&moved)?,
            (Format::Csv, moved) => print::text(&queries::csv(moved))?,
            (Format::Table, moved) => {
                let width = print::line_width().unwrap_or(queries::USUAL_WIDTH);
                let tables: Vec<String> = moved.iter().map(|moved| queries::table(moved, width, style.stdout)).collect();
                print::text(&tables.join("\n"))?;
            }
            (Format::Markdown, moved) => print::text(&moved.iter().map(queries::markdown).collect::<Vec<_>>().join("\n"))?,
        }
        Ok(())
    }

    /// Whether a difference is on the wrong side of a bound.
    fn check(&self, diffs: &[Diff]) -> Result<(), Failure> {
        let mut broken = Vec::new();
        for limit in &self.fail_if {
            let concerned: Vec<(&Diff, &MetricChange)> =
                diffs.iter().flat_map(|d| d.metrics.iter().map(move |m| (d, m))).filter(|(_, m)| limit.concerns(m)).collect();
            if concerned.is_empty() {
                let none = if diffs.len() > 1 { "none of the runs" } else { "neither run" };
                return Err(Failure::Call(anyhow!("`--fail-if`: {none} has a metric `{}`", limit.metric)));
            }
            let sign = if limit.below { '<' } else { '>' };
            for (diff, m) in concerned {
                let run = if diffs.len() > 1 { format!("{}: ", diff.to) } else { String::new() };
                // A figure that is gone may hide the worst; one that is new cannot be worse than before.
                if m.from.is_some() && m.to.is_none() {
                    broken.push(format!("`{}` has no {}", diff.to, m.name));
                } else if limit.broken(m) {
                    broken.push(format!("{run}{} {} {sign} {}", m.name, signed(m.difference), limit.bound));
                }
            }
        }
        if broken.is_empty() { Ok(()) } else { Err(Failure::Regressed(anyhow!("{}", broken.join(", ")))) }
    }

    /// Whether a metric is worth a line.
    fn shows(&self, metric: &MetricChange) -> bool {
        self.all || metric.difference != Some(0.0) || metric.significance.is_some()
    }

    /// A line a metric and run; the run has a column where there are several.
    fn csv(&self, diffs: &[Diff]) -> String {
        let several = diffs.len() > 1;
        let mut head: Vec<String> = if several { vec!["run".to_owned()] } else { Vec::new() };
        let columns = ["metric", "from", "to", "difference", "percent", "low", "high", "p", "p_holm", "wins", "ties", "losses"];
        head.extend(columns.map(str::to_owned));
        let mut rows = vec![head];
        for diff in diffs {
            for m in diff.metrics.iter().filter(|m| self.shows(m)) {
                let figure = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
                let count = |value: Option<usize>| value.map(|v| v.to_string()).unwrap_or_default();
                let mut cells: Vec<String> = if several { vec![diff.to.clone()] } else { Vec::new() };
                cells.push(m.name.clone());
                cells.extend([m.from, m.to, m.difference, m.percent].map(figure));
                let s = m.significance.as_ref();
                cells.extend(
                    [s.map(|s| s.interval[0]), s.map(|s| s.interval[1]), s.map(|s| s.p), s.map(|s| s.p_holm)].map(figure),
                );
                cells.extend([s.map(|s| s.wins), s.map(|s| s.ties), s.map(|s| s.losses)].map(count));
                rows.push(cells);
            }
        }
        print::csv(&rows)
    }
}

impl Column {
    fn of(name: &str, run: &Compared) -> Self {
        let record = &run.record;
        Column {
            name: name.to_owned(),
            id: record.id.clone(),
            status: record.status,
            stages: record.stages.keys().cloned().collect(),
        }
    }
}

/// The name of a run, and how it stands when that is not well.
fn run_name(id: &str, status: RunStatus) -> String {
    match status {
        RunStatus::Done => id.to_owned(),
        other => format!("{id} ({})", other.name()),
    }
}

fn signed(difference: Option<f64>) -> String {
    difference.map(|d| format!("{d:+.4}")).unwrap_or_default()
}

/// A p value after Holm's correction.
fn p_value(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
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
