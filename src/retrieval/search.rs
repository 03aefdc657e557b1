//! Searching a corpus with a model.

use anyhow::Result;

use super::dense::{normalized, top};
use crate::artifact::{Hit, Passage};
use crate::cancel::Cancel;
use crate::model::embedder::Embedder;

/// The `k` passages nearest to each of `queries` by cosine similarity, best first; equal scores by id, descending, as trec_eval
/// orders them. `progress` is told how many texts are encoded, of `corpus.len() + queries.len()`.
///
/// # Errors
/// The model cannot encode, or `cancel` is set.
pub fn search(
    embedder: &Embedder,
    corpus: &[Passage],
    queries: &[String],
    k: usize,
    cancel: &Cancel,
    progress: &dyn Fn(usize),
) -> Result<Vec<Vec<Hit>>> {
    let texts: Vec<String> = corpus.iter().map(Passage::embedding_text).collect();
    let passages = normalized(embedder.encode(&texts, cancel, progress)?.view());
    let vectors = normalized(embedder.encode(queries, cancel, &|n| progress(texts.len() + n))?.view());
    let ids: Vec<&str> = corpus.iter().map(|p| p.id.as_str()).collect();
    Ok(vectors.rows().into_iter().map(|query| top(&passages.dot(&query).to_vec(), &ids, k, true)).collect())
}
