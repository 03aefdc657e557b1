//! A graph of ONNX operators that is being built. Methods take `&self` and return [`Value`]s, so that formulas nest:
//! `g.mul(g.sub(a, b), c)`. A formula whose shapes do not fit marks the graph as broken, and [`Graph::to_model`] reports the
//! first such place; so no formula needs `?`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prost::Message;

use super::ops::lookup::Inverse;
use super::proto::*;
use super::shape::{DataType, Dim, Shape, show};

/// A value of a graph: a graph input, a constant or the output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(super) u32);

/// An attribute of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    Float(f32),
    Int(i64),
    Ints(Vec<i64>),
    Text(&'static str),
    /// One element of a type, little-endian.
    Element(DataType, Vec<u8>),
}

/// An operator with its inputs and outputs.
#[derive(Debug, Clone)]
pub struct Node {
    pub op: &'static str,
    /// Empty for ONNX's own operators, else [`MICROSOFT`].
    pub domain: &'static str,
    /// Absent optional inputs are not supported: no operator used here has them in the middle.
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// What it is called in the file that it was imported from.
    pub label: Option<Arc<str>>,
}

impl Node {
    /// The attribute `name` as an integer, or `default`.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attributes
            .iter()
            .find_map(|(n, a)| match a {
                Attribute::Int(i) if *n == name => Some(*i),
                _ => None,
            })
            .unwrap_or(default)
    }

    /// The attribute `name` as a float, or `default`.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attributes
            .iter()
            .find_map(|(n, a)| match a {
                Attribute::Float(f) if *n == name => Some(*f),
                _ => None,
            })
            .unwrap_or(default)
    }

    /// The attribute `name` as integers, or none.
    pub fn ints(&self, name: &str) -> &[i64] {
        self.attributes
            .iter()
            .find_map(|(n, a)| match a {
                Attribute::Ints(i) if *n == name => Some(i.as_slice()),
                _ => None,
            })
            .unwrap_or(&[])
    }
}

/// What went wrong while a graph was built or differentiated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("operator `{op}`: {message}")]
    Shape { op: &'static str, message: String },
    #[error("operator `{op}` has no gradient rule, so what feeds it cannot be trained (node {node})")]
    NoRule { op: &'static str, node: String },
    /// An imported graph that could not be added.
    #[error("{0}")]
    Import(String),
    #[error("the loss must be a scalar, but has shape {0}")]
    NotScalar(String),
}

/// See [`Graph::mark`].
pub(super) struct Mark {
    nodes: usize,
    values: u32,
}

struct Info {
    data_type: DataType,
    shape: Shape,
    name: String,
}

#[derive(Default)]
struct Inner {
    values: Vec<Info>,
    nodes: Vec<Node>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    constants: Vec<(Value, Vec<i64>, Vec<u8>)>,
    /// Symbol → value `[1]` that holds its size when the graph runs.
    sizes: HashMap<Arc<str>, Value>,
    scalars: HashMap<u32, Value>,
    /// Values through which no gradient passes.
    stopped: HashSet<Value>,
    inverses: HashMap<Value, Inverse>,
    operators: Operators,
    /// How many dimensions got a number for want of a name.
    unknown: u32,
    label: Option<Arc<str>>,
    /// 0 for [`OPSET`].
    opset: i64,
    error: Option<GraphError>,
}

/// Which operators a graph may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Operators {
    /// Those of ONNX and of ONNX Runtime's releases: they run on any device, and in any tool.
    #[default]
    Released,
    /// retune's own besides, which run on the processor; with `bf16`, matrix products may round their factors to bfloat16, and add up
    /// in single precision.
    Own { bf16: bool },
}

/// See the [module](self).
#[derive(Default)]
pub struct Graph {
    inner: RefCell<Inner>,
}

impl Graph {
    pub fn new() -> Self {
        Graph::default()
    }

    /// A graph that may use these operators.
    pub fn with(operators: Operators) -> Self {
        let graph = Graph::default();
        graph.inner.borrow_mut().operators = operators;
        graph
    }

    /// Whether operators of retune's own may be used.
    pub fn own(&self) -> bool {
        self.inner.borrow().operators != Operators::Released
    }

    pub(super) fn operators(&self) -> Operators {
        self.inner.borrow().operators
    }

    /// Whether matrix products may round their factors to bfloat16.
    pub(super) fn bf16(&self) -> bool {
        self.inner.borrow().operators == Operators::Own { bf16: true }
    }

    /// A graph input: data, or a weight.
    pub fn input(&self, name: &str, data_type: DataType, shape: Shape) -> Value {
        let value = self.value(name.to_owned(), data_type, shape);
        self.inner.borrow_mut().inputs.push(value);
        value
    }

    /// Makes `value` a graph output called `name`. A value that is an input itself, or is an output already, goes through `Identity`.
    pub fn output(&self, name: &str, value: Value) {
        let taken = {
            let inner = self.inner.borrow();
            inner.inputs.contains(&value) || inner.outputs.contains(&value) || inner.constants.iter().any(|c| c.0 == value)
        };
        let value =
            if taken { self.node("Identity", "", &[value], &[], self.data_type(value), self.shape(value)) } else { value };
        let mut inner = self.inner.borrow_mut();
        inner.values[value.0 as usize].name = name.to_owned();
        inner.outputs.push(value);
    }

    /// A float constant.
    pub fn constant(&self, shape: &[usize], data: &[f32]) -> Value {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant_bytes(DataType::F32, shape, bytes)
    }

    /// A float scalar; equal scalars share one constant.
    pub fn scalar(&self, x: f32) -> Value {
        if let Some(&value) = self.inner.borrow().scalars.get(&x.to_bits()) {
            return value;
        }
        let value = self.constant(&[], &[x]);
        self.inner.borrow_mut().scalars.insert(x.to_bits(), value);
        value
    }

    /// A one-dimensional integer constant (axes, shapes).
    pub fn integers(&self, data: &[i64]) -> Value {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant_bytes(DataType::I64, &[data.len()], bytes)
    }

    pub(super) fn constant_bytes(&self, data_type: DataType, shape: &[usize], bytes: Vec<u8>) -> Value {
        let name = format!("c{}", self.inner.borrow().values.len());
        let value = self.value(name, data_type, shape.iter().map(|&d| Dim::Fixed(d)).collect());
        self.inner.borrow_mut().constants.push((value, shape.iter().map(|&d| d as i64).collect(), bytes));
        value
    }

    fn value(&self, name: String, data_type: DataType, shape: Shape) -> Value {
        let mut inner = self.inner.borrow_mut();
        inner.values.push(Info { data_type, shape, name });
        Value(inner.values.len() as u32 - 1)
    }

    /// Adds a node with one output.
    pub(super) fn node(
        &self,
        op: &'static str,
        domain: &'static str,
        inputs: &[Value],
        attributes: &[(&'static str, Attribute)],
        data_type: DataType,
        shape: Shape,
    ) -> Value {
        self.node_many(op, domain, inputs, attributes, vec![(data_type, shape)])[0]
    }

    /// Adds a node with several outputs.
    pub(super) fn node_many(
        &self,
        op: &'static str,
        domain: &'static str,
        inputs: &[Value],
        attributes: &[(&'static str, Attribute)],
        outputs: Vec<(DataType, Shape)>,
    ) -> Vec<Value> {
        let outputs: Vec<Value> = outputs
            .into_iter()
            .map(|(data_type, shape)| {
                let name = format!("v{}", self.inner.borrow().values.len());
                self.value(name, data_type, shape)
            })
            .collect();
        let (inputs, attributes) = (inputs.to_vec(), attributes.to_vec());
        let mut inner = self.inner.borrow_mut();
        let label = inner.label.clone();
        inner.nodes.push(Node { op, domain, inputs, outputs: outputs.clone(), attributes, label });
        outputs
    }

    /// `x`, through which no gradient passes (`detach` of PyTorch).
    pub fn stop_gradient(&self, x: Value) -> Value {
        let value = self.node("Identity", "", &[x], &[], self.data_type(x), self.shape(x));
        self.inner.borrow_mut().stopped.insert(value);
        value
    }

    pub(super) fn is_stopped(&self, value: Value) -> bool {
        self.inner.borrow().stopped.contains(&value)
    }

    /// A dimension whose size the graph computes when it runs.
    pub(super) fn unknown(&self) -> Dim {
        let mut inner = self.inner.borrow_mut();
        inner.unknown += 1;
        Dim::Unknown(inner.unknown)
    }

    /// See [`shape::broadcast`](super::shape::broadcast).
    pub(super) fn broadcast(&self, a: &[Dim], b: &[Dim]) -> Option<Shape> {
        super::shape::broadcast(a, b, || self.unknown())
    }

    /// What the nodes that follow are called in error messages.
    pub(super) fn set_label(&self, label: Option<&str>) {
        self.inner.borrow_mut().label = label.map(Into::into);
    }

    /// Raises the version of the operator set to that of an imported graph.
    pub(super) fn raise_opset(&self, version: i64) {
        let mut inner = self.inner.borrow_mut();
        inner.opset = inner.opset.max(version);
    }

    pub(super) fn is_input(&self, value: Value) -> bool {
        self.inner.borrow().inputs.contains(&value)
    }

    /// A place in the building of the graph, for [`Graph::prune`].
    pub(super) fn mark(&self) -> Mark {
        let inner = self.inner.borrow();
        Mark { nodes: inner.nodes.len(), values: inner.values.len() as u32 }
    }

    /// Drops the nodes and constants added since `mark` that are not needed to compute `value`.
    pub(super) fn prune(&self, mark: &Mark, value: Value) {
        let mut inner = self.inner.borrow_mut();
        let mut needed: HashSet<Value> = [value].into();
        // These are looked up by symbol and by number, and may be used again.
        needed.extend(inner.sizes.values().chain(inner.scalars.values()));
        let mut keep = vec![true; inner.nodes.len()];
        for (i, node) in inner.nodes.iter().enumerate().skip(mark.nodes).rev() {
            keep[i] = node.outputs.iter().any(|v| needed.contains(v));
            if keep[i] {
                needed.extend(&node.inputs);
            }
        }
        let mut kept = keep.iter();
        inner.nodes.retain(|_| kept.next() == Some(&true));
        inner.constants.retain(|(v, ..)| v.0 < mark.values || needed.contains(v));
    }

    /// The elements of an integer constant; `None` when `value` is none.
    pub(super) fn constant_integers(&self, value: Value) -> Option<Vec<i64>> {
        let inner = self.inner.borrow();
        if inner.values[value.0 as usize].data_type != DataType::I64 {
            return None;
        }
        let (_, _, bytes) = inner.constants.iter().find(|(v, ..)| *v == value)?;
        Some(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }

    /// Records that the shapes at `op` do not fit; the first such place is what [`Graph::to_model`] reports.
    pub(super) fn broken(&self, op: &'static str, message: String) {
        self.inner.borrow_mut().error.get_or_insert(GraphError::Shape { op, message });
    }

    /// Records that a part of the graph could not be built.
    pub fn fail(&self, message: String) {
        self.inner.borrow_mut().error.get_or_insert(GraphError::Import(message));
    }

    pub fn shape(&self, value: Value) -> Shape {
        self.inner.borrow().values[value.0 as usize].shape.clone()
    }

    pub fn rank(&self, value: Value) -> usize {
        self.inner.borrow().values[value.0 as usize].shape.len()
    }

    pub fn data_type(&self, value: Value) -> DataType {
        self.inner.borrow().values[value.0 as usize].data_type
    }

    /// The last dimension, when it is fixed; 0 (and a broken graph) otherwise.
    pub(super) fn width(&self, op: &'static str, value: Value) -> usize {
        match self.shape(value).last() {
            Some(Dim::Fixed(width)) => *width,
            _ => {
                self.broken(op, format!("the last dimension of {} must be fixed", show(&self.shape(value))));
                0
            }
        }
    }

    /// The last dimension, when it is fixed; 0 otherwise.
    pub fn last(&self, value: Value) -> usize {
        self.width("Shape", value)
    }

    /// Notes how the rows that became `moved` find back.
    pub(super) fn inverse(&self, moved: Value, inverse: Inverse) {
        self.inner.borrow_mut().inverses.insert(moved, inverse);
    }

    pub(super) fn inverse_of(&self, moved: Value) -> Option<Inverse> {
        self.inner.borrow().inverses.get(&moved).copied()
    }

    /// The number of nodes.
    pub fn count(&self) -> usize {
        self.inner.borrow().nodes.len()
    }

    pub(super) fn inputs(&self) -> Vec<Value> {
        self.inner.borrow().inputs.clone()
    }

    pub(super) fn outputs(&self) -> Vec<Value> {
        self.inner.borrow().outputs.clone()
    }

    /// Takes all nodes out, to be put back in another form.
    pub(super) fn take_nodes(&self) -> Vec<Node> {
        std::mem::take(&mut self.inner.borrow_mut().nodes)
    }

    pub(super) fn push_node(&self, node: Node) {
        self.inner.borrow_mut().nodes.push(node);
    }

    /// A new value like `value`, of another type.
    pub(super) fn another(&self, value: Value, data_type: DataType) -> Value {
        let name = format!("v{}", self.inner.borrow().values.len());
        self.value(name, data_type, self.shape(value))
    }

    /// Makes `value` one of another type.
    pub(super) fn retype(&self, value: Value, data_type: DataType) {
        self.inner.borrow_mut().values[value.0 as usize].data_type = data_type;
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.inner.borrow().nodes.clone()
    }

    pub(super) fn error(&self) -> Option<GraphError> {
        self.inner.borrow().error.clone()
    }

    /// A value `[1]` that holds the size of `symbol` when the graph runs, read off the first graph input that has it.
    pub(super) fn size(&self, symbol: &Arc<str>) -> Option<Value> {
        if let Some(&value) = self.inner.borrow().sizes.get(symbol) {
            return Some(value);
        }
        let (input, axis) = {
            let inner = self.inner.borrow();
            inner.inputs.iter().find_map(|&input| {
                let shape = &inner.values[input.0 as usize].shape;
                let axis = shape.iter().position(|d| matches!(d, Dim::Symbol(s) if s == symbol))?;
                Some((input, axis as i64))
            })?
        };
        let range = [("start", Attribute::Int(axis)), ("end", Attribute::Int(axis + 1))];
        let value = self.node("Shape", "", &[input], &range, DataType::I64, vec![Dim::Fixed(1)]);
        self.inner.borrow_mut().sizes.insert(symbol.clone(), value);
        Some(value)
    }

    /// The serialized ONNX model.
    ///
    /// # Errors
    /// The first formula whose shapes did not fit.
    pub fn to_model(&self) -> Result<Vec<u8>, GraphError> {
        self.to_model_with(|_| None)
    }

    /// As [`Graph::to_model`], with the graph inputs for which `weight` has data stored in the file as initializers:
    /// a model that stands alone.
    ///
    /// # Errors
    /// The first formula whose shapes did not fit.
    pub fn to_model_with<'w>(&self, weight: impl Fn(&str) -> Option<&'w [f32]>) -> Result<Vec<u8>, GraphError> {
        let inner = self.inner.borrow();
        if let Some(error) = &inner.error {
            return Err(error.clone());
        }
        let name = |v: Value| inner.values[v.0 as usize].name.clone();
        let mut graph = GraphProto { name: "retune".into(), ..GraphProto::default() };
        for (value, dims, bytes) in &inner.constants {
            let data_type = inner.values[value.0 as usize].data_type as i32;
            let raw_data = bytes.clone().into();
            let name = name(*value);
            graph.initializer.push(TensorProto { dims: dims.clone(), data_type, name, raw_data, ..Default::default() });
        }
        for &input in &inner.inputs {
            let info = &inner.values[input.0 as usize];
            match weight(&info.name) {
                Some(data) => graph.initializer.push(TensorProto {
                    dims: info.shape.iter().map(|d| if let Dim::Fixed(n) = d { *n as i64 } else { -1 }).collect(),
                    data_type: info.data_type as i32,
                    name: info.name.clone(),
                    raw_data: data.iter().flat_map(|x| x.to_le_bytes()).collect(),
                    ..Default::default()
                }),
                None => graph.input.push(value_info(info)),
            }
        }
        graph.output = inner.outputs.iter().map(|v| value_info(&inner.values[v.0 as usize])).collect();
        let read: HashSet<Value> = inner.nodes.iter().flat_map(|n| &n.inputs).chain(&inner.outputs).copied().collect();
        graph.node = inner.nodes.iter().enumerate().map(|(i, node)| node_proto(i, node, &name, &read)).collect();
        let used = |domain: &str| domain.is_empty() || inner.nodes.iter().any(|n| n.domain == domain);
        let domains = [("", OPSET.max(inner.opset)), (MICROSOFT, 1), (OWN, 1)].into_iter().filter(|(domain, _)| used(domain));
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "retune".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: domains.map(|(domain, version)| OperatorSetIdProto { domain: domain.into(), version }).collect(),
        };
        Ok(model.encode_to_vec())
    }
}

fn value_info(info: &Info) -> ValueInfoProto {
    let dim = |d: &Dim| DimensionProto {
        value: match d {
            Dim::Fixed(n) => Some(DimensionValue::Value(*n as i64)),
            Dim::Symbol(s) => Some(DimensionValue::Param(s.to_string())),
            Dim::Unknown(_) => None,
        },
    };
    let shape = TensorShapeProto { dim: info.shape.iter().map(dim).collect() };
    let tensor_type = Some(TensorTypeProto { elem_type: info.data_type as i32, shape: Some(shape) });
    ValueInfoProto { name: info.name.clone(), kind: Some(TypeProto { tensor_type }) }
}

/// Operators that compute of their outputs after the first only those that are asked for: what the gradient needs.
const SPARING: &[&str] = &["AddLayerNormalization", "Attention", "AttentionBf16", "LayerNormalization"];

/// The outputs of a node by name, empty for those that it need not compute since they are not among the values that are `read`.
fn outputs(node: &Node, name: &dyn Fn(Value) -> String, read: &HashSet<Value>) -> Vec<String> {
    let is_asked = |at: usize, value: &Value| at == 0 || !SPARING.contains(&node.op) || read.contains(value);
    let named = |(at, value): (usize, &Value)| if is_asked(at, value) { name(*value) } else { String::new() };
    let mut outputs: Vec<String> = node.outputs.iter().enumerate().map(named).collect();
    while outputs.last().is_some_and(String::is_empty) {
        outputs.pop();
    }
    outputs
}

fn node_proto(index: usize, node: &Node, name: &dyn Fn(Value) -> String, read: &HashSet<Value>) -> NodeProto {
    let attribute = |(name, attribute): &(&'static str, Attribute)| {
        let name = (*name).to_owned();
        match attribute {
            Attribute::Float(f) => AttributeProto { name, f: Some(*f), kind: 1, ..Default::default() },
            Attribute::Int(i) => AttributeProto { name, i: Some(*i), kind: 2, ..Default::default() },
            Attribute::Ints(ints) => AttributeProto { name, ints: ints.clone(), kind: 7, ..Default::default() },
            Attribute::Text(s) => AttributeProto { name, s: Some(s.as_bytes().into()), kind: 3, ..Default::default() },
            Attribute::Element(data_type, bytes) => {
                let data_type = *data_type as i32;
                let t = TensorProto { dims: vec![1], data_type, raw_data: bytes.clone().into(), ..Default::default() };
                AttributeProto { name, t: Some(t), kind: 4, ..Default::default() }
            }
        }
    };
    NodeProto {
        input: node.inputs.iter().map(|&v| name(v)).collect(),
        output: outputs(node, name, read),
        name: format!("{}_{index}", node.op),
        op_type: node.op.into(),
        attribute: node.attributes.iter().map(attribute).collect(),
        domain: node.domain.into(),
    }
}
