//! The operators, by family: each file has the methods that build them and the functions that differentiate them.

mod dropout;
pub mod elementwise;
pub mod functions;
pub mod layout;
pub mod lookup;
pub mod matrix;
pub mod normalization;
pub mod own;
pub mod parts;
pub mod reduce;
pub mod rotary;

use super::differentiate::Piece;
use super::graph::{Graph, Value};

/// Calls `f` for the inputs that want a gradient.
fn dense(wanted: &[bool], f: impl Fn(usize) -> Option<Value>) -> Vec<Option<Piece>> {
    wanted.iter().enumerate().map(|(i, &w)| if w { f(i).map(Piece::Dense) } else { None }).collect()
}

/// The gradient of a node's first output; every node that is differentiated for it has one.
fn first(graph: &Graph, dy: &[Option<Value>]) -> Value {
    dy.first().copied().flatten().unwrap_or_else(|| graph.scalar(0.0))
}
