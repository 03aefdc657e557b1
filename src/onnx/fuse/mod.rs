//! Rewrites a graph of retune's own operators with bf16 products, so that less goes through memory: what follows a product is computed as the
//! product is written, and values that only products read are kept in bf16, to which products may round them.

mod gelu;
mod norms;
mod storage;
mod sums;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::graph::{Graph, Node, Operators, Value};
use super::half::lower;
use super::proto::OWN;
use super::shape::DataType;

/// The last step of building `graph`, when its outputs are known: products in half precision if `half` says so ([`lower`]), and what can be computed
/// together in one operator. `weights` and `exact` as for [`lower`].
pub fn settle(graph: &Graph, half: Option<DataType>, weights: impl Iterator<Item = Value>, exact: Range<usize>) {
    if let Some(half) = half {
        lower(graph, half, &weights.collect::<Vec<_>>(), exact);
    }
    fuse(graph);
}

/// Fuses the nodes of `graph`, whose outputs must all be known. Graphs of other operators stay as they are.
fn fuse(graph: &Graph) {
    if graph.operators() != (Operators::Own { bf16: true }) {
        return;
    }
    for pass in [gelu::fuse, sums::fuse, norms::fuse, storage::fuse] {
        let mut nodes = Nodes::new(graph);
        pass(&mut nodes);
        nodes.give_back();
    }
}

/// A place where a value is read: node and number of the input.
type Reader = (usize, usize);

/// The nodes of a graph in their order, and where their values are written and read. Nodes may go and others come in their place; values of
/// nodes that came are known to the next pass only.
struct Nodes<'g> {
    graph: &'g Graph,
    nodes: Vec<Option<Node>>,
    writers: HashMap<Value, usize>,
    readers: HashMap<Value, Vec<Reader>>,
    outputs: HashSet<Value>,
}

impl<'g> Nodes<'g> {
    fn new(graph: &'g Graph) -> Self {
        let nodes = graph.take_nodes();
        let (mut writers, mut readers) = (HashMap::new(), HashMap::<Value, Vec<Reader>>::new());
        for (i, node) in nodes.iter().enumerate() {
            writers.extend(node.outputs.iter().map(|&value| (value, i)));
            for (at, &value) in node.inputs.iter().enumerate() {
                readers.entry(value).or_default().push((i, at));
            }
        }
        let outputs = graph.outputs().into_iter().collect();
        Nodes { graph, nodes: nodes.into_iter().map(Some).collect(), writers, readers, outputs }
    }

    fn give_back(self) {
        self.nodes.into_iter().flatten().for_each(|node| self.graph.push_node(node));
    }

    fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node `i`, if it is still there.
    fn get(&self, i: usize) -> Option<&Node> {
        self.nodes.get(i)?.as_ref()
    }

    /// The node `i`, if it is still there and one of retune's own called `op`.
    fn own(&self, i: usize, op: &str) -> Option<&Node> {
        self.get(i).filter(|node| node.op == op && node.domain == OWN)
    }

    /// The node that writes `value`.
    fn writer(&self, value: Value) -> Option<usize> {
        self.writers.get(&value).copied()
    }

    fn readers(&self, value: Value) -> &[Reader] {
        self.readers.get(&value).map_or(&[], Vec::as_slice)
    }

    /// The only place that reads `value`, which is no output of the graph.
    fn only_reader(&self, value: Value) -> Option<Reader> {
        match self.readers(value) {
            [reader] if !self.outputs.contains(&value) => Some(*reader),
            _ => None,
        }
    }

    /// Whether nothing but products, which may round it to bf16, reads `value`.
    fn is_rounded(&self, value: Value) -> bool {
        let rounds = |&(i, at): &Reader| self.get(i).is_some_and(|node| storage::rounds(node, at));
        !self.outputs.contains(&value) && !self.readers(value).is_empty() && self.readers(value).iter().all(rounds)
    }

    fn remove(&mut self, i: usize) {
        self.nodes[i] = None;
    }

    fn replace(&mut self, i: usize, node: Node) {
        self.nodes[i] = Some(node);
    }
}

/// Whether `node` is a product of two matrices of which the first is as it lies in memory; with a bias it has three inputs.
fn is_product(node: &Node, inputs: std::ops::RangeInclusive<usize>) -> bool {
    node.op == "Gemm" && node.domain == OWN && node.int("transA", 0) == 0 && inputs.contains(&node.inputs.len())
}

#[cfg(test)]
mod tests;
