//! The innermost product: 32 rows by 32 columns.

#[cfg(target_arch = "x86_64")]
use crate::amx::Tiles;
use crate::simd::Vector;
use crate::tile::{Precision, Tile};
use crate::{Isa, isa::versions};

/// Multiplies tiles, on the thread that made it.
pub struct Multiplier {
    isa: Isa,
    precision: Precision,
    #[cfg(target_arch = "x86_64")]
    tiles: Option<Tiles>,
}

impl Multiplier {
    pub fn new(isa: Isa, precision: Precision) -> Self {
        Multiplier {
            isa,
            precision,
            #[cfg(target_arch = "x86_64")]
            tiles: if isa.has_amx() && precision == Precision::Bf16 { Tiles::configure() } else { None },
        }
    }

    /// `c = a·b`, or `c += a·b` when `add`, for 32 rows and columns: `a` and `b` hold two tiles for each step along the sum, `c` the upper two and
    /// the lower two.
    #[inline]
    pub fn multiply(&self, a: &[Tile<u32>], b: &[Tile<u32>], c: &mut [Tile<f32>; 4], add: bool) {
        let steps = a.len() / 2;
        assert!(b.len() == 2 * steps, "operands of {} and {} tiles", a.len(), b.len());
        if steps == 0 {
            if !add {
                c.iter_mut().for_each(|tile| tile.0.fill(0.0));
            }
            return;
        }
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(tiles) = &self.tiles {
                return tiles.multiply(a, b, steps, c, add);
            }
            if self.precision == Precision::Bf16 && self.isa.has_bf16() {
                // SAFETY: an `Isa` exists only for what the processor has; the operands have `2 * steps` tiles.
                return unsafe { crate::avx512::multiply_pairs(a, b, steps, c, add) };
            }
            if self.precision == Precision::Fp32 && self.isa.has_avx512() {
                // SAFETY: as above.
                return unsafe { crate::avx512::multiply_words(a, b, steps, c, add) };
            }
        }
        match self.precision {
            Precision::Fp32 => multiply_words(self.isa, a, b, c, add),
            Precision::Bf16 => multiply_pairs(self.isa, a, b, c, add),
        }
    }
}

/// Products that go straight to their place, without a stop in tiles: only AMX has them.
#[cfg(target_arch = "x86_64")]
impl Multiplier {
    pub fn straight(&self) -> Option<&Tiles> {
        self.tiles.as_ref()
    }
}

/// Rows that stay in registers together.
const ROWS: usize = 4;

versions! {
    fn multiply_words<V>(a: &[Tile<u32>], b: &[Tile<u32>], c: &mut [Tile<f32>; 4], add: bool) {
        strips::<V>(a, b, c, add, #[inline(always)] |sums: &mut [V; ROWS], a: [u32; ROWS], b: &[u32; 16]| {
            let b = V::load(&b.map(f32::from_bits));
            for (sum, a) in sums.iter_mut().zip(a) {
                *sum = V::splat(f32::from_bits(a)).fma(b, *sum);
            }
        });
    }
}

versions! {
    fn multiply_pairs<V>(a: &[Tile<u32>], b: &[Tile<u32>], c: &mut [Tile<f32>; 4], add: bool) {
        strips::<V>(a, b, c, add, #[inline(always)] |sums: &mut [V; ROWS], a: [u32; ROWS], b: &[u32; 16]| {
            let first = V::load(&b.map(|b| f32::from_bits(b << 16)));
            let second = V::load(&b.map(|b| f32::from_bits(b & !0xffff)));
            for (sum, a) in sums.iter_mut().zip(a) {
                let first = V::splat(f32::from_bits(a << 16)).fma(first, *sum);
                *sum = V::splat(f32::from_bits(a & !0xffff)).fma(second, first);
            }
        });
    }
}

/// Goes through the 32 × 32 sums in strips of [`ROWS`] by 16; `step` adds the products of one word of each row and 16 columns.
#[inline(always)]
fn strips<V: Vector>(
    a: &[Tile<u32>],
    b: &[Tile<u32>],
    c: &mut [Tile<f32>; 4],
    add: bool,
    step: impl Fn(&mut [V; ROWS], [u32; ROWS], &[u32; 16]),
) {
    for (i, c) in c.iter_mut().enumerate() {
        let (upper, right) = (i / 2, i % 2);
        for row in (0..16).step_by(ROWS) {
            let mut sums = [V::zero(); ROWS];
            if add {
                sums = std::array::from_fn(|r| V::load(c.row(row + r)));
            }
            for (a, b) in a.chunks_exact(2).zip(b.chunks_exact(2)) {
                for word in 0..16 {
                    let rows = std::array::from_fn(|r| a[upper].0[(row + r) * 16 + word]);
                    step(&mut sums, rows, b[right].row(word));
                }
            }
            for (r, sum) in sums.into_iter().enumerate() {
                sum.store(c.row_mut(row + r));
            }
        }
    }
}
