//! Reductions and normalizations.

use super::super::graph::{Attribute, Value};
use super::super::shape::{DataType, Dim};
use super::call::{Call, int};
use super::importer::{Importer, Outcome};
use super::known::Element;

type Result<T> = std::result::Result<T, String>;

/// All reductions; the axes are an attribute or, since version 18, an input.
pub fn reduce(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, g) = (call.input(0)?, im.g);
    let rank = g.rank(x);
    let axes = match (call.ints("axes")?, call.optional(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => im.ints(axes).ok_or("its axes are known only when it runs")?,
        (None, None) => Vec::new(),
    };
    if axes.is_empty() && call.int("noop_with_empty_axes", 0)? != 0 {
        return Ok(vec![x]);
    }
    let mut axes: Vec<usize> = axes.iter().map(|&a| call.axis(a, rank)).collect::<Result<_>>()?;
    if axes.is_empty() {
        axes = (0..rank).collect();
    }
    axes.sort_unstable();
    axes.dedup();
    let along: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
    let kept = if axes.is_empty() { x } else { kept(im, call, x, &along)? };
    Ok(vec![if call.int("keepdims", 1)? != 0 || axes.is_empty() { kept } else { im.g.squeeze(kept, &axes) }])
}

/// The reduction, with the reduced dimensions kept as 1.
fn kept(im: &mut Importer, call: &Call, x: Value, axes: &[i64]) -> Result<Value> {
    let g = im.g;
    if g.data_type(x) != DataType::F32 {
        let mut shape = g.shape(x);
        for &axis in axes {
            shape[axis as usize] = Dim::Fixed(1);
        }
        let along = im.integers(&[axes.len()], axes.to_vec());
        let known = product(im, call, x);
        return Ok(im.emit(call, &[x, along], &[int("keepdims", 1)], Outcome::new(g.data_type(x), shape).knowing(known)));
    }
    Ok(match call.op {
        "ReduceL2" => g.norm_over(x, axes),
        "ReduceSumSquare" => g.reduce("ReduceSum", g.mul(x, x), axes),
        "ReduceLogSumExp" => {
            let largest = g.stop_gradient(g.reduce("ReduceMax", x, axes));
            g.add(g.log(g.reduce("ReduceSum", g.exp(g.sub(x, largest)), axes)), largest)
        }
        op => g.reduce(op, x, axes),
    })
}

/// The product of sizes.
fn product(im: &Importer, call: &Call, x: Value) -> Option<Vec<Element>> {
    let elements = im.known(x).filter(|_| call.op == "ReduceProd" && im.g.rank(x) == 1)?;
    Some(vec![elements.iter().fold(Element::Int(1), |a, b| super::known::combine("Mul", &a, b))])
}

/// `ArgMax` and `ArgMin`.
pub fn arg(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let mut shape = im.g.shape(x);
    let axis = call.axis(call.int("axis", 0)?, shape.len())?;
    let keep = call.int("keepdims", 1)?;
    if keep != 0 {
        shape[axis] = Dim::Fixed(1);
    } else {
        shape.remove(axis);
    }
    let last = ("select_last_index", Attribute::Int(call.int("select_last_index", 0)?));
    let attributes = [int("axis", axis), ("keepdims", Attribute::Int(keep)), last];
    Ok(vec![im.emit(call, &[x], &attributes, Outcome::new(DataType::I64, shape))])
}

/// `CumSum`.
pub fn running(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, axis) = (call.input(0)?, call.input(1)?);
    let attributes = ["exclusive", "reverse"].map(|name| Ok((name, Attribute::Int(call.int(name, 0)?))));
    let attributes: Vec<_> = attributes.into_iter().collect::<Result<_>>()?;
    let (data_type, shape) = (im.g.data_type(x), im.g.shape(x));
    Ok(vec![im.emit(call, &[x, axis], &attributes, Outcome::new(data_type, shape))])
}

/// `Softmax` and `LogSoftmax`.
pub fn softmax(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let axis = call.axis(call.int("axis", -1)?, im.g.rank(x))?;
    let shape = im.g.shape(x);
    Ok(vec![im.emit(call, &[x], &[int("axis", axis)], Outcome::new(DataType::F32, shape))])
}

/// `LayerNormalization` over the last dimension.
pub fn layer_norm(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    last_axis(im, call, x)?;
    Ok(vec![im.g.layer_norm_of(x, call.input(1)?, call.optional(2), call.float("epsilon", 1e-5)?)])
}

fn last_axis(im: &Importer, call: &Call, x: Value) -> Result<()> {
    let rank = im.g.rank(x);
    if call.axis(call.int("axis", -1)?, rank)? + 1 != rank {
        return Err("it is supported over the last dimension only".into());
    }
    Ok(())
}

/// `x / √(mean x² + epsilon) · scale` over the last dimension.
pub fn rms_norm(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, scale, g) = (call.input(0)?, call.input(1)?, im.g);
    last_axis(im, call, x)?;
    let square = g.add(g.mean(g.mul(x, x), -1), g.scalar(call.float("epsilon", 1e-5)?));
    Ok(vec![g.mul(g.div(x, g.sqrt(square)), scale)])
}
