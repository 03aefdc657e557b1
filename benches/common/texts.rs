//! Real texts of uneven length: SciFact where it is, else the documents of the example.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Passages, queries, and which passage answers which query.
pub struct Texts {
    /// For the caption.
    pub name: &'static str,
    pub passages: Vec<String>,
    /// Queries that are only measured with.
    pub queries: Vec<String>,
    /// Query and the number of its passage, to train on.
    pairs: Vec<(String, usize)>,
}

impl Texts {
    /// SciFact from `RETUNE_SCIFACT` or `../shared/datasets/scifact`, else `data/tech-docs`.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let given = std::env::var_os("RETUNE_SCIFACT").map(PathBuf::from);
        let scifact = given.unwrap_or_else(|| root.join("../shared/datasets/scifact"));
        if scifact.join("corpus.jsonl").exists() {
            Texts::scifact(&scifact)
        } else {
            Texts::example(&root.join("data/tech-docs"))
        }
    }

    fn scifact(folder: &Path) -> Self {
        let (mut passages, mut places) = (Vec::new(), HashMap::new());
        for line in lines(&folder.join("corpus.jsonl")) {
            places.insert(string(&line, "_id"), passages.len());
            passages.push(format!("{} {}", string(&line, "title"), string(&line, "text")));
        }
        let queries: HashMap<String, String> =
            lines(&folder.join("queries.jsonl")).iter().map(|line| (string(line, "_id"), string(line, "text"))).collect();
        let judged = |split: &str| -> Vec<(String, usize)> {
            let table = read(&folder.join(format!("qrels/{split}.tsv")));
            let rows = table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
            rows.map(|row| (queries[row[0]].clone(), places[row[1]])).collect()
        };
        let mut test: Vec<String> = judged("test").into_iter().map(|(query, _)| query).collect();
        test.dedup();
        Texts { name: "SciFact", passages, queries: test, pairs: judged("train") }
    }

    fn example(folder: &Path) -> Self {
        let (mut passages, mut places) = (Vec::new(), HashMap::new());
        for entry in walkdir::WalkDir::new(folder.join("docs")).sort_by_file_name().into_iter().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "md") {
                let name = entry.path().strip_prefix(folder.join("docs")).expect("it lies there").display().to_string();
                places.insert(name, passages.len());
                passages.push(read(entry.path()));
            }
        }
        let pairs = lines(&folder.join("queries/train.jsonl"));
        let pairs = pairs
            .iter()
            .filter_map(|line| Some((string(line, "text"), *places.get(line["documents"][0]["document"].as_str()?)?)));
        let queries = lines(&folder.join("queries/test.jsonl")).iter().map(|line| string(line, "text")).collect();
        Texts { name: "the example's documents", passages, pairs: pairs.collect(), queries }
    }

    /// `count` rows of query and answer, and with `negative` a passage that is no answer; from the start again when there are fewer.
    pub fn rows(&self, count: usize, negative: bool) -> Vec<Vec<String>> {
        let row = |(i, (query, passage)): (usize, &(String, usize))| {
            let mut row = vec![query.clone(), self.passages[*passage].clone()];
            if negative {
                // Far enough in the corpus to be about something else, and never the answer itself.
                let other = (passage + 1 + i * 97 % (self.passages.len() - 1)) % self.passages.len();
                row.push(self.passages[other].clone());
            }
            row
        };
        self.pairs.iter().cycle().take(count).enumerate().map(row).collect()
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("`{}` cannot be read: {e}", path.display()))
}

fn lines(path: &Path) -> Vec<Value> {
    let line = |text: &str| serde_json::from_str(text).unwrap_or_else(|e| panic!("`{}`: {e}", path.display()));
    read(path).lines().map(line).collect()
}

fn string(line: &Value, field: &str) -> String {
    line[field].as_str().unwrap_or_default().to_owned()
}
