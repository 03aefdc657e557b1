//! Rankings in TREC's run format: `query Q0 passage rank score tag`, one line a retrieved passage.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One retrieved passage.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub passage: String,
    /// Higher is better.
    pub score: f32,
}

/// Query id → hits, best first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranking(pub BTreeMap<String, Vec<Hit>>);

impl Ranking {
    /// Reads a TREC run file. Hits keep the file's order; evaluation orders them by its own tie rule.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        let mut ranking = Ranking::default();
        for (number, line) in text.lines().enumerate() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [query, _, passage, _, score, _] = fields.as_slice() else {
                bail!(
                    "{}:{}: expected `query Q0 passage rank score tag`, found {} fields",
                    path.display(),
                    number + 1,
                    fields.len()
                );
            };
            let score = score
                .parse()
                .with_context(|| format!("{}:{}: the score `{score}` is not a number", path.display(), number + 1))?;
            ranking.0.entry((*query).to_owned()).or_default().push(Hit { passage: (*passage).to_owned(), score });
        }
        Ok(ranking)
    }

    /// Writes a TREC run file, tagged `tag`. White space in ids, which the format cannot hold, is written as `%20` and the like.
    pub fn write(&self, path: &Path, tag: &str) -> Result<()> {
        let mut text = String::new();
        for (query, hits) in &self.0 {
            for (rank, hit) in hits.iter().enumerate() {
                // `{:?}` of a float is the shortest text that reads back as the same float.
                writeln!(text, "{} Q0 {} {} {:?} {tag}", field(query), field(&hit.passage), rank + 1, hit.score)?;
            }
        }
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// An id as the file has it.
pub fn field(id: &str) -> String {
    id.replace(' ', "%20").replace('\t', "%09")
}
