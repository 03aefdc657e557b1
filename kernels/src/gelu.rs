//! GELU, x Φ(x) (Hendrycks and Gimpel, 2016), exactly: Φ by the error function.

use crate::Pool;
use crate::isa::versions;
use crate::math::normal;
use crate::pool::blocks;
use crate::simd::Vector;

/// The value and its derivative.
#[inline(always)]
pub(crate) fn gelu<V: Vector>(x: V) -> (V, V) {
    let (cdf, density) = normal(x);
    (x.mul(cdf), x.fma(density, cdf))
}

/// Elements that one task has.
const BLOCK: usize = 1 << 14;

/// `y = gelu(x)`.
///
/// # Panics
/// The lengths differ.
pub fn forward(pool: &dyn Pool, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "GELU's input and output");
    let isa = pool.isa();
    blocks(pool, y, BLOCK, |i, y| forward_block(isa, &x[i * BLOCK..][..y.len()], y));
}

versions! {
    fn forward_block<V>(x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks(16).zip(y.chunks_mut(16)) {
            gelu(V::load_some(x)).0.store_some(y);
        }
    }
}

/// `dx = dy · gelu'(x)`.
///
/// # Panics
/// The lengths differ.
pub fn backward(pool: &dyn Pool, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len(), "GELU's input and gradients");
    let isa = pool.isa();
    blocks(pool, dx, BLOCK, |i, dx| {
        let part = i * BLOCK..i * BLOCK + dx.len();
        backward_block(isa, &x[part.clone()], &dy[part], dx);
    });
}

versions! {
    fn backward_block<V>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((x, dy), dx) in x.chunks(16).zip(dy.chunks(16)).zip(dx.chunks_mut(16)) {
            V::load_some(dy).mul(gelu(V::load_some(x)).1).store_some(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;
    use crate::testing::{all_isas, assert_close, gelu};

    #[test]
    fn values_and_slopes() {
        let mut x: Vec<f32> = (-3_000..3_001).map(|i| i as f32 / 250.0).collect();
        x.extend([-0.0, 1e-30, -1e-30, 50.0, -50.0, -1e4, 1e4]);
        for isa in all_isas() {
            let pool = Threads { threads: 2, isa };
            let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            forward(&pool, &x, &mut y);
            backward(&pool, &x, &vec![1.0; x.len()], &mut dx);
            // Relative to x, which multiplies what the error is of.
            for ((x, y), dx) in x.iter().zip(&y).zip(&dx) {
                let wide = f64::from(*x);
                let slope = (gelu(wide + 1e-5) - gelu(wide - 1e-5)) / 2e-5;
                let what = format!("GELU of {x}, {isa}");
                assert_close(&[*y], &[gelu(wide)], 3e-7 * wide.abs().max(1.0), &what);
                if wide.abs() < 100.0 {
                    assert_close(&[*dx], &[slope], 2e-6, &what);
                }
            }
            let mut y = [0.0; 1];
            forward(&pool, &[f32::NAN], &mut y);
            assert!(y[0].is_nan());
        }
    }
}
