//! Exact search by vectors.

use std::cmp::Ordering;

use ndarray::{Array2, ArrayView2};

use crate::artifact::Hit;

/// The rows scaled to length 1; rows of zeros stay as they are.
pub fn normalized(vectors: ArrayView2<f32>) -> Array2<f32> {
    let mut vectors = vectors.to_owned();
    for mut row in vectors.rows_mut() {
        let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if length > 0.0 {
            row.mapv_inplace(|x| (f64::from(x) / length) as f32);
        }
    }
    vectors
}

/// The `k` best of `scores`, best first; equal scores by id, descending or ascending.
pub fn top(scores: &[f32], ids: &[&str], k: usize, ids_descend: bool) -> Vec<Hit> {
    let order = |&a: &usize, &b: &usize| -> Ordering {
        let by_id = if ids_descend { ids[b].cmp(ids[a]) } else { ids[a].cmp(ids[b]) };
        scores[b].total_cmp(&scores[a]).then(by_id)
    };
    let mut best: Vec<usize> = (0..scores.len().min(ids.len())).collect();
    if k == 0 {
        return Vec::new();
    }
    if k < best.len() {
        best.select_nth_unstable_by(k - 1, order);
        best.truncate(k);
    }
    best.sort_by(order);
    best.into_iter().map(|i| Hit { passage: ids[i].to_owned(), score: scores[i] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(scores in prop::collection::vec(0u8..5, 0..60), k in 0usize..70, descend: bool) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let names: Vec<String> = (0..scores.len()).map(|i| format!("p{i}")).collect();
            let ids: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut all: Vec<usize> = (0..ids.len()).collect();
            all.sort_by(|&a, &b| {
                scores[b].total_cmp(&scores[a]).then(if descend { ids[b].cmp(ids[a]) } else { ids[a].cmp(ids[b]) })
            });
            let expected: Vec<&str> = all.iter().take(k).map(|&i| ids[i]).collect();
            let found = top(&scores, &ids, k, descend);
            prop_assert_eq!(found.iter().map(|h| h.passage.as_str()).collect::<Vec<_>>(), expected);
        }
    }
}
