//! Writing the directory of a run while it runs.
//!
//! ```text
//! runs/20261124-101500-tech-docs-7f3a/
//!   run.json              the record: whole at every instant, at most a moment old while the run goes on
//!   pipeline.lock.yaml    the pipeline with everything resolved
//!   events.jsonl          what happened, a line each
//!   logs/STAGE.log
//!   artifacts/STAGE/…     what the stages yielded, linked from the store
//!   metrics.json, metrics.csv
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::record::{RunRecord, RunStatus, StageRecord};
use crate::store::{json_text, replace, write_json};

/// How often `run.json` is written while the run goes on. Writing it for every stage would take longer than the stages of a large
/// pipeline; `events.jsonl` tells every step.
pub const REFRESH: Duration = Duration::from_millis(250);

/// The directory of the run that is going on.
pub struct Recorder {
    folder: PathBuf,
    record: Mutex<RunRecord>,
    /// Whether the record is not what `run.json` holds.
    stale: AtomicBool,
    /// When `run.json` was written.
    written: Mutex<Instant>,
    events: Mutex<File>,
    /// Locked while the process lives: a run that says `running` without it was killed.
    _alive: File,
}

/// The directory of a run cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the run's directory `{}` cannot be written: {cause}; free the disk or its permissions, or name another folder with `--runs`", path.display())]
pub struct RecorderError {
    path: PathBuf,
    cause: io::Error,
}

/// The lock of a run's directory.
pub(super) const ALIVE: &str = ".alive";

impl Recorder {
    /// Makes the directory of a run under `runs`; `record.id` is set to its name.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(runs: &Path, mut record: RunRecord, lock: &str) -> Result<Self, RecorderError> {
        let folder = make(runs, &record).map_err(|cause| RecorderError { path: runs.to_owned(), cause })?;
        record.id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let open = || -> io::Result<(File, File)> {
            let alive = File::create(folder.join(ALIVE))?;
            alive.lock()?;
            replace(&folder.join("pipeline.lock.yaml"), lock.as_bytes())?;
            fs::create_dir_all(folder.join("logs"))?;
            replace(&folder.join("run.json"), &json_text(&record)?)?;
            Ok((alive, File::options().append(true).create(true).open(folder.join("events.jsonl"))?))
        };
        let (alive, events) = open().map_err(|cause| RecorderError { path: folder.clone(), cause })?;
        let (record, events, written) = (Mutex::new(record), Mutex::new(events), Mutex::new(Instant::now()));
        Ok(Recorder { folder, record, stale: AtomicBool::new(false), written, events, _alive: alive })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn id(&self) -> String {
        self.record().id.clone()
    }

    /// The record as it stands.
    pub fn record(&self) -> MutexGuard<'_, RunRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is recorded of a stage; [`Recorder::refresh`] brings it into `run.json`.
    pub fn update_stage(&self, stage: &str, change: impl FnOnce(&mut StageRecord)) {
        if let Some(stage) = self.record().stages.get_mut(stage) {
            change(stage);
            self.stale.store(true, Ordering::SeqCst);
        }
    }

    /// Writes `run.json` if it is no longer true and was not written within [`REFRESH`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn refresh(&self) -> Result<(), RecorderError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.elapsed() < REFRESH || !self.stale.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let text = json_text(&*self.record());
        *written = Instant::now();
        text.and_then(|text| replace(&self.folder.join("run.json"), &text)).map_err(|cause| self.fail(cause))
    }

    fn fail(&self, cause: io::Error) -> RecorderError {
        RecorderError { path: self.folder.clone(), cause }
    }

    /// Appends a line to `events.jsonl`. A full disk does not end a run for an event; the results that matter are checked.
    pub fn event(&self, stage: Option<&str>, event: Value) {
        let mut line = json!({ "time": Timestamp::now().to_string() });
        if let (Some(line), Some(stage)) = (line.as_object_mut(), stage) {
            line.insert("stage".into(), stage.into());
        }
        if let (Some(line), Value::Object(event)) = (line.as_object_mut(), event) {
            line.extend(event);
        }
        let mut file = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }

    /// Appends a line to the log of a stage.
    pub fn log(&self, stage: &str, line: &str) {
        let path = self.folder.join("logs").join(format!("{stage}.log"));
        // A stage of a definition, `OUTER/INNER`, has its log in a folder.
        let _ = path.parent().map(fs::create_dir_all);
        if let Ok(mut file) = File::options().append(true).create(true).open(path) {
            let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
            let _ = file.write_all(format!("{time} {line}\n").as_bytes());
        }
    }

    /// Where a stage's output appears.
    pub fn artifact(&self, stage: &str, file: &str) -> PathBuf {
        self.folder.join("artifacts").join(stage).join(file)
    }

    /// Ends the run: sets its status and writes the metrics of all stages.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(&self, status: RunStatus) -> Result<RunRecord, RecorderError> {
        let metrics = self.record().metrics();
        let rows = || -> csv::Result<Vec<u8>> {
            let mut csv = csv::Writer::from_writer(Vec::new());
            csv.write_record(["metric", "value"])?;
            metrics.iter().try_for_each(|(name, value)| csv.write_record([name.as_str(), &value.to_string()]))?;
            csv.flush()?;
            Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)
        };
        let files = || -> io::Result<()> {
            replace(&self.folder.join("metrics.json"), &json_text(&metrics)?)?;
            replace(&self.folder.join("metrics.csv"), &rows()?)
        };
        files().map_err(|cause| self.fail(cause))?;
        let mut record = self.record();
        let now = Timestamp::now();
        record.status = status;
        record.seconds = Some(now.duration_since(record.started).as_secs_f64());
        record.finished = Some(now);
        // The figures are in it too, so this is the one file that must outlive a power loss.
        write_json(&self.folder.join("run.json"), &*record).map_err(|cause| self.fail(cause))?;
        Ok(record.clone())
    }
}

/// A new directory, named by time and pipeline. The four digits at the end are the fraction of the second, so that runs of the same
/// second are told apart and stay in their order.
fn make(runs: &Path, record: &RunRecord) -> io::Result<PathBuf> {
    fs::create_dir_all(runs)?;
    let time = record.started.strftime("%Y%m%d-%H%M%S");
    let fraction = i64::from(record.started.subsec_nanosecond()) * 0x1_0000 / 1_000_000_000;
    for digits in fraction.max(0)..0x1_0000 {
        let folder = runs.join(format!("{time}-{}-{digits:04x}", record.pipeline));
        match fs::create_dir(&folder) {
            Ok(()) => return std::path::absolute(folder),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("there are too many runs of this second"))
}
