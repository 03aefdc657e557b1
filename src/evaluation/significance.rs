//! Whether a difference between two systems on the same queries is more than chance.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::Serialize;

/// Random sign flips, and random resamples. The smallest p that can be found is 1 / (this + 1).
const DRAWS: usize = 20_000;
/// With at most so many queries that differ, all sign flips are tried instead of some.
const MOST_EXACT: usize = 14;
/// The seed of both: the same values always give the same figures.
const SEED: u64 = 42;

/// How the values of two systems on the same queries compare.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Significance {
    pub queries: usize,
    /// Queries on which the second is better.
    pub wins: usize,
    pub ties: usize,
    pub losses: usize,
    /// Two-sided p of the paired randomization test (Fisher; Smucker, Allan and Carterette, 2007): how often a mean difference at
    /// least as large would arise if it were chance which of the two values of each query belongs to which system.
    pub p: f64,
    /// `p` after Holm's correction for all the measures that are compared at once.
    pub p_holm: f64,
    /// 95 % confidence interval of the mean difference: percentiles of bootstrap resamples of the queries.
    pub interval: [f64; 2],
}

/// Compares the values `(first, second)` of each query; `None` without queries.
pub fn compare(values: &[(f64, f64)]) -> Option<Significance> {
    let differences: Vec<f64> = values.iter().map(|(a, b)| b - a).collect();
    if differences.is_empty() {
        return None;
    }
    let count = |test: fn(&f64) -> bool| differences.iter().filter(|d| test(d)).count();
    let p = randomization(&differences, MOST_EXACT);
    Some(Significance {
        queries: differences.len(),
        wins: count(|d| *d > 0.0),
        ties: count(|d| *d == 0.0),
        losses: count(|d| *d < 0.0),
        p,
        p_holm: p,
        interval: bootstrap(&differences),
    })
}

/// The p of a sign-flip test of the sum, exact when at most `most_exact` differences are not 0.
fn randomization(differences: &[f64], most_exact: usize) -> f64 {
    let moved: Vec<f64> = differences.iter().copied().filter(|&d| d != 0.0).collect();
    let observed = moved.iter().sum::<f64>().abs();
    // Sums in another order differ in their last digits; what is equal must count as equal.
    let at_least = |sum: f64| sum.abs() >= observed * (1.0 - 1e-12);
    if moved.len() <= most_exact {
        let flips = 1u64 << moved.len();
        let hits = (0..flips).filter(|&signs| at_least(signed(&moved, signs))).count();
        return hits as f64 / flips as f64;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut hits = 0;
    for _ in 0..DRAWS {
        let sum: f64 = moved.chunks(64).map(|part| signed(part, rng.next_u64())).sum();
        hits += usize::from(at_least(sum));
    }
    (hits + 1) as f64 / (DRAWS + 1) as f64
}

/// The sum with the sign of each of at most 64 values flipped where its bit is set.
fn signed(values: &[f64], signs: u64) -> f64 {
    values.iter().enumerate().map(|(i, v)| if signs >> i & 1 == 1 { -v } else { *v }).sum()
}

fn bootstrap(differences: &[f64]) -> [f64; 2] {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let n = differences.len();
    let mean = |rng: &mut ChaCha8Rng| (0..n).map(|_| differences[rng.random_range(0..n)]).sum::<f64>() / n as f64;
    let mut means: Vec<f64> = (0..DRAWS).map(|_| mean(&mut rng)).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((DRAWS - 1) as f64 * share).round() as usize];
    [at(0.025), at(0.975)]
}

/// Holm's correction (1979): the p values as if each had been tested alone, none below that of a smaller one.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![0.0; p.len()];
    let mut floor: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        floor = floor.max(p[i] * (p.len() - rank) as f64).min(1.0);
        corrected[i] = floor;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_queries_are_tested_exactly() {
        let pairs = |d: &[f64]| d.iter().map(|d| (0.0, *d)).collect::<Vec<_>>();
        // Of the eight signs of 1, 2, 3 only all-plus and all-minus reach 6.
        let found = compare(&pairs(&[1.0, 2.0, 3.0, 0.0])).unwrap();
        assert_eq!((found.p, found.queries, found.wins, found.ties, found.losses), (0.25, 4, 3, 1, 0));
        assert_eq!(compare(&pairs(&[0.0, 0.0])).unwrap().p, 1.0);
        assert_eq!(compare(&[]), None);
    }

    #[test]
    fn drawn_signs_agree_with_all_signs() {
        let differences = [0.3, -0.1, 0.25, 0.4, -0.05, 0.15, 0.2, -0.3, 0.1, 0.35, 0.05, -0.15];
        let (exact, drawn) = (randomization(&differences, 14), randomization(&differences, 0));
        // Three standard errors of 20,000 draws.
        let error = 3.0 * (exact * (1.0 - exact) / DRAWS as f64).sqrt();
        assert!((exact - drawn).abs() < error + 1e-4, "{exact} and {drawn}");
        assert_eq!(drawn, randomization(&differences, 0), "the same values give the same figure");
    }

    #[test]
    fn the_interval_is_about_two_standard_errors_wide() {
        let differences: Vec<f64> = (0..200).map(|i| f64::from(i % 10) / 10.0 - 0.4).collect();
        let [low, high] = bootstrap(&differences);
        let (mean, error) = (0.05, (0.0825f64 / 200.0).sqrt());
        assert!((low - (mean - 1.96 * error)).abs() < 0.003 && (high - (mean + 1.96 * error)).abs() < 0.003, "{low} {high}");
    }

    #[test]
    fn holm_corrects_and_keeps_the_order() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        assert!(corrected.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{corrected:?}");
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }
}
