//! What becomes of a product.

use std::ops::Range;

use super::SIDE;
use crate::activation::Activation;
use crate::isa::versions;
use crate::matrix::{NumberParts, Numbers, NumbersMut};
use crate::tile::Tile;

/// What becomes of the product P `[m, n]`.
pub enum Then<'a> {
    /// C = P
    Store,
    /// C = P + bias, the bias `[n]` being the same for each row.
    Bias(&'a [f32]),
    /// C = P + summand, `[m, n]`.
    Add(&'a [f32]),
    /// C = activation(P + bias); its derivative at P + bias goes into `slope` `[m, n]`, for the gradient.
    Activate { bias: Option<&'a [f32]>, activation: Activation, slope: Option<NumbersMut<'a>> },
    /// C = P · factors, `[m, n]`: the gradient of what an activation was applied to, from that of what followed and the derivative.
    Scale(Numbers<'a>),
}

/// [`Then`], ready to be shared by tasks.
pub(super) struct Epilogue<'a> {
    pub bias: Option<&'a [f32]>,
    pub summand: Option<&'a [f32]>,
    /// What the sums go through before they are written.
    last: Option<Last<'a>>,
}

enum Last<'a> {
    Activate(Activation, Option<NumberParts<'a>>),
    Scale(Numbers<'a>),
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
            Then::Activate { bias: all, activation, slope } => {
                assert!(slope.as_ref().is_none_or(|slope| slope.len() == m * n), "the size of the derivative");
                (bias, last) = (all, Some(Last::Activate(activation, slope.map(NumberParts::new))));
            }
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

    /// Whether sums are written as they are.
    pub fn is_plain(&self) -> bool {
        self.last.is_none()
    }
}

versions! {
    /// What the sums of a block of at most 32 × 32 begin with: the bias or the summand.
    pub(super) fn start<V>(
        epilogue: &Epilogue,
        n: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        sums: &mut [Tile<f32>; 4],
    ) {
        for i in 0..SIDE {
            for right in 0..2 {
                let from = (columns.start + right * 16).min(columns.end);
                let part = from..columns.end.min(from + 16);
                let value = match (epilogue.bias, epilogue.summand) {
                    (Some(bias), _) => V::load_some(&bias[part]),
                    (_, Some(summand)) if i < rows.len() => {
                        let row = (rows.start + i) * n;
                        V::load_some(&summand[row + part.start..row + part.end])
                    }
                    _ => V::zero(),
                };
                value.store(sums[i / 16 * 2 + right].row_mut(i % 16));
            }
        }
    }
}

versions! {
    /// Writes the results of a block of at most 32 × 32, which is the caller's alone, to `c`, whose rows have `n` numbers.
    pub(super) fn finish<V>(
        epilogue: &Epilogue,
        c: &NumberParts,
        n: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        sums: &[Tile<f32>; 4],
    ) {
        for (i, row) in rows.enumerate() {
            for right in 0..2 {
                let from = (columns.start + right * 16).min(columns.end);
                let at = row * n + from..row * n + columns.end.min(from + 16);
                let sum = V::load(sums[i / 16 * 2 + right].row(i % 16));
                let result = match &epilogue.last {
                    None => sum,
                    Some(Last::Scale(factors)) => sum.mul(factors.load(at.clone())),
                    Some(Last::Activate(activation, None)) => activation.apply(sum).0,
                    Some(Last::Activate(activation, Some(slope))) => {
                        let (value, derivative) = activation.apply(sum);
                        // SAFETY: tasks have blocks of their own.
                        unsafe { slope.store(at.clone(), derivative) };
                        value
                    }
                };
                // SAFETY: as above.
                unsafe { c.store(at, result) };
            }
        }
    }
}
