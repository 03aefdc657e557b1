//! Activations and their gradients.

use crate::Pool;
use crate::isa::versions;
use crate::math::{normal, sigmoid};
use crate::pool::blocks;
use crate::simd::Vector;

/// What a layer applies to each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x) (Hendrycks and Gimpel, 2016), exactly: Φ by the error function.
    Gelu,
    /// Its approximation by the hyperbolic tangent.
    GeluTanh,
    /// x / (1 + e⁻ˣ), also called swish.
    Silu,
}

impl Activation {
    /// The value and its derivative.
    #[inline(always)]
    pub(crate) fn apply<V: Vector>(self, x: V) -> (V, V) {
        match self {
            Activation::Gelu => {
                let (cdf, density) = normal(x);
                (x.mul(cdf), x.fma(density, cdf))
            }
            Activation::GeluTanh => {
                // x σ(2z), z = √(2/π) (x + 0.044715 x³)
                const SLOPE: f32 = 2.0 * 0.797_884_6;
                const CUBE: f32 = SLOPE * 0.044_715;
                let square = x.mul(x);
                let s = sigmoid(x.mul(square.fma(V::splat(CUBE), V::splat(SLOPE))));
                let slope = square.fma(V::splat(3.0 * CUBE), V::splat(SLOPE));
                let value = x.mul(s);
                (value, value.mul(V::splat(1.0).sub(s)).fma(slope, s))
            }
            Activation::Silu => {
                let s = sigmoid(x);
                let value = x.mul(s);
                (value, value.fma(V::splat(1.0).sub(s), s))
            }
        }
    }
}

/// Elements that one task has.
const BLOCK: usize = 1 << 14;

/// `y = activation(x)`.
///
/// # Panics
/// The lengths differ.
pub fn forward(pool: &dyn Pool, activation: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "an activation's input and output");
    let isa = pool.isa();
    blocks(pool, y, BLOCK, |i, y| forward_block(isa, activation, &x[i * BLOCK..][..y.len()], y));
}

versions! {
    fn forward_block<V>(activation: Activation, x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks(16).zip(y.chunks_mut(16)) {
            activation.apply(V::load_some(x)).0.store_some(y);
        }
    }
}

/// `dx = dy · activation'(x)`.
///
/// # Panics
/// The lengths differ.
pub fn backward(pool: &dyn Pool, activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len(), "an activation's input and gradients");
    let isa = pool.isa();
    blocks(pool, dx, BLOCK, |i, dx| {
        let part = i * BLOCK..i * BLOCK + dx.len();
        backward_block(isa, activation, &x[part.clone()], &dy[part], dx);
    });
}

versions! {
    fn backward_block<V>(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((x, dy), dx) in x.chunks(16).zip(dy.chunks(16)).zip(dx.chunks_mut(16)) {
            V::load_some(dy).mul(activation.apply(V::load_some(x)).1).store_some(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;
    use crate::testing::{all_isas, assert_close, erf};

    const ALL: [Activation; 3] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];

    fn value(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh()),
            Activation::Silu => x / (1.0 + (-x).exp()),
        }
    }

    fn slope(activation: Activation, x: f64) -> f64 {
        (value(activation, x + 1e-5) - value(activation, x - 1e-5)) / 2e-5
    }

    #[test]
    fn values_and_slopes() {
        let mut x: Vec<f32> = (-3_000..3_001).map(|i| i as f32 / 250.0).collect();
        x.extend([-0.0, 1e-30, -1e-30, 50.0, -50.0, -1e4, 1e4]);
        for isa in all_isas() {
            for activation in ALL {
                let pool = Threads { threads: 2, isa };
                let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                forward(&pool, activation, &x, &mut y);
                backward(&pool, activation, &x, &vec![1.0; x.len()], &mut dx);
                // Relative to x, which multiplies what the error is of.
                for ((x, y), dx) in x.iter().zip(&y).zip(&dx) {
                    let wide = f64::from(*x);
                    let (value, slope) = (value(activation, wide), slope(activation, wide));
                    let what = format!("{activation:?} of {x}, {isa}");
                    assert_close(&[*y], &[value], 3e-7 * wide.abs().max(1.0), &what);
                    if wide.abs() < 100.0 {
                        assert_close(&[*dx], &[slope], 2e-6, &what);
                    }
                }
            }
        }
    }
}
