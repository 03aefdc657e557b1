//! Shapes of values while the graph is built: sizes that are known, and sizes that have only a name until the graph runs.

use std::fmt;
use std::sync::Arc;

/// Element type of a value; the number is ONNX's `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    F32 = 1,
    I32 = 6,
    I64 = 7,
    Bool = 9,
    F16 = 10,
    Bf16 = 16,
}

/// One dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    /// Known when the graph runs. Two dimensions are equal when they have the same name.
    Symbol(Arc<str>),
    /// Known when the graph runs, and until then equal to none but those of the same number: sizes that an imported graph
    /// computes.
    Unknown(u32),
}

impl From<usize> for Dim {
    fn from(size: usize) -> Self {
        Dim::Fixed(size)
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Dim::Symbol(name.into())
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown(_) => f.write_str("?"),
        }
    }
}

/// Dimensions, outermost first; empty for a scalar.
pub type Shape = Vec<Dim>;

/// Shorthand: `shape!["tokens", 384]`.
#[macro_export]
macro_rules! shape {
    ($($dim:expr),* $(,)?) => { vec![$($crate::onnx::Dim::from($dim)),*] };
}

/// `[tokens, 384]`, for messages.
pub fn show(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// The shape that `a` and `b` broadcast to, by numpy's rule; `None` when they do not. `unknown` gives a new dimension for
/// sizes that cannot be told before the graph runs.
pub fn broadcast(a: &[Dim], b: &[Dim], mut unknown: impl FnMut() -> Dim) -> Option<Shape> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], i: usize| if i + shape.len() < rank { Dim::Fixed(1) } else { shape[i + shape.len() - rank].clone() };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (Dim::Fixed(1), y) => Some(y),
            (x, Dim::Fixed(1)) => Some(x),
            // Either the same size or 1.
            (Dim::Fixed(n), Dim::Unknown(_)) | (Dim::Unknown(_), Dim::Fixed(n)) => Some(Dim::Fixed(n)),
            (Dim::Unknown(_), _) | (_, Dim::Unknown(_)) => Some(unknown()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let to = |a: Shape, b: Shape| broadcast(&a, &b, || Dim::Unknown(9));
        assert_eq!(to(shape!["t", 4], shape![4]), Some(shape!["t", 4]));
        assert_eq!(to(shape!["t", 1], shape![3]), Some(shape!["t", 3]));
        assert_eq!(to(shape![], shape![2]), Some(shape![2]));
        assert_eq!(to(shape!["t"], shape!["u"]), None);
        assert_eq!(to(shape![2], shape![3]), None);
        let unknown = || vec![Dim::Unknown(1)];
        assert_eq!(to(unknown(), shape![3]), Some(shape![3]));
        assert_eq!(to(unknown(), shape![1]), Some(unknown()));
        assert_eq!(to(unknown(), shape!["t"]), Some(vec![Dim::Unknown(9)]));
    }
}
