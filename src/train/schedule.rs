//! The learning rate over the steps.

/// The factor of the learning rate at `step` (from 0) of `total`: from 0 linearly to 1 at `warmup`, then linearly to 0 at `total`
/// (`get_linear_schedule_with_warmup` of transformers).
pub fn linear(step: usize, warmup: usize, total: usize) -> f64 {
    if step < warmup {
        step as f64 / warmup as f64
    } else {
        total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_and_falls() {
        let factors: Vec<f64> = (0..=6).map(|s| linear(s, 2, 6)).collect();
        assert_eq!(factors, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
    }

    #[test]
    fn warmup_longer_than_the_training_never_arrives() {
        assert_eq!(linear(3, 10, 4), 0.3);
        assert_eq!(linear(0, 0, 4), 1.0);
    }
}
