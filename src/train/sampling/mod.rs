//! Which examples a step learns from: samplers cut a data set into batches, mixing deals the batches of several data sets. All of them
//! are pure functions of the seed and the epoch, the same on every machine.

mod mixing;
mod no_duplicates;
mod shuffled;

pub use mixing::Mixing;
pub use no_duplicates::no_duplicates;
pub use shuffled::shuffled;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a data set is cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// In an order drawn anew each epoch.
    Shuffled,
    /// Likewise, but no text stands twice among the rows of a batch, for losses that take the other rows' texts for negatives: a row with a text that is
    /// there already waits for a later batch.
    NoDuplicates,
}

/// The random numbers of `stream` of an epoch.
fn rng(seed: u64, epoch: usize, stream: u32) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((u64::from(stream) << 32) | (epoch as u64 & u64::from(u32::MAX)));
    rng
}
