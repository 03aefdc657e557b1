//! Operands of matrix products, cut into tiles of 16 lines (rows of the left matrix, columns of the right one) by 16 words along the sum. A word is
//! one fp32 number, or two bf16 numbers that follow each other along the sum. Tiles at the edges are filled up with zeros.

use crate::Isa;
use crate::math::bf16;

/// 16 × 16 words.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile<T>(pub [T; 256]);

/// What the operands of products are rounded to; sums are in fp32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Fp32,
    /// 8 bits of mantissa, rounded to nearest, ties to even. Denormal numbers may count as zero.
    Bf16,
}

impl Precision {
    /// How many numbers along the sum a tile holds.
    pub(crate) fn step(self) -> usize {
        match self {
            Precision::Fp32 => 16,
            Precision::Bf16 => 32,
        }
    }
}

/// How a tile lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `[line][word]`: the left matrix.
    Left,
    /// `[word][line]`: the right matrix.
    Right,
}

/// Numbers that a tile is filled with: row after row, `stride` apart.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    /// Whether rows are steps along the sum; lines otherwise.
    pub along: bool,
    /// Lines and steps along the sum that there are; the rest is zero.
    pub lines: usize,
    pub steps: usize,
}

/// Fills `tile`.
#[inline]
pub fn pack(isa: Isa, precision: Precision, order: Order, source: Source, tile: &mut Tile<u32>) {
    let (lines, step) = (source.lines.min(16), source.steps.min(precision.step()));
    if lines == 16 && step == precision.step() {
        return pack_full(isa, precision, order, source, tile);
    }
    let mut edge = [0.0; 16 * 32];
    let (rows, width, full) = if source.along { (step, lines, 16) } else { (lines, step, precision.step()) };
    for row in 0..rows {
        edge[row * full..row * full + width].copy_from_slice(&source.data[row * source.stride..row * source.stride + width]);
    }
    pack_full(isa, precision, order, Source { data: &edge, stride: full, ..source }, tile);
}

fn pack_full(isa: Isa, precision: Precision, order: Order, source: Source, tile: &mut Tile<u32>) {
    // Lines of words as they come from memory are transposed when the tile wants the other order.
    let transposed = source.along == (order == Order::Left);
    let (rows, width) = if source.along { (precision.step(), 16) } else { (16, precision.step()) };
    let data = &source.data[..(rows - 1) * source.stride + width];
    #[cfg(target_arch = "x86_64")]
    {
        use crate::avx512;
        if isa.has_avx512() && (precision == Precision::Fp32 || isa.has_bf16()) {
            // SAFETY: an `Isa` exists only for what the processor has; `data` holds `rows` rows of `width`, `stride` apart.
            unsafe {
                match (precision, source.along) {
                    (Precision::Fp32, _) => avx512::pack_words(data, source.stride, transposed, tile),
                    (Precision::Bf16, true) => avx512::pack_pairs_along(data, source.stride, transposed, tile),
                    (Precision::Bf16, false) => avx512::pack_pairs(data, source.stride, transposed, tile),
                }
            }
            return;
        }
    }
    let _ = isa;
    let number = |line: usize, step: usize| {
        let (row, column) = if source.along { (step, line) } else { (line, step) };
        data[row * source.stride + column]
    };
    for i in 0..16 {
        for j in 0..16 {
            let (line, word) = if order == Order::Left { (i, j) } else { (j, i) };
            tile.0[i * 16 + j] = match precision {
                Precision::Fp32 => number(line, word).to_bits(),
                Precision::Bf16 => u32::from(bf16(number(line, 2 * word))) | u32::from(bf16(number(line, 2 * word + 1))) << 16,
            };
        }
    }
}
