//! Finding runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::diff::Compared;
use super::record::{RunRecord, RunStatus};
use super::recorder::ALIVE;
use super::summary::Summary;
use super::tags;

/// The runs in a folder, oldest first.
pub struct Runs {
    folder: PathBuf,
    ids: Vec<String>,
}

/// No run, or no one run, is meant.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    #[error("there are no runs in `{}`; `retune run PIPELINE` makes one, and `--runs` names another folder", .0.display())]
    None(PathBuf),
    #[error("no run is called `{run}`; `retune runs` lists the {count} that are there, and `latest` is `{latest}`")]
    Unknown { run: String, count: usize, latest: String },
    #[error("`{run}` may mean {}; give more of its name", list(.candidates))]
    Ambiguous { run: String, candidates: Vec<String> },
    #[error("`{run}` reaches further back than the {count} runs that are there")]
    TooFarBack { run: String, count: usize },
    #[error("`{tag}` is a tag of {}; give it to one of them: `retune tag RUN {tag} --force`", list(.runs))]
    Tagged { tag: String, runs: Vec<String> },
    #[error("`{}` cannot be read: {message}", path.display())]
    Unreadable { path: PathBuf, message: String },
}

fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(4).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(4);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &rest
}

impl Runs {
    /// Looks into `folder`; a missing one has no runs.
    pub fn list(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        // A run that is being removed has a hidden name.
        let names = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| !name.starts_with('.'));
        let mut ids: Vec<String> = names.filter(|name| folder.join(name).join("run.json").is_file()).collect();
        ids.sort_by(|a, b| age(a).cmp(&age(b)));
        Runs { folder: folder.to_owned(), ids }
    }

    /// The names of the runs, oldest first.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// The folder that the runs are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The directory of the run that `run` means: a name, a tag, a unique beginning of a name, a path, `latest`, `latest~N`.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn select(&self, run: &str) -> Result<PathBuf, SelectError> {
        if let Some(back) = latest(run) {
            let count = self.ids.len();
            let latest = self.ids.last().ok_or_else(|| SelectError::None(self.folder.clone()))?;
            let too_far = || SelectError::TooFarBack { run: run.to_owned(), count };
            let id = if back == 0 { latest } else { self.ids.iter().rev().nth(back).ok_or_else(too_far)? };
            return Ok(self.folder.join(id));
        }
        let path = Path::new(run);
        if path.join("run.json").is_file() {
            return Ok(path.to_owned());
        }
        if self.ids.iter().any(|id| id == run) {
            return Ok(self.folder.join(run));
        }
        match self.tagged(run)?.as_slice() {
            [] => {}
            [one] => return Ok(self.folder.join(one)),
            runs => return Err(SelectError::Tagged { tag: run.to_owned(), runs: runs.to_vec() }),
        }
        let candidates: Vec<String> = self.ids.iter().filter(|id| id.starts_with(run) && !run.is_empty()).cloned().collect();
        match candidates.as_slice() {
            [one] => Ok(self.folder.join(one)),
            [] => match self.ids.last() {
                None => Err(SelectError::None(self.folder.clone())),
                Some(latest) => Err(SelectError::Unknown { run: run.to_owned(), count: self.ids.len(), latest: latest.clone() }),
            },
            _ => Err(SelectError::Ambiguous { run: run.to_owned(), candidates }),
        }
    }

    /// The names of the runs that have a tag.
    ///
    /// # Errors
    /// A `tags.json` is not one.
    pub fn tagged(&self, tag: &str) -> Result<Vec<String>, SelectError> {
        // Most names are no tags, and then no file need be opened.
        if !tags::is_tag(tag) {
            return Ok(Vec::new());
        }
        let has = |id: &&String| tags::read(&self.folder.join(id)).map(|tags| tags.iter().any(|t| t == tag));
        self.ids.iter().filter_map(|id| has(&id).map(|has| has.then(|| id.clone())).transpose()).collect()
    }

    /// What lists and filters need of the run called `id`.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn summary(&self, id: &str) -> Result<Summary, SelectError> {
        let folder = self.folder.join(id);
        let mut summary: Summary = parse(&folder)?;
        // The name of the directory is what every command takes.
        id.clone_into(&mut summary.id);
        summary.status = status(&folder, summary.status);
        summary.tags = tags::read(&folder)?;
        Ok(summary)
    }

    /// The run that `run` means, to be compared.
    ///
    /// # Errors
    /// As [`Runs::read`].
    pub fn compared(&self, run: &str) -> Result<Compared, SelectError> {
        let folder = self.select(run)?;
        Ok(Compared { record: read(&folder)?, folder })
    }

    /// The record of the run that `run` means.
    ///
    /// # Errors
    /// As [`Runs::select`], or its record cannot be read.
    pub fn read(&self, run: &str) -> Result<RunRecord, SelectError> {
        read(&self.select(run)?)
    }
}

/// What orders runs by their names: the time they begin with, and the fraction of the second they end with.
fn age(id: &str) -> (Option<&str>, Option<&str>, &str) {
    (id.get(..15), id.rsplit('-').next(), id)
}

/// How many runs before the latest: `latest` is 0, `latest~2` is 2.
fn latest(run: &str) -> Option<usize> {
    match run.strip_prefix("latest")? {
        "" => Some(0),
        rest => rest.strip_prefix('~')?.parse().ok(),
    }
}

/// Reads a run's record.
fn read(folder: &Path) -> Result<RunRecord, SelectError> {
    let mut record: RunRecord = parse(folder)?;
    record.status = status(folder, record.status);
    Ok(record)
}

fn parse<T: DeserializeOwned>(folder: &Path) -> Result<T, SelectError> {
    let path = folder.join("run.json");
    let unreadable = |message: String| SelectError::Unreadable { path: path.clone(), message };
    let bytes = fs::read(&path).map_err(|e| unreadable(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))
}

/// How a run stands that says `recorded`: one that says it is running while nothing holds its lock was killed.
fn status(folder: &Path, recorded: RunStatus) -> RunStatus {
    if recorded == RunStatus::Running && !is_alive(folder) { RunStatus::Interrupted } else { recorded }
}

/// Whether a process is writing the run in `folder`.
pub fn is_alive(folder: &Path) -> bool {
    File::open(folder.join(ALIVE)).is_ok_and(|file| file.try_lock_shared().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(names: &[&str]) -> (tempfile::TempDir, Runs) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("run.json"), "{}").unwrap();
        }
        let runs = Runs::list(folder.path());
        (folder, runs)
    }

    #[test]
    fn a_run_by_name_beginning_path_and_age() {
        // The second began before the first, in the same second.
        let names = ["20261124-101500-a-7f3a", "20261124-101500-b-1111", "20261125-090000-a-0abc"];
        let (folder, runs) = runs(&names);
        let select = |run: &str| runs.select(run).map(|p| p.file_name().unwrap().to_string_lossy().into_owned());
        assert_eq!(select("latest").unwrap(), names[2]);
        assert_eq!((select("latest~1").unwrap(), select("latest~2").unwrap()), (names[0].into(), names[1].into()));
        assert_eq!(select("20261124-101500-b").unwrap(), names[1]);
        assert_eq!(select(names[0]).unwrap(), names[0]);
        assert_eq!(select(&folder.path().join(names[1]).to_string_lossy()).unwrap(), names[1]);
        insta::assert_snapshot!(select("2026112").unwrap_err(), @"`2026112` may mean `20261124-101500-b-1111`, `20261124-101500-a-7f3a`, `20261125-090000-a-0abc`; give more of its name");
        insta::assert_snapshot!(select("nope").unwrap_err(), @"no run is called `nope`; `retune runs` lists the 3 that are there, and `latest` is `20261125-090000-a-0abc`");
        insta::assert_snapshot!(select("latest~3").unwrap_err(), @"`latest~3` reaches further back than the 3 runs that are there");
    }

    #[test]
    fn no_runs() {
        let runs = Runs::list(Path::new("nowhere"));
        insta::assert_snapshot!(runs.select("latest").unwrap_err(), @"there are no runs in `nowhere`; `retune run PIPELINE` makes one, and `--runs` names another folder");
        insta::assert_snapshot!(runs.select("x").unwrap_err(), @"there are no runs in `nowhere`; `retune run PIPELINE` makes one, and `--runs` names another folder");
    }
}
