//! Writing several files, or none.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::store::write_atomically;

/// What git must not keep.
const IGNORED: &[&str] = &["/.retune", "/runs/*", ".env"];

/// A file to write.
pub struct File {
    path: PathBuf,
    text: String,
    what: String,
    /// Whether what is there is a part of `text`, so that replacing it loses nothing.
    extends: bool,
}

impl File {
    pub fn new(path: PathBuf, text: String, what: &str) -> Self {
        File { path, text, what: what.to_owned(), extends: false }
    }
}

/// The `.gitignore` of a project; what is there already stays. Nothing when it says everything.
pub fn gitignore(folder: &Path, notes: &mut Vec<String>) -> Result<Option<File>> {
    let path = folder.join(".gitignore");
    let before = match fs::read_to_string(&path) {
        Ok(before) => before,
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) if e.kind() == ErrorKind::InvalidData => {
            notes.push(format!("`{}` is not UTF-8 and was left as it is; add the lines {}", path.display(), IGNORED.join(" ")));
            return Ok(None);
        }
        Err(e) => return Err(e).with_context(|| format!("`{}` cannot be read", path.display())),
    };
    let plain = |line: &str| line.trim().trim_matches('/').to_owned();
    let has = |wanted: &str| before.lines().any(|line| plain(line) == plain(wanted));
    let missing: Vec<&str> = IGNORED.iter().copied().filter(|wanted| !has(wanted)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let text = format!("{before}{gap}{}\n", missing.join("\n"));
    Ok(Some(File { path, text, what: "keeps the store and the runs out of git".to_owned(), extends: true }))
}

/// Writes the files in their order, each whole; those that are there with the same content are left alone. When one cannot be
/// written, those before it are again as they were. The files and what they are.
///
/// # Errors
/// Files are there with another content and `force` is not given, or one cannot be written.
pub fn write(files: Vec<File>, force: bool) -> Result<Vec<(PathBuf, String)>> {
    let is_there = |file: &File| fs::read(&file.path).is_ok_and(|bytes| bytes == file.text.as_bytes());
    let files: Vec<File> = files.into_iter().filter(|file| !is_there(file)).collect();
    let replaced: Vec<String> = files
        .iter()
        .filter(|file| !file.extends && fs::symlink_metadata(&file.path).is_ok())
        .map(|file| format!("`{}`", file.path.display()))
        .collect();
    if !replaced.is_empty() && !force {
        let them = if replaced.len() == 1 { "it" } else { "them" };
        bail!("{} would be replaced; keep {them} with another `--name`, or replace {them} with `--force`", replaced.join(", "));
    }
    let mut before: Vec<(&Path, Option<Vec<u8>>)> = Vec::new();
    for file in &files {
        before.push((&file.path, fs::read(&file.path).ok()));
        let folder = file.path.parent().unwrap_or(Path::new("."));
        let written = fs::create_dir_all(folder).and_then(|()| write_atomically(&file.path, file.text.as_bytes()));
        if let Err(error) = written {
            before.pop();
            // The error that is told is the first one.
            before.iter().for_each(|(path, bytes)| match bytes {
                Some(bytes) => drop(write_atomically(path, bytes)),
                None => drop(fs::remove_file(path)),
            });
            return Err(error).with_context(|| format!("`{}` cannot be written", file.path.display()));
        }
    }
    Ok(files.into_iter().map(|file| (file.path, file.what)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("mine"), "mine").unwrap();
        fs::write(at("file"), "").unwrap();
        let file = |name: &str| File::new(at(name), "new".into(), "a file");
        let message = |result: Result<Vec<(PathBuf, String)>>| {
            format!("{:#}", result.unwrap_err()).replace(&folder.path().display().to_string(), "FOLDER")
        };
        insta::assert_snapshot!(message(write(vec![file("a/b"), file("mine")], false)), @"`FOLDER/mine` would be replaced; keep it with another `--name`, or replace it with `--force`");
        assert!(!at("a").exists());
        assert!(
            message(write(vec![file("c"), file("mine"), file("file/below")], true))
                .contains("`FOLDER/file/below` cannot be written")
        );
        assert!(!at("c").exists() && fs::read_to_string(at("mine")).unwrap() == "mine");
        assert_eq!(write(vec![file("a/b"), file("mine")], true).unwrap().len(), 2);
        assert_eq!(write(vec![file("a/b"), file("mine")], false).unwrap().len(), 0, "they are there as they should be");
    }

    #[test]
    fn a_gitignore_is_extended() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".gitignore"), "target\n.retune/").unwrap();
        let file = gitignore(folder.path(), &mut Vec::new()).unwrap().unwrap();
        assert_eq!(file.text, "target\n.retune/\n/runs/*\n.env\n");
        write(vec![file], false).unwrap();
        assert!(gitignore(folder.path(), &mut Vec::new()).unwrap().is_none());
    }
}
