//! A first pipeline for a folder of documents, and queries to begin with. What the documents hold is found out with the stages that the pipeline
//! will run, so that what is written fits them.

mod corpus;
mod files;
mod pipeline;
mod queries;
mod sections;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use self::corpus::Corpus;
use self::files::File;
use self::queries::Queries;
use crate::pipeline::Pipeline;
use crate::stage::Allowed;

/// Folders of documents that are looked for when none is named.
const USUAL: &[&str] = &["docs", "documents", "doc", "data"];

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The project's folder.
    pub folder: PathBuf,
    /// The documents, from the working directory; without it, a usual folder of the project, or the project itself.
    pub documents: Option<PathBuf>,
    /// Judged queries that are there already.
    pub queries: Option<PathBuf>,
    /// The pipeline's name; without it, the folder's.
    pub name: Option<String>,
    /// Whether files that are there are replaced.
    pub force: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Made {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// The files that were written, and what each is.
    pub files: Vec<(PathBuf, String)>,
    pub documents: usize,
    pub chunks: usize,
    /// Queries to train with, to choose by, and to measure with.
    pub queries: [usize; 3],
    /// Whether the queries were made from the documents, which is only a start.
    pub made_up: bool,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// Writes a pipeline and what it needs. Every file is written whole or not at all, and the pipeline last.
///
/// # Errors
/// There are no documents, too little text to make queries from, a file that would be replaced, or one that cannot be written.
pub fn make(asked: &Asked) -> Result<Made> {
    let folder = std::path::absolute(&asked.folder).context("the path cannot be made absolute")?;
    let name = name(asked, &folder)?;
    let documents = documents(asked, &folder)?;
    let corpus = Corpus::read(&folder, &documents)?;
    let (queries, made_up) = match &asked.queries {
        Some(file) => (Queries::given(file, &corpus)?, false),
        None => (Queries::made(&corpus)?, true),
    };
    let mut notes = corpus.notes.clone();
    let text = pipeline::text(&name, &corpus, made_up);
    let file = folder.join("pipelines").join(format!("{name}.yaml"));
    checked(&text, &file)?;
    let mut all: Vec<File> = crate::schemas::all()
        .into_iter()
        .map(|(schema, text)| {
            File::new(folder.join("schemas").join(schema), text, "for editors: they complete and check the pipeline")
        })
        .collect();
    for (split, what, lines) in queries.files() {
        all.push(File::new(folder.join("queries").join(&name).join(format!("{split}.jsonl")), lines, what));
    }
    all.push(File::new(folder.join("queries").join(&name).join("README.md"), queries::readme(made_up), "how to write queries"));
    all.extend(files::gitignore(&folder, &mut notes)?);
    all.push(File::new(file.clone(), text, "the pipeline"));
    let files = files::write(all, asked.force)?;
    Ok(Made {
        pipeline: file,
        files,
        documents: corpus.documents.len(),
        chunks: corpus.chunks.len(),
        queries: queries.counts(),
        made_up,
        notes,
    })
}

/// The name that is asked for, else one from the folder's.
fn name(asked: &Asked, folder: &Path) -> Result<String> {
    let usable = |name: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(word)
    };
    if let Some(name) = &asked.name {
        if !usable(name) {
            bail!("`{name}` cannot be the name of a pipeline; use up to 64 letters, digits, `.`, `_` and `-`");
        }
        return Ok(name.clone());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(['.', '_', '-']).to_owned();
    Ok(if usable(&name) { name } else { "documents".to_owned() })
}

fn documents(asked: &Asked, folder: &Path) -> Result<PathBuf> {
    if let Some(named) = &asked.documents {
        if !named.exists() {
            bail!("there are no documents at `{}`; correct `--docs`", named.display());
        }
        return std::path::absolute(named).context("the path cannot be made absolute");
    }
    let usual = USUAL.iter().map(|name| folder.join(name)).find(|path| path.is_dir());
    Ok(usual.unwrap_or_else(|| folder.to_owned()))
}

/// The pipeline, read again: what is written must be right.
fn checked(text: &str, file: &Path) -> Result<Pipeline> {
    crate::pipeline::parse(text, file, &[], &Allowed::anywhere())
        .map_err(|e| anyhow::anyhow!("the pipeline would be wrong: {e}; please report this mistake in retune"))
}
