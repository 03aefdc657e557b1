//! AdamW (Loshchilov and Hutter, 2019), in the order of operations of `torch.optim.AdamW`, and gradient clipping.

use std::collections::BTreeMap;

use rayon::prelude::*;

/// Settings of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// Whether weight decay applies to the parameter: not to biases and layer normalization.
pub fn decays(name: &str) -> bool {
    !(name.ends_with("bias") || name.contains("LayerNorm"))
}

/// The gradient of one weight.
pub enum Gradient<'a> {
    Dense(&'a [f32]),
    /// Of a table: only the entries that the batch used, each once.
    Rows(Rows),
}

/// Rows of a table's gradient, each entry once.
pub struct Rows {
    width: usize,
    /// Entry → its place in `data`, in rows.
    index: BTreeMap<usize, usize>,
    data: Vec<f32>,
}

impl Rows {
    pub fn new(width: usize) -> Self {
        Rows { width, index: BTreeMap::new(), data: Vec::new() }
    }

    /// Adds `rows` (`[ids, width]`) to the entries `ids`.
    pub fn add(&mut self, ids: &[i64], rows: &[f32]) {
        for (&id, row) in ids.iter().zip(rows.chunks_exact(self.width)) {
            let next = self.index.len();
            let at = *self.index.entry(id.max(0) as usize).or_insert(next);
            if at == next {
                self.data.extend_from_slice(row);
            } else {
                let sum = &mut self.data[at * self.width..(at + 1) * self.width];
                sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
            }
        }
    }

    fn row(&self, entry: usize) -> Option<&[f32]> {
        self.index.get(&entry).map(|at| &self.data[at * self.width..(at + 1) * self.width])
    }
}

impl Gradient<'_> {
    /// The sum of squares of all elements.
    fn squares(&self) -> f64 {
        let data = match self {
            Gradient::Dense(data) => data,
            Gradient::Rows(rows) => rows.data.as_slice(),
        };
        // In fixed blocks, so that the sum does not depend on the number of threads.
        let blocks: Vec<f64> =
            data.par_chunks(1 << 14).map(|c| c.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()).collect();
        blocks.iter().sum()
    }

    /// Its Euclidean norm.
    pub fn norm(&self) -> f64 {
        self.squares().sqrt()
    }
}

/// The Euclidean norm of all gradients together.
pub fn norm(gradients: &[Gradient]) -> f64 {
    gradients.iter().map(Gradient::squares).sum::<f64>().sqrt()
}

/// What gradients are multiplied by so that their norm is at most `max_norm` (`torch.nn.utils.clip_grad_norm_`); 1 when
/// `max_norm` is 0, which switches clipping off.
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 }
}

/// The moments of one weight.
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
    width: usize,
    decay: f64,
}

/// AdamW with its state.
pub struct Optimizer {
    settings: AdamW,
    moments: Vec<Moments>,
    steps: i32,
}

/// The factors of one step, the same for every element.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    clip: f32,
    beta2: f32,
    /// 1 − beta, subtracted in double precision: in single precision 1 − 0.999 is off by 1e-5.
    rest1: f32,
    rest2: f32,
    /// lr / (1 − beta1^t)
    rate: f32,
    /// 1 / √(1 − beta2^t)
    scale: f32,
    epsilon: f32,
}

impl Optimizer {
    /// For weights of the given names and shapes.
    pub fn new<'w>(settings: AdamW, weights: impl Iterator<Item = (&'w str, &'w [usize])>) -> Self {
        let moments = weights
            .map(|(name, shape)| {
                let size = shape.iter().product();
                Moments {
                    first: vec![0.0; size],
                    second: vec![0.0; size],
                    width: shape.last().copied().unwrap_or(1).max(1),
                    decay: if decays(name) { settings.weight_decay } else { 0.0 },
                }
            })
            .collect();
        Optimizer { settings, moments, steps: 0 }
    }

    /// One step: every weight is moved against its gradient times `clip`. Weights and gradients are in the order given to [`Optimizer::new`].
    pub fn step(&mut self, lr: f64, clip: f32, weights: Vec<&mut [f32]>, gradients: &[Gradient]) {
        self.steps += 1;
        let AdamW { beta1, beta2, epsilon, .. } = self.settings;
        for ((weight, gradient), moments) in weights.into_iter().zip(gradients).zip(&mut self.moments) {
            let factors = Factors {
                keep: (1.0 - lr * moments.decay) as f32,
                clip,
                beta2: beta2 as f32,
                rest1: (1.0 - beta1) as f32,
                rest2: (1.0 - beta2) as f32,
                rate: (lr / (1.0 - beta1.powi(self.steps))) as f32,
                scale: (1.0 / (1.0 - beta2.powi(self.steps)).sqrt()) as f32,
                epsilon: epsilon as f32,
            };
            moments.step(factors, weight, gradient);
        }
    }
}

impl Moments {
    fn step(&mut self, factors: Factors, weight: &mut [f32], gradient: &Gradient) {
        // Whole rows, about 16k elements: large enough to be worth a task, small enough to spread over the cores.
        let rows = (1usize << 14).div_ceil(self.width);
        let block = rows * self.width;
        let parts = weight.par_chunks_mut(block).zip(self.first.par_chunks_mut(block)).zip(self.second.par_chunks_mut(block));
        let width = self.width;
        parts.enumerate().for_each(|(i, ((w, m), v))| match gradient {
            Gradient::Dense(g) => update(factors, w, m, v, &g[i * block..i * block + m.len()]),
            Gradient::Rows(table) => {
                let zeros = vec![0.0; width];
                let lines = w.chunks_mut(width).zip(m.chunks_mut(width)).zip(v.chunks_mut(width));
                for (r, ((w, m), v)) in lines.enumerate() {
                    update(factors, w, m, v, table.row(i * rows + r).unwrap_or(&zeros));
                }
            }
        });
    }
}

/// The step of elements side by side. The decay comes first and the moments are corrected for their start at 0, as in PyTorch.
fn update(f: Factors, weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
    for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(gradient) {
        let g = g * f.clip;
        *m += (g - *m) * f.rest1;
        *v = *v * f.beta2 + g * g * f.rest2;
        *w = *w * f.keep - f.rate * *m / (v.sqrt() * f.scale + f.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of `torch.optim.AdamW(lr=0.1, weight_decay=0.01)` (torch 2.15): one parameter [1, -2], gradients [0.5, -1], [0.25, 2], [-1, 0].
    #[test]
    fn follows_torch() {
        let mut optimizer = Optimizer::new(AdamW::default(), [("w", &[2usize][..])].into_iter());
        let mut w = vec![1.0, -2.0];
        let expected: [[f32; 2]; 3] = [[0.899_000_05, -1.898], [0.804_883_06, -1.932_712_4], [0.824_713_9, -1.959_079_6]];
        for (gradient, expected) in [[0.5, -1.0], [0.25, 2.0], [-1.0, 0.0]].iter().zip(expected) {
            optimizer.step(0.1, 1.0, vec![&mut w], &[Gradient::Dense(gradient)]);
            for (x, e) in w.iter().zip(expected) {
                assert!((x - e).abs() < 1e-6, "{w:?} instead of {expected:?}");
            }
        }
    }

    #[test]
    fn a_table_moves_as_a_dense_weight_would() {
        let (ids, rows) = ([2, 0, 2], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let dense = [3.0, 4.0, 0.0, 0.0, 6.0, 8.0];
        let mut table = Rows::new(2);
        table.add(&ids, &rows);
        let mut a: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let mut b = a.clone();
        let new = || Optimizer::new(AdamW::default(), [("w", &[3usize, 2][..])].into_iter());
        let gradient = [Gradient::Rows(table)];
        assert!((gradient[0].norm() - Gradient::Dense(&dense).norm()).abs() < 1e-12);
        let (mut x, mut y) = (new(), new());
        for _ in 0..3 {
            x.step(0.1, 0.5, vec![&mut a], &gradient);
            y.step(0.1, 0.5, vec![&mut b], &[Gradient::Dense(&dense)]);
        }
        assert_eq!(a, b);
    }

    #[test]
    fn clipping() {
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
    }

    #[test]
    fn biases_and_layer_norms_do_not_decay() {
        assert!(decays("encoder.layer.0.output.dense.weight"));
        assert!(!decays("encoder.layer.0.output.dense.bias"));
        assert!(!decays("embeddings.LayerNorm.weight"));
    }
}
