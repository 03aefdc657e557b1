//! Finding passages, and mining what to train on.

pub mod dense;
pub mod search;
