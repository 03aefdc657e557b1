//! ONNX Runtime's own operators that its optimizer writes, taken apart into ONNX's.

use super::super::graph::Value;
use super::call::Call;
use super::importer::Importer;

type Result<T> = std::result::Result<T, String>;

/// GELU by the hyperbolic tangent, of `x` and a bias if there is one.
pub fn fast_gelu(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let x = call.optional(1).map_or(x, |bias| im.g.add(x, bias));
    Ok(vec![im.g.gelu_by_tanh(x)])
}

/// GELU of `x` and a bias.
pub fn bias_gelu(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    Ok(vec![im.g.gelu(im.g.add(call.input(0)?, call.input(1)?))])
}

/// `x · sigmoid(alpha · x)`.
pub fn quick_gelu(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, g) = (call.input(0)?, im.g);
    Ok(vec![g.mul(x, g.sigmoid(g.scale(x, call.float("alpha", 1.702)?)))])
}

/// Layer normalization of `input + skip (+ bias)`; the fourth output is the sum.
pub fn skip_layer_norm(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let g = im.g;
    let sum = g.add(call.input(0)?, call.input(1)?);
    let sum = call.optional(4).map_or(sum, |bias| g.add(sum, bias));
    let normal = g.layer_norm_of(sum, call.input(2)?, call.optional(3), call.float("epsilon", 1e-12)?);
    // Mean and deviation, which only training would use, are not there.
    let unused = call.node.output.iter().skip(1).take(2).all(String::is_empty);
    Ok(if unused { vec![normal, sum, sum, sum] } else { vec![normal] })
}
