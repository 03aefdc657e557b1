//! Operators that work element by element.

use super::super::graph::{Attribute, Value};
use super::super::shape::{DataType, Dim};
use super::call::Call;
use super::importer::{Importer, Outcome};
use super::known::{Element, at, combine};
use super::tensor;

type Result<T> = std::result::Result<T, String>;

/// Arithmetic of two or, where the operator takes them, more values of one type.
pub fn arithmetic(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut result = call.input(0)?;
    if call.inputs.len() != 2 && !["Min", "Max"].contains(&call.op) {
        return Err(format!("it has {} inputs instead of two", call.inputs.len()));
    }
    for i in 1..call.inputs.len() {
        let mut b = call.input(i)?;
        let data_type = im.g.data_type(result);
        // The exponent may be of another type than the base.
        if call.op == "Pow" && im.g.data_type(b) != data_type {
            b = im.g.cast(b, data_type);
        }
        result = binary(im, call, result, b, data_type)?;
    }
    if im.g.data_type(result) == DataType::Bool {
        return Err("it computes with booleans".into());
    }
    Ok(vec![result])
}

/// `a op b`, a boolean.
pub fn comparison(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    Ok(vec![binary(im, call, a, b, DataType::Bool)?])
}

fn binary(im: &mut Importer, call: &Call, a: Value, b: Value, data_type: DataType) -> Result<Value> {
    if im.g.data_type(a) != im.g.data_type(b) {
        return Err("its inputs are of different types".into());
    }
    let shape = im.broadcast(&im.g.shape(a), &im.g.shape(b))?;
    let known = elements(im, &[a, b], &shape, |e| combine(call.op, &e[0], &e[1]));
    Ok(im.emit(call, &[a, b], &[], Outcome::new(data_type, shape).knowing(known)))
}

/// What is known of the elements of a result of at most one dimension, from those of its operands.
fn elements(im: &Importer, operands: &[Value], shape: &[Dim], f: impl Fn(&[Element]) -> Element) -> Option<Vec<Element>> {
    let count = match shape {
        [] => 1,
        [Dim::Fixed(n)] if *n <= super::known::MOST => *n,
        _ => return None,
    };
    let known: Vec<Option<&[Element]>> = operands.iter().map(|&v| im.known(v)).collect();
    let of = |i: usize| known.iter().map(|k| k.map_or(Element::Unknown, |k| at(k, i))).collect::<Vec<_>>();
    (0..count).map(|i| Some(f(&of(i)))).collect()
}

/// An operator of one value that keeps its type.
pub fn unary(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let (data_type, shape) = (im.g.data_type(x), im.g.shape(x));
    let known = elements(im, &[x], &shape, |e| match (call.op, &e[0]) {
        ("Neg", Element::Int(i)) => i.checked_neg().map_or(Element::Unknown, Element::Int),
        ("Not", Element::Int(i)) => Element::Int((*i == 0).into()),
        ("Abs", Element::Size(dim)) => Element::Size(dim.clone()),
        ("Abs", Element::Int(i)) => i.checked_abs().map_or(Element::Unknown, Element::Int),
        _ => Element::Unknown,
    });
    Ok(vec![im.emit(call, &[x], &[], Outcome::new(data_type, shape).knowing(known))])
}

/// A question about one value.
pub fn test(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let attributes: Vec<_> = ["detect_negative", "detect_positive"]
        .into_iter()
        .filter(|_| call.op == "IsInf")
        .map(|name| Ok((name, Attribute::Int(call.int(name, 1)?))))
        .collect::<Result<_>>()?;
    let shape = im.g.shape(x);
    Ok(vec![im.emit(call, &[x], &attributes, Outcome::new(DataType::Bool, shape))])
}

/// The value itself: `Identity`, and `Dropout` as it is when nothing is trained.
pub fn same(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let training = call.optional(2).filter(|_| call.op == "Dropout");
    if training.is_some_and(|t| im.ints(t) != Some(vec![0])) {
        return Err("it was exported for training; export the model in evaluation mode".into());
    }
    Ok(vec![call.input(0)?])
}

/// Floats stay what they are, as there is but one type of them.
pub fn cast(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let kind = i32::try_from(call.int("to", 0)?).unwrap_or(0);
    Ok(vec![cast_to(im, x, tensor::data_type(kind)?)])
}

/// To the type of the second input.
pub fn cast_like(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, like) = (call.input(0)?, call.input(1)?);
    let to = im.g.data_type(like);
    Ok(vec![cast_to(im, x, to)])
}

fn cast_to(im: &mut Importer, x: Value, to: DataType) -> Value {
    let from = im.g.data_type(x);
    if from == to {
        return x;
    }
    let known = im.known(x).map(<[Element]>::to_vec);
    if let (DataType::I64, Some(ints)) = (to, im.ints(x))
        && let Some(dims) = fixed(&im.g.shape(x))
    {
        return im.integers(&dims, ints);
    }
    let value = im.g.cast(x, to);
    match to {
        DataType::I64 => im.know(value, known),
        DataType::Bool => {
            let truth = |e: &Element| e.int().map_or(Element::Unknown, |i| Element::Int((i != 0).into()));
            im.know(value, known.map(|k| k.iter().map(truth).collect()));
        }
        // Imported graphs have no others.
        DataType::F32 | DataType::F16 | DataType::Bf16 | DataType::I32 => {}
    }
    value
}

/// The sizes, when all are known.
pub fn fixed(shape: &[Dim]) -> Option<Vec<usize>> {
    shape.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect()
}

/// `Where`.
pub fn select(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (condition, a, b) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if im.g.data_type(condition) != DataType::Bool || im.g.data_type(a) != im.g.data_type(b) {
        return Err("its inputs are of different types".into());
    }
    let wide = im.broadcast(&im.g.shape(a), &im.g.shape(b))?;
    let shape = im.broadcast(&wide, &im.g.shape(condition))?;
    let known = elements(im, &[condition, a, b], &shape, |e| match e {
        [Element::Int(0), _, b] => b.clone(),
        [Element::Int(_), a, _] => a.clone(),
        [_, a, b] if a == b => a.clone(),
        _ => Element::Unknown,
    });
    Ok(vec![im.emit(call, &[condition, a, b], &[], Outcome::new(im.g.data_type(a), shape).knowing(known))])
}

/// `Clip`, with bounds that are left out replaced by those of the type.
pub fn clip(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let data_type = im.g.data_type(x);
    let bound = |im: &mut Importer, i: usize, float: f32, int: i64| match (call.optional(i), data_type) {
        (Some(bound), _) => bound,
        (None, DataType::F32) => im.g.scalar(float),
        (None, _) => im.integers(&[], vec![int]),
    };
    let (low, high) = (bound(im, 1, f32::NEG_INFINITY, i64::MIN), bound(im, 2, f32::INFINITY, i64::MAX));
    let shape = im.g.shape(x);
    Ok(vec![im.emit(call, &[x, low, high], &[], Outcome::new(data_type, shape))])
}

/// `Gelu` of ONNX and of ONNX Runtime: exact, or by the hyperbolic tangent.
pub fn gelu(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    Ok(vec![match call.text("approximate")? {
        "" | "none" => im.g.gelu(x),
        "tanh" => im.g.gelu_by_tanh(x),
        other => return Err(format!("`approximate` is `{other}`")),
    }])
}

/// `Mod`.
pub fn modulo(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let shape = im.broadcast(&im.g.shape(a), &im.g.shape(b))?;
    let fmod = [("fmod", Attribute::Int(call.int("fmod", 0)?))];
    Ok(vec![im.emit(call, &[a, b], &fmod, Outcome::new(im.g.data_type(a), shape))])
}
