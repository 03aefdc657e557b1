//! The encoders of Alibaba's GTE (Zhang et al., 2024), whose own code calls them `new`: BERT's blocks with rotary positions and
//! gated linear units.

use super::activation::Activation;
use super::architecture::Encoder;
use super::builder::Builder;
use super::layout::Attention;
use super::rotary::{Rotary, check_width, frequencies, theta};
use super::settings::{Settings, Sizes};
use crate::onnx::Value;

#[derive(Debug)]
struct Gte {
    sizes: Sizes,
    positions: usize,
    types: usize,
    /// How fast each pair of numbers of a head turns.
    frequencies: Vec<f32>,
    epsilon: f32,
    activation: Activation,
    dropout: f32,
    attention_dropout: f32,
}

pub fn read(settings: &Settings) -> Result<Box<dyn Encoder>, String> {
    settings.expect("position_embedding_type", "rope")?;
    settings.expect("layer_norm_type", "layer_norm")?;
    settings.expect("pack_qkv", true)?;
    settings.expect("logn_attention_scale", false)?;
    settings.expect("logn_attention_clip1", false)?;
    let sizes = Sizes::read(settings)?;
    check_width(sizes.width())?;
    Ok(Box::new(Gte {
        sizes,
        positions: settings.size(&["max_position_embeddings"])?,
        types: settings.count(&["type_vocab_size"])?.unwrap_or(1),
        frequencies: turns(settings, sizes.width())?,
        epsilon: settings.positive(&["layer_norm_eps"], 1e-12)?,
        activation: Activation::named("hidden_act", &settings.text(&["hidden_act"], "gelu")?)?,
        dropout: settings.probability(&["hidden_dropout_prob"], 0.1)?,
        attention_dropout: settings.probability(&["attention_probs_dropout_prob"], 0.0)?,
    }))
}

/// With `rope_scaling` of type `ntk`: those for theta · factor, all slowed down by factor^(2 / width) besides (the NTK scaling of
/// the model's own code, after Su, 2023).
fn turns(settings: &Settings, width: usize) -> Result<Vec<f32>, String> {
    let own = settings.text(&["model_type"], "")? == "new";
    let theta = theta(settings, "rope_theta", if own { 10_000.0 } else { 160_000.0 })?;
    let scaling = settings.object("rope_scaling")?;
    if !settings.has(&["rope_scaling"]) {
        return Ok(frequencies(theta, width));
    }
    let kind = scaling.text(&["type", "rope_type"], "")?;
    if kind != "ntk" || scaling.has(&["mixed_b"]) {
        return Err(format!("`rope_scaling` of type `{kind}` is not supported; `ntk` without `mixed_b` is"));
    }
    let factor = scaling.positive(&["factor"], 1.0)?.max(1.0);
    let slower = factor.powf(2.0 / width as f32);
    Ok(frequencies(theta * factor, width).into_iter().map(|frequency| frequency / slower).collect())
}

impl Gte {
    fn block(&self, b: &Builder, name: &str, rotary: &Rotary, x: Value) -> Value {
        let (g, hidden, inner) = (b.g, self.sizes.hidden, self.sizes.inner);
        let parts = g.split_last(b.linear(&format!("{name}.attention.qkv_proj"), x, hidden, 3 * hidden), &[hidden; 3]);
        let how = Attention { dropout: self.attention_dropout, ..Attention::new(&self.sizes) };
        let attended = b.attention(rotary.turn(b, parts[0]), rotary.turn(b, parts[1]), parts[2], &how);
        let attended = b.dropout(b.linear(&format!("{name}.attention.o_proj"), attended, hidden, hidden), self.dropout);
        let x = b.add_layer_norm(&format!("{name}.attn_ln"), attended, x, self.epsilon);
        let both = b.linear_unbiased(&format!("{name}.mlp.up_gate_proj"), x, hidden, 2 * inner);
        let parts = g.split_last(both, &[inner; 2]);
        let gated = b.dropout(g.mul(parts[0], self.activation.apply(g, parts[1])), self.dropout);
        let narrow = b.dropout(b.linear(&format!("{name}.mlp.down_proj"), gated, inner, hidden), self.dropout);
        b.add_layer_norm(&format!("{name}.mlp_ln"), narrow, x, self.epsilon)
    }
}

impl Encoder for Gte {
    fn hidden_size(&self) -> usize {
        self.sizes.hidden
    }

    fn max_tokens(&self) -> usize {
        self.positions
    }

    fn build(&self, b: &Builder) -> Value {
        let hidden = self.sizes.hidden;
        let rotary = Rotary::new(b, &self.frequencies, self.positions);
        let mut x = b.lookup("embeddings.word_embeddings", self.sizes.vocabulary, hidden, b.layout.input_ids());
        if let Some(types) = b.token_types("embeddings.token_type_embeddings", self.types, hidden) {
            x = b.g.add(x, types);
        }
        x = b.dropout(b.layer_norm("embeddings.LayerNorm", x, self.epsilon), self.dropout);
        (0..self.sizes.layers).fold(x, |x, layer| self.block(b, &format!("encoder.layer.{layer}"), &rotary, x))
    }
}
