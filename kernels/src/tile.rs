//! Operands of matrix products, cut into tiles of 16 lines (rows of the left matrix, columns of the right one) by 16 words along the sum. A word is
//! one fp32 number, or two bf16 numbers that follow each other along the sum. Tiles at the edges are filled up with zeros.

use crate::Isa;
use crate::isa::versions;
use crate::matrix::Numbers;
use crate::pool::Kept;
use crate::simd::{Plain, Vector, pair};

/// 16 × 16 words.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile<T>(pub [T; 256]);

impl<T> Tile<T> {
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[T; 16] {
        &self.0.as_chunks().0[row]
    }

    #[inline(always)]
    pub fn row_mut(&mut self, row: usize) -> &mut [T; 16] {
        &mut self.0.as_chunks_mut().0[row]
    }
}

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
    pub data: Numbers<'a>,
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
        let (from, to) = (source.data.from(row * source.stride), &mut edge[row * full..][..width]);
        for (at, to) in (0..width).step_by(16).zip(to.chunks_mut(16)) {
            from.load::<Plain>(at..at + to.len()).store_some(to);
        }
    }
    pack_full(isa, precision, order, Source { data: Numbers::Fp32(&edge), stride: full, ..source }, tile);
}

/// Fills two tiles a step for 32 whole lines that lie in rows of `data`, line by line, which memory likes better than tile by tile. `false`:
/// there is nothing better here.
#[inline]
pub fn pack_lines(isa: Isa, precision: Precision, data: Numbers, stride: usize, tiles: &mut [Tile<u32>]) -> bool {
    let width = tiles.len() / 2 * precision.step();
    if precision == Precision::Fp32 {
        words_of_lines(isa, data, stride, tiles);
        return true;
    }
    if let (Numbers::Bf16(data), Precision::Bf16) = (data, precision) {
        for row in 0..32 {
            let line = &data[row * stride..][..width];
            for (numbers, pair) in line.as_chunks::<32>().0.iter().zip(tiles.chunks_exact_mut(2)) {
                let words = pair[row / 16].row_mut(row % 16);
                *words = std::array::from_fn(|i| u32::from(numbers[2 * i]) | u32::from(numbers[2 * i + 1]) << 16);
            }
        }
        return true;
    }
    #[cfg(target_arch = "x86_64")]
    if let (Numbers::Fp32(data), Precision::Bf16, true) = (data, precision, isa.has_bf16()) {
        for row in 0..32 {
            // SAFETY: an `Isa` exists only for what the processor has.
            unsafe { crate::avx512::pack_line(&data[row * stride..][..width], row, tiles) };
        }
        return true;
    }
    let _ = (isa, precision, data, stride, tiles);
    false
}

versions! {
    fn words_of_lines<V>(data: Numbers, stride: usize, tiles: &mut [Tile<u32>]) {
        for row in 0..32 {
            let line = data.part(row * stride..row * stride + tiles.len() * 8);
            for (i, pair) in tiles.chunks_exact_mut(2).enumerate() {
                let numbers = line.load::<V>(i * 16..i * 16 + 16);
                *pair[row / 16].row_mut(row % 16) = numbers.array().map(f32::to_bits);
            }
        }
    }
}

fn pack_full(isa: Isa, precision: Precision, order: Order, source: Source, tile: &mut Tile<u32>) {
    let (rows, width) = if source.along { (precision.step(), 16) } else { (16, precision.step()) };
    let data = source.data.part(0..(rows - 1) * source.stride + width);
    #[cfg(target_arch = "x86_64")]
    {
        use crate::avx512;
        // Lines of words as they come from memory are transposed when the tile wants the other order.
        let (stride, transposed) = (source.stride, source.along == (order == Order::Left));
        // SAFETY: an `Isa` exists only for what the processor has; `data` holds `rows` rows of `width`, `stride` apart.
        unsafe {
            match (data, precision, source.along) {
                (Numbers::Fp32(data), Precision::Fp32, _) if isa.has_avx512() => {
                    return avx512::pack_words(data, stride, transposed, tile);
                }
                (Numbers::Bf16(data), Precision::Fp32, _) if isa.has_avx512() => {
                    return avx512::pack_widened(data, stride, transposed, tile);
                }
                (Numbers::Fp32(data), Precision::Bf16, true) if isa.has_bf16() => {
                    return avx512::pack_pairs_along(data, stride, transposed, tile);
                }
                (Numbers::Fp32(data), Precision::Bf16, false) if isa.has_bf16() => {
                    return avx512::pack_pairs(data, stride, transposed, tile);
                }
                (Numbers::Bf16(data), Precision::Bf16, true) if isa.has_avx512() => {
                    return avx512::pack_bf16_along(data, stride, transposed, tile);
                }
                (Numbers::Bf16(data), Precision::Bf16, false) if isa.has_avx512() => {
                    return avx512::pack_bf16(data, stride, transposed, tile);
                }
                _ => {}
            }
        }
    }
    let _ = isa;
    let number = |line: usize, step: usize| {
        let (row, column) = if source.along { (step, line) } else { (line, step) };
        match data {
            Numbers::Fp32(data) => data[row * source.stride + column],
            Numbers::Bf16(data) => f32::from_bits(u32::from(data[row * source.stride + column]) << 16),
        }
    };
    for i in 0..16 {
        for j in 0..16 {
            let (line, word) = if order == Order::Left { (i, j) } else { (j, i) };
            tile.0[i * 16 + j] = match precision {
                Precision::Fp32 => number(line, word).to_bits(),
                Precision::Bf16 => pair(number(line, 2 * word), number(line, 2 * word + 1)),
            };
        }
    }
}

/// Two rows, `row` and the next, of a result of 32 × 32 become rows of an operand of the next product, `out` having two tiles a step. Of the left matrix,
/// such rows are lines; of the right one, its columns are.
#[inline(always)]
pub fn store_rows<V: Vector>(precision: Precision, order: Order, row: usize, rows: [[V; 2]; 2], out: &mut [Tile<u32>]) {
    match (precision, order) {
        (Precision::Fp32, _) => {
            for (i, rows) in rows.into_iter().enumerate() {
                for (right, numbers) in rows.into_iter().enumerate() {
                    let tile = if order == Order::Left { right * 2 + row / 16 } else { row / 16 * 2 + right };
                    *out[tile].row_mut(row % 16 + i) = numbers.array().map(f32::to_bits);
                }
            }
        }
        (Precision::Bf16, Order::Left) => {
            for (i, [left, right]) in rows.into_iter().enumerate() {
                V::store_beside(left, right, out[row / 16].row_mut(row % 16 + i));
            }
        }
        (Precision::Bf16, Order::Right) => {
            for right in 0..2 {
                V::store_below(rows[0][right], rows[1][right], out[right].row_mut(row / 2));
            }
        }
    }
}

/// Makes the operand of 32 lines and 32 steps of the left matrix the right matrix, whose steps are those lines.
pub fn left_to_right(isa: Isa, precision: Precision, left: &[Tile<u32>], right: &mut [Tile<u32>]) {
    if precision == Precision::Fp32 {
        for (from, to) in [0, 2, 1, 3].into_iter().zip(right) {
            to.0 = left[from].0;
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        // SAFETY: an `Isa` exists only for what the processor has.
        return unsafe { crate::avx512::left_to_right(left, right) };
    }
    let _ = isa;
    for word in 0..16 {
        let line = |i: usize| left[word / 8].row(word % 8 * 2 + i);
        let (first, second) = (line(0), line(1));
        for step in 0..32 {
            let half = |word: u32| word >> (step % 2 * 16) & 0xffff;
            right[step / 16].row_mut(word)[step % 16] = half(first[step / 2]) | half(second[step / 2]) << 16;
        }
    }
}

/// Rows become columns.
pub fn transpose<T: Kept>(isa: Isa, tile: &Tile<T>, out: &mut Tile<T>) {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        // SAFETY: an `Isa` exists only for what the processor has.
        return unsafe { crate::avx512::transpose_tile(tile, out) };
    }
    let _ = isa;
    for i in 0..16 {
        for j in 0..16 {
            out.0[j * 16 + i] = tile.0[i * 16 + j];
        }
    }
}

/// A block of 32 × 32 whose rows become columns.
pub fn transpose_block(isa: Isa, block: &[Tile<f32>; 4]) -> [Tile<f32>; 4] {
    let mut out = [Tile([0.0; 256]); 4];
    for (i, to) in [0, 2, 1, 3].into_iter().zip(&mut out) {
        transpose(isa, &block[i], to);
    }
    out
}
