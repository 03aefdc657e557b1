//! ModernBERT (Warner et al., 2024): rotary positions, gated linear units, normalisation before each part, and attention that in
//! most layers reaches only near tokens.

use super::activation::Activation;
use super::architecture::Encoder;
use super::builder::Builder;
use super::layout::Attention;
use super::rotary::{Rotary, above_zero, check_width, frequencies, plain};
use super::settings::{Settings, Sizes};
use crate::onnx::Value;

#[derive(Debug)]
struct ModernBert {
    sizes: Sizes,
    positions: usize,
    /// Of each layer, whether it sees only near tokens.
    local: Vec<bool>,
    /// How far these layers see, in tokens to either side.
    reach: usize,
    global_theta: f32,
    local_theta: f32,
    epsilon: f32,
    norm_bias: bool,
    attention_bias: bool,
    mlp_bias: bool,
    activation: Activation,
    embedding_dropout: f32,
    attention_dropout: f32,
    mlp_dropout: f32,
}

pub fn read(settings: &Settings) -> Result<Box<dyn Encoder>, String> {
    let sizes = Sizes::read(settings)?;
    check_width(sizes.width())?;
    let theta = |kind: &'static str, older: &'static str, default: f32| {
        let parameters = settings.object("rope_parameters")?.object(kind)?;
        plain(&parameters)?;
        parameters.positive(&["rope_theta"], settings.positive(&[older], default)?).and_then(above_zero)
    };
    if settings.has(&["rope_scaling"]) {
        return Err("`rope_scaling` is not supported".into());
    }
    Ok(Box::new(ModernBert {
        sizes,
        positions: settings.size(&["max_position_embeddings"])?,
        local: local_layers(settings, sizes.layers)?,
        reach: settings.count(&["local_attention"])?.unwrap_or(128) / 2,
        global_theta: theta("full_attention", "global_rope_theta", 160_000.0)?,
        local_theta: theta("sliding_attention", "local_rope_theta", 10_000.0)?,
        epsilon: settings.positive(&["norm_eps"], 1e-5)?,
        norm_bias: settings.flag("norm_bias", false)?,
        attention_bias: settings.flag("attention_bias", false)?,
        mlp_bias: settings.flag("mlp_bias", false)?,
        activation: Activation::named("hidden_activation", &settings.text(&["hidden_activation"], "gelu")?)?,
        embedding_dropout: settings.probability(&["embedding_dropout"], 0.0)?,
        attention_dropout: settings.probability(&["attention_dropout"], 0.0)?,
        mlp_dropout: settings.probability(&["mlp_dropout"], 0.0)?,
    }))
}

/// From `layer_types` of transformers 5, else `global_attn_every_n_layers`.
fn local_layers(settings: &Settings, layers: usize) -> Result<Vec<bool>, String> {
    let Some(types) = settings.texts("layer_types")? else {
        let every = settings.count(&["global_attn_every_n_layers"])?.unwrap_or(3).max(1);
        return Ok((0..layers).map(|layer| !layer.is_multiple_of(every)).collect());
    };
    if types.len() != layers {
        return Err(format!("`layer_types` names {} layers, but `num_hidden_layers` is {layers}", types.len()));
    }
    types
        .iter()
        .map(|kind| match kind.as_str() {
            "sliding_attention" => Ok(true),
            "full_attention" => Ok(false),
            other => Err(format!("`layer_types` has `{other}`; `full_attention` and `sliding_attention` are supported")),
        })
        .collect()
}

impl ModernBert {
    fn norm(&self, b: &Builder, name: &str, x: Value) -> Value {
        if self.norm_bias { b.layer_norm(name, x, self.epsilon) } else { b.layer_norm_unbiased(name, x, self.epsilon) }
    }

    fn attention(&self, b: &Builder, name: &str, layer: usize, rotary: &Rotary, x: Value) -> Value {
        let hidden = self.sizes.hidden;
        let all = b.linear_if(self.attention_bias, &format!("{name}.attn.Wqkv"), x, hidden, 3 * hidden);
        let parts = b.g.split_last(all, &[hidden; 3]);
        let window = self.local.get(layer).copied().unwrap_or(false).then_some(self.reach);
        let how = Attention { window, dropout: self.attention_dropout, ..Attention::new(&self.sizes) };
        let attended = b.attention(rotary.turn(b, parts[0]), rotary.turn(b, parts[1]), parts[2], &how);
        let out = b.linear_if(self.attention_bias, &format!("{name}.attn.Wo"), attended, hidden, hidden);
        b.dropout(out, self.attention_dropout)
    }

    fn mlp(&self, b: &Builder, name: &str, x: Value) -> Value {
        let (hidden, inner) = (self.sizes.hidden, self.sizes.inner);
        let both = b.linear_if(self.mlp_bias, &format!("{name}.mlp.Wi"), x, hidden, 2 * inner);
        let parts = b.g.split_last(both, &[inner; 2]);
        let gated = b.dropout(b.g.mul(self.activation.apply(b.g, parts[0]), parts[1]), self.mlp_dropout);
        b.linear_if(self.mlp_bias, &format!("{name}.mlp.Wo"), gated, inner, hidden)
    }
}

impl Encoder for ModernBert {
    fn hidden_size(&self) -> usize {
        self.sizes.hidden
    }

    fn max_tokens(&self) -> usize {
        self.positions
    }

    fn build(&self, b: &Builder) -> Value {
        let turns = |theta| Rotary::new(b, &frequencies(theta, self.sizes.width()), self.positions);
        let (global, local) = (turns(self.global_theta), turns(self.local_theta));
        let words = b.lookup("embeddings.tok_embeddings", self.sizes.vocabulary, self.sizes.hidden, b.layout.input_ids());
        let mut x = b.dropout(self.norm(b, "embeddings.norm", words), self.embedding_dropout);
        for (layer, &near) in self.local.iter().enumerate() {
            let name = format!("layers.{layer}");
            // What comes from the embeddings is normalised already.
            let normed = if layer == 0 { x } else { self.norm(b, &format!("{name}.attn_norm"), x) };
            x = b.g.add(x, self.attention(b, &name, layer, if near { &local } else { &global }, normed));
            x = b.g.add(x, self.mlp(b, &name, self.norm(b, &format!("{name}.mlp_norm"), x)));
        }
        self.norm(b, "final_norm", x)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::settings;
    use super::*;
    use serde_json::json;

    #[test]
    fn every_third_layer_sees_the_whole_text() {
        let layers = |value| local_layers(&settings(value), 4);
        let expected = Ok(vec![false, true, true, false]);
        assert_eq!(layers(json!({})), expected);
        assert_eq!(layers(json!({ "global_attn_every_n_layers": 3 })), expected);
        let types = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"];
        assert_eq!(layers(json!({ "layer_types": types })), expected);
        insta::assert_snapshot!(layers(json!({ "layer_types": ["full_attention"] })).unwrap_err(), @"`layer_types` names 1 layers, but `num_hidden_layers` is 4");
    }
}
