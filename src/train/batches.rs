//! The order of examples.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The batches of an epoch: the numbers 0..`examples` in an order drawn from `seed` and `epoch`, `batch_size` at a time; the
/// last batch may be smaller. The order is the same on every machine.
pub fn shuffled(examples: usize, batch_size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..examples).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch as u64);
    order.shuffle(&mut rng);
    order.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_once_an_epoch_in_a_reproducible_order() {
        let batches = shuffled(21, 8, 42, 0);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 5]);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..21).collect::<Vec<_>>());
        assert_eq!(batches, shuffled(21, 8, 42, 0));
        assert_ne!(batches, shuffled(21, 8, 42, 1));
        assert_ne!(batches, shuffled(21, 8, 43, 0));
    }
}
