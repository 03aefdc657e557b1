//! Removing runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::catalogue::{Runs, is_alive};

/// What the directory of a run that is being removed begins with.
const REMOVING: &str = ".removing-";

/// A run cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("`{0}` is running; wait for its end, or stop it first")]
    Running(String),
    #[error("`{}` cannot be removed: {cause}; mend its permissions and remove it again", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

/// Removes the run in `folder`. It gets another name first: interrupted at any instant, the run is whole or counts as none, and
/// [`finish`] takes away what is left.
///
/// # Errors
/// It is running, or its directory cannot be changed.
pub fn remove(folder: &Path) -> Result<(), RemoveError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if is_alive(folder) {
        return Err(RemoveError::Running(name));
    }
    let hidden = folder.with_file_name(format!("{REMOVING}{name}"));
    let io = |cause| RemoveError::Io { path: folder.to_owned(), cause };
    if hidden.symlink_metadata().is_ok() {
        fs::remove_dir_all(&hidden).map_err(io)?;
    }
    fs::rename(folder, &hidden).map_err(io)?;
    fs::remove_dir_all(&hidden).map_err(|cause| RemoveError::Io { path: hidden, cause })
}

/// Removes what interrupted removals left in the folder of the runs.
///
/// # Errors
/// A directory cannot be removed.
pub fn finish(runs: &Runs) -> Result<(), RemoveError> {
    let entries = fs::read_dir(runs.folder()).into_iter().flatten().flatten();
    let left = entries.filter(|e| e.file_name().to_string_lossy().starts_with(REMOVING)).map(|e| e.path());
    left.into_iter().try_for_each(|path| fs::remove_dir_all(&path).map_err(|cause| RemoveError::Io { path, cause }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::recorder::ALIVE;
    use std::fs::File;

    #[test]
    fn a_run_is_whole_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let run = folder.path().join(name);
            fs::create_dir_all(run.join("artifacts/docs")).unwrap();
            fs::write(run.join("run.json"), "{}").unwrap();
            let file = run.join("artifacts/docs/documents.jsonl");
            fs::write(&file, "{}").unwrap();
            let mut permissions = fs::metadata(&file).unwrap().permissions();
            permissions.set_readonly(true);
            fs::set_permissions(&file, permissions).unwrap();
            run
        };
        let run = make("20261124-101500-a-7f3a");
        // Another removal of a run of this name was interrupted.
        make(".removing-20261124-101500-a-7f3a");
        make(".removing-20261124-101500-a-7f3b");
        assert_eq!(Runs::list(folder.path()).ids().len(), 1);
        let alive = File::create(run.join(ALIVE)).unwrap();
        alive.lock().unwrap();
        insta::assert_snapshot!(remove(&run).unwrap_err(), @"`20261124-101500-a-7f3a` is running; wait for its end, or stop it first");
        drop(alive);
        remove(&run).unwrap();
        finish(&Runs::list(folder.path())).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
