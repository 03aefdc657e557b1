//! Reverse-mode differentiation of a [`Graph`]: it gets the nodes that compute the gradients appended.

use std::collections::{HashMap, HashSet};

use super::graph::{Graph, GraphError, Node, Value};
use super::ops;
use super::shape::{DataType, Shape, show};

/// The gradient of a scalar with respect to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gradient {
    /// Of the value's own shape.
    Dense(Value),
    /// Of a lookup table `[entries, width]`, as pieces: row `i` of `rows` (`[.., width]`) is to be added to entry `ids[i]`
    /// (`[..]`, int64). The same entry may occur more than once. A dense gradient of a vocabulary would be mostly zeros.
    Rows(Vec<(Value, Value)>),
    /// The scalar does not depend on the value.
    Zero,
}

/// What a gradient rule gives for one input of its node.
pub(super) enum Piece {
    Dense(Value),
    Rows { ids: Value, rows: Value },
}

/// A gradient rule. `dy` holds the gradients of the node's outputs, absent for outputs that the loss does not depend on;
/// `wanted` says which inputs need one. Returns one entry an input; entries that are not wanted are ignored.
pub(super) type Rule = fn(&Graph, &Node, dy: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Piece>>;

/// The rule of an operator, `None` when there is none.
fn rule(op: &str) -> Option<Rule> {
    Some(match op {
        "Add" => ops::elementwise::add,
        "Sub" => ops::elementwise::sub,
        "Mul" => ops::elementwise::mul,
        "Div" => ops::elementwise::div,
        "Floor" | "Ceil" | "Round" | "Sign" => ops::elementwise::flat,
        "Neg" => ops::elementwise::neg,
        "Abs" => ops::elementwise::abs,
        "Sqrt" => ops::elementwise::sqrt,
        "Relu" => ops::elementwise::relu,
        "Gelu" => ops::elementwise::gelu,
        "Where" => ops::elementwise::select,
        "Max" => ops::elementwise::max,
        "Min" => ops::elementwise::min,
        "Clip" => ops::elementwise::clip,
        "Pow" => ops::elementwise::pow,
        "Exp" => ops::functions::exp,
        "Log" => ops::functions::log,
        "Tanh" => ops::functions::tanh,
        "Sigmoid" => ops::functions::sigmoid,
        "Erf" => ops::functions::erf,
        "Sin" => ops::functions::sin,
        "Cos" => ops::functions::cos,
        "Reciprocal" => ops::functions::reciprocal,
        "Identity" => ops::layout::identity,
        "Reshape" => ops::layout::reshape,
        "Transpose" => ops::layout::transpose,
        "Squeeze" => ops::layout::squeeze,
        "Unsqueeze" => ops::layout::unsqueeze,
        "Expand" => ops::layout::expand,
        "Trilu" => ops::layout::triangle,
        "Split" => ops::layout::split,
        "Concat" => ops::parts::concat,
        "Slice" => ops::parts::slice,
        "Gather" => ops::lookup::gather,
        "GatherElements" => ops::lookup::gather_elements,
        "GatherND" => ops::lookup::gather_nd,
        "Gemm" => ops::matrix::gemm,
        "FusedMatMul" => ops::matrix::matmul,
        "MatMul" => ops::matrix::times,
        "RotaryEmbedding" => ops::rotary::rotary,
        "ReduceSum" => ops::reduce::sum,
        "ReduceMean" => ops::reduce::mean,
        "ReduceMax" | "ReduceMin" => ops::reduce::max,
        "Softmax" => ops::normalization::softmax,
        "LogSoftmax" => ops::normalization::log_softmax,
        "LayerNormalization" => ops::normalization::layer_norm,
        "Attention" => ops::own::attention,
        "AddLayerNormalization" => ops::own::add_layer_norm,
        "Dropout" => ops::own::dropout,
        _ => return None,
    })
}

/// Appends to `graph` the nodes that compute d`loss`/d`w` for every `w` of `weights`, and returns these gradients in the same order.
/// Nodes that none of the weights feeds get no gradient nodes.
///
/// # Errors
/// `loss` is not a scalar, an operator on the way has no rule, or a shape did not fit.
pub fn differentiate(graph: &Graph, loss: Value, weights: &[Value]) -> Result<Vec<Gradient>, GraphError> {
    if let Some(error) = graph.error() {
        return Err(error);
    }
    if graph.rank(loss) != 0 || graph.data_type(loss) != DataType::F32 {
        return Err(GraphError::NotScalar(show(&graph.shape(loss))));
    }
    let nodes = graph.nodes();
    let trained = trained(graph, &nodes, weights);
    let mut pieces: HashMap<Value, Vec<Piece>> = HashMap::new();
    pieces.insert(loss, vec![Piece::Dense(graph.scalar(1.0))]);
    for (index, node) in nodes.iter().enumerate().rev() {
        let wanted: Vec<bool> = node.inputs.iter().map(|v| trained.contains(v)).collect();
        let reached = node.outputs.iter().any(|v| pieces.contains_key(v));
        if !reached || !wanted.contains(&true) {
            continue;
        }
        let label = || node.label.as_ref().map_or_else(|| index.to_string(), |label| format!("`{label}`"));
        let rule = rule(node.op).ok_or_else(|| GraphError::NoRule { op: node.op, node: label() })?;
        let mut dy = Vec::with_capacity(node.outputs.len());
        for output in &node.outputs {
            dy.push(match pieces.get(output) {
                Some(parts) => Some(total(graph, parts).ok_or_else(|| GraphError::NoRule { op: "Gather", node: label() })?),
                None => None,
            });
        }
        for ((input, wanted), piece) in node.inputs.iter().zip(&wanted).zip(rule(graph, node, &dy, &wanted)) {
            if let (true, Some(piece)) = (*wanted, piece) {
                check(graph, node.op, *input, &piece);
                pieces.entry(*input).or_default().push(piece);
            }
        }
    }
    if let Some(error) = graph.error() {
        return Err(error);
    }
    weights.iter().map(|w| gather(graph, pieces.get(w).map_or(&[], Vec::as_slice))).collect()
}

/// The values that depend on a weight and pass gradients to it.
fn trained(graph: &Graph, nodes: &[Node], weights: &[Value]) -> HashSet<Value> {
    let mut trained: HashSet<Value> = weights.iter().copied().collect();
    for node in nodes {
        if node.inputs.iter().any(|v| trained.contains(v)) {
            trained.extend(node.outputs.iter().filter(|&&v| !graph.is_stopped(v)));
        }
    }
    trained
}

/// The sum of dense pieces; `None` when one of them is rows.
fn total(graph: &Graph, parts: &[Piece]) -> Option<Value> {
    let dense: Option<Vec<Value>> = parts.iter().map(|p| if let Piece::Dense(v) = p { Some(*v) } else { None }).collect();
    dense?.into_iter().reduce(|a, b| graph.add(a, b))
}

/// The gradient of a weight from its pieces.
fn gather(graph: &Graph, parts: &[Piece]) -> Result<Gradient, GraphError> {
    if parts.is_empty() {
        return Ok(Gradient::Zero);
    }
    if let Some(sum) = total(graph, parts) {
        return Ok(Gradient::Dense(sum));
    }
    let rows = parts.iter().map(|p| match p {
        Piece::Rows { ids, rows } => Ok((*ids, *rows)),
        // A table that is looked up and also used as a matrix (tied weights).
        Piece::Dense(_) => Err(GraphError::NoRule { op: "Gather", node: "0".into() }),
    });
    rows.collect::<Result<_, _>>().map(Gradient::Rows)
}

/// A rule must give a gradient of the input's shape; anything else is a mistake in the rule.
fn check(graph: &Graph, op: &'static str, input: Value, piece: &Piece) {
    let shape: Shape = graph.shape(input);
    if let Piece::Dense(value) = piece
        && graph.shape(*value) != shape
    {
        graph
            .broken(op, format!("the gradient of an input of shape {} came out as {}", show(&shape), show(&graph.shape(*value))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape;

    #[test]
    fn frozen_parts_get_no_nodes() {
        let build = |train_first: bool| {
            let g = Graph::new();
            let x = g.input("x", DataType::F32, shape!["n", 4]);
            let a = g.input("a", DataType::F32, shape![4]);
            let b = g.input("b", DataType::F32, shape![4]);
            let y = g.mul(g.gelu(g.mul(x, a)), b);
            let loss = g.mean_all(y);
            let before = g.nodes().len();
            let weights = if train_first { vec![a, b] } else { vec![b] };
            differentiate(&g, loss, &weights).unwrap();
            g.nodes().len() - before
        };
        assert!(build(false) < build(true));
    }

    #[test]
    fn no_gradient_passes_a_stop() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape![3]);
        let loss = g.mean_all(g.stop_gradient(g.exp(x)));
        assert_eq!(differentiate(&g, loss, &[x]).unwrap(), vec![Gradient::Zero]);
    }

    #[test]
    fn an_operator_without_a_rule_is_named() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape![3]);
        let y = g.node("Tan", "", &[x], &[], DataType::F32, shape![3]);
        let loss = g.mean_all(y);
        let error = differentiate(&g, loss, &[x]).unwrap_err();
        assert_eq!(error.to_string(), "operator `Tan` has no gradient rule, so what feeds it cannot be trained (node 0)");
    }

    #[test]
    fn a_loss_that_is_no_scalar_is_refused() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape!["n", 3]);
        assert_eq!(differentiate(&g, x, &[x]).unwrap_err().to_string(), "the loss must be a scalar, but has shape [n, 3]");
    }

    #[test]
    fn shapes_that_do_not_fit_are_reported_once_the_model_is_wanted() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape!["n", 3]);
        let w = g.input("w", DataType::F32, shape![5]);
        g.add(x, w);
        assert_eq!(g.to_model().unwrap_err().to_string(), "operator `Add`: shapes [n, 3] and [5] do not broadcast");
    }

    #[test]
    fn a_weight_the_loss_does_not_see_has_zero_gradient() {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape![3]);
        let w = g.input("w", DataType::F32, shape![3]);
        let loss = g.mean_all(x);
        assert_eq!(differentiate(&g, loss, &[w]).unwrap(), vec![Gradient::Zero]);
    }
}
