//! Matrices in memory.

use std::ops::Range;

use crate::Isa;
use crate::isa::versions;
use crate::pool::Parts;
use crate::simd::Vector;
use crate::tile::{Order, Source, Tile};

/// Numbers that kernels read.
#[derive(Debug, Clone, Copy)]
pub enum Numbers<'a> {
    Fp32(&'a [f32]),
    /// The upper halves of fp32 numbers.
    Bf16(&'a [u16]),
}

impl<'a> From<&'a [f32]> for Numbers<'a> {
    fn from(data: &'a [f32]) -> Self {
        Numbers::Fp32(data)
    }
}

impl<'a> From<&'a Vec<f32>> for Numbers<'a> {
    fn from(data: &'a Vec<f32>) -> Self {
        Numbers::Fp32(data)
    }
}

impl<'a> From<&'a [u16]> for Numbers<'a> {
    fn from(data: &'a [u16]) -> Self {
        Numbers::Bf16(data)
    }
}

impl<'a> Numbers<'a> {
    pub fn len(&self) -> usize {
        match self {
            Numbers::Fp32(data) => data.len(),
            Numbers::Bf16(data) => data.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of `range`.
    #[inline(always)]
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        match self {
            Numbers::Fp32(data) => Numbers::Fp32(&data[range]),
            Numbers::Bf16(data) => Numbers::Bf16(&data[range]),
        }
    }

    /// Those from `start` on.
    pub(crate) fn from(self, start: usize) -> Self {
        self.part(start..self.len())
    }

    /// Fetches the numbers of `range`, which will be read soon.
    #[inline(always)]
    pub(crate) fn expect(self, range: Range<usize>) {
        match self {
            Numbers::Fp32(data) => fetch(&data[range]),
            Numbers::Bf16(data) => fetch(&data[range]),
        }
    }

    /// Those of `range`, at most 16, then zeros.
    #[inline(always)]
    pub(crate) fn load<V: Vector>(self, range: Range<usize>) -> V {
        match self {
            Numbers::Fp32(data) => V::load_some(&data[range]),
            Numbers::Bf16(data) => V::load_some_bf16(&data[range]),
        }
    }
}

/// Fetches the memory of a slice, which will be read soon.
#[inline(always)]
fn fetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in data.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, for the address of an element.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

/// Numbers that kernels write.
#[derive(Debug)]
pub enum NumbersMut<'a> {
    Fp32(&'a mut [f32]),
    /// Rounded to nearest, ties to even.
    Bf16(&'a mut [u16]),
}

impl<'a> From<&'a mut [f32]> for NumbersMut<'a> {
    fn from(data: &'a mut [f32]) -> Self {
        NumbersMut::Fp32(data)
    }
}

impl<'a> From<&'a mut Vec<f32>> for NumbersMut<'a> {
    fn from(data: &'a mut Vec<f32>) -> Self {
        NumbersMut::Fp32(data)
    }
}

impl<'a> From<&'a mut [u16]> for NumbersMut<'a> {
    fn from(data: &'a mut [u16]) -> Self {
        NumbersMut::Bf16(data)
    }
}

impl NumbersMut<'_> {
    pub fn len(&self) -> usize {
        match self {
            NumbersMut::Fp32(data) => data.len(),
            NumbersMut::Bf16(data) => data.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// [`NumbersMut`] of which each task changes a part of its own.
pub(crate) enum NumberParts<'a> {
    Fp32(Parts<'a, f32>),
    /// And whether they are so many that caches would not keep them.
    Bf16(Parts<'a, u16>, bool),
}

/// bf16 numbers beyond this many are written past the caches.
const MANY: usize = 4 << 20;

impl<'a> NumberParts<'a> {
    pub fn new(numbers: NumbersMut<'a>) -> Self {
        match numbers {
            NumbersMut::Fp32(data) => NumberParts::Fp32(Parts::new(data)),
            NumbersMut::Bf16(data) => {
                let many = data.len() > MANY;
                NumberParts::Bf16(Parts::new(data), many)
            }
        }
    }

    /// Fetches the memory around a number that will be written soon.
    #[inline(always)]
    pub fn expect(&self, at: usize) {
        match self {
            NumberParts::Fp32(parts) => parts.expect(at),
            NumberParts::Bf16(parts, _) => parts.expect(at),
        }
    }

    /// Writes the numbers of `range`, at most 16.
    ///
    /// # Safety
    /// No other task reads or writes them.
    #[inline(always)]
    pub unsafe fn store<V: Vector>(&self, range: Range<usize>, numbers: V) {
        // SAFETY: by the caller's word.
        unsafe {
            match self {
                NumberParts::Fp32(parts) => numbers.store_some(parts.part(range)),
                NumberParts::Bf16(parts, _) => numbers.store_some_bf16(parts.part(range)),
            }
        }
    }

    /// Writes at most 32 rows of some columns to a matrix whose rows have `n` numbers, row by row, as they lie in memory: `tiles` has four tiles for
    /// each 32 columns. [`fence`] must follow before another thread reads them.
    ///
    /// # Safety
    /// No other task reads or writes them.
    pub unsafe fn write(&self, isa: Isa, n: usize, rows: Range<usize>, columns: Range<usize>, tiles: &[Tile<f32>]) {
        #[cfg(target_arch = "x86_64")]
        if let NumberParts::Bf16(parts, many) = self
            && isa.has_bf16()
            && columns.len().is_multiple_of(32)
        {
            for (i, row) in rows.enumerate() {
                // SAFETY: by the caller's word; an `Isa` exists only for what the processor has.
                unsafe {
                    let line = parts.part(row * n + columns.start..row * n + columns.end);
                    crate::avx512::write_bf16(tiles, i, line, *many);
                }
            }
            return;
        }
        write_rows(isa, self, n, rows, columns, tiles);
    }
}

/// Row `i` of the tiles, from number `column` on.
#[inline(always)]
pub(crate) fn row(tiles: &[Tile<f32>], i: usize, column: usize) -> &[f32; 16] {
    tiles[column / 32 * 4 + i / 16 * 2 + column / 16 % 2].row(i % 16)
}

versions! {
    /// See [`NumberParts::write`], whose caller's word it relies on.
    fn write_rows<V>(parts: &NumberParts, n: usize, rows: Range<usize>, columns: Range<usize>, tiles: &[Tile<f32>]) {
        for (i, at) in rows.enumerate() {
            for from in (0..columns.len()).step_by(16) {
                let start = at * n + columns.start + from;
                let numbers = V::load(row(tiles, i, from));
                // SAFETY: by the caller's word.
                unsafe { parts.store(start..start + 16.min(columns.len() - from), numbers) };
            }
        }
    }
}

/// Makes what this thread wrote past the caches known to others.
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// A matrix in memory, row after row.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(crate) data: Numbers<'a>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
    pub(crate) transposed: bool,
}

impl<'a> Matrix<'a> {
    /// # Panics
    /// `data` does not have `rows · columns` numbers.
    pub fn new(data: impl Into<Numbers<'a>>, rows: usize, columns: usize) -> Self {
        let data = data.into();
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} × {columns}");
        Matrix { data, rows, columns, stride: columns, transposed: false }
    }

    /// Rows `stride` numbers apart, such as some columns of a wider matrix.
    ///
    /// # Panics
    /// `data` ends before the last row does.
    pub fn strided(data: impl Into<Numbers<'a>>, rows: usize, columns: usize, stride: usize) -> Self {
        let data = data.into();
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
            return Matrix { data: self.data.part(0..0), rows, columns, ..self };
        }
        Matrix { data: self.data.from(row * self.stride + column), rows, columns, ..self }
    }

    /// A row of a matrix that is not transposed.
    #[inline(always)]
    pub(crate) fn line(&self, row: usize) -> Numbers<'a> {
        self.data.part(row * self.stride..row * self.stride + self.columns)
    }

    /// The part of a tile that begins at the row and column given. `lines` are rows of the left matrix, columns of the right one.
    pub(crate) fn source(&self, row: usize, column: usize, order: Order) -> Source<'a> {
        let (rows, columns) = (self.rows - row, self.columns - column);
        let (lines, steps) = if order == Order::Left { (rows, columns) } else { (columns, rows) };
        let at = if self.transposed { column * self.stride + row } else { row * self.stride + column };
        let along = self.transposed == (order == Order::Left);
        Source { data: self.data.from(at), stride: self.stride, along, lines, steps }
    }
}
