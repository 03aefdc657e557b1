//! Where a program finds its inputs and leaves its outputs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

use super::outputs::Outputs;
use crate::stage::ParameterError;

/// What the names of retune's own variables start with.
pub const PREFIX: &str = "RETUNE_";

/// Bytes of the name of a link; file systems take up to 255.
const LONGEST_LINK: usize = 200;

/// One run of the program.
pub struct Places {
    inputs: BTreeMap<String, Input>,
    outputs: BTreeMap<String, String>,
    /// The folder with the outputs alone.
    pub written: PathBuf,
    /// Where the program may say more of its result.
    pub outcome: PathBuf,
    /// An empty folder for the program.
    scratch: PathBuf,
}

/// An input as the program sees it.
pub enum Input {
    One([String; 1]),
    /// A folder with a link to each of several artifacts, and the links.
    Many {
        folder: String,
        links: Vec<String>,
    },
}

impl Input {
    /// One path, or one for each of several artifacts.
    pub fn paths(&self) -> &[String] {
        match self {
            Input::One(path) => path,
            Input::Many { links, .. } => links,
        }
    }
}

/// Stands for an input that is not there, which the check before every run rules out.
static NOTHING: Input = Input::Many { folder: String::new(), links: Vec::new() };

impl Places {
    /// Makes the folders of one run below `folder`.
    pub fn make(folder: &Path, inputs: &BTreeMap<String, PathBuf>, outputs: &Outputs) -> Result<Self> {
        let folder = std::path::absolute(folder).with_context(|| format!("`{}` cannot be resolved", folder.display()))?;
        let (written, scratch, linked) = (folder.join("outputs"), folder.join("scratch"), folder.join("inputs"));
        for folder in [&written, &scratch] {
            fs::create_dir_all(folder).with_context(|| format!("`{}` cannot be written", folder.display()))?;
        }
        let outputs = outputs.files().map(|(name, file)| Ok((name.to_owned(), text(&written.join(file))?)));
        let outputs = outputs.collect::<Result<_>>()?;
        let mut places = Places { inputs: BTreeMap::new(), outputs, written, outcome: folder.join("outcome.json"), scratch };
        for (port, path) in inputs {
            let path = std::path::absolute(path).with_context(|| format!("`{}` cannot be resolved", path.display()))?;
            match port.split_once('[') {
                None => {
                    places.inputs.insert(port.clone(), Input::One([text(&path)?]));
                }
                Some((name, label)) => places.link(&linked.join(name), name, label.strip_suffix(']').unwrap_or(label), &path)?,
            }
        }
        Ok(places)
    }

    /// Adds an artifact of an input that takes several.
    fn link(&mut self, folder: &Path, name: &str, label: &str, path: &Path) -> Result<()> {
        let fail = || format!("`{}` cannot be written", folder.display());
        fs::create_dir_all(folder).with_context(fail)?;
        let file: String = label.chars().map(|c| if matches!(c, '/' | '\\') || c.is_control() { '.' } else { c }).collect();
        let file = if file.starts_with('.') { format!("_{file}") } else { file };
        let end = (0..=LONGEST_LINK.min(file.len())).rev().find(|at| file.is_char_boundary(*at)).unwrap_or(0);
        let file = file.get(..end).unwrap_or_default();
        let mut link = folder.join(file);
        // `a/b` and `a.b` are written alike.
        let mut number = 1;
        while link.symlink_metadata().is_ok() {
            number += 1;
            link = folder.join(format!("{file}~{number}"));
        }
        link_to(path, &link).with_context(fail)?;
        let entry = self.inputs.entry(name.to_owned());
        let entry = entry.or_insert(Input::Many { folder: text(folder)?, links: Vec::new() });
        if let Input::Many { links, .. } = entry {
            links.push(text(&link)?);
        }
        Ok(())
    }

    pub fn input(&self, name: &str) -> &Input {
        self.inputs.get(name).unwrap_or(&NOTHING)
    }

    pub fn output(&self, name: &str) -> &str {
        self.outputs.get(name).map_or("", String::as_str)
    }

    /// Puts the paths into the program's environment.
    pub fn announce(&self, command: &mut std::process::Command) {
        for (name, input) in &self.inputs {
            let path = match input {
                Input::One([path]) => path,
                Input::Many { folder, .. } => folder,
            };
            command.env(format!("{PREFIX}INPUT_{}", variable(name)), path);
        }
        for (name, path) in &self.outputs {
            command.env(format!("{PREFIX}OUTPUT_{}", variable(name)), path);
        }
        command.env(format!("{PREFIX}OUTCOME"), &self.outcome).env(format!("{PREFIX}SCRATCH"), &self.scratch);
    }
}

/// The end of a variable's name: `fine-tuned` as `FINE_TUNED`.
fn variable(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// No two names have the same variable.
pub fn distinct(names: &[&str], field: &str) -> Result<(), ParameterError> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        if let Some(other) = seen.insert(variable(name), name) {
            let message =
                format!("`{other}` and `{name}` would both be `{}` in the environment; rename one of them", variable(name));
            return Err(ParameterError::new(field, message));
        }
    }
    Ok(())
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("the path `{}` is not UTF-8; keep the project in another folder", path.display()))
}

fn link_to(path: &Path, link: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(path, link);
    #[cfg(windows)]
    return if path.is_dir() {
        std::os::windows::fs::symlink_dir(path, link)
    } else {
        std::os::windows::fs::symlink_file(path, link)
    };
    #[cfg(not(any(unix, windows)))]
    return Err(std::io::Error::from(std::io::ErrorKind::Unsupported));
}

/// How the files of the inputs looked before a program ran. They are objects of the store, which are read-only, but not for every user.
pub struct Stamps(BTreeMap<String, Vec<(PathBuf, u64, Option<SystemTime>)>>);

impl Stamps {
    pub fn of(inputs: &BTreeMap<String, PathBuf>) -> Result<Self> {
        inputs.iter().map(|(name, path)| Ok((name.clone(), stamps(path)?))).collect::<Result<_>>().map(Stamps)
    }

    /// Refuses what a program yielded that wrote into its inputs.
    pub fn check(&self, inputs: &BTreeMap<String, PathBuf>) -> Result<()> {
        for (name, before) in &self.0 {
            let now = inputs.get(name).map(|path| stamps(path)).transpose();
            if !matches!(now, Ok(Some(now)) if now == *before) {
                bail!(
                    "the program changed its input `{name}`, and may have damaged the store; let it copy what it changes, and run the \
                     stage that yields `{name}` again with `--force`"
                );
            }
        }
        Ok(())
    }
}

fn stamps(path: &Path) -> Result<Vec<(PathBuf, u64, Option<SystemTime>)>> {
    let stamp = |entry: walkdir::Result<walkdir::DirEntry>| {
        let entry = entry?;
        let metadata = entry.metadata()?;
        Ok((entry.into_path(), metadata.len(), metadata.modified().ok().filter(|_| metadata.is_file())))
    };
    let stamps: Result<_, walkdir::Error> = WalkDir::new(path).sort_by_file_name().into_iter().map(stamp).collect();
    stamps.with_context(|| format!("the input `{}` cannot be read", path.display()))
}
