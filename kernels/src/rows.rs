//! Sums of rows: the gradient of a table whose entries several tokens share.

use std::ops::Range;

use crate::Pool;
use crate::isa::versions;
use crate::pool::Parts;

/// Columns that one task has, of all rows.
const COLUMNS: usize = 64;

/// Adds row i of `rows` to row `places[i]` of `sums`, both of `width` columns, one after the other.
///
/// # Panics
/// The lengths do not fit each other, or a place is not in `sums`.
pub fn add_rows(pool: &dyn Pool, width: usize, places: &[usize], rows: &[f32], sums: &mut [f32]) {
    assert_eq!(rows.len(), places.len() * width, "a place for each row");
    let (isa, parts) = (pool.isa(), Parts::new(sums));
    pool.run(width.div_ceil(COLUMNS), &|task| {
        let columns = task * COLUMNS..width.min((task + 1) * COLUMNS);
        add_columns(isa, width, columns, places, rows, &parts);
    });
}

versions! {
    fn add_columns<V>(width: usize, columns: Range<usize>, places: &[usize], rows: &[f32], sums: &Parts<f32>) {
        for (place, row) in places.iter().zip(rows.chunks_exact(width)) {
            // SAFETY: tasks have columns of their own.
            let sum = unsafe { sums.part(place * width + columns.start..place * width + columns.end) };
            for (sum, x) in sum.chunks_mut(16).zip(row[columns.clone()].chunks(16)) {
                V::load_some(sum).add(V::load_some(x)).store_some(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;
    use crate::testing::{Random, all_isas};

    #[test]
    fn rows_are_added_in_their_order() {
        for (width, places) in [(1, &[0usize, 2, 0][..]), (100, &[1, 1, 0, 3, 1]), (384, &[0; 9]), (5, &[])] {
            let rows = Random(1).normals(places.len() * width);
            let before = Random(2).normals(4 * width);
            let mut expected = before.clone();
            for (place, row) in places.iter().zip(rows.chunks_exact(width)) {
                expected[place * width..][..width].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            for isa in all_isas() {
                let mut sums = before.clone();
                add_rows(&Threads { threads: 3, isa }, width, places, &rows, &mut sums);
                assert!(sums == expected, "{} rows of {width}, {isa}", places.len());
            }
        }
    }
}
