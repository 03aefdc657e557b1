//! Documents: what the `load` stage yields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One text that was read from a source file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Unique within the artifact: the path below the loaded folder with `/` separators, plus `#N` (from 1, records without
    /// text counted) for the N-th record of a JSON array, a JSON Lines file or a CSV file, even if it is the only one. Every
    /// other file, a PDF of many pages too, is one document.
    pub id: String,
    /// The path below the loaded folder, with `/` separators.
    pub path: String,
    /// From the document itself (first heading, `<title>`, a `title` field), else the file's stem.
    pub title: String,
    /// Plain text, UTF-8.
    pub text: String,
    /// Further fields of the source record, as strings or JSON values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, serde_json::Value>,
}
