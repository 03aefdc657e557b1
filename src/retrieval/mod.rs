//! Finding passages, judging which answer a query, and mining what to train on.

pub mod dense;
pub mod judge;
pub mod mine;
pub mod search;
