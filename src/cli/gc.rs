//! `retune gc`: removes from the store what is no longer needed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use clap::Args;
use jiff::{Span, Timestamp, Zoned};
use serde_json::json;

use super::place::Place;
use super::print::{self, Style, Tone, bytes, paint};
use super::verify::{count, leftovers};
use super::{Failure, Global};
use crate::run::{RunRecord, RunStatus, Runs};
use crate::store::{Garbage, Keep, Needs, OldResult, Store};

/// Removes results that no run needs, and the objects that no result names. Without `--delete` it only says what would go. Runs with tags,
/// and what runs that are going on use, keep what they need in any case; directories of runs are never removed.
#[derive(Args)]
pub(super) struct Gc {
    /// Keep what the last N runs of each folder of runs need, rather than what all need
    #[arg(long, value_name = "N")]
    keep_last: Option<usize>,
    /// Keep what runs of this time need, and what was used within it; `30d`, `2w`, `12h`. Checkpoints of interrupted stages stay two weeks without it
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Remove what was not used for longest until the rest takes no more; `10GB`, `500MB`, `1.5TiB`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Remove it
    #[arg(long)]
    delete: bool,
}

impl Gc {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let place = Place::here(global)?;
        let store = place.existing_store()?;
        let garbage = if self.delete {
            let collecting = store.collecting().map_err(|e| Failure::Failed(e.into()))?;
            // Read while other processes wait: a run that ended before is among them, one that goes on uses what it says.
            let (keep, unknown) = self.keep(&store, &place.runs);
            if let Some(problem) = unknown.first() {
                let hint = "nothing was removed, because what it needs is not known; mend or remove it";
                return Err(Failure::Failed(anyhow!("{problem}; {hint}")));
            }
            collecting.remove(&keep).map_err(|e| Failure::Failed(e.into()))?
        } else {
            let (keep, unknown) = self.keep(&store, &place.runs);
            unknown.iter().for_each(|problem| eprintln!("{} {problem}", paint("warning:", Tone::Warn, style.stderr)));
            store.garbage(&keep)
        };
        if global.json {
            print::json(&json!({ "deleted": self.delete, "garbage": garbage }))?;
        } else {
            print::text(&render(&garbage, self.delete, style.stdout))?;
        }
        Ok(())
    }

    /// What is to be kept, and which runs do not say what they need.
    fn keep(&self, store: &Store, runs: &Path) -> (Keep, Vec<String>) {
        let by_run = self.keep_last.is_some() || self.older_than.is_some();
        let mut keep = Keep {
            only_needed: by_run || self.max_size.is_none(),
            used_within: self.older_than,
            max_size: self.max_size,
            ..Keep::default()
        };
        let mut unknown = Vec::new();
        let canonical = |folder: &Path| std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let folders: BTreeSet<PathBuf> = store.noted_runs().iter().map(PathBuf::as_path).chain([runs]).map(canonical).collect();
        for folder in folders {
            let runs = Runs::list(&folder);
            for (back, id) in runs.ids().iter().rev().enumerate() {
                // By its path: a name may be the beginning of another.
                match runs.read(&folder.join(id).to_string_lossy()) {
                    Ok(record) => {
                        let tagged = tagged(&folder.join(id)) || record.status == RunStatus::Running;
                        let chosen = self.keeps(back, &record);
                        // What was asked for by number or age stays even when the store is to be smaller.
                        match (tagged || (chosen && by_run), chosen) {
                            (true, _) => add(&mut keep.always, record),
                            (false, true) => add(&mut keep.needed, record),
                            (false, false) => {}
                        }
                    }
                    Err(error) => unknown.push(error.to_string()),
                }
            }
        }
        keep.needed.results.extend(store.last_keys());
        (keep, unknown)
    }

    /// Whether a run is kept that has so many after it.
    fn keeps(&self, back: usize, record: &RunRecord) -> bool {
        let late = self.keep_last.is_some_and(|count| back < count);
        let age = SystemTime::from(Timestamp::now()).duration_since(record.started.into()).unwrap_or_default();
        let young = self.older_than.is_some_and(|limit| age < limit);
        late || young || (self.keep_last.is_none() && self.older_than.is_none())
    }
}

fn add(needs: &mut Needs, record: RunRecord) {
    for stage in record.stages.into_values() {
        needs.results.extend(stage.key);
        needs.artifacts.extend(stage.outputs.into_values());
    }
}

/// Whether a run has tags. A list that cannot be read may name some.
fn tagged(folder: &Path) -> bool {
    match std::fs::read(folder.join("tags.json")) {
        Ok(text) => serde_json::from_slice::<Vec<String>>(&text).map_or(true, |tags| !tags.is_empty()),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    }
}

fn render(garbage: &Garbage, deleted: bool, color: bool) -> String {
    let kept = format!(
        "{} and {} of {} stay",
        count(garbage.kept.results, "result"),
        count(garbage.kept.objects, "object"),
        bytes(garbage.kept.bytes)
    );
    let nothing = garbage.results.is_empty()
        && [garbage.objects, garbage.quarantine, garbage.checkpoints] == [0; 3]
        && garbage.leftovers.is_empty();
    if nothing {
        return format!("nothing to remove: {kept}\n");
    }
    let mut text = print::columns(&garbage.results.iter().map(|result| row(result, color)).collect::<Vec<_>>());
    let mut parts = Vec::new();
    if !garbage.results.is_empty() {
        parts.push(count(garbage.results.len(), "result"));
    }
    if garbage.objects > 0 {
        parts.push(format!("{} of {}", count(garbage.objects, "object"), bytes(garbage.bytes)));
    }
    if garbage.quarantine > 0 {
        parts.push(format!("{} in quarantine", count(garbage.quarantine, "file")));
    }
    if garbage.checkpoints > 0 {
        parts.push(format!("the checkpoints of {} that nobody went on with", count(garbage.checkpoints, "stage")));
    }
    if !garbage.leftovers.is_empty() {
        parts.push(format!("what killed runs left: {}", leftovers(&garbage.leftovers)));
    }
    let verb = if deleted { "removed" } else { "would remove" };
    let _ = writeln!(text, "{} {}", paint(verb, Tone::Warn, color), parts.join(", "));
    let linked = if garbage.freed < garbage.bytes { "; what runs link takes its room until they are removed" } else { "" };
    let _ = writeln!(text, "{} {} of the disk{linked}", if deleted { "this freed" } else { "this frees" }, bytes(garbage.freed));
    let _ = writeln!(text, "{kept}");
    if !deleted {
        text += "nothing was removed; `--delete` does it\n";
    }
    text
}

fn row(result: &OldResult, color: bool) -> Vec<String> {
    let age = SystemTime::now().duration_since(result.last_used.into()).unwrap_or_default();
    let kind = if result.kind.is_empty() { "unreadable" } else { &result.kind };
    vec![
        kind.to_owned(),
        paint(&format!("used {}", ago(age)), Tone::Dim, color),
        bytes(result.bytes),
        paint(&result.run, Tone::Dim, color),
    ]
}

/// `just now`, `12 min ago`, `5 h ago`, `3 d ago`.
fn ago(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        0 => "just now".to_owned(),
        1..60 => format!("{minutes} min ago"),
        60..2880 => format!("{} h ago", minutes / 60),
        _ => format!("{} d ago", minutes / 1440),
    }
}

/// A length of time before now.
fn age(text: &str) -> anyhow::Result<Duration> {
    let mend = || format!("`{text}` is no length of time; write `30d`, `2w` or `12h`");
    let span: Span = text.parse().with_context(mend)?;
    let now = Zoned::now();
    let then = now.checked_sub(span).with_context(mend)?;
    Duration::try_from(then.duration_until(&now)).with_context(mend)
}

/// A number of bytes.
fn size(text: &str) -> anyhow::Result<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let powers = ["", "k", "m", "g", "t"];
    let unit = unit.trim().to_lowercase();
    let (base, prefix) = match unit.strip_suffix("ib") {
        Some(prefix) => (1024_u64, prefix),
        None => (1000, unit.strip_suffix('b').unwrap_or(&unit)),
    };
    let power = powers.iter().position(|p| *p == prefix).and_then(|p| u32::try_from(p).ok());
    let bytes = number.parse::<f64>().ok().zip(power).map(|(number, power)| number * base.pow(power) as f64);
    let bytes = bytes.filter(|bytes| bytes.is_finite() && *bytes < 1e18);
    bytes.map(|bytes| bytes as u64).with_context(|| format!("`{text}` is no size; write `10GB`, `500MB` or `1.5TiB`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages() {
        let sizes = ["10GB", "500 mb", "1.5KiB", "12", "7b", "2T"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [10_000_000_000, 500_000_000, 1536, 12, 7, 2_000_000_000_000]);
        assert!(["", "GB", "-1GB", "1.2.3", "10XB", "1e30", "∞"].iter().all(|text| size(text).is_err()));
        assert_eq!(age("12h").unwrap(), Duration::from_hours(12));
        assert!(age("30d").unwrap().abs_diff(Duration::from_hours(720)) <= Duration::from_hours(1), "but for summer time");
        insta::assert_snapshot!(age("soon").unwrap_err(), @"`soon` is no length of time; write `30d`, `2w` or `12h`");
        insta::assert_snapshot!(age("-3d").unwrap_err(), @"`-3d` is no length of time; write `30d`, `2w` or `12h`");
        insta::assert_snapshot!(size("10 apples").unwrap_err(), @"`10 apples` is no size; write `10GB`, `500MB` or `1.5TiB`");
    }
}
