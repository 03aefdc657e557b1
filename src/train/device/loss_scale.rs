//! The factor of losses in half precision, in which gradients of 6e-8 and less would be 0 (Micikevicius et al., "Mixed Precision Training", 2018).

use serde::{Deserialize, Serialize};

/// What it begins with, and where it ends.
const FIRST: f64 = 65536.0;
const LARGEST: f64 = 16_777_216.0;
/// Steps without an overflow after which it doubles.
const PATIENCE: u32 = 2000;

/// See the [module](self). Powers of two, so that dividing by it is exact.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    factor: f64,
    /// Steps since it changed.
    steps: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale { factor: FIRST, steps: 0 }
    }
}

impl LossScale {
    pub fn factor(self) -> f64 {
        self.factor
    }

    /// After a step whose gradients were finite.
    pub fn passed(&mut self) {
        self.steps += 1;
        if self.steps == PATIENCE {
            *self = LossScale { factor: (self.factor * 2.0).min(LARGEST), steps: 0 };
        }
    }

    /// After gradients that were not. Says whether it could be halved; when not, the gradients themselves are no numbers.
    pub fn overflowed(&mut self) -> bool {
        let can = self.factor > 1.0;
        *self = LossScale { factor: (self.factor / 2.0).max(1.0), steps: 0 };
        can
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_at_once_and_doubles_after_2000_steps() {
        let mut scale = LossScale::default();
        assert!(scale.overflowed() && scale.overflowed());
        assert_eq!(scale.factor(), 16384.0);
        (0..1999).for_each(|_| scale.passed());
        assert_eq!(scale.factor(), 16384.0);
        scale.passed();
        assert_eq!(scale.factor(), 32768.0);
        (0..1999).for_each(|_| scale.passed());
        assert!(scale.overflowed());
        (0..1999).for_each(|_| scale.passed());
        assert_eq!(scale.factor(), 16384.0);
        let halvings = (0..100).take_while(|_| scale.overflowed()).count();
        assert_eq!((halvings, scale.factor()), (14, 1.0));
    }
}
