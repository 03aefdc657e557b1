//! Layer normalisation over the last dimension (Ba, Kiros and Hinton, 2016), together with the sum that precedes it in an encoder.

use crate::isa::versions;
use crate::matrix::fence;
use crate::pool::Parts;
use crate::{Isa, Pool};

/// Rows that one task has. Fixed, as gradients of weights are summed up block by block.
const ROWS: usize = 64;

/// y = (x − mean) / √(variance + ε) · weight + bias.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// `[width]`
    pub weight: &'a [f32],
    /// `[width]`
    pub bias: Option<&'a [f32]>,
    pub epsilon: f32,
}

/// What the forward pass writes.
pub struct Outputs<'a> {
    /// `[rows, width]`
    pub y: &'a mut [f32],
    /// y in bf16, if products read it.
    pub low: Option<&'a mut [u16]>,
    /// What was normalised, `[rows, width]`, if the gradient will need it and it is not an input as it stands.
    pub sum: Option<&'a mut [f32]>,
    /// `[rows]`
    pub mean: &'a mut [f32],
    /// 1 / √(variance + ε), `[rows]`.
    pub inverse: &'a mut [f32],
}

/// Normalises x, or `x + residual`, `[rows, width]` each.
///
/// # Panics
/// Shapes do not fit each other.
pub fn forward(pool: &dyn Pool, norm: &LayerNorm, x: &[f32], residual: Option<&[f32]>, outputs: Outputs) {
    let (width, rows) = (norm.weight.len(), outputs.mean.len());
    assert!(x.len() == rows * width && outputs.y.len() == x.len() && outputs.inverse.len() == rows, "{rows} rows of {width}");
    assert!(residual.is_none_or(|r| r.len() == x.len()), "what is added has {rows} rows of {width}");
    assert!(outputs.sum.as_ref().is_none_or(|s| s.len() == x.len()), "the sum has {rows} rows of {width}");
    assert!(outputs.low.as_ref().is_none_or(|low| low.len() == x.len()), "y in bf16 has {rows} rows of {width}");
    assert!(norm.bias.is_none_or(|bias| bias.len() == width), "the bias of {width}");
    let (y, low, sum) = (Parts::new(outputs.y), outputs.low.map(Parts::new), outputs.sum.map(Parts::new));
    let (mean, inverse) = (Parts::new(outputs.mean), Parts::new(outputs.inverse));
    let isa = pool.isa();
    pool.run(rows.div_ceil(ROWS), &|task| {
        let rows = task * ROWS..rows.min((task + 1) * ROWS);
        let all = rows.start * width..rows.end * width;
        // SAFETY: tasks have rows of their own.
        let (y, mean, inverse) = unsafe { (y.part(all.clone()), mean.part(rows.clone()), inverse.part(rows)) };
        // SAFETY: as above.
        let sum = sum.as_ref().map(|sum| unsafe { sum.part(all.clone()) });
        // SAFETY: as above.
        let low = low.as_ref().map(|low| unsafe { low.part(all.clone()) });
        forward_rows(isa, norm, &x[all.clone()], residual.map(|r| &r[all]), y, low, sum, mean, inverse);
        fence();
    });
}

versions! {
    /// Of rows that one task has: x, what it writes, and a mean and an inverse for each. A [`fence`] must follow.
    pub(crate) fn forward_rows<V>(
        norm: &LayerNorm,
        x: &[f32],
        residual: Option<&[f32]>,
        y: &mut [f32],
        low: Option<&mut [u16]>,
        sum: Option<&mut [f32]>,
        mean: &mut [f32],
        inverse: &mut [f32],
    ) {
        let width = norm.weight.len();
        let count = width as f32;
        let (mut low, mut sum) = (low, sum);
        for (row, (mean, inverse)) in mean.iter_mut().zip(inverse).enumerate() {
            let all = row * width..(row + 1) * width;
            let y = &mut y[all.clone()];
            // y holds the sum first.
            let mut total = V::zero();
            for (i, (x, y)) in x[all.clone()].chunks(16).zip(y.chunks_mut(16)).enumerate() {
                let mut x = V::load_some(x);
                if let Some(residual) = residual {
                    x = x.add(V::load_some(&residual[all.start + i * 16..][..y.len()]));
                }
                total = total.add(x);
                x.store_some(y);
            }
            *mean = total.sum() / count;
            let center = V::splat(*mean);
            let mut squares = V::zero();
            for y in y.chunks(16) {
                let x = V::load_some(y).sub(center);
                // Beyond the row's end there is nothing to deviate.
                let x = if y.len() < 16 { x.mul(V::load_some(&[1.0; 16][..y.len()])) } else { x };
                squares = x.fma(x, squares);
            }
            *inverse = 1.0 / (squares.sum() / count + norm.epsilon).sqrt();
            if let Some(sum) = &mut sum {
                // Only the gradient reads it.
                for (sum, y) in sum[all.clone()].chunks_mut(16).zip(y.chunks(16)) {
                    match sum.first_chunk_mut() {
                        Some(sum) => V::load_some(y).stream(sum),
                        None => V::load_some(y).store_some(sum),
                    }
                }
            }
            let mut low = low.as_deref_mut().map(|low| &mut low[all]);
            let factor = V::splat(*inverse);
            for (i, y) in y.chunks_mut(16).enumerate() {
                let part = i * 16..i * 16 + y.len();
                let x = V::load_some(y).sub(center).mul(factor);
                let weight = V::load_some(&norm.weight[part.clone()]);
                let result = match norm.bias {
                    Some(bias) => x.fma(weight, V::load_some(&bias[part.clone()])),
                    None => x.mul(weight),
                };
                result.store_some(y);
                if let Some(low) = &mut low {
                    result.store_some_bf16(&mut low[part]);
                }
            }
        }
    }
}

/// What the backward pass needs of the forward one.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What was normalised, `[rows, width]`.
    pub x: &'a [f32],
    pub mean: &'a [f32],
    pub inverse: &'a [f32],
    pub weight: &'a [f32],
}

/// What the backward pass writes.
pub struct Gradients<'a> {
    /// That of x, which is that of both summands, `[rows, width]`.
    pub x: &'a mut [f32],
    /// The same in bf16, if products read it.
    pub low: Option<&'a mut [u16]>,
    /// `[width]`
    pub weight: &'a mut [f32],
    /// `[width]`
    pub bias: Option<&'a mut [f32]>,
}

/// From the gradient of y, `[rows, width]`, those of what it was computed from.
///
/// # Panics
/// Shapes do not fit each other.
pub fn backward(pool: &dyn Pool, inputs: &Inputs, dy: &[f32], gradients: Gradients) {
    let Gradients { x: dx, low, weight: dweight, bias: dbias } = gradients;
    let (width, rows) = (inputs.weight.len(), inputs.mean.len());
    assert!(low.as_ref().is_none_or(|low| low.len() == dx.len()), "the gradient in bf16 has {rows} rows of {width}");
    assert!(inputs.x.len() == rows * width && dy.len() == rows * width && dx.len() == rows * width, "{rows} rows of {width}");
    assert!(inputs.inverse.len() == rows && dweight.len() == width, "the statistics of {rows} rows, a weight of {width}");
    assert!(dbias.as_ref().is_none_or(|bias| bias.len() == width), "the bias of {width}");
    let tasks = rows.div_ceil(ROWS);
    let isa = pool.isa();
    // The gradients of weight and bias that each block of rows contributes.
    let mut partial = vec![0.0; tasks * 2 * width];
    let (dx, low, partials) = (Parts::new(dx), low.map(Parts::new), Parts::new(&mut partial));
    pool.run(tasks, &|task| {
        let rows = task * ROWS..rows.min((task + 1) * ROWS);
        let all = rows.start * width..rows.end * width;
        // SAFETY: tasks have rows of their own.
        let (dx, partial) = unsafe { (dx.part(all.clone()), partials.part(task * 2 * width..(task + 1) * 2 * width)) };
        // SAFETY: as above.
        let low = low.as_ref().map(|low| unsafe { low.part(all.clone()) });
        let inputs = Inputs {
            x: &inputs.x[all.clone()],
            mean: &inputs.mean[rows.clone()],
            inverse: &inputs.inverse[rows],
            weight: inputs.weight,
        };
        backward_rows(isa, &inputs, &dy[all], dx, low, partial);
    });
    add_up(isa, &partial, dweight, dbias);
}

/// Adds up what blocks of rows contribute to the gradients of weight and bias.
pub(crate) fn add_up(isa: Isa, partial: &[f32], dweight: &mut [f32], dbias: Option<&mut [f32]>) {
    let width = dweight.len();
    dweight.fill(0.0);
    add_partials(isa, partial, 2 * width, dweight);
    if let Some(dbias) = dbias {
        dbias.fill(0.0);
        add_partials(isa, partial.get(width..).unwrap_or_default(), 2 * width, dbias);
    }
}

versions! {
    /// Adds the beginning of each `stride` numbers to `sums`.
    fn add_partials<V>(partial: &[f32], stride: usize, sums: &mut [f32]) {
        for partial in partial.chunks(stride) {
            for (sum, x) in sums.chunks_mut(16).zip(partial.chunks(16)) {
                V::load_some(sum).add(V::load_some(x)).store_some(sum);
            }
        }
    }
}

versions! {
    /// Of rows that one task has; the gradients of weight and bias are added to `partial`, one after the other.
    pub(crate) fn backward_rows<V>(inputs: &Inputs, dy: &[f32], dx: &mut [f32], low: Option<&mut [u16]>, partial: &mut [f32]) {
        let mut low = low;
        let width = inputs.weight.len();
        let (dweight, dbias) = partial.split_at_mut(width);
        let rows = inputs.x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (row, (((x, dy), dx), (mean, inverse))) in rows.zip(inputs.mean.iter().zip(inputs.inverse)).enumerate() {
            let mut low = low.as_deref_mut().map(|low| &mut low[row * width..(row + 1) * width]);
            let (mean, inverse) = (V::splat(*mean), V::splat(*inverse));
            // With g = dy · weight and x̂ normalised: dx = (g − mean(g) − x̂ · mean(g x̂)) · inverse.
            let (mut sum, mut product) = (V::zero(), V::zero());
            let parts = x.chunks(16).zip(dy.chunks(16)).zip(inputs.weight.chunks(16));
            let sums = dweight.chunks_mut(16).zip(dbias.chunks_mut(16));
            for (((x, dy), weight), (dweight, dbias)) in parts.zip(sums) {
                let (normal, dy) = (V::load_some(x).sub(mean).mul(inverse), V::load_some(dy));
                let g = dy.mul(V::load_some(weight));
                sum = sum.add(g);
                product = g.fma(normal, product);
                dy.fma(normal, V::load_some(dweight)).store_some(dweight);
                V::load_some(dbias).add(dy).store_some(dbias);
            }
            let (sum, product) = (V::splat(sum.sum() / width as f32), V::splat(product.sum() / width as f32));
            let parts = x.chunks(16).zip(dy.chunks(16)).zip(inputs.weight.chunks(16));
            for (i, (((x, dy), weight), dx)) in parts.zip(dx.chunks_mut(16)).enumerate() {
                let normal = V::load_some(x).sub(mean).mul(inverse);
                let g = V::load_some(dy).mul(V::load_some(weight));
                let result = g.sub(sum).sub(normal.mul(product)).mul(inverse);
                result.store_some(dx);
                if let Some(low) = &mut low {
                    result.store_some_bf16(&mut low[i * 16..i * 16 + dx.len()]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;
    use crate::testing::{Random, all_isas, assert_close};

    /// y, dx, dweight, dbias by the textbook; dx by the derivative of each output, not by the formula above.
    fn naive(x: &[f32], weight: &[f32], bias: &[f32], dy: &[f32], epsilon: f64) -> [Vec<f64>; 4] {
        let width = weight.len();
        let mut out = [vec![], vec![], vec![0.0; width], vec![0.0; width]];
        for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
            let n = width as f64;
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
            let deviation = (variance + epsilon).sqrt();
            let normal: Vec<f64> = x.iter().map(|&x| (f64::from(x) - mean) / deviation).collect();
            for i in 0..width {
                out[0].push(normal[i] * f64::from(weight[i]) + f64::from(bias[i]));
                let derivative = |j: usize| (f64::from(u8::from(i == j)) - 1.0 / n - normal[i] * normal[j] / n) / deviation;
                out[1].push((0..width).map(|j| f64::from(dy[j]) * f64::from(weight[j]) * derivative(j)).sum());
                out[2][i] += f64::from(dy[i]) * normal[i];
                out[3][i] += f64::from(dy[i]);
            }
        }
        out
    }

    fn run(pool: &dyn Pool, [x, residual, weight, bias, dy]: [&[f32]; 5]) -> [Vec<f32>; 5] {
        let width = weight.len();
        let rows = x.len() / width;
        let norm = LayerNorm { weight, bias: Some(bias), epsilon: 1e-5 };
        let [mut y, mut sum, mut dx] = [(); 3].map(|()| vec![f32::NAN; x.len()]);
        let [mut mean, mut inverse] = [(); 2].map(|()| vec![f32::NAN; rows]);
        let [mut dweight, mut dbias] = [(); 2].map(|()| vec![f32::NAN; width]);
        let [mut low, mut dlow] = [(); 2].map(|()| vec![0; x.len()]);
        let outputs = Outputs { y: &mut y, low: Some(&mut low), sum: Some(&mut sum), mean: &mut mean, inverse: &mut inverse };
        forward(pool, &norm, x, Some(residual), outputs);
        let inputs = Inputs { x: &sum, mean: &mean, inverse: &inverse, weight };
        let gradients = Gradients { x: &mut dx, low: Some(&mut dlow), weight: &mut dweight, bias: Some(&mut dbias) };
        backward(pool, &inputs, dy, gradients);
        let rounded = |x: &[f32]| x.iter().map(|&x| crate::math::bf16(x)).collect::<Vec<_>>();
        assert!(low == rounded(&y) && dlow == rounded(&dx), "the same in bf16");
        [y, dx, dweight, dbias, sum]
    }

    #[test]
    fn follows_the_textbook() {
        let mut random = Random(1);
        for (rows, width) in [(0, 16), (1, 1), (3, 5), (65, 384), (130, 100)] {
            let [x, residual, dy] = [(); 3].map(|()| random.normals(rows * width));
            let [weight, bias] = [(); 2].map(|()| random.normals(width));
            let sum: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
            let expected = naive(&sum, &weight, &bias, &dy, 1e-5);
            for isa in all_isas() {
                let results = run(&Threads { threads: 2, isa }, [&x, &residual, &weight, &bias, &dy]);
                for ((result, expected), name) in results.iter().zip(&expected).zip(["y", "dx", "dweight", "dbias"]) {
                    // A row of one element is all epsilon: its gradient is the difference of great numbers.
                    let tolerance = if width == 1 { 1e-3 } else { 4e-5 };
                    assert_close(result, expected, tolerance, &format!("{name} of {rows} × {width}, {isa}"));
                }
                assert_eq!(results[4], sum);
            }
        }
    }

    #[test]
    fn without_residual_and_bias() {
        let (x, weight) = (Random(2).normals(7 * 20), Random(3).normals(20));
        let norm = LayerNorm { weight: &weight, bias: None, epsilon: 1e-5 };
        let (mut y, mut mean, mut inverse) = (vec![0.0; x.len()], vec![0.0; 7], vec![0.0; 7]);
        let pool = Threads { threads: 1, isa: Isa::best() };
        forward(&pool, &norm, &x, None, Outputs { y: &mut y, low: None, sum: None, mean: &mut mean, inverse: &mut inverse });
        assert_close(&y, &naive(&x, &weight, &[0.0; 20], &x, 1e-5)[0], 1e-5, "y");
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let mut random = Random(4);
        let (rows, width) = (1_000, 48);
        let [x, residual, dy] = [(); 3].map(|()| random.normals(rows * width));
        let [weight, bias] = [(); 2].map(|()| random.normals(width));
        for isa in all_isas() {
            let run = |threads| run(&Threads { threads, isa }, [&x, &residual, &weight, &bias, &dy]);
            assert!(run(1) == run(2) && run(1) == run(3));
        }
    }
}
