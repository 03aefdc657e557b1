//! Rotary position embeddings: what the encoders that have them share.

use super::builder::Builder;
use super::settings::Settings;
use crate::onnx::Value;

/// The turns of all positions, as a graph's constants.
pub struct Rotary {
    cos: Value,
    sin: Value,
}

/// How fast each pair of numbers of a head of `width` turns, in radians a position: `1 / θ^(2i / width)`, rounded as PyTorch rounds
/// it, since far along a text the last digit counts.
pub fn frequencies(theta: f32, width: usize) -> Vec<f32> {
    (0..width / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / width as f32)).collect()
}

impl Rotary {
    /// For texts of at most `tokens` tokens.
    pub fn new(b: &Builder, frequencies: &[f32], tokens: usize) -> Self {
        let table = |f: fn(f32) -> f32| {
            let angles = (0..tokens).flat_map(|at| frequencies.iter().map(move |frequency| at as f32 * frequency));
            b.g.constant(&[tokens, frequencies.len()], &angles.map(f).collect::<Vec<_>>())
        };
        Rotary { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// Queries or keys `[tokens, heads · width]`, turned by where their tokens stand.
    pub fn turn(&self, b: &Builder, x: Value) -> Value {
        b.g.rotary(x, b.layout.positions(), self.cos, self.sin)
    }
}

/// Theta, from `rope_parameters` of transformers 5 or the older field `name`.
///
/// # Errors
/// The positions are scaled in some way, or a field is no number.
pub fn theta(settings: &Settings, name: &'static str, default: f32) -> Result<f32, String> {
    let parameters = settings.object("rope_parameters")?;
    plain(&parameters)?;
    parameters.positive(&["rope_theta"], settings.positive(&[name, "rope_theta"], default)?).and_then(above_zero)
}

/// Refuses ways of scaling positions.
///
/// # Errors
/// `rope_type` is another than `default`.
pub fn plain(parameters: &Settings) -> Result<(), String> {
    parameters.expect("rope_type", "default")?;
    parameters.expect("partial_rotary_factor", 1.0)
}

/// `theta`, which must not be 0.
///
/// # Errors
/// It is.
pub fn above_zero(theta: f32) -> Result<f32, String> {
    if theta > 0.0 { Ok(theta) } else { Err("`rope_theta` is 0".into()) }
}

/// The length of a head, which must be even to be turned in pairs.
///
/// # Errors
/// It is odd.
pub fn check_width(width: usize) -> Result<(), String> {
    if width.is_multiple_of(2) { Ok(()) } else { Err(format!("heads of {width} numbers cannot be turned in pairs")) }
}
