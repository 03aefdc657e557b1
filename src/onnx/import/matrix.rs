//! Matrix products.

use super::super::graph::Value;
use super::super::shape::Dim;
use super::call::Call;
use super::importer::Importer;

type Result<T> = std::result::Result<T, String>;

/// `MatMul`: a value of one dimension counts as a row on the left and as a column on the right.
pub fn matmul(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let (ranks, g) = ((im.g.rank(a), im.g.rank(b)), im.g);
    if ranks.0 == 0 || ranks.1 == 0 {
        return Err("a factor is a scalar".into());
    }
    let left = if ranks.0 == 1 { g.unsqueeze(a, &[0]) } else { a };
    let right = if ranks.1 == 1 { g.unsqueeze(b, &[1]) } else { b };
    let product = if g.rank(right) == 2 { g.times(left, right) } else { g.matmul(left, right, false, false, 1.0) };
    let rank = g.rank(product);
    let mut dropped = Vec::new();
    if ranks.0 == 1 {
        dropped.push(rank - 2);
    }
    if ranks.1 == 1 {
        dropped.push(rank - 1);
    }
    Ok(vec![if dropped.is_empty() { product } else { g.squeeze(product, &dropped) }])
}

/// ONNX Runtime's `FusedMatMul`.
pub fn fused(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    if call.int("transBatchA", 0)? != 0 || call.int("transBatchB", 0)? != 0 {
        return Err("`transBatchA` and `transBatchB` are not supported".into());
    }
    let (ta, tb) = (call.int("transA", 0)? != 0, call.int("transB", 0)? != 0);
    Ok(vec![im.g.matmul(call.input(0)?, call.input(1)?, ta, tb, call.float("alpha", 1.0)?)])
}

/// `alpha · op(a) · op(b) + beta · c`.
pub fn gemm(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (a, b, c, g) = (call.input(0)?, call.input(1)?, call.optional(2), im.g);
    let (ta, tb) = (call.int("transA", 0)? != 0, call.int("transB", 0)? != 0);
    let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
    if g.rank(a) != 2 || g.rank(b) != 2 {
        return Err("its factors must have two dimensions".into());
    }
    let columns = g.shape(b)[usize::from(!tb)].clone();
    let plain = c.is_none_or(|c| beta == 1.0 && g.shape(c) == [columns]);
    if plain && !ta && alpha == 1.0 && !matches!(g.shape(a)[1], Dim::Unknown(_)) {
        let inputs: Vec<Value> = [a, b].into_iter().chain(c).collect();
        return Ok(vec![g.gemm(&inputs, false, tb)]);
    }
    let product = g.matmul(a, b, ta, tb, alpha);
    let Some(c) = c else { return Ok(vec![product]) };
    Ok(vec![g.add(product, if beta == 1.0 { c } else { g.scale(c, beta) })])
}
