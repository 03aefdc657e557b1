//! Texts to token ids.

use std::path::Path;

use anyhow::{Result, anyhow};
use tokenizers::{EncodeInput, TruncationDirection, TruncationParams, TruncationStrategy};

/// A model's tokenizer, cutting at the model's `max_seq_length`.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

/// The token ids of one text, special tokens included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    pub ids: Vec<i64>,
    /// Whether the text was longer than the model takes.
    pub truncated: bool,
    /// How many of the first tokens are the prompt's, a special token before it included.
    pub prompt: usize,
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
        Ok(Tokenizer { inner })
    }

    /// Token ids of each text.
    ///
    /// # Errors
    /// The tokenizer fails, which a tokenizer made for the model does not.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Tokens>> {
        self.tokens(texts.to_vec(), 0)
    }

    /// Token ids of each text with `prompt` before it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompted(&self, prompt: &str, texts: &[&str]) -> Result<Vec<Tokens>> {
        if prompt.is_empty() {
            return self.encode(texts);
        }
        let alone = self.inner.encode_fast(prompt, true).map_err(|e| anyhow!("the tokenizer failed: {e}"))?;
        // The special token at the end, if there is one, comes after the text.
        let end = usize::from(alone.get_special_tokens_mask().last() == Some(&1));
        self.tokens(texts.iter().map(|text| format!("{prompt}{text}")).collect(), alone.len() - end)
    }

    fn tokens<'t>(&self, texts: Vec<impl Into<EncodeInput<'t>> + Send>, prompt: usize) -> Result<Vec<Tokens>> {
        let encodings = self.inner.encode_batch_fast(texts, true).map_err(|e| anyhow!("the tokenizer failed: {e}"))?;
        Ok(encodings
            .iter()
            .map(|e| Tokens {
                ids: e.get_ids().iter().map(|&id| i64::from(id)).collect(),
                truncated: !e.get_overflowing().is_empty(),
                prompt,
            })
            .collect())
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
