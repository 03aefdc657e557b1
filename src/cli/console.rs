//! What people see while a pipeline runs: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::print::{Style, Tone, paint, seconds};
use crate::engine::{Event, Observer};
use crate::run::{StageRecord, StageStatus};
use crate::stage::Progress;

/// Without a terminal, how long a stage may be silent about its progress.
const SILENCE: Duration = Duration::from_secs(15);
/// Of a pipeline with more stages, those that do not run are counted at the end, not listed.
const MOST_LISTED: usize = 40;

/// Prints what happens on the standard error.
pub(super) struct Console {
    bars: MultiProgress,
    terminal: bool,
    color: bool,
    /// Width of the names of stages.
    width: usize,
    /// Whether stages that do not run are listed.
    lists_all: bool,
    stages: Mutex<HashMap<String, Shown>>,
}

/// A stage that is being shown.
struct Shown {
    bar: ProgressBar,
    started: Instant,
    said: Instant,
    /// How far it was when it was first told, and when: one that was resumed does not begin at 0.
    first: Option<(u64, Instant)>,
}

impl Console {
    pub fn new<'n>(stages: impl Iterator<Item = &'n str>, style: Style) -> Self {
        let names: Vec<&str> = stages.collect();
        Console {
            bars: MultiProgress::new(),
            terminal: std::io::stderr().is_terminal(),
            color: style.stderr,
            width: names.iter().map(|name| name.len()).max().unwrap_or(0),
            lists_all: names.len() <= MOST_LISTED,
            stages: Mutex::new(HashMap::new()),
        }
    }

    /// Says nothing of stages that are cached.
    pub fn without_cached(self) -> Self {
        Console { lists_all: false, ..self }
    }

    fn line(&self, stage: &str, tone: Tone, state: &str, text: &str) {
        let state = paint(&format!("{state:<11}"), tone, self.color);
        let line = format!("{stage:<width$}  {state} {text}", width = self.width);
        let line = line.trim_end();
        if self.terminal {
            // Above the bars.
            let _ = self.bars.println(line);
        } else {
            // In one piece: the standard error has no buffer.
            let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }

    fn start(&self, stage: &str, reasons: &[String]) {
        self.line(stage, Tone::Bold, "runs", &reasons.join("; "));
        let bar = ProgressBar::new_spinner();
        if self.terminal {
            self.bars.add(bar.clone());
            bar.set_style(spinner());
            bar.set_prefix(format!("{stage:<width$}", width = self.width));
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        let now = Instant::now();
        self.stages().insert(stage.to_owned(), Shown { bar, started: now, said: now, first: None });
    }

    fn stages(&self) -> std::sync::MutexGuard<'_, HashMap<String, Shown>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, stage: &str, progress: &Progress) {
        let mut stages = self.stages();
        let Some(shown) = stages.get_mut(stage) else { return };
        let (from, since) = *shown.first.get_or_insert_with(|| match progress.done {
            0 | 1 => (0, shown.started),
            done => (done, Instant::now()),
        });
        if self.terminal {
            if progress.total > 0 && shown.bar.length() != Some(progress.total) {
                shown.bar.set_length(progress.total);
                shown.bar.set_style(bar());
            }
            shown.bar.set_position(progress.done);
            shown.bar.set_message(match progress.total {
                0 => progress.message.clone(),
                _ => format!("{}  {}  {}", progress.unit, progress.message, left(progress, from, since)),
            });
        } else if shown.said.elapsed() >= SILENCE {
            shown.said = Instant::now();
            let text = match progress.total {
                0 => progress.message.clone(),
                total => {
                    let left = left(progress, from, since);
                    format!("{}/{total} {}  {}  {left}", progress.done, progress.unit, progress.message)
                }
            };
            drop(stages);
            self.line(stage, Tone::Dim, "…", text.trim_end());
        }
    }

    fn ended(&self, stage: &str, record: &StageRecord) {
        if let Some(shown) = self.stages().remove(stage) {
            shown.bar.finish_and_clear();
        }
        let summary = record.outcome.as_ref().map(|o| o.summary.as_str()).unwrap_or_default();
        let took = record.seconds.map(seconds).unwrap_or_default();
        match record.status {
            StageStatus::Fetched => self.line(stage, Tone::Good, "fetched", summary),
            StageStatus::Cached if self.lists_all => self.line(stage, Tone::Dim, "cached", summary),
            StageStatus::Frozen => {
                self.line(stage, Tone::Warn, "frozen", &format!("used although {}", record.reasons.join("; ")));
            }
            StageStatus::Done => self.line(stage, Tone::Good, "done", format!("in {took}  {summary}").trim_end()),
            StageStatus::Failed => self.line(stage, Tone::Bad, "failed", record.error.as_deref().unwrap_or_default()),
            StageStatus::Interrupted => self.line(stage, Tone::Warn, "interrupted", ""),
            StageStatus::Skipped if self.lists_all => self.line(stage, Tone::Dim, "skipped", ""),
            StageStatus::Cached | StageStatus::Skipped | StageStatus::Waiting | StageStatus::Running => {}
        }
        for warning in record.outcome.iter().flat_map(|o| &o.warnings) {
            self.line(stage, Tone::Warn, "warning", warning);
        }
    }
}

impl Observer for Console {
    fn event(&self, stage: &str, event: &Event) {
        match event {
            Event::Started { reasons } => self.start(stage, reasons),
            Event::Waiting => self.line(stage, Tone::Dim, "waits", "for another process that computes the same"),
            Event::Progress(progress) => self.progress(stage, progress),
            Event::Log(line) => self.line(stage, Tone::Dim, "…", line),
            Event::Warning(line) => self.line(stage, Tone::Warn, "warning", line),
            Event::Ended(record) => self.ended(stage, record),
        }
    }
}

/// The time left, from the time since it was at `from`.
fn left(progress: &Progress, from: u64, since: Instant) -> String {
    if progress.done <= from || progress.done >= progress.total {
        return String::new();
    }
    let each = since.elapsed().as_secs_f64() / (progress.done - from) as f64;
    format!("{} left", seconds(each * (progress.total - progress.done) as f64))
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}  {spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bar() -> ProgressStyle {
    let style = ProgressStyle::with_template("{prefix}  [{bar:24}] {pos}/{len} {wide_msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
