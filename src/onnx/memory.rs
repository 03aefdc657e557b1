//! How much memory a graph takes when it runs.

use std::collections::{HashMap, HashSet};

use super::graph::{Graph, Value};
use super::shape::{DataType, Dim, Shape};

/// Operators whose output is their first input in another shape.
const VIEWS: [&str; 5] = ["Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"];

/// Operators that may write into an input that nothing reads afterwards.
const IN_PLACE: [&str; 8] = ["Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Relu"];

impl Graph {
    /// The bytes of all values that are alive at once, at most, when the nodes run in their order and every value goes after its last use. Graph
    /// inputs are left out, and outputs of fixed shape: these are buffers that are there before. `size` knows the sizes of symbols.
    pub fn peak(&self, size: &dyn Fn(&str) -> usize) -> u64 {
        let (nodes, outputs) = (self.nodes(), self.outputs());
        let computed: HashSet<Value> = nodes.iter().flat_map(|node| node.outputs.iter().copied()).collect();
        let buffers: HashSet<Value> = outputs.iter().copied().filter(|&value| self.is_fixed(value)).collect();
        // A view is the value that it shows.
        let mut shown: HashMap<Value, Value> = HashMap::new();
        let resolve = |shown: &HashMap<Value, Value>, value: Value| shown.get(&value).copied().unwrap_or(value);
        for node in nodes.iter().filter(|node| VIEWS.contains(&node.op)) {
            if let (Some(&input), Some(&output)) = (node.inputs.first(), node.outputs.first()) {
                let input = resolve(&shown, input);
                shown.insert(output, input);
            }
        }
        let mut last: HashMap<Value, usize> = HashMap::new();
        for (number, node) in nodes.iter().enumerate() {
            last.extend(node.inputs.iter().chain(&node.outputs).map(|&value| (resolve(&shown, value), number)));
        }
        last.extend(outputs.iter().map(|&value| (resolve(&shown, value), nodes.len())));
        let bytes = |value: Value| bytes(&self.shape(value), self.data_type(value), size);
        let mut goes: HashMap<usize, Vec<u64>> = HashMap::new();
        let (mut now, mut peak) = (0u64, 0u64);
        for (number, node) in nodes.iter().enumerate() {
            let new = node.outputs.iter().copied().filter(|&value| resolve(&shown, value) == value && !buffers.contains(&value));
            let new: Vec<(Value, u64)> = new.map(|value| (value, bytes(value))).collect();
            // What is written over need not be there twice.
            let over = IN_PLACE.contains(&node.op).then(|| {
                let ends = node.inputs.iter().map(|&input| resolve(&shown, input));
                let ends = ends.filter(|input| last.get(input) == Some(&number) && computed.contains(input)).map(bytes);
                let made: u64 = new.iter().map(|(_, bytes)| bytes).sum();
                ends.max().unwrap_or(0).min(made)
            });
            for (value, bytes) in new {
                now += bytes;
                goes.entry(last.get(&value).copied().unwrap_or(number)).or_default().push(bytes);
            }
            peak = peak.max(now.saturating_sub(over.unwrap_or(0)));
            now -= goes.remove(&number).unwrap_or_default().into_iter().sum::<u64>();
        }
        peak
    }

    /// The bytes of the graph inputs whose shape is not fixed, which every run is given anew; weights are of fixed shape.
    pub fn given(&self, size: &dyn Fn(&str) -> usize) -> u64 {
        let given = self.inputs().into_iter().filter(|&value| !self.is_fixed(value));
        given.map(|value| bytes(&self.shape(value), self.data_type(value), size)).sum()
    }

    fn is_fixed(&self, value: Value) -> bool {
        self.shape(value).iter().all(|dim| matches!(dim, Dim::Fixed(_)))
    }
}

fn bytes(shape: &Shape, data_type: DataType, size: &dyn Fn(&str) -> usize) -> u64 {
    let element: u64 = match data_type {
        DataType::F16 | DataType::Bf16 => 2,
        DataType::F32 | DataType::I32 => 4,
        DataType::I64 => 8,
        DataType::Bool => 1,
    };
    let dims = shape.iter().map(|dim| match dim {
        Dim::Fixed(size) => *size as u64,
        Dim::Symbol(name) => size(name) as u64,
        // An imported graph computes it; it is mostly a number of heads or a length that another dimension has too.
        Dim::Unknown(_) => 1,
    });
    dims.fold(element, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape;

    #[test]
    fn values_count_while_they_are_needed() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape!["n", 10]);
        let w = g.input("w", DataType::F32, shape![10, 10]);
        let a = g.linear(x, w, None);
        // A view and an operator that writes over its input take nothing.
        let b = g.relu(g.reshape(a, shape!["n", 2, 5]));
        let c = g.linear(g.reshape(b, shape!["n", 10]), w, None);
        g.output("c", c);
        let peak = |n: usize| g.peak(&|_| n);
        // At the second product, `b` and `c`.
        assert_eq!(peak(3), 2 * 3 * 10 * 4);
        assert_eq!(peak(300), 100 * peak(3));
        g.output("a", a);
        assert_eq!(peak(3), 3 * 3 * 10 * 4, "`a` stays, and is not written over");
        assert_eq!(g.given(&|_| 3), 3 * 10 * 4, "`x`, but not the weight");
    }
}
