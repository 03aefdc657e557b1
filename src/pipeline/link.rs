//! One YAML file that another one names: `uses: ./stages/NAME.yaml`, `extends: ./NAME.yaml`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::{self, Unreadable};
use super::problem::{Problems, Source};
use super::yaml::{self, Yaml};
use crate::stage::Allowed;

/// What is wrong with a path, and a help.
pub(super) type Wrong = (String, Option<String>);

/// What a file should be, in messages.
#[derive(Clone, Copy)]
pub(super) struct Sort {
    /// `definition`.
    pub one: &'static str,
    pub many: &'static str,
}

/// The file of a stage definition.
pub(super) const DEFINITION: Sort = Sort { one: "definition", many: "definitions" };
/// The file of a pipeline.
pub(super) const PIPELINE: Sort = Sort { one: "pipeline", many: "pipelines" };

/// Where the texts lie that a pipeline is made of.
pub(super) struct Files<'a> {
    pipeline: &'a Path,
    /// By the number of the text; what is not here is the pipeline itself or an override of it.
    others: HashMap<usize, PathBuf>,
    allowed: &'a Allowed,
}

/// A file that has been found.
pub(super) struct Located {
    /// As the paths that lead here say it; what the file itself names starts from there.
    pub path: PathBuf,
    /// Without links and `..`, so that it tells files apart.
    pub real: PathBuf,
}

/// Whether a text names a file by a path.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with("./") || text.starts_with("../") || text.starts_with('/')
}

impl<'a> Files<'a> {
    /// With the pipeline's own file alone.
    pub fn new(pipeline: &'a Path, allowed: &'a Allowed) -> Self {
        Files { pipeline, others: HashMap::new(), allowed }
    }

    /// The file of a text.
    pub fn of(&self, source: usize) -> &Path {
        self.others.get(&source).map_or(self.pipeline, PathBuf::as_path)
    }

    /// The folder of a text.
    pub fn folder(&self, source: usize) -> &Path {
        self.of(source).parent().unwrap_or(Path::new(""))
    }

    /// The path that `name` stands for in the text `source`, as short as can be told without looking.
    pub fn path(&self, name: &str, source: usize) -> PathBuf {
        tidy(&self.folder(source).join(name))
    }

    /// Finds the file that `name` means in the text `source`.
    ///
    /// # Errors
    /// What is wrong with it, and a help.
    pub fn locate(&self, name: &str, source: usize, sort: Sort) -> Result<Located, Wrong> {
        if Path::new(name).is_absolute() {
            let help = "write it relative to this file, with `./` or `../` first".to_owned();
            return Err((format!("the path of a {} must be relative", sort.one), Some(help)));
        }
        let name_a_file = || Some("name a file that ends in `.yaml` or `.yml`".to_owned());
        if !file::is_yaml(name) {
            return Err((format!("`{name}` is no {}", sort.one), name_a_file()));
        }
        let path = self.folder(source).join(name);
        self.allowed.check(&path).map_err(|outside| (outside.message(name), Some(outside.help())))?;
        let short = tidy(&path);
        let Ok(real) = fs::canonicalize(&path) else {
            let shown = short.display().to_string();
            return Err(match file::read(&path, &shown, sort.many) {
                Err(Unreadable::Whole(message, help)) => (message, help),
                _ => (format!("`{shown}` cannot be read"), None),
            });
        };
        // A link may make the short path mean another file.
        let path = if fs::canonicalize(&short).is_ok_and(|other| other == real) { short } else { path };
        // Reading from a pipe or a device might never end.
        if real.is_file() { Ok(Located { path, real }) } else { Err((format!("`{}` is no file", path.display()), name_a_file())) }
    }

    /// Reads a file; what is wrong inside of it goes to the problems, and then there is nothing.
    ///
    /// # Errors
    /// It cannot be read at all: what is wrong, and a help.
    pub fn read(&mut self, path: &Path, sort: Sort, problems: &mut Problems) -> Result<Option<(usize, Yaml)>, Wrong> {
        let shown = path.display().to_string();
        let text = match file::read(path, &shown, sort.many) {
            Ok(text) => text,
            Err(Unreadable::Whole(message, help)) => return Err((message, help)),
            Err(Unreadable::NotUtf8(lossy, at, message)) => {
                file::not_utf8(&shown, &lossy, at, &message, problems);
                return Ok(None);
            }
        };
        let source = problems.add(Source::new(&shown, &text));
        self.others.insert(source, path.to_owned());
        Ok(yaml::parse(&text, source, 0, problems).map(|root| (source, root)))
    }
}

/// The path without `.`, and without `..` where a folder stands before it.
pub(super) fn tidy(path: &Path) -> PathBuf {
    use std::path::Component::{CurDir, Normal, ParentDir};
    let mut short = PathBuf::new();
    for part in path.components() {
        match (part, short.components().next_back()) {
            (CurDir, _) => {}
            (ParentDir, Some(Normal(_))) => drop(short.pop()),
            (part, _) => short.push(part),
        }
    }
    short
}
