//! What is known, while a graph is imported, of the whole numbers that it computes: exports compute shapes when they run, and
//! the gradient rules want them as early as they can be had.

use super::super::shape::Dim;

/// A whole number (a boolean is 0 or 1).
#[derive(Debug, Clone, PartialEq)]
pub enum Element {
    Int(i64),
    /// The size of a dimension.
    Size(Dim),
    Unknown,
}

/// The elements of tensors with more are not followed.
pub const MOST: usize = 4096;

impl Element {
    pub fn int(&self) -> Option<i64> {
        if let Element::Int(i) = self { Some(*i) } else { None }
    }
}

impl From<&Dim> for Element {
    fn from(dim: &Dim) -> Self {
        match dim {
            Dim::Fixed(n) => i64::try_from(*n).map_or(Element::Unknown, Element::Int),
            dim => Element::Size(dim.clone()),
        }
    }
}

/// `a op b`.
pub fn combine(op: &str, a: &Element, b: &Element) -> Element {
    use Element::*;
    let sure = |i: Option<i64>| i.map_or(Unknown, Int);
    let truth = |t: bool| Int(t.into());
    match (op, a, b) {
        ("Add", Int(a), Int(b)) => sure(a.checked_add(*b)),
        ("Sub", Int(a), Int(b)) => sure(a.checked_sub(*b)),
        ("Mul", Int(a), Int(b)) => sure(a.checked_mul(*b)),
        ("Div", Int(a), Int(b)) => sure(a.checked_div(*b)),
        ("Min", Int(a), Int(b)) => Int(*a.min(b)),
        ("Max", Int(a), Int(b)) => Int(*a.max(b)),
        ("Add", x, Int(0)) | ("Add", Int(0), x) | ("Sub", x, Int(0)) => x.clone(),
        ("Mul", x, Int(1)) | ("Mul", Int(1), x) | ("Div", x, Int(1)) => x.clone(),
        ("Mul", _, Int(0)) | ("Mul", Int(0), _) => Int(0),
        ("Max" | "Min", Size(a), Size(b)) if a == b => Size(a.clone()),
        // Sizes are not negative.
        ("Max", Size(x), Int(i)) | ("Max", Int(i), Size(x)) if *i <= 0 => Size(x.clone()),
        ("Equal", Int(a), Int(b)) => truth(a == b),
        ("Equal", Size(a), Size(b)) if a == b => truth(true),
        ("Equal", Size(_), Int(i)) | ("Equal", Int(i), Size(_)) if *i < 0 => truth(false),
        ("Less", Int(a), Int(b)) => truth(a < b),
        ("LessOrEqual", Int(a), Int(b)) => truth(a <= b),
        ("Greater", Int(a), Int(b)) => truth(a > b),
        ("GreaterOrEqual", Int(a), Int(b)) => truth(a >= b),
        ("And", Int(a), Int(b)) => truth(*a != 0 && *b != 0),
        ("Or", Int(a), Int(b)) => truth(*a != 0 || *b != 0),
        ("Xor", Int(a), Int(b)) => truth((*a != 0) != (*b != 0)),
        _ => Unknown,
    }
}

/// Element `i` of values that broadcast to one dimension of `count`.
pub fn at(elements: &[Element], i: usize) -> Element {
    let i = if elements.len() == 1 { 0 } else { i };
    elements.get(i).cloned().unwrap_or(Element::Unknown)
}

/// The shape that `x`, of shape `from`, gets by a `Reshape` to `target`, as far as it can be told: 0 stands for the dimension
/// of `x` at its place (unless `zero` says that it is a size), −1 for what is left.
pub fn reshaped(from: &[Dim], target: &[Element], zero: bool, mut unknown: impl FnMut() -> Dim) -> Result<Vec<Dim>, String> {
    let mut open = None;
    let mut shape = Vec::with_capacity(target.len());
    for (i, element) in target.iter().enumerate() {
        shape.push(match element {
            Element::Int(0) if !zero => from.get(i).cloned().ok_or("a 0 in the new shape has no dimension to stand for")?,
            Element::Int(-1) => {
                if open.replace(i).is_some() {
                    return Err("the new shape has more than one -1".into());
                }
                Dim::Fixed(1)
            }
            Element::Int(n) => Dim::Fixed(usize::try_from(*n).map_err(|_| format!("the new shape has a size of {n}"))?),
            Element::Size(dim) => dim.clone(),
            Element::Unknown => unknown(),
        });
    }
    let Some(open) = open else { return Ok(shape) };
    // Sizes that both have cancel out.
    let mut left: Vec<Dim> = from.to_vec();
    let (mut divisor, mut named) = (1usize, false);
    for dim in shape.iter().enumerate().filter(|(i, _)| *i != open).map(|(_, d)| d) {
        match (dim, left.iter().position(|d| d == dim)) {
            (_, Some(at)) => drop(left.remove(at)),
            (Dim::Fixed(n), None) => divisor = divisor.saturating_mul(*n),
            (_, None) => named = true,
        }
    }
    let fixed = left.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 }).try_fold(1usize, usize::checked_mul);
    let mut names = left.iter().filter(|d| !matches!(d, Dim::Fixed(_)));
    let quotient = fixed.filter(|n| divisor > 0 && n.is_multiple_of(divisor)).map(|n| n / divisor);
    shape[open] = match (quotient, names.next(), names.next()) {
        (Some(n), None, None) if !named => Dim::Fixed(n),
        (Some(1), Some(name), None) if !named => name.clone(),
        _ => unknown(),
    };
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape;

    #[test]
    fn what_a_reshape_leaves_open_is_found() {
        let to = |from: Vec<Dim>, target: &[Element]| reshaped(&from, target, false, || Dim::Unknown(7)).unwrap();
        let (rows, int) = (Element::Size("rows".into()), Element::Int);
        assert_eq!(to(shape!["rows", "seq", 384], &[rows.clone(), int(-1), int(12), int(32)]), shape!["rows", "seq", 12, 32]);
        assert_eq!(to(shape!["rows", "seq", 384], &[int(0), int(0), int(12), int(-1)]), shape!["rows", "seq", 12, 32]);
        assert_eq!(
            to(shape!["rows", 12, "seq", 32], &[int(-1), Element::Size("seq".into()), int(32)]),
            vec![Dim::Unknown(7), "seq".into(), 32.into()]
        );
        assert_eq!(to(shape![4, 6], &[int(-1)]), shape![24]);
        assert!(reshaped(&[4].map(Dim::from), &[int(-1), int(-1)], false, || Dim::Unknown(1)).is_err());
        assert!(reshaped(&[4].map(Dim::from), &[int(-2)], false, || Dim::Unknown(1)).is_err());
        assert!(reshaped(&[0].map(Dim::from), &[int(-1), int(0)], true, || Dim::Unknown(1)).is_ok());
    }

    #[test]
    fn numbers_that_are_too_large_are_not_known() {
        assert_eq!(combine("Mul", &Element::Int(i64::MAX), &Element::Int(2)), Element::Unknown);
        assert_eq!(combine("Div", &Element::Int(1), &Element::Int(0)), Element::Unknown);
        assert_eq!(combine("Div", &Element::Int(i64::MIN), &Element::Int(-1)), Element::Unknown);
    }
}
