//! Compares the encoder with sentence-transformers' figures.

use serde::Deserialize;

use super::embedder::Embedder;
use super::tokenizer::Tokenizer;
use crate::cancel::Cancel;
use crate::model::testing::minilm;
use crate::runtime::precision::Precision;
use crate::runtime::testing::downloads;

#[derive(Deserialize)]
struct Reference {
    max_seq_length: usize,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    input_ids: Vec<i64>,
    embedding: Vec<f32>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../tests/fixtures/encoder.json")).unwrap()
}

#[test]
fn token_ids_are_those_of_sentence_transformers() {
    let reference = reference();
    let tokenizer = Tokenizer::open(&minilm(), reference.max_seq_length).unwrap();
    let texts: Vec<&str> = reference.rows.iter().map(|r| r.text.as_str()).collect();
    for (row, tokens) in reference.rows.iter().zip(tokenizer.encode(&texts).unwrap()) {
        assert_eq!(tokens.ids, row.input_ids, "{:?}", row.text);
        assert_eq!(tokens.truncated, row.input_ids.len() == reference.max_seq_length);
    }
}

#[test]
fn embeddings_are_those_of_sentence_transformers() {
    let reference = reference();
    let embedder = Embedder::open(&minilm(), Precision::Fp32, &downloads()).unwrap();
    assert_eq!(embedder.max_seq_length(), reference.max_seq_length);
    let texts: Vec<String> = reference.rows.iter().map(|r| r.text.clone()).collect();
    let vectors = embedder.encode(&texts, &Cancel::default(), &|_| ()).unwrap();
    let mut worst = 0.0f32;
    for (row, vector) in reference.rows.iter().zip(vectors.rows()) {
        assert_eq!(vector.len(), row.embedding.len());
        let error = vector.iter().zip(&row.embedding).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        worst = worst.max(error);
        assert!(error <= 1e-5, "{:?}: off by {error}", row.text);
    }
    println!("embeddings: worst deviation {worst:e}");
}
