//! A batch of texts as graph inputs.

use super::pooling::Pooling;
use super::tokenizer::Tokens;
use crate::runtime::session::Input;

/// Of dropout, where a training adds it.
pub(super) const SEED: &str = "dropout_seed";
pub(super) const INPUT_IDS: &str = "input_ids";
pub(super) const TOKEN_TYPE_IDS: &str = "token_type_ids";
pub(super) const POSITIONS: &str = "positions";
pub(super) const STARTS: &str = "starts";
pub(super) const PADDED_AT: &str = "padded_at";
pub(super) const TOKEN_AT: &str = "token_at";
pub(super) const MASK: &str = "mask";

/// Texts laid end to end, without padding: see [`Layout::packed`](super::layout::Layout::packed).
#[derive(Debug, Clone)]
pub struct Batch {
    rows: usize,
    /// Tokens of the longest text.
    seq: usize,
    input_ids: Vec<i64>,
    token_type_ids: Vec<i64>,
    positions: Vec<i64>,
    starts: Vec<i64>,
    padded_at: Vec<i64>,
    token_at: Vec<i64>,
    mask: Vec<f32>,
    seed: [i64; 1],
    /// How the token vectors of each text become one: name, shape and values of the inputs of pooling.
    pools: Vec<(&'static str, Vec<usize>, Vec<f32>)>,
}

impl Batch {
    /// Lays out `texts`.
    pub fn new(texts: &[&Tokens], pooling: &Pooling) -> Self {
        let seq = texts.iter().map(|t| t.ids.len()).max().unwrap_or(0).max(1);
        let (rows, tokens) = (texts.len(), texts.iter().map(|t| t.ids.len()).sum::<usize>());
        let mut batch = Batch {
            rows,
            seq,
            input_ids: Vec::with_capacity(tokens),
            token_type_ids: vec![0; tokens],
            positions: Vec::with_capacity(tokens),
            starts: Vec::with_capacity(rows + 1),
            padded_at: Vec::with_capacity(rows * seq),
            token_at: Vec::with_capacity(tokens),
            mask: vec![0.0; rows * seq],
            seed: [0],
            pools: pooling.inputs(&texts.iter().map(|t| (t.ids.len(), t.prompt)).collect::<Vec<_>>(), seq),
        };
        batch.starts.push(0);
        for (row, text) in texts.iter().enumerate() {
            let (from, length) = (batch.input_ids.len(), text.ids.len());
            batch.input_ids.extend(&text.ids);
            batch.positions.extend(0..length as i64);
            batch.token_at.extend((row * seq..row * seq + length).map(|at| at as i64));
            batch.padded_at.extend((0..seq).map(|i| (from + if i < length { i } else { 0 }) as i64));
            batch.mask[row * seq..row * seq + length].fill(1.0);
            batch.starts.push(batch.input_ids.len() as i64);
        }
        batch
    }

    /// With the seed of what dropout leaves out.
    #[must_use]
    pub fn seeded(self, seed: i64) -> Self {
        Batch { seed: [seed], ..self }
    }

    /// The graph inputs of the encoder and its pooling. A graph may do without some.
    pub fn inputs(&self) -> Vec<Input<'_>> {
        let (tokens, padded) = ([self.tokens()], [self.rows, self.seq]);
        let mut inputs = vec![
            Input::integers(INPUT_IDS, &tokens, &self.input_ids),
            Input::integers(TOKEN_TYPE_IDS, &tokens, &self.token_type_ids),
            Input::integers(POSITIONS, &tokens, &self.positions),
            Input::integers(SEED, &[1], &self.seed),
            Input::integers(STARTS, &[self.starts.len()], &self.starts),
            Input::integers(PADDED_AT, &padded, &self.padded_at),
            Input::integers(TOKEN_AT, &tokens, &self.token_at),
            Input::floats(MASK, &padded, &self.mask),
        ];
        inputs.extend(self.pools.iter().map(|(name, shape, values)| Input::floats(name, shape, values)));
        inputs
    }

    /// Texts.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens of all texts, special ones included.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }
}
