//! BERT (Devlin et al., 2019) as `BertModel` of transformers computes it, without the pooler.

use super::builder::Builder;
use super::config::EncoderConfig;
use super::layout::Attention;
use crate::onnx::Value;

/// See [`super::architecture`].
pub fn build(b: &Builder, config: &EncoderConfig) -> Value {
    let mut x = embeddings(b, config);
    for layer in 0..config.num_hidden_layers {
        x = block(b, config, &format!("encoder.layer.{layer}"), x);
    }
    x
}

/// Word, position and type embeddings, added and normalised.
fn embeddings(b: &Builder, c: &EncoderConfig) -> Value {
    let table = |name: &str, entries, ids| b.lookup(&format!("embeddings.{name}"), entries, c.hidden_size, ids);
    let words = table("word_embeddings", c.vocab_size, b.layout.input_ids());
    let positions = table("position_embeddings", c.max_position_embeddings, b.layout.positions());
    let types = table("token_type_embeddings", c.type_vocab_size, b.layout.token_type_ids());
    let sum = b.g.add(b.g.add(words, types), positions);
    b.layer_norm("embeddings.LayerNorm", sum, c.layer_norm_eps)
}

fn block(b: &Builder, c: &EncoderConfig, name: &str, x: Value) -> Value {
    let (g, hidden, inner) = (b.g, c.hidden_size, c.intermediate_size);
    let project = |part: &str| b.linear(&format!("{name}.attention.self.{part}"), x, hidden, hidden);
    let width = hidden / c.num_attention_heads;
    let how = Attention { heads: c.num_attention_heads, scale: 1.0 / (width as f32).sqrt(), window: None };
    let attended = b.attention(project("query"), project("key"), project("value"), &how);
    let attended = b.linear(&format!("{name}.attention.output.dense"), attended, hidden, hidden);
    let x = b.add_layer_norm(&format!("{name}.attention.output.LayerNorm"), attended, x, c.layer_norm_eps);
    let wide = g.gelu(b.linear(&format!("{name}.intermediate.dense"), x, hidden, inner));
    let narrow = b.linear(&format!("{name}.output.dense"), wide, inner, hidden);
    b.add_layer_norm(&format!("{name}.output.LayerNorm"), narrow, x, c.layer_norm_eps)
}
