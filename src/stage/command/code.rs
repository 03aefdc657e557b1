//! The files that a program is made of.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use globset::{GlobBuilder, GlobMatcher};
use walkdir::{DirEntry, WalkDir};

use super::template::Run;
use crate::stage::externals::file;
use crate::stage::{Context, External, ParameterError, Surroundings};
use crate::text::first_few;

/// More files than any program has are a pattern that was not meant.
const MOST_FILES: usize = 10_000;

/// A path as it is written, taken apart.
struct Pattern<'p> {
    /// The folders before the first wildcard; the whole path where there is none.
    start: String,
    /// What a path below `start` must look like.
    glob: Option<GlobMatcher>,
    written: &'p str,
}

impl<'p> Pattern<'p> {
    fn read(written: &'p str) -> Result<Self, String> {
        let is_wild = |part: &str| part.contains(['*', '?', '[', '{']);
        let parts: Vec<&str> = written.split('/').collect();
        let Some(first) = parts.iter().position(|part| is_wild(part)) else {
            return Ok(Pattern { start: written.to_owned(), glob: None, written });
        };
        let (start, rest) = parts.split_at(first);
        let start = match start {
            [] => ".".to_owned(),
            [""] => "/".to_owned(),
            start => start.join("/"),
        };
        let glob = GlobBuilder::new(&rest.join("/")).literal_separator(true).build();
        let glob = glob.map_err(|e| format!("`{written}` is not a glob: {}", e.kind()))?;
        Ok(Pattern { start, glob: Some(glob.compile_matcher()), written })
    }

    /// The files that it means, as they would be written, in the order of their bytes.
    fn files(&self, surroundings: &Surroundings) -> Result<Vec<String>> {
        let root = surroundings.path(&self.start)?;
        let metadata = std::fs::metadata(&root).with_context(|| format!("`{}` in `files` cannot be read", self.written))?;
        if self.glob.is_none() && !metadata.is_dir() {
            return Ok(vec![self.written.to_owned()]);
        }
        let mut files = Vec::new();
        let is_seen = |entry: &DirEntry| entry.depth() == 0 || !is_hidden(entry);
        for entry in WalkDir::new(&root).follow_links(true).into_iter().filter_entry(is_seen) {
            let entry = match entry {
                Ok(entry) => entry,
                // A link to a folder above it.
                Err(error) if error.loop_ancestor().is_some() => continue,
                Err(error) => return Err(error).with_context(|| format!("`{}` in `files` cannot be read", self.written)),
            };
            let below = entry.path().strip_prefix(&root).unwrap_or(entry.path());
            if !entry.file_type().is_file() || self.glob.as_ref().is_some_and(|glob| !glob.is_match(below)) {
                continue;
            }
            files.push(self.named(below)?);
            if files.len() > MOST_FILES {
                bail!("`{}` in `files` means more than {MOST_FILES} files; name fewer", self.written);
            }
        }
        if files.is_empty() {
            bail!("`{}` in `files` means no file; correct it, or remove it", self.written);
        }
        files.sort();
        Ok(files)
    }

    fn named(&self, below: &Path) -> Result<String> {
        let parts: Option<Vec<&str>> = below.components().map(|part| part.as_os_str().to_str()).collect();
        let below = parts
            .map(|parts| parts.join("/"))
            .with_context(|| format!("the name of `{}` is not UTF-8; rename the file", below.display()))?;
        let start = self.start.trim_end_matches('/');
        Ok(if start == "." { below } else { format!("{start}/{below}") })
    }
}

/// What Python and editors leave behind is no code.
fn is_hidden(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    name.starts_with('.') || name == "__pycache__"
}

/// Every path and glob can be read as one.
pub fn check(files: &[String]) -> Result<(), ParameterError> {
    for (i, written) in files.iter().enumerate() {
        if written.trim().is_empty() {
            return Err(ParameterError::new(format!("files[{i}]"), "the path is empty; name a file, a folder or a glob"));
        }
        Pattern::read(written).map_err(|message| ParameterError::new(format!("files[{i}]"), message))?;
    }
    Ok(())
}

/// The digest of each file.
pub fn externals(files: &[String], surroundings: &Surroundings) -> Result<Vec<External>> {
    let mut names = Vec::new();
    for written in files {
        names.extend(Pattern::read(written).map_err(anyhow::Error::msg)?.files(surroundings)?);
    }
    names.sort();
    names.dedup();
    names.iter().map(|name| file(surroundings, name)).collect()
}

/// A warning of files that are named as arguments, but by whose change nobody would notice.
pub fn not_declared(run: &Run, files: &[String], workdir: &str, context: &Context) -> Option<String> {
    let Run::Arguments(words) = run else { return None };
    let patterns: Vec<Pattern> = files.iter().filter_map(|written| Pattern::read(written).ok()).collect();
    let declared = |path: &Path| {
        patterns.iter().any(|pattern| {
            let start = normal(&context.base.join(&pattern.start));
            match (&pattern.glob, path.strip_prefix(&start)) {
                (Some(glob), Ok(below)) => glob.is_match(below),
                (None, Ok(_)) => true,
                (_, Err(_)) => false,
            }
        })
    };
    let is_file = |word: &&String| {
        let path = normal(&context.base.join(workdir).join(word));
        // Programs of the system are no files of the project.
        !Path::new(word.as_str()).is_absolute() && looks_like_a_file(word) && path.is_file() && !declared(&path)
    };
    let found: Vec<String> = words.iter().filter(is_file).map(|word| format!("`{word}`")).collect();
    let told = first_few(&found);
    (!found.is_empty()).then(|| format!("not in `files`, so that a change will not run the stage again: {told}"))
}

/// The name of a program, such as `python3`, may be that of a folder here, and `5` is a number.
fn looks_like_a_file(word: &str) -> bool {
    word.contains(['/', '.'])
}

/// Without `.` and `..`, which are resolved by the letter.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}
