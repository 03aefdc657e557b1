//! Which batches make which step.

use std::ops::Range;

/// The steps of a training: each takes the gradients of `accumulation` batches of an epoch, the last of an epoch those that are left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    accumulation: usize,
    /// Batches of each epoch, and the number of the steps before it.
    epochs: Vec<(usize, usize)>,
    total: usize,
}

/// What a step takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    /// From 0.
    pub epoch: usize,
    /// Of the epoch's batches.
    pub batches: Range<usize>,
}

impl Plan {
    /// For epochs of so many batches.
    pub fn new(batches: impl IntoIterator<Item = usize>, accumulation: usize) -> Self {
        let accumulation = accumulation.max(1);
        let mut plan = Plan { accumulation, epochs: Vec::new(), total: 0 };
        for count in batches {
            plan.epochs.push((count, plan.total));
            plan.total += count.div_ceil(accumulation);
        }
        plan
    }

    /// The steps of all epochs.
    pub fn total(&self) -> usize {
        self.total
    }

    /// What step `number`, from 0, takes; `None` after the last one.
    pub fn step(&self, number: usize) -> Option<Portion> {
        let epoch = self.epochs.partition_point(|(_, before)| *before <= number).checked_sub(1)?;
        let (count, before) = self.epochs.get(epoch)?;
        let from = (number - before) * self.accumulation;
        (from < *count).then(|| Portion { epoch, batches: from..(from + self.accumulation).min(*count) })
    }

    /// Whether an epoch is over after `steps` steps.
    pub fn ends_epoch(&self, steps: usize) -> bool {
        steps == self.total || self.epochs.iter().any(|(_, before)| *before == steps && steps > 0)
    }

    /// The steps of each epoch.
    pub fn epochs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.epochs.iter().map(|(count, before)| *before..before + count.div_ceil(self.accumulation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_taken_once_in_order() {
        for accumulation in [1, 2, 3, 7] {
            let counts = [5, 4, 6];
            let plan = Plan::new(counts, accumulation);
            let portions: Vec<Portion> = (0..plan.total()).map(|number| plan.step(number).unwrap()).collect();
            assert_eq!(plan.step(plan.total()), None);
            for (epoch, count) in counts.into_iter().enumerate() {
                let batches = portions.iter().filter(|p| p.epoch == epoch).flat_map(|p| p.batches.clone());
                assert_eq!(batches.collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            }
            let ends: Vec<usize> = (0..=plan.total()).filter(|&steps| plan.ends_epoch(steps)).collect();
            assert_eq!(ends, plan.epochs().map(|steps| steps.end).collect::<Vec<_>>());
        }
    }
}
