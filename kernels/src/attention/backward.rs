use std::f32::consts::LOG2_E;

use super::{Attention, Form, Inputs, Masks, Operand, Packed, SIDE, Scores, Target, Task};
use crate::isa::versions;
use crate::math::exp2;
use crate::matrix::{Matrix, NumberParts, Numbers, NumbersMut};
use crate::micro::Multiplier;
use crate::pool::{Buffer, Parts, blocks};
use crate::simd::Vector;
use crate::tile::{Order, Tile, store_rows, transpose_block};
use crate::{Isa, Pool, Precision};

/// Where gradients go.
pub struct Gradients<'a> {
    /// Of queries, keys and values, `[tokens, heads · width]` each.
    pub inputs: [NumbersMut<'a>; 3],
    /// Of the bias of relative distances, of its shape; it is set, not added to.
    pub bias: Option<&'a mut [f32]>,
}

/// From what [`forward`](super::forward) was given and wrote, and the gradient of its output, the gradients of its inputs.
///
/// # Panics
/// Shapes do not fit each other.
pub fn backward(
    pool: &dyn Pool,
    attention: &Attention,
    inputs: &Inputs,
    output: Numbers,
    logsumexp: &[f32],
    gradient: Numbers,
    gradients: Gradients,
) {
    let (tokens, width) = attention.check(inputs);
    let hidden = attention.heads * width;
    assert!(output.len() == tokens * hidden && gradient.len() == output.len(), "the output of attention and its gradient");
    assert_eq!(logsumexp.len(), attention.heads * tokens, "the logarithms of sums");
    let fit = gradients.inputs.iter().all(|gradient| gradient.len() == tokens * hidden);
    assert!(fit, "the gradients of queries, keys and values");
    let targets = gradients.inputs.map(|numbers| Target { parts: NumberParts::new(numbers), stride: hidden });
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
    attention.run(pool, |heads| {
        let read = work.read(heads);
        for (i, task) in heads.iter().enumerate() {
            let at = (task.text * attention.heads + task.head) * distances;
            // SAFETY: tasks are of different texts or heads.
            work.head(task, read.packed.each_ref().map(|x| x.head(i)), &read.statistics[i], unsafe {
                partials.part(at..at + distances)
            });
        }
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

/// Panels of 32 keys that go through the queries together.
const KEYS: usize = 2;
/// Panels of 32 queries whose probabilities are kept until gradients of keys and values are summed up over them.
const QUERIES: usize = 16;

/// What is read for some heads.
struct Read {
    /// Queries, keys, values, the gradient of the output.
    packed: [Packed; 4],
    /// Of each head.
    statistics: Vec<Vec<Statistics>>,
}

impl Backward<'_> {
    fn read(&self, heads: &[Task]) -> Read {
        let matrices = [self.inputs.query, self.inputs.key, self.inputs.value, self.gradient];
        let packed = matrices.map(|matrix| Packed::new(self.isa, self.attention, matrix, heads, self.width));
        let mut statistics: Vec<Vec<_>> = heads.iter().map(|_| Vec::new()).collect();
        for panel in 0..heads[0].len.div_ceil(SIDE) {
            heads.iter().zip(&mut statistics).for_each(|(task, all)| all.push(self.statistics(task, panel)));
        }
        Read { packed, statistics }
    }

    fn head(&self, task: &Task, packed: [Operand<&[Tile<u32>]>; 4], statistics: &[Statistics], bias: &mut [f32]) {
        let (isa, precision, width) = (self.isa, self.attention.precision, self.width);
        let multiplier = Multiplier::new(isa, precision);
        let [queries, keys, values, outputs] = packed;
        let keys_t = keys.to(isa, precision, Form::LeftT);
        let [queries_t, outputs_t] = [&queries, &outputs].map(|x| x.to(isa, precision, Form::RightT));
        let of_queries = [&queries, &outputs].map(|x| x.to(isa, precision, Form::Right));
        let distances = self.attention.distances(task);
        let scores = Scores::new(self.attention, task, distances.as_deref());
        let mut bias_sums = vec![0.0; if bias.is_empty() { 0 } else { 2 * task.len.next_multiple_of(SIDE) }];
        let scale = [self.attention.scale; SIDE];
        let panels = task.len.div_ceil(SIDE);
        // Blocks of the width of a head.
        let wide = width.div_ceil(SIDE);
        // Tiles of a block of 32 × 32 as an operand.
        let size = SIDE / precision.step() * 2;
        // Gradients of queries, transposed: a block for each 32 columns of the head and 32 tokens.
        let mut sums = Buffer::<f32>::new(wide * panels * 4);
        sums.iter_mut().for_each(|tile| tile.0.fill(0.0));
        // Gradients of keys and values: a block for each panel of keys and 32 columns.
        let mut of_keys = [Buffer::<f32>::new(KEYS * wide * 4), Buffer::<f32>::new(KEYS * wide * 4)];
        // Gradients of scores and probabilities, `[keys, queries]`, summed along the queries.
        let mut left = [Buffer::<u32>::new(KEYS * QUERIES * size), Buffer::<u32>::new(KEYS * QUERIES * size)];
        // Gradients of scores, `[keys, queries]`, summed along the keys.
        let mut right = Buffer::<u32>::new(KEYS * size);
        let (mut products, mut gradients) = ([Tile([0.0; 256]); 4], [Tile([0.0; 256]); 4]);
        for group in (0..panels).step_by(KEYS) {
            let group = group..panels.min(group + KEYS);
            let seen = self.attention.seen(group.start * SIDE, task.len).start
                ..self.attention.seen((group.end - 1) * SIDE, task.len).end;
            for chunk in seen.clone().step_by(QUERIES) {
                let chunk = chunk..seen.end.min(chunk + QUERIES);
                for query in chunk.clone() {
                    for target in &self.targets {
                        target.expect(task, width, group.clone(), query - seen.start, seen.len());
                    }
                    for (i, key) in group.clone().enumerate() {
                        multiplier.multiply(keys.panel(key), queries_t.panel(query), &mut products, false);
                        multiplier.multiply(values.panel(key), outputs_t.panel(query), &mut gradients, false);
                        let at = (i * QUERIES + query - chunk.start) * size;
                        let [of_scores, probabilities] = left.each_mut().map(|left| &mut left[at..at + size]);
                        let out = Out { probabilities, left: of_scores, right: &mut right[i * size..][..size] };
                        let place = (key * SIDE, query * SIDE);
                        differentiate(
                            isa,
                            precision,
                            &scores,
                            &statistics[query],
                            place,
                            &products,
                            &gradients,
                            out,
                            &mut bias_sums,
                        );
                    }
                    let along = group.start * size..group.end * size;
                    for column in 0..wide {
                        let Some(sums) = sums[(column * panels + query) * 4..].first_chunk_mut() else { break };
                        let a = &keys_t.panel(column)[along.clone()];
                        multiplier.multiply(a, &right[..a.len()], sums, true);
                    }
                }
                for (i, column) in (0..group.len()).flat_map(|i| (0..wide).map(move |column| (i, column))) {
                    let along = chunk.start * size..chunk.end * size;
                    let at = i * QUERIES * size;
                    for ((sums, left), operand) in of_keys.iter_mut().zip(&left).zip(&of_queries) {
                        let Some(sums) = sums[(i * wide + column) * 4..].first_chunk_mut() else { break };
                        let left = &left[at..at + along.len()];
                        multiplier.multiply(left, &operand.panel(column)[along.clone()], sums, chunk.start > seen.start);
                    }
                }
            }
            for (i, column) in (0..group.len()).flat_map(|i| (0..wide).map(move |column| (i, column))) {
                let blocks = of_keys.each_ref().map(|sums| &sums.as_chunks::<4>().0[i * wide + column]);
                for ((target, block), factors) in self.targets[1..].iter().zip(blocks).zip([&scale, &[1.0; SIDE]]) {
                    // SAFETY: tasks are of different texts or heads.
                    unsafe { target.write(isa, task, width, group.start + i, column, block, factors) };
                }
            }
        }
        for (i, block) in sums.as_chunks::<4>().0.iter().enumerate() {
            // SAFETY: as above.
            unsafe { self.targets[0].write(isa, task, width, i % panels, i / panels, &transpose_block(isa, block), &scale) };
        }
        if let Some(span) = self.attention.bias.map(|b| b.span).filter(|_| !bias.is_empty()) {
            let (padded, reach) = (task.len.next_multiple_of(SIDE), task.len - 1);
            let sums = bias_sums[padded - 1 - reach..padded + reach].iter().rev();
            bias[span - 1 - reach..span + reach].iter_mut().zip(sums).for_each(|(bias, sum)| *bias = *sum);
        }
    }

    fn statistics(&self, task: &Task, panel: usize) -> Statistics {
        let [output, gradient] = [self.output, self.gradient].map(|matrix| self.attention.head(matrix, task, self.width));
        let tokens = panel * SIDE..task.len.min((panel + 1) * SIDE);
        let sums = &self.logsumexp[task.head * self.tokens + task.start..][tokens.clone()];
        let (mut logsumexp, mut product) = ([-super::UNSEEN; SIDE], [0.0; SIDE]);
        logsumexp.iter_mut().zip(sums).for_each(|(own, sum)| *own = sum * LOG2_E);
        dots(self.isa, output, gradient, tokens.start, &mut product[..tokens.len()]);
        Statistics { logsumexp, product, masks: self.attention.masks(task, tokens.start) }
    }
}

/// Of 32 queries.
struct Statistics {
    /// In units of ln 2; so great beyond the text that probabilities become 0.
    logsumexp: [f32; SIDE],
    /// The output times its gradient.
    product: [f32; SIDE],
    masks: Option<Masks>,
}

versions! {
    /// Products of rows of two matrices, from row `first` on.
    fn dots<V>(a: Matrix, b: Matrix, first: usize, out: &mut [f32]) {
        for (i, out) in out.iter_mut().enumerate() {
            let (a, b) = (a.line(first + i), b.line(first + i));
            let mut sum = V::zero();
            for at in (0..a.len()).step_by(16) {
                let part = at..a.len().min(at + 16);
                sum = a.load::<V>(part.clone()).fma(b.load(part), sum);
            }
            *out = sum.sum();
        }
    }
}

/// Operands that a block of 32 keys and 32 queries becomes.
struct Out<'a> {
    /// Those dropped being 0.
    probabilities: &'a mut [Tile<u32>],
    /// Gradients of scores, as left operand and as right one.
    left: &'a mut [Tile<u32>],
    right: &'a mut [Tile<u32>],
}

versions! {
    /// From the products of 32 keys and 32 queries and the gradients of probabilities, the probabilities and the gradients of scores.
    fn differentiate<V>(
        precision: Precision,
        scores: &Scores,
        statistics: &Statistics,
        place: (usize, usize),
        products: &[Tile<f32>; 4],
        gradients: &[Tile<f32>; 4],
        out: Out,
        bias: &mut [f32],
    ) {
        let block = Block { scores, statistics, place, products, gradients };
        // Most blocks are plain, and told apart here, not for each of their numbers.
        let plain = scores.plain(place.0, place.1) && bias.is_empty();
        match (precision, plain, &statistics.masks) {
            (Precision::Fp32, true, None) => block.run::<V, true>(Precision::Fp32, None, out, bias),
            (Precision::Fp32, true, Some(masks)) => block.run::<V, true>(Precision::Fp32, Some(masks), out, bias),
            (Precision::Fp32, false, masks) => block.run::<V, false>(Precision::Fp32, masks.as_ref(), out, bias),
            (Precision::Bf16, true, None) => block.run::<V, true>(Precision::Bf16, None, out, bias),
            (Precision::Bf16, true, Some(masks)) => block.run::<V, true>(Precision::Bf16, Some(masks), out, bias),
            (Precision::Bf16, false, masks) => block.run::<V, false>(Precision::Bf16, masks.as_ref(), out, bias),
        }
    }
}

/// What a block of 32 keys and 32 queries is differentiated from.
struct Block<'a> {
    scores: &'a Scores<'a>,
    statistics: &'a Statistics,
    /// The first key and the first query.
    place: (usize, usize),
    products: &'a [Tile<f32>; 4],
    gradients: &'a [Tile<f32>; 4],
}

impl Block<'_> {
    /// `PLAIN`: scores are products times a positive number, and there is no bias.
    #[inline(always)]
    fn run<V: Vector, const PLAIN: bool>(&self, precision: Precision, masks: Option<&Masks>, out: Out, bias: &mut [f32]) {
        let halves = |all: &[f32; SIDE]| [V::load_some(&all[..16]), V::load_some(&all[16..])];
        let [first, second] = halves(&self.statistics.logsumexp);
        let less = [V::zero().sub(first), V::zero().sub(second)];
        let product = halves(&self.statistics.product);
        for row in (0..SIDE).step_by(2) {
            let a = self.cell::<V, PLAIN>(row, 0, masks, less[0], product[0], bias);
            let b = self.cell::<V, PLAIN>(row, 1, masks, less[1], product[1], bias);
            let c = self.cell::<V, PLAIN>(row + 1, 0, masks, less[0], product[0], bias);
            let d = self.cell::<V, PLAIN>(row + 1, 1, masks, less[1], product[1], bias);
            store_rows(precision, Order::Left, row, [[a.0, b.0], [c.0, d.0]], out.probabilities);
            store_rows(precision, Order::Left, row, [[a.1, b.1], [c.1, d.1]], out.left);
            store_rows(precision, Order::Right, row, [[a.1, b.1], [c.1, d.1]], out.right);
        }
    }

    /// The probabilities that are kept of a key and 16 queries, and the gradients of their scores.
    #[inline(always)]
    fn cell<V: Vector, const PLAIN: bool>(
        &self,
        row: usize,
        half: usize,
        masks: Option<&Masks>,
        less: V,
        product: V,
        bias: &mut [f32],
    ) -> (V, V) {
        let (key, query) = (self.place.0 + row, self.place.1 + half * 16);
        let tile = row / 16 * 2 + half;
        let products = V::load(self.products[tile].row(row % 16));
        let probability = exp2(if PLAIN {
            products.fma(V::splat(self.scores.scale), less)
        } else {
            self.scores.apply(key, query, products).add(less)
        });
        let (mut gradient, mut kept) = (V::load(self.gradients[tile].row(row % 16)), probability);
        if let Some(masks) = masks {
            let mask = masks.get(half, key);
            gradient = gradient.mul(mask);
            kept = kept.mul(mask);
        }
        let gradient = probability.mul(gradient.sub(product));
        if !PLAIN && !bias.is_empty() {
            let at = query + bias.len() / 2 - 1 - key;
            let bias = &mut bias[at..at + 16];
            V::load_some(bias).add(gradient).store_some(bias);
        }
        (kept, gradient)
    }
}
