//! DistilBERT (Sanh et al., 2019): BERT's blocks without token types.

use super::activation::Activation;
use super::architecture::Encoder;
use super::builder::Builder;
use super::layout::Attention;
use super::settings::{Settings, Sizes};
use crate::onnx::Value;

/// Not a setting: what `DistilBertModel` of transformers has.
const EPSILON: f32 = 1e-12;

#[derive(Debug)]
struct DistilBert {
    sizes: Sizes,
    positions: usize,
    activation: Activation,
    dropout: f32,
    attention_dropout: f32,
}

pub fn read(settings: &Settings) -> Result<Box<dyn Encoder>, String> {
    Ok(Box::new(DistilBert {
        sizes: Sizes::read(settings)?,
        positions: settings.size(&["max_position_embeddings"])?,
        activation: Activation::named("activation", &settings.text(&["activation"], "gelu")?)?,
        dropout: settings.probability(&["dropout"], 0.1)?,
        attention_dropout: settings.probability(&["attention_dropout"], 0.1)?,
    }))
}

impl DistilBert {
    fn block(&self, b: &Builder, name: &str, x: Value) -> Value {
        let (g, hidden, inner) = (b.g, self.sizes.hidden, self.sizes.inner);
        let project = |part: &str| b.linear(&format!("{name}.attention.{part}"), x, hidden, hidden);
        let how = Attention { dropout: self.attention_dropout, ..Attention::new(&self.sizes) };
        let attended = b.attention(project("q_lin"), project("k_lin"), project("v_lin"), &how);
        let attended = b.linear(&format!("{name}.attention.out_lin"), attended, hidden, hidden);
        let x = b.add_layer_norm(&format!("{name}.sa_layer_norm"), attended, x, EPSILON);
        let wide = self.activation.apply(g, b.linear(&format!("{name}.ffn.lin1"), x, hidden, inner));
        let narrow = b.dropout(b.linear(&format!("{name}.ffn.lin2"), wide, inner, hidden), self.dropout);
        b.add_layer_norm(&format!("{name}.output_layer_norm"), narrow, x, EPSILON)
    }
}

impl Encoder for DistilBert {
    fn hidden_size(&self) -> usize {
        self.sizes.hidden
    }

    fn max_tokens(&self) -> usize {
        self.positions
    }

    fn build(&self, b: &Builder) -> Value {
        let hidden = self.sizes.hidden;
        let words = b.lookup("embeddings.word_embeddings", self.sizes.vocabulary, hidden, b.layout.input_ids());
        let places = b.lookup("embeddings.position_embeddings", self.positions, hidden, b.layout.positions());
        let x = b.dropout(b.layer_norm("embeddings.LayerNorm", b.g.add(words, places), EPSILON), self.dropout);
        (0..self.sizes.layers).fold(x, |x, layer| self.block(b, &format!("transformer.layer.{layer}"), x))
    }
}
