use std::f32::consts::LN_2;

use super::{Attention, Form, Inputs, Masks, Operand, Packed, SIDE, Scores, Target, Task, UNSEEN};
use crate::isa::versions;
use crate::math::exp2;
use crate::matrix::{NumberParts, NumbersMut};
use crate::micro::Multiplier;
use crate::pool::{Buffer, Parts};
use crate::simd::Vector;
use crate::tile::{Order, Tile, store_rows, transpose_block};
use crate::{Isa, Pool, Precision};

/// Writes the output `[tokens, heads · width]` and, for the backward pass, the logarithms of the sums of exponentials of scores `[heads, tokens]`.
///
/// # Panics
/// Shapes do not fit each other.
pub fn forward<'o>(
    pool: &dyn Pool,
    attention: &Attention,
    inputs: &Inputs,
    output: impl Into<NumbersMut<'o>>,
    logsumexp: &mut [f32],
) {
    let (tokens, width) = attention.check(inputs);
    let output = output.into();
    assert_eq!(output.len(), tokens * attention.heads * width, "the output of attention");
    assert_eq!(logsumexp.len(), attention.heads * tokens, "the logarithms of sums");
    let logsumexp = Parts::new(logsumexp);
    let target = Target { parts: NumberParts::new(output), stride: attention.heads * width };
    let work = Forward { isa: pool.isa(), attention, width, target };
    attention.run(pool, |heads| {
        let packed = [inputs.query, inputs.key, inputs.value].map(|x| Packed::new(work.isa, attention, x, heads, width));
        for (i, task) in heads.iter().enumerate() {
            let sums = task.head * tokens + task.start;
            // SAFETY: tasks are of different texts or heads.
            work.head(task, packed.each_ref().map(|x| x.head(i)), unsafe { logsumexp.part(sums..sums + task.len) });
        }
    });
}

struct Forward<'a> {
    isa: Isa,
    attention: &'a Attention<'a>,
    width: usize,
    target: Target<'a>,
}

impl Forward<'_> {
    fn head(&self, task: &Task, [queries, keys, values]: [Operand<&[Tile<u32>]>; 3], sums: &mut [f32]) {
        let (isa, precision, width) = (self.isa, self.attention.precision, self.width);
        let multiplier = Multiplier::new(isa, precision);
        let (queries_t, values_t) = (queries.to(isa, precision, Form::RightT), values.to(isa, precision, Form::LeftT));
        let distances = self.attention.distances(task);
        let scores = Scores::new(self.attention, task, distances.as_deref());

        let panels = task.len.div_ceil(SIDE);
        // Tiles of a block of 32 × 32 as an operand.
        let size = SIDE / precision.step() * 2;
        let mut products = Buffer::<f32>::new(panels * 4);
        let mut probabilities = Buffer::<u32>::new(panels * size);
        let mut results = [Tile([0.0; 256]); 4];
        for (panel, sums) in sums.chunks_mut(SIDE).enumerate() {
            let first = panel * SIDE;
            let seen = self.attention.seen(first, task.len);
            let products = products[seen.start * 4..seen.end * 4].as_chunks_mut::<4>().0;
            for (key, product) in seen.clone().zip(products.iter_mut()) {
                multiplier.multiply(keys.panel(key), queries_t.panel(panel), product, false);
            }
            let steps = seen.start * size..seen.end * size;
            let probabilities = &mut probabilities[steps.clone()];
            let masks = self.attention.masks(task, first);
            let place = (seen.start * SIDE, first);
            let expect = |step| self.target.expect(task, width, panel..panel + 1, step, seen.len());
            let factors = softmax(isa, precision, &scores, masks.as_ref(), place, products, probabilities, sums, &expect);
            for column in 0..width.div_ceil(SIDE) {
                multiplier.multiply(&values_t.panel(column)[steps.clone()], probabilities, &mut results, false);
                // SAFETY: tasks are of different texts or heads.
                unsafe { self.target.write(isa, task, width, panel, column, &transpose_block(isa, &results), &factors) };
            }
        }
    }
}

versions! {
    /// From products of keys with 32 queries, the first of which are at `place`, the exponentials of scores as a right operand, those dropped being 0; writes
    /// the logarithms of their sums and returns what the exponentials are to be multiplied by. `expect` is called before
    /// each block of exponentials.
    fn softmax<V>(
        precision: Precision,
        scores: &Scores,
        masks: Option<&Masks>,
        place: (usize, usize),
        products: &[[Tile<f32>; 4]],
        probabilities: &mut [Tile<u32>],
        sums: &mut [f32],
        expect: &dyn Fn(usize),
    ) -> [f32; SIDE] {
        let greatest = greatest::<V>(scores, place, products);
        let totals = match precision {
            Precision::Fp32 => exponentials(Precision::Fp32, scores, masks, place, products, greatest, probabilities, expect),
            Precision::Bf16 => exponentials(Precision::Bf16, scores, masks, place, products, greatest, probabilities, expect),
        };
        let mut factors = [0.0; SIDE];
        for half in 0..2 {
            let (greatest, total) = (greatest[half].mul(V::splat(LN_2)).array(), totals[half].array());
            for (i, sum) in sums.iter_mut().skip(half * 16).take(16).enumerate() {
                *sum = greatest[i] + total[i].ln();
            }
            V::splat(1.0).div(totals[half]).store_some(&mut factors[half * 16..][..16]);
        }
        factors
    }
}

/// The greatest score of each query.
#[inline(always)]
fn greatest<V: Vector>(scores: &Scores, (first, query): (usize, usize), products: &[[Tile<f32>; 4]]) -> [V; 2] {
    let mut greatest = [V::splat(UNSEEN); 2];
    for (i, tiles) in products.iter().enumerate() {
        let key = first + i * SIDE;
        let plain = scores.plain(key, query);
        for (half, greatest) in greatest.iter_mut().enumerate() {
            if plain {
                let row = |row: usize| V::load(tiles[row / 16 * 2 + half].row(row % 16));
                let mut of_block = row(0);
                for i in (0..SIDE).step_by(4) {
                    of_block = of_block.max(row(i).max(row(i + 1)).max(row(i + 2).max(row(i + 3))));
                }
                *greatest = greatest.max(of_block.mul(V::splat(scores.scale)));
            } else {
                for row in 0..SIDE {
                    let product = V::load(tiles[row / 16 * 2 + half].row(row % 16));
                    *greatest = greatest.max(scores.apply(key + row, query + half * 16, product));
                }
            }
        }
    }
    greatest
}

/// Writes the exponentials of scores less the greatest, those dropped being 0, and returns the sums of all for each query. `expect` is called before each
/// block.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn exponentials<V: Vector>(
    precision: Precision,
    scores: &Scores,
    masks: Option<&Masks>,
    (first, query): (usize, usize),
    products: &[[Tile<f32>; 4]],
    greatest: [V; 2],
    probabilities: &mut [Tile<u32>],
    expect: &dyn Fn(usize),
) -> [V; 2] {
    let mut totals = [V::zero(); 2];
    let less = greatest.map(
        #[inline(always)]
        |g| V::zero().sub(g),
    );
    let size = SIDE / precision.step() * 2;
    for (i, (tiles, out)) in products.iter().zip(probabilities.chunks_exact_mut(size)).enumerate() {
        expect(i);
        let key = first + i * SIDE;
        let plain = scores.plain(key, query);
        for row in (0..SIDE).step_by(2) {
            let mut pair = [[V::zero(); 2]; 2];
            for half in 0..2 {
                for (below, x) in pair.iter_mut().enumerate() {
                    let product = V::load(tiles[row / 16 * 2 + half].row(row % 16 + below));
                    x[half] = exp2(if plain {
                        product.fma(V::splat(scores.scale), less[half])
                    } else {
                        scores.apply(key + row + below, query + half * 16, product).add(less[half])
                    });
                }
                totals[half] = totals[half].add(pair[0][half].add(pair[1][half]));
                if let Some(masks) = masks {
                    for (below, x) in pair.iter_mut().enumerate() {
                        x[half] = x[half].mul(masks.get(half, key + row + below));
                    }
                }
            }
            store_rows(precision, Order::Right, row, pair, out);
        }
    }
    totals
}
