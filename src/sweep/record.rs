//! What is kept of a sweep: `runs/sweeps/NAME.json`, whole at every instant, so that a sweep that was interrupted goes on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Axis, SweepError};
use crate::pipeline::Override;
use crate::store::{Digest, write_json};

/// The version of the file's form.
const FORMAT: u32 = 1;
/// The folder below that of the runs.
const FOLDER: &str = "sweeps";
/// Characters of a name.
const LONGEST_NAME: usize = 100;

/// The record of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SweepRecord {
    /// Version of this file's form.
    pub format: u32,
    /// The name of the sweep, and of this file.
    pub name: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file as it was given.
    pub file: String,
    /// Values given with `--set`, which all points share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    pub axes: Vec<Axis>,
    /// How points were drawn; absent when the sweep has every combination of the axes' values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<Random>,
    /// When the sweep was begun.
    #[schemars(with = "String")]
    pub started: Timestamp,
    /// When this file was written.
    #[schemars(with = "String")]
    pub updated: Timestamp,
    /// Stages that yield metrics, in the order of the pipeline.
    pub measuring: Vec<String>,
    /// In the order in which they run.
    pub points: Vec<PointRecord>,
}

/// How points are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Random {
    /// How many points are drawn.
    pub draws: usize,
    /// The seed of the draw.
    pub seed: u64,
}

/// One point of a sweep, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PointRecord {
    /// A value for each axis, in their order.
    pub values: Vec<Value>,
    pub status: PointStatus,
    /// The digest of everything that decided its result; a point for which it is another one now runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Digest>,
    /// The name of its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How long its run took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Stages that ran.
    #[serde(default)]
    pub ran: usize,
    /// Stages whose results were in the store, or were fetched.
    #[serde(default)]
    pub cached: usize,
    /// `STAGE.NAME` → figure, of all stages that have any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a point stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PointStatus {
    /// Its turn has not come, or it was killed.
    #[default]
    Waiting,
    Done,
    /// It failed, and runs again at the next call.
    Failed,
    /// Ctrl-C; it runs again at the next call.
    Interrupted,
}

impl PointStatus {
    pub fn name(self) -> &'static str {
        match self {
            PointStatus::Waiting => "waiting",
            PointStatus::Done => "done",
            PointStatus::Failed => "failed",
            PointStatus::Interrupted => "interrupted",
        }
    }
}

impl SweepRecord {
    /// A sweep that has not begun. Without a `name` it is called by the pipeline and by what is asked, so that the same call finds it again.
    ///
    /// # Errors
    /// The name is none for a file.
    pub fn new(
        name: Option<&str>,
        (pipeline, file, overrides): (&str, &Path, &[String]),
        (axes, random, points): (Vec<Axis>, Option<Random>, Vec<Vec<Value>>),
        measuring: Vec<String>,
    ) -> Result<Self, SweepError> {
        let asked = serde_json::json!([pipeline, overrides, axes, random]).to_string();
        let digest = Digest::of(asked.as_bytes());
        let called = || format!("{pipeline}-{}", digest.as_str().get(..8).unwrap_or_default());
        let name = name.map_or_else(called, str::to_owned);
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && (name.len() <= LONGEST_NAME || name == called());
        if !is_name {
            let message =
                format!("`{name}` cannot be the name of a sweep; use up to {LONGEST_NAME} letters, digits, `.`, `_` and `-`");
            return Err(SweepError(message));
        }
        let points = points.into_iter().map(|values| PointRecord { values, ..PointRecord::default() }).collect();
        Ok(SweepRecord {
            format: FORMAT,
            name,
            pipeline: pipeline.to_owned(),
            file: file.to_string_lossy().into_owned(),
            overrides: overrides.to_owned(),
            axes,
            random,
            started: Timestamp::now(),
            updated: Timestamp::now(),
            measuring,
            points,
        })
    }

    /// What `--set` takes for a point: what all points share, and the value of every axis.
    pub fn sets(&self, point: &PointRecord) -> Vec<String> {
        let own = self.axes.iter().zip(&point.values).map(|(axis, value)| format!("{}={}", axis.path, Override::written(value)));
        self.overrides.iter().cloned().chain(own).collect()
    }

    /// How many points stand so.
    pub fn count(&self, status: PointStatus) -> usize {
        self.points.iter().filter(|point| point.status == status).count()
    }
}

/// A sweep that is going on; no other process can go on with it meanwhile.
pub struct Sweep {
    pub record: SweepRecord,
    path: PathBuf,
    /// Locked while the process lives.
    _alive: File,
}

/// Begins a sweep under `runs`, or goes on with the one that was begun by the same call.
///
/// # Errors
/// The sweep of that name was begun by another call or is going on, or its file cannot be read or written.
pub fn open(runs: &Path, mut record: SweepRecord) -> Result<Sweep, SweepError> {
    let folder = runs.join(FOLDER);
    let path = folder.join(format!("{}.json", record.name));
    let fail =
        |e: io::Error| SweepError(format!("`{}` cannot be written: {e}; free the disk or its permissions", path.display()));
    fs::create_dir_all(&folder).map_err(fail)?;
    let alive = File::create(folder.join(format!(".{}.alive", record.name))).map_err(fail)?;
    if alive.try_lock().is_err() {
        let message =
            format!("sweep `{}` is going on in another process; wait for it, or give this one another `--name`", record.name);
        return Err(SweepError(message));
    }
    if let Some(before) = read(&path)? {
        let same = |a: &SweepRecord, b: &SweepRecord| {
            (&a.pipeline, &a.overrides, &a.axes, a.random) == (&b.pipeline, &b.overrides, &b.axes, b.random)
                && a.points.iter().map(|p| &p.values).eq(b.points.iter().map(|p| &p.values))
        };
        if !same(&before, &record) {
            let message = format!(
                "sweep `{}` has other axes or values; give this one another `--name`, or remove `{}`",
                record.name,
                path.display()
            );
            return Err(SweepError(message));
        }
        record.points = before.points;
        record.started = before.started;
    }
    let mut sweep = Sweep { record, path, _alive: alive };
    sweep.save()?;
    Ok(sweep)
}

impl Sweep {
    /// Puts down what became of a point.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn ended(&mut self, index: usize, change: impl FnOnce(&mut PointRecord)) -> Result<(), SweepError> {
        if let Some(point) = self.record.points.get_mut(index) {
            let values = std::mem::take(&mut point.values);
            *point = PointRecord { values, ..PointRecord::default() };
            change(point);
        }
        self.save()
    }

    fn save(&mut self) -> Result<(), SweepError> {
        self.record.updated = Timestamp::now();
        let fail = |e| SweepError(format!("`{}` cannot be written: {e}; free the disk or its permissions", self.path.display()));
        write_json(&self.path, &self.record).map_err(fail)
    }
}

/// The sweep called `name` under `runs`; `latest` is the one that was written last.
///
/// # Errors
/// There is none of that name, or its file cannot be read.
pub fn show(runs: &Path, name: &str) -> Result<SweepRecord, SweepError> {
    let folder = runs.join(FOLDER);
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(SweepError(format!(
            "there are no sweeps in `{}`; `retune sweep PIPELINE --over …` makes one",
            folder.display()
        )));
    }
    let record = |name: &str| read(&folder.join(format!("{name}.json")));
    let found = match name {
        // One damaged file must not hide the others.
        "latest" => names.iter().filter_map(|name| record(name).ok()?).max_by_key(|record| record.updated),
        name if names.iter().any(|known| known == name) => record(name)?,
        _ => None,
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        SweepError(format!("there is no sweep `{name}`; {}", crate::pipeline::did_you_mean(name, "sweeps", &known)))
    })
}

fn read(path: &Path) -> Result<Option<SweepRecord>, SweepError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(SweepError(format!("`{}` cannot be read: {e}", path.display()))),
    };
    let unreadable = |what: &str| SweepError(format!("`{}` {what}; remove it to begin the sweep anew", path.display()));
    let record: SweepRecord = serde_json::from_slice(&bytes).map_err(|e| unreadable(&format!("is damaged: {e}")))?;
    let whole = record.points.iter().all(|point| point.values.len() == record.axes.len());
    match record.format {
        FORMAT if whole => Ok(Some(record)),
        FORMAT => Err(unreadable("is damaged: a point has not one value for each axis")),
        other => Err(unreadable(&format!("has format {other}, and this program reads format {FORMAT}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Choices;
    use super::*;

    fn record(name: Option<&str>, values: &[i64]) -> SweepRecord {
        let values: Vec<Value> = values.iter().map(|&v| json!(v)).collect();
        let points = values.iter().map(|v| vec![v.clone()]).collect();
        let axis = Axis { name: "lr".into(), path: "params.lr".into(), repeats: false, choices: Choices::Values(values) };
        SweepRecord::new(name, ("p", Path::new("p.yaml"), &[]), (vec![axis], None, points), Vec::new()).unwrap()
    }

    #[test]
    fn the_same_call_goes_on_and_another_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut sweep = open(folder.path(), record(None, &[1, 2])).unwrap();
        sweep.ended(0, |point| point.status = PointStatus::Done).unwrap();
        let beside = open(folder.path(), record(None, &[1, 2])).map(drop).unwrap_err().to_string();
        let name = sweep.record.name.clone();
        insta::assert_snapshot!(beside.replace(&name, "NAME"), @"sweep `NAME` is going on in another process; wait for it, or give this one another `--name`");
        drop(sweep);
        let again = open(folder.path(), record(None, &[1, 2])).unwrap();
        assert_eq!((again.record.count(PointStatus::Done), again.record.name == name), (1, true));
        assert_ne!(record(None, &[1, 3]).name, name);
        let other = open(folder.path(), record(Some(&name), &[1, 3])).map(drop).unwrap_err();
        assert!(other.to_string().contains("is going on"), "{other}");
        drop(again);
        let other = open(folder.path(), record(Some(&name), &[1, 3])).map(drop).unwrap_err().to_string();
        insta::assert_snapshot!(other.replace(&name, "NAME").replace(&folder.path().display().to_string(), "RUNS"), @"sweep `NAME` has other axes or values; give this one another `--name`, or remove `RUNS/sweeps/NAME.json`");
        let path = folder.path().join("sweeps").join(format!("{name}.json"));
        fs::write(&path, "{\"format\":").unwrap();
        let damaged = show(folder.path(), &name).unwrap_err().to_string();
        insta::assert_snapshot!(damaged.replace(&name, "NAME").replace(&folder.path().display().to_string(), "RUNS"), @"`RUNS/sweeps/NAME.json` is damaged: EOF while parsing a value at line 1 column 10; remove it to begin the sweep anew");
        insta::assert_snapshot!(show(folder.path(), "p-").unwrap_err().to_string().replace(&name, "NAME"), @"there is no sweep `p-`; the sweeps are `NAME`");
    }
}
