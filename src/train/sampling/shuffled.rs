//! Every row once an epoch, in a random order.

use rand::seq::SliceRandom;

use super::rng;

/// The numbers 0..`rows` in an order drawn from `seed`, `epoch` and `stream`, `batch_size` at a time; the last batch may be smaller.
pub fn shuffled(rows: usize, batch_size: usize, seed: u64, epoch: usize, stream: u32) -> Vec<Vec<usize>> {
    order(rows, seed, epoch, stream).chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
}

/// The numbers 0..`rows` in a random order.
pub(super) fn order(rows: usize, seed: u64, epoch: usize, stream: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut rng(seed, epoch, stream));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_once_an_epoch_in_a_reproducible_order() {
        let batches = shuffled(21, 8, 42, 0, 0);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 5]);
        let mut all: Vec<usize> = batches.concat();
        // Pinned: another order would change every training that is on record.
        assert_eq!(all, [7, 1, 11, 16, 6, 12, 3, 10, 20, 13, 14, 19, 18, 0, 8, 2, 4, 17, 9, 5, 15]);
        all.sort_unstable();
        assert_eq!(all, (0..21).collect::<Vec<_>>());
        assert_eq!(batches, shuffled(21, 8, 42, 0, 0));
        for (seed, epoch, stream) in [(43, 0, 0), (42, 1, 0), (42, 0, 1)] {
            assert_ne!(batches, shuffled(21, 8, seed, epoch, stream));
        }
    }
}
