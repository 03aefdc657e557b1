//! Mixed precision: matrix products in a type of half the width, everything else in single precision. The factors of a product are rounded
//! to that type, and so is its result; weights stay as they are. What only moves elements on the way from one product to the next moves them
//! in that type.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::graph::{Attribute, Graph, Node, Value};
use super::shape::DataType;

/// Products of matrices.
const PRODUCTS: &[&str] = &["Gemm", "MatMul", "FusedMatMul"];
/// What moves the elements of its first input.
const MOVES: &[&str] = &["Gather", "Reshape", "Squeeze", "Transpose", "Unsqueeze"];

/// Makes the products of `graph` compute in `to`, but for those that stay exact: of values of the nodes `exact` (a loss), and of graph inputs
/// that are no `weights`, which are data of a batch.
pub fn lower(graph: &Graph, to: DataType, weights: &[Value], exact: Range<usize>) {
    let nodes = graph.take_nodes();
    let weights: HashSet<Value> = weights.iter().copied().collect();
    let mut kept: HashSet<Value> = graph.inputs().into_iter().filter(|input| !weights.contains(input)).collect();
    kept.extend(nodes.get(exact).unwrap_or(&[]).iter().flat_map(|node| node.outputs.iter().copied()));
    let mut lowering = Lowering { graph, to, low: HashMap::new(), pending: HashSet::new() };
    for node in nodes {
        let is_exact = node.inputs.iter().any(|input| kept.contains(input));
        if PRODUCTS.contains(&node.op) && !is_exact {
            lowering.product(node);
        } else if MOVES.contains(&node.op) && node.inputs.first().is_some_and(|input| lowering.pending.contains(input)) {
            lowering.moved(node);
        } else {
            node.inputs.iter().for_each(|&input| lowering.raise(input));
            graph.push_node(node);
        }
    }
    graph.outputs().into_iter().for_each(|output| lowering.raise(output));
}

struct Lowering<'g> {
    graph: &'g Graph,
    to: DataType,
    /// Values that are there in the narrow type.
    low: HashMap<Value, Value>,
    /// Those of them that are not there in single precision.
    pending: HashSet<Value>,
}

impl Lowering<'_> {
    fn product(&mut self, mut node: Node) {
        for input in &mut node.inputs {
            *input = self.lowered(*input);
        }
        self.push(node);
    }

    /// Only the first input holds what is moved.
    fn moved(&mut self, mut node: Node) {
        if let Some(input) = node.inputs.first_mut() {
            *input = self.lowered(*input);
        }
        self.push(node);
    }

    /// Adds a node whose outputs are in the narrow type.
    fn push(&mut self, mut node: Node) {
        for output in &mut node.outputs {
            let low = self.graph.another(*output, self.to);
            self.low.insert(*output, low);
            self.pending.insert(*output);
            *output = low;
        }
        self.graph.push_node(node);
    }

    /// `value` in the narrow type.
    fn lowered(&mut self, value: Value) -> Value {
        if let Some(&low) = self.low.get(&value) {
            return low;
        }
        let low = self.graph.another(value, self.to);
        self.graph.push_node(cast(value, low, self.to));
        self.low.insert(value, low);
        low
    }

    /// Sees to it that `value` is there in single precision.
    fn raise(&mut self, value: Value) {
        if self.pending.remove(&value)
            && let Some(&low) = self.low.get(&value)
        {
            self.graph.push_node(cast(low, value, DataType::F32));
        }
    }
}

fn cast(from: Value, into: Value, to: DataType) -> Node {
    let attributes = vec![("to", Attribute::Int(to as i64))];
    Node { op: "Cast", domain: "", inputs: vec![from], outputs: vec![into], attributes, label: None }
}

#[cfg(test)]
mod tests {
    use super::super::finite_differences::run;
    use super::*;
    use crate::shape;

    /// x·Wᵀ, moved about, times itself; its mean; and a product with data that must stay exact.
    fn graph(to: Option<DataType>) -> Graph {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape![4, 8]);
        let w = g.input("w", DataType::F32, shape![8, 8]);
        let bias = g.input("b", DataType::F32, shape![8]);
        let y = g.linear(g.add(x, g.scalar(0.0)), w, Some(bias));
        let heads = g.transpose(g.reshape(y, shape![4, 2, 4]), &[1, 0, 2]);
        let scores = g.matmul(heads, heads, false, true, 0.5);
        g.output("scores", g.softmax(scores));
        g.output("y", y);
        let before = g.count();
        let pooled = g.matmul(x, w, false, false, 1.0);
        g.output("pooled", pooled);
        if let Some(to) = to {
            lower(&g, to, &[w, bias], before..g.count());
        }
        g
    }

    #[test]
    fn products_alone_are_rounded() {
        let count = |g: &Graph, op: &str| g.nodes().iter().filter(|node| node.op == op).count();
        let exact = graph(None);
        let half = graph(Some(DataType::F16));
        // The three inputs of the linear layer go down; its result comes up for the output `y` and the scores for the softmax. What lies
        // between the two products stays.
        assert_eq!((count(&exact, "Cast"), count(&half, "Cast")), (0, 5));
        assert_eq!(half.nodes().len(), exact.nodes().len() + 5);
        let numbers = |n: usize, by: f32| (0..n).map(|i| ((i * 37 % 101) as f32 / 101.0 - 0.5) * by).collect::<Vec<f32>>();
        let (x, w, b) = (numbers(32, 2.0), numbers(64, 1.0), numbers(8, 0.1));
        let inputs: [(&str, &[usize], &[f32]); 3] = [("x", &[4, 8], &x), ("w", &[8, 8], &w), ("b", &[8], &b)];
        let (exact, half) = (run(&exact, &inputs), run(&half, &inputs));
        // Half precision has 11 digits: 2^-11 for each of the three roundings, of sums whose terms are below 4 together.
        for (name, (a, b)) in ["scores", "y"].iter().zip(exact.iter().zip(&half)) {
            let off = a.1.iter().zip(&b.1).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            assert!(off > 0.0 && off < 4.0 * 3.0 / 2048.0, "{name} is off by {off}");
        }
        assert_eq!(exact[2], half[2], "a product with data is exact");
    }

    #[test]
    fn a_graph_without_products_stays() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape![4]);
        g.output("y", g.exp(x));
        lower(&g, DataType::F16, &[x], 0..0);
        assert_eq!(g.count(), 1);
    }
}
