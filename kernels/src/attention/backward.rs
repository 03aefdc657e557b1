use super::{Attention, Inputs, Operand, SIDE, Scores, Task};
use crate::isa::versions;
use crate::math::exp;
use crate::matrix::{Matrix, Numbers};
use crate::micro::Multiplier;
use crate::pool::{Buffer, Parts, blocks};
use crate::simd::{Plain, Vector};
use crate::tile::{Order, Tile, repack, transpose};
use crate::{Isa, Pool};

/// Where gradients go.
pub struct Gradients<'a> {
    /// Of queries, keys and values.
    pub inputs: InputGradients<'a>,
    /// Of the bias of relative distances, of its shape; it is set, not added to.
    pub bias: Option<&'a mut [f32]>,
}

/// Gradients of queries, keys and values.
pub enum InputGradients<'a> {
    /// `[tokens, heads · width]` each.
    Apart([&'a mut [f32]; 3]),
    /// Side by side: `[tokens, 3 · heads · width]`.
    Fused(&'a mut [f32]),
}

/// From what [`forward`](super::forward) was given and wrote, and the gradient of its output, the gradients of its inputs.
///
/// # Panics
/// Shapes do not fit each other.
pub fn backward(
    pool: &dyn Pool,
    attention: &Attention,
    inputs: &Inputs,
    output: &[f32],
    logsumexp: &[f32],
    gradient: &[f32],
    gradients: Gradients,
) {
    let (tokens, width) = attention.check(inputs);
    let hidden = attention.heads * width;
    assert!(output.len() == tokens * hidden && gradient.len() == output.len(), "the output of attention and its gradient");
    assert_eq!(logsumexp.len(), attention.heads * tokens, "the logarithms of sums");
    let (stride, places, parts): (usize, [(usize, usize); 3], Vec<Parts<f32>>) = match gradients.inputs {
        InputGradients::Apart(all) => {
            assert!(all.iter().all(|g| g.len() == tokens * hidden), "the gradients of queries, keys and values");
            (hidden, [(0, 0), (1, 0), (2, 0)], all.into_iter().map(Parts::new).collect())
        }
        InputGradients::Fused(all) => {
            assert_eq!(all.len(), 3 * tokens * hidden, "the gradients of queries, keys and values");
            (3 * hidden, [(0, 0), (0, hidden), (0, 2 * hidden)], vec![Parts::new(all)])
        }
    };
    let targets = places.map(|(part, offset)| Target { parts: &parts[part], offset, stride });
    let tasks = attention.tasks();
    // Each task sums up distances of its own; they are added in the order of texts, whichever was first.
    let distances = if gradients.bias.is_some() { attention.bias.map_or(0, |b| 2 * b.span - 1) } else { 0 };
    let mut partial = vec![0.0; (attention.starts.len() - 1) * attention.heads * distances];
    let partials = Parts::new(&mut partial);
    let work = Backward {
        isa: pool.isa(),
        attention,
        inputs,
        output: Matrix::new(output, tokens, hidden),
        gradient: Matrix::new(gradient, tokens, hidden),
        logsumexp,
        tokens,
        width,
        targets,
    };
    pool.run(tasks.len(), &|i| {
        let at = (tasks[i].text * attention.heads + tasks[i].head) * distances;
        // SAFETY: tasks are of different texts or heads.
        work.text(&tasks[i], unsafe { partials.part(at..at + distances) });
    });
    if let Some(bias) = gradients.bias {
        assert_eq!(bias.len(), attention.heads * distances, "the gradient of the bias of relative distances");
        bias.fill(0.0);
        if distances > 0 {
            let per_text = attention.heads * distances;
            blocks(pool, bias, distances, |head, bias| {
                for text in partial.chunks_exact(per_text) {
                    bias.iter_mut().zip(&text[head * distances..]).for_each(|(b, x)| *b += x);
                }
            });
        }
    }
}

/// A gradient of queries, keys or values.
struct Target<'a> {
    parts: &'a Parts<'a, f32>,
    offset: usize,
    stride: usize,
}

impl Target<'_> {
    /// Writes a block's rows.
    ///
    /// # Safety
    /// No other task has this token and these columns.
    unsafe fn write(&self, token: usize, columns: std::ops::Range<usize>, tiles: &[Tile<f32>; 4], row: usize) {
        let at = token * self.stride + self.offset;
        // SAFETY: by the caller's word.
        let line = unsafe { self.parts.part(at + columns.start..at + columns.end) };
        for (right, line) in line.chunks_mut(16).enumerate() {
            Plain::load(tiles[row / 16 * 2 + right].row(row % 16)).store_some(line);
        }
    }
}

struct Backward<'a> {
    isa: Isa,
    attention: &'a Attention<'a>,
    inputs: &'a Inputs<'a>,
    output: Matrix<'a>,
    gradient: Matrix<'a>,
    logsumexp: &'a [f32],
    tokens: usize,
    width: usize,
    targets: [Target<'a>; 3],
}

/// Panels of 32 queries that go through the keys together.
const ROWS: usize = 2;

/// Operands of one task.
struct Operands {
    /// `[queries, width]`, and transposed.
    queries: Operand,
    queries_t: Operand,
    /// The gradient of the output, likewise.
    outputs: Operand,
    outputs_t: Operand,
    keys: Operand,
    keys_t: Operand,
    values_t: Operand,
}

impl Backward<'_> {
    fn operands(&self, task: &Task) -> Operands {
        let head = |matrix| self.attention.head(matrix, task, self.width);
        let (q, k, v, o) = (head(self.inputs.query), head(self.inputs.key), head(self.inputs.value), head(self.gradient));
        let pack = |order, matrix| Operand::new(self.isa, self.attention.precision, order, matrix);
        Operands {
            queries: pack(Order::Left, q),
            queries_t: pack(Order::Left, q.t()),
            outputs: pack(Order::Left, o),
            outputs_t: pack(Order::Left, o.t()),
            keys: pack(Order::Right, k),
            keys_t: pack(Order::Right, k.t()),
            values_t: pack(Order::Right, v.t()),
        }
    }

    fn text(&self, task: &Task, bias: &mut [f32]) {
        let (isa, precision, width) = (self.isa, self.attention.precision, self.width);
        let multiplier = Multiplier::new(isa, precision);
        let operands = self.operands(task);
        let distances = self.attention.distances(task);
        let scores = Scores::new(self.attention, task, distances.as_deref());
        let mut bias_sums = vec![0.0; if bias.is_empty() { 0 } else { 2 * task.len.next_multiple_of(SIDE) }];
        let panels = task.len.div_ceil(SIDE);
        // Blocks of the width of a head.
        let wide = width.div_ceil(SIDE);
        // Tiles of a block of 32 × 32 as an operand.
        let size = SIDE / precision.step() * 2;
        // Gradients of keys and values, transposed: a block for each 32 columns of the head and 32 tokens.
        let mut sums = [Buffer::<f32>::new(wide * panels * 4), Buffer::<f32>::new(wide * panels * 4)];
        sums.iter_mut().for_each(|sums| sums.iter_mut().for_each(|tile| tile.0.fill(0.0)));
        // Gradients of scores: `[queries, keys]` for those of queries.
        let mut left = Buffer::<u32>::new(ROWS * panels * size);
        // Gradients of scores and probabilities: `[queries, keys]`, summed along the queries.
        let mut right = [[Tile([0; 256]); ROWS * 4]; 2];
        let (mut p, mut ds) = ([Tile([0.0; 256]); 4], [Tile([0.0; 256]); 4]);
        let statistics = self.statistics(task);
        for group in (0..panels).step_by(ROWS) {
            let rows = group..panels.min(group + ROWS);
            let seen =
                self.attention.seen(group * SIDE, task.len).start..self.attention.seen((rows.end - 1) * SIDE, task.len).end;
            for key in seen.clone() {
                for (i, row) in rows.clone().enumerate() {
                    multiplier.multiply(operands.queries.panel(row), operands.keys_t.panel(key), &mut p, false);
                    multiplier.multiply(operands.outputs.panel(row), operands.values_t.panel(key), &mut ds, false);
                    let place = (row * SIDE, key * SIDE);
                    gradients(isa, self.attention, task, &scores, place, &statistics[row], &mut p, &mut ds, &mut bias_sums);
                    repack(isa, precision, Order::Right, &ds, &mut right[0][i * size..][..size]);
                    repack(isa, precision, Order::Right, &p, &mut right[1][i * size..][..size]);
                    repack(isa, precision, Order::Left, &ds, &mut left[(i * panels + key) * size..][..size]);
                }
                let along = group * size..rows.end * size;
                for column in 0..wide {
                    let operands = [&operands.queries_t, &operands.outputs_t];
                    for ((sums, operand), right) in sums.iter_mut().zip(operands).zip(&right) {
                        let Some(sums) = sums[(column * panels + key) * 4..].first_chunk_mut() else { break };
                        let a = &operand.panel(column)[along.clone()];
                        multiplier.multiply(a, &right[..a.len()], sums, true);
                    }
                }
            }
            for (i, row) in rows.enumerate() {
                let left = &left[(i * panels + seen.start) * size..(i * panels + seen.end) * size];
                for column in 0..wide {
                    let keys = &operands.keys.panel(column)[seen.start * size..seen.end * size];
                    multiplier.multiply(left, keys, &mut p, false);
                    self.write(task, &self.targets[0], row, column, &p);
                }
            }
        }
        for (target, sums) in self.targets[1..].iter().zip(&sums) {
            for (i, tiles) in sums.as_chunks::<4>().0.iter().enumerate() {
                let [a, b, c, d] = tiles;
                let result = [transpose(isa, a), transpose(isa, c), transpose(isa, b), transpose(isa, d)];
                self.write(task, target, i % panels, i / panels, &result);
            }
        }
        if let Some(span) = self.attention.bias.map(|b| b.span).filter(|_| !bias.is_empty()) {
            let (padded, reach) = (task.len.next_multiple_of(SIDE), task.len - 1);
            bias[span - 1 - reach..span + reach].copy_from_slice(&bias_sums[padded - 1 - reach..padded + reach]);
        }
    }

    /// Writes a block of 32 tokens by 32 columns of a head.
    fn write(&self, task: &Task, target: &Target, panel: usize, column: usize, tiles: &[Tile<f32>; 4]) {
        let start = task.head * self.width;
        let columns = start + column * SIDE..start + self.width.min((column + 1) * SIDE);
        for row in 0..SIDE.min(task.len - panel * SIDE) {
            // SAFETY: tasks are of different texts or heads.
            unsafe { target.write(task.start + panel * SIDE + row, columns.clone(), tiles, row) };
        }
    }

    /// For each 32 queries.
    fn statistics(&self, task: &Task) -> Vec<Statistics> {
        let output = self.attention.head(self.output, task, self.width);
        let gradient = self.attention.head(self.gradient, task, self.width);
        let sums = &self.logsumexp[task.head * self.tokens + task.start..][..task.len];
        let of = |(panel, sums): (usize, &[f32])| {
            let mut all = Statistics { logsumexp: [-super::UNSEEN; SIDE], product: [0.0; SIDE] };
            all.logsumexp[..sums.len()].copy_from_slice(sums);
            for (row, product) in all.product.iter_mut().enumerate().take(sums.len()) {
                *product = dot(self.isa, output.line(panel * SIDE + row), gradient.line(panel * SIDE + row));
            }
            all
        };
        sums.chunks(SIDE).enumerate().map(of).collect()
    }
}

/// Of 32 queries.
struct Statistics {
    /// So great beyond the text that probabilities become 0.
    logsumexp: [f32; SIDE],
    /// The output times its gradient.
    product: [f32; SIDE],
}

versions! {
    fn dot<V>(a: Numbers, b: Numbers) -> f32 {
        let parts = (0..a.len()).step_by(16).map(|at| at..a.len().min(at + 16));
        parts.fold(V::zero(), |sum, part| a.load::<V>(part.clone()).fma(b.load(part), sum)).sum()
    }
}

versions! {
    /// Turns products of 32 queries and 32 keys into probabilities, those dropped being 0, and the gradient of probabilities into that of the products.
    fn gradients<V>(
        attention: &Attention,
        task: &Task,
        scores: &Scores,
        place: (usize, usize),
        statistics: &Statistics,
        p: &mut [Tile<f32>; 4],
        ds: &mut [Tile<f32>; 4],
        bias: &mut [f32],
    ) {
        let (first, key) = place;
        for row in 0..SIDE {
            let query = first + row;
            let (logsumexp, product) = (V::splat(statistics.logsumexp[row]), V::splat(statistics.product[row]));
            let mask = attention.dropout.map(|dropout| {
                let row = dropout.row(((task.start + query) * attention.heads + task.head) as u64);
                (row, V::splat(dropout.factor()))
            });
            for right in 0..2 {
                let key = key + right * 16;
                let (p, ds) = (p[row / 16 * 2 + right].row_mut(row % 16), ds[row / 16 * 2 + right].row_mut(row % 16));
                let probability = exp(scores.apply(query, key, V::load(p)).sub(logsumexp));
                let (mut kept, mut gradient) = (probability, V::load(ds));
                if let Some((row, factor)) = mask {
                    let mask = row.mask(key as u32, factor);
                    gradient = gradient.mul(mask);
                    kept = kept.mul(mask);
                }
                kept.store(p);
                let gradient = probability.mul(gradient.sub(product));
                if !bias.is_empty() {
                    let at = key + bias.len() / 2 - 1 - query;
                    let bias = &mut bias[at..at + 16];
                    V::load_some(bias).add(gradient).store_some(bias);
                }
                gradient.mul(V::splat(scores.scale)).store(ds);
            }
        }
    }
}
