//! Rotary position embeddings (Su et al., "RoFormer", 2021) in the form that rotates a head's first half against its second.

use crate::Pool;
use crate::gemm::Matrix;
use crate::isa::versions;
use crate::pool::blocks;

/// Cosines and sines of positions.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// Of a head.
    width: usize,
    /// `[positions, width / 2]`
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Rows that one task has.
const ROWS: usize = 64;

impl Rotary {
    /// For positions below `positions` and heads of an even `width`, with angles `position · theta^(−2i / width)`.
    ///
    /// # Panics
    /// The width is odd.
    pub fn new(theta: f64, width: usize, positions: usize) -> Self {
        assert!(width.is_multiple_of(2), "a head of {width}");
        let frequency = |i: usize| theta.powf(-2.0 * i as f64 / width as f64) as f32;
        // The angle in single precision, as `transformers` has it.
        let angle = |at: usize| f64::from((at / (width / 2)) as f32 * frequency(at % (width / 2)));
        let angles: Vec<f64> = (0..positions * width / 2).map(angle).collect();
        let table = |f: fn(f64) -> f64| angles.iter().map(|&a| f(a) as f32).collect();
        Rotary { width, cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// `y = x`, `[tokens, heads · width]` both, with each head turned by its token's position.
    ///
    /// # Panics
    /// Shapes do not fit each other, or a position is beyond the table.
    pub fn forward(&self, pool: &dyn Pool, positions: &[i64], x: Matrix, y: &mut [f32]) {
        self.turn(pool, 1.0, positions, x, y);
    }

    /// The gradient of x from that of y: turned back.
    ///
    /// # Panics
    /// As for [`Rotary::forward`].
    pub fn backward(&self, pool: &dyn Pool, positions: &[i64], dy: Matrix, dx: &mut [f32]) {
        self.turn(pool, -1.0, positions, dy, dx);
    }

    fn turn(&self, pool: &dyn Pool, sign: f32, positions: &[i64], x: Matrix, y: &mut [f32]) {
        let (rows, columns, half) = (x.rows(), x.columns(), self.width / 2);
        assert!(positions.len() == rows && y.len() == rows * columns, "{rows} rows of {columns}");
        assert!(half > 0 && columns.is_multiple_of(self.width), "heads of {} in rows of {columns}", self.width);
        if y.is_empty() {
            return;
        }
        let isa = pool.isa();
        blocks(pool, y, ROWS * columns, |i, y| {
            for (row, y) in y.chunks_exact_mut(columns).enumerate() {
                let row = i * ROWS + row;
                // A negative position is beyond every table.
                let at = usize::try_from(positions[row]).unwrap_or(usize::MAX).saturating_mul(half);
                assert!(at < self.cos.len(), "position {} is beyond the table of rotary embeddings", positions[row]);
                turn_row(isa, sign, &self.cos[at..at + half], &self.sin[at..at + half], x.line(row), y);
            }
        });
    }
}

versions! {
    fn turn_row<V>(sign: f32, cos: &[f32], sin: &[f32], x: &[f32], y: &mut [f32]) {
        let (half, sign) = (cos.len(), V::splat(sign));
        for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
            let ((a, b), (ya, yb)) = (x.split_at(half), y.split_at_mut(half));
            let inputs = a.chunks(16).zip(b.chunks(16)).zip(cos.chunks(16).zip(sin.chunks(16)));
            for (((a, b), (cos, sin)), (ya, yb)) in inputs.zip(ya.chunks_mut(16).zip(yb.chunks_mut(16))) {
                let (a, b) = (V::load_some(a), V::load_some(b));
                let (cos, sin) = (V::load_some(cos), V::load_some(sin).mul(sign));
                a.mul(cos).sub(b.mul(sin)).store_some(ya);
                b.mul(cos).add(a.mul(sin)).store_some(yb);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;
    use crate::testing::{Random, all_isas, assert_close};

    /// As complex numbers: (a + ib) e^(iφ).
    #[test]
    fn turns_and_turns_back() {
        for (tokens, heads, width) in [(0, 1, 8), (1, 1, 2), (150, 3, 32), (70, 2, 20)] {
            let columns = heads * width;
            let x = Random(1).normals(tokens * columns);
            let positions: Vec<i64> = (0..tokens as i64).map(|i| i * 3 % 100).collect();
            let rotary = Rotary::new(10_000.0, width, 100);
            let mut expected = vec![0.0; x.len()];
            for (token, position) in positions.iter().enumerate() {
                for head in 0..heads {
                    for i in 0..width / 2 {
                        let angle = *position as f64 * 10_000f64.powf(-2.0 * i as f64 / width as f64);
                        let at = token * columns + head * width + i;
                        let (a, b) = (f64::from(x[at]), f64::from(x[at + width / 2]));
                        expected[at] = a * angle.cos() - b * angle.sin();
                        expected[at + width / 2] = a * angle.sin() + b * angle.cos();
                    }
                }
            }
            for isa in all_isas() {
                let pool = Threads { threads: 2, isa };
                let (mut y, mut back) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                rotary.forward(&pool, &positions, Matrix::new(&x, tokens, columns), &mut y);
                assert_close(&y, &expected, 2e-5, "turned");
                rotary.backward(&pool, &positions, Matrix::new(&y, tokens, columns), &mut back);
                let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
                assert_close(&back, &x, 1e-6, "turned back");
            }
        }
    }
}
