//! Activations and their gradients, plain and gated.

use crate::math::{exp, fma, normal, sigmoid};

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

/// √(2/π)
const SLOPE: f32 = 0.797_884_6;
const CUBE: f32 = 0.044_715;

/// The value of [`Activation::Gelu`] and its derivative.
#[inline(always)]
pub(crate) fn gelu<const FMA: bool>(x: f32) -> (f32, f32) {
    let (cdf, density) = normal::<FMA>(x);
    (x * cdf, fma::<FMA>(x, density, cdf))
}

/// The value of [`Activation::GeluTanh`] and its derivative: x σ(2z), z = √(2/π) (x + 0.044715 x³).
#[inline(always)]
pub(crate) fn gelu_tanh<const FMA: bool>(x: f32) -> (f32, f32) {
    let square = x * x;
    let s = sigmoid::<FMA>(2.0 * SLOPE * x * fma::<FMA>(CUBE, square, 1.0));
    let slope = 2.0 * SLOPE * fma::<FMA>(3.0 * CUBE, square, 1.0);
    (x * s, fma::<FMA>(x * s * (1.0 - s), slope, s))
}

/// The value of [`Activation::Silu`] and its derivative.
#[inline(always)]
pub(crate) fn silu<const FMA: bool>(x: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp::<FMA>(-x));
    (x * s, fma::<FMA>(x * s, 1.0 - s, s))
}

impl Activation {
    /// Applies it in place.
    #[inline(always)]
    pub(crate) fn apply<const FMA: bool>(self, line: &mut [f32]) {
        match self {
            Activation::Gelu => line.iter_mut().for_each(|x| *x = gelu::<FMA>(*x).0),
            Activation::GeluTanh => line.iter_mut().for_each(|x| *x = gelu_tanh::<FMA>(*x).0),
            Activation::Silu => line.iter_mut().for_each(|x| *x = silu::<FMA>(*x).0),
        }
    }
}
