//! `extends: ./base.yaml`: a pipeline laid over another one. Every value keeps where it stands, so that what is wrong with it is
//! shown in the file that says it.

use std::path::PathBuf;

use super::document::word;
use super::link::{Files, PIPELINE, Wrong, is_path};
use super::problem::{Problem, Problems, Span};
use super::words::did_you_mean;
use super::yaml::{Content, Entry, Yaml};

/// The key that names the base.
const EXTENDS: &str = "extends";
/// How many pipelines may extend each other in a row.
const DEEPEST: usize = 8;

/// The pipeline `root` with all that it extends, without the key `extends`. Nothing when a base cannot be read, which is a problem
/// then.
pub(super) fn extend(root: Yaml, files: &mut Files, problems: &mut Problems) -> Option<Yaml> {
    let mut open = vec![(files.of(root.span.source).to_owned(), std::fs::canonicalize(files.of(root.span.source)).ok())];
    let mut layers = Vec::new();
    let mut layer = root;
    while let Some(extends) = take(&mut layer, EXTENDS).filter(|extends| !extends.value.is_null()) {
        let span = extends.value.span;
        let name = word(&extends.value, EXTENDS, problems)?;
        match base(name, span, files, &mut open, problems) {
            Ok(base) => layers.push(std::mem::replace(&mut layer, base?)),
            Err((message, help)) => {
                problems.push(Problem::at(span, message).help(help));
                return None;
            }
        }
    }
    while let Some(over) = layers.pop() {
        // A name is the name of one pipeline.
        take(&mut layer, "name");
        layer = Layering { files, problems }.lay(layer, over, Level::Pipeline);
    }
    Some(layer)
}

/// Reads the file that `extends` names. `open` are the files that are extended already, and their real paths.
fn base(
    name: &str,
    span: Span,
    files: &mut Files,
    open: &mut Vec<(PathBuf, Option<PathBuf>)>,
    problems: &mut Problems,
) -> Result<Option<Yaml>, Wrong> {
    if !is_path(name) {
        return Err((format!("`{name}` is no path"), Some(format!("name a file with `./` or `../` first: `./{name}`"))));
    }
    let located = files.locate(name, span.source, PIPELINE)?;
    let circle = open.iter().position(|(_, real)| real.as_ref() == Some(&located.real));
    if let Some(first) = circle {
        let names = open.get(first..).into_iter().flatten().map(|(path, _)| path).chain([&located.path]);
        let names: Vec<String> = names.map(|path| format!("`{}`", path.display())).collect();
        let message = format!("pipelines extend each other in a circle: {}", names.join(" → "));
        return Err((message, Some("a pipeline cannot be its own base".into())));
    }
    if open.len() > DEEPEST {
        return Err((format!("pipelines extend each other more than {DEEPEST} deep"), Some("put some of them together".into())));
    }
    // What is wrong in the base is shown with the `extends` that leads there, from its very first line on.
    problems.extended(span);
    let Some((_, root)) = files.read(&located.path, PIPELINE, problems)? else { return Ok(None) };
    open.push((located.path, Some(located.real)));
    if matches!(root.content, Content::Mapping(_)) {
        return Ok(Some(root));
    }
    let message = format!("a pipeline must be a mapping, not {}", root.describe());
    problems.push(Problem::at(root.span, message).help("write `key: value` pairs, indented or in `{ … }`".to_owned()));
    Ok(None)
}

/// Takes a key out of a mapping.
fn take(yaml: &mut Yaml, key: &str) -> Option<Entry> {
    let Content::Mapping(entries) = &mut yaml.content else { return None };
    let at = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(at))
}

/// What a mapping is, which decides what laying another one over it means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Pipeline,
    Stages,
    Stage,
    /// The parameters of a stage.
    With,
    /// A mapping among the parameters of a stage: its `name`, if it has one, says what the other keys are.
    Parameter,
    Other,
}

impl Level {
    /// What the value of a key is.
    fn inside(self, key: &str) -> Level {
        match (self, key) {
            (Level::Pipeline, "stages") => Level::Stages,
            (Level::Stages, _) => Level::Stage,
            (Level::Stage, "with") => Level::With,
            (Level::With | Level::Parameter, _) => Level::Parameter,
            _ => Level::Other,
        }
    }
}

struct Layering<'a, 'f> {
    files: &'a Files<'f>,
    problems: &'a mut Problems,
}

impl Layering<'_, '_> {
    /// `over` laid over `base`: mappings key by key; everything else takes the place of what is below.
    fn lay(&mut self, base: Yaml, over: Yaml, level: Level) -> Yaml {
        let (mut below, above, span) = match (base.content, over.content) {
            (Content::Mapping(below), Content::Mapping(above)) => (below, above, base.span),
            (_, content) => return Yaml { content, ..over },
        };
        if level == Level::Parameter && is_changed(&below, &above, "name", |a, b| scalar(a) == scalar(b)) {
            return Yaml { content: Content::Mapping(above), ..over };
        }
        if level == Level::Stage && is_changed(&below, &above, "uses", |a, b| self.is_same_use(a, b)) {
            below.retain(|entry| entry.key != "with" && entry.key != "inputs");
        }
        for entry in above {
            match below.iter().position(|e| e.key == entry.key) {
                Some(at) if entry.value.is_null() => {
                    if level == Level::Stages {
                        self.problems.taken_out(&entry.key, entry.key_span);
                    }
                    below.remove(at);
                }
                Some(at) => {
                    if let Some(slot) = below.get_mut(at) {
                        *slot = self.entry(slot.clone(), entry, level);
                    }
                }
                None if level == Level::Stages && entry.value.is_null() => self.nothing_to_remove(&entry, &below),
                None => below.push(entry),
            }
        }
        Yaml { span, content: Content::Mapping(below) }
    }

    /// Where a mapping is laid over another one, the key stays where it stands in the base.
    fn entry(&mut self, base: Entry, over: Entry, level: Level) -> Entry {
        let merges = matches!((&base.value.content, &over.value.content), (Content::Mapping(_), Content::Mapping(_)));
        let key_span = if merges { base.key_span } else { over.key_span };
        let value = self.lay(base.value, over.value, level.inside(&over.key));
        Entry { key: over.key, key_span, value }
    }

    fn nothing_to_remove(&mut self, entry: &Entry, below: &[Entry]) {
        let names: Vec<&str> = below.iter().map(|entry| entry.key.as_str()).collect();
        let message = format!("there is no stage `{}` to take out of what this pipeline extends", entry.key);
        self.problems.push(Problem::at(entry.key_span, message).help(did_you_mean(&entry.key, "stages", &names)));
    }

    /// Whether two `uses` mean the same kind or file.
    fn is_same_use(&self, a: &Yaml, b: &Yaml) -> bool {
        match (scalar(a), scalar(b)) {
            (Some(one), Some(other)) if is_path(one) && is_path(other) => {
                self.files.path(one, a.span.source) == self.files.path(other, b.span.source)
            }
            (one, other) => one == other,
        }
    }
}

/// Whether both mappings have a key, with values that are not the same.
fn is_changed(below: &[Entry], above: &[Entry], key: &str, same: impl Fn(&Yaml, &Yaml) -> bool) -> bool {
    let [below, above] = [below, above].map(|entries| entries.iter().find(|entry| entry.key == key));
    below.zip(above).is_some_and(|(below, above)| !same(&below.value, &above.value))
}

fn scalar(yaml: &Yaml) -> Option<&str> {
    match &yaml.content {
        Content::Scalar { text, .. } => Some(text),
        Content::Sequence(_) | Content::Mapping(_) => None,
    }
}
