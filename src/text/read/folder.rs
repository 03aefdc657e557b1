//! Finding the files to read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use walkdir::{DirEntry, WalkDir};

use super::{format, suffixes};

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The path below the folder, with `/` separators.
    pub name: String,
    pub path: PathBuf,
}

/// Something that could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The path below the folder.
    pub name: String,
    pub cause: String,
}

/// What lies in a folder. All lists are in the order of their paths' bytes.
#[derive(Debug, Default)]
pub struct Listing {
    /// The files to read.
    pub files: Vec<Found>,
    /// Files that `include` names but that have no reader.
    pub unknown: Vec<String>,
    /// Folders and links that cannot be followed.
    pub problems: Vec<Problem>,
    /// How many files there are in all, selected or not.
    pub seen: usize,
}

/// Which files of a folder are read.
pub struct Selection {
    include: Option<GlobSet>,
    exclude: GlobSet,
    hidden: bool,
}

impl Selection {
    /// `*` stays within a folder, `**` does not, and a pattern without `/` holds in every folder. No `include` stands for
    /// every file that has a reader.
    ///
    /// # Errors
    /// The list (`include`, `exclude`) and the index of a pattern that is malformed, and why.
    pub fn new(include: &[String], exclude: &[String], hidden: bool) -> Result<Self, (String, String)> {
        let include = if include.is_empty() { None } else { Some(globs("include", include)?) };
        Ok(Selection { include, exclude: globs("exclude", exclude)?, hidden })
    }

    /// Lists the files below `root`, which may be a file itself. Links are followed where `may_follow` lets them; those that it has
    /// something against, and that are not excluded, are among the problems.
    ///
    /// # Errors
    /// There is no such file or folder.
    pub fn list(&self, root: &Path, may_follow: &dyn Fn(&Path) -> Result<(), String>) -> Result<Listing> {
        let mut listing = Listing::default();
        let file = std::fs::metadata(root).with_context(|| format!("`{}` cannot be read", root.display()))?.is_file();
        let base = if file { root.parent().unwrap_or(root) } else { root };
        let visible = |entry: &DirEntry| self.hidden || entry.depth() == 0 || !hidden(entry);
        let mut entries = WalkDir::new(root).follow_links(true).into_iter().filter_entry(visible);
        while let Some(entry) = entries.next() {
            let followed = match &entry {
                Ok(entry) if entry.depth() > 0 && entry.path_is_symlink() => may_follow(entry.path()),
                _ => Ok(()),
            };
            match (entry, followed) {
                (Ok(entry), Err(cause)) => {
                    if entry.file_type().is_dir() {
                        entries.skip_current_dir();
                    }
                    self.leave_out(&entry, base, cause, &mut listing);
                }
                (Ok(entry), Ok(())) if entry.file_type().is_file() => self.sort_in(entry.path(), base, &mut listing),
                (Ok(_), Ok(())) => {}
                // A link to a folder above it: everything there is listed already.
                (Err(error), _) if error.loop_ancestor().is_some() => {}
                (Err(error), _) => listing.problems.push(problem(&error, base)),
            }
        }
        listing.files.sort();
        listing.unknown.sort();
        listing.problems.sort();
        Ok(listing)
    }

    /// Notes a link that is not followed, if anything behind it could be read.
    fn leave_out(&self, entry: &DirEntry, base: &Path, cause: String, listing: &mut Listing) {
        let is_folder = entry.file_type().is_dir();
        match below(entry.path(), base) {
            // `link/**` excludes what is in a folder, not the folder.
            Ok(name) if self.exclude.is_match(&name) || is_folder && self.exclude.is_match(format!("{name}/x")) => {}
            Ok(name) if !is_folder && !self.includes(&name) => {}
            Ok(name) => listing.problems.push(Problem { name, cause }),
            Err(problem) => listing.problems.push(problem),
        }
    }

    fn includes(&self, name: &str) -> bool {
        self.include.as_ref().map_or_else(|| format(name).is_some(), |globs| globs.is_match(name))
    }

    fn sort_in(&self, path: &Path, base: &Path, listing: &mut Listing) {
        listing.seen += 1;
        let name = match below(path, base) {
            Ok(name) => name,
            Err(problem) => return listing.problems.push(problem),
        };
        let included = self.include.as_ref().is_none_or(|globs| globs.is_match(&name));
        if !included || self.exclude.is_match(&name) {
            return;
        }
        if format(&name).is_some() {
            listing.files.push(Found { name, path: path.to_owned() });
        } else if self.include.is_some() {
            listing.unknown.push(name);
        }
    }
}

impl Listing {
    /// Refuses a folder in which there is nothing to read. `folder` is its name for the message.
    ///
    /// # Errors
    /// No file is selected.
    pub fn not_empty(&self, folder: &str, include: &[String], exclude: &[String]) -> Result<()> {
        if !self.files.is_empty() || !self.problems.is_empty() {
            return Ok(());
        }
        let list = |name: &str, globs: &[String]| match globs {
            [] => String::new(),
            globs => format!(", {name} `{}`", globs.join("`, `")),
        };
        bail!(
            "the corpus is empty: `{folder}`{}{} selects none of the {} files there; files that can be read end in {}",
            list("include", include),
            list("exclude", exclude),
            self.seen,
            suffixes()
        )
    }
}

fn hidden(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

fn below(path: &Path, base: &Path) -> Result<String, Problem> {
    let parts: Option<Vec<&str>> =
        path.strip_prefix(base).unwrap_or(path).components().map(|part| part.as_os_str().to_str()).collect();
    // Ids are made of names, and formats of one record a line hold ids.
    let name = parts.map(|parts| parts.join("/")).filter(|name| !name.contains(char::is_control));
    name.ok_or_else(|| Problem {
        name: path.strip_prefix(base).unwrap_or(path).to_string_lossy().escape_debug().to_string(),
        cause: "the file's name is not UTF-8 or has control characters; rename the file".into(),
    })
}

fn problem(error: &walkdir::Error, base: &Path) -> Problem {
    let name = error.path().map_or_else(String::new, |path| path.strip_prefix(base).unwrap_or(path).display().to_string());
    Problem { name, cause: error.io_error().map_or_else(|| error.to_string(), std::io::Error::to_string) }
}

fn globs(list: &str, patterns: &[String]) -> Result<GlobSet, (String, String)> {
    let mut set = GlobSetBuilder::new();
    for (i, pattern) in patterns.iter().enumerate() {
        let anywhere = if pattern.contains('/') { pattern.clone() } else { format!("**/{pattern}") };
        let glob = GlobBuilder::new(&anywhere).literal_separator(true).build();
        set.add(glob.map_err(|e| (format!("{list}[{i}]"), format!("`{pattern}` is not a glob: {}", e.kind())))?);
    }
    set.build().map_err(|e| (list.to_owned(), e.to_string()))
}
