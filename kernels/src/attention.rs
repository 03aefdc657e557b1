//! Attention of several heads within texts that lie end to end, without padding. The backward pass computes the probabilities anew from the logarithm
//! of their sum (Dao et al., "FlashAttention", 2022), so that nothing of the size of texts squared is kept.

mod backward;
mod forward;

pub use backward::{Gradients, backward};
pub use forward::forward;

use std::f32::consts::LOG2_E;
use std::ops::{Deref, Range};

use crate::dropout::{Dropout, Rows};
use crate::isa::versions;
use crate::matrix::{Matrix, NumberParts};
use crate::pool::Buffer;
use crate::simd::{Vector, Words};
use crate::tile::{Order, Tile, left_to_right, transpose};
use crate::{Isa, Pool, Precision};

/// What the forward and the backward pass have in common.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Text i has the tokens `starts[i]..starts[i + 1]`: one more than there are texts, from 0 to the number of tokens.
    pub starts: &'a [usize],
    pub heads: usize,
    /// Of the products of queries and keys, mostly 1 / √width.
    pub scale: f32,
    /// Tokens further apart do not see each other.
    pub window: Option<usize>,
    pub bias: Option<Bias<'a>>,
    /// Of probabilities. The row of the mask is token · heads + head, the column the place of the key in its text.
    pub dropout: Option<Dropout>,
    pub precision: Precision,
}

/// What is added to a scaled product by how far the key stands after the query.
#[derive(Debug, Clone, Copy)]
pub struct Bias<'a> {
    /// `[heads, 2 span − 1]`: the entry for a query at place q and a key at k is number k − q + span − 1.
    pub values: &'a [f32],
    /// At least the length of the longest text.
    pub span: usize,
}

/// Queries, keys and values, `[tokens, heads · width]` each; they may be columns of one wider matrix.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub query: Matrix<'a>,
    pub key: Matrix<'a>,
    pub value: Matrix<'a>,
}

/// Rows and columns of a block of scores.
const SIDE: usize = 32;
/// The score of what is not seen: finite, so that rows of padding stay finite.
const UNSEEN: f32 = -1e30;

/// The work on one head of one text.
struct Task {
    head: usize,
    /// The text's first token.
    start: usize,
    /// The text's tokens.
    len: usize,
    text: usize,
}

impl<'a> Attention<'a> {
    /// The number of tokens and the width of a head.
    fn check(&self, inputs: &Inputs) -> (usize, usize) {
        let (tokens, hidden) = (inputs.query.rows(), inputs.query.columns());
        for matrix in [inputs.key, inputs.value] {
            assert!(matrix.rows() == tokens && matrix.columns() == hidden, "queries, keys and values of one shape");
        }
        assert!(self.heads > 0 && hidden.is_multiple_of(self.heads), "{hidden} columns for {} heads", self.heads);
        let ordered = self.starts.is_sorted() && self.starts.first() == Some(&0);
        assert!(ordered && self.starts.last() == Some(&tokens), "the starts of texts, from 0 to {tokens}");
        if let Some(bias) = self.bias {
            assert_eq!(bias.values.len(), self.heads * (2 * bias.span).saturating_sub(1), "the bias of relative distances");
            assert!(self.texts().all(|(_, len)| len <= bias.span), "a text is longer than the bias of relative distances");
        }
        if let Some(dropout) = self.dropout {
            assert!((0.0..1.0).contains(&dropout.probability), "dropout with the probability {}", dropout.probability);
        }
        (tokens, hidden / self.heads)
    }

    /// First token and length of each.
    fn texts(&self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        self.starts.windows(2).map(|pair| (pair[0], pair[1] - pair[0]))
    }

    /// Long texts first, so that no thread is left alone with one at the end.
    fn tasks(&self) -> Vec<Task> {
        let mut texts: Vec<_> = self.texts().enumerate().filter(|(_, (_, len))| *len > 0).collect();
        texts.sort_by_key(|(_, (_, len))| std::cmp::Reverse(*len));
        let heads = |(text, (start, len))| (0..self.heads).map(move |head| Task { head, start, len, text });
        texts.into_iter().flat_map(heads).collect()
    }

    /// Calls `work` for all tasks, with several heads of a text at once: whole rows are read much faster than pieces of them. There are enough calls for all
    /// threads.
    fn run(&self, pool: &dyn Pool, work: impl Fn(&[Task]) + Sync) {
        let tasks = self.tasks();
        let cost = |task: &Task| task.len.div_ceil(SIDE).pow(2);
        let share = tasks.iter().map(cost).sum::<usize>().div_ceil(4 * pool.threads().max(1));
        let of_text = |heads: &'_ [Task]| share / cost(&heads[0]).max(1);
        let groups: Vec<_> =
            tasks.chunk_by(|a, b| a.text == b.text).flat_map(|heads| heads.chunks(of_text(heads).max(1))).collect();
        pool.run(groups.len(), &|i| work(groups[i]));
    }

    /// The panels of 32 keys that some of 32 queries from `query` on see.
    fn seen(&self, query: usize, len: usize) -> Range<usize> {
        match self.window {
            Some(w) => query.saturating_sub(w) / SIDE..(query + SIDE).saturating_add(w).min(len).div_ceil(SIDE),
            None => 0..len.div_ceil(SIDE),
        }
    }

    /// The bias of the text's distances in units of ln 2: number q − k + padded − 1, `padded` being the length in whole blocks. Zero where no text has
    /// tokens.
    fn distances(&self, task: &Task) -> Option<Vec<f32>> {
        self.bias.map(|bias| {
            let padded = task.len.next_multiple_of(SIDE);
            let values = &bias.values[task.head * (2 * bias.span - 1)..][..2 * bias.span - 1];
            let mut local = vec![0.0; 2 * padded];
            let reach = task.len - 1;
            let seen = values[bias.span - 1 - reach..bias.span + reach].iter().rev();
            local[padded - 1 - reach..padded + reach].iter_mut().zip(seen).for_each(|(local, value)| *local = value * LOG2_E);
            local
        })
    }

    /// What drops probabilities of 32 queries from `query` on.
    fn masks(&self, task: &Task, query: usize) -> Option<Masks> {
        self.dropout.map(|dropout| {
            let row = |i| dropout.row(((task.start + query + i) * self.heads + task.head) as u64);
            let half = |i: usize| Rows::new(std::array::from_fn(|j| row(i * 16 + j)));
            Masks { rows: [half(0), half(1)], factor: dropout.factor() }
        })
    }

    fn head<'m>(&self, matrix: Matrix<'m>, task: &Task, width: usize) -> Matrix<'m> {
        matrix.part(task.start, task.len, task.head * width, width)
    }
}

/// Dropout of 32 queries.
struct Masks {
    rows: [Rows; 2],
    factor: f32,
}

impl Masks {
    /// What the probabilities of a key are multiplied by, for 16 queries of the first or the second half.
    #[inline(always)]
    fn get<V: Vector>(&self, half: usize, key: usize) -> V {
        self.rows[half].mask(key as u32, V::splat(self.factor))
    }
}

/// What turns products of keys and queries into scores, for one task. Scores are in units of ln 2: their exponentials are powers of 2. Blocks of
/// them are `[keys, queries]`, so that what belongs to a query (the greatest score, sums) is one number of a vector, and rows of a block become
/// rows of the operands that gradients of keys and values are computed from.
struct Scores<'a> {
    scale: f32,
    len: usize,
    /// How far tokens see; beyond every text if there is no window.
    window: usize,
    /// Of [`Attention::distances`].
    distances: Option<&'a [f32]>,
}

impl<'a> Scores<'a> {
    fn new(attention: &Attention, task: &Task, distances: Option<&'a [f32]>) -> Self {
        let window = attention.window.unwrap_or(usize::MAX).min(1 << 30);
        Scores { scale: attention.scale * LOG2_E, len: task.len, window, distances }
    }

    /// Whether the scores of a block are its products times a positive number.
    fn plain(&self, key: usize, query: usize) -> bool {
        let within = key + SIDE <= self.len && key.abs_diff(query) + SIDE - 1 <= self.window;
        within && self.distances.is_none() && self.scale > 0.0
    }

    /// Scores of a key with 16 queries from `query` on, from their products.
    #[inline(always)]
    fn apply<V: Vector>(&self, key: usize, query: usize, products: V) -> V {
        if key >= self.len {
            return V::splat(UNSEEN);
        }
        let scale = V::splat(self.scale);
        let scores = match self.distances {
            None => products.mul(scale),
            Some(distances) => {
                let at = query + self.len.next_multiple_of(SIDE) - 1 - key;
                products.fma(scale, V::load_some(&distances[at..at + 16]))
            }
        };
        let far = key > query + self.window || query + 15 > key + self.window;
        if far { self.hide(key, query, scores) } else { scores }
    }

    /// Scores beyond the window become so small that their exponentials are 0.
    #[inline(always)]
    fn hide<V: Vector>(&self, key: usize, query: usize, scores: V) -> V {
        let (queries, unseen) = (V::Words::count(query as u32), V::splat(UNSEEN));
        let from = |start: usize, yes, no| queries.select_reaches(Words::splat(start as u32), yes, no);
        from(key + self.window + 1, unseen, from(key.saturating_sub(self.window), scores, unseen))
    }
}

/// Rows of several heads as left operands, which consist of whole blocks of 32 × 32, as all operands here do.
struct Packed {
    tiles: Buffer<u32>,
    /// Tiles of a head, and of a panel of 32 tokens.
    head: usize,
    panel: usize,
}

impl Packed {
    fn new(isa: Isa, attention: &Attention, matrix: Matrix, heads: &[Task], width: usize) -> Self {
        let (panels, steps) = (heads[0].len.div_ceil(SIDE), width.div_ceil(SIDE) * SIDE / attention.precision.step());
        let (head, panel) = (panels * steps * 2, steps * 2);
        let mut tiles = Buffer::new(heads.len() * head);
        // Rows of all heads before the next rows, as they lie in memory.
        for (i, (at, task)) in (0..panels).flat_map(|i| heads.iter().enumerate().map(move |task| (i, task))) {
            let tiles = &mut tiles[at * head + i * panel..][..panel];
            let rows = attention.head(matrix, task, width);
            crate::gemm::pack_panel(isa, attention.precision, rows, Order::Left, i * SIDE, 0..steps, tiles);
        }
        Packed { tiles, head, panel }
    }

    fn head(&self, i: usize) -> Operand<&[Tile<u32>]> {
        Operand { tiles: &self.tiles[i * self.head..(i + 1) * self.head], panel: self.panel }
    }
}

/// Tiles of a matrix, so many for each panel of 32 lines: two for each step along the sum.
struct Operand<T> {
    tiles: T,
    panel: usize,
}

impl<T: Deref<Target = [Tile<u32>]>> Operand<T> {
    fn panel(&self, panel: usize) -> &[Tile<u32>] {
        &self.tiles[panel * self.panel..(panel + 1) * self.panel]
    }
}

/// What else the rows X of a head are made.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// The left matrix X'.
    LeftT,
    /// The right matrix X.
    Right,
    /// The right matrix X'.
    RightT,
}

impl Operand<&[Tile<u32>]> {
    fn to(&self, isa: Isa, precision: Precision, form: Form) -> Operand<Buffer<u32>> {
        // Tiles of a block.
        let size = SIDE / precision.step() * 2;
        let (panels, wide) = (self.tiles.len() / self.panel, self.panel / size);
        let mut tiles = Buffer::new(self.tiles.len());
        let mut right = [Tile([0; 256]); 4];
        for (at, block) in self.tiles.chunks_exact(size).enumerate() {
            if form == Form::RightT {
                let to = &mut tiles[at * size..(at + 1) * size];
                block.iter().zip(to).for_each(|(from, to)| transpose(isa, from, to));
                continue;
            }
            let at = at % wide * panels + at / wide;
            let to = &mut tiles[at * size..(at + 1) * size];
            if form == Form::Right {
                left_to_right(isa, precision, block, to);
            } else {
                left_to_right(isa, precision, block, &mut right[..size]);
                right.iter().zip(to).for_each(|(from, to)| transpose(isa, from, to));
            }
        }
        Operand { tiles, panel: if form == Form::RightT { self.panel } else { panels * size } }
    }
}

/// Where results of all heads go: rows `stride` numbers apart.
struct Target<'a> {
    parts: NumberParts<'a>,
    stride: usize,
}

impl Target<'_> {
    /// Where the row of a token begins, for one head of `width`.
    fn place(&self, task: &Task, width: usize, row: usize) -> usize {
        (task.start + row) * self.stride + task.head * width
    }

    /// Fetches the part `step` of `steps` of some panels' rows, which will be written soon.
    fn expect(&self, task: &Task, width: usize, panels: Range<usize>, step: usize, steps: usize) {
        let (first, rows) = (panels.start * SIDE, panels.len() * SIDE);
        for row in first + rows * step / steps..task.len.min(first + rows * (step + 1) / steps) {
            let at = self.place(task, width, row);
            (at..at + width).step_by(16).for_each(|at| self.parts.expect(at));
        }
    }

    /// Writes a block of 32 tokens by 32 columns of a head of `width`, each row times a factor.
    ///
    /// # Safety
    /// No other task has these tokens and columns.
    #[allow(clippy::too_many_arguments)]
    unsafe fn write(
        &self,
        isa: Isa,
        task: &Task,
        width: usize,
        panel: usize,
        column: usize,
        block: &[Tile<f32>; 4],
        factors: &[f32; SIDE],
    ) {
        let factors = &factors[..SIDE.min(task.len - panel * SIDE)];
        let columns = width.min((column + 1) * SIDE) - column * SIDE;
        let place = self.place(task, width, panel * SIDE) + column * SIDE;
        write_rows(isa, &self.parts, place, self.stride, columns, block, factors);
    }
}

versions! {
    /// Writes a block's rows, `stride` apart, which no other task has, each times a factor.
    fn write_rows<V>(parts: &NumberParts, place: usize, stride: usize, columns: usize, block: &[Tile<f32>; 4], factors: &[f32]) {
        for (row, factor) in factors.iter().enumerate() {
            for (right, from) in (0..columns).step_by(16).enumerate() {
                let at = place + row * stride + from..place + row * stride + columns.min(from + 16);
                let numbers = V::load(block[row / 16 * 2 + right].row(row % 16)).mul(V::splat(*factor));
                // SAFETY: by the caller's word.
                unsafe { parts.store(at, numbers) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
