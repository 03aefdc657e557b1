//! What encoders are built with: the parts that all of them share, and the weights they ask for.

use std::cell::{Cell, RefCell};

use super::batch::SEED;
use super::layout::{Attention, Layout};
use crate::onnx::{self, DataType, Graph, Shape, Value};
use crate::shape;

/// A weight as a graph input.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub value: Value,
}

/// A low-rank adapter beside a linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adapter {
    /// Its inner dimension.
    pub rank: usize,
    /// What comes out of it is multiplied by this.
    pub scale: f32,
}

/// Gives the adapter of the linear layer of a name.
pub type Adapters<'a> = &'a dyn Fn(&str) -> Option<Adapter>;

/// What a training leaves out at random.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Dropout {
    /// Nothing.
    #[default]
    Off,
    /// What the model's configuration says.
    Model,
    /// The same share everywhere where the model has dropout.
    Share(f32),
}

/// What training adds to an encoder. Nothing is added for encoding and export.
#[derive(Clone, Copy, Default)]
pub struct Additions<'a> {
    pub adapters: Option<Adapters<'a>>,
    pub dropout: Dropout,
}

/// See the [module](self).
pub struct Builder<'g> {
    pub g: &'g Graph,
    pub layout: Layout,
    additions: Additions<'g>,
    parameters: RefCell<Vec<Parameter>>,
    /// The seed of dropout, once it is asked for, and the number of places that have dropout.
    seed: Cell<Option<Value>>,
    sites: Cell<u32>,
}

impl<'g> Builder<'g> {
    pub fn new(g: &'g Graph, layout: Layout) -> Self {
        Builder::with(g, layout, Additions::default())
    }

    pub fn with(g: &'g Graph, layout: Layout, additions: Additions<'g>) -> Self {
        Builder { g, layout, additions, parameters: RefCell::default(), seed: Cell::default(), sites: Cell::default() }
    }

    /// The weights asked for, in the order in which the encoder uses them.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.parameters.borrow().clone()
    }

    /// The weight `name` of the model's file, as a graph input of that name.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Value {
        if let Some(known) = self.parameters.borrow().iter().find(|p| p.name == name) {
            return known.value;
        }
        let value = self.g.input(name, DataType::F32, shape.iter().map(|&d| d.into()).collect::<Shape>());
        self.parameters.borrow_mut().push(Parameter { name: name.to_owned(), shape: shape.to_vec(), value });
        value
    }

    /// Entries of the table `name.weight` `[entries, width]` at `ids` `[..]` → `[.., width]`.
    pub fn lookup(&self, name: &str, entries: usize, width: usize, ids: Value) -> Value {
        self.g.lookup(self.weight(&format!("{name}.weight"), &[entries, width]), ids)
    }

    /// A linear layer with `name.weight` `[to, from]` and `name.bias` `[to]`.
    pub fn linear(&self, name: &str, x: Value, from: usize, to: usize) -> Value {
        let weight = self.weight(&format!("{name}.weight"), &[to, from]);
        let bias = self.weight(&format!("{name}.bias"), &[to]);
        self.adapted(name, x, from, to, self.g.linear(x, weight, Some(bias)))
    }

    /// A linear layer with a bias where `biased`.
    pub fn linear_if(&self, biased: bool, name: &str, x: Value, from: usize, to: usize) -> Value {
        if biased { self.linear(name, x, from, to) } else { self.linear_unbiased(name, x, from, to) }
    }

    /// A linear layer without a bias.
    pub fn linear_unbiased(&self, name: &str, x: Value, from: usize, to: usize) -> Value {
        let weight = self.weight(&format!("{name}.weight"), &[to, from]);
        self.adapted(name, x, from, to, self.g.linear(x, weight, None))
    }

    /// What a linear layer gives, `y`, with what its adapter adds: scale · (x·Aᵀ)·Bᵀ, with A in `name.lora_A.weight` `[rank, from]` and B in
    /// `name.lora_B.weight` `[to, rank]`.
    fn adapted(&self, name: &str, x: Value, from: usize, to: usize, y: Value) -> Value {
        let Some(Adapter { rank, scale }) = self.additions.adapters.and_then(|of| of(name)) else { return y };
        let a = self.weight(&format!("{name}.lora_A.weight"), &[rank, from]);
        let b = self.weight(&format!("{name}.lora_B.weight"), &[to, rank]);
        let inner = self.g.scale(self.g.linear(x, a, None), scale);
        self.g.add(y, self.g.linear(inner, b, None))
    }

    /// Layer normalization over the last dimension with `name.weight` and `name.bias`.
    pub fn layer_norm(&self, name: &str, x: Value, epsilon: f32) -> Value {
        let (weight, bias) = self.scale_and_shift(name, x);
        self.g.layer_norm(x, weight, bias, epsilon)
    }

    /// Layer normalization over the last dimension with `name.weight` alone.
    pub fn layer_norm_unbiased(&self, name: &str, x: Value, epsilon: f32) -> Value {
        let width = self.g.last(x);
        let weight = self.weight(&format!("{name}.weight"), &[width]);
        self.g.layer_norm(x, weight, self.g.constant(&[width], &vec![0.0; width]), epsilon)
    }

    /// `x` with a share `probability` of its elements left out; `x` itself unless a training asks for it.
    pub fn dropout(&self, x: Value, probability: f32) -> Value {
        self.left_out(probability).map_or(x, |how| self.g.dropout(x, how))
    }

    /// How a further place leaves out what the model's configuration gives as `probability`.
    fn left_out(&self, probability: f32) -> Option<onnx::Dropout> {
        let probability = match self.additions.dropout {
            Dropout::Off => 0.0,
            Dropout::Model => probability,
            Dropout::Share(share) => share,
        };
        let site = self.sites.get();
        self.sites.set(site + 1);
        (probability > 0.0).then(|| {
            let seed = self.seed.get().unwrap_or_else(|| self.g.input(SEED, DataType::I64, shape![1]));
            self.seed.set(Some(seed));
            onnx::Dropout { seed, site, probability }
        })
    }

    /// The embeddings of the tokens' types, to be added to those of the words; `None` for an encoder without types. Where there is
    /// only one, it is the same for all tokens.
    pub fn token_types(&self, name: &str, types: usize, width: usize) -> Option<Value> {
        match types {
            0 => None,
            1 => Some(self.weight(&format!("{name}.weight"), &[1, width])),
            _ => Some(self.lookup(name, types, width, self.layout.token_type_ids(self.g))),
        }
    }

    /// What attention adds to its scores by how far key and query lie apart: the table `name.weight` `[entries, heads]`, and in `entry_of`
    /// which entry is for each distance from the farthest before to the farthest after.
    pub fn distance_bias(&self, name: &str, entries: usize, heads: usize, entry_of: &[i64]) -> Value {
        let table = self.weight(&format!("{name}.weight"), &[entries, heads]);
        self.layout.distance_bias(self.g, table, entry_of)
    }

    /// Layer normalization of `a + b`.
    pub fn add_layer_norm(&self, name: &str, a: Value, b: Value, epsilon: f32) -> Value {
        let (weight, bias) = self.scale_and_shift(name, a);
        self.g.add_layer_norm(a, b, weight, bias, epsilon)
    }

    /// What a layer normalization of values like `x` multiplies by and adds: `name.weight` and `name.bias`.
    fn scale_and_shift(&self, name: &str, x: Value) -> (Value, Value) {
        let size = [self.g.last(x)];
        (self.weight(&format!("{name}.weight"), &size), self.weight(&format!("{name}.bias"), &size))
    }

    /// Scaled dot-product attention of all heads, within each text; all values `[tokens, heads · width]`.
    pub fn attention(&self, query: Value, key: Value, value: Value, how: &Attention) -> Value {
        let Attention { heads, scale, window, bias, dropout } = *how;
        let how = onnx::Attention { heads, scale, window, bias, dropout: self.left_out(dropout) };
        self.layout.attention(self.g, [query, key, value], &how)
    }
}
