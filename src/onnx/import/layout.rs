//! Shapes, and operators that move elements without changing them.

use super::super::graph::{Attribute, Value};
use super::super::shape::{DataType, Dim, show};
use super::call::{Call, int};
use super::importer::{Importer, Outcome};
use super::known::{Element, MOST, combine, reshaped};
use super::tensor::{Data, Tensor};

type Result<T> = std::result::Result<T, String>;

/// `Constant`, in each of the attributes that it may have.
pub fn constant(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let tensor = |dims: Vec<usize>, data| Tensor { dims, data };
    let has = |name: &str| call.node.attribute.iter().any(|a| a.name == name);
    let tensor = if let Some(tensor) = call.tensor("value")? {
        tensor
    } else if has("value_int") {
        tensor(Vec::new(), Data::Integers(vec![call.int("value_int", 0)?]))
    } else if has("value_float") {
        tensor(Vec::new(), Data::Floats(vec![call.float("value_float", 0.0)?]))
    } else if let Some(ints) = call.ints("value_ints")? {
        tensor(vec![ints.len()], Data::Integers(ints.to_vec()))
    } else {
        return Err("it has no value of a type that is supported".into());
    };
    Ok(vec![im.constant(&tensor)])
}

/// `Shape`, of all dimensions or of some.
pub fn shape(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let dims = im.g.shape(x);
    let rank = dims.len() as i64;
    let clamp = |i: i64| if i < 0 { i.saturating_add(rank).max(0) } else { i.min(rank) } as usize;
    let (start, end) = (clamp(call.int("start", 0)?), clamp(call.int("end", i64::MAX)?));
    let part: Vec<Element> = dims.get(start..end.max(start)).unwrap_or_default().iter().map(Element::from).collect();
    let outcome = Outcome::new(DataType::I64, vec![Dim::Fixed(part.len())]).knowing(Some(part));
    Ok(vec![im.emit(call, &[x], &[int("start", start), int("end", end.max(start))], outcome)])
}

/// `Size`.
pub fn size(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let count = im.g.shape(x).iter().fold(Element::Int(1), |n, d| combine("Mul", &n, &Element::from(d)));
    Ok(vec![im.emit(call, &[x], &[], Outcome::new(DataType::I64, Vec::new()).knowing(Some(vec![count])))])
}

/// `Reshape`.
pub fn reshape(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, target) = (call.input(0)?, call.input(1)?);
    let zero = call.int("allowzero", 0)?;
    let sizes = im.sizes(target)?;
    let shape = reshaped(&im.g.shape(x), &sizes, zero != 0, || im.g.unknown())?;
    Ok(vec![to_shape(im, call, x, shape, target, zero)])
}

/// To a shape that is written down where its sizes are names and numbers, and read off `target` when the graph runs where not.
fn to_shape(im: &mut Importer, call: &Call, x: Value, shape: Vec<Dim>, target: Value, zero: i64) -> Value {
    let known = im.known(x).filter(|_| shape.len() <= 1).map(<[Element]>::to_vec);
    let unknown = shape.iter().filter(|d| matches!(d, Dim::Unknown(_))).count();
    let data_type = im.g.data_type(x);
    let whole = im.g.shape(x).iter().chain(&shape).all(|d| matches!(d, Dim::Fixed(_)));
    if data_type != DataType::F32 || unknown > 1 || shape.contains(&Dim::Fixed(0)) {
        let outcome = Outcome::new(data_type, shape).knowing(known);
        return im.emit(call, &[x, target], &[("allowzero", Attribute::Int(zero))], outcome);
    }
    if whole && im.g.shape(x) == shape { x } else { im.g.reshape(x, shape) }
}

/// `Flatten` to two dimensions.
pub fn flatten(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let shape = im.g.shape(x);
    let axis = call.int("axis", 1)?;
    let axis = if axis == shape.len() as i64 { shape.len() } else { call.axis(axis, shape.len())? };
    let side = |dims: &[Dim]| {
        let size = dims.iter().fold(Element::Int(1), |n, d| combine("Mul", &n, &Element::from(d)));
        im.dim(&size)
    };
    let flat = vec![side(&shape[..axis])?, side(&shape[axis..])?];
    if flat.iter().filter(|d| matches!(d, Dim::Unknown(_))).count() > 1 {
        return Err(format!("{} cannot be flattened at {axis} before its sizes are known", show(&shape)));
    }
    Ok(vec![im.g.reshape(x, flat)])
}

/// `Transpose`; without an order, of all dimensions.
pub fn transpose(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let rank = im.g.rank(x);
    let order: Vec<usize> = match call.ints("perm")? {
        Some(perm) => perm.iter().map(|&i| call.axis(i, rank)).collect::<Result<_>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(format!("{order:?} is no order of {rank} dimensions"));
    }
    Ok(vec![im.g.transpose(x, &order)])
}

/// The axes of `Squeeze` and `Unsqueeze`, ascending.
fn axes(im: &Importer, call: &Call, rank: usize) -> Result<Option<Vec<usize>>> {
    let Some(axes) = call.optional(1) else { return Ok(None) };
    let axes = im.ints(axes).ok_or("its axes are known only when it runs")?;
    let mut axes: Vec<usize> = axes.iter().map(|&a| call.axis(a, rank)).collect::<Result<_>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|w| w[0] == w[1]) {
        return Err("it names an axis twice".into());
    }
    Ok(Some(axes))
}

/// `Squeeze`.
pub fn squeeze(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let shape = im.g.shape(x);
    let ones = || shape.iter().enumerate().filter(|(_, d)| **d == Dim::Fixed(1)).map(|(i, _)| i).collect();
    let axes = axes(im, call, shape.len())?.unwrap_or_else(ones);
    if let Some(&axis) = axes.iter().find(|&&a| matches!(shape[a], Dim::Fixed(n) if n != 1)) {
        return Err(format!("axis {axis} of {} is not 1", show(&shape)));
    }
    let kept: Vec<Dim> = shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect();
    moved(im, call, x, kept, &axes)
}

/// `Unsqueeze`.
pub fn unsqueeze(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, count) = (call.input(0)?, call.input(1)?);
    let mut shape = im.g.shape(x);
    let axes = axes(im, call, shape.len() + im.sizes(count)?.len())?.unwrap_or_default();
    for &axis in &axes {
        shape.insert(axis.min(shape.len()), Dim::Fixed(1));
    }
    moved(im, call, x, shape, &axes)
}

fn moved(im: &mut Importer, call: &Call, x: Value, shape: Vec<Dim>, axes: &[usize]) -> Result<Vec<Value>> {
    let known = im.known(x).map(<[Element]>::to_vec);
    let along = im.integers(&[axes.len()], axes.iter().map(|&a| a as i64).collect());
    Ok(vec![im.emit(call, &[x, along], &[], Outcome::new(im.g.data_type(x), shape).knowing(known))])
}

/// `Expand`.
pub fn expand(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, target) = (call.input(0)?, call.input(1)?);
    let wanted: Vec<Dim> = im.sizes(target)?.iter().map(|e| im.dim(e)).collect::<Result<_>>()?;
    let from = im.g.shape(x);
    let shape = im.broadcast(&from, &wanted)?;
    if shape == from {
        return Ok(vec![x]);
    }
    let count = if let [Dim::Fixed(n)] = shape[..] { n.min(MOST + 1) } else { 0 };
    let known = im.known(x).filter(|k| k.len() == 1).map(|k| vec![k[0].clone(); count]);
    Ok(vec![im.emit(call, &[x, target], &[], Outcome::new(im.g.data_type(x), shape).knowing(known.filter(|k| !k.is_empty())))])
}

/// `Tile` of shapes and masks; there is no gradient through it.
pub fn tile(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, repeats) = (call.input(0)?, call.input(1)?);
    let times = im.sizes(repeats)?;
    let from = im.g.shape(x);
    if times.len() != from.len() {
        return Err(format!("{} repeats for {} dimensions", times.len(), from.len()));
    }
    if times.iter().all(|t| *t == Element::Int(1)) {
        return Ok(vec![x]);
    }
    let sizes = from.iter().zip(&times).map(|(d, t)| im.dim(&combine("Mul", &Element::from(d), t)));
    let shape = sizes.collect::<Result<_>>()?;
    Ok(vec![im.emit(call, &[x, repeats], &[], Outcome::new(im.g.data_type(x), shape))])
}

/// `Concat`.
pub fn concat(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let values: Vec<Value> = (0..call.inputs.len()).map(|i| call.input(i)).collect::<Result<_>>()?;
    let head = *values.first().ok_or("it has no inputs")?;
    let mut shape = im.g.shape(head);
    let axis = call.axis(call.int("axis", 0)?, shape.len())?;
    let mut size = Element::Int(0);
    for &value in &values {
        let other = im.g.shape(value);
        if other.len() != shape.len() || im.g.data_type(value) != im.g.data_type(head) {
            return Err("its inputs do not fit together".into());
        }
        size = combine("Add", &size, &Element::from(&other[axis]));
        for (i, dim) in other.iter().enumerate().filter(|(i, _)| *i != axis) {
            match (&shape[i], dim) {
                (Dim::Fixed(a), Dim::Fixed(b)) if a != b => return Err("its inputs do not fit together".into()),
                // A number says more than a name.
                (_, Dim::Fixed(_)) => shape[i] = dim.clone(),
                _ => {}
            }
        }
    }
    shape[axis] = im.dim(&size)?;
    let elements = |&v: &Value| match (im.known(v), &im.g.shape(v)[..]) {
        (Some(known), _) => Some(known.to_vec()),
        (None, [Dim::Fixed(n)]) if *n <= MOST => Some(vec![Element::Unknown; *n]),
        _ => None,
    };
    let known = values.iter().map(elements).collect::<Option<Vec<_>>>().map(|parts| parts.concat());
    let outcome = Outcome::new(im.g.data_type(head), shape).knowing(known);
    Ok(vec![im.emit(call, &values, &[int("axis", axis)], outcome)])
}

/// `Split`, into equal parts or parts of given sizes.
pub fn split(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let shape = im.g.shape(x);
    let axis = call.axis(call.int("axis", 0)?, shape.len())?;
    let parts = call.outputs();
    let sizes: Vec<Element> = match (call.optional(1), &shape[axis]) {
        (Some(sizes), _) => im.sizes(sizes)?,
        // The last part is smaller when they cannot be equal.
        (None, Dim::Fixed(n)) => {
            let each = n.div_ceil(parts.max(1));
            (0..parts).map(|i| Element::Int(n.saturating_sub(i * each).min(each) as i64)).collect()
        }
        (None, _) => return Err("it splits a dimension whose size is known only when it runs".into()),
    };
    if sizes.len() != parts {
        return Err(format!("{} sizes for {parts} parts", sizes.len()));
    }
    let given = match (call.optional(1), sizes.iter().map(Element::int).collect::<Option<Vec<i64>>>()) {
        (_, Some(ints)) => im.integers(&[parts], ints),
        (Some(sizes), None) => sizes,
        (None, None) => return Err("its parts have no sizes".into()),
    };
    let data_type = im.g.data_type(x);
    let outputs = sizes.iter().map(|size| {
        let mut part = shape.clone();
        part[axis] = im.dim(size)?;
        Ok((data_type, part))
    });
    let outputs = outputs.collect::<Result<_>>()?;
    let values = im.g.node_many("Split", "", &[x, given], &[int("axis", axis)], outputs);
    Ok(values)
}

/// `ConstantOfShape`.
pub fn constant_of_shape(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let target = call.input(0)?;
    let sizes = im.sizes(target)?;
    let shape: Vec<Dim> = sizes.iter().map(|e| im.dim(e)).collect::<Result<_>>()?;
    let data = call.tensor("value")?.map_or(Data::Floats(vec![0.0]), |t| t.data);
    let known = match (&data, &shape[..]) {
        (Data::Integers(i), [Dim::Fixed(n)]) if *n <= MOST => i.first().map(|&i| vec![Element::Int(i); *n]),
        (Data::Integers(i), []) => i.first().map(|&i| vec![Element::Int(i)]),
        _ => None,
    };
    let value = [("value", Attribute::Element(data.data_type(), data.bytes()))];
    Ok(vec![im.emit(call, &[target], &value, Outcome::new(data.data_type(), shape).knowing(known))])
}

/// `Range`.
pub fn range(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let inputs = [call.input(0)?, call.input(1)?, call.input(2)?];
    let data_type = im.g.data_type(inputs[0]);
    let element = |v: Value| im.known(v).and_then(|k| k.first().cloned()).unwrap_or(Element::Unknown);
    let [start, limit, step] = inputs.map(element);
    let mut known = None;
    let dim = match (&start, &limit, &step) {
        (Element::Int(0), Element::Size(dim), Element::Int(1)) => dim.clone(),
        (Element::Int(start), Element::Int(limit), Element::Int(step)) if *step != 0 => {
            let span = i128::from(*limit) - i128::from(*start);
            let count = usize::try_from((span + i128::from(*step) - i128::from(step.signum())) / i128::from(*step)).unwrap_or(0);
            if count <= MOST {
                known = Some((0..count as i64).map(|i| Element::Int(start.wrapping_add(i.wrapping_mul(*step)))).collect());
            }
            Dim::Fixed(count)
        }
        _ => im.g.unknown(),
    };
    Ok(vec![im.emit(call, &inputs, &[], Outcome::new(data_type, vec![dim]).knowing(known))])
}

/// `Trilu`.
pub fn triangle(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let inputs: Vec<Value> = std::iter::once(x).chain(call.optional(1)).collect();
    let upper = [("upper", Attribute::Int(call.int("upper", 1)?))];
    let (data_type, shape) = (im.g.data_type(x), im.g.shape(x));
    Ok(vec![im.emit(call, &inputs, &upper, Outcome::new(data_type, shape))])
}
