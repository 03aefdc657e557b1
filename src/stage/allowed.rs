//! Which folders a pipeline may read from: its paths stand in a file that may be anybody's.

use std::fs;
use std::path::{Component, Path, PathBuf, absolute};

/// Links that are followed on the way to one path.
const MOST_LINKS: usize = 40;

/// The folders that the paths of a pipeline may lead into: that of the project, and those that the caller names.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Without links and `..`, the project's first; none when everything is allowed.
    folders: Vec<PathBuf>,
}

/// A path that leads outside of what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}; {}", self.message(&.path.to_string_lossy()), self.help())]
pub struct Outside {
    /// As it is written.
    path: PathBuf,
    /// Where it leads.
    real: PathBuf,
    project: PathBuf,
}

impl Allowed {
    /// Every folder.
    pub fn anywhere() -> Self {
        Allowed::default()
    }

    /// The folder of the project, and more.
    pub fn only(project: &Path, more: impl IntoIterator<Item = PathBuf>) -> Self {
        let folders = std::iter::once(project.to_owned()).chain(more);
        Allowed { folders: folders.map(|folder| real(&folder).unwrap_or(folder)).collect() }
    }

    /// Whether a path stays inside, whatever links and `..` there are on the way, and whether or not there is something at its end.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, path: &Path) -> Result<(), Outside> {
        let Some(project) = self.folders.first() else { return Ok(()) };
        let real = real(path);
        if real.as_ref().is_some_and(|real| self.folders.iter().any(|folder| real.starts_with(folder))) {
            return Ok(());
        }
        Err(Outside { path: path.to_owned(), real: real.unwrap_or_else(|| path.to_owned()), project: project.clone() })
    }
}

impl Outside {
    /// What is wrong with the path, as it is `written`.
    pub fn message(&self, written: &str) -> String {
        format!("`{written}` leads out of the project, to `{}`", self.real.display())
    }

    /// How to allow it.
    pub fn help(&self) -> String {
        let folder = if self.real.is_dir() { Some(self.real.as_path()) } else { self.real.parent() };
        let folder = folder.unwrap_or(&self.real).display();
        format!(
            "the project is `{}`; allow more with `--allow {folder}`, or in the environment variable `RETUNE_ALLOW`",
            self.project.display()
        )
    }
}

/// Where a path leads, as far as what it names exists; nothing when links lead to links without end.
fn real(path: &Path) -> Option<PathBuf> {
    match fs::canonicalize(path) {
        Ok(real) => Some(real),
        Err(_) => follow(&absolute(path).ok()?, &mut MOST_LINKS.clone()),
    }
}

/// Follows the links of an absolute path one by one; a link that leads to nothing counts too.
fn follow(path: &Path, links: &mut usize) -> Option<PathBuf> {
    let mut real = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(real.pop()),
            Component::CurDir => {}
            part => {
                real.push(part);
                if let Ok(target) = fs::read_link(&real) {
                    *links = links.checked_sub(1)?;
                    real.pop();
                    real = follow(&real.join(target), links)?;
                }
            }
        }
    }
    Some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn links_and_dots_are_followed_to_where_they_lead() {
        use std::os::unix::fs::symlink;
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        for folder in ["project/data/deep", "project-2", "elsewhere"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        symlink(at("elsewhere"), at("project/out")).unwrap();
        symlink("../elsewhere/nothing-yet", at("project/dangling")).unwrap();
        symlink("data/deep", at("project/in")).unwrap();
        symlink("loop", at("project/loop")).unwrap();
        symlink(at("project"), at("link-to-project")).unwrap();
        let allowed = Allowed::only(&at("link-to-project"), [at("allowed")]);
        for path in [
            "project",
            "project/x/../y",
            "project/in/../z",
            "link-to-project/data",
            "allowed/x",
            r"project/..\..\x",
            r"project/C:\x",
        ] {
            assert_eq!(allowed.check(&at(path)), Ok(()), "{path}");
        }
        for path in [
            "",
            "project-2",
            "project/..",
            "project/x/../../elsewhere",
            "project/data/../../elsewhere/x",
            "project/out",
            "project/out/new",
            "project/in/../../../elsewhere",
            "project/dangling",
            "project/dangling/x",
            "project/loop",
        ] {
            assert!(allowed.check(&at(path)).is_err(), "{path}");
        }
        assert!(allowed.check(Path::new("/")).is_err());
        assert_eq!(Allowed::anywhere().check(Path::new("/")), Ok(()));
        let shown = allowed.check(&at("project/out/x.md")).unwrap_err().to_string();
        let shown = shown.replace(&*fs::canonicalize(top.path()).unwrap().to_string_lossy(), "TOP");
        insta::assert_snapshot!(shown.replace(&*top.path().to_string_lossy(), "TOP"), @"`TOP/project/out/x.md` leads out of the project, to `TOP/elsewhere/x.md`; the project is `TOP/project`; allow more with `--allow TOP/elsewhere`, or in the environment variable `RETUNE_ALLOW`");
    }

    /// Each link leads through the next one twice.
    #[test]
    #[cfg(unix)]
    fn links_cannot_be_followed_without_end() {
        use std::os::unix::fs::symlink;
        let top = tempfile::tempdir().unwrap();
        for i in 0..60 {
            symlink(format!("l{0}/../l{0}", i + 1), top.path().join(format!("l{i}"))).unwrap();
        }
        fs::create_dir(top.path().join("l60")).unwrap();
        assert!(Allowed::only(top.path(), []).check(&top.path().join("l0/x")).is_err());
    }
}
