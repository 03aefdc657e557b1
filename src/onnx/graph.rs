//! A graph of ONNX operators that is being built. Methods take `&self` and return [`Value`]s, so that formulas nest:
//! `g.mul(g.sub(a, b), c)`. A formula whose shapes do not fit marks the graph as broken, and [`Graph::to_model`] reports the
//! first such place; so no formula needs `?`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

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
    NoRule { op: &'static str, node: usize },
    #[error("the loss must be a scalar, but has shape {0}")]
    NotScalar(String),
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
    error: Option<GraphError>,
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

    fn constant_bytes(&self, data_type: DataType, shape: &[usize], bytes: Vec<u8>) -> Value {
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
        let node = Node { op, domain, inputs: inputs.to_vec(), outputs: outputs.clone(), attributes: attributes.to_vec() };
        self.inner.borrow_mut().nodes.push(node);
        outputs
    }

    /// Records that the shapes at `op` do not fit; the first such place is what [`Graph::to_model`] reports.
    pub(super) fn broken(&self, op: &'static str, message: String) {
        self.inner.borrow_mut().error.get_or_insert(GraphError::Shape { op, message });
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
            graph.initializer.push(TensorProto { dims: dims.clone(), data_type, name: name(*value), raw_data: bytes.clone() });
        }
        for &input in &inner.inputs {
            let info = &inner.values[input.0 as usize];
            match weight(&info.name) {
                Some(data) => graph.initializer.push(TensorProto {
                    dims: info.shape.iter().map(|d| if let Dim::Fixed(n) = d { *n as i64 } else { -1 }).collect(),
                    data_type: info.data_type as i32,
                    name: info.name.clone(),
                    raw_data: data.iter().flat_map(|x| x.to_le_bytes()).collect(),
                }),
                None => graph.input.push(value_info(info)),
            }
        }
        graph.output = inner.outputs.iter().map(|v| value_info(&inner.values[v.0 as usize])).collect();
        graph.node = inner.nodes.iter().enumerate().map(|(i, node)| node_proto(i, node, &name)).collect();
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "retune".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: vec![
                OperatorSetIdProto { domain: String::new(), version: OPSET },
                OperatorSetIdProto { domain: MICROSOFT.into(), version: 1 },
            ],
        };
        Ok(model.encode_to_vec())
    }
}

fn value_info(info: &Info) -> ValueInfoProto {
    let dim = |d: &Dim| DimensionProto {
        value: Some(match d {
            Dim::Fixed(n) => DimensionValue::Value(*n as i64),
            Dim::Symbol(s) => DimensionValue::Param(s.to_string()),
        }),
    };
    let shape = TensorShapeProto { dim: info.shape.iter().map(dim).collect() };
    let tensor_type = Some(TensorTypeProto { elem_type: info.data_type as i32, shape: Some(shape) });
    ValueInfoProto { name: info.name.clone(), kind: Some(TypeProto { tensor_type }) }
}

fn node_proto(index: usize, node: &Node, name: &dyn Fn(Value) -> String) -> NodeProto {
    let attribute = |(name, attribute): &(&'static str, Attribute)| {
        let name = (*name).to_owned();
        match attribute {
            Attribute::Float(f) => AttributeProto { name, f: Some(*f), kind: 1, ..Default::default() },
            Attribute::Int(i) => AttributeProto { name, i: Some(*i), kind: 2, ..Default::default() },
            Attribute::Ints(ints) => AttributeProto { name, ints: ints.clone(), kind: 7, ..Default::default() },
        }
    };
    NodeProto {
        input: node.inputs.iter().map(|&v| name(v)).collect(),
        output: node.outputs.iter().map(|&v| name(v)).collect(),
        name: format!("{}_{index}", node.op),
        op_type: node.op.into(),
        attribute: node.attributes.iter().map(attribute).collect(),
        domain: node.domain.into(),
    }
}
