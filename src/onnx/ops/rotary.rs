//! Rotary position embeddings (Su et al., 2021).

use super::super::differentiate::Piece;
use super::super::graph::{Graph, Node, Value};
use super::super::proto::MICROSOFT;
use super::super::shape::{DataType, Dim, show};
use super::{dense, first};

impl Graph {
    /// Turns the first half of every head of `x` `[tokens, heads · width]` against its second half by the angle of the token's
    /// position: `cos` and `sin` are `[positions, width / 2]`, `positions` `[tokens]`.
    pub fn rotary(&self, x: Value, positions: Value, cos: Value, sin: Value) -> Value {
        let shape = self.shape(x);
        let (hidden, half) = (self.width("RotaryEmbedding", x), self.width("RotaryEmbedding", cos));
        if shape.len() != 2 || half == 0 || !hidden.is_multiple_of(2 * half) || self.shape(cos) != self.shape(sin) {
            let message = format!("{} has no heads of twice the width of {}", show(&shape), show(&self.shape(cos)));
            self.broken("RotaryEmbedding", message);
            return x;
        }
        // Each token as a text of its own: where it stands is told by `positions` alone.
        let apart = self.reshape(x, vec![shape[0].clone(), Dim::Fixed(1), Dim::Fixed(hidden)]);
        let places = self.reshape(positions, vec![shape[0].clone(), Dim::Fixed(1)]);
        self.reshape(self.rotate(apart, places, cos, sin), shape)
    }

    fn rotate(&self, x: Value, positions: Value, cos: Value, sin: Value) -> Value {
        self.node("RotaryEmbedding", MICROSOFT, &[x, positions, cos, sin], &[], DataType::F32, self.shape(x))
    }
}

/// dy, turned back.
pub fn rotary(g: &Graph, node: &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>> {
    let (positions, cos, sin) = (node.inputs[1], node.inputs[2], node.inputs[3]);
    dense(wanted, |i| (i == 0).then(|| g.rotate(first(g, dy), positions, cos, g.neg(sin))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::finite_differences::{check, run};

    fn tables(g: &Graph) -> (Value, Value, Value) {
        let angles: [f32; 6] = [0.0, 0.0, 1.0, 0.1, 2.0, 0.2];
        let table = |f: fn(f32) -> f32| g.constant(&[3, 2], &angles.map(f));
        (g.integers(&[2, 0, 1]), table(f32::cos), table(f32::sin))
    }

    #[test]
    fn halves_of_a_head_turn_against_each_other() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, crate::shape![3, 4]);
        let (positions, cos, sin) = tables(&g);
        g.output("y", g.rotary(x, positions, cos, sin));
        let (_, y) = run(&g, &[("x", &[3, 4], &[1.0, 1.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0, 1.0, 1.0])]).remove(0);
        let expected = [
            2f32.cos(),
            0.2f32.cos(),
            2f32.sin(),
            0.2f32.sin(),
            5.0,
            6.0,
            7.0,
            8.0,
            -(1f32.sin()),
            -(0.1f32.sin()),
            1f32.cos(),
            0.1f32.cos(),
        ];
        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{y:?}");
    }

    #[test]
    fn gradients() {
        check("rotary", &[&[3, 8]], |g, x| {
            let (positions, cos, sin) = tables(g);
            g.rotary(x[0], positions, cos, sin)
        });
    }
}
