//! The encoders that can be built, by `model_type` of their `config.json`. To add one: a file beside this and a line here.

use std::cell::RefCell;

use super::bert;
use super::config::EncoderConfig;
use crate::onnx::{DataType, Graph, Shape, Value};
use crate::shape;

/// Builds the encoder: token vectors `[rows, seq, hidden]`.
type Build = fn(&Graph, &EncoderConfig, &Parameters, &Inputs) -> Value;

const ARCHITECTURES: &[(&str, Build)] = &[("bert", bert::build)];

/// The names of the encoders.
pub fn known() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect()
}

/// The graph inputs of every encoder, int64 `[rows, seq]`, named as in transformers' exports.
pub struct Inputs {
    pub input_ids: Value,
    /// 1 for tokens, 0 for padding.
    pub attention_mask: Value,
    pub token_type_ids: Value,
}

/// A weight as a graph input.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub value: Value,
}

/// Collects the weights that an encoder asks for while it is built.
pub struct Parameters<'g> {
    graph: &'g Graph,
    all: RefCell<Vec<Parameter>>,
}

impl Parameters<'_> {
    /// The weight `name` of the model's file, as a graph input of that name.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Value {
        let value = self.graph.input(name, DataType::F32, shape.iter().map(|&d| d.into()).collect::<Shape>());
        self.all.borrow_mut().push(Parameter { name: name.to_owned(), shape: shape.to_vec(), value });
        value
    }
}

/// An encoder in a graph.
pub struct Encoder {
    pub inputs: Inputs,
    /// In the order in which the encoder uses them.
    pub parameters: Vec<Parameter>,
    /// `[rows, seq, hidden]`
    pub token_vectors: Value,
}

/// Builds the encoder that `config` describes; `None` when its `model_type` is not known.
pub fn build(graph: &Graph, config: &EncoderConfig) -> Option<Encoder> {
    let (_, build) = ARCHITECTURES.iter().find(|(name, _)| *name == config.model_type)?;
    let input = |name| graph.input(name, DataType::I64, shape!["rows", "seq"]);
    let inputs = Inputs {
        input_ids: input("input_ids"),
        attention_mask: input("attention_mask"),
        token_type_ids: input("token_type_ids"),
    };
    let parameters = Parameters { graph, all: RefCell::default() };
    let token_vectors = build(graph, config, &parameters, &inputs);
    Some(Encoder { inputs, parameters: parameters.all.into_inner(), token_vectors })
}
