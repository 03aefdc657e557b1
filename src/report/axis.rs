//! Axes with ticks at round numbers.

/// An axis: its range, and where its ticks are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    pub ticks: Vec<f64>,
    decimals: usize,
}

impl Axis {
    /// An axis for `values`, with some room and five to ten ticks at round numbers.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
        let room = if high > low { (high - low) * 0.09 } else { around(high) };
        let (low, high) = (low - room, high + room);
        let rough = (high - low) / 8.0;
        let power = 10f64.powi(rough.log10().floor() as i32);
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(10.0 * power);
        let ticks = ((low / step).ceil() as i64..=(high / step).floor() as i64).map(|i| i as f64 * step).collect();
        Axis { low, high, ticks, decimals: (-step.log10().floor()).clamp(0.0, 12.0) as usize }
    }

    /// From 0 at the low end to 1 at the high end.
    pub fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    pub fn label(&self, tick: f64) -> String {
        let text = if self.decimals > 4 { format!("{tick:.1e}") } else { format!("{tick:.*}", self.decimals) };
        text.replace('-', "−")
    }
}

/// The room around a single value.
fn around(value: f64) -> f64 {
    if value == 0.0 { 0.5 } else { (value.abs() / 2.0).min(0.5) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::of([-0.42, 0.61].into_iter());
        let labels: Vec<String> = axis.ticks.iter().map(|t| axis.label(*t)).collect();
        assert_eq!(labels, ["−0.4", "−0.2", "0.0", "0.2", "0.4", "0.6"]);
        assert!(axis.ticks.iter().all(|t| (0.0..=1.0).contains(&axis.share(*t))));
        let small = Axis::of([0.0, 2e-5].into_iter());
        assert_eq!(small.label(small.ticks[1]), "5.0e−6");
        // One value, and none.
        for axis in [Axis::of([3.0].into_iter()), Axis::of(std::iter::empty())] {
            assert!(axis.ticks.len() >= 4 && axis.high - axis.low == 1.0, "{axis:?}");
        }
    }
}
