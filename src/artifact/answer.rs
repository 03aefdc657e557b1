//! Answers: what the `generate` stage yields.

use serde::{Deserialize, Serialize};

use super::retrieved::Side;

/// The answer to one query from what one model retrieved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub query_id: String,
    pub query: String,
    /// The embedding model that retrieved the passages.
    pub model: Side,
    /// Who wrote the answer: `extractive`, `openai`, `azure_openai`.
    pub provider: String,
    pub answer: String,
    /// Ids of the passages that the answer was drawn from, best first.
    pub sources: Vec<String>,
}
