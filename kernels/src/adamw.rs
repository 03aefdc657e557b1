//! The arithmetic of AdamW (Loshchilov and Hutter, 2019), in the order of operations of `torch.optim.AdamW`; the same bits on every machine.

use crate::isa::versions;
use crate::{Isa, Pool};

/// The factors of one step, the same for every element.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    /// 1 − lr · weight decay
    pub keep: f32,
    /// What gradients are multiplied by.
    pub clip: f32,
    pub beta2: f32,
    /// 1 − beta1, subtracted in double precision: in single precision 1 − 0.999 is off by 1e-5.
    pub rest1: f32,
    /// 1 − beta2
    pub rest2: f32,
    /// lr / (1 − beta1^t)
    pub rate: f32,
    /// 1 / √(1 − beta2^t)
    pub scale: f32,
    pub epsilon: f32,
}

/// The step of elements side by side. The decay comes first and the moments are corrected for their start at 0, as in PyTorch.
///
/// # Panics
/// The lengths differ.
pub fn update(isa: Isa, f: Factors, weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
    let len = weight.len();
    assert!(first.len() == len && second.len() == len && gradient.len() == len, "a weight, its moments and its gradient");
    update_all(isa, f, weight, first, second, gradient);
}

versions! {
    fn update_all<V>(f: Factors, weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
        let (keep, clip, rate) = (V::splat(f.keep), V::splat(f.clip), V::splat(f.rate));
        let (beta2, rest1, rest2) = (V::splat(f.beta2), V::splat(f.rest1), V::splat(f.rest2));
        let (scale, epsilon) = (V::splat(f.scale), V::splat(f.epsilon));
        let moments = first.chunks_mut(16).zip(second.chunks_mut(16));
        for ((weight, gradient), (first, second)) in weight.chunks_mut(16).zip(gradient.chunks(16)).zip(moments) {
            let g = V::load_some(gradient).mul(clip);
            let m = V::load_some(first);
            let m = m.add(g.sub(m).mul(rest1));
            let v = V::load_some(second).mul(beta2).add(g.mul(g).mul(rest2));
            let w = V::load_some(weight).mul(keep).sub(rate.mul(m).div(v.sqrt().mul(scale).add(epsilon)));
            m.store_some(first);
            v.store_some(second);
            w.store_some(weight);
        }
    }
}

/// The sum of squares, in double precision.
pub fn squares(pool: &dyn Pool, data: &[f32]) -> f64 {
    const BLOCK: usize = 1 << 14;
    let mut sums = vec![0.0; data.len().div_ceil(BLOCK)];
    let isa = pool.isa();
    crate::pool::blocks(pool, &mut sums, 1, |i, sum| {
        sum[0] = squares_of(isa, &data[i * BLOCK..data.len().min((i + 1) * BLOCK)]);
    });
    sums.iter().sum()
}

versions! {
    fn squares_of<V>(data: &[f32]) -> f64 {
        // Side by side, so that they become vectors; the order is fixed all the same.
        let mut sums = [0.0; 16];
        let (whole, rest) = data.as_chunks::<16>();
        for chunk in whole {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        sums.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;
    use crate::testing::{Random, all_isas};

    /// Bit by bit.
    #[test]
    fn updates_as_one_element_after_the_other() {
        let mut random = Random(1);
        let f =
            Factors { keep: 0.9999, clip: 0.5, beta2: 0.999, rest1: 0.1, rest2: 0.001, rate: 0.01, scale: 3.0, epsilon: 1e-8 };
        for len in [0, 1, 15, 16, 1_000] {
            let [weight, first, gradient] = [(); 3].map(|()| random.normals(len));
            let second: Vec<f32> = random.normals(len).iter().map(|x| x * x).collect();
            let (mut w, mut m, mut v) = (weight.clone(), first.clone(), second.clone());
            for (((w, m), v), g) in w.iter_mut().zip(&mut m).zip(&mut v).zip(&gradient) {
                let g = g * f.clip;
                *m += (g - *m) * f.rest1;
                *v = *v * f.beta2 + g * g * f.rest2;
                *w = *w * f.keep - f.rate * *m / (v.sqrt() * f.scale + f.epsilon);
            }
            for isa in all_isas() {
                let (mut a, mut b, mut c) = (weight.clone(), first.clone(), second.clone());
                update(isa, f, &mut a, &mut b, &mut c, &gradient);
                assert!(a == w && b == m && c == v, "{isa}, {len} elements");
            }
        }
    }

    #[test]
    fn sums_of_squares() {
        let data = Random(2).normals(100_003);
        let expected: f64 = data.iter().map(|&x| f64::from(x).powi(2)).sum();
        for isa in all_isas() {
            let [one, two, three] = [1, 2, 3].map(|threads| squares(&Threads { threads, isa }, &data));
            assert!((one - expected).abs() < 1e-9 * expected && one == two && two == three);
        }
        assert_eq!(squares(&crate::Serial, &[]), 0.0);
    }
}
