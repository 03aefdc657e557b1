//! Tables and plots.

pub mod markdown;
