//! Element-wise operators, with numpy's broadcasting.

use super::super::differentiate::Piece;
use super::super::graph::{Graph, Node, Value};
use super::super::proto::{MICROSOFT, OWN};
use super::super::shape::{DataType, show};
use super::{dense, first};

impl Graph {
    pub fn add(&self, a: Value, b: Value) -> Value {
        self.binary("Add", a, b, DataType::F32)
    }

    pub fn sub(&self, a: Value, b: Value) -> Value {
        self.binary("Sub", a, b, DataType::F32)
    }

    pub fn mul(&self, a: Value, b: Value) -> Value {
        self.binary("Mul", a, b, DataType::F32)
    }

    pub fn div(&self, a: Value, b: Value) -> Value {
        self.binary("Div", a, b, DataType::F32)
    }

    /// `max(a, b)`. Where they are equal the gradient goes to `a`, as in `torch.clamp(min=)`.
    pub fn max(&self, a: Value, b: Value) -> Value {
        self.binary("Max", a, b, DataType::F32)
    }

    /// `min(a, b)`. Where they are equal the gradient goes to `a`, as in `torch.clamp(max=)`.
    pub fn min(&self, a: Value, b: Value) -> Value {
        self.binary("Min", a, b, DataType::F32)
    }

    /// `x` held between `low` and `high`; the gradient passes where neither bound was needed, the bounds themselves included,
    /// as in `torch.clamp`.
    pub fn clip(&self, x: Value, low: f32, high: f32) -> Value {
        let inputs = [x, self.scalar(low), self.scalar(high)];
        self.node("Clip", "", &inputs, &[], DataType::F32, self.shape(x))
    }

    /// `x` to the power of `exponent`.
    pub fn pow(&self, x: Value, exponent: f32) -> Value {
        self.binary("Pow", x, self.scalar(exponent), DataType::F32)
    }

    /// `a > b`, a boolean; not differentiable.
    pub fn greater(&self, a: Value, b: Value) -> Value {
        self.binary("Greater", a, b, DataType::Bool)
    }

    /// `a >= b`, a boolean; not differentiable.
    pub fn greater_or_equal(&self, a: Value, b: Value) -> Value {
        self.binary("GreaterOrEqual", a, b, DataType::Bool)
    }

    /// `a = b`, a boolean; not differentiable.
    pub fn equal(&self, a: Value, b: Value) -> Value {
        self.binary("Equal", a, b, DataType::Bool)
    }

    /// `x · factor`.
    pub fn scale(&self, x: Value, factor: f32) -> Value {
        self.mul(x, self.scalar(factor))
    }

    pub fn neg(&self, x: Value) -> Value {
        self.unary("Neg", "", x)
    }

    /// Its gradient at 0 is 0.
    pub fn abs(&self, x: Value) -> Value {
        self.unary("Abs", "", x)
    }

    /// Its gradient at 0 is infinite; see [`Graph::norm`] for one that is safe there.
    pub fn sqrt(&self, x: Value) -> Value {
        self.unary("Sqrt", "", x)
    }

    pub fn relu(&self, x: Value) -> Value {
        self.unary("Relu", "", x)
    }

    /// `x · Φ(x)`, exact (by the error function), as `torch.nn.GELU()`.
    pub fn gelu(&self, x: Value) -> Value {
        self.unary("Gelu", if self.own() { OWN } else { MICROSOFT }, x)
    }

    /// GELU as `torch.nn.GELU("tanh")` approximates it: `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    pub fn gelu_by_tanh(&self, x: Value) -> Value {
        let cube = self.mul(self.mul(x, x), x);
        let inner = self
            .scale(self.add(x, self.scale(cube, 0.044_715)), std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2);
        self.mul(self.scale(x, 0.5), self.add(self.tanh(inner), self.scalar(1.0)))
    }

    /// `condition ? a : b`.
    pub fn select(&self, condition: Value, a: Value, b: Value) -> Value {
        let shape = self.broadcast(&self.shape(a), &self.shape(b)).and_then(|s| self.broadcast(&s, &self.shape(condition)));
        let shape = shape.unwrap_or_else(|| {
            self.broken("Where", format!("shapes {} and {} do not broadcast", show(&self.shape(a)), show(&self.shape(b))));
            self.shape(a)
        });
        self.node("Where", "", &[condition, a, b], &[], DataType::F32, shape)
    }

    /// To `data_type`; not differentiable, as no graph has floats of two types.
    pub fn cast(&self, x: Value, data_type: DataType) -> Value {
        let to = [("to", super::super::graph::Attribute::Int(data_type as i64))];
        self.node("Cast", "", &[x], &to, data_type, self.shape(x))
    }

    pub(super) fn unary(&self, op: &'static str, domain: &'static str, x: Value) -> Value {
        self.node(op, domain, &[x], &[], DataType::F32, self.shape(x))
    }

    /// Arithmetic on integers, with numpy's broadcasting.
    pub(super) fn integer(&self, op: &'static str, a: Value, b: Value) -> Value {
        self.binary(op, a, b, DataType::I64)
    }

    /// An operator of two values, whose result is of this type.
    pub(super) fn binary(&self, op: &'static str, a: Value, b: Value, data_type: DataType) -> Value {
        let (x, y) = (self.shape(a), self.shape(b));
        let shape = self.broadcast(&x, &y).unwrap_or_else(|| {
            self.broken(op, format!("shapes {} and {} do not broadcast", show(&x), show(&y)));
            x
        });
        self.node(op, "", &[a, b], &[], data_type, shape)
    }

    /// `value` summed over the dimensions along which input `i` of `node` was broadcast.
    fn unbroadcast(&self, node: &Node, i: usize, value: Value) -> Option<Value> {
        Some(self.sum_like(value, node.inputs[i]))
    }
}

pub fn add(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    dense(wanted, |i| g.unbroadcast(node, i, dy))
}

pub fn sub(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    dense(wanted, |i| g.unbroadcast(node, i, if i == 0 { dy } else { g.neg(dy) }))
}

pub fn mul(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let dy = first(g, dy);
    dense(wanted, |i| g.unbroadcast(node, i, g.mul(dy, node.inputs[1 - i])))
}

/// d(a/b) = dy/b, −dy·y/b.
pub fn div(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let by = g.div(first(g, dy), node.inputs[1]);
    dense(wanted, |i| g.unbroadcast(node, i, if i == 0 { by } else { g.neg(g.mul(by, node.outputs[0])) }))
}

/// A staircase: the gradient is 0.
pub fn flat(_: &Graph, _: &Node, _: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| None)
}

pub fn neg(g: &Graph, _: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| Some(g.neg(first(g, dy))))
}

pub fn abs(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| Some(g.mul(first(g, dy), g.unary("Sign", "", node.inputs[0]))))
}

pub fn sqrt(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    dense(wanted, |_| Some(g.div(g.scale(first(g, dy), 0.5), node.outputs[0])))
}

/// At 0 the gradient is 0, as in PyTorch.
pub fn relu(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let zero = g.scalar(0.0);
    dense(wanted, |_| Some(g.select(g.greater(node.inputs[0], zero), first(g, dy), zero)))
}

/// Φ(x) + x·φ(x), with Φ(x) = (1 + erf(x/√2))/2 and φ(x) = exp(−x²/2)/√(2π).
pub fn gelu(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let x = node.inputs[0];
    if g.own() {
        return dense(wanted, |_| Some(g.gelu_gradient(x, first(g, dy))));
    }
    dense(wanted, |_| {
        let erf = g.unary("Erf", "", g.scale(x, std::f32::consts::FRAC_1_SQRT_2));
        let cumulative = g.add(g.scale(erf, 0.5), g.scalar(0.5));
        let density = g.exp(g.scale(g.mul(x, x), -0.5));
        let slope = g.mul(x, g.scale(density, std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * 0.5));
        Some(g.mul(first(g, dy), g.add(cumulative, slope)))
    })
}

pub fn select(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (dy, zero, condition) = (first(g, dy), g.scalar(0.0), node.inputs[0]);
    dense(wanted, |i| match i {
        0 => None,
        1 => g.unbroadcast(node, 1, g.select(condition, dy, zero)),
        _ => g.unbroadcast(node, 2, g.select(condition, zero, dy)),
    })
}

pub fn max(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (dy, zero) = (first(g, dy), g.scalar(0.0));
    let first_wins = g.greater_or_equal(node.inputs[0], node.inputs[1]);
    dense(wanted, |i| {
        g.unbroadcast(node, i, if i == 0 { g.select(first_wins, dy, zero) } else { g.select(first_wins, zero, dy) })
    })
}

pub fn min(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (dy, zero) = (first(g, dy), g.scalar(0.0));
    let first_wins = g.greater_or_equal(node.inputs[1], node.inputs[0]);
    dense(wanted, |i| {
        g.unbroadcast(node, i, if i == 0 { g.select(first_wins, dy, zero) } else { g.select(first_wins, zero, dy) })
    })
}

/// The bounds are no weights, and get none.
pub fn clip(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (x, low, high) = (node.inputs[0], node.inputs[1], node.inputs[2]);
    let zero = g.scalar(0.0);
    dense(wanted, |i| {
        (i == 0).then(|| {
            let above = g.select(g.greater_or_equal(x, low), first(g, dy), zero);
            g.select(g.greater_or_equal(high, x), above, zero)
        })
    })
}

/// d(xᵉ) = e·xᵉ⁻¹ for the base (finite at 0 for e ≥ 1, unlike e·y/x) and y·ln x for the exponent.
pub fn pow(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (dy, x, exponent) = (first(g, dy), node.inputs[0], node.inputs[1]);
    dense(wanted, |i| {
        let slope = if i == 0 {
            let lower = g.binary("Pow", x, g.sub(exponent, g.scalar(1.0)), DataType::F32);
            g.mul(exponent, lower)
        } else {
            g.mul(node.outputs[0], g.log(x))
        };
        g.unbroadcast(node, i, g.mul(dy, slope))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::finite_differences::check;

    #[test]
    fn gradients() {
        check("add, broadcast", &[&[2, 3], &[3]], |g, x| g.add(x[0], x[1]));
        check("add, broadcast both ways", &[&[2, 1], &[1, 3]], |g, x| g.add(x[0], x[1]));
        check("sub", &[&[2, 3], &[1, 3]], |g, x| g.sub(x[0], x[1]));
        check("mul, broadcast", &[&[2, 3], &[2, 1]], |g, x| g.mul(x[0], x[1]));
        check("mul, the same value twice", &[&[4]], |g, x| g.mul(x[0], x[0]));
        check("div, broadcast", &[&[2, 3], &[2, 1]], |g, x| g.div(x[0], g.add(g.abs(x[1]), g.scalar(0.5))));
        check("div of a broadcast numerator", &[&[3], &[2, 3]], |g, x| g.div(x[0], g.add(g.abs(x[1]), g.scalar(0.5))));
        check("neg", &[&[5]], |g, x| g.neg(x[0]));
        check("abs", &[&[5]], |g, x| g.abs(x[0]));
        check("sqrt", &[&[5]], |g, x| g.sqrt(g.add(g.abs(x[0]), g.scalar(0.5))));
        check("relu", &[&[9]], |g, x| g.relu(x[0]));
        check("gelu", &[&[9]], |g, x| g.gelu(g.scale(x[0], 2.0)));
        check("gelu by tanh", &[&[9]], |g, x| g.gelu_by_tanh(g.scale(x[0], 2.0)));
        check("max", &[&[9], &[9]], |g, x| g.max(x[0], x[1]));
        check("max with a constant", &[&[9]], |g, x| g.max(x[0], g.scalar(0.1)));
        check("min", &[&[9], &[9]], |g, x| g.min(x[0], x[1]));
        check("min with a constant", &[&[9]], |g, x| g.min(x[0], g.scalar(0.1)));
        check("clip", &[&[19]], |g, x| g.clip(x[0], -0.6, 0.55));
        check("square", &[&[9]], |g, x| g.pow(x[0], 2.0));
        check("power", &[&[9]], |g, x| g.pow(g.add(g.abs(x[0]), g.scalar(0.5)), -1.5));
        check("exponent", &[&[2, 3], &[3]], |g, x| g.binary("Pow", g.add(g.abs(x[0]), g.scalar(0.5)), x[1], DataType::F32));
        check("where", &[&[3, 4], &[4]], |g, x| g.select(g.greater(x[0], g.scalar(0.0)), x[0], x[1]));
    }
}
