//! Batches in which no text stands twice, as `NoDuplicatesBatchSampler` of sentence-transformers 6.2 makes them.

use super::shuffled::order;

/// Marks the end of the list of rows that wait.
const END: usize = usize::MAX;

/// Every row of a data set once: one pass over a random order, in which a row any of whose texts is in the batch already waits for the next one. A batch
/// that no further row fits into is smaller than `batch_size`. `row(i)` are the numbers of row `i`'s texts, all below `texts`.
pub fn no_duplicates<'t>(
    rows: usize,
    row: impl Fn(usize) -> &'t [u32],
    texts: usize,
    batch_size: usize,
    seed: u64,
    epoch: usize,
    stream: u32,
) -> Vec<Vec<usize>> {
    let order = order(rows, seed, epoch, stream);
    // A linked list of the rows that wait: `next[i]` is the place in `order` after place `i`.
    let mut next: Vec<usize> = (1..rows).chain([END]).collect();
    let mut head = if rows == 0 { END } else { 0 };
    // The number, from 1, of the last batch that a text went into.
    let mut batch_of = vec![0usize; texts];
    let mut batches = Vec::new();
    while head != END {
        let number = batches.len() + 1;
        let mut batch = Vec::with_capacity(batch_size);
        let (mut place, mut before) = (head, END);
        while place != END && batch.len() < batch_size.max(1) {
            let after = next[place];
            let ids = row(order[place]);
            if ids.iter().any(|&id| batch_of[id as usize] == number) {
                before = place;
            } else {
                ids.iter().for_each(|&id| batch_of[id as usize] = number);
                batch.push(order[place]);
                match before {
                    END => head = after,
                    before => next[before] = after,
                }
            }
            place = after;
        }
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_once_and_no_text_twice_in_a_batch(
            rows in prop::collection::vec([0u32..20, 0u32..20], 0..40),
            batch_size in 1usize..8,
            seed: u64,
            epoch in 0usize..3,
        ) {
            let batches = no_duplicates(rows.len(), |i| &rows[i], 20, batch_size, seed, epoch, 0);
            let mut all = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..rows.len()).collect::<Vec<_>>());
            for (i, batch) in batches.iter().enumerate() {
                prop_assert!(!batch.is_empty() && batch.len() <= batch_size);
                for (k, &a) in batch.iter().enumerate() {
                    prop_assert!(batch[..k].iter().all(|&b| rows[a].iter().all(|text| !rows[b].contains(text))));
                }
                // A batch is smaller only when none of the rows after it would have fitted.
                if batch.len() < batch_size {
                    for &later in batches[i + 1..].iter().flatten() {
                        prop_assert!(batch.iter().any(|&b| rows[b].iter().any(|text| rows[later].contains(text))));
                    }
                }
            }
        }
    }

    #[test]
    fn without_repeated_texts_it_is_the_shuffled_order() {
        let rows: Vec<[u32; 2]> = (0..21).map(|i| [2 * i, 2 * i + 1]).collect();
        let batches = no_duplicates(21, |i| &rows[i], 42, 8, 7, 3, 1);
        assert_eq!(batches, super::super::shuffled(21, 8, 7, 3, 1));
    }
}
