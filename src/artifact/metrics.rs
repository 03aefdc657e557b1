//! Metrics: a folder with `metrics.json` (settings, means, per query), `metrics.csv` (means) and `per_query.csv`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::jsonl;

/// The figures of one model on one set of queries.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Whose definitions hold: `trec` or `sentence-transformers`.
    pub convention: String,
    /// How queries and passages are compared.
    pub similarity: String,
    pub queries: usize,
    pub passages: usize,
    /// Queries that are not in the means for want of relevant passages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Measure → mean.
    pub means: BTreeMap<String, f64>,
    /// Query id → measure → value.
    pub per_query: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Metrics {
    /// Reads the folder.
    ///
    /// # Errors
    /// `metrics.json` is missing or is no metrics.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("metrics.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        jsonl::parse(&text).with_context(|| path.display().to_string())
    }

    /// The values of `measure` of each query, here and in `other`; `None` when these are figures of other definitions or queries, which
    /// cannot be paired.
    pub fn paired(&self, other: &Metrics, measure: &str) -> Option<Vec<(f64, f64)>> {
        if self.convention != other.convention || self.per_query.len() != other.per_query.len() {
            return None;
        }
        let values = |(query, values): (&String, &BTreeMap<String, f64>)| {
            Some((*values.get(measure)?, *other.per_query.get(query)?.get(measure)?))
        };
        self.per_query.iter().map(values).collect()
    }

    /// Writes the folder; the columns of the tables are in the order of `measures`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path, measures: &[String]) -> Result<()> {
        let fail = || format!("failed to write {}", folder.display());
        std::fs::create_dir_all(folder).with_context(fail)?;
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(folder.join("metrics.json"), json + "\n").with_context(fail)?;
        let mut means = csv::Writer::from_path(folder.join("metrics.csv")).with_context(fail)?;
        means.write_record(["metric", "mean"])?;
        for measure in measures {
            means.write_record([measure, &cell(self.means.get(measure))])?;
        }
        means.flush().with_context(fail)?;
        let mut rows = csv::Writer::from_path(folder.join("per_query.csv")).with_context(fail)?;
        rows.write_record(std::iter::once("query").chain(measures.iter().map(String::as_str)))?;
        for (query, values) in &self.per_query {
            rows.write_record(std::iter::once(query.clone()).chain(measures.iter().map(|m| cell(values.get(m)))))?;
        }
        rows.flush().with_context(fail)
    }
}

fn cell(value: Option<&f64>) -> String {
    value.map(f64::to_string).unwrap_or_default()
}
