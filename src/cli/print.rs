//! What commands print with: style, tables, errors.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use clap::ColorChoice;
use serde::Serialize;
use serde_json::json;

use crate::pipeline::PipelineError;
use crate::run::{RunRecord, RunStatus};
use crate::stage::Table;

/// Whether output to a terminal is coloured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub stdout: bool,
    pub stderr: bool,
}

/// What a text says by its colour.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tone {
    Bold,
    Dim,
    Good,
    Bad,
    Warn,
}

impl Style {
    pub fn new(choice: ColorChoice) -> Self {
        // NO_COLOR (no-color.org) and dumb terminals are respected.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let on = |terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && wanted,
        };
        Style { stdout: on(io::stdout().is_terminal()), stderr: on(io::stderr().is_terminal()) }
    }
}

/// `text` in a tone, when `on`.
pub(super) fn paint(text: &str, tone: Tone, on: bool) -> String {
    let code = match tone {
        _ if !on => return text.to_owned(),
        Tone::Bold => "1",
        Tone::Dim => "2",
        Tone::Good => "32",
        Tone::Bad => "31",
        Tone::Warn => "33",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// The name of a run's status, in its colour.
pub(super) fn status(status: RunStatus, on: bool) -> String {
    let tone = match status {
        RunStatus::Done => Tone::Good,
        RunStatus::Failed => Tone::Bad,
        RunStatus::Interrupted | RunStatus::Running => Tone::Warn,
    };
    paint(status.name(), tone, on)
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints text.
pub(super) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// An error on the standard error, or as JSON on the standard output.
pub(super) fn error(error: &anyhow::Error, as_json: bool, style: Style) {
    if as_json {
        let _ = json(&json!({ "errors": [{ "message": format!("{error:#}") }] }));
    } else {
        eprintln!("{} {error:#}", paint("error:", Tone::Bad, style.stderr));
    }
}

/// What is wrong with a pipeline, with the places in the file.
pub(super) fn pipeline_error(error: &PipelineError, as_json: bool, style: Style) {
    if as_json {
        let _ = json(&json!({ "errors": error.to_json() }));
    } else {
        eprint!("{}", error.render(style.stderr));
    }
}

/// A table of text: the first column to the left, the others to the right.
pub(super) fn table(table: &Table) -> String {
    let mut widths: Vec<usize> = table.columns.iter().map(|c| width(c)).collect();
    for (_, cells) in &table.rows {
        for (w, cell) in widths.iter_mut().zip(cells) {
            *w = (*w).max(width(cell));
        }
    }
    let first = table.rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let mut text = String::new();
    let mut line = |name: &str, cells: &[String]| {
        let mut row = format!("{name}{}", " ".repeat(first - width(name).min(first)));
        for (cell, w) in cells.iter().zip(&widths) {
            let _ = write!(row, "   {}{cell}", " ".repeat(w - width(cell).min(*w)));
        }
        text += row.trim_end();
        text += "\n";
    };
    line("", &table.columns);
    table.rows.iter().for_each(|(name, cells)| line(name, cells));
    text
}

/// The tables that the stages of a run made, each with its summary; under the stage's name where there are several.
pub(super) fn tables(record: &RunRecord) -> String {
    let outcomes = record.stages.iter().filter_map(|(id, stage)| Some((id, stage.outcome.as_ref()?)));
    let tables: Vec<_> = outcomes.filter_map(|(id, outcome)| Some((id, outcome.table.as_ref()?, &outcome.summary))).collect();
    let one = |(id, rows, summary): &(&String, &Table, &String)| {
        let title = if tables.len() > 1 { format!("{id}\n") } else { String::new() };
        format!("\n{title}{}{summary}\n", table(rows))
    };
    tables.iter().map(one).collect()
}

/// Lines of columns, all to the left.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..count).map(|i| rows.iter().filter_map(|r| r.get(i)).map(|c| width(c)).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, w)| format!("{cell}{}", " ".repeat(w - width(cell))));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
    }
    text
}

/// Columns of a terminal that a text takes.
pub(super) fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// The characters that fit on a line: of the terminal, or as `COLUMNS` says for output that goes elsewhere.
pub(super) fn line_width() -> Option<usize> {
    let told = || std::env::var("COLUMNS").ok()?.parse().ok();
    let terminal = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    terminal.or_else(told).filter(|columns| *columns > 0)
}

/// Rows for [`columns`] whose last cells are cut so that each stays on its line.
pub(super) fn fitted(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let Some(line) = line_width() else { return rows };
    let last = rows.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1);
    let before: usize = (0..last).map(|i| 2 + rows.iter().filter_map(|r| r.get(i)).map(|c| width(c)).max().unwrap_or(0)).sum();
    for cell in rows.iter_mut().filter_map(|row| row.get_mut(last)) {
        *cell = cut(cell, line.saturating_sub(before).max(12));
    }
    rows
}

/// `text` without its end where it is longer than `most` characters are wide.
pub(super) fn cut(text: &str, most: usize) -> String {
    console::truncate_str(text, most, "…").into_owned()
}

/// Rows as CSV.
pub(super) fn csv(rows: &[Vec<String>]) -> String {
    let mut csv = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    // Memory does not fail.
    rows.iter().for_each(|row| drop(csv.write_record(row)));
    String::from_utf8(csv.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// `1.2 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn seconds(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        _ if seconds < 0.0995 => format!("{:.0} ms", seconds * 1000.0),
        _ if seconds < 59.5 => format!("{seconds:.1} s"),
        0..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `1.5 GB`.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e3 => format!("{b} B"),
        b if b < 1e6 => format!("{:.0} kB", b / 1e3),
        b if b < 1e9 => format!("{:.0} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let cells = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<String>>();
        let example = Table {
            columns: cells(&["recall@3", "ndcg@10"]),
            rows: vec![("baseline".into(), cells(&["0.5000", "0.4"])), ("improvement".into(), cells(&["+1.0%", "new"]))],
        };
        insta::assert_snapshot!(table(&example), @"
                      recall@3   ndcg@10
        baseline        0.5000       0.4
        improvement      +1.0%       new
        ");
    }

    #[test]
    fn durations_and_sizes() {
        let durations = [0.0123, 0.5, 59.4, 59.7, 200.0, 7500.0].map(seconds);
        assert_eq!(durations, ["12 ms", "0.5 s", "59.4 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]);
        assert_eq!([12, 1_500, 2_000_000, 1_500_000_000].map(bytes), ["12 B", "2 kB", "2 MB", "1.5 GB"]);
    }
}
