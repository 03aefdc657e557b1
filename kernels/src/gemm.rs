//! Matrix products, of operands rounded to bf16 or in fp32; sums are in fp32. The order in which an element is summed up depends on the length of
//! the sum alone, not on how the work is shared out.

use std::ops::Range;

use crate::activation::Activation;
use crate::isa::versions;
use crate::micro::Multiplier;
use crate::pool::{Buffer, Parts};
use crate::tile::{Order, Source, Tile, pack, pack_lines};
use crate::{Isa, Pool, Precision};

/// A matrix in memory, row after row.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// # Panics
    /// `data` does not have `rows · columns` numbers.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} × {columns}");
        Matrix { data, rows, columns, stride: columns, transposed: false }
    }

    /// Rows `stride` numbers apart, such as some columns of a wider matrix.
    ///
    /// # Panics
    /// `data` ends before the last row does.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            columns <= stride && (rows == 0 || (rows - 1) * stride + columns <= data.len()),
            "a matrix of {rows} × {columns}"
        );
        Matrix { data, rows, columns, stride, transposed: false }
    }

    /// The transpose: nothing moves.
    pub fn t(self) -> Self {
        Matrix { transposed: !self.transposed, rows: self.columns, columns: self.rows, ..self }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Some rows and columns of a matrix that is not transposed.
    pub(crate) fn part(self, row: usize, rows: usize, column: usize, columns: usize) -> Self {
        assert!(!self.transposed && row + rows <= self.rows && column + columns <= self.columns, "a part of a matrix");
        if rows == 0 {
            return Matrix { data: &[], rows, columns, ..self };
        }
        Matrix { data: &self.data[row * self.stride + column..], rows, columns, ..self }
    }

    /// A row of a matrix that is not transposed.
    pub(crate) fn line(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.columns]
    }

    /// The part of a tile that begins at the row and column given. `lines` are rows of the left matrix, columns of the right one.
    fn source(&self, row: usize, column: usize, order: Order) -> Source<'a> {
        let (rows, columns) = (self.rows - row, self.columns - column);
        let (lines, steps) = if order == Order::Left { (rows, columns) } else { (columns, rows) };
        let at = if self.transposed { column * self.stride + row } else { row * self.stride + column };
        Source { data: &self.data[at..], stride: self.stride, along: self.transposed == (order == Order::Left), lines, steps }
    }
}

/// The right matrix of products, rounded and laid out for them: for several products with the same weights.
pub struct PackedB {
    /// For 32 columns after 32 columns: two tiles for each step along the sum.
    tiles: Buffer<u32>,
    rows: usize,
    columns: usize,
    precision: Precision,
}

/// Steps along the sum between loading and storing a block of sums: 32 rows of the left matrix then fill most of a first-level cache.
const DEPTH: usize = 16;
/// Rows and columns that one product in registers has.
const SIDE: usize = 32;

impl PackedB {
    /// Packs `op(B) [k, n]`.
    pub fn pack(pool: &dyn Pool, precision: Precision, b: Matrix) -> Self {
        let steps = b.rows.div_ceil(precision.step());
        let panels = b.columns.div_ceil(SIDE);
        let mut tiles = Buffer::new(panels * steps * 2);
        let isa = pool.isa();
        // A task has some steps of all columns, so that it reads whole rows.
        let parts = Parts::new(&mut tiles);
        pool.run(steps.div_ceil(4), &|task| {
            let range = task * 4..steps.min(task * 4 + 4);
            for panel in 0..panels {
                // SAFETY: tasks have steps of their own.
                let tiles = unsafe { parts.part((panel * steps + range.start) * 2..(panel * steps + range.end) * 2) };
                pack_panel(isa, precision, b, Order::Right, panel * SIDE, range.clone(), tiles);
            }
        });
        PackedB { tiles, rows: b.rows, columns: b.columns, precision }
    }

    /// The same in memory of its own, no more than it needs and freed with it: to be kept for many products.
    #[must_use]
    pub fn kept(self) -> Self {
        PackedB { tiles: self.tiles.apart(), ..self }
    }

    /// Length of the sums.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    fn panel(&self, panel: usize, steps: Range<usize>) -> &[Tile<u32>] {
        let all = self.rows.div_ceil(self.precision.step());
        &self.tiles[(panel * all + steps.start) * 2..(panel * all + steps.end) * 2]
    }
}

/// Two tiles a step for the 32 lines from `line` on.
pub(crate) fn pack_panel(
    isa: Isa,
    precision: Precision,
    matrix: Matrix,
    order: Order,
    line: usize,
    steps: Range<usize>,
    tiles: &mut [Tile<u32>],
) {
    let lines = if order == Order::Left { matrix.rows } else { matrix.columns };
    if order == Order::Left && !matrix.transposed && line + SIDE <= lines && !steps.is_empty() {
        let whole = steps.start..steps.end.min(matrix.columns / precision.step()).max(steps.start);
        let rest = tiles.len().min(whole.len() * 2);
        let source = matrix.source(line, whole.start * precision.step(), order);
        if pack_lines(isa, precision, source.data, source.stride, &mut tiles[..rest]) {
            if whole.end < steps.end {
                pack_tiles(isa, precision, matrix, order, line, whole.end..steps.end, &mut tiles[rest..]);
            }
            return;
        }
    }
    pack_tiles(isa, precision, matrix, order, line, steps, tiles);
}

/// Tile by tile.
fn pack_tiles(
    isa: Isa,
    precision: Precision,
    matrix: Matrix,
    order: Order,
    line: usize,
    steps: Range<usize>,
    tiles: &mut [Tile<u32>],
) {
    let lines = if order == Order::Left { matrix.rows } else { matrix.columns };
    let length = if order == Order::Left { matrix.columns } else { matrix.rows };
    for (step, pair) in steps.zip(tiles.chunks_exact_mut(2)) {
        for (half, tile) in pair.iter_mut().enumerate() {
            let (line, along) = (line + half * 16, step * precision.step());
            if line >= lines || along >= length {
                tile.0.fill(0);
                continue;
            }
            let (row, column) = if order == Order::Left { (line, along) } else { (along, line) };
            pack(isa, precision, order, matrix.source(row, column, order), tile);
        }
    }
}

/// What becomes of the product P `[m, n]`.
pub enum Then<'a> {
    /// C = P
    Store,
    /// C = C + P
    Add,
    /// C = P + bias, the bias `[n]` being the same for each row.
    Bias(&'a [f32]),
    /// C = activation(P + bias); P + bias goes into `before` `[m, n]`.
    Activate { bias: &'a [f32], before: &'a mut [f32], activation: Activation },
    /// C = P · activation'(before), `before` `[m, n]` being what the activation was applied to: the gradient of it, from that of what followed.
    Slope { before: &'a [f32], activation: Activation },
}

/// `C [m, n] = A [m, k] · B [k, n]`, both in fp32 memory; see [`multiply`].
///
/// # Panics
/// The shapes do not fit each other.
pub fn gemm(pool: &dyn Pool, precision: Precision, a: Matrix, b: Matrix, then: Then, c: &mut [f32]) {
    multiply(pool, a, &PackedB::pack(pool, precision, b), then, None, c);
}

/// The product with a packed right matrix. With `sums` `[m]`, the sums of the rows of A (in fp32) are written there on the way: of
/// `dYᵀ`, the gradient of a bias.
///
/// # Panics
/// The shapes do not fit each other.
pub fn multiply(pool: &dyn Pool, a: Matrix, b: &PackedB, then: Then, sums: Option<&mut [f32]>, c: &mut [f32]) {
    let (m, n) = (a.rows, b.columns);
    assert_eq!(a.columns, b.rows, "the columns of A and the rows of B");
    assert_eq!(c.len(), m * n, "the size of the product");
    if let Some(sums) = &sums {
        assert_eq!(sums.len(), m, "the sums of the rows of A");
    }
    let epilogue = Epilogue::new(then, m, n);
    let steps = a.columns.div_ceil(b.precision.step());
    let grid = Grid::choose(pool.threads(), b.precision, m, n, steps);
    let (c, sums) = (Parts::new(c), sums.map(Parts::new));
    let product = Product { isa: pool.isa(), a, b, steps, grid, epilogue, c, sums };
    pool.run(grid.tasks(m, n), &|task| product.block(task));
}

/// How the product is cut into tasks.
#[derive(Debug, Clone, Copy)]
struct Grid {
    rows: usize,
    columns: usize,
}

impl Grid {
    /// The block that should take the least time by a rough count: products, the packing of A, which each column of blocks repeats, and the
    /// reading of B, which each row of blocks repeats.
    fn choose(threads: usize, precision: Precision, m: usize, n: usize, steps: usize) -> Self {
        // Nanoseconds for a product of 32 × 32 by one step, for a step of 32 packed rows, and for a step of 32 packed columns.
        let (product, left, right) = match precision {
            Precision::Bf16 => (50.0, 250.0, 100.0),
            Precision::Fp32 => (400.0, 250.0, 100.0),
        };
        let (m, n) = (m.div_ceil(SIDE).max(1), n.div_ceil(SIDE).max(1));
        let mut best = (f64::INFINITY, Grid { rows: SIDE, columns: SIDE });
        for cuts in 1..=n.min(32) {
            let columns = n.div_ceil(cuts);
            for rows in [1, 2, 3, 4, 6, 8, 12, 16] {
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
    a: Matrix<'a>,
    b: &'a PackedB,
    steps: usize,
    grid: Grid,
    epilogue: Epilogue<'a>,
    c: Parts<'a, f32>,
    sums: Option<Parts<'a, f32>>,
}

impl Product<'_> {
    /// One block of the result.
    fn block(&self, task: usize) {
        let (m, n) = (self.a.rows, self.b.columns);
        let across = n.div_ceil(self.grid.columns);
        let (row, column) = (task / across * self.grid.rows, task % across * self.grid.columns);
        let rows = row..m.min(row + self.grid.rows);
        let columns = column..n.min(column + self.grid.columns);
        let (high, wide) = (rows.len().div_ceil(SIDE), columns.len().div_ceil(SIDE));
        let whole = self.steps <= DEPTH;
        let precision = self.b.precision;

        let multiplier = Multiplier::new(self.isa, precision);
        let mut left = Buffer::<u32>::new(high * DEPTH.min(self.steps) * 2);
        let mut results = Buffer::<f32>::new(if whole { 4 } else { high * wide * 4 });
        let mut from = 0;
        loop {
            let depth = from..self.steps.min(from + DEPTH);
            let panel = depth.len() * 2;
            // The first block of a row of blocks sums up.
            // SAFETY: such blocks have rows of their own.
            let sums = self.sums.as_ref().filter(|_| column == 0).map(|sums| unsafe { sums.part(rows.clone()) });
            self.pack_left(rows.clone(), depth.clone(), &mut left[..high * panel], sums);
            for (i, row) in rows.clone().step_by(SIDE).enumerate() {
                let rows = row..rows.end.min(row + SIDE);
                for (j, column) in columns.clone().step_by(SIDE).enumerate() {
                    let right = self.b.panel(column / SIDE, depth.clone());
                    let at = if whole { 0 } else { (i * wide + j) * 4 };
                    let Some(sums) = results[at..].first_chunk_mut() else { break };
                    if depth.end == self.steps {
                        for row in rows.clone() {
                            self.c.expect(row * n + column);
                            self.c.expect(row * n + column + 16);
                        }
                    }
                    let left = &left[i * panel..(i + 1) * panel];
                    let columns = column..columns.end.min(column + SIDE);
                    if whole && self.straight(&multiplier, left, right, &rows, &columns) {
                        continue;
                    }
                    if from == 0 {
                        start(self.isa, &self.epilogue, &self.c, n, rows.clone(), columns.clone(), sums);
                    }
                    multiplier.multiply(left, right, sums, true);
                    if depth.end == self.steps {
                        finish(self.isa, &self.epilogue, &self.c, n, rows.clone(), columns, sums);
                    }
                }
            }
            from = depth.end;
            if from == self.steps {
                break;
            }
        }
    }

    /// Writes a whole block of 32 × 32 without a stop in tiles, if that can be: `false` if not.
    fn straight(
        &self,
        multiplier: &Multiplier,
        left: &[Tile<u32>],
        right: &[Tile<u32>],
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let (Some(tiles), None) = (multiplier.straight(), &self.epilogue.activation) {
            use crate::amx::Start;
            if rows.len() != SIDE || columns.len() != SIDE || left.is_empty() {
                return false;
            }
            let n = self.b.columns;
            let out = self.c.place(rows.start * n + columns.start..(rows.end - 1) * n + columns.end);
            let start = match self.epilogue.bias {
                _ if self.epilogue.add => Start::At(out, n),
                Some(bias) => Start::At(bias[columns.clone()].as_ptr(), 0),
                None => Start::Zero,
            };
            // SAFETY: `out` and what follows its rows are within C, and this block of it is this task's alone; the bias has 32 numbers.
            unsafe { tiles.multiply_to(left, right, start, out, n) };
            return true;
        }
        let _ = (multiplier, left, right, rows, columns);
        false
    }

    /// Panel after panel of 32 rows of A, in the order in which they lie in memory, and their sums.
    fn pack_left(&self, rows: Range<usize>, depth: Range<usize>, tiles: &mut [Tile<u32>], mut sums: Option<&mut [f32]>) {
        let (isa, a, precision, panel) = (self.isa, self.a, self.b.precision, depth.len() * 2);
        if let Some(sums) = sums.as_deref_mut().filter(|_| depth.start == 0) {
            sums.fill(0.0);
        }
        if !a.transposed {
            for (row, tiles) in rows.clone().step_by(SIDE).zip(tiles.chunks_exact_mut(panel.max(1))) {
                pack_panel(isa, precision, a, Order::Left, row, depth.clone(), tiles);
            }
            let columns = depth.start * precision.step()..a.columns.min(depth.end * precision.step());
            for (sum, row) in sums.into_iter().flatten().zip(rows) {
                *sum += a.data[row * a.stride..][columns.clone()].iter().sum::<f32>();
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
    /// Adds columns of a transposed matrix, which are rows in memory, to `sums`.
    fn add_lines<V>(a: Matrix, rows: Range<usize>, columns: Range<usize>, sums: &mut [f32]) {
        // Blocks that stay in registers over all columns.
        for (i, sums) in sums.chunks_mut(64).enumerate() {
            let (start, len) = (rows.start + i * 64, sums.len());
            let mut block = [V::zero(); 4];
            for at in columns.clone() {
                let line = &a.data[at * a.stride + start..][..len];
                for (sum, x) in block.iter_mut().zip(line.chunks(16)) {
                    *sum = sum.add(V::load_some(x));
                }
            }
            for (block, sums) in block.into_iter().zip(sums.chunks_mut(16)) {
                V::load_some(sums).add(block).store_some(sums);
            }
        }
    }
}

/// [`Then`], ready to be shared by tasks.
struct Epilogue<'a> {
    add: bool,
    bias: Option<&'a [f32]>,
    activation: Option<(Activation, Before<'a>)>,
}

/// What an activation is applied to.
enum Before<'a> {
    Write(Parts<'a, f32>),
    Read(&'a [f32]),
}

impl<'a> Epilogue<'a> {
    fn new(then: Then<'a>, m: usize, n: usize) -> Self {
        let add = matches!(then, Then::Add);
        let (bias, activation) = match then {
            Then::Store | Then::Add => (None, None),
            Then::Bias(bias) => (Some(bias), None),
            Then::Activate { bias, before, activation } => {
                assert_eq!(before.len(), m * n, "the size of what the activation applies to");
                (Some(bias), Some((activation, Before::Write(Parts::new(before)))))
            }
            Then::Slope { before, activation } => {
                assert_eq!(before.len(), m * n, "the size of what the activation was applied to");
                (None, Some((activation, Before::Read(before))))
            }
        };
        if let Some(bias) = bias {
            assert_eq!(bias.len(), n, "the bias");
        }
        Epilogue { add, bias, activation }
    }
}

versions! {
    /// What the sums of a block of at most 32 × 32 begin with: the bias or what was in `c`.
    fn start<V>(
        epilogue: &Epilogue,
        c: &Parts<f32>,
        n: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        sums: &mut [Tile<f32>; 4],
    ) {
        for i in 0..SIDE {
            for right in 0..2 {
                let from = (columns.start + right * 16).min(columns.end);
                let part = from..columns.end.min(from + 16);
                let value = match epilogue.bias {
                    Some(bias) => V::load_some(&bias[part]),
                    None if epilogue.add && i < rows.len() => {
                        let row = (rows.start + i) * n;
                        // SAFETY: tasks have blocks of their own.
                        V::load_some(unsafe { c.part(row + part.start..row + part.end) })
                    }
                    None => V::zero(),
                };
                value.store(sums[i / 16 * 2 + right].row_mut(i % 16));
            }
        }
    }
}

versions! {
    /// Writes the results of a block of at most 32 × 32, which is the caller's alone, to `c`, whose rows have `n` numbers.
    fn finish<V>(
        epilogue: &Epilogue,
        c: &Parts<f32>,
        n: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        sums: &[Tile<f32>; 4],
    ) {
        for (i, row) in rows.enumerate() {
            let at = row * n + columns.start..row * n + columns.end;
            // SAFETY: tasks have blocks of their own.
            let c = unsafe { c.part(at.clone()) };
            let line = |right: usize| V::load(sums[i / 16 * 2 + right].row(i % 16));
            if let Some((activation, before)) = &epilogue.activation {
                match before {
                    Before::Write(before) => {
                        // SAFETY: as above.
                        let before = unsafe { before.part(at) };
                        for (right, (c, before)) in c.chunks_mut(16).zip(before.chunks_mut(16)).enumerate() {
                            let x = line(right);
                            x.store_some(before);
                            activation.apply(x).0.store_some(c);
                        }
                    }
                    Before::Read(before) => {
                        for (right, (c, before)) in c.chunks_mut(16).zip(before[at].chunks(16)).enumerate() {
                            line(right).mul(activation.apply(V::load_some(before)).1).store_some(c);
                        }
                    }
                }
            } else {
                for (right, c) in c.chunks_mut(16).enumerate() {
                    line(right).store_some(c);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, all_isas, assert_close};
    use crate::{Serial, Threads};

    fn rounded(precision: Precision, x: &[f32]) -> Vec<f64> {
        let round = |x: &f32| match precision {
            Precision::Fp32 => f64::from(*x),
            Precision::Bf16 => f64::from(f32::from_bits(u32::from(crate::math::bf16(*x)) << 16)),
        };
        x.iter().map(round).collect()
    }

    /// The product of the rounded operands, `a [m, k]` and `b [k, n]` by their transposition flags.
    fn naive(a: &[f64], b: &[f64], [m, k, n]: [usize; 3], [ta, tb]: [bool; 2]) -> Vec<f64> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for l in 0..k {
                let x = if ta { a[l * m + i] } else { a[i * k + l] };
                for j in 0..n {
                    c[i * n + j] += x * if tb { b[j * k + l] } else { b[l * n + j] };
                }
            }
        }
        c
    }

    fn matrix(data: &[f32], rows: usize, columns: usize, transposed: bool) -> Matrix<'_> {
        if transposed { Matrix::new(data, columns, rows).t() } else { Matrix::new(data, rows, columns) }
    }

    const SHAPES: [[usize; 3]; 12] = [
        [1, 1, 1],
        [0, 5, 3],
        [3, 0, 5],
        [5, 3, 0],
        [1, 384, 384],
        [33, 31, 17],
        [32, 32, 32],
        [64, 512, 96],
        [70, 545, 50],
        [257, 100, 301],
        [384, 1100, 130],
        [31, 2000, 40],
    ];

    #[test]
    fn products_of_all_shapes_transpositions_and_instruction_sets() {
        let mut random = Random(1);
        for precision in [Precision::Fp32, Precision::Bf16] {
            for shape @ [m, k, n] in SHAPES {
                for flags in [[false, false], [true, false], [false, true], [true, true]] {
                    let (a, b) = (random.normals(m * k), random.normals(k * n));
                    let expected = naive(&rounded(precision, &a), &rounded(precision, &b), shape, flags);
                    for isa in all_isas() {
                        let mut c = vec![f32::NAN; m * n];
                        let pool = Threads { threads: 2, isa };
                        gemm(&pool, precision, matrix(&a, m, k, flags[0]), matrix(&b, k, n, flags[1]), Then::Store, &mut c);
                        let what = format!("{isa} {precision:?} {shape:?} {flags:?}");
                        assert_close(&c, &expected, 1e-6 + 4e-7 * k as f64, &what);
                    }
                }
            }
        }
    }

    #[test]
    fn strided_operands() {
        let (m, k, n, stride) = (37, 40, 21, 50);
        let mut random = Random(2);
        let (wide, b) = (random.normals(m * stride), random.normals(k * n));
        let narrow: Vec<f32> = wide.chunks(stride).flat_map(|row| &row[7..7 + k]).copied().collect();
        let (mut c, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
        gemm(&Serial, Precision::Bf16, Matrix::new(&narrow, m, k), Matrix::new(&b, k, n), Then::Store, &mut expected);
        gemm(&Serial, Precision::Bf16, Matrix::strided(&wide[7..], m, k, stride), Matrix::new(&b, k, n), Then::Store, &mut c);
        assert_eq!(c, expected);
    }

    #[test]
    fn what_follows_the_product() {
        let mut random = Random(3);
        for isa in all_isas() {
            for [m, k, n] in [[45, 33, 50], [70, 600, 64]] {
                let (a, b, bias) = (random.normals(m * k), random.normals(k * n), random.normals(n));
                let naive = naive(&rounded(Precision::Bf16, &a), &rounded(Precision::Bf16, &b), [m, k, n], [false, false]);
                let tolerance = 1e-6 + 4e-7 * k as f64;
                let pool = Threads { threads: 2, isa };
                let right = PackedB::pack(&pool, Precision::Bf16, Matrix::new(&b, k, n));
                let left = Matrix::new(&a, m, k);
                let product = |then: Then, c: &mut [f32]| multiply(&pool, left, &right, then, None, c);
                let mut plain = vec![0.0; m * n];
                product(Then::Store, &mut plain);

                let mut twice = plain.clone();
                product(Then::Add, &mut twice);
                let expected: Vec<f64> = naive.iter().map(|x| 2.0 * x).collect();
                assert_close(&twice, &expected, 2.0 * tolerance, "added");

                let mut biased = vec![0.0; m * n];
                product(Then::Bias(&bias), &mut biased);
                let expected: Vec<f64> = naive.iter().zip(bias.iter().cycle()).map(|(x, b)| x + f64::from(*b)).collect();
                assert_close(&biased, &expected, tolerance, "biased");

                let (mut before, mut after) = (vec![0.0; m * n], vec![0.0; m * n]);
                product(Then::Activate { bias: &bias, before: &mut before, activation: Activation::Gelu }, &mut after);
                assert_eq!(before, biased);
                let expected: Vec<f64> = before.iter().map(|&x| crate::testing::gelu(f64::from(x))).collect();
                assert_close(&after, &expected, 1e-5, "GELU");

                let (mut slopes, mut gradient) = (vec![0.0; m * n], vec![0.0; m * n]);
                product(Then::Slope { before: &before, activation: Activation::Silu }, &mut slopes);
                crate::activation::backward(&pool, Activation::Silu, &before, &plain, &mut gradient);
                assert_eq!(slopes, gradient);
            }
        }
    }

    #[test]
    fn sums_of_rows_come_along() {
        let mut random = Random(4);
        for (m, k, n) in [(300, 1000, 70), (20, 16, 200), (5, 0, 3)] {
            let (a, b) = (random.normals(m * k), random.normals(k * n));
            let right = PackedB::pack(&Serial, Precision::Bf16, Matrix::new(&b, k, n));
            for transposed in [false, true] {
                let (mut sums, mut c) = (vec![0.0; m], vec![0.0; m * n]);
                multiply(&Serial, matrix(&a, m, k, transposed), &right, Then::Store, Some(&mut sums), &mut c);
                let at = |i: usize, l: usize| f64::from(if transposed { a[l * m + i] } else { a[i * k + l] });
                let expected: Vec<f64> = (0..m).map(|i| (0..k).map(|l| at(i, l)).sum()).collect();
                assert_close(&sums, &expected, 2e-4, "sums");
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let mut random = Random(5);
        for isa in all_isas() {
            for (m, k, n) in [(700, 384, 384), (384, 900, 130), (100, 1536, 33)] {
                let (a, b) = (random.normals(m * k), random.normals(k * n));
                let results: Vec<(Vec<f32>, Vec<f32>)> = [1, 2, 3, 16]
                    .into_iter()
                    .map(|threads| {
                        let pool = Threads { threads, isa };
                        let (mut c, mut sums) = (vec![0.0; m * n], vec![0.0; m]);
                        let right = PackedB::pack(&pool, Precision::Bf16, Matrix::new(&b, k, n));
                        multiply(&pool, matrix(&a, m, k, true), &right, Then::Store, Some(&mut sums), &mut c);
                        (c, sums)
                    })
                    .collect();
                assert!(results.iter().all(|r| *r == results[0]), "{isa} {m} {k} {n}");
            }
        }
    }

    #[test]
    fn infinities_and_nan_get_through() {
        for isa in all_isas() {
            for precision in [Precision::Fp32, Precision::Bf16] {
                let pool = Threads { threads: 1, isa };
                let (a, b) = ([f32::NAN, 1.0, f32::INFINITY, 1.0], [1.0, 2.0]);
                let mut c = [0.0; 2];
                gemm(&pool, precision, Matrix::new(&a, 2, 2), Matrix::new(&b, 2, 1), Then::Store, &mut c);
                assert!(c[0].is_nan() && c[1] == f32::INFINITY, "{isa} {c:?}");
            }
        }
    }
}
