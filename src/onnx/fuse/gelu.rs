//! A linear layer and the GELU that follows it: the product is written as GELU's value, in bf16 for the next product, and as its slope for the
//! gradient, which multiplies the product that it comes from.

use super::super::graph::{Node, Value};
use super::super::proto::OWN;
use super::super::shape::DataType;
use super::{Nodes, is_product};

/// Nodes that become one or two.
struct Found {
    product: usize,
    gelu: usize,
    /// The gradient of GELU, and the product that it multiplies.
    gradient: Option<(usize, usize)>,
}

pub fn fuse(nodes: &mut Nodes) {
    for product in 0..nodes.len() {
        if let Some(found) = find(nodes, product) {
            replace(nodes, &found);
        }
    }
}

fn find(nodes: &Nodes, product: usize) -> Option<Found> {
    let node = nodes.get(product).filter(|node| is_product(node, 2..=3))?;
    let x = *node.outputs.first()?;
    if nodes.outputs.contains(&x) {
        return None;
    }
    let (mut gelu, mut gradient) = (None, None);
    for &(reader, at) in nodes.readers(x) {
        if nodes.own(reader, "Gelu").is_some() && gelu.is_none() {
            gelu = Some(reader);
        } else if nodes.own(reader, "GeluGrad").is_some() && at == 0 && gradient.is_none() {
            let dy = *nodes.get(reader)?.inputs.get(1)?;
            let from = nodes.writer(dy).filter(|&from| nodes.get(from).is_some_and(|node| is_product(node, 2..=2)))?;
            nodes.only_reader(dy)?;
            gradient = Some((reader, from));
        } else {
            return None;
        }
    }
    let gelu = gelu?;
    nodes.is_rounded(*nodes.get(gelu)?.outputs.first()?).then_some(Found { product, gelu, gradient })
}

fn replace(nodes: &mut Nodes, found: &Found) {
    let (Some(product), Some(gelu)) = (nodes.get(found.product).cloned(), nodes.get(found.gelu).cloned()) else { return };
    let y = gelu.outputs[0];
    nodes.graph.retype(y, DataType::Bf16);
    let mut outputs = vec![y];
    if let Some((gradient, from)) = found.gradient
        && let (Some(gradient_node), Some(from_node)) = (nodes.get(gradient).cloned(), nodes.get(from).cloned())
    {
        let slope: Value = nodes.graph.another(y, DataType::Bf16);
        outputs.push(slope);
        let inputs = from_node.inputs.iter().copied().chain([slope]).collect();
        nodes.remove(from);
        nodes.replace(gradient, Node { op: "GemmScale", domain: OWN, inputs, outputs: gradient_node.outputs, ..from_node });
    }
    nodes.remove(found.gelu);
    nodes.replace(found.product, Node { op: "GemmGelu", domain: OWN, outputs, ..product });
}
