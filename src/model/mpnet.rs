//! MPNet (Song et al., 2020): BERT's blocks with a bias of attention that depends on how far two tokens lie apart.

use super::activation::Activation;
use super::architecture::Encoder;
use super::builder::Builder;
use super::layout::Attention;
use super::settings::{Settings, Sizes};
use crate::onnx::Value;

/// Not a setting: `MPNetModel` of transformers counts positions from behind 1, whatever `pad_token_id` is.
const FIRST_POSITION: usize = 2;
/// Not settings either: how distances are sorted into buckets.
const BUCKETS: usize = 32;
const FARTHEST: f32 = 128.0;

#[derive(Debug)]
struct Mpnet {
    sizes: Sizes,
    positions: usize,
    epsilon: f32,
    activation: Activation,
    dropout: f32,
    attention_dropout: f32,
}

pub fn read(settings: &Settings) -> Result<Box<dyn Encoder>, String> {
    settings.expect("relative_attention_num_buckets", BUCKETS)?;
    let positions = settings.size(&["max_position_embeddings"])?;
    if positions <= FIRST_POSITION {
        return Err(format!("`max_position_embeddings` is {positions}, which leaves no position for a token"));
    }
    Ok(Box::new(Mpnet {
        sizes: Sizes::read(settings)?,
        positions,
        epsilon: settings.positive(&["layer_norm_eps"], 1e-12)?,
        activation: Activation::named("hidden_act", &settings.text(&["hidden_act"], "gelu")?)?,
        dropout: settings.probability(&["hidden_dropout_prob"], 0.1)?,
        attention_dropout: settings.probability(&["attention_probs_dropout_prob"], 0.1)?,
    }))
}

/// The bucket of a key that stands `distance` tokens after the query (negative: before it): one each for the nearest, ever wider
/// ones up to 128, and all that lie further off in the last.
fn bucket(distance: i64) -> i64 {
    let (half, exact) = (BUCKETS as i64 / 2, BUCKETS as i64 / 4);
    let side = if distance > 0 { half } else { 0 };
    let apart = distance.abs();
    if apart < exact {
        return side + apart;
    }
    // In 32 bits and in this order, as PyTorch does it: at 16, 32 and 64 the last digit decides.
    let relative = (apart as f32 / exact as f32).ln() / (f64::from(FARTHEST) / exact as f64).ln() as f32;
    side + (exact + (relative * (half - exact) as f32) as i64).min(half - 1)
}

impl Mpnet {
    fn block(&self, b: &Builder, name: &str, bias: Value, x: Value) -> Value {
        let (g, hidden, inner) = (b.g, self.sizes.hidden, self.sizes.inner);
        let project = |part: &str| b.linear(&format!("{name}.attention.attn.{part}"), x, hidden, hidden);
        let how = Attention { bias: Some(bias), dropout: self.attention_dropout, ..Attention::new(&self.sizes) };
        let attended = b.attention(project("q"), project("k"), project("v"), &how);
        let attended = b.dropout(b.linear(&format!("{name}.attention.attn.o"), attended, hidden, hidden), self.dropout);
        let x = b.add_layer_norm(&format!("{name}.attention.LayerNorm"), attended, x, self.epsilon);
        let wide = self.activation.apply(g, b.linear(&format!("{name}.intermediate.dense"), x, hidden, inner));
        let narrow = b.dropout(b.linear(&format!("{name}.output.dense"), wide, inner, hidden), self.dropout);
        b.add_layer_norm(&format!("{name}.output.LayerNorm"), narrow, x, self.epsilon)
    }
}

impl Encoder for Mpnet {
    fn hidden_size(&self) -> usize {
        self.sizes.hidden
    }

    fn max_tokens(&self) -> usize {
        self.positions - FIRST_POSITION
    }

    fn build(&self, b: &Builder) -> Value {
        let hidden = self.sizes.hidden;
        let words = b.lookup("embeddings.word_embeddings", self.sizes.vocabulary, hidden, b.layout.input_ids());
        let places = b.g.shift(b.layout.positions(), FIRST_POSITION as i64);
        let places = b.lookup("embeddings.position_embeddings", self.positions, hidden, places);
        let x = b.dropout(b.layer_norm("embeddings.LayerNorm", b.g.add(words, places), self.epsilon), self.dropout);
        let far = self.max_tokens() as i64 - 1;
        let buckets: Vec<i64> = (-far..=far).map(bucket).collect();
        let bias = b.distance_bias("encoder.relative_attention_bias", BUCKETS, self.sizes.heads, &buckets);
        (0..self.sizes.layers).fold(x, |x, layer| self.block(b, &format!("encoder.layer.{layer}"), bias, x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_transformers() {
        // MPNetEncoder.relative_position_bucket(torch.arange(0, 600)): where each bucket begins.
        let starts: Vec<i64> = (1..600).filter(|&d| bucket(d) != bucket(d - 1)).collect();
        assert_eq!(starts, [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]);
        assert_eq!((bucket(0), bucket(1), bucket(-1), bucket(599), bucket(-599)), (0, 17, 1, 31, 15));
        assert!((1..600).all(|d| bucket(d) == bucket(-d) + 16));
    }
}
