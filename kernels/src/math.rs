//! Functions of numbers, without branches.

use crate::simd::Vector;

/// Rounded to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// The polynomial with `coefficients`, the highest power first.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(coefficients: [f32; N], x: V) -> V {
    let mut sum = V::splat(coefficients[0]);
    for &c in &coefficients[1..] {
        sum = sum.fma(x, V::splat(c));
    }
    sum
}

/// eˣ, with a relative error below 2e-7; 0 below −87.3, infinity above 88.73.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    // Adding it rounds to an integer.
    const MAGIC: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with so few bits that its multiples are exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // x = n ln 2 + r, |r| ≤ ln 2 / 2; eʳ = 1 + r + r² q(r), q by minimax.
    const Q: [f32; 5] = [0.001_381_461_3, 0.008_368_71, 0.041_668_39, 0.166_665_21, 0.499_999_94];
    const LEAST: f32 = -87.336_54;
    // NaN passes, as it is the second argument.
    let clamped = V::splat(88.8).min(V::splat(LEAST).max(x));
    let n = clamped.fma(V::splat(std::f32::consts::LOG2_E), V::splat(MAGIC)).sub(V::splat(MAGIC));
    let r = n.fma(V::splat(-LOW), n.fma(V::splat(-HIGH), clamped));
    let e = r.mul(r).fma(polynomial(Q, r), r).add(V::splat(1.0));
    x.select_below(V::splat(LEAST), V::zero(), e.scale(n))
}

/// The normal distribution function Φ(x) and its density φ(x), each with an error below 2e-7.
#[inline(always)]
pub(crate) fn normal<V: Vector>(x: V) -> (V, V) {
    // Φ(−t) = exp(−t²/2) p(1 / (1 + 0.3 t)) for t from 0 to 14, p by minimax of the relative error.
    const P: [f32; 9] = [
        0.038_378_22,
        -0.169_165_9,
        0.228_659_9,
        -0.076_506_55,
        0.142_535_76,
        0.094_683_36,
        0.121_920_4,
        0.119_487_68,
        7.169_419e-6,
    ];
    const DENSITY: f32 = 0.398_942_3;
    let t = x.abs();
    let e = exp(t.mul(t).mul(V::splat(-0.5)));
    let tail = e.mul(polynomial(P, V::splat(1.0).div(t.fma(V::splat(0.3), V::splat(1.0)))));
    (x.select_below(V::zero(), tail, V::splat(1.0).sub(tail)), e.mul(V::splat(DENSITY)))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(x: V) -> V {
    let one = V::splat(1.0);
    one.div(one.add(exp(V::zero().sub(x))))
}
