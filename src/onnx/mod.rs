//! The operator graph: a builder, shapes, the protobuf encoding, and reverse-mode differentiation.
//! To add an operator: a method on [`Graph`] and a gradient function in the file of its family under `ops/`, and one line in
//! [`differentiate::rule`].

pub mod differentiate;
mod fuse;
pub mod graph;
mod half;
pub mod import;
mod memory;
mod ops;
pub use ops::own::{Attention, Dropout};
pub mod proto;
pub mod shape;

pub use differentiate::{Gradient, differentiate};
pub use fuse::settle;
pub use graph::{Graph, GraphError, Operators, Value};
pub use shape::{DataType, Dim, Shape};

#[cfg(test)]
pub(crate) mod finite_differences;
