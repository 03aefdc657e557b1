//! In which turn the batches of several data sets are learnt from.

use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rng;

/// The random numbers of the turns are those of the last stream; data sets have the first ones.
const STREAM: u32 = u32::MAX;

/// How several data sets are mixed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// All batches of all data sets in a random turn, so that larger data sets come up more often.
    #[default]
    Proportional,
    /// One batch of each data set in turn, until the smallest has no more.
    RoundRobin,
}

impl Mixing {
    /// The turns of an epoch: which data set each step learns from. `batches` says how many batches each of them has.
    pub fn turns(self, batches: &[usize], seed: u64, epoch: usize) -> Vec<usize> {
        match self {
            Mixing::Proportional => {
                let mut turns: Vec<usize> =
                    batches.iter().enumerate().flat_map(|(set, &n)| std::iter::repeat_n(set, n)).collect();
                // One data set takes no draw.
                if batches.len() > 1 {
                    turns.shuffle(&mut rng(seed, epoch, STREAM));
                }
                turns
            }
            Mixing::RoundRobin => {
                let rounds = batches.iter().min().copied().unwrap_or(0);
                (0..rounds).flat_map(|_| 0..batches.len()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_proportion_every_batch_has_its_turn() {
        let turns = Mixing::Proportional.turns(&[5, 2, 0, 3], 42, 0);
        let mut sorted = turns.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 0, 0, 0, 0, 1, 1, 3, 3, 3]);
        assert_ne!(turns, sorted);
        assert_eq!(turns, Mixing::Proportional.turns(&[5, 2, 0, 3], 42, 0));
        assert_ne!(turns, Mixing::Proportional.turns(&[5, 2, 0, 3], 42, 1));
    }

    #[test]
    fn round_robin_ends_with_the_smallest() {
        assert_eq!(Mixing::RoundRobin.turns(&[5, 2, 3], 42, 0), [0, 1, 2, 0, 1, 2]);
        assert!(Mixing::RoundRobin.turns(&[], 42, 0).is_empty());
    }
}
