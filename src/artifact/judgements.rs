//! Queries with relevance judgements over a corpus, as a BEIR folder: `corpus.jsonl` (`_id`, `title`, `text`),
//! `queries.jsonl` (`_id`, `text`) and `qrels/SPLIT.tsv` (`query-id`, `corpus-id`, `score`, with that header line).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Chunk, jsonl};

/// One retrievable text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    #[serde(rename = "_id")]
    pub id: String,
    #[serde(default)]
    pub title: String,
    pub text: String,
}

impl Passage {
    /// The text that is embedded: title, a blank, text (BEIR's convention); the text alone when there is no title.
    pub fn embedding_text(&self) -> String {
        format!("{} {}", self.title, self.text).trim().to_owned()
    }
}

impl From<&Chunk> for Passage {
    fn from(chunk: &Chunk) -> Self {
        Passage { id: chunk.id.clone(), title: chunk.title.clone(), text: chunk.text.clone() }
    }
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    #[serde(rename = "_id")]
    pub id: String,
    pub text: String,
}

/// Grades of relevance: query id → passage id → grade (0 is judged and not relevant).
pub type Qrels = BTreeMap<String, BTreeMap<String, i32>>;

/// A corpus, queries over it, and which passages answer which query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgements {
    pub corpus: Vec<Passage>,
    pub queries: Vec<Query>,
    pub qrels: Qrels,
}

impl Judgements {
    /// Reads a BEIR folder with the judgements of one split (`qrels/SPLIT.tsv`). Only queries that the split judges are kept.
    ///
    /// # Errors
    /// A file is missing or malformed, an id stands twice, a judgement names an unknown query or passage.
    pub fn read(folder: &Path, split: &str) -> Result<Self> {
        let corpus: Vec<Passage> = jsonl::read(&folder.join("corpus.jsonl"))?;
        let mut queries: Vec<Query> = jsonl::read(&folder.join("queries.jsonl"))?;
        let path = folder.join("qrels").join(format!("{split}.tsv"));
        let qrels = read_qrels(&path)?;
        let documents = unique(corpus.iter().map(|p| &p.id), "corpus.jsonl")?;
        let known = unique(queries.iter().map(|q| &q.id), "queries.jsonl")?;
        for (query, grades) in &qrels {
            if !known.contains(query) {
                bail!("{}: query `{query}` is judged but is not in queries.jsonl", path.display());
            }
            if let Some(id) = grades.keys().find(|id| !documents.contains(id)) {
                bail!("{}: query `{query}` is judged with passage `{id}`, which is not in corpus.jsonl", path.display());
            }
        }
        queries.retain(|q| qrels.contains_key(&q.id));
        Ok(Judgements { corpus, queries, qrels })
    }

    /// Writes the folder; the split is called `test`, as BEIR's tools expect.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder.join("qrels")).with_context(|| format!("failed to create {}", folder.display()))?;
        jsonl::write(&folder.join("corpus.jsonl"), &self.corpus)?;
        jsonl::write(&folder.join("queries.jsonl"), &self.queries)?;
        // As BEIR's tools and `read_qrels` take it: a quotation mark in an id is a character like any other.
        let mut writer = csv::WriterBuilder::new()
            .delimiter(b'\t')
            .quote_style(csv::QuoteStyle::Never)
            .from_path(folder.join("qrels/test.tsv"))?;
        writer.write_record(["query-id", "corpus-id", "score"])?;
        for (query, grades) in &self.qrels {
            for (passage, grade) in grades {
                writer.write_record([query, passage, &grade.to_string()])?;
            }
        }
        writer.flush()?;
        Ok(())
    }
}

fn unique<'a>(ids: impl Iterator<Item = &'a String>, file: &str) -> Result<BTreeSet<&'a String>> {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id) {
            bail!("{file}: the id `{id}` stands twice; ids must be unique");
        }
    }
    Ok(seen)
}

/// Reads tab-separated judgements in BEIR's form (three columns under a header) or TREC's (`query 0 passage grade`, no header).
pub fn read_qrels(path: &Path) -> Result<Qrels> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut qrels = Qrels::new();
    for (number, line) in text.lines().enumerate() {
        let at = || format!("{}:{}", path.display(), number + 1);
        let fields: Vec<&str> = if line.contains('\t') { line.split('\t').collect() } else { line.split_whitespace().collect() };
        let (query, passage, grade) = match fields.as_slice() {
            [] | [""] => continue,
            [_, _, "score"] if number == 0 => continue,
            [query, passage, grade] => (query, passage, grade),
            [query, _, passage, grade] => (query, passage, grade),
            _ => bail!("{}: expected `query<TAB>passage<TAB>grade`, found {} fields", at(), fields.len()),
        };
        let grade: i32 = grade.trim().parse().with_context(|| format!("{}: the grade `{grade}` is not a whole number", at()))?;
        qrels.entry((*query).to_owned()).or_default().insert((*passage).to_owned(), grade);
    }
    Ok(qrels)
}
