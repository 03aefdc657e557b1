//! Several runs against the first: a column a run.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use indexmap::IndexMap;

use super::{Column, DiffRuns, p_value, run_name, signed};
use crate::cli::print::{self, Tone, paint};
use crate::run::{Change, Diff, MetricChange};
use crate::stage::reference::written;

/// What stands where a run is like the first.
const SAME: &str = "=";
/// Characters of a value in the table for people.
const WIDEST: usize = 48;

/// What is set, read or coded differently: its value in the first run, and in each other where it differs.
struct ChangeRow {
    base: String,
    others: Vec<Option<String>>,
}

impl DiffRuns {
    pub(super) fn many_table(&self, diffs: &[Diff], columns: &[Column], color: bool) -> String {
        let mut text = print::columns(&columns.iter().map(Column::legend).collect::<Vec<_>>());
        let head = |first: &str| {
            let names = columns.iter().map(|c| c.name.as_str());
            std::iter::once(first).chain(names).map(|name| paint(name, Tone::Bold, color)).collect::<Vec<_>>()
        };
        let changes = changes(diffs, columns);
        if changes.is_empty() {
            text += "\nno stage has other parameters, code or surroundings\n";
        } else {
            text += "\n";
            let short = changes.into_iter().map(|row| row.iter().map(|cell| print::cut(cell, WIDEST)).collect());
            text += &print::columns(&std::iter::once(head("what differs")).chain(short).collect::<Vec<_>>());
        }
        let rows = self.metrics(diffs);
        if rows.is_empty() {
            return text
                + if diffs.iter().all(|d| d.metrics.is_empty()) {
                    "\nno run has metrics\n"
                } else {
                    "\nall metrics are the same\n"
                };
        }
        text += "\n";
        text += &print::columns(&std::iter::once(head("metric")).chain(rows).collect::<Vec<_>>());
        text + &note(diffs, columns)
    }

    pub(super) fn many_markdown(&self, diffs: &[Diff], columns: &[Column]) -> String {
        let mut text = String::new();
        for column in columns {
            let _ = writeln!(text, "- {}", column.legend().iter().map(|cell| format!("`{cell}`")).collect::<Vec<_>>().join(": "));
        }
        let mut table = |first: &str, align: &str, rows: Vec<Vec<String>>| {
            if rows.is_empty() {
                return;
            }
            let names: Vec<&str> = std::iter::once(first).chain(columns.iter().map(|c| c.name.as_str())).collect();
            let _ = write!(text, "\n| {} |\n|---{}|\n", names.join(" | "), align.repeat(columns.len()));
            for row in rows {
                let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
                let _ = writeln!(text, "| {} |", cells.join(" | "));
            }
        };
        table("what differs", "|---", changes(diffs, columns));
        table("metric", "|--:", self.metrics(diffs));
        text + &note(diffs, columns)
    }

    /// A row a metric: its value in the first run, and in the others with what makes them differ.
    fn metrics(&self, diffs: &[Diff]) -> Vec<Vec<String>> {
        let shown = diffs.iter().flat_map(|d| &d.metrics).filter(|m| self.shows(m));
        let names: BTreeSet<&String> = shown.map(|m| &m.name).collect();
        let row = |name: &&String| {
            let of_run: Vec<Option<&MetricChange>> = diffs.iter().map(|d| d.metrics.iter().find(|m| m.name == **name)).collect();
            let base = of_run.iter().flatten().find_map(|m| m.from);
            let mut cells = vec![(*name).clone(), figure(base)];
            cells.extend(of_run.into_iter().map(|metric| metric.map_or_else(|| figure(None), cell)));
            cells
        };
        names.iter().map(row).collect()
    }
}

impl Column {
    /// The name in the table, and the run that it means if that is not said by the name.
    fn legend(&self) -> Vec<String> {
        let run = run_name(&self.id, self.status);
        if self.name == run { vec![run] } else { vec![self.name.clone(), run] }
    }
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
}

/// `0.5534 +0.0221 p 0.012`
fn cell(metric: &MetricChange) -> String {
    match &metric.significance {
        None if metric.difference == Some(0.0) => SAME.to_owned(),
        None => format!("{} {}", figure(metric.to), signed(metric.difference)).trim_end().to_owned(),
        Some(s) => {
            let p = p_value(s.p_holm);
            let sign = if p.starts_with('<') { "" } else { " " };
            format!("{} {} p{sign}{p}", figure(metric.to), signed(metric.difference))
        }
    }
}

fn note(diffs: &[Diff], columns: &[Column]) -> String {
    let tests = diffs.iter().flat_map(|d| &d.metrics).filter(|m| m.significance.is_some()).count();
    if tests == 0 {
        return String::new();
    }
    let base = columns.first().map(|c| c.name.as_str()).unwrap_or_default();
    let tests = if tests == 1 { "the one test".to_owned() } else { format!("all {tests} tests") };
    format!("\np: paired randomization test against `{base}`, two-sided, Holm-corrected over {tests} of the table\n")
}

/// A row for whatever differs in some run, the stages in their order.
fn changes(diffs: &[Diff], columns: &[Column]) -> Vec<Vec<String>> {
    let all = columns.iter().flat_map(|column| &column.stages);
    let mut stages: IndexMap<&str, IndexMap<String, ChangeRow>> = all.map(|stage| (stage.as_str(), IndexMap::new())).collect();
    for (index, diff) in diffs.iter().enumerate() {
        for stage in &diff.stages {
            for (name, base, other) in stage.changes.iter().filter_map(described) {
                let rows = stages.entry(&stage.stage).or_default();
                let row = rows.entry(name).or_insert_with(|| ChangeRow { base, others: vec![None; diffs.len()] });
                if let Some(cell) = row.others.get_mut(index) {
                    *cell = Some(other);
                }
            }
        }
    }
    let rows = stages.into_iter().flat_map(|(stage, rows)| rows.into_iter().map(move |(name, row)| (stage, name, row)));
    let row = |(stage, name, row): (&str, String, ChangeRow)| {
        let others = row.others.into_iter().map(|cell| cell.unwrap_or_else(|| SAME.to_owned()));
        [format!("{stage}{name}"), row.base].into_iter().chain(others).collect()
    };
    rows.map(row).collect()
}

/// What a change is about, and the values before and after it. That results changed with what they come from is no news.
fn described(change: &Change) -> Option<(String, String, String)> {
    let value = |value: &Option<serde_json::Value>| value.as_ref().map_or_else(|| "unset".to_owned(), written);
    let none = String::new;
    Some(match change {
        Change::Parameter { name, from, to } => (format!(".{name}"), value(from), value(to)),
        Change::Kind { from, to } => (" kind".to_owned(), from.clone(), to.clone()),
        Change::Code { from, to, .. } => (" code".to_owned(), format!("version {from}"), format!("version {to}")),
        Change::Input { .. } => return None,
        Change::External { name, from: Some(a), to: Some(b) } if a.len() < 60 && b.len() < 60 => {
            (format!(" {name}"), a.clone(), b.clone())
        }
        Change::External { name, from, to } => {
            let word = if from.is_none() {
                "new"
            } else if to.is_none() {
                "gone"
            } else {
                "changed"
            };
            (format!(" {name}"), none(), word.to_owned())
        }
        Change::Added => (none(), none(), "new".to_owned()),
        Change::Removed => (none(), none(), "gone".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::significance::Significance;
    use crate::run::{RunStatus, StageChanges};
    use serde_json::json;

    fn diff(to: &str, lr: Option<f64>, figure: f64, p: Option<f64>) -> Diff {
        let parameter = |lr: f64| Change::Parameter { name: "lr".into(), from: Some(json!(1e-5)), to: Some(json!(lr)) };
        let mut changes: Vec<Change> = lr.map(parameter).into_iter().collect();
        changes.push(Change::Input { port: "model".into() });
        let docs = Change::External { name: "file `a.md`".into(), from: Some("0".repeat(64)), to: Some("1".repeat(64)) };
        let stages = vec![("docs", vec![docs]), ("tuned", changes)];
        let significance =
            p.map(|p| Significance { queries: 9, wins: 3, ties: 5, losses: 1, p, p_holm: p, interval: [0.0, 0.1] });
        let metric = |name: &str, to: f64, significance| MetricChange {
            name: name.into(),
            from: Some(0.5),
            to: Some(to),
            difference: Some(to - 0.5),
            percent: None,
            significance,
        };
        Diff {
            from: "one".into(),
            from_status: RunStatus::Done,
            to: to.into(),
            to_status: RunStatus::Done,
            stages: stages.into_iter().map(|(stage, changes)| StageChanges { stage: stage.into(), changes }).collect(),
            metrics: vec![
                metric("a.loss", 0.5, None),
                metric("a.ndcg@10", figure, significance),
                metric("a.steps", figure, None),
            ],
        }
    }

    #[test]
    fn a_column_a_run() {
        let command: DiffRuns = {
            #[derive(clap::Parser)]
            struct Program {
                #[command(flatten)]
                diff: DiffRuns,
            }
            <Program as clap::Parser>::parse_from(["diff"]).diff
        };
        let column = |name: &str, id: &str, status| Column {
            name: name.into(),
            id: id.into(),
            status,
            stages: vec!["docs".into(), "tuned".into()],
        };
        let columns = [
            column("baseline", "one", RunStatus::Done),
            column("two", "two", RunStatus::Done),
            column("latest", "three", RunStatus::Failed),
        ];
        let diffs = [diff("two", Some(3e-5), 0.6, Some(0.0123)), diff("three", None, 0.5, None)];
        insta::assert_snapshot!(command.many_table(&diffs, &columns, false), @"
        baseline  one
        two
        latest    three (failed)

        what differs      baseline  two      latest
        docs file `a.md`            changed  changed
        tuned.lr          1e-5      3e-5     =

        metric     baseline  two                     latest
        a.ndcg@10  0.5000    0.6000 +0.1000 p 0.012  =
        a.steps    0.5000    0.6000 +0.1000          =

        p: paired randomization test against `baseline`, two-sided, Holm-corrected over the one test of the table
        ");
        insta::assert_snapshot!(command.many_markdown(&diffs, &columns), @"
        - `baseline`: `one`
        - `two`
        - `latest`: `three (failed)`

        | what differs | baseline | two | latest |
        |---|---|---|---|
        | docs file `a.md` |  | changed | changed |
        | tuned.lr | 1e-5 | 3e-5 | = |

        | metric | baseline | two | latest |
        |---|--:|--:|--:|
        | a.ndcg@10 | 0.5000 | 0.6000 +0.1000 p 0.012 | = |
        | a.steps | 0.5000 | 0.6000 +0.1000 | = |

        p: paired randomization test against `baseline`, two-sided, Holm-corrected over the one test of the table
        ");
    }
}
