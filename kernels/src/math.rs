//! Functions of numbers, without branches.

use std::f32::consts::LOG2_E;

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

/// 2ˣ, with a relative error below 2e-7; 0 and infinity beyond the numbers there are.
#[inline(always)]
pub(crate) fn exp2<V: Vector>(x: V) -> V {
    // By minimax of the relative error from 0 to 1.
    const P: [f32; 6] = [0.001_867_13, 0.009_017_031, 0.055_799_913, 0.240_164_44, 0.693_151_3, 1.0];
    polynomial(P, x.fraction()).scale(x)
}

/// The normal distribution function Φ(x) and its density φ(x), with errors below 2e-7.
#[inline(always)]
pub(crate) fn normal<V: Vector>(x: V) -> (V, V) {
    // Φ(−t) = exp(−t²/2) p(s), s = 0.3 t / (1 + 0.3 t), for t from 0 to 14; p by minimax of the relative error with p(0) = ½.
    const P: [f32; 9] =
        [0.038_088_907, -0.136_808_77, 0.117_504_91, 0.109_128_34, -0.045_022_927, -0.701_174_26, 1.448_101_4, -1.329_811_2, 0.5];
    const DENSITY: f32 = 0.398_942_3;
    // Beyond it tails become denormal numbers, which are slow and make no difference.
    let t = x.abs().min(V::splat(12.5));
    let e = exp2(t.mul(t).mul(V::splat(-0.5 * LOG2_E)));
    let s = t.mul(V::splat(0.3));
    let s = s.div_about(s.add(V::splat(1.0)));
    let tail = e.mul(polynomial(P, s));
    (x.select_below(V::zero(), tail, V::splat(1.0).sub(tail)), e.mul(V::splat(DENSITY)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::versions;
    use crate::testing::{all_isas, erf};

    versions! {
        fn powers<V>(x: &[f32], y: &mut [f32]) {
            x.chunks(16).zip(y.chunks_mut(16)).for_each(|(x, y)| exp2(V::load_some(x)).store_some(y));
        }
    }

    versions! {
        fn normals<V>(x: &[f32], y: &mut [f32]) {
            x.chunks(16).zip(y.chunks_mut(16)).for_each(|(x, y)| normal(V::load_some(x)).0.store_some(y));
        }
    }

    #[test]
    fn powers_of_2() {
        // Denormal results have an absolute error of half their step at most, besides.
        let x: Vec<f32> = (-155_000..128_000)
            .map(|i| i as f32 / 1_000.0 + 0.000_3)
            .chain((-160..128).map(|i| i as f32))
            .chain([-1e-30, 1e-30])
            .collect();
        for isa in all_isas() {
            let mut y = vec![f32::NAN; x.len()];
            powers(isa, &x, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let expected = f64::from(*x).exp2();
                let error = (f64::from(*y) - expected).abs();
                assert!(error < 2e-7 * expected + 0.75e-45, "2^{x} = {y}, {isa}");
                assert!(x.fract() != 0.0 || *x < -126.0 || f64::from(*y) == expected, "2^{x} = {y}, {isa}");
            }
            let special = [f32::NEG_INFINITY, f32::MIN, -1e30, -150.5, -0.0, 128.0, f32::MAX, f32::INFINITY, f32::NAN];
            let mut y = [f32::NAN; 9];
            powers(isa, &special, &mut y);
            assert_eq!(y[..8], [0.0, 0.0, 0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY], "{isa}");
            assert!(y[8].is_nan());
        }
    }

    #[test]
    fn the_normal_distribution() {
        let x: Vec<f32> = (-15_000..15_000).map(|i| i as f32 / 1_000.0).collect();
        for isa in all_isas() {
            let mut y = vec![0.0; x.len()];
            normals(isa, &x, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let expected = 0.5 * (1.0 + erf(f64::from(*x) / std::f64::consts::SQRT_2));
                assert!((f64::from(*y) - expected).abs() < 2e-7, "Φ({x}) = {y} instead of {expected}, {isa}");
            }
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for (x, bits) in
            [(1.0, 0x3f80), (1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (-1.004, 0xbf81), (f32::INFINITY, 0x7f80)]
        {
            assert_eq!(bf16(x), bits, "{x}");
        }
        assert_eq!(bf16(f32::MAX), 0x7f80);
        assert!(f32::from_bits(u32::from(bf16(f32::NAN)) << 16).is_nan());
    }
}
