//! `retune verify`: reads the whole store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::place::Place;
use super::print::{self, Style, Tone, bytes, paint};
use super::{Failure, Global};
use crate::store::{Leftovers, Verified};

/// Reads every object and every result of the store, and moves what is damaged into the quarantine.
#[derive(Args)]
pub(super) struct Verify {}

impl Verify {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let store = Place::here(global)?.existing_store()?;
        // Drawn on the standard error, and only when that is a terminal.
        let bar = ProgressBar::new(0).with_style(
            ProgressStyle::with_template("[{bar:24}] {bytes}/{total_bytes} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        let progress = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let verified = store.verify(&progress);
        bar.finish_and_clear();
        let verified = verified.map_err(|e| Failure::Failed(e.into()))?;
        if global.json {
            print::json(&verified)?;
        } else {
            print::text(&render(&verified, style.stdout))?;
        }
        if verified.is_fine() { Ok(()) } else { Err(Failure::Told) }
    }
}

fn render(verified: &Verified, color: bool) -> String {
    let mut text = String::new();
    let bad = |word: &str| paint(word, Tone::Bad, color);
    for aside in &verified.damaged {
        let _ = writeln!(text, "{} object {}, now `{}`", bad("damaged"), aside.object.short(), aside.quarantine.display());
    }
    let mut again: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for broken in &verified.broken {
        let what = match (&broken.kind, &broken.run) {
            (Some(kind), Some(run)) => format!("of a stage `{kind}`, computed by {run}"),
            _ => format!("`{}`", broken.quarantine.display()),
        };
        let _ = writeln!(text, "{} result {what}: {}", bad("lost"), broken.problem);
        for (pipeline, stages) in &broken.stages {
            again.entry(pipeline).or_default().extend(stages.iter().map(String::as_str));
        }
    }
    for (pipeline, stages) in again {
        let stages: Vec<String> = stages.into_iter().map(|stage| format!("`{stage}`")).collect();
        let _ = writeln!(text, "{} {} of pipeline `{pipeline}`", paint("runs again", Tone::Warn, color), stages.join(", "));
    }
    if !verified.leftovers.is_empty() {
        let _ = writeln!(text, "removed what killed runs left: {}", leftovers(&verified.leftovers));
    }
    let read = format!(
        "{} of {} and {} read",
        count(verified.objects, "object"),
        bytes(verified.bytes),
        count(verified.results, "result")
    );
    let state = match (verified.damaged.len(), verified.broken.len()) {
        (0, 0) => paint("all is well", Tone::Good, color),
        (damaged, lost) => format!("{}, {} lost", bad(&format!("{damaged} damaged")), count(lost, "result")),
    };
    let _ = writeln!(text, "{read}: {state}");
    text
}

/// What killed processes left, in words.
pub(super) fn leftovers(left: &Leftovers) -> String {
    let parts = [(left.sessions, "session"), (left.leases, "lease"), (left.scratch, "scratch folder")];
    let parts: Vec<String> = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| count(n, word)).collect();
    format!("{} ({})", parts.join(", "), bytes(left.bytes))
}

/// `1 object`, `2 objects`.
pub(super) fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}
