//! Dropout whose mask is a function of where an element stands: nothing is stored, and the backward pass, a resumed training or a second pass over
//! the same batch finds the same mask.

use crate::Pool;
use crate::isa::versions;
use crate::pool::blocks;
use crate::simd::{Vector, Words};

/// Which elements one layer drops in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Differs from step to step.
    pub seed: u64,
    /// Differs from layer to layer.
    pub site: u32,
    /// Of an element becoming 0, at least 0 and below 1.
    pub probability: f32,
}

/// What elements of one row have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    start: u32,
    key: u32,
    threshold: u32,
}

impl Dropout {
    /// Whether an element is kept.
    pub fn keeps(self, row: u64, column: u32) -> bool {
        self.row(row).keeps(column)
    }

    /// What kept elements are multiplied by.
    pub fn factor(self) -> f32 {
        1.0 / (1.0 - self.probability)
    }

    #[inline(always)]
    pub(crate) fn row(self, row: u64) -> Row {
        let h = mix(mix(self.seed ^ mix(u64::from(self.site) + 1)).wrapping_add(row));
        // Exact for every probability, as an f32 below 1 has 24 bits.
        let threshold = (f64::from(self.probability) * 4_294_967_296.0) as u32;
        Row { start: h as u32, key: (h >> 32) as u32, threshold }
    }
}

impl Row {
    /// Two rounds of multiplication and shifting, in which every bit of the column reaches every bit of the result, with the row's key between
    /// them: without it, rows would be windows of one sequence.
    #[inline(always)]
    pub(crate) fn keeps(self, column: u32) -> bool {
        let mut h = column.wrapping_mul(SPREAD).wrapping_add(self.start);
        h ^= h >> 16;
        h = h.wrapping_mul(FIRST) ^ self.key;
        h ^= h >> 15;
        h = h.wrapping_mul(SECOND);
        h ^= h >> 16;
        h >= self.threshold
    }

    /// `yes` where elements from `column` on are kept, 0 elsewhere.
    #[inline(always)]
    pub(crate) fn mask<V: Vector>(self, column: u32, yes: V) -> V {
        let spread = V::Words::count(column).mul(Words::splat(SPREAD));
        hash(spread, Words::splat(self.start), Words::splat(self.key)).select_reaches(
            Words::splat(self.threshold),
            yes,
            V::zero(),
        )
    }
}

/// 16 rows side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    start: [u32; 16],
    key: [u32; 16],
    threshold: u32,
}

impl Rows {
    pub(crate) fn new(rows: [Row; 16]) -> Self {
        Rows { start: rows.map(|r| r.start), key: rows.map(|r| r.key), threshold: rows[0].threshold }
    }

    /// `yes` where the rows' element of `column` is kept, 0 elsewhere.
    #[inline(always)]
    pub(crate) fn mask<V: Vector>(&self, column: u32, yes: V) -> V {
        let spread = V::Words::splat(column.wrapping_mul(SPREAD));
        hash(spread, Words::load(&self.start), Words::load(&self.key)).select_reaches(
            Words::splat(self.threshold),
            yes,
            V::zero(),
        )
    }
}

/// As in [`Row::keeps`], of columns that were multiplied by [`SPREAD`].
#[inline(always)]
fn hash<W: Words>(spread: W, start: W, key: W) -> W {
    let mut h = spread.add(start);
    h = h.xor(h.shift_right::<16>());
    h = h.mul(Words::splat(FIRST)).xor(key);
    h = h.xor(h.shift_right::<15>());
    h = h.mul(Words::splat(SECOND));
    h.xor(h.shift_right::<16>())
}

const SPREAD: u32 = 0x9e37_79b1;
const FIRST: u32 = 0x7feb_352d;
const SECOND: u32 = 0x846c_a68b;

/// The finalizer of splitmix64 (Steele, Lea and Flood, 2014).
#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `y = x / (1 − probability)` where the element is kept, 0 elsewhere, for rows of `width` elements; row r of `x` is row r of the mask. The gradient is the
/// same function of the gradient of y.
///
/// # Panics
/// The lengths differ, are no multiple of `width`, or the probability is not from 0 to below 1.
pub fn dropout(pool: &dyn Pool, dropout: Dropout, width: usize, x: &[f32], y: &mut [f32]) {
    assert!(x.len() == y.len() && (x.is_empty() || x.len().is_multiple_of(width)), "dropout of rows of {width}");
    assert!((0.0..1.0).contains(&dropout.probability), "dropout with the probability {}", dropout.probability);
    if x.is_empty() {
        return;
    }
    let rows = (1usize << 14).div_ceil(width);
    let isa = pool.isa();
    blocks(pool, y, rows * width, |i, y| drop_rows(isa, dropout, width, (i * rows) as u64, &x[i * rows * width..][..y.len()], y));
}

versions! {
    fn drop_rows<V>(dropout: Dropout, width: usize, first: u64, x: &[f32], y: &mut [f32]) {
        let factor = V::splat(dropout.factor());
        for (r, (x, y)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
            let row = dropout.row(first + r as u64);
            for (i, (x, y)) in x.chunks(16).zip(y.chunks_mut(16)).enumerate() {
                V::load_some(x).mul(row.mask(i as u32 * 16, factor)).store_some(y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;
    use crate::testing::{Random, all_isas};

    const ROWS: usize = 400;
    const WIDTH: usize = 384;

    fn mask(seed: u64, site: u32, probability: f32) -> Vec<bool> {
        let dropout = Dropout { seed, site, probability };
        (0..ROWS * WIDTH).map(|i| dropout.keeps((i / WIDTH) as u64, (i % WIDTH) as u32)).collect()
    }

    /// How often two events happen together, in standard deviations from what independence gives.
    fn dependence(a: &[bool], b: &[bool]) -> f64 {
        let n = a.len() as f64;
        let share = |x: &[bool]| x.iter().filter(|x| **x).count() as f64 / n;
        let both = a.iter().zip(b).filter(|(a, b)| **a && **b).count() as f64 / n;
        let (p, q) = (share(a), share(b));
        (both - p * q) / (p * (1.0 - p) * q * (1.0 - q) / n).sqrt()
    }

    #[test]
    fn drops_the_share_that_is_asked_for() {
        for probability in [0.0, 0.1, 0.5, 0.9] {
            let n = (ROWS * WIDTH) as f64;
            for seed in 0..8 {
                let dropped = mask(seed, 1, probability).iter().filter(|kept| !**kept).count() as f64;
                let p = f64::from(probability);
                assert!((dropped - n * p).abs() <= 4.5 * (n * p * (1.0 - p)).sqrt(), "{dropped} of {n} for {p}");
            }
        }
    }

    #[test]
    fn every_row_and_every_column_drops_the_same_share() {
        let mask = mask(5, 3, 0.1);
        let chi = |counts: Vec<f64>, n: f64| {
            let sum: f64 = counts.iter().map(|c| (c - 0.1 * n).powi(2) / (n * 0.09)).sum();
            (sum - counts.len() as f64) / (2.0 * counts.len() as f64).sqrt()
        };
        let dropped = |part: &mut dyn Iterator<Item = &bool>| part.filter(|kept| !**kept).count() as f64;
        let rows = mask.chunks(WIDTH).map(|row| dropped(&mut row.iter())).collect();
        let columns = (0..WIDTH).map(|c| dropped(&mut mask.iter().skip(c).step_by(WIDTH))).collect();
        assert!(chi(rows, WIDTH as f64).abs() < 4.5);
        assert!(chi(columns, ROWS as f64).abs() < 4.5);
    }

    #[test]
    fn elements_rows_sites_and_seeds_are_independent() {
        for (seed, site) in [(0, 0), (1, 0), (12_345, 7)] {
            let one = mask(seed, site, 0.3);
            for lag in [1, 2, 3, 16, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH, 12 * WIDTH] {
                assert!(dependence(&one[lag..], &one[..one.len() - lag]).abs() < 4.5, "a lag of {lag}");
            }
            for other in [mask(seed + 1, site, 0.3), mask(seed, site + 1, 0.3), mask(seed + 1, site + 1, 0.3)] {
                assert!(dependence(&one, &other).abs() < 4.5);
            }
        }
    }

    #[test]
    fn applies_the_mask_alike_everywhere() {
        for width in [1, 20, 384] {
            let x = Random(1).normals(50 * width);
            let setting = Dropout { seed: 9, site: 2, probability: 0.25 };
            let expected: Vec<f32> = x
                .iter()
                .enumerate()
                .map(|(i, x)| if setting.keeps((i / width) as u64, (i % width) as u32) { x * setting.factor() } else { 0.0 })
                .collect();
            for isa in all_isas() {
                for threads in [1, 2, 3] {
                    let mut y = vec![f32::NAN; x.len()];
                    dropout(&Threads { threads, isa }, setting, width, &x, &mut y);
                    assert_eq!(y, expected, "{isa}");
                }
            }
        }
    }
}
