//! Searching a corpus with a model.

use anyhow::Result;
use ndarray::Array2;

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
    let (vectors, passages) = encode(embedder, corpus, queries, cancel, progress)?;
    let (vectors, passages) = (normalized(vectors.view()), normalized(passages.view()));
    let ids: Vec<&str> = corpus.iter().map(|p| p.id.as_str()).collect();
    Ok(vectors.rows().into_iter().map(|query| top(&passages.dot(&query).to_vec(), &ids, k, true)).collect())
}

/// The vectors of `queries` and of the passages' embedding texts, in their order, each with the model's prompt. `progress` is told how many texts are encoded, of
/// `corpus.len() + queries.len()`.
///
/// # Errors
/// The model cannot encode, or `cancel` is set.
pub fn encode(
    embedder: &Embedder,
    corpus: &[Passage],
    queries: &[String],
    cancel: &Cancel,
    progress: &dyn Fn(usize),
) -> Result<(Array2<f32>, Array2<f32>)> {
    let texts: Vec<String> = corpus.iter().map(Passage::embedding_text).collect();
    let passages = embedder.encode_documents(&texts, cancel, progress)?;
    let queries = embedder.encode_queries(queries, cancel, &|n| progress(texts.len() + n))?;
    Ok((queries, passages))
}
