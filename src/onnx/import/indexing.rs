//! Operators that take or put elements by their places.

use super::super::graph::{Attribute, Value};
use super::super::shape::{DataType, Dim, show};
use super::call::{Call, int};
use super::importer::{Importer, Outcome};
use super::known::{Element, MOST};

type Result<T> = std::result::Result<T, String>;

/// `Slice`: one node an axis.
pub fn slice(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, starts, ends) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let count = im.sizes(starts)?.len();
    let rank = im.g.rank(x);
    let axes = match call.optional(3) {
        Some(axes) => im.ints(axes).ok_or("its axes are known only when it runs")?,
        None => (0..count as i64).collect(),
    };
    let (starts, ends) = (im.sizes(starts)?, im.sizes(ends)?);
    let steps = match call.optional(4) {
        Some(steps) => im.sizes(steps)?,
        None => vec![Element::Int(1); count],
    };
    if [axes.len(), ends.len(), steps.len()] != [count; 3] {
        return Err("starts, ends, axes and steps are not as many".into());
    }
    let mut value = x;
    for (i, &axis) in axes.iter().enumerate() {
        let part = Part { axis: call.axis(axis, rank)?, start: &starts[i], end: &ends[i], step: &steps[i] };
        value = one(im, call, value, i, count, &part)?;
    }
    Ok(vec![value])
}

/// What is taken along one axis.
struct Part<'a> {
    axis: usize,
    start: &'a Element,
    end: &'a Element,
    step: &'a Element,
}

fn one(im: &mut Importer, call: &Call, x: Value, i: usize, count: usize, part: &Part) -> Result<Value> {
    let mut shape = im.g.shape(x);
    let size = shape[part.axis].clone();
    // Bounds in the range of the size, where both are numbers.
    let bound = |e: &Element| match (e, &size) {
        (Element::Int(n), Dim::Fixed(size)) => {
            let size = *size as i64;
            Element::Int(if *n < 0 { n.saturating_add(size).max(0) } else { (*n).min(size) })
        }
        // All exports write these for the end of a dimension.
        (Element::Int(n), dim) if *n >= i64::from(i32::MAX) => Element::Size(dim.clone()),
        (e, _) => e.clone(),
    };
    let forward = *part.step == Element::Int(1);
    let (start, end) = if forward { (bound(part.start), bound(part.end)) } else { (part.start.clone(), part.end.clone()) };
    shape[part.axis] = match (&start, &end) {
        (Element::Int(a), Element::Int(b)) if forward && (matches!(size, Dim::Fixed(_)) || (*a >= 0 && a == b)) => {
            Dim::Fixed(usize::try_from(b - a).unwrap_or(0))
        }
        (Element::Int(0), Element::Size(dim)) if forward => {
            if *dim == size {
                return Ok(x);
            }
            dim.clone()
        }
        _ => im.g.unknown(),
    };
    if forward && shape[part.axis] == size && matches!(size, Dim::Fixed(_)) && start == Element::Int(0) {
        return Ok(x);
    }
    let known = im.known(x).filter(|_| shape.len() == 1).and_then(|k| match (&start, &end) {
        (Element::Int(a), Element::Int(b)) if forward => {
            k.get(usize::try_from(*a).ok()?..usize::try_from(*b).ok()?).map(<[Element]>::to_vec)
        }
        _ => None,
    });
    let mut inputs = vec![x];
    for (input, element) in [(1, &start), (2, &end)] {
        inputs.push(number(im, call, input, i, count, element)?);
    }
    inputs.push(im.integers(&[1], vec![part.axis as i64]));
    if !forward {
        inputs.push(number(im, call, 4, i, count, part.step)?);
    }
    Ok(im.emit(call, &inputs, &[], Outcome::new(im.g.data_type(x), shape).knowing(known)))
}

/// Element `i` of an input of `count` elements, `[1]`.
fn number(im: &mut Importer, call: &Call, input: usize, i: usize, count: usize, element: &Element) -> Result<Value> {
    if let Element::Int(n) = element {
        return Ok(im.integers(&[1], vec![*n]));
    }
    let all = call.input(input)?;
    if count == 1 {
        return Ok(all);
    }
    let at = im.integers(&[1], vec![i as i64]);
    Ok(im.g.node("Gather", "", &[all, at], &[int("axis", 0)], DataType::I64, vec![Dim::Fixed(1)]))
}

/// `Gather`. One place that is known is a slice, whose gradient is cheaper.
pub fn gather(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, ids) = (call.input(0)?, call.input(1)?);
    let from = im.g.shape(x);
    let axis = call.axis(call.int("axis", 0)?, from.len())?;
    let (data_type, places) = (im.g.data_type(x), im.g.shape(ids));
    let shape: Vec<Dim> = from[..axis].iter().chain(&places).chain(&from[axis + 1..]).cloned().collect();
    let at = im.ints(ids);
    if let (DataType::F32, [], Some([place])) = (data_type, &places[..], at.as_deref())
        && *place >= 0
        && !im.g.is_input(x)
    {
        let bounds = [*place, place.saturating_add(1), axis as i64].map(|n| im.g.integers(&[n]));
        let mut one = from;
        one[axis] = Dim::Fixed(1);
        let slice = im.g.node("Slice", "", &[x, bounds[0], bounds[1], bounds[2]], &[], data_type, one);
        return Ok(vec![im.g.squeeze(slice, &[axis])]);
    }
    let known = im.known(x).filter(|_| from.len() == 1).and_then(|elements| {
        let size = elements.len() as i64;
        let one = |&i: &i64| elements.get(usize::try_from(if i < 0 { i.saturating_add(size) } else { i }).ok()?).cloned();
        at?.iter().map(one).collect()
    });
    Ok(vec![im.emit(call, &[x, ids], &[int("axis", axis)], Outcome::new(data_type, shape).knowing(known))])
}

/// `GatherElements`.
pub fn gather_elements(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, at) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(call.int("axis", 0)?, im.g.rank(x))?;
    let (data_type, shape) = (im.g.data_type(x), im.g.shape(at));
    Ok(vec![im.emit(call, &[x, at], &[int("axis", axis)], Outcome::new(data_type, shape))])
}

/// `GatherND`.
pub fn gather_nd(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, at) = (call.input(0)?, call.input(1)?);
    let (from, places) = (im.g.shape(x), im.g.shape(at));
    let batch = usize::try_from(call.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let Some(Dim::Fixed(depth)) = places.last() else { return Err("the length of its places is not known".into()) };
    let rest = batch.checked_add(*depth).and_then(|n| from.get(n..));
    let rest = rest.ok_or_else(|| format!("places of {depth} numbers in {}", show(&from)))?;
    let shape = places[..places.len() - 1].iter().chain(rest).cloned().collect();
    let (data_type, batch) = (im.g.data_type(x), int("batch_dims", batch));
    Ok(vec![im.emit(call, &[x, at], &[batch], Outcome::new(data_type, shape))])
}

/// `ScatterND` and `ScatterElements`, as masks and shapes use them; there is no gradient through them.
pub fn scatter(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let inputs = [call.input(0)?, call.input(1)?, call.input(2)?];
    let reduction = match call.text("reduction")? {
        "" | "none" => "none",
        "add" => "add",
        "mul" => "mul",
        "max" => "max",
        "min" => "min",
        other => return Err(format!("`reduction` is `{other}`")),
    };
    let (data_type, shape) = (im.g.data_type(inputs[0]), im.g.shape(inputs[0]));
    let mut attributes = vec![("reduction", Attribute::Text(reduction))];
    if call.op == "ScatterElements" {
        attributes.push(int("axis", call.axis(call.int("axis", 0)?, shape.len())?));
    }
    Ok(vec![im.emit(call, &inputs, &attributes, Outcome::new(data_type, shape))])
}

/// `NonZero`.
pub fn non_zero(im: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.input(0)?;
    let rank = im.g.rank(x);
    let known = im.ints(x).filter(|k| rank == 1 && k.len() <= MOST);
    if let Some(elements) = known {
        let at: Vec<i64> = elements.iter().enumerate().filter(|(_, e)| **e != 0).map(|(i, _)| i as i64).collect();
        return Ok(vec![im.integers(&[1, at.len()], at)]);
    }
    let shape = vec![Dim::Fixed(rank), im.g.unknown()];
    Ok(vec![im.emit(call, &[x], &[], Outcome::new(DataType::I64, shape))])
}
