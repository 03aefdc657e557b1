//! BERT (Devlin et al., 2019) as `BertModel` of transformers computes it, without the pooler.

use super::architecture::{Inputs, Parameters};
use super::config::EncoderConfig;
use crate::onnx::{DataType, Graph, Value};
use crate::shape;

/// See [`super::architecture`].
pub fn build(g: &Graph, config: &EncoderConfig, parameters: &Parameters, inputs: &Inputs) -> Value {
    let bert = Bert { g, config, parameters };
    let mut x = bert.embeddings(inputs);
    let bias = bert.attention_bias(inputs.attention_mask);
    for layer in 0..config.num_hidden_layers {
        x = bert.layer(&format!("encoder.layer.{layer}"), x, bias);
    }
    g.reshape(x, shape!["rows", "seq", config.hidden_size])
}

struct Bert<'a> {
    g: &'a Graph,
    config: &'a EncoderConfig,
    parameters: &'a Parameters<'a>,
}

impl Bert<'_> {
    /// Word, position and type embeddings, added and normalised: `[tokens, hidden]`. From here on tokens of all texts lie in one dimension.
    fn embeddings(&self, inputs: &Inputs) -> Value {
        let (g, c) = (self.g, self.config);
        let table = |name: &str, entries| self.parameters.weight(&format!("embeddings.{name}.weight"), &[entries, c.hidden_size]);
        let words = g.lookup(table("word_embeddings", c.vocab_size), inputs.input_ids);
        let positions = g.lookup(table("position_embeddings", c.max_position_embeddings), g.range("seq"));
        let types = g.lookup(table("token_type_embeddings", c.type_vocab_size), inputs.token_type_ids);
        let sum = g.add(g.add(words, types), positions);
        self.layer_norm("embeddings.LayerNorm", g.reshape(sum, shape!["tokens", c.hidden_size]))
    }

    /// 0 where a token may be looked at, a very large negative number where it is padding: `[rows, 1, 1, seq]`.
    fn attention_bias(&self, mask: Value) -> Value {
        let g = self.g;
        let padding = g.sub(g.scalar(1.0), g.cast(mask, DataType::F32));
        g.reshape(g.scale(padding, f32::MIN), shape!["rows", 1, 1, "seq"])
    }

    fn layer(&self, name: &str, x: Value, bias: Value) -> Value {
        let (g, c) = (self.g, self.config);
        let attended = self.attention(&format!("{name}.attention.self"), x, bias);
        let attended = self.linear(&format!("{name}.attention.output.dense"), attended, c.hidden_size, c.hidden_size);
        let x = self.layer_norm(&format!("{name}.attention.output.LayerNorm"), g.add(attended, x));
        let wide = g.gelu(self.linear(&format!("{name}.intermediate.dense"), x, c.hidden_size, c.intermediate_size));
        let narrow = self.linear(&format!("{name}.output.dense"), wide, c.intermediate_size, c.hidden_size);
        self.layer_norm(&format!("{name}.output.LayerNorm"), g.add(narrow, x))
    }

    /// Scaled dot-product attention of all heads: `[tokens, hidden]`.
    fn attention(&self, name: &str, x: Value, bias: Value) -> Value {
        let (g, hidden, heads) = (self.g, self.config.hidden_size, self.config.num_attention_heads);
        let width = hidden / heads;
        let split = |part: &str| {
            let projected = self.linear(&format!("{name}.{part}"), x, hidden, hidden);
            g.transpose(g.reshape(projected, shape!["rows", "seq", heads, width]), &[0, 2, 1, 3])
        };
        let (query, key, value) = (split("query"), split("key"), split("value"));
        let scores = g.matmul(query, key, false, true, 1.0 / (width as f32).sqrt());
        let attended = g.matmul(g.softmax(g.add(scores, bias)), value, false, false, 1.0);
        g.reshape(g.transpose(attended, &[0, 2, 1, 3]), shape!["tokens", hidden])
    }

    fn linear(&self, name: &str, x: Value, from: usize, to: usize) -> Value {
        let weight = self.parameters.weight(&format!("{name}.weight"), &[to, from]);
        let bias = self.parameters.weight(&format!("{name}.bias"), &[to]);
        self.g.linear(x, weight, bias)
    }

    fn layer_norm(&self, name: &str, x: Value) -> Value {
        let size = [self.config.hidden_size];
        let weight = self.parameters.weight(&format!("{name}.weight"), &size);
        let bias = self.parameters.weight(&format!("{name}.bias"), &size);
        self.g.layer_norm(x, weight, bias, self.config.layer_norm_eps)
    }
}
