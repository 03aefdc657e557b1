//! AdamW (Loshchilov and Hutter, 2019), in the order of operations of `torch.optim.AdamW`, and gradient clipping.

use std::collections::BTreeMap;

use rayon::prelude::*;
use retune_kernels::adamw::{Factors, squares, update};
use retune_kernels::{Isa, Pool, add_rows};

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

/// Whether weight decay applies to the parameter by default: not to biases and normalizations. Normalizations are told by their names: a part
/// that ends with `norm` (`LayerNorm`, `sa_layer_norm`, `mlp_norm`, `norm1`) or is one of the abbreviations `ln`, `ln_f`, `emb_ln`.
pub fn decays(name: &str) -> bool {
    let normalizes = |part: &str| {
        let part = part.to_lowercase();
        let part = part.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
        part.ends_with("norm") || part == "ln" || part.starts_with("ln_") || part.ends_with("_ln")
    };
    !(name.ends_with("bias") || name.split('.').any(normalizes))
}

/// How a weight is treated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Treatment {
    /// Its weight decay.
    pub decay: f64,
    /// What its learning rate is multiplied by.
    pub rate: f64,
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
        let places: Vec<usize> = ids.iter().map(|&id| self.place(id.max(0) as usize)).collect();
        self.add_at(&places, rows);
    }

    /// The place of an entry, which is a new one if it had none.
    fn place(&mut self, entry: usize) -> usize {
        let next = self.index.len();
        *self.index.entry(entry).or_insert(next)
    }

    fn add_at(&mut self, places: &[usize], rows: &[f32]) {
        self.data.resize(self.index.len() * self.width, 0.0);
        add_rows(&Rayon, self.width, places, rows, &mut self.data);
    }

    /// Adds other rows to these.
    fn merge(&mut self, other: &Rows) {
        let mut places = vec![0; other.index.len()];
        for (&entry, &at) in &other.index {
            places[at] = self.place(entry);
        }
        self.add_at(&places, &other.data);
    }

    /// As a whole table of `size` elements.
    #[cfg(test)]
    pub(super) fn dense(&self, size: usize) -> Vec<f32> {
        let mut data = vec![0.0; size];
        for (&entry, &at) in &self.index {
            data[entry * self.width..(entry + 1) * self.width]
                .copy_from_slice(&self.data[at * self.width..(at + 1) * self.width]);
        }
        data
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
        squares(&Rayon, data)
    }

    /// All elements of the gradient of a weight of `size` elements.
    #[cfg(test)]
    pub fn to_dense(&self, size: usize) -> Vec<f32> {
        match self {
            Gradient::Dense(data) => data.to_vec(),
            Gradient::Rows(rows) => rows.dense(size),
        }
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

/// The sum of the gradients of several batches.
#[derive(Default)]
pub struct Sum {
    parts: Vec<Part>,
}

/// The sum of one weight's.
enum Part {
    Dense(Vec<f32>),
    Rows(Rows),
}

impl Sum {
    /// Adds the gradients of a batch, those of the same weights every time.
    pub fn add(&mut self, gradients: &[Gradient]) {
        if self.parts.is_empty() {
            self.parts.extend(gradients.iter().map(|gradient| match gradient {
                Gradient::Dense(data) => Part::Dense(vec![0.0; data.len()]),
                Gradient::Rows(rows) => Part::Rows(Rows::new(rows.width)),
            }));
        }
        for (part, gradient) in self.parts.iter_mut().zip(gradients) {
            match (part, gradient) {
                (Part::Dense(sum), Gradient::Dense(data)) => {
                    sum.par_iter_mut().zip(*data).with_min_len(1 << 14).for_each(|(s, x)| *s += x);
                }
                (Part::Rows(sum), Gradient::Rows(rows)) => sum.merge(rows),
                // The graph of a step gives every weight one form.
                (Part::Dense(_), Gradient::Rows(_)) | (Part::Rows(_), Gradient::Dense(_)) => {}
            }
        }
    }

    /// Hands the sum to `consume` and begins anew.
    pub fn take<T>(&mut self, consume: impl FnOnce(&[Gradient]) -> T) -> T {
        let gradients: Vec<Gradient> = self
            .parts
            .iter_mut()
            .map(|part| match part {
                Part::Dense(sum) => Gradient::Dense(sum),
                Part::Rows(rows) => Gradient::Rows(std::mem::replace(rows, Rows::new(rows.width))),
            })
            .collect();
        let result = consume(&gradients);
        drop(gradients);
        for part in &mut self.parts {
            if let Part::Dense(sum) = part {
                sum.par_iter_mut().with_min_len(1 << 14).for_each(|x| *x = 0.0);
            }
        }
        result
    }
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
    treatment: Treatment,
    /// Of each row, whether it ever had a gradient; `None` until a step needs to know. Most rows of a vocabulary have none in a training, and
    /// without moments they need not be read.
    moved: Option<Vec<bool>>,
}

/// AdamW with its state.
pub struct Optimizer {
    settings: AdamW,
    moments: Vec<Moments>,
    steps: i32,
}

/// Rayon's threads, for the kernels.
struct Rayon;

impl Pool for Rayon {
    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).into_par_iter().for_each(task);
    }
}

impl Optimizer {
    /// For weights of the given names and shapes, which decay as [`decays`] says.
    pub fn new<'w>(settings: AdamW, weights: impl Iterator<Item = (&'w str, &'w [usize])>) -> Self {
        let decay = |name| if decays(name) { settings.weight_decay } else { 0.0 };
        Optimizer::treating(settings, weights.map(|(name, shape)| (shape, Treatment { decay: decay(name), rate: 1.0 })))
    }

    /// For weights of the given shapes.
    pub fn treating<'w>(settings: AdamW, weights: impl Iterator<Item = (&'w [usize], Treatment)>) -> Self {
        let moments = weights
            .map(|(shape, treatment)| {
                let size: usize = shape.iter().product();
                let width = shape.last().copied().unwrap_or(1).max(1);
                let moved = Some(vec![false; size.div_ceil(width)]);
                Moments { first: vec![0.0; size], second: vec![0.0; size], width, treatment, moved }
            })
            .collect();
        Optimizer { settings, moments, steps: 0 }
    }

    /// The first and the second moments of every weight.
    pub fn moments(&self) -> impl Iterator<Item = (&[f32], &[f32])> {
        self.moments.iter().map(|m| (m.first.as_slice(), m.second.as_slice()))
    }

    /// Goes on after `steps` steps; the moments are to be filled in.
    pub fn resume(&mut self, steps: i32) -> impl Iterator<Item = (&mut [f32], &mut [f32])> {
        self.steps = steps;
        self.moments.iter_mut().map(|m| {
            m.moved = None;
            (m.first.as_mut_slice(), m.second.as_mut_slice())
        })
    }

    /// One step: every weight is moved against its gradient times `clip`. Weights and gradients are in the order given to [`Optimizer::new`].
    pub fn step(&mut self, lr: f64, clip: f32, weights: Vec<&mut [f32]>, gradients: &[Gradient]) {
        self.steps += 1;
        let AdamW { beta1, beta2, epsilon, .. } = self.settings;
        for ((weight, gradient), moments) in weights.into_iter().zip(gradients).zip(&mut self.moments) {
            let lr = lr * moments.treatment.rate;
            let factors = Factors {
                keep: (1.0 - lr * moments.treatment.decay) as f32,
                clip,
                beta2: beta2 as f32,
                rest1: (1.0 - beta1) as f32,
                rest2: (1.0 - beta2) as f32,
                rate: (lr / (1.0 - beta1.powi(self.steps))) as f32,
                scale: (1.0 / (1.0 - beta2.powi(self.steps)).sqrt()) as f32,
                epsilon: epsilon as f32,
            };
            let is_new = self.steps == 1 && moments.moved.is_some();
            moments.step(factors, weight, gradient, is_new);
        }
    }
}

impl Moments {
    /// What is zero still is written before it is read: a page that was only read is the system's page of zeros, and writing to it then stops all
    /// cores for a moment.
    fn step(&mut self, factors: Factors, weight: &mut [f32], gradient: &Gradient, is_new: bool) {
        // Whole rows, about 16k elements: large enough to be worth a task, small enough to spread over the cores.
        let rows = (1usize << 14).div_ceil(self.width);
        let (width, block, isa) = (self.width, rows * self.width, Isa::best());
        let mut moved = match gradient {
            Gradient::Dense(_) => Vec::new(),
            Gradient::Rows(_) => self.moved.take().unwrap_or_else(|| self.moved_rows()),
        };
        let parts = weight.par_chunks_mut(block).zip(self.first.par_chunks_mut(block)).zip(self.second.par_chunks_mut(block));
        self.moved = match gradient {
            Gradient::Dense(g) => {
                parts.enumerate().for_each(|(i, ((w, m), v))| {
                    if is_new {
                        m.fill(0.0);
                        v.fill(0.0);
                    }
                    update(isa, factors, w, m, v, &g[i * block..i * block + m.len()]);
                });
                None
            }
            Gradient::Rows(table) => {
                parts.zip(moved.par_chunks_mut(rows)).enumerate().for_each(|(i, (((w, m), v), moved))| {
                    let zeros = vec![0.0; width];
                    let lines = w.chunks_mut(width).zip(m.chunks_mut(width)).zip(v.chunks_mut(width)).zip(moved);
                    for (r, (((w, m), v), moved)) in lines.enumerate() {
                        let gradient = table.row(i * rows + r);
                        if gradient.is_some() && !*moved {
                            m.fill(0.0);
                            v.fill(0.0);
                            *moved = true;
                        }
                        if *moved || factors.keep != 1.0 {
                            update(isa, factors, w, m, v, gradient.unwrap_or(&zeros));
                        }
                    }
                });
                Some(moved)
            }
        };
    }

    /// The rows that have moments.
    fn moved_rows(&self) -> Vec<bool> {
        let moments = self.first.par_chunks(self.width).zip(self.second.par_chunks(self.width));
        moments.map(|(first, second)| first.iter().chain(second).any(|&x| x != 0.0)).collect()
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

    /// Rows without moments are left out, whichever came first, and also by an optimizer that goes on from moments.
    #[test]
    fn rows_that_never_had_a_gradient_stay_as_a_dense_weight_would() {
        for weight_decay in [0.0, 0.01] {
            let settings = AdamW { weight_decay, ..AdamW::default() };
            let new = || Optimizer::new(settings, [("w", &[5usize, 2][..])].into_iter());
            let (mut x, mut y) = (new(), new());
            let start: Vec<f32> = (0..10).map(|i| i as f32 / 7.0 - 0.6).collect();
            let (mut a, mut b) = (start.clone(), start.clone());
            for (step, entries) in [[3, 1], [1, 0], [0, 3]].into_iter().enumerate() {
                let mut table = Rows::new(2);
                table.add(&entries, &[0.5, -1.0, 0.25, 2.0]);
                let dense = table.dense(10);
                x.step(0.1, 0.5, vec![&mut a], &[Gradient::Rows(table)]);
                y.step(0.1, 0.5, vec![&mut b], &[Gradient::Dense(&dense)]);
                assert_eq!(a, b);
                if step == 1 {
                    let mut other = new();
                    for ((first, second), (m, v)) in other.resume(2).zip(x.moments()) {
                        first.copy_from_slice(m);
                        second.copy_from_slice(v);
                    }
                    x = other;
                }
            }
            assert_eq!(a[4..6] == start[4..6], weight_decay == 0.0);
        }
    }

    #[test]
    fn clipping() {
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
    }

    #[test]
    fn biases_and_normalizations_do_not_decay() {
        let weights = ["encoder.layer.0.output.dense.weight", "layers.3.mlp.Wi.weight", "encoder.relative_attention_bias.weight"];
        assert!(weights.iter().all(|name| decays(name)));
        let exempt = [
            "encoder.layer.0.output.dense.bias",
            "embeddings.LayerNorm.weight",
            "transformer.layer.2.sa_layer_norm.weight",
            "layers.1.mlp_norm.weight",
            "final_norm.weight",
            "encoder.layers.7.norm1.weight",
            "emb_ln.weight",
            "h.0.ln_1.weight",
        ];
        assert!(exempt.iter().all(|name| !decays(name)));
    }

    #[test]
    fn a_sum_of_batches_is_the_sum_of_their_gradients() {
        let rows = |ids: &[i64], data: &[f32]| {
            let mut rows = Rows::new(2);
            rows.add(ids, data);
            Gradient::Rows(rows)
        };
        let mut sum = Sum::default();
        for _ in 0..2 {
            sum.add(&[Gradient::Dense(&[1.0, -2.0]), rows(&[3, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]);
            sum.add(&[Gradient::Dense(&[0.5, 4.0]), rows(&[0, 1], &[7.0, 8.0, 9.0, 10.0])]);
            sum.take(|gradients| {
                let [Gradient::Dense(dense), Gradient::Rows(rows)] = gradients else { panic!("two forms") };
                assert_eq!(*dense, [1.5, 2.0]);
                let row = |entry| rows.row(entry).map(<[f32]>::to_vec);
                assert_eq!([row(0), row(1), row(3)], [Some(vec![7.0, 8.0]), Some(vec![12.0, 14.0]), Some(vec![6.0, 8.0])]);
                assert_eq!(row(2), None);
            });
        }
    }

    /// Figures of `torch.optim.AdamW` (torch 2.15) with the parameter in a group of its own: lr 0.05, weight_decay 0.1, the gradients of
    /// `follows_torch`.
    #[test]
    fn weights_are_treated_apart_and_go_on_where_they_were() {
        let gradients = [[0.5, -1.0], [0.25, 2.0], [-1.0, 0.0]];
        let treatments = [Treatment { decay: 0.01, rate: 1.0 }, Treatment { decay: 0.1, rate: 0.5 }];
        let new = || Optimizer::treating(AdamW::default(), treatments.iter().map(|t| (&[2usize][..], *t)));
        let (mut a, mut b) = (vec![1.0, -2.0], vec![1.0, -2.0]);
        let mut optimizer = new();
        for (number, gradient) in gradients.iter().enumerate() {
            if number == 1 {
                let kept: Vec<_> = optimizer.moments().map(|(m, v)| (m.to_vec(), v.to_vec())).collect();
                optimizer = new();
                for ((m, v), (first, second)) in optimizer.resume(1).zip(kept) {
                    m.copy_from_slice(&first);
                    v.copy_from_slice(&second);
                }
            }
            optimizer.step(0.1, 1.0, vec![&mut a, &mut b], &[Gradient::Dense(gradient), Gradient::Dense(gradient)]);
        }
        for (found, expected) in a.iter().chain(&b).zip([0.824_713_9, -1.959_079_6, 0.899_515_57, -1.953_012_2]) {
            assert!((found - expected).abs() < 1e-6, "{a:?}, {b:?}");
        }
    }
}
