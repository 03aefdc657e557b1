//! Texts to token ids, and token ids to padded batches.

use std::path::Path;

use anyhow::{Result, anyhow};
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use super::config::Pooling;
use crate::runtime::session::Input;

/// A model's tokenizer, cutting at the model's `max_seq_length`.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pad: i64,
}

/// The token ids of one text, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub ids: Vec<i64>,
    /// Whether the text was longer than the model takes.
    pub truncated: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model directory. The truncation and padding in that file are replaced: files in circulation
    /// carry those of some earlier use (128 tokens, padded to 128).
    ///
    /// # Errors
    /// The file is missing or is no tokenizer.
    pub fn open(directory: &Path, max_seq_length: usize) -> Result<Self> {
        let mut inner = read(directory)?;
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: max_seq_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        inner.with_truncation(Some(truncation)).map_err(|e| anyhow!("`{}`: {e}", directory.display()))?;
        inner.with_padding(None);
        let pad = ["[PAD]", "<pad>"].iter().find_map(|token| inner.token_to_id(token)).unwrap_or(0);
        Ok(Tokenizer { inner, pad: i64::from(pad) })
    }

    /// Token ids of each text.
    ///
    /// # Errors
    /// The tokenizer fails, which a tokenizer made for the model does not.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Tokens>> {
        let encodings = self.inner.encode_batch_fast(texts.to_vec(), true).map_err(|e| anyhow!("the tokenizer failed: {e}"))?;
        Ok(encodings
            .iter()
            .map(|e| Tokens {
                ids: e.get_ids().iter().map(|&id| i64::from(id)).collect(),
                truncated: !e.get_overflowing().is_empty(),
            })
            .collect())
    }

    /// The texts as one batch, padded on the right to the longest.
    pub fn batch(&self, texts: &[&Tokens], pooling: Pooling) -> Batch {
        let seq = texts.iter().map(|t| t.ids.len()).max().unwrap_or(0).max(1);
        let rows = texts.len();
        let mut batch = Batch {
            rows,
            seq,
            input_ids: vec![self.pad; rows * seq],
            attention_mask: vec![0; rows * seq],
            token_type_ids: vec![0; rows * seq],
            pool: vec![0.0; rows * seq],
        };
        for (row, text) in texts.iter().enumerate() {
            let (from, to) = (row * seq, row * seq + text.ids.len());
            batch.input_ids[from..to].copy_from_slice(&text.ids);
            batch.attention_mask[from..to].fill(1);
            match pooling {
                Pooling::Mean => batch.pool[from..to].fill(1.0 / (text.ids.len() as f32).max(1e-9)),
                Pooling::Cls => batch.pool[from] = 1.0,
            }
        }
        batch
    }
}

fn read(directory: &Path) -> Result<tokenizers::Tokenizer> {
    let path = directory.join("tokenizer.json");
    tokenizers::Tokenizer::from_file(&path).map_err(|e| anyhow!("`{}` cannot be read: {e}", path.display()))
}

/// Counts tokens as a model's tokenizer makes them, without special tokens and without a limit.
pub struct TokenCounter(tokenizers::Tokenizer);

impl TokenCounter {
    /// Reads `tokenizer.json` of a model directory.
    ///
    /// # Errors
    /// The file is missing or is no tokenizer.
    pub fn open(directory: &Path) -> Result<Self> {
        let mut inner = read(directory)?;
        inner.with_truncation(None).map_err(|e| anyhow!("`{}`: {e}", directory.display()))?;
        inner.with_padding(None);
        Ok(TokenCounter(inner))
    }

    /// The number of tokens of `text`.
    ///
    /// # Errors
    /// The tokenizer fails, which a tokenizer made for the model does not.
    pub fn count(&self, text: &str) -> Result<usize> {
        Ok(self.0.encode_fast(text, false).map_err(|e| anyhow!("the tokenizer failed: {e}"))?.len())
    }
}

/// Texts as the encoder takes them, all matrices `[rows, seq]`.
#[derive(Debug, Clone)]
pub struct Batch {
    pub rows: usize,
    pub seq: usize,
    input_ids: Vec<i64>,
    attention_mask: Vec<i64>,
    token_type_ids: Vec<i64>,
    /// With what weight each token goes into its text's vector.
    pool: Vec<f32>,
}

impl Batch {
    /// The graph inputs of the encoder and its pooling.
    pub fn inputs(&self) -> Vec<Input<'_>> {
        let shape = [self.rows, self.seq];
        vec![
            Input::integers("input_ids", &shape, &self.input_ids),
            Input::integers("attention_mask", &shape, &self.attention_mask),
            Input::integers("token_type_ids", &shape, &self.token_type_ids),
            Input::floats("pool", &shape, &self.pool),
        ]
    }

    /// How many tokens are not padding.
    pub fn tokens(&self) -> usize {
        self.attention_mask.iter().filter(|&&m| m == 1).count()
    }
}
