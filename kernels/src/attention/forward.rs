use super::{Attention, Inputs, Operand, SIDE, Scores, Task, UNSEEN, mask};
use crate::isa::versions;
use crate::math::exp;
use crate::micro::Multiplier;
use crate::pool::{Buffer, Parts};
use crate::tile::{Order, Tile, repack};
use crate::{Isa, Pool};

/// Writes the output `[tokens, heads · width]` and, for the backward pass, the logarithms of the sums of exponentials of scores `[heads, tokens]`.
///
/// # Panics
/// Shapes do not fit each other.
pub fn forward(pool: &dyn Pool, attention: &Attention, inputs: &Inputs, output: &mut [f32], logsumexp: &mut [f32]) {
    let (tokens, width) = attention.check(inputs);
    assert_eq!(output.len(), tokens * attention.heads * width, "the output of attention");
    assert_eq!(logsumexp.len(), attention.heads * tokens, "the logarithms of sums");
    let tasks = attention.tasks();
    let work = Forward { isa: pool.isa(), attention, inputs, tokens, width };
    let (output, logsumexp) = (Parts::new(output), Parts::new(logsumexp));
    pool.run(tasks.len(), &|i| work.text(&tasks[i], &output, &logsumexp));
}

struct Forward<'a> {
    isa: Isa,
    attention: &'a Attention<'a>,
    inputs: &'a Inputs<'a>,
    tokens: usize,
    width: usize,
}

impl Forward<'_> {
    fn text(&self, task: &Task, output: &Parts<f32>, logsumexp: &Parts<f32>) {
        let (isa, precision, width) = (self.isa, self.attention.precision, self.width);
        let multiplier = Multiplier::new(isa, precision);
        let head = |matrix| self.attention.head(matrix, task, width);
        let keys = Operand::new(isa, precision, Order::Right, head(self.inputs.key).t());
        let values = Operand::new(isa, precision, Order::Right, head(self.inputs.value));
        let queries = Operand::new(isa, precision, Order::Left, head(self.inputs.query));
        let distances = self.attention.distances(task);
        let scores = Scores::new(self.attention, task, distances.as_deref());

        let panels = task.len.div_ceil(SIDE);
        let per_panel = SIDE / precision.step() * 2;
        let mut products = Buffer::<f32>::new(panels * 4);
        let mut probabilities = Buffer::<u32>::new(panels * per_panel);
        let mut results = [Tile([0.0; 256]); 4];
        // SAFETY: tasks are of different texts or heads.
        let sums =
            unsafe { logsumexp.part(task.head * self.tokens + task.start..task.head * self.tokens + task.start + task.len) };
        for (panel, sums) in sums.chunks_mut(SIDE).enumerate() {
            let first = panel * SIDE;
            let seen = self.attention.seen(first, task.len);
            let products = products[seen.start * 4..seen.end * 4].as_chunks_mut::<4>().0;
            for (key, product) in seen.clone().zip(products.iter_mut()) {
                multiplier.multiply(queries.panel(panel), keys.panel(key), product, false);
            }
            let inverse = softmax(isa, self.attention, task, &scores, first, seen.start * SIDE, products, sums);
            for (key, product) in seen.clone().zip(products.iter()) {
                repack(isa, precision, Order::Left, product, &mut probabilities[key * per_panel..][..per_panel]);
            }
            let steps = seen.start * per_panel..seen.end * per_panel;
            for column in (0..width).step_by(SIDE) {
                let values = &values.panel(column / SIDE)[steps.clone()];
                multiplier.multiply(&probabilities[steps.clone()], values, &mut results, false);
                let columns = task.head * width + column..task.head * width + width.min(column + SIDE);
                for (row, inverse) in inverse.iter().enumerate().take(sums.len()) {
                    let at = (task.start + first + row) * self.attention.heads * width;
                    // SAFETY: as above.
                    let output = unsafe { output.part(at + columns.start..at + columns.end) };
                    for (right, output) in output.chunks_mut(16).enumerate() {
                        let results = results[row / 16 * 2 + right].row(row % 16);
                        output.iter_mut().zip(results).for_each(|(o, x)| *o = x * inverse);
                    }
                }
            }
        }
    }
}

versions! {
    /// Turns products of 32 queries from `first` on with keys from `from` on into exponentials, those dropped being 0; writes the logarithms of their sums
    /// and returns what the exponentials are to be multiplied by.
    fn softmax<FMA>(
        attention: &Attention,
        task: &Task,
        scores: &Scores,
        first: usize,
        from: usize,
        products: &mut [[Tile<f32>; 4]],
        sums: &mut [f32],
    ) -> [f32; SIDE] {
        let mut inverse = [0.0; SIDE];
        for (row, inverse) in inverse.iter_mut().enumerate() {
            let half = row / 16 * 2;
            let lines = |tiles: &mut [Tile<f32>; 4], right: usize| *tiles[half + right].row_mut(row % 16);
            let Some(sum) = sums.get_mut(row) else {
                for tiles in products.iter_mut() {
                    tiles[half].row_mut(row % 16).fill(0.0);
                    tiles[half + 1].row_mut(row % 16).fill(0.0);
                }
                continue;
            };
            let query = first + row;
            let mut greatest = [UNSEEN; 16];
            for (i, tiles) in products.iter_mut().enumerate() {
                for right in 0..2 {
                    let mut line = lines(tiles, right);
                    scores.apply::<FMA>(query, from + i * SIDE + right * 16, &mut line);
                    greatest.iter_mut().zip(&line).for_each(|(g, x)| *g = if *x > *g { *x } else { *g });
                    *tiles[half + right].row_mut(row % 16) = line;
                }
            }
            let greatest = greatest.into_iter().fold(UNSEEN, f32::max);
            let mut total = [0.0; 16];
            for tiles in products.iter_mut() {
                for right in 0..2 {
                    let line = tiles[half + right].row_mut(row % 16);
                    line.iter_mut().for_each(|x| *x = exp::<FMA>(*x - greatest));
                    total.iter_mut().zip(&*line).for_each(|(t, x)| *t += x);
                }
            }
            let total = total.into_iter().sum::<f32>();
            *sum = greatest + total.ln();
            *inverse = 1.0 / total;
            if let Some(dropout) = attention.dropout {
                *inverse *= dropout.factor();
                let mask_row = dropout.row(((task.start + query) * attention.heads + task.head) as u64);
                for (i, tiles) in products.iter_mut().enumerate() {
                    for right in 0..2 {
                        let mask = mask(mask_row, 1.0, from + i * SIDE + right * 16);
                        tiles[half + right].row_mut(row % 16).iter_mut().zip(mask).for_each(|(x, m)| *x *= m);
                    }
                }
            }
        }
        inverse
    }
}
