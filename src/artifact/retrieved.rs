//! Retrieved passages: what the `retrieve` stage yields and the `generate` stage answers from.

use serde::{Deserialize, Serialize};

/// Which of the two compared models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Baseline,
    FineTuned,
}

impl Side {
    /// Both, the baseline first.
    pub const BOTH: [Side; 2] = [Side::Baseline, Side::FineTuned];

    /// As it is written in artifacts and shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Side::Baseline => "baseline",
            Side::FineTuned => "fine-tuned",
        }
    }

    /// The input port of stages that take both models.
    pub fn port(self) -> &'static str {
        match self {
            Side::Baseline => "baseline",
            Side::FineTuned => "tuned",
        }
    }
}

/// One query with what one model finds for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retrieved {
    pub query_id: String,
    pub query: String,
    pub model: Side,
    /// Best first.
    pub hits: Vec<RetrievedPassage>,
}

/// A passage that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrievedPassage {
    /// [`Passage::id`](super::Passage::id).
    pub passage: String,
    #[serde(default)]
    pub title: String,
    /// The whole text.
    pub text: String,
    /// Cosine similarity to the query.
    pub score: f32,
}
