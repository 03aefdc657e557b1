//! Which points a sweep has: every combination of values, or some that are drawn.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Number, Value};

use super::{Axis, Choices, Random, SweepError};

/// A sweep of more points is refused.
pub const MOST_POINTS: usize = 10_000;
/// Tries in a row, for each point that is to be drawn, to find one that was not drawn before.
const TRIES: usize = 100;

/// The points, each with a value for every axis in their order: every combination, the last axis changing fastest, or with `random` so many
/// different ones that are drawn. What repeats is not drawn: every point that is drawn is repeated with each of its values, unless
/// there are no other axes. The same axes and seed give the same points.
///
/// # Errors
/// There are too many points, or not as many different ones as are to be drawn.
pub fn points(axes: &[Axis], random: Option<&Random>) -> Result<Vec<Vec<Value>>, SweepError> {
    if let Some(random) = random {
        return drawn(axes, random);
    }
    let mut lists = Vec::new();
    for axis in axes {
        match &axis.choices {
            Choices::Values(values) => lists.push(values.as_slice()),
            Choices::Uniform(_) | Choices::Log(_) => {
                let message = format!("axis `{}` is drawn at random; say how many points with `--random N`", axis.name);
                return Err(SweepError(message));
            }
        }
    }
    grid(&lists)
}

fn grid(lists: &[&[Value]]) -> Result<Vec<Vec<Value>>, SweepError> {
    let count = lists.iter().fold(1u128, |count, list| count.saturating_mul(list.len() as u128));
    bounded(count)?;
    let mut points = vec![Vec::new()];
    for list in lists {
        let longer = |point: &Vec<Value>| -> Vec<Vec<Value>> {
            list.iter().map(|value| point.iter().chain([value]).cloned().collect()).collect()
        };
        points = points.iter().flat_map(longer).collect();
    }
    Ok(points)
}

fn bounded(count: u128) -> Result<(), SweepError> {
    if count <= MOST_POINTS as u128 {
        return Ok(());
    }
    let message = format!(
        "these axes have {count} points, and a sweep may have {MOST_POINTS}; give fewer values, or draw some with `--random N`"
    );
    Err(SweepError(message))
}

fn drawn(axes: &[Axis], random: &Random) -> Result<Vec<Vec<Value>>, SweepError> {
    let repeated = |axis: &Axis| axis.repeats && matches!(axis.choices, Choices::Values(_));
    let all_repeat = axes.iter().all(repeated);
    let is_drawn = |axis: &Axis| all_repeat || !repeated(axis);
    let repeats: Vec<&[Value]> = axes
        .iter()
        .filter_map(|axis| match &axis.choices {
            Choices::Values(values) if !is_drawn(axis) => Some(values.as_slice()),
            _ => None,
        })
        .collect();
    let repeats = grid(&repeats)?;
    bounded((random.draws as u128).saturating_mul(repeats.len() as u128))?;
    let mut rng = ChaCha8Rng::seed_from_u64(random.seed);
    let mut different: Vec<Vec<Value>> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut tries = 0;
    while different.len() < random.draws {
        let point: Vec<Value> = axes.iter().filter(|axis| is_drawn(axis)).map(|axis| draw(&axis.choices, &mut rng)).collect();
        if seen.insert(Value::Array(point.clone()).to_string()) {
            different.push(point);
            tries = 0;
        } else if tries == TRIES * (random.draws + 10) {
            let count = different.len();
            return Err(SweepError(format!("these axes have only {count} different points, not {}; draw fewer", random.draws)));
        }
        tries += 1;
    }
    let whole = |point: &Vec<Value>, repeat: &Vec<Value>| {
        let (mut point, mut repeat) = (point.iter().cloned(), repeat.iter().cloned());
        axes.iter().filter_map(|axis| if is_drawn(axis) { point.next() } else { repeat.next() }).collect()
    };
    Ok(different.iter().flat_map(|point| repeats.iter().map(move |repeat| whole(point, repeat))).collect())
}

fn draw(choices: &Choices, rng: &mut ChaCha8Rng) -> Value {
    // 53 bits: every number of that many digits in [0, 1) is as likely as the other.
    let mut share = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let number = |drawn: f64, [low, high]: [f64; 2]| {
        Number::from_f64(four_digits(drawn).clamp(low, high)).map_or(Value::Null, Value::Number)
    };
    match choices {
        Choices::Uniform([low, high]) => number(low + (high - low) * share(), [*low, *high]),
        Choices::Log([low, high]) => number((low.ln() + (high.ln() - low.ln()) * share()).exp(), [*low, *high]),
        Choices::Values(values) => {
            let at = if values.is_empty() { 0 } else { rng.random_range(0..values.len()) };
            values.get(at).cloned().unwrap_or_default()
        }
    }
}

/// Rounded to four significant digits, which is what people want to read and type.
fn four_digits(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;

    fn axis(name: &str, choices: Choices) -> Axis {
        Axis { name: name.into(), path: format!("params.{name}"), repeats: name == "seed", choices }
    }

    fn listed(name: &str, values: &[i64]) -> Axis {
        axis(name, Choices::Values(values.iter().map(|&v| json!(v)).collect()))
    }

    #[test]
    fn a_grid_has_every_combination() {
        let points = points(&[listed("a", &[1, 2]), listed("seed", &[7, 8, 9])], None).unwrap();
        assert_eq!(json!(points), json!([[1, 7], [1, 8], [1, 9], [2, 7], [2, 8], [2, 9]]));
        let many: Vec<i64> = (0..101).collect();
        let message = super::points(&[listed("a", &many), listed("b", &many)], None).unwrap_err().to_string();
        insta::assert_snapshot!(message, @"these axes have 10201 points, and a sweep may have 10000; give fewer values, or draw some with `--random N`");
    }

    #[test]
    fn draws_are_reproducible_different_and_within_their_bounds() {
        let axes = [axis("lr", Choices::Log([1e-6, 1e-3])), axis("m", Choices::Uniform([0.0, 1.0])), listed("seed", &[1, 2])];
        let random = Random { draws: 500, seed: 3 };
        let points = super::points(&axes, Some(&random)).unwrap();
        assert_eq!(points, super::points(&axes, Some(&random)).unwrap());
        assert_ne!(points, super::points(&axes, Some(&Random { seed: 4, ..random })).unwrap());
        assert_eq!(points.len(), 1000, "each is repeated with both seeds");
        assert_eq!(points.iter().map(|p| json!(p).to_string()).collect::<HashSet<_>>().len(), 1000);
        let column = |i: usize| points.iter().map(|p| p[i].as_f64().unwrap()).collect::<Vec<f64>>();
        let share = |column: &[f64], below: f64| column.iter().filter(|&&x| x < below).count() as f64 / column.len() as f64;
        let (rates, margins) = (column(0), column(1));
        assert!(rates.iter().all(|x| (1e-6..=1e-3).contains(x)) && margins.iter().all(|x| (0.0..=1.0).contains(x)));
        // The middle of the logarithms is at 3.16e-5; 500 draws are within 0.1 of a half but for one seed in a million.
        assert!((share(&rates, 3.162e-5) - 0.5).abs() < 0.1 && (share(&margins, 0.5) - 0.5).abs() < 0.1);
    }

    #[test]
    fn choices_are_drawn_without_doubles() {
        let axes = [listed("a", &[1, 2, 3]), listed("b", &[1, 2])];
        let all = points(&axes, Some(&Random { draws: 6, seed: 0 })).unwrap();
        assert_eq!(all.iter().map(|p| json!(p).to_string()).collect::<HashSet<_>>().len(), 6);
        let message = points(&axes, Some(&Random { draws: 7, seed: 0 })).unwrap_err().to_string();
        insta::assert_snapshot!(message, @"these axes have only 6 different points, not 7; draw fewer");
        let seeds = points(&[listed("seed", &[1, 2, 3, 4])], Some(&Random { draws: 2, seed: 0 })).unwrap();
        assert_eq!(seeds.len(), 2, "what repeats is drawn when there is nothing else");
        let message = points(&[axis("lr", Choices::Log([0.1, 1.0]))], None).unwrap_err().to_string();
        insta::assert_snapshot!(message, @"axis `lr` is drawn at random; say how many points with `--random N`");
    }
}
