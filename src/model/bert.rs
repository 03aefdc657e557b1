//! BERT (Devlin et al., 2019) as `BertModel` of transformers computes it, without the pooler.

use super::activation::Activation;
use super::architecture::Encoder;
use super::builder::Builder;
use super::layout::Attention;
use super::settings::{Settings, Sizes};
use crate::onnx::Value;

/// BERT, and RoBERTa, which counts positions from elsewhere.
#[derive(Debug)]
pub struct Bert {
    sizes: Sizes,
    /// Entries of the table of positions.
    positions: usize,
    /// The entry of a text's first token.
    first_position: usize,
    types: usize,
    epsilon: f32,
    activation: Activation,
    dropout: f32,
    attention_dropout: f32,
}

pub fn read(settings: &Settings) -> Result<Box<dyn Encoder>, String> {
    Ok(Box::new(Bert::read(settings, 0, 2)?))
}

impl Bert {
    /// Reads the settings of BERT's kind; a text's first token has the position `first_position`.
    ///
    /// # Errors
    /// Names the field that is missing, wrong or not supported.
    pub fn read(settings: &Settings, first_position: usize, types: usize) -> Result<Self, String> {
        settings.expect("position_embedding_type", "absolute")?;
        settings.expect("is_decoder", false)?;
        let positions = settings.size(&["max_position_embeddings"])?;
        if positions <= first_position {
            return Err(format!("`max_position_embeddings` is {positions}, which leaves no position for a token"));
        }
        Ok(Bert {
            sizes: Sizes::read(settings)?,
            positions,
            first_position,
            types: settings.count(&["type_vocab_size"])?.unwrap_or(types),
            epsilon: settings.positive(&["layer_norm_eps"], 1e-12)?,
            activation: Activation::named("hidden_act", &settings.text(&["hidden_act"], "gelu")?)?,
            dropout: settings.probability(&["hidden_dropout_prob"], 0.1)?,
            attention_dropout: settings.probability(&["attention_probs_dropout_prob"], 0.1)?,
        })
    }

    /// Word, position and type embeddings, added and normalised.
    fn embeddings(&self, b: &Builder) -> Value {
        let hidden = self.sizes.hidden;
        let mut sum = b.lookup("embeddings.word_embeddings", self.sizes.vocabulary, hidden, b.layout.input_ids());
        if let Some(types) = b.token_types("embeddings.token_type_embeddings", self.types, hidden) {
            sum = b.g.add(sum, types);
        }
        let places = b.g.shift(b.layout.positions(), self.first_position as i64);
        sum = b.g.add(sum, b.lookup("embeddings.position_embeddings", self.positions, hidden, places));
        b.dropout(b.layer_norm("embeddings.LayerNorm", sum, self.epsilon), self.dropout)
    }

    fn block(&self, b: &Builder, name: &str, x: Value) -> Value {
        let (g, hidden, inner) = (b.g, self.sizes.hidden, self.sizes.inner);
        let project = |part: &str| b.linear(&format!("{name}.attention.self.{part}"), x, hidden, hidden);
        let how = Attention { dropout: self.attention_dropout, ..Attention::new(&self.sizes) };
        let attended = b.attention(project("query"), project("key"), project("value"), &how);
        let attended = b.dropout(b.linear(&format!("{name}.attention.output.dense"), attended, hidden, hidden), self.dropout);
        let x = b.add_layer_norm(&format!("{name}.attention.output.LayerNorm"), attended, x, self.epsilon);
        let wide = self.activation.apply(g, b.linear(&format!("{name}.intermediate.dense"), x, hidden, inner));
        let narrow = b.dropout(b.linear(&format!("{name}.output.dense"), wide, inner, hidden), self.dropout);
        b.add_layer_norm(&format!("{name}.output.LayerNorm"), narrow, x, self.epsilon)
    }
}

impl Encoder for Bert {
    fn hidden_size(&self) -> usize {
        self.sizes.hidden
    }

    fn max_tokens(&self) -> usize {
        self.positions - self.first_position
    }

    fn build(&self, b: &Builder) -> Value {
        let layers = 0..self.sizes.layers;
        layers.fold(self.embeddings(b), |x, layer| self.block(b, &format!("encoder.layer.{layer}"), x))
    }
}
