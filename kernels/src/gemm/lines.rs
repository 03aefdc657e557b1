//! What becomes of products whose whole rows are there: layer normalisation and its gradient, before the rows leave the caches.

use std::ops::Range;

use super::epilogue::Epilogue;
use super::{PackedB, SIDE, compute};
use crate::dropout::Row;
use crate::isa::versions;
use crate::matrix::{Matrix, row};
use crate::norm::{self, Gradients, Inputs, LayerNorm, Outputs, add_up, backward_rows, forward_rows};
use crate::pool::Parts;
use crate::tile::Tile;
use crate::{Dropout, Isa, Pool};

/// What a product P `[m, n]` goes through before it is normalised: dropout(P + bias) + residual.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// `[n]`
    pub bias: Option<&'a [f32]>,
    /// Row r of P is row r of the mask.
    pub dropout: Option<Dropout>,
    /// `[m, n]`
    pub residual: Option<&'a [f32]>,
}

/// Layer normalisation of the sum of the products of `a` with what `b` was packed from.
///
/// # Panics
/// The shapes do not fit each other.
pub fn normalize(pool: &dyn Pool, a: &[Matrix], b: &PackedB, before: Before, norm: &LayerNorm, outputs: Outputs) {
    let (m, n) = (a[0].rows(), b.columns());
    let Outputs { y, low, sum, mean, inverse } = outputs;
    assert!(norm.weight.len() == n && norm.bias.is_none_or(|bias| bias.len() == n), "a scale and a bias of {n}");
    assert!(mean.len() == m && inverse.len() == m, "the statistics of {m} rows");
    assert!(low.as_ref().is_none_or(|low| low.len() == m * n), "y in bf16 has {m} rows of {n}");
    assert!(sum.as_ref().is_none_or(|sum| sum.len() == m * n), "the sum has {m} rows of {n}");
    let after = After::Normalize {
        norm: *norm,
        low: low.map(Parts::new),
        sum: sum.map(Parts::new),
        mean: Parts::new(mean),
        inverse: Parts::new(inverse),
    };
    compute(pool, a, b, Epilogue::lines(Lines::new(before, after, m, n)), None, y.into());
}

/// The gradient of layer normalisation, its output's gradient being the sum of the products of `a` with what `b` was packed from, and of
/// `residual` `[m, n]`. That in bf16 goes through `dropout` besides: what was normalised may be a sum of which one part went through it.
///
/// # Panics
/// The shapes do not fit each other.
pub fn normalize_gradient(
    pool: &dyn Pool,
    a: &[Matrix],
    b: &PackedB,
    residual: Option<&[f32]>,
    inputs: Inputs,
    dropout: Option<Dropout>,
    gradients: Gradients,
) {
    let (m, n) = (a[0].rows(), b.columns());
    let Gradients { x: dx, low, weight, bias } = gradients;
    assert!(inputs.x.len() == m * n && inputs.weight.len() == n && weight.len() == n, "{m} rows of {n}");
    assert!(inputs.mean.len() == m && inputs.inverse.len() == m, "the statistics of {m} rows");
    assert!(low.as_ref().is_none_or(|low| low.len() == m * n), "the gradient in bf16 has {m} rows of {n}");
    assert!(bias.as_ref().is_none_or(|bias| bias.len() == n), "the bias of {n}");
    let mut partial = vec![0.0; m.div_ceil(SIDE) * 2 * n];
    let before = Before { bias: None, dropout: None, residual };
    let after = After::Differentiate { inputs, dropout, low: low.map(Parts::new), partial: Parts::new(&mut partial) };
    compute(pool, a, b, Epilogue::lines(Lines::new(before, after, m, n)), None, dx.into());
    add_up(pool.isa(), &partial, weight, bias);
}

/// What whole rows go through.
pub(super) struct Lines<'a> {
    before: Before<'a>,
    after: After<'a>,
}

enum After<'a> {
    Normalize {
        norm: LayerNorm<'a>,
        low: Option<Parts<'a, u16>>,
        sum: Option<Parts<'a, f32>>,
        mean: Parts<'a, f32>,
        inverse: Parts<'a, f32>,
    },
    Differentiate {
        inputs: norm::Inputs<'a>,
        dropout: Option<Dropout>,
        low: Option<Parts<'a, u16>>,
        /// The gradients of scale and bias that each 32 rows contribute.
        partial: Parts<'a, f32>,
    },
}

impl<'a> Lines<'a> {
    fn new(before: Before<'a>, after: After<'a>, m: usize, n: usize) -> Self {
        assert!(before.bias.is_none_or(|bias| bias.len() == n), "the bias");
        assert!(before.residual.is_none_or(|residual| residual.len() == m * n), "the size of what is added");
        Lines { before, after }
    }

    /// What is read of the size of the product.
    pub fn reads(&self) -> [Option<&'a [f32]>; 2] {
        let x = if let After::Differentiate { inputs, .. } = &self.after { Some(inputs.x) } else { None };
        [self.before.residual, x]
    }

    /// Writes at most 32 rows, which are the caller's alone, from their products.
    pub fn finish(&self, isa: Isa, c: &Parts<f32>, n: usize, rows: Range<usize>, sums: &[Tile<f32>]) {
        let mut line = vec![0.0; n];
        for (i, r) in rows.enumerate() {
            let all = r * n..(r + 1) * n;
            let mask = self.before.dropout.map(|dropout| (dropout.row(r as u64), dropout.factor()));
            gather(isa, sums, i, self.before.bias, mask, self.before.residual.map(|residual| &residual[all.clone()]), &mut line);
            // SAFETY: tasks have rows of their own, and whole blocks of 32 of them.
            unsafe {
                let c = c.part(all.clone());
                match &self.after {
                    After::Normalize { norm, low, sum, mean, inverse } => {
                        let low = low.as_ref().map(|low| low.part(all.clone()));
                        let sum = sum.as_ref().map(|sum| sum.part(all));
                        forward_rows(isa, norm, &line, None, c, low, sum, mean.part(r..r + 1), inverse.part(r..r + 1));
                    }
                    After::Differentiate { inputs, dropout, low, partial } => {
                        let inputs = Inputs {
                            x: &inputs.x[all.clone()],
                            mean: &inputs.mean[r..r + 1],
                            inverse: &inputs.inverse[r..r + 1],
                            weight: inputs.weight,
                        };
                        let low = low.as_ref().map(|low| low.part(all));
                        let block = r / SIDE;
                        let partial = partial.part(block * 2 * n..(block + 1) * 2 * n);
                        match (dropout, low) {
                            (Some(dropout), Some(low)) => {
                                backward_rows(isa, &inputs, &line, c, None, partial);
                                drop_line(isa, c, dropout.row(r as u64), dropout.factor(), low);
                            }
                            (_, low) => backward_rows(isa, &inputs, &line, c, low, partial),
                        }
                    }
                }
            }
        }
    }
}

versions! {
    /// Row `i` of a product with what comes before it is normalised.
    fn gather<V>(
        sums: &[Tile<f32>],
        i: usize,
        bias: Option<&[f32]>,
        mask: Option<(Row, f32)>,
        residual: Option<&[f32]>,
        line: &mut [f32],
    ) {
        for (block, out) in line.chunks_mut(16).enumerate() {
            let at = block * 16..block * 16 + out.len();
            let mut x = V::load(row(sums, i, at.start));
            if let Some(bias) = bias {
                x = x.add(V::load_some(&bias[at.clone()]));
            }
            if let Some((mask, factor)) = mask {
                x = x.mul(mask.mask(at.start as u32, V::splat(factor)));
            }
            if let Some(residual) = residual {
                x = x.add(V::load_some(&residual[at]));
            }
            x.store_some(out);
        }
    }
}

versions! {
    fn drop_line<V>(x: &[f32], mask: Row, factor: f32, low: &mut [u16]) {
        for (i, (x, low)) in x.chunks(16).zip(low.chunks_mut(16)).enumerate() {
            V::load_some(x).mul(mask.mask(i as u32 * 16, V::splat(factor))).store_some_bf16(low);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{Then, multiply};
    use crate::testing::{Random, all_isas};
    use crate::{Precision, Serial, Threads, dropout};

    const DROPOUT: Dropout = Dropout { seed: 3, site: 5, probability: 0.2 };

    /// A product and what is normalised with it.
    struct Case {
        shape: [usize; 3],
        a: Vec<f32>,
        b: PackedB,
        bias: Vec<f32>,
        residual: Vec<f32>,
        weight: Vec<f32>,
    }

    fn cases() -> Vec<Case> {
        let mut random = Random(9);
        let case = |shape @ [m, k, n]: [usize; 3]| {
            let b = PackedB::pack(&Serial, Precision::Bf16, Matrix::new(&random.normals(k * n), k, n));
            let [a, bias, residual, weight] = [m * k, n, m * n, n].map(|count| random.normals(count));
            Case { shape, a, b, bias, residual, weight }
        };
        [[70, 100, 50], [33, 600, 384], [1, 7, 1], [5, 0, 16], [0, 3, 8]].map(case).into()
    }

    impl Case {
        fn product(&self, pool: &dyn Pool, then: Then) -> Vec<f32> {
            let [m, k, n] = self.shape;
            let mut c = vec![0.0; m * n];
            multiply(pool, &[Matrix::new(&self.a, m, k)], &self.b, then, None, &mut c);
            c
        }

        fn norm(&self) -> LayerNorm<'_> {
            LayerNorm { weight: &self.weight, bias: Some(&self.bias), epsilon: 1e-3 }
        }

        /// y, the same in bf16, the sum and its statistics: fused, or one after the other.
        fn normalized(&self, pool: &dyn Pool, how: Option<Dropout>, fused: bool) -> (Vec<f32>, Vec<u16>, [Vec<f32>; 3]) {
            let [m, k, n] = self.shape;
            let (mut y, mut low, mut sum) = (vec![0.0; m * n], vec![0; m * n], vec![0.0; m * n]);
            let (mut mean, mut inverse) = (vec![0.0; m], vec![0.0; m]);
            let outputs = Outputs { y: &mut y, low: Some(&mut low), sum: Some(&mut sum), mean: &mut mean, inverse: &mut inverse };
            if fused {
                let before = Before { bias: Some(&self.bias), dropout: how, residual: Some(&self.residual) };
                normalize(pool, &[Matrix::new(&self.a, m, k)], &self.b, before, &self.norm(), outputs);
            } else {
                let mut x = self.product(pool, Then::Bias(&self.bias));
                if let Some(how) = how {
                    dropout(pool, how, n, &x.clone(), &mut x);
                }
                norm::forward(pool, &self.norm(), &x, Some(&self.residual), outputs);
            }
            (y, low, [sum, mean, inverse])
        }

        /// The gradients of what was normalised, of scale and bias, and the first in bf16.
        fn differentiated(&self, pool: &dyn Pool, how: Option<Dropout>, fused: bool) -> ([Vec<f32>; 3], Vec<u16>) {
            let [m, k, n] = self.shape;
            let (_, _, [x, mean, inverse]) = self.normalized(pool, None, false);
            let inputs = Inputs { x: &x, mean: &mean, inverse: &inverse, weight: &self.weight };
            let (mut dx, mut low, mut weight, mut bias) = (vec![0.0; m * n], vec![0; m * n], vec![0.0; n], vec![0.0; n]);
            let gradients = Gradients { x: &mut dx, low: Some(&mut low), weight: &mut weight, bias: Some(&mut bias) };
            if fused {
                let a = [Matrix::new(&self.a, m, k)];
                normalize_gradient(pool, &a, &self.b, Some(&self.residual), inputs, how, gradients);
            } else {
                let dy = self.product(pool, Then::Add(&self.residual));
                norm::backward(pool, &inputs, &dy, gradients);
                if let Some(how) = how {
                    let mut dropped = vec![0.0; m * n];
                    dropout(pool, how, n, &dx, &mut dropped);
                    low = dropped.into_iter().map(crate::math::bf16).collect();
                }
            }
            ([dx, weight, bias], low)
        }
    }

    fn close(found: &[f32], expected: &[f32], what: &str) {
        let expected: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
        let greatest = expected.iter().fold(1.0, |greatest: f64, x| greatest.max(x.abs()));
        crate::testing::assert_close(found, &expected, 1e-5 * greatest, what);
    }

    fn wide(low: &[u16]) -> Vec<f32> {
        low.iter().map(|&x| f32::from_bits(u32::from(x) << 16)).collect()
    }

    #[test]
    fn as_one_after_the_other() {
        for case in cases() {
            for (isa, how) in all_isas().into_iter().flat_map(|isa| [(isa, None), (isa, Some(DROPOUT))]) {
                let pool = Threads { threads: 2, isa };
                let what = format!("{:?} {isa} {how:?}", case.shape);
                let (fused, apart) = (case.normalized(&pool, how, true), case.normalized(&pool, how, false));
                close(&fused.0, &apart.0, &format!("y {what}"));
                fused.2.iter().zip(&apart.2).for_each(|(fused, apart)| close(fused, apart, &format!("statistics {what}")));
                assert!(fused.1 == fused.0.iter().map(|&y| crate::math::bf16(y)).collect::<Vec<_>>(), "{what}");
                let (fused, apart) = (case.differentiated(&pool, how, true), case.differentiated(&pool, how, false));
                fused.0.iter().zip(&apart.0).for_each(|(fused, apart)| close(fused, apart, &format!("gradients {what}")));
                for (fused, apart) in wide(&fused.1).into_iter().zip(wide(&apart.1)) {
                    assert!((fused - apart).abs() <= 1e-2 * apart.abs() + 1e-4, "{fused} instead of {apart} {what}");
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        for case in cases() {
            for isa in all_isas() {
                let [one, three] = [1, 3].map(|threads| {
                    let pool = Threads { threads, isa };
                    (case.normalized(&pool, Some(DROPOUT), true), case.differentiated(&pool, Some(DROPOUT), true))
                });
                assert!(one == three, "{:?} {isa}", case.shape);
            }
        }
    }
}
