//! Layer normalisation and its gradient, computed from the rows of a product while they are in the caches: what goes before in an encoder, dropout
//! and the residual, comes along.

use super::super::graph::{Attribute, Node, Value};
use super::super::proto::OWN;
use super::super::shape::DataType;
use super::{Nodes, is_product};

pub fn fuse(nodes: &mut Nodes) {
    for i in 0..nodes.len() {
        if let Some(found) = forward(nodes, i).or_else(|| backward(nodes, i)) {
            found.gone.iter().for_each(|&gone| nodes.remove(gone));
            found.low.into_iter().for_each(|low| nodes.graph.retype(low, DataType::Bf16));
            nodes.replace(i, found.node);
        }
    }
}

/// A node in place of another one and of those that go.
struct Found {
    node: Node,
    gone: Vec<usize>,
    /// Its last output, which becomes one in bf16.
    low: Option<Value>,
}

/// Dropout as attributes and the seed.
fn dropout(node: &Node) -> Option<(Vec<(&'static str, Attribute)>, Value)> {
    Some((node.attributes.clone(), *node.inputs.get(1)?))
}

fn forward(nodes: &Nodes, i: usize) -> Option<Found> {
    let node = nodes.own(i, "AddLayerNormalization")?.clone();
    let [a, b, scale, shift] = node.inputs[..] else { return None };
    let (gone, residual) = [(a, b), (b, a)].into_iter().find_map(|(x, residual)| Some((source(nodes, x)?, residual)))?;
    let product = nodes.get(*gone.first()?)?.clone();
    let mut inputs = vec![product.inputs[0], product.inputs[1], residual, scale, shift];
    inputs.extend(product.inputs.get(2));
    let mut attributes = node.attributes;
    attributes.push(("transB", Attribute::Int(product.int("transB", 0))));
    if let Some((settings, seed)) = gone.get(1).and_then(|&at| dropout(nodes.get(at)?)) {
        attributes.extend(settings);
        inputs.push(seed);
    }
    Some(Found { node: Node { op: "GemmLayerNormalization", domain: OWN, inputs, attributes, ..node }, gone, low: None })
}

/// The product that `value` is, and the dropout that it went through, if nothing else reads them.
fn source(nodes: &Nodes, value: Value) -> Option<Vec<usize>> {
    let writer = nodes.writer(value).filter(|_| nodes.only_reader(value).is_some())?;
    if is_product(nodes.get(writer)?, 2..=3) {
        return Some(vec![writer]);
    }
    let inner = *nodes.own(writer, "Dropout")?.inputs.first()?;
    let product = nodes.writer(inner).filter(|_| nodes.only_reader(inner).is_some())?;
    is_product(nodes.get(product)?, 2..=3).then(|| vec![product, writer])
}

fn backward(nodes: &Nodes, i: usize) -> Option<Found> {
    let node = nodes.own(i, "LayerNormalizationGrad")?.clone();
    let [x, scale, mean, inverse, dy] = node.inputs[..] else { return None };
    let from = nodes.writer(dy).filter(|_| nodes.only_reader(dy).is_some())?;
    let sum = nodes.get(from)?;
    let flags = match sum.op {
        "GemmSum" => sum.ints("transB").to_vec(),
        _ if is_product(sum, 2..=2) => vec![sum.int("transB", 0)],
        _ => return None,
    };
    let (pairs, residual) = sum.inputs.split_at(2 * flags.len());
    let mut inputs = [pairs, &[x, scale, mean, inverse], residual].concat();
    let mut attributes = vec![("transB", Attribute::Ints(flags))];
    let (mut outputs, mut gone, mut low) = (node.outputs.clone(), vec![from], None);
    if let Some((at, dropped)) = dropped(nodes, *outputs.first()?)
        && let Some((settings, seed)) = nodes.get(at).and_then(dropout)
    {
        attributes.extend(settings);
        inputs.push(seed);
        outputs.push(dropped);
        gone.push(at);
        low = Some(dropped);
    }
    Some(Found { node: Node { op: "GemmLayerNormalizationGrad", domain: OWN, inputs, attributes, outputs, ..node }, gone, low })
}

/// The dropout of the gradient `dx` that only products read, and what it gives.
fn dropped(nodes: &Nodes, dx: Value) -> Option<(usize, Value)> {
    let at = nodes.readers(dx).iter().map(|&(i, _)| i).find(|&i| nodes.own(i, "Dropout").is_some())?;
    let dropped = *nodes.get(at)?.outputs.first()?;
    nodes.is_rounded(dropped).then_some((at, dropped))
}
