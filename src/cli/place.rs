//! Where the store and the runs of a project are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::{Failure, Global};
use crate::run::Runs;
use crate::stage::Allowed;
use crate::store::Store;

/// The folders that a command works with.
pub(super) struct Place {
    pub store: PathBuf,
    pub runs: PathBuf,
    /// Where the paths of pipelines may lead.
    pub allowed: Allowed,
}

impl Place {
    /// For a pipeline file.
    pub fn of_pipeline(global: &Global, file: &Path) -> Result<Self, Failure> {
        let file = std::path::absolute(file).context("the path cannot be made absolute").map_err(Failure::Call)?;
        Ok(Place::of_folder(global, file.parent().unwrap_or(&file)))
    }

    /// For commands without a pipeline.
    pub fn here(global: &Global) -> Result<Self, Failure> {
        let here = std::env::current_dir().context("the working directory is gone").map_err(Failure::Call)?;
        Ok(Place::of_folder(global, &here))
    }

    fn of_folder(global: &Global, folder: &Path) -> Self {
        let project = project(folder);
        Place {
            store: global.store.clone().unwrap_or_else(|| project.join(".retune")),
            allowed: Allowed::only(&project, global.allow.iter().cloned()),
            runs: global.runs.clone().unwrap_or_else(|| project.join("runs")),
        }
    }

    /// The store, which must be there.
    pub fn existing_store(&self) -> Result<Store, Failure> {
        if !self.store.join("format").is_file() {
            let hint = "`retune run PIPELINE` makes one, and `--store` names another folder";
            return Err(Failure::Call(anyhow!("there is no store at `{}`; {hint}", self.store.display())));
        }
        Store::open(&self.store).map_err(|e| Failure::Call(e.into()))
    }

    /// The runs that are there.
    pub fn runs(&self) -> Runs {
        Runs::list(&self.runs)
    }
}

/// The nearest folder upwards that has a store or is the top of a git work tree; where there is none, the folder that `pipelines` lies
/// in, or else the folder itself.
fn project(folder: &Path) -> PathBuf {
    let marked = folder.ancestors().find(|f| f.join(".retune").is_dir() || f.join(".git").exists());
    let pipelines = || folder.parent().filter(|_| folder.file_name().is_some_and(|n| n == "pipelines"));
    marked.or_else(pipelines).unwrap_or(folder).to_owned()
}

/// The path that is shorter to type from here.
pub(super) fn below_here(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::create_dir_all;

    #[test]
    fn the_project_of_a_folder() {
        let top = tempfile::tempdir().unwrap();
        let pipelines = top.path().join("a/pipelines");
        create_dir_all(&pipelines).unwrap();
        assert_eq!(project(&pipelines), top.path().join("a"));
        assert_eq!(project(&top.path().join("a")), top.path().join("a"));
        create_dir_all(top.path().join(".git")).unwrap();
        assert_eq!(project(&pipelines), top.path());
        create_dir_all(pipelines.join(".retune")).unwrap();
        assert_eq!(project(&pipelines), pipelines);
    }
}
