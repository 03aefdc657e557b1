//! The typed artifacts that stages exchange, and their file formats. Every format is one a stranger can read: JSON Lines,
//! BEIR folders, TREC run files, safetensors, CSV.

pub mod answer;
pub mod chunk;
pub mod document;
pub mod example;
pub mod jsonl;
pub mod judgements;
pub mod metrics;
pub mod ranking;
pub mod retrieved;

pub use answer::Answer;
pub use chunk::Chunk;
pub use document::Document;
pub use example::Example;
pub use judgements::{Judgements, Passage, Query};
pub use metrics::Metrics;
pub use ranking::{Hit, Ranking};
pub use retrieved::{Retrieved, RetrievedPassage, Side};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an edge of the pipeline carries. A stage's input port accepts exactly one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// JSON Lines of [`Document`].
    Documents,
    /// JSON Lines of [`Chunk`].
    Chunks,
    /// A BEIR folder: `corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv` (see [`Judgements`]).
    Judgements,
    /// JSON Lines of [`Example`]: pairs, triplets or tuples, with or without labels.
    Triplets,
    /// A Hugging Face / sentence-transformers model directory.
    Model,
    /// A safetensors file with one matrix `embeddings` `[rows, dimensions]`.
    Embeddings,
    /// A TREC run file (see [`Ranking`]).
    Ranking,
    /// A folder with `metrics.json`, `metrics.csv` and `per_query.csv`.
    Metrics,
    /// JSON Lines of [`Retrieved`].
    Retrieved,
    /// JSON Lines of [`Answer`].
    Answers,
    /// Any other file or folder (plots, tables).
    File,
}

impl Kind {
    /// The word used for this kind in pipelines, records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Documents => "documents",
            Kind::Chunks => "chunks",
            Kind::Judgements => "judgements",
            Kind::Triplets => "triplets",
            Kind::Model => "model",
            Kind::Embeddings => "embeddings",
            Kind::Ranking => "ranking",
            Kind::Metrics => "metrics",
            Kind::Retrieved => "retrieved",
            Kind::Answers => "answers",
            Kind::File => "file",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
