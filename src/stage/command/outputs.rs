//! The outputs that a command declares, and whether a program wrote them as they must be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use safetensors::SafeTensors;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::places::{self, Places};
use crate::artifact::{Answer, Chunk, Document, Example, Judgements, Kind, Metrics, Ranking, Retrieved, jsonl};
use crate::model::directory::ModelDirectory;
use crate::model::weights::Weights;
use crate::stage::{Context, Output, ParameterError};
use crate::text::first_few;

/// Characters of an output's name or file.
const LONGEST_NAME: usize = 100;

/// Outputs by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Outputs(BTreeMap<String, Declared>);

/// An output, with its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Declared {
    file: String,
    kind: Kind,
}

/// An output as it is written: `KIND`, or `{ file: FILE, kind: KIND }`.
struct Declaration {
    file: Option<String>,
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    file: Option<String>,
    #[serde(default = "any_file")]
    kind: Kind,
}

fn any_file() -> Kind {
    Kind::File
}

/// What the name of a file of this kind ends in; nothing for folders.
fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Documents | Kind::Chunks | Kind::Triplets | Kind::Retrieved | Kind::Answers => ".jsonl",
        Kind::Embeddings => ".safetensors",
        Kind::Ranking => ".trec",
        Kind::Judgements | Kind::Model | Kind::Metrics | Kind::File => "",
    }
}

impl Outputs {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Each name with its file.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, output)| (name.as_str(), output.file.as_str()))
    }

    /// For edges.
    pub fn ports(&self) -> Vec<Output> {
        let port =
            |(name, output): (&String, &Declared)| Output { name: name.clone(), kind: output.kind, file: output.file.clone() };
        self.0.iter().map(port).collect()
    }

    pub fn check(&self) -> Result<(), ParameterError> {
        let mut files: BTreeMap<String, &str> = BTreeMap::new();
        for (name, output) in &self.0 {
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_word) {
                let message =
                    format!("`{name}` cannot be an output's name; use letters, digits, `_` and `-`, at most {LONGEST_NAME}");
                return Err(ParameterError::new("outputs", message));
            }
            let file = &output.file;
            let is_file = !file.is_empty()
                && file.len() <= LONGEST_NAME
                && !file.starts_with('.')
                && !file.contains(|c: char| c.is_control() || matches!(c, '/' | '\\' | ':'));
            if !is_file {
                let message =
                    format!("`{file}` cannot be the file of an output; write a name without folders, such as `table.csv`");
                return Err(ParameterError::new(format!("outputs.{name}.file"), message));
            }
            // Some file systems take no account of case.
            if let Some(other) = files.insert(file.to_lowercase(), name) {
                let message = format!("the outputs `{other}` and `{name}` have the same file `{file}`; rename one of them");
                return Err(ParameterError::new(format!("outputs.{name}"), message));
            }
        }
        places::distinct(&self.names().collect::<Vec<_>>(), "outputs")
    }

    /// Checks what the program wrote; the figures of its metrics.
    ///
    /// # Errors
    /// An output is not there, or is not what its kind must be.
    pub fn check_written(&self, places: &Places) -> Result<BTreeMap<String, f64>> {
        let mut figures = BTreeMap::new();
        let several = self.0.values().filter(|output| output.kind == Kind::Metrics).count() > 1;
        for (name, output) in &self.0 {
            let path = places.written.join(&output.file);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_file() || metadata.is_dir() => {}
                Ok(_) => bail!("the output `{name}` is a link or a device; write a file or a folder to `{}`", path.display()),
                Err(_) => bail!("it wrote no `{name}`: there is nothing at `{}`{}", path.display(), self.others(&places.written)),
            }
            let means = check(output, &path).map_err(|error| {
                // Paths of a folder that is gone afterwards help nobody.
                let folder = format!("{}{}", places.written.display(), std::path::MAIN_SEPARATOR);
                anyhow!("the output `{name}` is no {}: {}", output.kind, format!("{error:#}").replace(&folder, ""))
            })?;
            figures.extend(means.into_iter().map(
                |(measure, value)| {
                    if several { (format!("{name}.{measure}"), value) } else { (measure, value) }
                },
            ));
        }
        Ok(figures)
    }

    /// What lies there instead, for a message.
    fn others(&self, written: &Path) -> String {
        let entries = fs::read_dir(written).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !self.0.values().any(|output| output.file == *name));
        names.sort();
        let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.escape_debug())).collect();
        if names.is_empty() { String::new() } else { format!(", but there is {}", first_few(&names)) }
    }

    /// Moves what the program wrote to where the stage must leave it.
    pub fn hand_over(&self, places: &Places, context: &Context) -> Result<()> {
        for (name, output) in &self.0 {
            let target = context.output(name)?;
            let written = places.written.join(&output.file);
            let moved = unshare(&written).and_then(|()| fs::rename(written, target));
            moved.with_context(|| format!("the output `{name}` cannot be moved to `{}`", target.display()))?;
        }
        Ok(())
    }
}

/// Gives every file an inode of its own. A program may have linked files of somebody else's, and those of the store must stay as they are.
#[cfg(unix)]
fn unshare(path: &Path) -> std::io::Result<()> {
    for entry in walkdir::WalkDir::new(path) {
        let entry = entry?;
        let is_shared = std::os::unix::fs::MetadataExt::nlink(&entry.metadata()?) > 1;
        if entry.file_type().is_file() && is_shared {
            let copy = tempfile::NamedTempFile::new_in(entry.path().parent().unwrap_or(path))?.into_temp_path();
            fs::copy(entry.path(), &copy)?;
            copy.persist(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn unshare(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Reads an output as what it must be; the means of metrics.
fn check(output: &Declared, path: &Path) -> Result<BTreeMap<String, f64>> {
    match output.kind {
        Kind::Documents => rows::<Document>(output, path)?,
        Kind::Chunks => rows::<Chunk>(output, path)?,
        Kind::Triplets => rows::<Example>(output, path)?,
        Kind::Retrieved => rows::<Retrieved>(output, path)?,
        Kind::Answers => rows::<Answer>(output, path)?,
        Kind::Judgements => drop(Judgements::read(path, "test")?),
        Kind::Ranking => drop(Ranking::read(path)?),
        Kind::Model => drop(Weights::read(&ModelDirectory::open(path)?.weights())?),
        Kind::Metrics => return Ok(Metrics::read(path)?.means),
        Kind::Embeddings => embeddings(path)?,
        Kind::File => {}
    }
    Ok(BTreeMap::new())
}

fn rows<T: DeserializeOwned>(output: &Declared, path: &Path) -> Result<()> {
    jsonl::numbered::<T>(path, &output.file).map(drop)
}

fn embeddings(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes).context("it is no safetensors file")?;
    let matrix = tensors.tensor("embeddings").context("it has no tensor `embeddings`")?;
    if matrix.shape().len() != 2 {
        bail!("`embeddings` has the shape {:?}, and must have two dimensions", matrix.shape());
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Outputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let declarations = BTreeMap::<String, Declaration>::deserialize(deserializer)?;
        let declared = declarations.into_iter().map(|(name, Declaration { file, kind })| {
            let file = file.unwrap_or_else(|| format!("{name}{}", suffix(kind)));
            (name, Declared { file, kind })
        });
        Ok(Outputs(declared.collect()))
    }
}

impl<'de> Deserialize<'de> for Declaration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DeclarationVisitor)
    }
}

struct DeclarationVisitor;

impl<'de> Visitor<'de> for DeclarationVisitor {
    type Value = Declaration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a kind of artifact, or a mapping with `file` and `kind`")
    }

    fn visit_str<E: Error>(self, kind: &str) -> Result<Declaration, E> {
        Ok(Declaration { file: None, kind: Kind::deserialize(serde::de::value::StrDeserializer::new(kind))? })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Declaration, A::Error> {
        let Fields { file, kind } = Fields::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Declaration { file, kind })
    }
}

impl JsonSchema for Outputs {
    fn schema_name() -> Cow<'static, str> {
        "Outputs".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kind = generator.subschema_for::<Kind>();
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]+$", "maxLength": LONGEST_NAME },
            "additionalProperties": {
                "anyOf": [kind, {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "file": {
                            "description": "The name of the file or folder. Without it, the output's name with the ending of its kind.",
                            "type": "string",
                            "pattern": "^[^./\\\\:][^/\\\\:]*$",
                            "maxLength": LONGEST_NAME
                        },
                        "kind": { "description": "What the output is.", "default": "file", "anyOf": [kind] }
                    }
                }]
            }
        })
    }
}
