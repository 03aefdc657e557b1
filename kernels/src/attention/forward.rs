use super::{Attention, Inputs, Operand, SIDE, Scores, Task, UNSEEN};
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
    fn softmax<V>(
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
            let (half, line) = (row / 16 * 2, row % 16);
            let Some(sum) = sums.get_mut(row) else {
                for tiles in products.iter_mut() {
                    tiles[half].row_mut(line).fill(0.0);
                    tiles[half + 1].row_mut(line).fill(0.0);
                }
                continue;
            };
            let query = first + row;
            let mut greatest = V::splat(UNSEEN);
            for (i, tiles) in products.iter_mut().enumerate() {
                for right in 0..2 {
                    let place = tiles[half + right].row_mut(line);
                    let x = scores.apply(query, from + i * SIDE + right * 16, V::load(place));
                    greatest = greatest.max(x);
                    x.store(place);
                }
            }
            let greatest = greatest.greatest();
            let mut total = V::zero();
            for tiles in products.iter_mut() {
                for right in 0..2 {
                    let place = tiles[half + right].row_mut(line);
                    let x = exp(V::load(place).sub(V::splat(greatest)));
                    total = total.add(x);
                    x.store(place);
                }
            }
            let total = total.sum();
            *sum = greatest + total.ln();
            *inverse = 1.0 / total;
            if let Some(dropout) = attention.dropout {
                *inverse *= dropout.factor();
                let mask = dropout.row(((task.start + query) * attention.heads + task.head) as u64);
                for (i, tiles) in products.iter_mut().enumerate() {
                    for right in 0..2 {
                        let place = tiles[half + right].row_mut(line);
                        let mask = mask.mask((from + i * SIDE + right * 16) as u32, V::splat(1.0));
                        V::load(place).mul(mask).store(place);
                    }
                }
            }
        }
        inverse
    }
}
