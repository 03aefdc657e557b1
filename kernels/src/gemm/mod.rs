//! Matrix products, of operands rounded to bf16 or in fp32; sums are in fp32. The order in which an element is summed up depends on the length of
//! the sum alone, not on how the work is shared out.

mod epilogue;
mod lines;
mod packed;

use std::ops::Range;

pub use epilogue::Then;
use epilogue::{Epilogue, Size, finish};
pub use lines::{Before, normalize, normalize_gradient};
pub use packed::PackedB;
pub(crate) use packed::pack_panel;

use crate::isa::versions;
use crate::matrix::{Matrix, NumberParts, Numbers, NumbersMut, fence};
use crate::micro::Multiplier;
use crate::pool::{Buffer, Parts, blocks};
use crate::tile::{Order, Tile};
use crate::{Isa, Pool, Precision};

/// Steps along the sum between loading and storing a block of sums: 32 rows of the left matrix then fill most of a first-level cache.
const DEPTH: usize = 16;
/// Rows and columns that one product in registers has.
const SIDE: usize = 32;
/// So many of them side by side are written row by row, which memory likes better than block by block.
const GROUP: usize = 4;

/// `C [m, n] = A [m, k] · B [k, n]`, and what follows; see [`multiply`].
///
/// # Panics
/// The shapes do not fit each other.
pub fn gemm<'c>(pool: &dyn Pool, precision: Precision, a: Matrix, b: Matrix, then: Then, c: impl Into<NumbersMut<'c>>) {
    multiply(pool, &[a], &PackedB::pack(pool, precision, b), then, None, c);
}

/// The sum of the products of the matrices `a`, `[m, kᵢ]`, with those that `b` was packed from. With `sums` `[m]`, the sums of the rows of the
/// first of `a` (in fp32) are written there on the way: of `dYᵀ`, the gradient of a bias.
///
/// # Panics
/// The shapes do not fit each other.
pub fn multiply<'c>(
    pool: &dyn Pool,
    a: &[Matrix],
    b: &PackedB,
    then: Then,
    sums: Option<&mut [f32]>,
    c: impl Into<NumbersMut<'c>>,
) {
    let (m, n) = (a[0].rows, b.columns());
    compute(pool, a, b, Epilogue::new(then, m, n), sums, c.into());
}

fn compute(pool: &dyn Pool, a: &[Matrix], b: &PackedB, epilogue: Epilogue, sums: Option<&mut [f32]>, c: NumbersMut) {
    let (m, n) = (a[0].rows, b.columns());
    assert!(a.iter().all(|a| a.rows == m), "left matrices of as many rows");
    assert!(a.iter().map(|a| a.columns).eq(b.rows().iter().copied()), "the columns of A and the rows of B");
    assert_eq!(c.len(), m * n, "the size of the product");
    if let Some(sums) = &sums {
        assert_eq!(sums.len(), m, "the sums of the rows of A");
    }
    let grid = Grid::choose(pool.threads(), b.precision(), m, n, b.steps(), epilogue.wants_lines());
    let product = Product {
        isa: pool.isa(),
        a,
        b,
        chunks: chunks(a, b.precision()),
        grid,
        epilogue,
        c: NumberParts::new(c),
        sums: sums.map(Parts::new),
    };
    pool.run(grid.tasks(m, n), &|task| product.block(task));
}

/// The gradients of a linear layer's weight `[out, in]` and bias `[out]`, from `dy` `[tokens, out]` and `x` `[tokens, in]`: dyᵀ·x and the sums of dy's
/// columns.
///
/// # Panics
/// The shapes do not fit each other.
pub fn weight_gradient(pool: &dyn Pool, precision: Precision, dy: Matrix, x: Matrix, weight: &mut [f32], bias: &mut [f32]) {
    // The wider one goes through the caches once, while the other is packed as a whole before.
    if dy.columns >= x.columns {
        return multiply(pool, &[dy.t()], &PackedB::pack(pool, precision, x), Then::Store, Some(bias), weight);
    }
    multiply(pool, &[x.t()], &PackedB::pack(pool, precision, dy), Then::Transpose, None, weight);
    let isa = pool.isa();
    let rows = bias.len();
    assert_eq!(rows, dy.columns, "the sums of columns");
    blocks(pool, bias, LINES, |i, sums| {
        sums.fill(0.0);
        add_lines(isa, dy.t(), i * LINES..rows.min((i + 1) * LINES), 0..dy.rows, sums);
    });
}

/// Columns that are summed up together.
const LINES: usize = 64;

/// Steps along the sum that are taken without a stop.
struct Chunk {
    /// Number of the left matrix.
    matrix: usize,
    /// Steps of this matrix.
    steps: Range<usize>,
    /// The first of them in the right matrix.
    first: usize,
}

/// At least one, so that an empty sum is written too.
fn chunks(a: &[Matrix], precision: Precision) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut first = 0;
    for (matrix, a) in a.iter().enumerate() {
        let all = a.columns.div_ceil(precision.step());
        chunks.extend((0..all).step_by(DEPTH).map(|start| {
            let steps = start..all.min(start + DEPTH);
            Chunk { matrix, first: first + start, steps }
        }));
        first += all;
    }
    if chunks.is_empty() {
        chunks.push(Chunk { matrix: 0, steps: 0..0, first: 0 });
    }
    chunks
}

/// How the product is cut into tasks.
#[derive(Debug, Clone, Copy)]
struct Grid {
    rows: usize,
    columns: usize,
}

impl Grid {
    /// The block that should take the least time by a rough count: products, the packing of A, which each column of blocks repeats, and the
    /// reading of B, which each row of blocks repeats. With `lines`, a block has whole rows.
    fn choose(threads: usize, precision: Precision, m: usize, n: usize, steps: usize, lines: bool) -> Self {
        // Nanoseconds for a product of 32 × 32 by one step, for a step of 32 packed rows, and for a step of 32 packed columns.
        let (product, left, right) = match precision {
            Precision::Bf16 => (50.0, 250.0, 100.0),
            Precision::Fp32 => (400.0, 250.0, 100.0),
        };
        let (m, n) = (m.div_ceil(SIDE).max(1), n.div_ceil(SIDE).max(1));
        let mut best = (f64::INFINITY, Grid { rows: SIDE, columns: if lines { n * SIDE } else { SIDE } });
        for cuts in 1..=if lines { 1 } else { n.min(32) } {
            let columns = n.div_ceil(cuts);
            for rows in [1, 2, 3, 4, 6, 8] {
                // Sums between depths stay in the second-level cache.
                if rows > m.max(4) || (steps > DEPTH && rows * columns > 128) {
                    continue;
                }
                let tasks = m.div_ceil(rows) * n.div_ceil(columns);
                let block = (rows * columns) as f64 * product + rows as f64 * left + columns as f64 * right;
                let time = tasks.div_ceil(threads.max(1)) as f64 * block * steps as f64;
                if time < best.0 {
                    best = (time, Grid { rows: rows * SIDE, columns: columns * SIDE });
                }
            }
        }
        best.1
    }

    fn tasks(self, m: usize, n: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.columns)
    }
}

struct Product<'a> {
    isa: Isa,
    a: &'a [Matrix<'a>],
    b: &'a PackedB,
    chunks: Vec<Chunk>,
    grid: Grid,
    epilogue: Epilogue<'a>,
    c: NumberParts<'a>,
    sums: Option<Parts<'a, f32>>,
}

impl Product<'_> {
    /// One block of the result.
    fn block(&self, task: usize) {
        let (m, n) = (self.a[0].rows, self.b.columns());
        let across = n.div_ceil(self.grid.columns);
        let (row, column) = (task / across * self.grid.rows, task % across * self.grid.columns);
        let rows = row..m.min(row + self.grid.rows);
        let columns = column..n.min(column + self.grid.columns);
        let (high, wide) = (rows.len().div_ceil(SIDE), columns.len().div_ceil(SIDE));
        let whole = self.chunks.len() == 1;
        let group = if self.epilogue.wants_lines() { wide } else { GROUP.min(wide) }.max(1);

        let multiplier = Multiplier::new(self.isa, self.b.precision());
        let deepest = self.chunks.iter().map(|chunk| chunk.steps.len()).max().unwrap_or(0);
        let mut left = Buffer::<u32>::new(high * deepest * 2);
        // Of all rows between chunks, else of some blocks until they are written.
        let mut results = Buffer::<f32>::new(if whole { group * 4 } else { high * wide * 4 });
        let mut slopes = Buffer::<f32>::new(if self.epilogue.has_slope() { group * 4 } else { 0 });
        for (number, chunk) in self.chunks.iter().enumerate() {
            let (is_first, is_last) = (number == 0, number + 1 == self.chunks.len());
            let panel = chunk.steps.len() * 2;
            // The first block of a row of blocks sums up.
            // SAFETY: such blocks have rows of their own.
            let sums = self.sums.as_ref().filter(|_| column == 0).map(|sums| unsafe { sums.part(rows.clone()) });
            self.pack_left(rows.clone(), chunk, &mut left[..high * panel], sums);
            for (i, row) in rows.clone().step_by(SIDE).enumerate() {
                let rows = row..rows.end.min(row + SIDE);
                let left = &left[i * panel..(i + 1) * panel];
                let right = |column: usize| self.b.panel(column / SIDE, chunk.first..chunk.first + chunk.steps.len());
                if whole && self.straight(&multiplier, left, right, &rows, &columns) {
                    continue;
                }
                for (j, column) in columns.clone().step_by(group * SIDE).enumerate() {
                    let columns = column..columns.end.min(column + group * SIDE);
                    let results = &mut results[if whole { 0 } else { (i * wide + j * group) * 4 }..];
                    for (column, sums) in columns.clone().step_by(SIDE).zip(results.as_chunks_mut().0) {
                        if is_last {
                            self.epilogue.expect(n, rows.clone(), column..columns.end.min(column + SIDE));
                        }
                        multiplier.multiply(left, right(column), sums, !is_first);
                    }
                    if is_last {
                        finish(self.isa, &self.epilogue, &self.c, Size { m, n }, rows.clone(), columns, results, &mut slopes);
                    }
                }
            }
        }
        fence();
    }

    /// Writes whole blocks of 32 × 32 without a stop in tiles, if that can be: `false` if not.
    fn straight<'b>(
        &self,
        multiplier: &Multiplier,
        left: &[Tile<u32>],
        right: impl Fn(usize) -> &'b [Tile<u32>],
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let (Some(tiles), NumberParts::Fp32(c), true) = (multiplier.straight(), &self.c, self.epilogue.is_plain()) {
            use crate::amx::Start;
            if rows.len() != SIDE || !columns.len().is_multiple_of(SIDE) || left.is_empty() {
                return false;
            }
            let n = self.b.columns();
            for column in columns.clone().step_by(SIDE) {
                let next = columns.end.min(column + SIDE)..columns.end.min(column + 2 * SIDE);
                self.epilogue.expect(n, rows.clone(), next);
                for row in rows.clone() {
                    c.expect(row * n + column);
                    c.expect(row * n + column + 16);
                }
                let part = rows.start * n + column..(rows.end - 1) * n + column + SIDE;
                let start = match (self.epilogue.bias, self.epilogue.summand) {
                    (Some(bias), _) => Start::At(bias[column..column + SIDE].as_ptr(), 0),
                    (_, Some(summand)) => Start::At(summand[part.clone()].as_ptr(), n),
                    _ => Start::Zero,
                };
                // SAFETY: `part` and what follows its rows are within C, and this block of it is this task's alone; the bias has 32 numbers,
                // the summand is of the size of C.
                unsafe { tiles.multiply_to(left, right(column), start, c.place(part), n) };
            }
            return true;
        }
        let _ = (multiplier, left, right, rows, columns);
        false
    }

    /// Panel after panel of 32 rows of A, in the order in which they lie in memory, and their sums.
    fn pack_left(&self, rows: Range<usize>, chunk: &Chunk, tiles: &mut [Tile<u32>], sums: Option<&mut [f32]>) {
        let (isa, a, precision, depth) = (self.isa, self.a[chunk.matrix], self.b.precision(), chunk.steps.clone());
        let panel = depth.len() * 2;
        let mut sums = sums.filter(|_| chunk.matrix == 0);
        if let Some(sums) = sums.as_deref_mut().filter(|_| depth.start == 0) {
            sums.fill(0.0);
        }
        if !a.transposed {
            for (row, tiles) in rows.clone().step_by(SIDE).zip(tiles.chunks_exact_mut(panel.max(1))) {
                pack_panel(isa, precision, a, Order::Left, row, depth.clone(), tiles);
            }
            let columns = depth.start * precision.step()..a.columns.min(depth.end * precision.step());
            for (sum, row) in sums.into_iter().flatten().zip(rows) {
                *sum += total(isa, a.line(row), columns.clone());
            }
            return;
        }
        for (i, step) in depth.enumerate() {
            for (row, tiles) in rows.clone().step_by(SIDE).zip(tiles.chunks_exact_mut(panel)) {
                pack_panel(isa, precision, a, Order::Left, row, step..step + 1, &mut tiles[i * 2..i * 2 + 2]);
            }
            if let Some(sums) = sums.as_deref_mut() {
                let columns = step * precision.step()..a.columns.min((step + 1) * precision.step());
                add_lines(isa, a, rows.clone(), columns, sums);
            }
        }
    }
}

versions! {
    /// The sum of some numbers of a row.
    fn total<V>(line: Numbers, columns: Range<usize>) -> f32 {
        let starts = columns.clone().step_by(16);
        starts.fold(V::zero(), |sum, at| sum.add(line.load(at..columns.end.min(at + 16)))).sum()
    }
}

versions! {
    /// Adds columns of a transposed matrix, which are rows in memory, to `sums`.
    fn add_lines<V>(a: Matrix, rows: Range<usize>, columns: Range<usize>, sums: &mut [f32]) {
        // Blocks that stay in registers over all columns.
        for (i, sums) in sums.chunks_mut(LINES).enumerate() {
            let (start, len) = (rows.start + i * LINES, sums.len());
            let mut block = [V::zero(); LINES / 16];
            for at in columns.clone() {
                let line = a.data.part(at * a.stride + start..at * a.stride + start + len);
                for (sum, from) in block.iter_mut().zip((0..len).step_by(16)) {
                    *sum = sum.add(line.load(from..len.min(from + 16)));
                }
            }
            for (block, sums) in block.into_iter().zip(sums.chunks_mut(16)) {
                V::load_some(sums).add(block).store_some(sums);
            }
        }
    }
}

#[cfg(test)]
mod tests;
