//! Paths among the parameters of stages: each starts at the folder of the file that says it, and stays within what may be read.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::document::Stage;
use super::interpolate::Names;
use super::link::{Files, tidy};
use super::path::{self, Step};
use super::problem::{Problem, Problems, Span};
use crate::stage::{Allowed, Configured, Outside};

/// Looks after the paths of one pipeline.
pub(super) struct Paths<'a> {
    files: &'a Files<'a>,
    allowed: &'a Allowed,
    /// What was found out already.
    checked: HashMap<PathBuf, Result<(), Outside>>,
}

impl<'a> Paths<'a> {
    pub fn new(files: &'a Files<'a>, allowed: &'a Allowed) -> Self {
        Paths { files, allowed, checked: HashMap::new() }
    }

    /// Reports paths that lead outside. Those of files in other folders are written anew in `with`, relative to the pipeline's folder;
    /// whether there were any.
    pub fn settle(
        &mut self,
        stage: &Stage,
        configured: &Configured,
        with: &mut Value,
        names: &Names,
        problems: &mut Problems,
    ) -> bool {
        let mut moved = false;
        for (field, written) in configured.stage.paths() {
            let steps = path::parse(&field).unwrap_or_default();
            let (place, origin) = places(stage, &steps, names);
            let from_here = self.below_pipeline(&written, origin.source);
            let path = self.files.folder(0).join(&from_here);
            let checked = self.checked.entry(path).or_insert_with_key(|path| self.allowed.check(path));
            if let Err(outside) = checked {
                problems.push(Problem::at(place, outside.message(&written)).help(outside.help()));
            }
            moved |= from_here != written && set(with, &steps, from_here);
        }
        moved
    }

    /// The path, written in the text `source`, relative to the pipeline's folder.
    fn below_pipeline(&self, written: &str, source: usize) -> String {
        let (here, there) = (self.files.folder(0), self.files.folder(source));
        if here == there || Path::new(written).is_absolute() {
            return written.to_owned();
        }
        let path = steps_between(here, there).join(written);
        let short = Some(tidy(&path)).filter(|short| !short.as_os_str().is_empty()).unwrap_or(PathBuf::from("."));
        // A link may make the short path mean another file.
        let [one, other] = [&short, &path].map(|path| std::fs::canonicalize(here.join(path)).ok());
        let path = if one == other { short } else { path };
        path.to_str().map_or_else(|| written.to_owned(), str::to_owned)
    }
}

/// Where the value of a field stands, and where what it begins with does.
fn places(stage: &Stage, steps: &[Step], names: &Names) -> (Span, Span) {
    let with = stage.with.map(|(_, yaml)| yaml);
    let value = with.and_then(|with| steps.iter().try_fold(with, |node, step| path::child(names.written(node), step)));
    let elsewhere = stage.with.map(|(key, _)| key).or(stage.uses.map(|(_, span)| span)).unwrap_or(stage.id_span);
    let Some(value) = value else { return (elsewhere, elsewhere) };
    let written = names.written(value);
    (if value.is_reference() { written.span } else { value.span }, written.span)
}

/// The way from one folder to another, both relative to the same one or both absolute.
fn steps_between(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

/// Replaces a text; whether it was there.
fn set(with: &mut Value, steps: &[Step], text: String) -> bool {
    let slot = steps.iter().try_fold(with, |node, step| match step {
        Step::Key(key) => node.get_mut(key),
        Step::Index(index) => node.get_mut(index),
    });
    slot.map(|slot| *slot = Value::String(text)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_between_folders_is_found() {
        for (from, to, way) in [
            ("pipelines", "shared", "../shared"),
            ("pipelines", "pipelines/deep", "deep"),
            ("pipelines", "", ".."),
            ("", "shared", "shared"),
            ("../a/b", "../c", "../../c"),
            ("..", "../..", ".."),
            ("/x/a", "/x/b/c", "../b/c"),
        ] {
            assert_eq!(steps_between(Path::new(from), Path::new(to)), Path::new(way), "{from} to {to}");
        }
    }
}
