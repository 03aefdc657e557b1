//! How far a training is, and how it went so far.

use std::collections::BTreeMap;

use serde::Serialize;

use super::device::LossScale;

/// What a step came to; the same whether or not the training was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Passed {
    /// The mean over the step's batches.
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Of all texts.
    pub tokens: usize,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// After this many steps.
    pub step: usize,
    pub metrics: BTreeMap<String, f64>,
    /// The figure by which the best weights are chosen.
    pub score: f64,
}

/// See the [module](self).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Of every step.
    pub steps: Vec<Passed>,
    pub evaluations: Vec<Evaluation>,
    /// How losses in half precision are scaled.
    pub loss_scale: Option<LossScale>,
}

impl Progress {
    /// Steps that are done.
    pub fn done(&self) -> usize {
        self.steps.len()
    }

    /// Whether the weights as they are have been evaluated.
    pub fn is_evaluated(&self) -> bool {
        self.evaluations.last().is_some_and(|evaluation| evaluation.step == self.done())
    }

    /// The number of the best evaluation, the first of several equally good ones.
    pub fn best(&self) -> Option<usize> {
        let better = |best: Option<usize>, (number, evaluation): (usize, &Evaluation)| match best {
            Some(best) if evaluation.score <= self.evaluations[best].score => Some(best),
            _ => Some(number),
        };
        self.evaluations.iter().enumerate().fold(None, better)
    }

    /// Whether the last `patience` evaluations brought nothing better; never when `patience` is 0.
    pub fn is_exhausted(&self, patience: usize) -> bool {
        let since = self.best().map_or(0, |best| self.evaluations.len() - 1 - best);
        patience > 0 && since >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_from_the_best() {
        let mut progress = Progress::default();
        let exhausted: Vec<bool> = [0.3, 0.4, 0.4, 0.2, 0.5, 0.1, 0.1]
            .into_iter()
            .enumerate()
            .map(|(step, score)| {
                progress.evaluations.push(Evaluation { step, metrics: BTreeMap::new(), score });
                progress.is_exhausted(2)
            })
            .collect();
        assert_eq!(exhausted, [false, false, false, true, false, false, true]);
        assert_eq!(progress.best(), Some(4));
        assert!(!progress.is_exhausted(0));
    }
}
