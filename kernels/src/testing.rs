//! What tests share.

use crate::Isa;

/// All instruction sets that this machine has, so that tests force each.
pub fn all_isas() -> Vec<Isa> {
    Isa::available()
}

/// Random numbers of a fixed sequence (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Of mean 0 and variance 1.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        let one = |random: &mut Random| {
            let (u, v) = (1.0 - random.uniform(), random.uniform());
            ((-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()) as f32
        };
        (0..count).map(|_| one(self)).collect()
    }
}

/// The largest difference from `expected`.
pub fn worst(values: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(values.len(), expected.len());
    let difference = |(x, e): (&f32, &f64)| {
        let d = (f64::from(*x) - e).abs();
        if d.is_nan() { f64::INFINITY } else { d }
    };
    values.iter().zip(expected).map(difference).fold(0.0, f64::max)
}

/// Says where the difference is beyond the tolerance.
pub fn assert_close(values: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let worst = worst(values, expected);
    assert!(worst <= tolerance, "{what}: off by {worst:e}, more than {tolerance:e}");
}

/// erf(x), by its series or its continued fraction.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while f64::abs(term) > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let a = x.abs();
    let fraction = (1..60).rev().fold(a, |f, k| a + f64::from(k) / 2.0 / f);
    x.signum() * (1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt()))
}

pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}
