//! Names that people give to runs. Each run keeps its own, in `tags.json` of its directory: a JSON list of texts.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::catalogue::{Runs, SelectError};
use crate::store::write_json;

const FILE: &str = "tags.json";
/// Characters of a tag.
const LONGEST: usize = 100;
/// Held while tags change, so that two processes cannot give one tag to two runs.
const LOCK: &str = ".tags.lock";

/// A tag cannot be given or taken.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    #[error("`{0}` cannot be a tag; use letters, digits, `.`, `_` and `-`, with a letter or digit first, at most {LONGEST}")]
    Name(String),
    #[error("`{0}` cannot be a tag, because it means a run already")]
    Taken(String),
    #[error("`{tag}` is a tag of `{run}`; `--force` moves it")]
    Elsewhere { tag: String, run: String },
    #[error("`{run}` has no tag `{tag}`; it has {}", had(.tags))]
    Missing { tag: String, run: String, tags: Vec<String> },
    #[error(transparent)]
    Select(#[from] SelectError),
    #[error("`{}` cannot be written: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

fn had(tags: &[String]) -> String {
    if tags.is_empty() { "none".to_owned() } else { format!("`{}`", tags.join("`, `")) }
}

/// Whether a run may be called so.
pub fn is_tag(text: &str) -> bool {
    text.len() <= LONGEST
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// The tags of the run in `folder`, in alphabetical order.
///
/// # Errors
/// There is a `tags.json` that is none.
pub fn read(folder: &Path) -> Result<Vec<String>, SelectError> {
    let path = folder.join(FILE);
    let unreadable = |message: String| SelectError::Unreadable { path: path.clone(), message };
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| unreadable(format!("{e}; it must be a list of texts"))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(unreadable(e.to_string())),
    }
}

/// Every tag and its run, in alphabetical order.
///
/// # Errors
/// A `tags.json` cannot be read.
pub fn tags(runs: &Runs) -> Result<Vec<(String, String)>, SelectError> {
    let mut all = Vec::new();
    for id in runs.ids() {
        all.extend(read(&runs.folder().join(id))?.into_iter().map(|tag| (tag, id.clone())));
    }
    all.sort();
    Ok(all)
}

/// Gives tags to the run in `folder`; one of another run is moved only with `force`. Either all are given or none.
///
/// # Errors
/// A tag is no name, belongs to another run, or cannot be written.
pub fn tag(runs: &Runs, folder: &Path, names: &[String], force: bool) -> Result<(), TagError> {
    for name in names {
        if !is_tag(name) {
            return Err(TagError::Name(name.clone()));
        }
        if name == "latest" || runs.ids().contains(name) {
            return Err(TagError::Taken(name.clone()));
        }
    }
    let _lock = lock(runs)?;
    let own = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut elsewhere = Vec::new();
    for name in names {
        elsewhere.extend(runs.tagged(name)?.into_iter().filter(|run| *run != own).map(|run| (name.clone(), run)));
    }
    if let (false, Some((tag, run))) = (force, elsewhere.first()) {
        return Err(TagError::Elsewhere { tag: tag.clone(), run: run.clone() });
    }
    // First here and then away from there: a process that is killed between leaves two runs with the tag, which is told, not none.
    change(folder, |tags| tags.extend(names.iter().cloned()))?;
    elsewhere.iter().try_for_each(|(tag, run)| change(&runs.folder().join(run), |tags| tags.retain(|t| t != tag)))
}

/// Takes tags from the run in `folder`. Either all are taken or none.
///
/// # Errors
/// The run has no such tag, or the file cannot be written.
pub fn untag(runs: &Runs, folder: &Path, names: &[String]) -> Result<(), TagError> {
    let _lock = lock(runs)?;
    let tags = read(folder)?;
    if let Some(tag) = names.iter().find(|name| !tags.contains(name)) {
        let run = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(TagError::Missing { tag: tag.clone(), run, tags });
    }
    change(folder, |tags| tags.retain(|tag| !names.contains(tag)))
}

fn change(folder: &Path, change: impl FnOnce(&mut Vec<String>)) -> Result<(), TagError> {
    let path = folder.join(FILE);
    let mut tags = read(folder)?;
    change(&mut tags);
    tags.sort();
    tags.dedup();
    let written = match tags.as_slice() {
        [] => fs::remove_file(&path).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) }),
        tags => write_json(&path, &tags),
    };
    written.map_err(|cause| TagError::Io { path, cause })
}

fn lock(runs: &Runs) -> Result<File, TagError> {
    let path = runs.folder().join(LOCK);
    let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
    locked.map_err(|cause| TagError::Io { path, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> (tempfile::TempDir, Runs) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["20261124-101500-a-7f3a", "20261125-090000-a-0abc"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("run.json"), "{}").unwrap();
        }
        let runs = Runs::list(folder.path());
        (folder, runs)
    }

    fn words(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_tag_names_one_run() {
        let (_folder, runs) = runs();
        let [old, new] = ["20261124", "latest"].map(|run| runs.select(run).unwrap());
        tag(&runs, &old, &words(&["baseline", "paper-1"]), false).unwrap();
        assert_eq!(runs.select("baseline").unwrap(), old);
        assert_eq!(fs::read_to_string(old.join("tags.json")).unwrap(), "[\n  \"baseline\",\n  \"paper-1\"\n]\n");
        let refused = tag(&runs, &new, &words(&["x", "baseline"]), false).unwrap_err();
        insta::assert_snapshot!(refused, @"`baseline` is a tag of `20261124-101500-a-7f3a`; `--force` moves it");
        assert!(read(&new).unwrap().is_empty(), "none is given when one is refused");
        tag(&runs, &new, &words(&["baseline"]), true).unwrap();
        assert_eq!(runs.select("baseline").unwrap(), new);
        assert_eq!(
            tags(&runs).unwrap(),
            [("baseline", &new), ("paper-1", &old)]
                .map(|(tag, run)| { (tag.to_owned(), run.file_name().unwrap().to_string_lossy().into_owned()) })
        );
        insta::assert_snapshot!(untag(&runs, &new, &words(&["paper-1"])).unwrap_err(), @"`20261125-090000-a-0abc` has no tag `paper-1`; it has `baseline`");
        untag(&runs, &new, &words(&["baseline"])).unwrap();
        assert!(!new.join("tags.json").exists() && runs.tagged("baseline").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_a_tag() {
        let (_folder, runs) = runs();
        let run = runs.select("latest").unwrap();
        for bad in ["", "a b", "../x", "latest~1", "latest", "20261124-101500-a-7f3a", "-x"] {
            assert!(tag(&runs, &run, &words(&[bad]), true).is_err(), "{bad}");
        }
        assert!(!run.join("tags.json").exists());
    }

    #[test]
    fn two_runs_with_one_tag_and_a_damaged_file_are_told() {
        let (folder, runs) = runs();
        for id in runs.ids() {
            fs::write(folder.path().join(id).join("tags.json"), "[\"x\"]").unwrap();
        }
        insta::assert_snapshot!(runs.select("x").unwrap_err(), @"`x` is a tag of `20261124-101500-a-7f3a`, `20261125-090000-a-0abc`; give it to one of them: `retune tag RUN x --force`");
        let latest = runs.select("latest").unwrap();
        tag(&runs, &latest, &words(&["x"]), true).unwrap();
        assert_eq!(runs.select("x").unwrap(), latest);
        fs::write(latest.join("tags.json"), "{}").unwrap();
        assert!(runs.select("x").unwrap_err().to_string().contains("must be a list of texts"));
    }
}
