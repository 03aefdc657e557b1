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
        let mut h = V::Words::count(column).mul(Words::splat(SPREAD)).add(Words::splat(self.start));
        h = h.xor(h.shift_right::<16>());
        h = h.mul(Words::splat(FIRST)).xor(Words::splat(self.key));
        h = h.xor(h.shift_right::<15>());
        h = h.mul(Words::splat(SECOND));
        h = h.xor(h.shift_right::<16>());
        h.select_reaches(Words::splat(self.threshold), yes, V::zero())
    }
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
