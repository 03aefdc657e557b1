//! Chunks: what the `chunk` stage yields.

use serde::{Deserialize, Serialize};

/// A contiguous piece of a document, small enough to embed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Unique within the artifact: `DOCUMENT_ID:N`, N counted from 0 within the document.
    pub id: String,
    /// [`Document::id`](super::Document::id) of the document it was cut from.
    pub document: String,
    /// The document's title.
    pub title: String,
    /// First byte in the document's text.
    pub start: usize,
    /// One past the last byte in the document's text; `document.text[start..end] == text`.
    pub end: usize,
    /// The text itself.
    pub text: String,
}
