//! What becomes of a product.

use std::ops::Range;

use super::SIDE;
use super::lines::Lines;
use crate::Isa;
use crate::gelu::gelu;
use crate::isa::versions;
use crate::matrix::{NumberParts, Numbers, NumbersMut};
use crate::tile::{Tile, transpose_block};

/// What becomes of the product P `[m, n]`.
pub enum Then<'a> {
    /// C = P
    Store,
    /// C = P + bias, the bias `[n]` being the same for each row.
    Bias(&'a [f32]),
    /// C = P + summand, `[m, n]`.
    Add(&'a [f32]),
    /// C = gelu(P + bias); its derivative at P + bias goes into `slope` `[m, n]`, for the gradient.
    Gelu { bias: Option<&'a [f32]>, slope: Option<NumbersMut<'a>> },
    /// C = P · factors, `[m, n]`: the gradient of what GELU was applied to, from that of what followed and the derivative.
    Scale(Numbers<'a>),
    /// C `[n, m]` = P'
    Transpose,
}

/// [`Then`], ready to be shared by tasks.
pub(super) struct Epilogue<'a> {
    pub bias: Option<&'a [f32]>,
    pub summand: Option<&'a [f32]>,
    /// What the sums go through before they are written.
    last: Option<Last<'a>>,
}

enum Last<'a> {
    Gelu(Option<NumberParts<'a>>),
    Scale(Numbers<'a>),
    Transpose,
    Lines(Lines<'a>),
}

impl<'a> Epilogue<'a> {
    pub fn new(then: Then<'a>, m: usize, n: usize) -> Self {
        let (mut bias, mut summand, mut last) = (None, None, None);
        match then {
            Then::Store => {}
            Then::Bias(all) => bias = Some(all),
            Then::Add(all) => {
                assert_eq!(all.len(), m * n, "the size of what is added");
                summand = Some(all);
            }
            Then::Gelu { bias: all, slope } => {
                assert!(slope.as_ref().is_none_or(|slope| slope.len() == m * n), "the size of the derivative");
                (bias, last) = (all, Some(Last::Gelu(slope.map(NumberParts::new))));
            }
            Then::Transpose => last = Some(Last::Transpose),
            Then::Scale(factors) => {
                assert_eq!(factors.len(), m * n, "the size of the factors");
                last = Some(Last::Scale(factors));
            }
        }
        if let Some(bias) = bias {
            assert_eq!(bias.len(), n, "the bias");
        }
        Epilogue { bias, summand, last }
    }

    /// What wants whole rows.
    pub fn lines(lines: Lines<'a>) -> Self {
        Epilogue { bias: None, summand: None, last: Some(Last::Lines(lines)) }
    }

    /// Whether whole rows are wanted at once.
    pub fn wants_lines(&self) -> bool {
        matches!(self.last, Some(Last::Lines(_)))
    }

    /// Whether sums are written as they are, but for what they begin with.
    pub fn is_plain(&self) -> bool {
        self.last.is_none()
    }

    /// Fetches what the results of some rows and columns, of `n`, will be computed from besides the product.
    pub fn expect(&self, n: usize, rows: Range<usize>, columns: Range<usize>) {
        let [first, second] = match &self.last {
            Some(Last::Lines(lines)) => lines.reads().map(|read| read.map(|x| x.into())),
            Some(Last::Scale(factors)) => [Some(*factors), None],
            _ => [self.summand.map(|x| x.into()), None],
        };
        for matrix in [first, second].into_iter().flatten() {
            rows.clone().for_each(|row| matrix.expect(row * n + columns.start..row * n + columns.end));
        }
    }

    /// Whether there is a slope to write.
    pub fn has_slope(&self) -> bool {
        matches!(self.last, Some(Last::Gelu(Some(_))))
    }
}

/// Where a block of at most 32 × 32 lies in the result.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    /// Numbers in a row of the result.
    n: usize,
}

impl Place {
    /// The numbers of row `i` of the block, in the left or the right half of it.
    #[inline(always)]
    fn half(&self, i: usize, right: usize) -> Range<usize> {
        let from = (right * 16).min(self.columns);
        let start = (self.row + i) * self.n + self.column;
        start + from..start + self.columns.min(from + 16)
    }
}

/// The product that results are of.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub m: usize,
    pub n: usize,
}

/// Writes the results of at most 32 rows and of some columns, which are the caller's alone, to `c`. `sums` has four tiles for each 32 columns, and
/// `slopes` as many if there is a slope to write.
#[allow(clippy::too_many_arguments)]
pub(super) fn finish(
    isa: Isa,
    epilogue: &Epilogue,
    c: &NumberParts,
    Size { m, n }: Size,
    rows: Range<usize>,
    columns: Range<usize>,
    sums: &mut [Tile<f32>],
    slopes: &mut [Tile<f32>],
) {
    if let (Some(Last::Lines(lines)), NumberParts::Fp32(c)) = (&epilogue.last, c) {
        return lines.finish(isa, c, n, rows, sums);
    }
    let mut slopes_left = slopes.as_chunks_mut::<4>().0.iter_mut();
    for (column, sums) in columns.clone().step_by(SIDE).zip(sums.as_chunks_mut::<4>().0) {
        let place = Place { row: rows.start, rows: rows.len(), column, columns: SIDE.min(columns.end - column), n };
        if let Some(bias) = epilogue.bias {
            add_bias(isa, &bias[column..column + place.columns], sums);
        }
        if let Some(summand) = epilogue.summand {
            add_summand(isa, summand, place, sums);
        }
        match &epilogue.last {
            None | Some(Last::Lines(_)) => {}
            Some(Last::Scale(factors)) => scale(isa, *factors, place, sums),
            Some(Last::Gelu(None)) => activate(isa, sums),
            Some(Last::Gelu(Some(_))) => {
                let Some(slopes) = slopes_left.next() else { break };
                activate_and_derive(isa, sums, slopes);
            }
            Some(Last::Transpose) => {
                let block = transpose_block(isa, sums);
                // SAFETY: tasks have blocks of their own.
                unsafe { c.write(isa, m, column..column + place.columns, rows.clone(), &block) };
            }
        }
    }
    // SAFETY: as above.
    unsafe {
        match &epilogue.last {
            Some(Last::Transpose) => return,
            Some(Last::Gelu(Some(slope))) => slope.write(isa, n, rows.clone(), columns.clone(), slopes),
            _ => {}
        }
        c.write(isa, n, rows, columns, sums);
    }
}

versions! {
    fn add_bias<V>(bias: &[f32], sums: &mut [Tile<f32>; 4]) {
        let half = bias.len().min(16);
        let bias = [V::load_some(&bias[..half]), V::load_some(&bias[half..])];
        for (tile, i) in sums.iter_mut().zip(0..) {
            for row in tile.0.as_chunks_mut::<16>().0 {
                V::load(row).add(bias[i % 2]).store(row);
            }
        }
    }
}

versions! {
    fn add_summand<V>(summand: &[f32], place: Place, sums: &mut [Tile<f32>; 4]) {
        for i in 0..place.rows {
            for right in 0..2 {
                let row = sums[i / 16 * 2 + right].row_mut(i % 16);
                V::load(row).add(V::load_some(&summand[place.half(i, right)])).store(row);
            }
        }
    }
}

versions! {
    fn scale<V>(factors: Numbers, place: Place, sums: &mut [Tile<f32>; 4]) {
        for i in 0..place.rows {
            for right in 0..2 {
                let row = sums[i / 16 * 2 + right].row_mut(i % 16);
                V::load(row).mul(factors.load(place.half(i, right))).store(row);
            }
        }
    }
}

versions! {
    fn activate<V>(sums: &mut [Tile<f32>; 4]) {
        for tile in sums {
            for row in tile.0.as_chunks_mut::<16>().0 {
                gelu(V::load(row)).0.store(row);
            }
        }
    }
}

versions! {
    fn activate_and_derive<V>(sums: &mut [Tile<f32>; 4], slopes: &mut [Tile<f32>; 4]) {
        for (sums, slopes) in sums.iter_mut().zip(slopes) {
            for (sum, slope) in sums.0.as_chunks_mut::<16>().0.iter_mut().zip(slopes.0.as_chunks_mut::<16>().0) {
                let (value, derivative) = gelu(V::load(sum));
                value.store(sum);
                derivative.store(slope);
            }
        }
    }
}
