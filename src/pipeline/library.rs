//! The files of stage definitions that a pipeline reaches through `uses: ./stages/NAME.yaml`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::definition::{self, Definition};
use super::file::{self, Unreadable};
use super::problem::{Problem, Problems, Source, Span};
use super::yaml::{self, Content, Yaml};

/// Files of definitions that one pipeline may reach.
const MOST_FILES: usize = 100;

/// What is wrong with a path, and a help.
type Wrong = (String, Option<String>);

/// All of them, each read once.
#[derive(Default)]
pub(super) struct Library {
    /// The pipeline's real path, if it is a file.
    pipeline: Option<PathBuf>,
    files: Vec<DefinitionFile>,
    /// What a path means in a file (none: the pipeline's); a path that cannot be followed is left out.
    links: HashMap<(Option<usize>, String), usize>,
}

struct DefinitionFile {
    /// As the paths that lead here say it; what the file itself names starts from there.
    path: PathBuf,
    /// Without links and `..`, so that it tells files apart.
    real: PathBuf,
    root: Yaml,
    /// The `uses` by which it was reached first, innermost first.
    used: Vec<Span>,
}

/// Whether `uses` names a file and not a kind of stage.
pub(super) fn is_path(uses: &str) -> bool {
    uses.starts_with("./") || uses.starts_with("../") || uses.starts_with('/')
}

impl Library {
    /// Reads every definition that the pipeline reaches. Files that cannot be read, and circles, go to the problems.
    pub fn read(pipeline: &Yaml, file: &Path, problems: &mut Problems) -> Self {
        let mut library = Library { pipeline: fs::canonicalize(file).ok(), ..Library::default() };
        library.follow(None, paths(pipeline), file, &mut Vec::new(), problems);
        problems.within(&[]);
        library
    }

    /// The number of the file that `uses` means in the file `from`.
    pub fn find(&self, from: Option<usize>, uses: &str) -> Option<usize> {
        self.links.get(&(from, uses.to_owned())).copied()
    }

    /// The structure of each file; nothing for those with problems.
    pub fn definitions(&self, problems: &mut Problems) -> Vec<Option<Definition<'_>>> {
        let files = self.files.iter().map(|file| {
            problems.within(&file.used);
            definition::read(&file.root, problems)
        });
        let definitions = files.collect();
        problems.within(&[]);
        definitions
    }

    /// Reads what `file` uses. `open` are the files whose stages are being followed.
    fn follow(
        &mut self,
        from: Option<usize>,
        paths: Vec<(String, Span)>,
        file: &Path,
        open: &mut Vec<usize>,
        problems: &mut Problems,
    ) {
        let used = from.and_then(|from| self.files.get(from)).map(|file| file.used.clone()).unwrap_or_default();
        for (uses, span) in paths {
            problems.within(&used);
            if self.find(from, &uses).is_some() || problems.is_full() {
                continue;
            }
            let index = locate(&uses, file).and_then(|(path, real)| {
                if self.pipeline.as_ref() == Some(&real) {
                    let message = format!("`{}` is the pipeline itself", path.display());
                    return Err((message, Some("name the file of a definition".into())));
                }
                let known = self.files.iter().position(|file| file.real == real);
                match known.and_then(|known| open.iter().position(|file| *file == known)) {
                    Some(first) => Err(self.circle(open.get(first..).unwrap_or_default())),
                    None => {
                        known.map_or_else(|| self.open(path, real, &within(span, &used), open, problems), |known| Ok(Some(known)))
                    }
                }
            });
            match index {
                Ok(Some(index)) => drop(self.links.insert((from, uses), index)),
                Ok(None) => {}
                Err((message, help)) => {
                    problems.within(&used);
                    problems.push(Problem::at(span, message).help(help));
                }
            }
        }
    }

    /// Reads a file, and all that it uses; what is wrong inside of it goes to the problems.
    fn open(
        &mut self,
        path: PathBuf,
        real: PathBuf,
        used: &[Span],
        open: &mut Vec<usize>,
        problems: &mut Problems,
    ) -> Result<Option<usize>, Wrong> {
        if self.files.len() >= MOST_FILES {
            return Err((format!("a pipeline may use at most {MOST_FILES} definitions"), Some("use fewer".into())));
        }
        problems.within(used);
        let shown = path.display().to_string();
        let text = match file::read(&path, &shown, "definitions") {
            Ok(text) => text,
            Err(Unreadable::Whole(message, help)) => return Err((message, help)),
            Err(Unreadable::NotUtf8(lossy, at, message)) => {
                file::not_utf8(&shown, &lossy, at, &message, problems);
                return Ok(None);
            }
        };
        let source = problems.add(Source::new(&shown, &text));
        let Some(root) = yaml::parse(&text, source, 0, problems) else { return Ok(None) };
        let (index, paths) = (self.files.len(), paths(&root));
        self.files.push(DefinitionFile { path: path.clone(), real, root, used: used.to_owned() });
        open.push(index);
        self.follow(Some(index), paths, &path, open, problems);
        open.pop();
        Ok(Some(index))
    }

    fn circle(&self, open: &[usize]) -> Wrong {
        let files = open.iter().chain(open.first()).filter_map(|index| self.files.get(*index));
        let names: Vec<String> = files.map(|file| format!("`{}`", file.path.display())).collect();
        let message = format!("definitions use each other in a circle: {}", names.join(" → "));
        (message, Some("a definition cannot be a part of itself".into()))
    }
}

/// The file that `uses` means in the file `from`: its path and its real path.
fn locate(uses: &str, from: &Path) -> Result<(PathBuf, PathBuf), Wrong> {
    if uses.starts_with('/') {
        let help = "write it relative to this file, with `./` or `../` first".to_owned();
        return Err(("the path of a definition must be relative".into(), Some(help)));
    }
    let name_a_file = || Some("name a file that ends in `.yaml` or `.yml`".to_owned());
    if !file::is_yaml(uses) {
        return Err((format!("`{uses}` is no definition"), name_a_file()));
    }
    let path = from.parent().unwrap_or(Path::new("")).join(uses);
    let short = tidy(&path);
    let Ok(real) = fs::canonicalize(&path) else {
        let shown = short.display().to_string();
        return Err(match file::read(&path, &shown, "definitions") {
            Err(Unreadable::Whole(message, help)) => (message, help),
            _ => (format!("`{shown}` cannot be read"), None),
        });
    };
    // A link may make the short path mean another file.
    let path = if fs::canonicalize(&short).is_ok_and(|other| other == real) { short } else { path };
    // Reading from a pipe or a device might never end.
    if real.is_file() { Ok((path, real)) } else { Err((format!("`{}` is no file", path.display()), name_a_file())) }
}

/// The `uses` that lead into a file that is named at `span`.
pub(super) fn within(span: Span, used: &[Span]) -> Vec<Span> {
    [&[span], used].concat()
}

/// Every path that a stage of the file uses, and where it stands.
fn paths(root: &Yaml) -> Vec<(String, Span)> {
    let stages = match root.entry("stages").map(|entry| &entry.value.content) {
        Some(Content::Mapping(entries)) => entries.as_slice(),
        _ => &[],
    };
    let uses = stages.iter().filter_map(|stage| stage.value.entry("uses")).map(|entry| &entry.value);
    let path = |value: &Yaml| match &value.content {
        Content::Scalar { text, .. } if is_path(text) => Some((text.clone(), value.span)),
        _ => None,
    };
    uses.filter_map(path).collect()
}

/// The path without `.`, and without `..` where a folder stands before it.
fn tidy(path: &Path) -> PathBuf {
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
