//! Values that only products read, in bf16; others that products read too, in bf16 besides.

use super::super::graph::{Node, Value};
use super::super::proto::OWN;
use super::super::shape::DataType;
use super::Nodes;

/// Whether input `at` of `node` is rounded to bf16 by it.
pub fn rounds(node: &Node, at: usize) -> bool {
    node.domain == OWN
        && match node.op {
            "Gemm" | "GemmGelu" | "GemmScale" | "GemmLayerNormalization" => at < 2,
            "GemmSum" | "GemmLayerNormalizationGrad" => at / 2 < node.ints("transB").len(),
            "LinearWeightGrad" => true,
            // Queries, keys and values; what was attended to and its gradient.
            "Attention" => node.int("bf16", 0) == 1 && at < 3,
            "AttentionGrad" => node.int("bf16", 0) == 1 && matches!(at, 0..3 | 5 | 7),
            _ => false,
        }
}

/// The operator that writes so many of its outputs in bf16 instead.
fn narrow(op: &str) -> Option<(&'static str, usize)> {
    Some(match op {
        "Gemm" => ("GemmBf16", 1),
        "GemmScale" => ("GemmScaleBf16", 1),
        "Attention" => ("AttentionBf16", 1),
        "AttentionGrad" => ("AttentionGradBf16", 3),
        _ => return None,
    })
}

/// The outputs of an operator that can write the first of them in bf16 besides, as its last one.
fn doubles(op: &str) -> Option<usize> {
    match op {
        "AddLayerNormalization" | "GemmLayerNormalization" => Some(4),
        "LayerNormalizationGrad" | "GemmLayerNormalizationGrad" => Some(3),
        _ => None,
    }
}

pub fn fuse(nodes: &mut Nodes) {
    for i in 0..nodes.len() {
        let Some(mut node) = nodes.get(i).filter(|node| node.domain == OWN).cloned() else { continue };
        if let Some((op, count)) = narrow(node.op)
            && let Some(outputs) = node.outputs.get(..count)
            && outputs.iter().all(|&output| nodes.is_rounded(output))
        {
            outputs.iter().for_each(|&output| nodes.graph.retype(output, DataType::Bf16));
            nodes.replace(i, Node { op, ..node });
        } else if doubles(node.op) == Some(node.outputs.len())
            && let Some(&output) = node.outputs.first()
            && let Some(low) = reroute(nodes, output)
        {
            node.outputs.push(low);
            nodes.replace(i, node);
        }
    }
}

/// Lets the products that read `value` read it in bf16. `None` when there is none.
fn reroute(nodes: &mut Nodes, value: Value) -> Option<Value> {
    let readers = nodes.readers(value).iter().copied();
    let products: Vec<_> = readers.filter(|&(i, at)| nodes.get(i).is_some_and(|node| rounds(node, at))).collect();
    if products.is_empty() {
        return None;
    }
    let low = nodes.graph.another(value, DataType::Bf16);
    for (i, at) in products {
        if let Some(mut node) = nodes.get(i).cloned() {
            node.inputs[at] = low;
            nodes.replace(i, node);
        }
    }
    Some(low)
}
