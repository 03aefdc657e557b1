//! Nodes of a file become nodes of a graph, one after the other.

use std::collections::HashMap;

use super::super::graph::{Attribute, Graph, Value};
use super::super::proto::NodeProto;
use super::super::shape::{DataType, Dim, Shape, show};
use super::call::Call;
use super::known::{Element, MOST};
use super::operators;
use super::tensor::{Data, Tensor};

/// Values have fewer dimensions than this.
const MOST_DIMENSIONS: usize = 16;

/// See the [module](self).
pub struct Importer<'g> {
    pub g: &'g Graph,
    /// What is known of the elements of integers and booleans.
    known: HashMap<Value, Vec<Element>>,
}

impl<'g> Importer<'g> {
    pub fn new(g: &'g Graph) -> Self {
        Importer { g, known: HashMap::new() }
    }

    /// Translates a node; its outputs in order.
    pub fn call(&mut self, node: &NodeProto, values: &HashMap<&str, Value>) -> Result<Vec<Value>, String> {
        let operator = operators::find(&node.domain, &node.op_type).ok_or_else(|| {
            let domain = if node.domain.is_empty() { String::new() } else { format!(" of domain `{}`", node.domain) };
            format!("this operator{domain} is not known, so the model cannot be imported")
        })?;
        if let Some(attribute) = node.attribute.iter().find(|a| !operator.attributes.contains(&a.name.as_str())) {
            return Err(format!("attribute `{}` is not supported", attribute.name));
        }
        let inputs = node.input.iter().map(|name| values.get(name.as_str()).copied()).collect();
        let call = Call { op: operator.name, domain: operator.domain, node, inputs };
        let outputs = (operator.translate)(self, &call)?;
        if let Some(error) = self.g.error() {
            return Err(error.to_string());
        }
        match outputs.iter().map(|&v| self.g.shape(v)).find(|s| s.len() > MOST_DIMENSIONS) {
            Some(shape) => Err(format!("its result has {} dimensions", shape.len())),
            None => Ok(outputs),
        }
    }

    /// A constant of the graph.
    pub fn constant(&mut self, tensor: &Tensor) -> Value {
        let value = self.g.constant_bytes(tensor.data.data_type(), &tensor.dims, tensor.data.bytes());
        let elements: Option<Vec<Element>> = match &tensor.data {
            Data::Integers(data) if data.len() <= MOST => Some(data.iter().map(|&i| Element::Int(i)).collect()),
            Data::Booleans(data) if data.len() <= MOST => Some(data.iter().map(|&b| Element::Int(b.into())).collect()),
            _ => None,
        };
        self.know(value, elements);
        value
    }

    /// An integer constant.
    pub fn integers(&mut self, dims: &[usize], data: Vec<i64>) -> Value {
        self.constant(&Tensor { dims: dims.to_vec(), data: Data::Integers(data) })
    }

    /// Notes what is known of the elements of `value`.
    pub fn know(&mut self, value: Value, elements: Option<Vec<Element>>) {
        if let Some(elements) = elements {
            self.known.insert(value, elements);
        }
    }

    /// What is known of the elements of `value`.
    pub fn known(&self, value: Value) -> Option<&[Element]> {
        self.known.get(&value).map(Vec::as_slice)
    }

    /// The elements of an integer value, when all are known.
    pub fn ints(&self, value: Value) -> Option<Vec<i64>> {
        self.known(value)?.iter().map(Element::int).collect()
    }

    /// What a one-dimensional integer value says of a shape; its length must be known.
    pub fn sizes(&self, value: Value) -> Result<Vec<Element>, String> {
        if let Some(elements) = self.known(value) {
            return Ok(elements.to_vec());
        }
        match self.g.shape(value).as_slice() {
            [Dim::Fixed(n)] if *n <= MOST_DIMENSIONS => Ok(vec![Element::Unknown; *n]),
            _ => Err("the number of dimensions of its result cannot be told before it runs".into()),
        }
    }

    /// The dimension that an element says.
    pub fn dim(&self, element: &Element) -> Result<Dim, String> {
        match element {
            Element::Int(n) => usize::try_from(*n).map(Dim::Fixed).map_err(|_| format!("a size of {n}")),
            Element::Size(dim) => Ok(dim.clone()),
            Element::Unknown => Ok(self.g.unknown()),
        }
    }

    /// The shape that values of two shapes broadcast to. Two names may be the same size when the graph runs.
    pub fn broadcast(&self, a: &[Dim], b: &[Dim]) -> Result<Shape, String> {
        let rank = a.len().max(b.len());
        let at = |s: &[Dim], i: usize| if i + s.len() < rank { Dim::Fixed(1) } else { s[i + s.len() - rank].clone() };
        let dim = |i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (Dim::Fixed(1), y) => Ok(y),
            (x, Dim::Fixed(1)) => Ok(x),
            (Dim::Fixed(_), Dim::Fixed(_)) => Err(format!("shapes {} and {} do not broadcast", show(a), show(b))),
            (Dim::Fixed(n), _) | (_, Dim::Fixed(n)) => Ok(Dim::Fixed(n)),
            _ => Ok(self.g.unknown()),
        };
        (0..rank).map(dim).collect()
    }

    /// A node with one output, or a constant in its place when all its elements are known.
    pub fn emit(&mut self, call: &Call, inputs: &[Value], attributes: &[(&'static str, Attribute)], result: Outcome) -> Value {
        let Outcome { data_type, shape, known } = result;
        let ints: Option<Vec<i64>> = known.as_ref().and_then(|k| k.iter().map(Element::int).collect());
        let dims: Option<Vec<usize>> = shape.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect();
        if let (DataType::I64, Some(ints), Some(dims)) = (data_type, ints, dims)
            && dims.iter().product::<usize>() == ints.len()
        {
            return self.integers(&dims, ints);
        }
        let value = self.g.node(call.op, call.domain, inputs, attributes, data_type, shape);
        self.know(value, known);
        value
    }
}

/// What is known of the result of a node.
pub struct Outcome {
    pub data_type: DataType,
    pub shape: Shape,
    /// The elements of an integer or boolean result, as many as there are.
    pub known: Option<Vec<Element>>,
}

impl Outcome {
    pub fn new(data_type: DataType, shape: Shape) -> Self {
        Outcome { data_type, shape, known: None }
    }

    /// Elements that are known; those of results of more than one dimension are not followed.
    pub fn knowing(mut self, known: Option<Vec<Element>>) -> Self {
        self.known = known.filter(|k| self.shape.len() <= 1 && k.len() <= MOST);
        self
    }
}
