//! Activations and their gradients, plain and gated.

use crate::math::{normal, sigmoid};
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
