//! Triplets: what the `mine` stage yields and the `train` stage learns from.

use serde::{Deserialize, Serialize};

/// A query (anchor) with a text that answers it (positive) and one that does not (negative).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triplet {
    pub anchor: String,
    pub positive: String,
    pub negative: String,
    /// Where the texts came from: query id, passage ids; kept for people, not read by training.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub positive_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub negative_id: String,
}
