//! Sums of products: the gradient of what several linear layers read is one long product, which begins with what is added besides.

use super::super::graph::{Attribute, Node, Value};
use super::super::proto::OWN;
use super::{Nodes, is_product};

pub fn fuse(nodes: &mut Nodes) {
    // The last sum comes first, so that sums of sums are found whole.
    for i in (0..nodes.len()).rev() {
        if is_sum(nodes, i) {
            replace(nodes, i);
        }
    }
}

/// Whether node `i` adds two values of its own shape.
fn is_sum(nodes: &Nodes, i: usize) -> bool {
    let shape = |value: &Value| nodes.graph.shape(*value);
    nodes.get(i).is_some_and(|node| {
        node.op == "Add"
            && node.domain.is_empty()
            && node.outputs.iter().chain(&node.inputs).map(shape).is_sorted_by(|a, b| a == b)
    })
}

/// What a sum consists of.
#[derive(Default)]
struct Parts {
    products: Vec<usize>,
    others: Vec<Value>,
    /// Sums within the sum.
    inner: Vec<usize>,
}

fn collect(nodes: &Nodes, value: Value, parts: &mut Parts) {
    let writer = nodes.writer(value).filter(|_| nodes.only_reader(value).is_some());
    match writer {
        Some(i) if is_sum(nodes, i) => {
            parts.inner.push(i);
            nodes.get(i).into_iter().flat_map(|node| &node.inputs).for_each(|&input| collect(nodes, input, parts));
        }
        Some(i) if nodes.get(i).is_some_and(|node| is_product(node, 2..=2)) => parts.products.push(i),
        _ => parts.others.push(value),
    }
}

fn replace(nodes: &mut Nodes, sum: usize) {
    let Some(node) = nodes.get(sum).cloned() else { return };
    let mut parts = Parts::default();
    node.inputs.iter().for_each(|&input| collect(nodes, input, &mut parts));
    if parts.products.is_empty() || parts.others.len() > 1 {
        return;
    }
    let (mut inputs, mut transposed) = (Vec::new(), Vec::new());
    for product in parts.products.iter().filter_map(|&i| nodes.get(i)) {
        inputs.extend(&product.inputs);
        transposed.push(product.int("transB", 0));
    }
    inputs.extend(&parts.others);
    parts.products.iter().chain(&parts.inner).for_each(|&i| nodes.remove(i));
    let attributes = vec![("transB", Attribute::Ints(transposed))];
    nodes.replace(sum, Node { op: "GemmSum", domain: OWN, inputs, attributes, ..node });
}
