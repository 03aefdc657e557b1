//! Importing ONNX files: a file is read, its weights are found, and what computes one of its outputs becomes part of a [`Graph`],
//! in which it can be differentiated like what was built there.
//!
//! Files are not trusted: sizes are checked against the data, names must be unique, and every value must be computed before it
//! is used, so that there are no cycles. Nothing here recurses.

mod call;
mod contributed;
mod elementwise;
mod importer;
mod indexing;
mod known;
mod layout;
mod matrix;
#[cfg(test)]
mod operator_tests;
mod operators;
mod reduce;
mod rewrite;
pub mod tensor;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;

use self::importer::Importer;
use self::tensor::{Data, Tensor};
use super::graph::{Graph, Value};
use super::proto::{DimensionValue, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use super::shape::DataType;

/// Versions of ONNX's operators that are understood. Older ones have `Squeeze`, `Softmax` and others of another meaning.
const OPSETS: std::ops::RangeInclusive<i64> = 13..=23;
/// Protobuf's own limit.
const LARGEST: u64 = 1 << 31;

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("`{}` cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("`{}` {message}", path.display())]
    Invalid { path: PathBuf, message: String },
    #[error("`{}`: operator `{op}` (node `{node}`): {message}", path.display())]
    Node { path: PathBuf, op: String, node: String, message: String },
}

/// An input or output of a file's graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    pub name: String,
    pub data_type: DataType,
    /// Sizes, `None` where they may differ from run to run. Absent when the file does not say.
    pub dims: Option<Vec<Option<usize>>>,
}

/// An ONNX file.
pub struct OnnxFile {
    path: PathBuf,
    bytes: Bytes,
    graph: GraphProto,
    opset: i64,
    /// Initializer → its place in the graph.
    initializers: HashMap<String, usize>,
    /// Initializer → what it is to be called, where that is not its own name.
    renamed: HashMap<String, String>,
}

impl OnnxFile {
    /// Reads a file and checks what does not depend on what is wanted of it.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or was written for operators that are not understood.
    pub fn read(path: &Path) -> Result<Self, ImportError> {
        let unreadable = |source| ImportError::Unreadable { path: path.to_owned(), source };
        let invalid = |message: String| ImportError::Invalid { path: path.to_owned(), message };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > LARGEST {
            return Err(invalid(format!("has {size} bytes, more than an ONNX file can have")));
        }
        let bytes = Bytes::from(std::fs::read(path).map_err(unreadable)?);
        let model = ModelProto::decode(bytes.clone()).map_err(|e| {
            invalid(format!("is no intact ONNX file ({e}); get the file again, it may have been cut off while it was fetched"))
        })?;
        let graph = model.graph.ok_or_else(|| invalid("is an ONNX file without a graph".into()))?;
        let versions: Vec<i64> = model.opset_import.iter().filter(|o| is_onnx(&o.domain)).map(|o| o.version).collect();
        let opset = match versions[..] {
            [version] if OPSETS.contains(&version) => version,
            [version] => {
                let (first, last) = (OPSETS.start(), OPSETS.end());
                return Err(invalid(format!(
                    "uses version {version} of ONNX's operators, but {first} to {last} are understood; export the model again, \
                     with `opset_version=17` or later"
                )));
            }
            _ => return Err(invalid("does not say which version of ONNX's operators it uses".into())),
        };
        if !graph.sparse_initializer.is_empty() {
            return Err(invalid("has sparse weights, which are not supported".into()));
        }
        let mut initializers = HashMap::new();
        let mut defined = HashSet::new();
        for (i, tensor) in graph.initializer.iter().enumerate() {
            initializers.insert(tensor.name.clone(), i);
            if !defined.insert(tensor.name.as_str()) {
                return Err(invalid(format!("has two tensors called `{}`", tensor.name)));
            }
        }
        // Files of old lists their weights among the inputs as well.
        let inputs = graph.input.iter().map(|i| i.name.as_str()).filter(|n| !initializers.contains_key(*n));
        for name in inputs.chain(graph.node.iter().flat_map(|n| &n.output).map(String::as_str)) {
            if !name.is_empty() && !defined.insert(name) {
                return Err(invalid(format!("computes `{name}` more than once")));
            }
        }
        Ok(OnnxFile { path: path.to_owned(), bytes, graph, opset, initializers, renamed: HashMap::new() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the graph is fed with.
    ///
    /// # Errors
    /// One is of a type that is not supported.
    pub fn inputs(&self) -> Result<Vec<Port>, ImportError> {
        self.graph.input.iter().filter(|i| !self.initializers.contains_key(&i.name)).map(|i| self.port(i)).collect()
    }

    /// What the graph yields. Outputs of types that are not supported are left out.
    pub fn outputs(&self) -> Vec<Port> {
        self.graph.output.iter().filter_map(|o| self.port(o).ok()).collect()
    }

    fn port(&self, info: &ValueInfoProto) -> Result<Port, ImportError> {
        let tensor = info.kind.as_ref().and_then(|k| k.tensor_type.as_ref());
        let tensor = tensor.ok_or_else(|| self.invalid(format!("has an input or output `{}` that is no tensor", info.name)))?;
        let data_type = tensor::data_type(tensor.elem_type).map_err(|e| self.invalid(format!("`{}`: {e}", info.name)))?;
        let size = |value: &Option<DimensionValue>| match value {
            Some(DimensionValue::Value(n)) => usize::try_from(*n).ok(),
            _ => None,
        };
        let dims = tensor.shape.as_ref().map(|s| s.dim.iter().map(|d| size(&d.value)).collect());
        Ok(Port { name: info.name.clone(), data_type, dims })
    }

    /// Calls weights by other names from here on: present name → new one. The file's own names stay what they are.
    pub fn rename(&mut self, names: &HashMap<String, String>) {
        let new = |own: &String| Some((own.clone(), names.get(&self.called(own))?.clone()));
        let renamed: Vec<(String, String)> = self.initializers.keys().filter_map(new).collect();
        self.renamed.extend(renamed);
    }

    /// Calls matrices without a name of their own (`onnx::MatMul_470`, `val_57`: exporters transpose the weights of linear layers and
    /// forget what they were called) after the bias that is added to their product: `query.weight` where there is a `query.bias`.
    pub fn name_layers(&mut self, output: &str) {
        let needed = self.needed(output);
        // Value → the only node that uses it.
        let mut users: HashMap<&str, Option<&NodeProto>> = HashMap::new();
        for node in self.nodes(&needed) {
            for name in &node.input {
                users.entry(name).and_modify(|user| *user = None).or_insert(Some(node));
            }
        }
        let user = |name: &str| users.get(name).copied().flatten();
        let mut found: HashMap<String, Vec<&str>> = HashMap::new();
        for node in self.nodes(&needed).filter(|n| n.op_type == "MatMul") {
            let ([_, matrix], [product]) = (&node.input[..], &node.output[..]) else { continue };
            let anonymous = self.initializers.contains_key(matrix) && !matrix.contains('.') && user(matrix).is_some();
            let Some(add) = user(product).filter(|add| anonymous && add.op_type == "Add") else { continue };
            let bias = add.input.iter().filter(|i| self.initializers.contains_key(*i)).find_map(|i| i.strip_suffix(".bias"));
            if let Some(layer) = bias {
                found.entry(format!("{layer}.weight")).or_default().push(matrix);
            }
        }
        let free = |name: &str| !self.initializers.contains_key(name);
        let sure = found.into_iter().filter(|(name, matrices)| matrices.len() == 1 && free(name));
        let renamed: Vec<(String, String)> =
            sure.flat_map(|(name, m)| m.into_iter().map(move |m| (m.to_owned(), name.clone()))).collect();
        self.renamed.extend(renamed);
    }

    /// The weights that `output` depends on, in the order in which they are used: those tensors of the file that training may change.
    ///
    /// A weight is a tensor of floats with at least one dimension and more than one element from which a differentiable way leads
    /// to the output. What reaches the output through sine and cosine only are the frequencies of rotary positions, and what has
    /// elements of −10,000 or below, or infinite ones, masks something: both are constants of the method, not learned.
    ///
    /// # Errors
    /// A weight's data does not fit its shape, or it is of half precision.
    pub fn weights(&self, output: &str) -> Result<Vec<(String, Tensor)>, ImportError> {
        let needed = self.needed(output);
        let reached = self.reached(output, &needed);
        let mut seen = HashSet::new();
        let mut weights = Vec::new();
        for node in self.nodes(&needed) {
            for name in &node.input {
                if let Some(&i) = self.initializers.get(name)
                    && seen.insert(name)
                    && reached.contains(name.as_str())
                    && let Some(tensor) = self.weight(&self.graph.initializer[i])?
                {
                    weights.push((self.called(name), tensor));
                }
            }
        }
        Ok(weights)
    }

    /// The tensor, when it can be a weight by its type and elements.
    fn weight(&self, tensor: &TensorProto) -> Result<Option<Tensor>, ImportError> {
        let count = tensor.dims.iter().try_fold(1i64, |n, &d| n.checked_mul(d)).unwrap_or(i64::MAX);
        let float = tensor::data_type(tensor.data_type).is_ok_and(|t| t == DataType::F32);
        if !float || tensor.dims.is_empty() || count <= 1 {
            return Ok(None);
        }
        let read = self.tensor(tensor)?;
        let Data::Floats(data) = &read.data else { return Ok(None) };
        if data.iter().any(|x| *x <= -1e4 || !x.is_finite()) {
            return Ok(None);
        }
        if tensor.data_type != tensor::kind::FLOAT {
            let message = format!("has weights (`{}`) that are no floats of 32 bits; export the model in 32 bits", tensor.name);
            return Err(self.invalid(message));
        }
        Ok(Some(read))
    }

    fn tensor(&self, tensor: &TensorProto) -> Result<Tensor, ImportError> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        tensor::read(tensor, folder).map_err(|e| self.invalid(format!("has a tensor `{}` that cannot be read: {e}", tensor.name)))
    }

    /// What a tensor of the file is called outside. Names that graphs use themselves are told apart.
    fn called(&self, name: &str) -> String {
        let name = self.renamed.get(name).map_or(name, String::as_str);
        let numbered = |start| name.strip_prefix(start).is_some_and(|rest| rest.parse::<u64>().is_ok());
        // As inputs and outputs are called: `pool`, `gradient:…`.
        let plain = name.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        let output = ["gradient:", "ids:", "rows:", "weight:"].iter().any(|start| name.starts_with(start));
        // Folders of modules are numbered.
        let module = name.starts_with(|c: char| c.is_ascii_digit()) && name.contains('.');
        if numbered('v') || numbered('c') || plain || output || module { format!("weight:{name}") } else { name.to_owned() }
    }

    /// Numbers of the nodes that `output` depends on, ascending.
    fn needed(&self, output: &str) -> Vec<usize> {
        let mut names = HashSet::from([output]);
        let mut needed = Vec::new();
        for (i, node) in self.graph.node.iter().enumerate().rev() {
            if node.output.iter().any(|o| names.contains(o.as_str())) {
                names.extend(node.input.iter().map(String::as_str));
                needed.push(i);
            }
        }
        needed.reverse();
        needed
    }

    fn nodes(&self, needed: &[usize]) -> impl Iterator<Item = &NodeProto> {
        needed.iter().filter_map(|&i| self.graph.node.get(i))
    }

    /// The values from which a differentiable way leads to `output`.
    fn reached<'a>(&'a self, output: &'a str, needed: &[usize]) -> HashSet<&'a str> {
        let mut reached = HashSet::from([output]);
        for node in needed.iter().rev().filter_map(|&i| self.graph.node.get(i)) {
            let ends = matches!(node.op_type.as_str(), "Sin" | "Cos") || operators::yields_no_floats(&node.op_type);
            if !ends && node.output.iter().any(|o| reached.contains(o.as_str())) {
                reached.extend(node.input.iter().map(String::as_str));
            }
        }
        reached
    }

    /// Adds to `graph` what computes `output` from `inputs` (by name), and returns its value. The weights are asked of `weight`,
    /// by name and shape; those for which it has none become constants.
    ///
    /// # Errors
    /// An operator is not known, or a node does not follow the operator's definition; the message names the node.
    pub fn import(
        &self,
        graph: &Graph,
        inputs: &[(&str, Value)],
        output: &str,
        weight: &dyn Fn(&str, &[usize]) -> Option<Value>,
    ) -> Result<Value, ImportError> {
        let needed = self.needed(output);
        let weights: HashSet<String> = self.weights(output)?.into_iter().map(|(name, _)| name).collect();
        let mark = graph.mark();
        graph.raise_opset(self.opset);
        let mut importer = Importer::new(graph);
        let mut values: HashMap<&str, Value> = inputs.iter().copied().collect();
        for node in self.nodes(&needed) {
            for name in node.input.iter().filter(|n| !n.is_empty()) {
                if values.contains_key(name.as_str()) {
                    continue;
                }
                let Some(&i) = self.initializers.get(name) else {
                    return Err(self.node(node, format!("uses `{name}`, which neither an input nor a node before it yields")));
                };
                let tensor = &self.graph.initializer[i];
                let called = self.called(name);
                let asked = || {
                    let shape: Vec<usize> = tensor.dims.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
                    weight(&called, &shape)
                };
                let value = match weights.contains(&called).then(asked).flatten() {
                    Some(value) => value,
                    None => importer.constant(&self.tensor(tensor)?),
                };
                values.insert(name, value);
            }
            graph.set_label(Some(label(node)));
            let outputs = importer.call(node, &values).map_err(|message| self.node(node, message));
            graph.set_label(None);
            values.extend(node.output.iter().map(String::as_str).zip(outputs?).filter(|(name, _)| !name.is_empty()));
        }
        let value = values.get(output).copied().ok_or_else(|| self.invalid(format!("has no output `{output}`")))?;
        graph.prune(&mark, value);
        Ok(value)
    }

    /// The file with other weights, everything else as it was. `weight` gives elements by name, as [`OnnxFile::weights`] has them.
    ///
    /// # Errors
    /// Elements do not fit a weight's shape, or the file would be too large.
    pub fn with_weights<'w>(&self, weight: impl Fn(&str) -> Option<&'w [f32]>) -> Result<Vec<u8>, ImportError> {
        rewrite::weights(&self.bytes, |name| weight(&self.called(name))).map_err(|message| self.invalid(message))
    }

    fn invalid(&self, message: String) -> ImportError {
        ImportError::Invalid { path: self.path.clone(), message }
    }

    fn node(&self, node: &NodeProto, message: String) -> ImportError {
        let (op, node) = (node.op_type.clone(), label(node).to_owned());
        ImportError::Node { path: self.path.clone(), op, node, message }
    }
}

/// A node's name, or that of its first output.
fn label(node: &NodeProto) -> &str {
    if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name }
}

fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}
