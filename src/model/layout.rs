//! How the tokens of a batch of texts lie in the graph. Encoders work on tokens `[tokens, hidden]` and never see the difference.

use std::cell::Cell;

use super::batch;
use super::settings::Sizes;
use crate::onnx::{self, DataType, Graph, Value};
use crate::shape;

/// The graph inputs that say which tokens there are and where.
pub struct Layout {
    input_ids: Value,
    /// Only where it is asked for: an input that nothing reads would have to be given all the same.
    token_type_ids: Cell<Option<Value>>,
    positions: Value,
    kind: Kind,
}

enum Kind {
    /// `[rows, seq]` with padding, as transformers' exports have it. `mask` `[rows, seq]` is 1 for tokens.
    Padded { mask: Value },
    /// The real tokens of all texts, end to end.
    Packed {
        /// `[texts + 1]`: text i has the tokens `starts[i]..starts[i + 1]`.
        starts: Value,
        /// `[rows, seq]`: which token lies there; padding has the row's first.
        padded_at: Value,
        /// `[tokens]`: where in `[rows · seq]` the token lies.
        token_at: Value,
        /// `[rows, seq]`, 1 for tokens.
        mask: Value,
    },
}

/// What attention is to do, besides what its inputs say.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub heads: usize,
    /// What the products of queries and keys are multiplied by, usually 1/√width.
    pub scale: f32,
    /// Tokens further apart do not see each other.
    pub window: Option<usize>,
    /// Added to the scores: what [`Layout::distance_bias`] gave.
    pub bias: Option<Value>,
    /// The share of the attention that a training leaves out.
    pub dropout: f32,
}

impl Attention {
    /// Of every token to every token.
    pub fn new(sizes: &Sizes) -> Self {
        Attention { heads: sizes.heads, scale: sizes.scale(), window: None, bias: None, dropout: 0.0 }
    }
}

impl Layout {
    /// Inputs named as in transformers' exports, int64 `[rows, seq]`.
    pub fn padded(g: &Graph) -> Self {
        let input = |name| g.input(name, DataType::I64, shape!["rows", "seq"]);
        let (ids, mask) = (input("input_ids"), input("attention_mask"));
        let flat = |x| g.reshape(x, shape!["tokens"]);
        let positions = flat(g.expand(g.range("seq"), ids));
        Layout {
            input_ids: flat(ids),
            token_type_ids: Cell::default(),
            positions,
            kind: Kind::Padded { mask: g.cast(mask, DataType::F32) },
        }
    }

    /// The inputs of [`Batch::inputs`](batch::Batch::inputs).
    pub fn packed(g: &Graph) -> Self {
        let tokens = |name| g.input(name, DataType::I64, shape!["tokens"]);
        Layout {
            input_ids: tokens(batch::INPUT_IDS),
            token_type_ids: Cell::default(),
            positions: tokens(batch::POSITIONS),
            kind: Kind::Packed {
                starts: g.input(batch::STARTS, DataType::I64, shape!["starts"]),
                padded_at: g.input(batch::PADDED_AT, DataType::I64, shape!["rows", "seq"]),
                token_at: tokens(batch::TOKEN_AT),
                mask: g.input(batch::MASK, DataType::F32, shape!["rows", "seq"]),
            },
        }
    }

    /// int64 `[tokens]`
    pub fn input_ids(&self) -> Value {
        self.input_ids
    }

    /// int64 `[tokens]`
    pub fn token_type_ids(&self, g: &Graph) -> Value {
        let input = || match self.kind {
            Kind::Padded { .. } => g.reshape(g.input("token_type_ids", DataType::I64, shape!["rows", "seq"]), shape!["tokens"]),
            Kind::Packed { .. } => g.input(batch::TOKEN_TYPE_IDS, DataType::I64, shape!["tokens"]),
        };
        let ids = self.token_type_ids.get().unwrap_or_else(input);
        self.token_type_ids.set(Some(ids));
        ids
    }

    /// int64 `[rows, seq]`; padding has the id of the row's first token.
    pub fn padded_ids(&self, g: &Graph) -> Value {
        self.padded_integers(g, self.input_ids)
    }

    /// int64 `[rows, seq]`
    pub fn padded_types(&self, g: &Graph) -> Value {
        self.padded_integers(g, self.token_type_ids(g))
    }

    fn padded_integers(&self, g: &Graph, tokens: Value) -> Value {
        match self.kind {
            Kind::Padded { .. } => g.reshape(tokens, shape!["rows", "seq"]),
            Kind::Packed { padded_at, .. } => g.pick(tokens, padded_at),
        }
    }

    /// Where in its text each token stands, from 0: int64 `[tokens]`.
    pub fn positions(&self) -> Value {
        self.positions
    }

    /// 1 for tokens, 0 for padding: `[rows, seq]`.
    pub fn mask(&self) -> Value {
        match self.kind {
            Kind::Padded { mask } | Kind::Packed { mask, .. } => mask,
        }
    }

    /// `[tokens, width]` → `[rows, seq, width]`. What lies at padding has no meaning, and gets no gradient.
    pub fn spread(&self, g: &Graph, x: Value, width: usize) -> Value {
        match self.kind {
            Kind::Padded { .. } => g.reshape(x, shape!["rows", "seq", width]),
            Kind::Packed { padded_at, token_at, .. } => g.permute_rows(x, padded_at, token_at, None),
        }
    }

    /// `[rows, seq, width]` → `[tokens, width]`.
    pub fn collect(&self, g: &Graph, x: Value, width: usize) -> Value {
        let flat = g.reshape(x, shape!["places", width]);
        match self.kind {
            Kind::Padded { .. } => g.reshape(x, shape!["tokens", width]),
            Kind::Packed { padded_at, token_at, mask, .. } => g.permute_rows(flat, token_at, padded_at, Some(mask)),
        }
    }

    /// Scaled dot-product attention of all heads, within each text; all values `[tokens, heads · width]`. `inputs` are queries, keys and
    /// values.
    pub fn attention(&self, g: &Graph, inputs: [Value; 3], how: &onnx::Attention) -> Value {
        match self.kind {
            Kind::Packed { starts, .. } if g.own() => g.attention(inputs, starts, how),
            _ => self.padded_attention(g, inputs, how),
        }
    }

    fn padded_attention(&self, g: &Graph, inputs: [Value; 3], how: &onnx::Attention) -> Value {
        let hidden = g.last(inputs[0]);
        let width = hidden / how.heads.max(1);
        let split = |x: Value| {
            let spread = g.reshape(self.spread(g, x, hidden), shape!["rows", "seq", how.heads, width]);
            g.transpose(spread, &[0, 2, 1, 3])
        };
        let [query, key, value] = inputs.map(split);
        let scores = g.add(g.matmul(query, key, false, true, how.scale), self.padding_bias(g));
        let scores = how.window.map_or(scores, |window| g.add(scores, window_bias(g, window)));
        let scores = how.bias.map_or(scores, |bias| g.add(scores, bias));
        let probabilities = g.softmax(scores);
        let probabilities = how.dropout.map_or(probabilities, |dropout| g.dropout(probabilities, dropout));
        let attended = g.matmul(probabilities, value, false, false, 1.0);
        let merged = g.reshape(g.transpose(attended, &[0, 2, 1, 3]), shape!["rows", "seq", hidden]);
        self.collect(g, merged, hidden)
    }

    /// 0 where a token may be looked at, a very large negative number where it is padding: `[rows, 1, 1, seq]`.
    fn padding_bias(&self, g: &Graph) -> Value {
        let padding = g.sub(g.scalar(1.0), self.mask());
        g.reshape(g.scale(padding, HIDDEN), shape!["rows", 1, 1, "seq"])
    }

    /// What attention adds to its scores by how far key and query lie apart: `table` `[entries, heads]`, and which entry is for each
    /// distance (key − query) from the farthest before to the farthest after. `[heads, seq, seq]`, or for the operator of retune's own,
    /// which looks distances up itself, `[heads, distances]`.
    pub fn distance_bias(&self, g: &Graph, table: Value, entry_of: &[i64]) -> Value {
        if let (Kind::Packed { .. }, true) = (&self.kind, g.own()) {
            return g.transpose(g.lookup(table, g.integers(entry_of)), &[1, 0]);
        }
        let at = g.range("seq");
        let apart = g.difference(g.reshape(at, shape![1, "seq"]), g.reshape(at, shape!["seq", 1]));
        let entries = g.pick(g.integers(entry_of), g.shift(apart, entry_of.len() as i64 / 2));
        g.transpose(g.lookup(table, entries), &[2, 0, 1])
    }
}

/// What is added to a score to hide the token. Half of the smallest number, so that two of them together stay finite.
const HIDDEN: f32 = f32::MIN / 2.0;

/// 0 for tokens at most `window` apart, [`HIDDEN`] for others: `[seq, seq]`.
fn window_bias(g: &Graph, window: usize) -> Value {
    let at = g.cast(g.range("seq"), DataType::F32);
    let (down, across) = (g.reshape(at, shape!["seq", 1]), g.reshape(at, shape![1, "seq"]));
    let far = g.greater(g.abs(g.sub(down, across)), g.scalar(window as f32));
    g.select(far, g.scalar(HIDDEN), g.scalar(0.0))
}
