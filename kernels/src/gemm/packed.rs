//! Operands laid out in tiles.

use std::ops::Range;

use super::SIDE;
use crate::matrix::Matrix;
use crate::pool::{Buffer, Parts};
use crate::tile::{Order, Tile, pack, pack_lines};
use crate::{Isa, Pool, Precision};

/// The right matrix of products, rounded and laid out for them: for several products with the same weights. It may be several matrices, one
/// below the other, for a sum of products.
pub struct PackedB {
    /// For 32 columns after 32 columns: two tiles for each step along the sum.
    tiles: Buffer<u32>,
    /// Of each matrix.
    rows: Vec<usize>,
    columns: usize,
    precision: Precision,
}

impl PackedB {
    /// Packs `op(B) [k, n]`.
    pub fn pack(pool: &dyn Pool, precision: Precision, b: Matrix) -> Self {
        PackedB::pack_all(pool, precision, &[b])
    }

    /// Packs matrices `[k, n]` of the same n.
    ///
    /// # Panics
    /// There is none, or they differ in n.
    pub fn pack_all(pool: &dyn Pool, precision: Precision, all: &[Matrix]) -> Self {
        let columns = all[0].columns;
        assert!(all.iter().all(|b| b.columns == columns), "matrices of as many columns");
        let rows: Vec<usize> = all.iter().map(|b| b.rows).collect();
        let total: usize = rows.iter().map(|rows| rows.div_ceil(precision.step())).sum();
        let panels = columns.div_ceil(SIDE);
        let mut tiles = Buffer::new(panels * total * 2);
        let isa = pool.isa();
        let parts = Parts::new(&mut tiles);
        let mut first = 0;
        for &b in all {
            let steps = b.rows.div_ceil(precision.step());
            // A task has some steps of all columns, so that it reads whole rows.
            pool.run(steps.div_ceil(4), &|task| {
                let range = task * 4..steps.min(task * 4 + 4);
                for panel in 0..panels {
                    let at = panel * total + first;
                    // SAFETY: tasks have steps of their own.
                    let tiles = unsafe { parts.part((at + range.start) * 2..(at + range.end) * 2) };
                    pack_panel(isa, precision, b, Order::Right, panel * SIDE, range.clone(), tiles);
                }
            });
            first += steps;
        }
        PackedB { tiles, rows, columns, precision }
    }

    /// The same in memory of its own, no more than it needs and freed with it: to be kept for many products.
    #[must_use]
    pub fn kept(self) -> Self {
        PackedB { tiles: self.tiles.apart(), ..self }
    }

    /// Length of the sums, of each matrix.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Steps along the sum.
    pub(super) fn steps(&self) -> usize {
        self.rows.iter().map(|rows| rows.div_ceil(self.precision.step())).sum()
    }

    pub(super) fn panel(&self, panel: usize, steps: Range<usize>) -> &[Tile<u32>] {
        let all = self.steps();
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
    let (lines, length) = if order == Order::Left { (matrix.rows, matrix.columns) } else { (matrix.columns, matrix.rows) };
    // Whole lines first, where they lie in memory as they are wanted; then tile by tile.
    let mut done = 0;
    if order == Order::Left && !matrix.transposed && line + SIDE <= lines && !steps.is_empty() {
        let whole = steps.end.min(length / precision.step()).saturating_sub(steps.start).min(tiles.len() / 2);
        let source = matrix.source(line, steps.start * precision.step(), order);
        if pack_lines(isa, precision, source.data, source.stride, &mut tiles[..whole * 2]) {
            done = whole;
        }
    }
    for (step, pair) in (steps.start + done..steps.end).zip(tiles[done * 2..].chunks_exact_mut(2)) {
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
