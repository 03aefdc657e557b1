//! Tables and plots.

mod axis;
mod canvas;
pub mod curves;
pub mod markdown;
pub mod pca;
mod placement;
mod png;
pub mod scatter;
