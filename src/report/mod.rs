//! Tables and plots.

mod canvas;
pub mod markdown;
pub mod pca;
mod placement;
mod png;
pub mod scatter;
