//! The learning rate over the steps.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It falls in a straight line to 0.
    #[default]
    Linear,
    /// It falls to 0 as half a cosine: slowly, fast, slowly.
    Cosine,
    /// It stays.
    Constant,
}

impl Decay {
    pub fn name(self) -> &'static str {
        match self {
            Decay::Linear => "linear",
            Decay::Cosine => "cosine",
            Decay::Constant => "constant",
        }
    }
}

/// The learning rate over a training, as a factor of its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    pub decay: Decay,
    /// Steps over which the rate rises.
    pub warmup: usize,
    pub total: usize,
}

impl Schedule {
    /// The factor at `step` (from 0): from 0 linearly to 1 at `warmup`, then to 0 at `total` as [`Decay`] says
    /// (`get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup` and `get_constant_schedule_with_warmup` of transformers).
    pub fn factor(&self, step: usize) -> f64 {
        let done = || (step - self.warmup) as f64 / self.total.saturating_sub(self.warmup).max(1) as f64;
        match self.decay {
            Decay::Cosine if step >= self.warmup => (0.5 * (1.0 + (PI * done()).cos())).max(0.0),
            Decay::Constant if step >= self.warmup => 1.0,
            _ => linear(step, self.warmup, self.total),
        }
    }
}

/// From 0 linearly to 1 at `warmup`, then linearly to 0 at `total`.
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

    fn factors(decay: Decay, warmup: usize, total: usize) -> Vec<f64> {
        (0..=total).map(|step| Schedule { decay, warmup, total }.factor(step)).collect()
    }

    #[test]
    fn rises_and_falls() {
        assert_eq!(factors(Decay::Linear, 2, 6), [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_eq!(factors(Decay::Constant, 2, 4), [0.0, 0.5, 1.0, 1.0, 1.0]);
        // torch.optim.lr_scheduler with transformers' lambda, lr 1.
        let expected = [0.0, 0.5, 1.0, 0.853_553_390_593_273_7, 0.5, 0.146_446_609_406_726_24, 0.0];
        for (found, expected) in factors(Decay::Cosine, 2, 6).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found} instead of {expected}");
        }
    }

    #[test]
    fn warmup_longer_than_the_training_never_arrives() {
        assert_eq!(Schedule { decay: Decay::Linear, warmup: 10, total: 4 }.factor(3), 0.3);
        assert_eq!(Schedule { decay: Decay::Linear, warmup: 0, total: 4 }.factor(0), 1.0);
    }
}
