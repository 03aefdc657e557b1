//! Where the relative paths of a run's pipeline start, said so that it stays true when the whole project is moved.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::record::RunRecord;

impl RunRecord {
    /// The record of a run in the folder `runs` whose pipeline lies in `base`.
    #[must_use]
    pub fn based(self, runs: &Path, base: &Path) -> Self {
        RunRecord { base: portable(runs, base), ..self }
    }

    /// The folder of the pipeline file of this run, which lies in `folder`; `None` in a record that does not say it.
    pub fn base(&self, folder: &Path) -> Option<PathBuf> {
        (!self.base.is_empty()).then(|| plain(&folder.join(&self.base)))
    }
}

/// `base` as seen from a run's directory in `runs`, if it lies in the folder that `runs` lies in; else the absolute path.
fn portable(runs: &Path, base: &Path) -> String {
    let (short, real) = (plain(base), fs::canonicalize(base));
    // After a link, `..` is another folder than it looks.
    let short = match (real, fs::canonicalize(&short)) {
        (Ok(real), Ok(other)) if real != other => real,
        _ => short,
    };
    let runs = plain(runs);
    let below = runs.parent().and_then(|project| short.strip_prefix(project).ok());
    let path = below.map_or(short.clone(), |below| Path::new("../..").join(below));
    path.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/")
}

/// The absolute path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_in_the_project_is_relative_and_moves_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let project = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(project.join("a/pipelines")).unwrap();
        let base = portable(&project.join("a/runs"), &project.join("a/x/../pipelines"));
        assert_eq!(base, "../../pipelines");
        assert_eq!(plain(&Path::new("/moved/runs/20261125-x").join(base)), Path::new("/moved/pipelines"));
        assert_eq!(portable(&project.join("a/runs"), &project.join("a")), "../../");
    }

    #[test]
    fn a_base_elsewhere_is_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let project = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(project.join("pipelines")).unwrap();
        let base = portable(Path::new("/elsewhere/runs"), &project.join("pipelines"));
        assert_eq!(Path::new(&base), project.join("pipelines"));
    }

    #[test]
    #[cfg(unix)]
    fn a_link_before_dots_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let project = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(project.join("far/away")).unwrap();
        fs::create_dir_all(project.join("far/pipelines")).unwrap();
        fs::create_dir_all(project.join("pipelines")).unwrap();
        std::os::unix::fs::symlink(project.join("far/away"), project.join("link")).unwrap();
        let base = portable(&project.join("runs"), &project.join("link/../pipelines"));
        assert_eq!(base, "../../far/pipelines");
    }
}
