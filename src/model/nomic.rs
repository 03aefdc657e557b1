//! Nomic's BERT (Nussbaum et al., 2024): BERT's blocks with rotary positions and gated linear units. Its `config.json` comes in
//! two forms: that of the model's own code, with GPT-2's names, and that of transformers 5.

use super::activation::Activation;
use super::architecture::Encoder;
use super::builder::Builder;
use super::layout::Attention;
use super::rotary::{Rotary, check_width, frequencies, theta};
use super::settings::{Settings, Sizes};
use crate::onnx::Value;

#[derive(Debug)]
struct Nomic {
    sizes: Sizes,
    positions: usize,
    types: usize,
    theta: f32,
    epsilon: f32,
    activation: Activation,
    attention_bias: bool,
    wide_bias: bool,
    narrow_bias: bool,
    embedding_dropout: f32,
    dropout: f32,
    attention_dropout: f32,
}

pub fn read(settings: &Settings) -> Result<Box<dyn Encoder>, String> {
    for name in
        ["prenorm", "parallel_block", "causal", "use_rms_norm", "rotary_emb_interleaved", "scale_attn_by_inverse_layer_idx"]
    {
        settings.expect(name, false)?;
    }
    for name in ["moe_every_n_layers", "num_experts"] {
        settings.expect(name, 0)?;
    }
    settings.expect("rotary_emb_fraction", 1.0)?;
    let sizes = Sizes::read(settings)?;
    check_width(sizes.width())?;
    settings.expect("head_dim", sizes.width())?;
    Ok(Box::new(Nomic {
        sizes,
        positions: positions(settings)?,
        types: settings.count(&["type_vocab_size"])?.unwrap_or(2),
        theta: theta(settings, "rotary_emb_base", 1000.0)?,
        epsilon: settings.positive(&["layer_norm_eps", "layer_norm_epsilon"], 1e-12)?,
        activation: activation(settings)?,
        attention_bias: settings.flag("qkv_proj_bias", false)?,
        wide_bias: settings.flag("mlp_fc1_bias", false)?,
        narrow_bias: settings.flag("mlp_fc2_bias", false)?,
        embedding_dropout: settings.probability(&["hidden_dropout_prob", "embd_pdrop"], 0.0)?,
        dropout: settings.probability(&["hidden_dropout_prob", "resid_pdrop"], 0.0)?,
        attention_dropout: settings.probability(&["attention_probs_dropout_prob", "attn_pdrop"], 0.0)?,
    }))
}

/// Longer texts than the model was trained on would need other turns, where the configuration has a `rotary_scaling_factor` for
/// them; so they are cut there.
fn positions(settings: &Settings) -> Result<usize, String> {
    let all = settings.size(&["max_position_embeddings", "n_positions"])?;
    let trained = settings.count(&["max_trained_positions"])?.unwrap_or(2048).max(1);
    Ok(if settings.has(&["rotary_scaling_factor"]) { all.min(trained) } else { all })
}

/// What the gate of the gated linear unit goes through.
fn activation(settings: &Settings) -> Result<Activation, String> {
    match settings.text(&["activation_function"], "")?.as_str() {
        "" => Activation::named("hidden_act", &settings.text(&["hidden_act"], "silu")?),
        "swiglu" => Ok(Activation::Silu),
        "geglu" => Ok(Activation::Gelu),
        "glu" => Ok(Activation::Sigmoid),
        other => Err(format!("`activation_function` `{other}` is not supported; `swiglu`, `geglu` and `glu` are")),
    }
}

impl Nomic {
    fn block(&self, b: &Builder, name: &str, rotary: &Rotary, x: Value) -> Value {
        let (g, hidden, inner) = (b.g, self.sizes.hidden, self.sizes.inner);
        let all = b.linear_if(self.attention_bias, &format!("{name}.attn.Wqkv"), x, hidden, 3 * hidden);
        let parts = g.split_last(all, &[hidden; 3]);
        let how = Attention { dropout: self.attention_dropout, ..Attention::new(&self.sizes) };
        let attended = b.attention(rotary.turn(b, parts[0]), rotary.turn(b, parts[1]), parts[2], &how);
        let attended = b.linear_if(self.attention_bias, &format!("{name}.attn.out_proj"), attended, hidden, hidden);
        let x = b.add_layer_norm(&format!("{name}.norm1"), b.dropout(attended, self.dropout), x, self.epsilon);
        let wide = |part: &str| b.linear_if(self.wide_bias, &format!("{name}.mlp.{part}"), x, hidden, inner);
        let gated = g.mul(wide("fc11"), self.activation.apply(g, wide("fc12")));
        let narrow = b.linear_if(self.narrow_bias, &format!("{name}.mlp.fc2"), gated, inner, hidden);
        b.add_layer_norm(&format!("{name}.norm2"), b.dropout(narrow, self.dropout), x, self.epsilon)
    }
}

impl Encoder for Nomic {
    fn hidden_size(&self) -> usize {
        self.sizes.hidden
    }

    fn max_tokens(&self) -> usize {
        self.positions
    }

    fn build(&self, b: &Builder) -> Value {
        let hidden = self.sizes.hidden;
        let rotary = Rotary::new(b, &frequencies(self.theta, self.sizes.width()), self.positions);
        let mut x = b.lookup("embeddings.word_embeddings", self.sizes.vocabulary, hidden, b.layout.input_ids());
        if let Some(types) = b.token_types("embeddings.token_type_embeddings", self.types, hidden) {
            x = b.g.add(x, types);
        }
        x = b.dropout(b.layer_norm("emb_ln", x, self.epsilon), self.embedding_dropout);
        (0..self.sizes.layers).fold(x, |x, layer| self.block(b, &format!("encoder.layers.{layer}"), &rotary, x))
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::settings;
    use super::*;
    use serde_json::json;

    /// As the model's own code writes it.
    fn own() -> serde_json::Value {
        json!({
            "activation_function": "swiglu", "causal": false, "layer_norm_epsilon": 1e-12, "max_trained_positions": 2048,
            "mlp_fc1_bias": false, "mlp_fc2_bias": false, "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12, "n_positions": 8192,
            "parallel_block": false, "prenorm": false, "qkv_proj_bias": false, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": false, "rotary_emb_scale_base": null, "rotary_scaling_factor": null, "type_vocab_size": 2,
            "use_rms_norm": false, "vocab_size": 30528
        })
    }

    fn changed(name: &str, value: serde_json::Value) -> Result<Box<dyn Encoder>, String> {
        let mut config = own();
        config[name] = value;
        read(&settings(config))
    }

    #[test]
    fn both_forms_of_the_configuration_say_the_same() {
        let transformers = json!({
            "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 12, "vocab_size": 30528,
            "max_position_embeddings": 8192, "head_dim": 64, "hidden_act": "silu", "layer_norm_eps": 1e-12, "type_vocab_size": 2,
            "rope_parameters": { "rope_theta": 1000.0, "rope_type": "default" }
        });
        assert_eq!(format!("{:?}", read(&settings(own())).unwrap()), format!("{:?}", read(&settings(transformers)).unwrap()));
    }

    #[test]
    fn what_is_built_otherwise_is_refused() {
        insta::assert_snapshot!(changed("moe_every_n_layers", json!(2)).unwrap_err(), @"`moe_every_n_layers` `2` is not supported; only `0` is");
        insta::assert_snapshot!(changed("rotary_emb_fraction", json!(0.5)).unwrap_err(), @"`rotary_emb_fraction` `0.5` is not supported; only `1.0` is");
        insta::assert_snapshot!(changed("prenorm", json!(true)).unwrap_err(), @"`prenorm` `true` is not supported; only `false` is");
        insta::assert_snapshot!(changed("activation_function", json!("gelu")).unwrap_err(), @"`activation_function` `gelu` is not supported; `swiglu`, `geglu` and `glu` are");
        assert_eq!(changed("rotary_scaling_factor", json!(2)).unwrap().max_tokens(), 2048);
    }
}
