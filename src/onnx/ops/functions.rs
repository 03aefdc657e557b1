//! Functions of one number, applied to every element.

use super::super::differentiate::Piece;
use super::super::graph::{Graph, Node, Value};
use super::{dense, first};

impl Graph {
    pub fn exp(&self, x: Value) -> Value {
        self.unary("Exp", "", x)
    }

    /// The natural logarithm.
    pub fn log(&self, x: Value) -> Value {
        self.unary("Log", "", x)
    }

    pub fn tanh(&self, x: Value) -> Value {
        self.unary("Tanh", "", x)
    }

    /// `1 / (1 + e⁻ˣ)`.
    pub fn sigmoid(&self, x: Value) -> Value {
        self.unary("Sigmoid", "", x)
    }

    /// The error function, `2/√π · ∫₀ˣ e^(−t²) dt`.
    pub fn erf(&self, x: Value) -> Value {
        self.unary("Erf", "", x)
    }

    pub fn sin(&self, x: Value) -> Value {
        self.unary("Sin", "", x)
    }

    pub fn cos(&self, x: Value) -> Value {
        self.unary("Cos", "", x)
    }

    /// `1 / x`.
    pub fn reciprocal(&self, x: Value) -> Value {
        self.unary("Reciprocal", "", x)
    }
}

/// dy·y.
pub fn exp(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| Some(g.mul(first(g, dy), node.outputs[0])))
}

pub fn log(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| Some(g.div(first(g, dy), node.inputs[0])))
}

/// dy·(1 − y²).
pub fn tanh(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let y = node.outputs[0];
    dense(wanted, |_| Some(g.mul(first(g, dy), g.sub(g.scalar(1.0), g.mul(y, y)))))
}

/// dy·y·(1 − y).
pub fn sigmoid(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let y = node.outputs[0];
    dense(wanted, |_| Some(g.mul(first(g, dy), g.mul(y, g.sub(g.scalar(1.0), y)))))
}

/// dy·2/√π·e^(−x²).
pub fn erf(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let x = node.inputs[0];
    dense(wanted, |_| {
        let bell = g.exp(g.neg(g.mul(x, x)));
        Some(g.mul(first(g, dy), g.scale(bell, std::f32::consts::FRAC_2_SQRT_PI)))
    })
}

pub fn sin(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| Some(g.mul(first(g, dy), g.cos(node.inputs[0]))))
}

pub fn cos(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| Some(g.neg(g.mul(first(g, dy), g.sin(node.inputs[0])))))
}

/// −dy·y².
pub fn reciprocal(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let y = node.outputs[0];
    dense(wanted, |_| Some(g.neg(g.mul(first(g, dy), g.mul(y, y)))))
}

#[cfg(test)]
mod tests {
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        check("exp", &[&[9]], |g, x| g.exp(x[0]));
        check("log", &[&[9]], |g, x| g.log(g.add(g.abs(x[0]), g.scalar(0.5))));
        check("tanh", &[&[9]], |g, x| g.tanh(x[0]));
        check("sigmoid", &[&[9]], |g, x| g.sigmoid(x[0]));
        check("erf", &[&[9]], |g, x| g.erf(x[0]));
        check("sin", &[&[9]], |g, x| g.sin(x[0]));
        check("cos", &[&[9]], |g, x| g.cos(x[0]));
        check("reciprocal", &[&[9]], |g, x| g.reciprocal(g.add(g.abs(x[0]), g.scalar(0.5))));
    }
}
