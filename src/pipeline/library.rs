//! The files of stage definitions that a pipeline reaches through `uses: ./stages/NAME.yaml`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::definition::{self, Definition};
use super::link::{DEFINITION, Files, Located, Wrong, is_path};
use super::problem::{Problem, Problems, Span};
use super::yaml::{Content, Yaml};

/// Files of definitions that one pipeline may reach.
const MOST_FILES: usize = 100;

/// All of them, each read once.
#[derive(Default)]
pub(super) struct Library {
    /// The pipeline's real path, if it is a file.
    pipeline: Option<PathBuf>,
    files: Vec<DefinitionFile>,
    /// What a path means in a text; a path that cannot be followed is left out.
    links: HashMap<(usize, String), usize>,
}

struct DefinitionFile {
    /// As the paths that lead here say it.
    path: PathBuf,
    /// Without links and `..`.
    real: PathBuf,
    root: Yaml,
    /// The `uses` by which it was reached first, innermost first.
    used: Vec<Span>,
}

impl Library {
    /// Reads every definition that the pipeline reaches. Files that cannot be read, and circles, go to the problems.
    pub fn read(pipeline: &Yaml, file: &Path, files: &mut Files, problems: &mut Problems) -> Self {
        let mut library = Library { pipeline: fs::canonicalize(file).ok(), ..Library::default() };
        library.follow(paths(pipeline), &[], files, &mut Vec::new(), problems);
        problems.within(&[]);
        library
    }

    /// The number of the file that `uses` means where it stands.
    pub fn find(&self, uses: &str, span: Span) -> Option<usize> {
        self.links.get(&(span.source, uses.to_owned())).copied()
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

    /// Reads what is used at `paths`, to which `used` led. `open` are the files whose stages are being followed.
    fn follow(
        &mut self,
        paths: Vec<(String, Span)>,
        used: &[Span],
        files: &mut Files,
        open: &mut Vec<usize>,
        problems: &mut Problems,
    ) {
        for (uses, span) in paths {
            problems.within(used);
            if self.find(&uses, span).is_some() || problems.is_full() {
                continue;
            }
            let index = files.locate(&uses, span.source, DEFINITION).and_then(|located| {
                if self.pipeline.as_ref() == Some(&located.real) {
                    let message = format!("`{}` is the pipeline itself", located.path.display());
                    return Err((message, Some("name the file of a definition".into())));
                }
                let known = self.files.iter().position(|file| file.real == located.real);
                match known.and_then(|known| open.iter().position(|file| *file == known)) {
                    Some(first) => Err(self.circle(open.get(first..).unwrap_or_default())),
                    None => known.map_or_else(|| self.open(located, &within(span, used), files, open, problems), |i| Ok(Some(i))),
                }
            });
            match index {
                Ok(Some(index)) => drop(self.links.insert((span.source, uses), index)),
                Ok(None) => {}
                Err((message, help)) => {
                    problems.within(used);
                    problems.push(Problem::at(span, message).help(help));
                }
            }
        }
    }

    /// Reads a file, and all that it uses; what is wrong inside of it goes to the problems.
    fn open(
        &mut self,
        located: Located,
        used: &[Span],
        files: &mut Files,
        open: &mut Vec<usize>,
        problems: &mut Problems,
    ) -> Result<Option<usize>, Wrong> {
        if self.files.len() >= MOST_FILES {
            return Err((format!("a pipeline may use at most {MOST_FILES} definitions"), Some("use fewer".into())));
        }
        problems.within(used);
        let Some((_, root)) = files.read(&located.path, DEFINITION, problems)? else { return Ok(None) };
        let (index, paths) = (self.files.len(), paths(&root));
        self.files.push(DefinitionFile { path: located.path, real: located.real, root, used: used.to_owned() });
        open.push(index);
        self.follow(paths, used, files, open, problems);
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
